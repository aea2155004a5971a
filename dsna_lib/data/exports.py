"""Image labels out of what other tools export, into the ``labels.csv`` of a folder with the pictures.

COCO's JSON, Label Studio's JSON and CSV, and the XML of *CVAT for images* hold boxes, outlines or choices;
what is kept of these is which classes a picture shows. A picture that was looked at and shows none is a negative one.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from dsna_lib.data.folder import TABLE, write_table
from dsna_lib.data.pictures import DataError
from dsna_lib.data.voc import read_xml
from dsna_lib.engine.errors import first_few
from dsna_lib.engine.files import leads_out, read_json, refuse_special

ID = int | float | str
COCO = {
    "images": [{"id": ID, "file_name": str}],
    "annotations": [{"image_id": ID, "category_id": ID}],
    "categories": [{"id": ID, "name": str}],
}
PICTURE = re.compile(r"\.(?:jpe?g|png|webp|bmp|tiff?|gif)$", re.IGNORECASE)
UPLOADED = re.compile("^[0-9a-f]{8}-")  # which Label Studio puts before the names of files that it was sent
BOOKKEEPING = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}  # columns of Label Studio's
CHOICES = {"choice", "choices"}

Named = list[tuple[str, set[str]]]  # pictures as an export names them, each with its labels


def convert(export: str | Path, root: str | Path) -> dict[str, set[str]]:
    """Write the ``labels.csv`` of a folder.

    Args:
        export: a ``.json`` of COCO or Label Studio, a ``.csv`` of Label Studio, an ``.xml`` of CVAT.
        root: the folder with the pictures, in whatever folders within.

    Returns:
        Each picture's labels, by its file.

    Raises:
        DataError: an export of another form or without labels, pictures that are not in the folder, a label with a
            comma or semicolon, or a ``labels.csv`` that is there already.
        FileError: damaged JSON.

    Example:
        >>> convert("instances_val2017.json", "val2017")  # doctest: +SKIP
        {'000000397133.jpg': {'bottle', 'person'}, ...}
    """
    export, root = Path(export), Path(root)
    if (root / TABLE).exists():
        raise DataError(f"{root / TABLE}: is there already", "move it away to have it written anew")
    named = _read(export)
    if torn := sorted({label for _, labels in named for label in labels if re.search("[,;]", label)}):
        raise DataError(f"{export}: the label {torn[0]!r} would be torn at its comma or semicolon", "rename it there")
    if not any(labels for _, labels in named):
        raise DataError(f"{export}: no picture has a label", "label them first")
    places = _places(export, root, [name for name, _ in named])
    table: dict[str, set[str]] = {}
    for name, labels in named:
        table.setdefault(places[name], set()).update(labels)
    write_table(root / TABLE, ("file", "labels"), [(file, ";".join(sorted(table[file]))) for file in table])
    return table


def _read(export: Path) -> Named:
    refuse_special(export, DataError)
    suffix = export.suffix.lower()
    if suffix == ".xml":
        return _cvat(export)
    if suffix == ".csv":
        return _label_studio(export, _rows(export))
    if suffix != ".json":
        forms = ".json (COCO, Label Studio), .csv (Label Studio) or .xml (CVAT for images)"
        raise DataError(f"{export}: an export is {forms}", "write a labels.csv for anything else")
    with export.open("rb") as file:
        listed = file.read(100).lstrip().startswith(b"[")
    return _label_studio(export, read_json(export, [{str: object}])) if listed else _coco(export)


def _coco(export: Path) -> Named:
    content = read_json(export, COCO)
    names = {category["id"]: category["name"] for category in content["categories"]}
    labels: dict[Any, set[str]] = {image["id"]: set() for image in content["images"]}
    for annotation in content["annotations"]:
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in labels or category not in names:
            said = f"an annotation is of image {image} and category {category}, of which one is not listed"
            raise DataError(f"{export}: {said}", "export it anew")
        labels[image].add(names[category])
    return [(image["file_name"], labels[image["id"]]) for image in content["images"]]


def _cvat(export: Path) -> Named:
    images = list(read_xml(export).iter("image"))
    if not images:
        raise DataError(f"{export}: holds no image", "export it as `CVAT for images`")
    return [(image.get("name", ""), {shape.get("label", "") for shape in image} - {""}) for image in images]


def _rows(export: Path) -> list[dict[str, Any]]:
    """The rows of a table, in which cells may hold JSON."""
    try:
        rows = list(csv.DictReader(io.StringIO(export.read_text(encoding="utf-8-sig"))))
        return [{k: json.loads(v) if v and v[0] in "[{" else v for k, v in row.items() if k} for row in rows]
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise DataError(f"{export}: cannot be read as Label Studio's CSV ({error})", "export it anew") from error


def _label_studio(export: Path, tasks: list[dict[str, Any]]) -> Named:
    """Of full JSON, which has `data` and `annotations` apart, or of the short form and CSV, which have all in one."""
    named: Named = []
    for number, task in enumerate(tasks, start=1):
        whole = isinstance(task.get("data"), dict) and isinstance(task.get("annotations"), list)
        texts = {key: text for key, text in (task["data"] if whole else task).items() if isinstance(text, str) and text}
        picture = next((key for key, text in texts.items() if PICTURE.search(_path(text))), None)
        if picture is None:
            raise DataError(f"{export}: task {number} names no picture", "export tasks whose data is an image")
        if whole:
            if strange := [each for each in task["annotations"] if not isinstance(each, dict)]:
                said = f"{export}: task {number}: an annotation must be an object, not {reprlib.repr(strange[0])}"
                raise DataError(said, "export it anew")
            done = [each for each in task["annotations"] if not each.get("was_cancelled")]
            if not done:  # nobody has looked at it
                continue
            labels = set(_labels([each.get("result") for each in done]))
        else:
            if unknown := sorted(texts.keys() - BOOKKEEPING - CHOICES - {picture}):
                said = f"{export}: task {number} does not say whether {unknown[0]!r} is a label"
                raise DataError(said, "export it as JSON (not JSON-MIN), which does")
            labels = set(_labels(task))
        named.append((_path(texts[picture]), labels))
    return named


def _path(address: str) -> str:
    """The path in what Label Studio calls a picture, such as ``/data/local-files/?d=garden/cat.png``."""
    before, _, query = address.partition("?")
    return unquote(query[2:].partition("&")[0] if query.startswith("d=") else before)


def _labels(value: Any) -> Iterator[str]:
    """The labels in a piece of Label Studio's JSON: choices, or ``rectanglelabels`` and their like."""
    waiting = [value]  # instead of calls within calls: Python has only so many, and JSON may nest deeper
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        for key, inner in value.items() if isinstance(value, dict) else ():
            if key in CHOICES or key.endswith("labels"):
                texts = inner if isinstance(inner, list) else [inner]
                yield from (text for text in texts if text and isinstance(text, str))
            waiting.append(inner)


def _places(export: Path, root: Path, names: Iterable[str]) -> dict[str, str]:
    """Where each picture lies within the folder: as it is named or, where only one is called so, in any folder."""
    files: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root)
        if place.parts[0] != "masks" and path.is_file():
            files.setdefault(place.name, []).append(place.as_posix())
    places: dict[str, str] = {}
    lost: list[str] = []
    for name in dict.fromkeys(names):
        asked = PurePosixPath(name.replace("\\", "/"))
        if not leads_out(str(asked)) and os.path.isfile(root / asked):
            places[name] = str(asked)
        elif len(found := files.get(asked.name) or files.get(UPLOADED.sub("", asked.name), [])) == 1:
            places[name] = found[0]
        else:
            lost.append(name)
    if lost:
        said = f"{export}: {len(lost)} of its {len(places) + len(lost)} pictures are not in {root}, or not just once"
        raise DataError(f"{said}: {first_few(lost)}", "name the folder that holds them")
    return places
