"""Tables IV to VI: what was published, beside what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsna_lib import paper
from dsna_lib.config import tables
from dsna_lib.engine.files import read_json
from dsna_lib.methods.dsna import DSNA
from dsna_lib.methods.full_supervision import FULL_SUPERVISION
from dsna_lib.tables.definitions import TableError
from dsna_lib.tables.render import markdown

OURS = DSNA["merged"]
NUMBER = int | float | None
ROW = {"title": str, "mean": {"iou": NUMBER}, "per_class": {str: NUMBER}}  # of Table III, as far as it is shown here
TITLES = {name: tables.TITLES[name] for name in ("IV", "V", "VI")}


def render_published(name: str, results: str | Path = "results") -> str:
    """Table IV, V or VI as Markdown, with what ``table_III_*.json`` in the folder of results measured.

    Raises:
        TableError: another name.
        FileError: a result that is damaged or no Table III.
    """
    if name not in TITLES:
        raise TableError(f"table {name!r} was not published so; choose one of {', '.join(TITLES)}")
    files = sorted(Path(results).glob("table_III_*.json"))
    here = {path.stem: read_json(path, {"values": {"rows": [ROW]}})["values"]["rows"] for path in files}
    photographs = {stem: rows for stem, rows in here.items() if "minivoc" not in stem}
    return _by_class(here) if name == "VI" else _by_supervision("val" if name == "IV" else "test", photographs)


def _by_supervision(split: str, here: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    rows = []
    for block, published in (("", paper.published(split)), ("later, ", paper.published(split, paper.LATER))):
        for row in published:
            name = row.method + (f" ({row.network})" if row.network else "") + ("" if row.quoted else ", the paper")
            rows.append([name, block + row.supervision, row.extra or "nothing", getattr(row, split), row.source])
    if split == "val":
        for stem, measured in here.items():
            rows += [
                [f"{row['title']}, here", paper.LABELS, "nothing", row["mean"]["iou"], f"{stem}.json"]
                for row in measured
                if row["title"] == OURS.title
            ]
    head = ["method", "learns from", "and from", f"mIoU, {split}", "source"]
    return markdown(head, rows, words=("learns from", "and from", "source"))


def _by_class(here: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    columns = {
        f"paper, {name}": values | {"mean": paper.TABLE_VI_MEAN[name]} for name, values in paper.TABLE_VI.items()
    }
    for stem, measured in here.items():
        for row in measured:
            if row["title"] in (OURS.title, FULL_SUPERVISION.title):
                title = f"{row['title']}, {stem.removeprefix('table_III_')}"
                columns[title] = row["per_class"] | {"mean": row["mean"]["iou"]}
    classes = list(dict.fromkeys(name for values in columns.values() for name in values if name != "mean"))
    rows = [[name, *(values.get(name) for values in columns.values())] for name in (*classes, "mean")]
    return markdown(["class", *columns], rows)
