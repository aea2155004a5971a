"""What Table IV prints of other methods, from the one place that holds it."""

from __future__ import annotations

from dsna_lib.paper import published


def printed(method: str, network: str | None = None) -> float:
    """The mean IoU on VOC val that the paper quotes for a method, in percent; of one network where it names several.

    Raises:
        KeyError: Table IV has no such method, or several rows of that name.

    Example:
        >>> printed("EM-Adapt")
        38.2
    """
    rows = [row for row in published("val") if row.method == method and network in (None, row.network)]
    found = [row.val for row in rows if row.val is not None]
    if len(found) != 1:
        raise KeyError(f"Table IV has {len(found)} rows of a method {method!r}")
    return found[0]
