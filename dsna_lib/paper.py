"""The numbers that the paper prints, in percent, and what it reads off them; ``paper.yaml`` holds them.

Source: Zhang et al., "Decoupled Spatial Neural Attention for Weakly Supervised Semantic Segmentation", Sec. IV. Tables
I and II and the single stream are measured on the 1,449 pictures of PASCAL VOC 2012 val with VGG-16; Tables III to VI
are the mean IoU of segmentation models, on val and on test. :data:`LATER` is not from the paper: what was published
since, each row with its own source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dsna_lib.data.voc import CLASS_NAMES


@dataclass(frozen=True)
class RegionMining:
    """A row of Table III: a segmentation model trained on one method's pseudo-annotations.

    Attributes:
        group: the paper's block: ``"SEC"``, ``"AE w/o PSL"`` or ``"ours"``.
        title: the row's title, the same as in the tables that are measured here.
        miou: mean IoU on val, in percent.
        quoted: the paper took the number from another paper instead of measuring it.
    """

    group: str
    title: str
    miou: float
    quoted: bool = True


@dataclass(frozen=True)
class Published:
    """A method's result on PASCAL VOC 2012: a row of Tables IV and V, or of :data:`LATER`.

    Attributes:
        method: the method's name.
        source: whose number it is: authors, venue, year and, in :data:`LATER`, the arXiv number where known.
        supervision: one of :data:`SUPERVISION`, the blocks of Tables IV and V, in their order; ``"masks"`` in
            ``FULL_SUPERVISION``.
        extra: what it learns from beside image labels, as the paper's column of comments says; None for nothing.
        val: mean IoU on val, in percent; None where none is printed (in :data:`LATER`: or none could be confirmed).
        test: the same on test.
        network: the segmentation model's backbone; None where the paper names none (in :data:`LATER`: or none could
            be confirmed).
        quoted: taken from another paper; False for what the DSNA paper measured itself.
        family: in :data:`LATER`, the idea that it shares with others, in a word or two; else None.
        weights: what the segmentation network was trained on before; None where no source of ours says it.
    """

    method: str
    source: str
    supervision: str
    extra: str | None = None
    val: float | None = None
    test: float | None = None
    network: str | None = None
    quoted: bool = True
    family: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Claim:
    """A relation between rows of a table, or what one of them is claimed to show.

    Attributes:
        table: name of the table.
        text: what is claimed.
        measure: the column that it is about.
        rows: titles of rows along which the measure is claimed to grow; of a single row it is claimed to be above 0.
        source: ``"paper"``, or ``"book"`` for a question that the paper raises but gives no numbers for.
        key: one of the ten that carry the paper.
    """

    table: str
    text: str
    measure: str
    rows: tuple[str, ...]
    source: str = "paper"
    key: bool = False


INTERACTIVE, EXTERNAL, LABELS = SUPERVISION = ("interactive", "image labels and external source", "image labels")
Scores = dict[str, float | None]

_PRINTED: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))

TABLE_I: dict[str, Scores] = _PRINTED["table_I"]
SINGLE_STREAM: Scores = _PRINTED["single_stream"]
TABLE_II: dict[float, Scores] = _PRINTED["table_II"]
TABLE_III = tuple(RegionMining(**row) for row in _PRINTED["table_III"])
# Title to mean IoU on val.
MIOU = {row.title: row.miou for row in TABLE_III}
SEGMENTATION = tuple(
    Published(supervision=supervision, **row) for supervision, rows in _PRINTED["segmentation"].items() for row in rows
)
LATER = tuple(
    Published(**row | {"supervision": EXTERNAL if "supervision" in row else LABELS}) for row in _PRINTED["later"]
)
# The same kind of network trained on masks: what the methods without masks are held against.
FULL_SUPERVISION = Published(supervision="masks", **_PRINTED["full_supervision"])
# Network and split to class to IoU of DSNA's segmentation model, and the mean IoU that is printed beside them.
TABLE_VI: dict[str, dict[str, float]] = {
    row: dict(zip(("background", *CLASS_NAMES), scores, strict=True)) for row, scores in _PRINTED["table_VI"].items()
}
TABLE_VI_MEAN: dict[str, float] = _PRINTED["table_VI_mean"]
CLAIMS = tuple(Claim(**claim | {"rows": tuple(claim["rows"])}) for claim in _PRINTED["claims"])


def published(split: str, rows: Iterable[Published] = SEGMENTATION) -> list[Published]:
    """The rows that have a number on a split, grouped by supervision in the order of the paper's blocks.

    Args:
        split: ``"val"`` for Table IV, ``"test"`` for Table V.
        rows: :data:`SEGMENTATION`, :data:`LATER` or both; within a group their order is kept.

    Returns:
        The rows; ``getattr(row, split)`` is a number in each.

    Raises:
        ValueError: another split.

    Example:
        >>> [(row.network, row.test) for row in published("test") if not row.quoted]
        [('VGG-16', 56.4), ('ResNet-101', 60.1)]
    """
    if split not in ("val", "test"):
        raise ValueError(f"unknown split {split!r}; published results are on 'val' or 'test'")
    numbered = (row for row in rows if getattr(row, split) is not None)
    return sorted(numbered, key=lambda row: SUPERVISION.index(row.supervision))
