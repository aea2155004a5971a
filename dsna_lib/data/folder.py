"""A user's own pictures: a folder with a table of image labels, and masks if there are any.

::

    my_pictures/
      labels.csv          file,labels
                          beach.jpg,person;dog
                          garden/cat.png,"cat, pottedplant"
                          lawn.jpg,
      beach.jpg
      garden/cat.png
      masks/beach.png     optional: class indices, 255 is void; or VOC's colors

The table is UTF-8, with commas, semicolons or tabs between its columns; several labels of a picture are separated by
``;`` or ``,``. A picture without any is a negative one: the classifier learns from it, and it is annotated as
background. A column ``split`` may sort the rows into ``train``, ``val`` and so on, see :func:`draw_splits`; without it,
all rows belong to each split.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import floor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsna_lib.config.split import SplitConfig
from dsna_lib.data import voc
from dsna_lib.data.pictures import DataError, Pictures, Record, checked_names
from dsna_lib.engine.fields import nearest
from dsna_lib.engine.files import refuse_special, write_atomically

TABLE = "labels.csv"
SHOWN = 5  # problems listed in one message


class _Table(NamedTuple):
    """A table's cells as they stand there, without blank rows."""

    delimiter: str
    header: list[str]
    rows: list[tuple[int, list[str]]]  # each with the number of its line

    @property
    def columns(self) -> list[str]:
        return [name.lower() for name in self.header]


class _Row(NamedTuple):
    where: str  # its line in the table, the header being 1, and its picture
    file: str
    labels: tuple[str, ...]
    split: str | None  # None where the table has no such column
    surplus: str  # how many cells, where there are too many


def load(root: str | Path, class_names: Sequence[str] | None = None, split: str | None = None) -> Pictures:
    """The pictures of a folder, in the order of its ``labels.csv``; ids are file names without folder and suffix.

    Args:
        root: the folder.
        class_names: the classes, in the order of their indices. Default: the 20 VOC classes where they cover all labels
            of the table, otherwise its labels in alphabetical order, whatever the split.
        split: only the rows with this value in column ``split``; default all, as where there is no such column.

    Raises:
        DataError: no table, a missing column, no label at all, or rows that name no picture or an unknown class.

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
        if split is None or row.split in (None, split):
            image = root / row.file
            mask = root / "masks" / f"{image.stem}.png"
            labels = voc.class_indices(row.labels, names, str(table))
            records.append(Record(image.stem, image, labels, mask if os.path.isfile(mask) else None))
    if not records:
        known = ", ".join(sorted({row.split for row in rows if row.split})) or "none"
        raise DataError(f"{table}: no row has split {split!r}; there is {known}")
    return Pictures(records, names)


def draw_splits(root: str | Path, share: float = SplitConfig.share, seed: int = SplitConfig.seed) -> dict[str, int]:
    """Draw which pictures are ``val`` and which ``train``, and write it into ``labels.csv`` as the column ``split``.

    Each class, and the pictures without any, are shared out alike, a picture of several by the rarest of them.

    Args:
        root: the folder.
        share: of the pictures that become ``val``, between 0 and 1.
        seed: of the draw.

    Returns:
        How many pictures each split has.

    Raises:
        DataError: see :func:`load`; the table has other splits already, or all pictures would be in one.
    """
    table = Path(root) / TABLE
    splits = _drawn(load(root).records, share, seed)
    counts = Counter(splits)
    if len(counts) < 2:
        raise DataError(
            f"{table}: a share of {share:g} of {len(splits)} pictures leaves a split empty", "change `share`"
        )
    delimiter, header, rows = content = _read_table(table)
    if "split" not in content.columns:
        filled = (cells[: len(header)] + [""] * (len(header) - len(cells)) for _, cells in rows)
        marked = [[*cells, split] for cells, split in zip(filled, splits, strict=True)]
        write_table(table, [*header, "split"], marked, delimiter)
    elif [row.split for row in _read_rows(table)] != splits:
        raise DataError(f"{table}: has a column `split` of other splits already", "take it out to have them drawn anew")
    return dict(counts)


def _drawn(records: Sequence[Record], share: float, seed: int) -> list[str]:
    """``train`` or ``val`` for each record: in random order, class by class, every so many-th becomes ``val``."""
    shown = Counter(label for record in records for label in record.labels)
    rarest = [min(record.labels, key=lambda label: (shown[label], label), default=-1) for record in records]
    order = sorted(np.random.default_rng(seed).permutation(len(records)).tolist(), key=lambda place: rarest[place])
    splits = ["train"] * len(records)
    for k, place in enumerate(order):
        if floor(share * (k + 1) + 0.5) > floor(share * k + 0.5):
            splits[place] = "val"
    return splits


def write_table(table: Path, header: Sequence[str], rows: Iterable[Sequence[str]], delimiter: str = ",") -> None:
    """Write a table atomically, as UTF-8; a DataError names a row that cannot be written so."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    try:
        content = text.getvalue().encode()
    except UnicodeEncodeError as error:  # half of a character, as JSON may hold it, or a file's name of other bytes
        before, after = error.object[: error.start], error.object[error.start :]
        row = before.rpartition("\n")[2] + after.partition("\n")[0]
        raise DataError(f"{table}: the row {row!r} cannot be written as UTF-8", "rename what it holds") from None
    write_atomically(table, lambda file: file.write(content))


def _read_table(table: Path) -> _Table:
    refuse_special(table, DataError)
    try:
        text = voc.read_text(table, "save the table as `CSV UTF-8`")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{table}: no such file; write one with the header `file,labels`, a row a picture") from None
    first = text.partition("\n")[0].lower()

    def columns_by(mark: str) -> int:
        return len({"file", "labels"} & {name.strip(' "') for name in first.split(mark)})

    delimiter, rows = max(",;\t", key=columns_by), []
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        for line in reader:
            cells = [cell.strip() for cell in line]
            if any(cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise DataError(f"{table}: row {reader.line_num} cannot be read ({error})") from error
    return _Table(delimiter, header, rows)


def _read_rows(table: Path) -> list[_Row]:
    content, rows = _read_table(table), []
    columns = content.columns
    if missing := [name for name in ("file", "labels") if name not in columns]:
        there = ", ".join(filter(None, columns)) or "nothing"
        wanted = f"no column {' or '.join(missing)}; the header must be `file,labels`"
        raise DataError(f"{table}: {wanted}, it is {there}")
    for line, cells in content.rows:
        values = dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))
        labels = tuple(filter(None, (label.strip() for label in re.split("[;,]", values["labels"]))))
        surplus = f"{len(cells)} cells for {len(columns)} columns" if any(cells[len(columns) :]) else ""
        file = values["file"].replace("\\", "/")
        where = f"row {line}" + (f" ({file})" if file else "")
        rows.append(_Row(where, file, labels, values.get("split"), surplus))
    return rows


def _class_names(table: Path, rows: list[_Row], given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None:
        return checked_names(given, "`class_names`")
    named = {label for row in rows for label in row.labels} - {"background"}  # every picture's, and no class
    if rows and not any(row.labels for row in rows):
        raise DataError(f"{table}: no row has a label", "name the classes of the pictures that show one")
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
            if not os.path.isfile(root / row.file):  # nor is one whose name is too long
                yield f"{row.where}: there is no file {root / row.file}"
            for label in row.labels:
                if label not in names:
                    yield f"{row.where}: unknown class {label!r}{nearest(label.casefold(), names)}"
            earlier = first.setdefault(Path(row.file).stem, row)
            if Path(earlier.file) != Path(row.file):
                yield f"{row.where} has the same name without suffix as {earlier.where}"
            elif earlier is not row:
                yield f"{row.where} repeats {earlier.where}"
