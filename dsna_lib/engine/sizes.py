"""How large a picture may be shown to a network."""

from __future__ import annotations

from dsna_lib.engine.errors import SettingError

LARGEST = 32_768  # pixels a side: far beyond what fits into memory


def scaled(side: float, scale: float) -> float:
    """A side at a scale, in pixels; a SettingError refuses one at which no memory would do.

    Example:
        >>> scaled(224, 1.5)
        336.0
    """
    if not scale * side <= LARGEST:
        said = f"at scale {scale:g} a picture of {side:g} pixels a side would have more than {LARGEST:,}"
        raise SettingError(said, "lower `scales`" if scale > 1 else "lower `size`")
    return scale * side
