"""Data sets by name."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from dsna_lib.config.recipe import DataConfig, Source
from dsna_lib.data import folder, minivoc, voc
from dsna_lib.data.pictures import Pictures, subset
from dsna_lib.engine.errors import SettingError

SOURCES: tuple[str, ...] = get_args(Source)


def load(source: str, split: str, root: str | Path | None = None, drawn: int = DataConfig.drawn) -> Pictures:
    """Load a split of a data set by name.

    Args:
        source: ``"minivoc"`` (drawn on first use), ``"voc"`` or ``"folder"`` (these two need `root`).
        split: such as ``"train"``, ``"train_aug"`` or ``"val"``; ``"all"`` of a folder, whatever its splits.
        root: where the data set lies.
        drawn: how many training pictures ``minivoc`` has, where it lies in the cache.

    Raises:
        SettingError: unknown source, or no root where one is needed.

    Example:
        >>> len(load("minivoc", "val"))  # doctest: +SKIP
        100
    """
    if source not in SOURCES:
        raise SettingError(f"unknown data set {source!r}; choose one of {', '.join(SOURCES)}")
    if source == "minivoc":
        return minivoc.load(split, root=root, **({} if root else {"train": drawn}))
    if root is None:
        raise SettingError(f"the data set {source!r} needs its folder", "name it by `root`")
    if source == "voc":
        return voc.load(root, split)
    return folder.load(root, split=None if split == "all" else split)


def load_split(data: DataConfig, split: str, root: str | Path | None = None) -> Pictures:
    """A split of a recipe's data set, cut to its limit.

    Raises:
        SettingError: see :func:`load`; or the split lists no pictures.
    """
    pictures = load(data.source, split, root, data.drawn)
    if not len(pictures):
        raise SettingError(f"the split {split} of {root or data.source} lists no pictures")
    return subset(pictures, data.limit)


def one_sided(pictures: Pictures) -> list[str]:
    """A warning for each class that every picture shows: a classifier cannot learn what tells it from others."""
    everywhere = set(range(pictures.num_classes)).intersection(*(record.labels for record in pictures.records))
    names, count = [pictures.class_names[c] for c in sorted(everywhere)], len(pictures)
    return [
        f"all {count} pictures show {name}, so that nothing teaches what is no {name}: add pictures without it"
        for name in names
    ]
