"""A user's own pictures: a folder with a table of image labels, and masks if there are any.

::

    my_pictures/
      labels.csv          file,labels
                          beach.jpg,person;dog
                          garden/cat.png,"cat, pottedplant"
      beach.jpg
      garden/cat.png
      masks/beach.png     optional: class indices, 255 is void

The table is UTF-8, with commas, semicolons or tabs between its columns; several labels of a picture are separated by
``;`` or ``,``. A column ``split`` may sort the rows into ``train``, ``val`` and so on.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dsna_lib.data import voc
from dsna_lib.data.pictures import DataError, Pictures, Record, checked_names
from dsna_lib.engine.fields import nearest
from dsna_lib.engine.files import refuse_special

TABLE = "labels.csv"
SHOWN = 5  # problems listed in one message


class _Row(NamedTuple):
    where: str  # its line in the table, the header being 1, and its picture
    file: str
    labels: tuple[str, ...]
    split: str | None
    surplus: str  # how many cells, where there are too many


def load(root: str | Path, class_names: Sequence[str] | None = None, split: str | None = None) -> Pictures:
    """The pictures of a folder, in the order of its ``labels.csv``; ids are file names without folder and suffix.

    Args:
        root: the folder.
        class_names: the classes, in the order of their indices. Default: the 20 VOC classes where they cover all labels
            of the table, otherwise its labels in alphabetical order, whatever the split.
        split: only the rows with this value in column ``split``; default all.

    Raises:
        DataError: no table, a missing column, or rows that name no picture, no label or an unknown class.

    Example:
        >>> load("my_pictures").class_names[:3]  # doctest: +SKIP
        ('aeroplane', 'bicycle', 'bird')
    """
    root, table = Path(root), Path(root) / TABLE
    rows = _read_rows(table)
    names = _class_names(table, rows, class_names)
    problems = list(_problems(root, rows, names))
    if problems:
        lines = [f"{table}: {len(problems)} problem{'s' * (len(problems) > 1)}", *problems[:SHOWN]]
        if len(problems) > SHOWN:
            lines.append(f"... and {len(problems) - SHOWN} more")
        known = f"\nThe classes are {', '.join(names)}." if any("unknown class" in text for text in problems) else ""
        raise DataError("\n  ".join(lines) + known)
    if not rows:
        raise DataError(f"{table}: has no rows: write one for each picture")
    records = []
    for row in rows:
        if split in (None, row.split):
            image = root / row.file
            mask = root / "masks" / f"{image.stem}.png"
            labels = voc.class_indices(row.labels, names, str(table))
            records.append(Record(image.stem, image, labels, mask if mask.is_file() else None))
    if not records:
        why = f"has no column `split`, so there is no split {split!r}"
        if splits := sorted({row.split for row in rows if row.split}):
            why = f"no row has split {split!r}; there is {', '.join(splits)}"
        raise DataError(f"{table}: {why}")
    return Pictures(records, names)


def _read_rows(table: Path) -> list[_Row]:
    refuse_special(table, DataError)
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{table}: no such file; write one with the header `file,labels`, a row a picture") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: byte {error.start} is not UTF-8; save the table as `CSV UTF-8`") from None
    header, rows = text.partition("\n")[0].lower(), []

    def columns_by(mark: str) -> int:
        return len({"file", "labels"} & {name.strip(' "') for name in header.split(mark)})

    reader = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=columns_by), skipinitialspace=True)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        if missing := [name for name in ("file", "labels") if name not in columns]:
            there = ", ".join(filter(None, columns)) or "nothing"
            wanted = f"no column {' or '.join(missing)}; the header must be `file,labels`"
            raise DataError(f"{table}: {wanted}, it is {there}")
        for line in reader:
            cells = [cell.strip() for cell in line]
            if any(cells):
                values = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
                labels = tuple(filter(None, (label.strip() for label in re.split("[;,]", values["labels"]))))
                surplus = f"{len(cells)} cells for {len(columns)} columns" if any(cells[len(columns) :]) else ""
                file = values["file"].replace("\\", "/")
                where = f"row {reader.line_num}" + (f" ({file})" if file else "")
                rows.append(_Row(where, file, labels, values.get("split"), surplus))
    except csv.Error as error:
        raise DataError(f"{table}: row {reader.line_num} cannot be read ({error})") from error
    return rows


def _class_names(table: Path, rows: list[_Row], given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None:
        return checked_names(given, "`class_names`")
    named = {label for row in rows for label in row.labels} - {"background"}  # every picture's, and no class
    return voc.CLASS_NAMES if named <= set(voc.CLASS_NAMES) else checked_names(sorted(named), table)


def _problems(root: Path, rows: list[_Row], names: tuple[str, ...]) -> Iterator[str]:
    """Everything wrong with the rows, in their order."""
    first: dict[str, _Row] = {}
    for row in rows:
        if row.surplus:
            yield f"{row.where} has {row.surplus}: put several labels in quotes"
        elif not row.file:
            yield f"{row.where} names no file"
        else:
            if not (root / row.file).is_file():
                yield f"{row.where}: there is no file {root / row.file}"
            if not row.labels:
                yield f"{row.where} has no labels: name at least one class, or take the row out"
            for label in row.labels:
                if label not in names:
                    yield f"{row.where}: unknown class {label!r}{nearest(label.casefold(), names)}"
            earlier = first.setdefault(Path(row.file).stem, row)
            if Path(earlier.file) != Path(row.file):
                yield f"{row.where} has the same name without suffix as {earlier.where}"
            elif earlier is not row:
                yield f"{row.where} repeats {earlier.where}"
