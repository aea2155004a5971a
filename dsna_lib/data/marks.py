"""What is told about a data set's own pictures: points, boxes, scribbles and saliency maps, read from their files.

The files are described in :mod:`dsna_lib.data.help`. The XML of scribbles is that of ScribbleSup (Lin et al., CVPR
2016): a ``polygon`` for each stroke, with the class as its ``tag`` and a ``point`` of ``X`` and ``Y`` for each place.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from dsna_lib.data import voc
from dsna_lib.data.pictures import VOID, DataError, PictureError, Pictures, read_image, read_mask
from dsna_lib.engine.files import refuse_special
from dsna_lib.engine.runs import DIGITS, file_digest

T = TypeVar("T", covariant=True)
_LINE = 3  # width in pixels that ScribbleSup's lines are drawn with, as their users do


class Point(NamedTuple):
    """A pixel that shows a class."""

    x: int  #: its column
    y: int  #: its row
    label: int  #: 0-based class


class Box(NamedTuple):
    """A box around what an object shows."""

    left: int  #: its first column
    top: int  #: its first row
    right: int  #: the first column beyond it
    bottom: int  #: the first row beyond it
    label: int  #: 0-based class
    difficult: bool = False  #: as VOC says it
    truncated: bool = False  #: as VOC says it


class Hints(Mapping[str, T], Generic[T]):
    """What is told about pictures: their ids to points, boxes, a scribble or a saliency map, read when asked for.

    A file or row that cannot be used is found when its picture's turn comes: a
    :class:`~dsna_lib.data.pictures.DataError` or :class:`~dsna_lib.data.pictures.PictureError` names it, and other
    pictures are none the worse.

    Args:
        files: the file of each picture about which something is told.
        read: a picture's.
    """

    def __init__(self, files: Mapping[str, Path], read: Callable[[str], T]) -> None:
        self._files, self._read = dict(files), read

    def __getitem__(self, i: str) -> T:
        if i not in self._files:
            raise KeyError(f"nothing is told about {i!r}")
        return self._read(i)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, i: object) -> bool:
        return i in self._files

    def digest(self) -> str:
        """A digest over the pictures' ids and the content of the files: what a run that is told this depends on."""
        told = [[i, file_digest(path)] for i, path in sorted(self._files.items())]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:DIGITS]


def hints(kind: str, place: Path, pictures: Pictures) -> Hints[Any]:
    """What the files of a folder tell about pictures.

    Args:
        kind: ``points``, ``boxes``, ``scribbles`` or ``saliency``.
        place: the folder ``help``.
        pictures: those that are told about; others' files and rows are left alone.

    Raises:
        DataError: a table that cannot be read, or without one of its columns.
    """
    images, names = {record.id: record.image for record in pictures.records}, pictures.class_names

    def there(folder: Path, *suffixes: str) -> dict[str, Path]:
        files = ((i, folder / f"{i}{suffix}") for i in images for suffix in suffixes)
        return {i: file for i, file in files if os.path.isfile(file)}

    if kind == "saliency":
        files = there(place / "saliency", ".jpg", ".png")
        return Hints(files, partial(_map_of, files, images))
    if kind == "scribbles":
        files = there(place / "scribbles", ".xml", ".png")
        return Hints(files, partial(_scribble_of, files, images, names))
    if kind == "boxes" and not os.path.exists(place / "boxes.csv"):
        annotated = there(place.parent / "Annotations", ".xml")
        files = {i: file for i, file in annotated.items() if b"<bndbox" in file.read_bytes()}
        return Hints(files, partial(_annotated_boxes, files, images, names))
    table, columns, read = place / f"{kind}.csv", _POINT if kind == "points" else _BOX, _READERS[kind]
    rows = _table(table, columns, images)
    return Hints(dict.fromkeys(rows, table), partial(read, rows, images, names))


_Rows = Mapping[str, Sequence[tuple[str, dict[str, str]]]]  # id to the rows about it, each with its place in the file
_POINT, _BOX = ("x", "y"), ("left", "top", "right", "bottom")


def _table(path: Path, columns: Sequence[str], known: Mapping[str, Path]) -> _Rows:
    """The rows of a table that are about known pictures; none where there is no table."""
    if not os.path.exists(path):
        return {}
    refuse_special(path, DataError)
    text = voc.read_text(path, "save the table as `CSV UTF-8`")
    mark, wanted = max(",;\t", key=text.partition("\n")[0].count), ["id", *columns, "class"]
    reader = csv.DictReader(io.StringIO(text), delimiter=mark, restval="", skipinitialspace=True)
    if missing := [name for name in wanted if name not in (reader.fieldnames or ())]:
        raise DataError(f"{path}: no column {missing[0]}; the header must be `{','.join(wanted)}`")
    rows: dict[str, list[tuple[str, dict[str, str]]]] = {}
    try:
        for cells in reader:
            if (i := cells["id"].strip()) in known:
                rows.setdefault(i, []).append((f"{path}, row {reader.line_num}", cells))
    except csv.Error as error:
        raise DataError(f"{path}: row {reader.line_num} cannot be read ({error})") from error
    return rows


def _numbers(where: str, cells: Mapping[str, str], columns: Sequence[str]) -> list[int]:
    for name in columns:
        if not re.fullmatch(r"\s*-?\d{1,9}\s*", cells[name], re.ASCII):
            raise DataError(f"{where}: {name} must be a whole number of pixels, not {cells[name]!r}")
    return [int(cells[name]) for name in columns]


def _label(where: str, name: str, class_names: tuple[str, ...]) -> int:
    return voc.class_indices([name.strip()], class_names, where)[0]


def _points_of(rows: _Rows, images: Mapping[str, Path], class_names: tuple[str, ...], i: str) -> tuple[Point, ...]:
    (height, width), points = _size_of(images[i]), []
    for where, cells in rows[i]:
        x, y = _numbers(where, cells, _POINT)
        if not (0 <= x < width and 0 <= y < height):
            said = f"{where}: the point {x}, {y} lies outside the picture {i}, which is {width} x {height}"
            raise DataError(said, "count pixels from 0")
        points.append(Point(x, y, _label(where, cells["class"], class_names)))
    return tuple(points)


def _boxes_of(rows: _Rows, images: Mapping[str, Path], class_names: tuple[str, ...], i: str) -> tuple[Box, ...]:
    size = _size_of(images[i])
    corners = ((where, _numbers(where, cells, _BOX), cells["class"]) for where, cells in rows[i])
    return tuple(Box(*_inside(where, box, size), _label(where, name, class_names)) for where, box, name in corners)


def _inside(where: str, box: Sequence[int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box that has an area and lies within a picture of ``(height, width)``."""
    (left, top, right, bottom), (height, width) = box, size
    told = f"{where}: the box {left}, {top}, {right}, {bottom} (left, top, right, bottom)"
    if left >= right or top >= bottom:
        raise DataError(f"{told} has no area", "right must be beyond left, and bottom beyond top")
    if left < 0 or top < 0 or right > width or bottom > height:
        raise DataError(f"{told} reaches beyond the picture, which is {width} x {height}")
    return left, top, right, bottom


def _annotated_boxes(
    files: Mapping[str, Path], images: Mapping[str, Path], class_names: tuple[str, ...], i: str
) -> tuple[Box, ...]:
    """VOC's boxes: it counts from 1, and the last column and row belong to a box."""
    (height, width), boxes = _size_of(images[i]), []
    for k, element in enumerate(voc.read_xml(files[i]).findall("object"), start=1):
        where = f"{files[i]}, object {k}"
        try:
            texts = (element.findtext(f"bndbox/{name}", "") for name in ("xmin", "ymin", "xmax", "ymax"))
            left, top, right, bottom = (round(float(text)) for text in texts)
        except (ValueError, OverflowError):
            raise DataError(f"{where}: has no bndbox of xmin, ymin, xmax and ymax") from None
        # A file that counts from 0, or one beyond, is off by the one pixel that this is cut to.
        left, top = left - 1 + (left == 0), top - 1 + (top == 0)
        box = _inside(
            where, [left, top, right - (right == width + 1), bottom - (bottom == height + 1)], (height, width)
        )
        flags = (element.findtext(name, "0").strip() == "1" for name in ("difficult", "truncated"))
        boxes.append(Box(*box, _label(where, element.findtext("name", ""), class_names), *flags))
    return tuple(boxes)


def _scribble_of(
    files: Mapping[str, Path], images: Mapping[str, Path], class_names: tuple[str, ...], i: str
) -> np.ndarray:
    """``(H, W)`` uint8: 0 background, 1..C classes, 255 where nothing is said."""
    size = _size_of(images[i])
    if files[i].suffix == ".xml":
        said = _drawn_lines(files[i], size, class_names)
    else:
        said = _same_size(files[i], "scribble", read_mask(files[i], None, len(class_names)), size)
    if (said == VOID).all():
        raise PictureError(f"{files[i]}: says nothing", "draw a stroke at least, or delete the file")
    return said


def _drawn_lines(path: Path, size: tuple[int, int], class_names: tuple[str, ...]) -> np.ndarray:
    """ScribbleSup's lines through its points; what of them lies beyond the picture is cut off."""
    said = Image.new("L", size[::-1], VOID)
    for k, element in enumerate(voc.read_xml(path).findall("polygon"), start=1):
        where, tag = f"{path}, polygon {k}", element.findtext("tag", "").strip()
        try:
            spots = [(float(p.findtext("X", "")), float(p.findtext("Y", ""))) for p in element.findall("point")]
        except ValueError:
            raise DataError(f"{where}: a point has no X or no Y that is a number") from None
        if not any(0 <= x < size[1] and 0 <= y < size[0] for x, y in spots):
            raise DataError(f"{where}: no point of it lies within the picture, which is {size[1]} x {size[0]}")
        value = 0 if tag == "background" else _label(where, tag, class_names) + 1
        ImageDraw.Draw(said).line(spots if len(spots) > 1 else spots * 2, fill=value, width=_LINE)
    return np.array(said)


def _map_of(files: Mapping[str, Path], images: Mapping[str, Path], i: str) -> np.ndarray:
    """``(H, W)`` uint8: from 0 to 255, how salient each pixel is."""
    pixels = _same_size(files[i], "saliency map", read_image(files[i]), _size_of(images[i]))
    if (pixels != pixels[..., :1]).any():
        raise PictureError(f"{files[i]}: is no gray map", "save it without colors")
    return pixels[..., 0]


def _same_size(path: Path, what: str, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pixels.shape[:2] != size:
        its, wanted = (f"{w} x {h}" for h, w in (pixels.shape[:2], size))
        raise PictureError(f"{path}: the {what} is {its}, its picture {wanted} (width x height)")
    return pixels


def _size_of(image: Path) -> tuple[int, int]:
    """Height and width of a picture as it is read, upright."""
    height, width, _ = read_image(image).shape
    return height, width


_READERS: dict[str, Callable[..., tuple[Any, ...]]] = {"points": _points_of, "boxes": _boxes_of}
