"""What papers after the paper print of their methods, from the one place that holds it."""

from __future__ import annotations

from dsna_lib.paper import LATER


def printed_later(method: str) -> float | None:
    """The mean IoU on VOC val that a later paper prints of its method, in percent, with a network of its own choice.

    Raises:
        ValueError: there is no row, or there are several, of that name.

    Example:
        >>> printed_later("SEAM")
        64.5
    """
    (row,) = (row for row in LATER if row.method == method)
    return row.val
