"""Tables of maps as data: rows that say what is trained and how its maps are read, and columns.

:mod:`dsna_lib.tables.run` fills them in; Table III, whose rows are methods, is :mod:`dsna_lib.tables.segmentation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dsna_lib import paper
from dsna_lib.config.attention import HeadConfig
from dsna_lib.config.tables import TITLES
from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.fields import nearest
from dsna_lib.methods import dsna, rows
from dsna_lib.methods.dsna import DECOUPLED
from dsna_lib.tables.measure import MapProtocol


class TableError(DsnaError, ValueError):
    """No such table, row or number of seeds; the message lists what there is."""


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        title: its name, unique in its table.
        head: what is trained.
        protocol: how annotations are made of its maps.
        void: policy, see :class:`~dsna_lib.metrics.ConfusionMatrix`.
        paper: what the paper prints, measure to percent, None where it prints no number.
    """

    title: str
    head: HeadConfig = DECOUPLED
    protocol: MapProtocol = field(default_factory=MapProtocol)
    void: str = "false_negative"
    paper: Mapping[str, float | None] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Table:
    """Rows and columns; the columns are measures of :meth:`~dsna_lib.tables.measure.Measurement.scores`."""

    name: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = ("precision", "recall", "iou")

    def select(self, titles: Sequence[str]) -> Table:
        """The table with some of its rows only.

        Raises:
            TableError: a title that is none of its rows'.
        """
        known = [row.title for row in self.rows]
        for title in titles:
            if title not in known:
                raise TableError(f"table {self.name} has no row {title!r}; its rows are {'; '.join(known)}")
        return replace(self, rows=tuple(row for row in self.rows if row.title in titles))


_DSNA = tuple(Row(kind, protocol=MapProtocol(kind), paper=scores) for kind, scores in paper.TABLE_I.items())
_RATES = tuple(Row(f"{rate:g}", HeadConfig(dropout=rate), paper=scores) for rate, scores in paper.TABLE_II.items())
_SINGLE = Row("single stream", dsna.SINGLE_STREAM.head, MapProtocol("discriminative"), paper=paper.SINGLE_STREAM)
_PRINTED = {dsna.DSNA[kind].title: scores for kind, scores in paper.TABLE_I.items()}
_MINING = tuple(
    Row(method.title, method.head, MapProtocol(method.kind), paper=_PRINTED.get(method.title, {}))
    for method in rows.MINING
)
_SENSITIVITY = (
    Row("merged, all defaults"),
    Row("S min-maxed with its negative part", protocol=MapProtocol("merged, min-max")),
    Row("p-hat over the present classes", protocol=MapProtocol("merged, present")),
    Row("sigmoid instead of softmax", protocol=MapProtocol("merged, sigmoid")),
    Row("plain mean of A and S", protocol=MapProtocol("mean")),
    Row("larger of A and S", protocol=MapProtocol("maximum")),
    Row("A times the positive part of S", protocol=MapProtocol("product")),
    Row("threshold first, then enlarge", protocol=MapProtocol(upsample_first=False)),
    Row("scales 0.75, 1 and 1.5", protocol=MapProtocol(scales=(0.75, 1.0, 1.5))),
    Row("void counts as background", void="background"),
    Row("void left out", void="ignore"),
    Row("second dropout after F", HeadConfig(dropout_after="activation")),
    Row("expansive, all defaults", protocol=MapProtocol("expansive")),
    Row("discriminative, all defaults", protocol=MapProtocol("discriminative")),
    Row("discriminative, S min-maxed", protocol=MapProtocol("discriminative, min-max")),
)
_TABLES = (
    Table("I", TITLES["I"], _DSNA),
    Table("II", TITLES["II"], _RATES),
    Table("single-stream", TITLES["single-stream"], (_SINGLE, *_DSNA)),
    Table("methods", TITLES["methods"], _MINING, ("precision", "recall", "iou", "oracle_iou")),
    Table("parts", TITLES["parts"], _MINING, ("part", "rest", "whole", "precision")),
    Table("similarity", TITLES["similarity"], _MINING, ("similarity", "confused", "several_iou", "iou")),
    Table("sensitivity", TITLES["sensitivity"], _SENSITIVITY),
)
TABLES = {table.name: table for table in _TABLES}


def find_table(name: str) -> Table:
    """A table by its name.

    Raises:
        TableError: there is none.
    """
    if name not in TABLES:
        raise TableError(f"unknown table {name!r}{nearest(name, TABLES)}; choose one of {', '.join(TABLES)}")
    return TABLES[name]


def protocols_of(head: HeadConfig, *own: Table) -> list[MapProtocol]:
    """All protocols that any table, `own` ones included, asks of a head: measured together, in one pass."""
    tables = (*TABLES.values(), *own)
    return list(dict.fromkeys(row.protocol for table in tables for row in table.rows if row.head == head))
