"""Tables as text: Markdown, LaTeX, CSV, or a pandas frame."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from dsna_lib.config.tables import Form
from dsna_lib.tables.definitions import TableError

if TYPE_CHECKING:
    import pandas

COLUMN_TITLES = {
    "precision": "precision",
    "recall": "recall",
    "iou": "IoU",
    "part": "discriminative part",
    "rest": "rest of the object",
    "whole": "whole object",
    "similarity": "similarity",
    "confused": "object pixels under another class",
    "several_iou": "IoU, pictures of several classes",
    "oracle_iou": "IoU at its best threshold (oracle)",
    "annotation": "IoU of the annotations",
    "single": "one scale",
    "multi": "several scales",
    "share": "share of the ceiling",
    "object": "any object, IoU",
}


def frame(values: Mapping[str, Any]) -> pandas.DataFrame:
    """A table's values as a pandas frame: one line a row, mean and std over seeds, the paper's beside them."""
    import pandas

    columns = [(name, what) for name in values["columns"] for what in ("mean", "std", "paper")]
    lines = [[row[what].get(name) for name, what in columns] for row in values["rows"]]
    names = pandas.MultiIndex.from_tuples([(COLUMN_TITLES[name], what) for name, what in columns])
    table = pandas.DataFrame(lines, [row["title"] for row in values["rows"]], names)
    return table.dropna(axis="columns", how="all").rename_axis("row")


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]], words: Collection[str] = ()) -> str:
    """A Markdown table, its cells by :func:`cell`; numbers are aligned to the right.

    The first column holds words, as do those named in `words`: they are aligned to the left.
    """
    unknown = [name for name in words if name not in head]
    if unknown:
        raise ValueError(f"no column is named {', '.join(map(repr, unknown))}; the columns are {', '.join(head)}")
    signs = ["---" if column == 0 or name in words else "---:" for column, name in enumerate(head)]
    lines = [list(head), signs, *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines) + "\n"


def cell(value: object) -> str:
    """A cell's text: numbers with one digit, None as a dash."""
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def render_table(values: Mapping[str, Any], form: str = "markdown") -> str:
    """A table's values as text, in percent: mean and standard deviation over seeds, the paper's beside them.

    Args:
        values: from :func:`dsna_lib.tables.run.summarize` or that of Table III.
        form: ``"markdown"``, ``"latex"`` (with the booktabs package) or ``"csv"``. Markdown names below the table what
            its trainings warn of.

    Raises:
        TableError: an unknown form.
    """
    if form == "latex":
        return frame(values).style.format(precision=1, na_rep="-").to_latex(hrules=True, multicol_align="c")
    if form == "csv":
        return frame(values).to_csv()
    if form != "markdown":
        raise TableError(f"unknown form {form!r}; choose one of {', '.join(get_args(Form))}")
    columns = values["columns"]
    printed = [name for name in columns if any(row["paper"].get(name) is not None for row in values["rows"])]
    head = ["", *(COLUMN_TITLES[name] for name in columns)]
    head += ["paper: " + " / ".join(COLUMN_TITLES[name] for name in printed)] if printed else []
    rows = []
    for row in values["rows"]:
        line = [row["title"], *(_spread(row["mean"].get(name), row["std"].get(name)) for name in columns)]
        theirs = " / ".join(cell(row["paper"].get(name)) for name in printed) if row["paper"] else None
        rows.append([*line, theirs] if printed else line)
    warnings = [f"- Warning: {warning}.\n" for warning in values.get("warnings", ())]
    return "".join([markdown(head, rows), *(["\n", *warnings] if warnings else [])])


def _spread(mean: float | None, std: float | None) -> str:
    return cell(mean) if std is None else f"{cell(mean)} ± {cell(std)}"


def render_difference(claim: Mapping[str, Any]) -> str:
    """By how many points a claim holds: the mean over trainings, and the interval where there are several."""
    said = f"{claim['difference']:+.1f}"
    return said if claim["low"] is None else f"{said} ({claim['low']:+.1f} to {claim['high']:+.1f})"


def render_chance(claim: Mapping[str, Any]) -> str:
    """The corrected p of a claim; a dash without one."""
    p = claim["corrected"]
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def render_claims(values: Mapping[str, Any]) -> str:
    """A Markdown table of the claims that a table's values answer; empty without any."""
    rows = [
        [claim["text"], claim["source"], render_difference(claim), render_chance(claim), claim["verdict"]]
        for claim in values["claims"]
    ]
    head = ["claim", "whose", "by how many points", "p", "here"]
    return markdown(head, rows, words=("whose", "here")) if rows else ""
