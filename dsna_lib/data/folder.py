"""A user's own pictures: a folder with a table of image labels, and masks if there are any.

::

    my_pictures/
      labels.csv          file,labels
                          beach.jpg,person;dog
                          garden/cat.png,"cat, pottedplant"
      beach.jpg
      garden/cat.png
      masks/beach.png     optional: class indices, 255 is void

The table is UTF-8, with commas, semicolons or tabs between its columns (so that any spreadsheet's export is
fine); several labels of a picture are separated by ``;`` or ``,``. A column ``split`` may sort the rows
into ``train``, ``val`` and so on.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from dsna_lib.data import voc
from dsna_lib.data.pictures import Pictures, Record

TABLE = "labels.csv"
SHOWN = 5  # problems listed in one message


class FolderError(ValueError):
    """A folder or table that cannot be used; the message names the file and the rows."""


@dataclass(frozen=True)
class _Row:
    number: int  # line of the file, the header being 1
    file: str
    labels: tuple[str, ...]
    split: str | None

    def __str__(self) -> str:
        return f"row {self.number} ({self.file})" if self.file else f"row {self.number}"


def load(root: str | Path, class_names: Sequence[str] | None = None, split: str | None = None) -> Pictures:
    """Read a folder of pictures and its ``labels.csv``.

    Args:
        root: the folder.
        class_names: the classes, in the order of their indices. Default: the 20 VOC classes where they cover
            all labels of the table, otherwise the table's labels in alphabetical order.
        split: only the rows with this value in column ``split``; default all. The classes are those of the whole
            table, whatever the split, so that all splits agree on the indices.

    Returns:
        The pictures, in the table's order. Their ids are the file names without folder and suffix.

    Raises:
        FolderError: no table, a missing column, or rows that name no picture, no label or an unknown class.

    Example:
        >>> load("my_pictures").class_names[:3]  # doctest: +SKIP
        ('aeroplane', 'bicycle', 'bird')
    """
    root = Path(root)
    table = root / TABLE
    rows, problems = _read_rows(table)
    names = _class_names(rows, class_names)
    problems += _row_problems(root, rows, names)
    if problems:
        raise FolderError(_summary(table, problems, names))
    records = [_record(root, row, names) for row in rows if split is None or row.split == split]
    if not records:
        raise FolderError(f"{table}: {_no_rows(rows, split)}")
    return Pictures(records, names)


def _read_rows(table: Path) -> tuple[list[_Row], list[tuple[int, str]]]:
    """The table's rows, and the problems of its form as (row number, text)."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise FolderError(f"{table}: no such file; write one with the header `file,labels`, a row a picture") from None
    except UnicodeDecodeError as error:
        raise FolderError(f"{table}: byte {error.start} is not UTF-8; save the table as `CSV UTF-8`") from None
    lines = io.StringIO(text)
    delimiter, columns = _header(table, lines.readline())
    rows, problems = [], []
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            number = reader.line_num + 1
            if any(cells[len(columns) :]):
                why = f"has {len(cells)} cells for {len(columns)} columns: put several labels in quotes"
                problems.append((number, f"row {number} ({cells[0]}) {why}"))
                continue
            values = dict(zip(columns, cells, strict=False))
            labels = tuple(filter(None, (label.strip() for label in re.split("[;,]", values.get("labels", "")))))
            rows.append(_Row(number, values.get("file", "").replace("\\", "/"), labels, values.get("split")))
    except csv.Error as error:
        raise FolderError(f"{table}: row {reader.line_num + 1} cannot be read ({error})") from error
    return rows, problems


def _header(table: Path, line: str) -> tuple[str, list[str]]:
    """The delimiter, and the columns' names in small letters."""
    readings = []
    for delimiter in ",;\t":
        cells = next(csv.reader([line], delimiter=delimiter), [])
        readings.append((delimiter, [cell.strip().lower() for cell in cells]))
    delimiter, columns = max(readings, key=lambda r: (len({"file", "labels"} & set(r[1])), len(r[1])))
    missing = [name for name in ("file", "labels") if name not in columns]
    if missing:
        found = ", ".join(filter(None, columns)) or "nothing"
        raise FolderError(f"{table}: no column {' or '.join(missing)}; the header must be `file,labels`, it is {found}")
    return delimiter, columns


def _class_names(rows: list[_Row], given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None:
        if isinstance(given, str) or not given or len(set(given)) < len(given):
            raise ValueError(f"class_names must be a list of different names, not {given!r}")
        return tuple(given)
    found = {label for row in rows for label in row.labels} - {"background"}  # every picture's, and no class
    return voc.CLASS_NAMES if found <= set(voc.CLASS_NAMES) else tuple(sorted(found))


def _row_problems(root: Path, rows: list[_Row], names: tuple[str, ...]) -> list[tuple[int, str]]:
    """Everything wrong with the rows' content, as (row number, text)."""
    problems = []
    first: dict[str, _Row] = {}
    for row in rows:
        if not row.file:
            problems.append((row.number, f"{row} names no file"))
            continue
        if not (root / row.file).is_file():
            problems.append((row.number, f"{row}: there is no file {root / row.file}"))
        if not row.labels:
            problems.append((row.number, f"{row} has no labels: name at least one class, or take the row out"))
        problems += [(row.number, f"{row}: {_unknown(label, names)}") for label in row.labels if label not in names]
        earlier = first.setdefault(Path(row.file).stem, row)
        if earlier is not row:
            same = Path(earlier.file) == Path(row.file)
            what = "repeats" if same else "has the same name without suffix as"
            problems.append((row.number, f"{row} {what} row {earlier.number} ({earlier.file})"))
    return problems


def _unknown(label: str, names: tuple[str, ...]) -> str:
    by_small = {name.casefold(): name for name in names}
    close = get_close_matches(label.casefold(), by_small, n=1)
    return f"unknown class {label!r}" + (f", did you mean {by_small[close[0]]!r}?" if close else "")


def _summary(table: Path, problems: list[tuple[int, str]], names: tuple[str, ...]) -> str:
    texts = [text for _, text in sorted(problems, key=lambda problem: problem[0])]
    lines = [f"{table}: {len(texts)} problem{'s' * (len(texts) > 1)}", *texts[:SHOWN]]
    if len(texts) > SHOWN:
        lines.append(f"... and {len(texts) - SHOWN} more")
    known = f"\nThe classes are {', '.join(names)}." if any("unknown class" in text for text in texts) else ""
    return "\n  ".join(lines) + known


def _no_rows(rows: list[_Row], split: str | None) -> str:
    if not rows or split is None:
        return "has no rows: write one for each picture"
    known = sorted({row.split for row in rows if row.split})
    if not known:
        return f"has no column `split`, so there is no split {split!r}"
    return f"no row has split {split!r}; there is {', '.join(known)}"


def _record(root: Path, row: _Row, names: tuple[str, ...]) -> Record:
    stem = Path(row.file).stem
    mask = root / "masks" / f"{stem}.png"
    labels = tuple(sorted({names.index(label) for label in row.labels}))
    return Record(stem, root / row.file, labels, mask if mask.is_file() else None)
