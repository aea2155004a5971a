"""Data sets: PASCAL VOC (`voc`), the embedded drawn set (`minivoc`) and a user's own pictures (`folder`).

All three return the same thing, a :class:`~dsna_lib.data.pictures.Pictures` data set.
"""

from pathlib import Path

from dsna_lib.data.pictures import PictureError, Pictures, Record, read_image, read_mask, write_mask

__all__ = ["PictureError", "Pictures", "Record", "load", "read_image", "read_mask", "write_mask"]

SOURCES = ("minivoc", "voc", "folder")


def load(source: str, split: str, root: str | Path | None = None) -> Pictures:
    """Load a split of a data set by name.

    Args:
        source: ``"minivoc"`` (drawn on first use), ``"voc"`` or ``"folder"`` (these two need `root`).
        split: a split of that data set, such as ``"train"``, ``"train_aug"`` or ``"val"``. A folder
            without a ``split`` column has only ``"all"``.
        root: where the data set lies.

    Raises:
        ValueError: unknown source, or no root where one is needed.

    Example:
        >>> len(load("minivoc", "val"))  # doctest: +SKIP
        100
    """
    from dsna_lib.data import folder, minivoc, voc

    if source == "minivoc":
        return minivoc.load(split, root=root)
    if source not in SOURCES:
        raise ValueError(f"unknown data set {source!r}; choose one of {', '.join(SOURCES)}")
    if root is None:
        raise ValueError(f"the data set {source!r} needs its folder: pass --root (or root=...)")
    if source == "voc":
        return voc.load(root, split)
    return folder.load(root, split=None if split == "all" else split)
