"""PASCAL VOC 2012 in its standard layout, with the SBD augmentation.

Image labels come from ``Annotations/*.xml`` or, where that folder is absent, from ``image_labels.json``
(``{id: [class names]}``). They are never derived from masks: a weakly supervised result whose labels were
read off the ground truth would have to say so.

Sources: Everingham et al., IJCV 2010 (VOC); Hariharan et al., ICCV 2011 (SBD: ``SegmentationClassAug``, ``train_aug``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from dsna_lib.data.pictures import DataError, Pictures, Record, checked_names
from dsna_lib.engine.fields import nearest
from dsna_lib.engine.files import read_json, refuse_special

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SPLIT_SIZES = {"train": 1464, "val": 1449, "train_aug": 10582}


def find_root(root: str | Path) -> Path:
    """The folder with ``JPEGImages``: `root`, or VOC2012 or VOCdevkit/VOC2012 under it, else a FileNotFoundError.

    The latter may lie in a folder named as its archive, ``VOCtrainval_11-May-2012``.
    """
    places = [Path(root) / inner for inner in ("", "VOC2012", "VOCdevkit/VOC2012")]
    for place in (*places, *sorted(Path(root).glob("VOCtrainval*/VOCdevkit/VOC2012"))):
        if (place / "JPEGImages").is_dir():
            return place
    looked = ", ".join(str(place) for place in places)
    raise FileNotFoundError(f"no JPEGImages folder under {root} (looked in {looked}); `dsna data download` fetches VOC")


def class_indices(names: Iterable[str], class_names: tuple[str, ...], where: str) -> tuple[int, ...]:
    """Sorted 0-based indices of class names; a DataError about `where` suggests one close to an unknown name."""
    names = list(names)
    for name in names:
        if name not in class_names:
            hint = nearest(name, class_names) or f"; the classes are {', '.join(class_names)}"
            raise DataError(f"{where}: unknown class {name!r}{hint}")
    return tuple(sorted({class_names.index(name) for name in names}))


def split_ids(root: Path, split: str) -> list[str]:
    """The picture ids of a split, in the file's order; a FileNotFoundError lists the splits that there are.

    Lists come with more than ids: often each line holds the paths of a picture and of its mask.
    """
    folder = root / "ImageSets" / "Segmentation"
    path = folder / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.txt"))) or "none"
        raise FileNotFoundError(f"{path}: no split {split!r} here; there is {known}")
    lines = read_text(path).splitlines()
    return [_id(line.split()[0]) for line in lines if line.strip()]


def _id(listed: str) -> str:
    """The id that a list names; of a picture's path it is what stands after ``JPEGImages``, or the file's name."""
    path = re.sub(r"\.(jpe?g|png)$", "", listed.replace("\\", "/"), flags=re.IGNORECASE)
    name = path.rpartition("JPEGImages/")[2]
    return name if name != path or path == listed else PurePosixPath(path).name


def _label_reader(root: Path) -> Callable[[str], list[str] | None]:
    """A function from id to class names, None where they are missing, from XML annotations or image_labels.json."""
    annotations, table = root / "Annotations", root / "image_labels.json"
    if annotations.is_dir():
        return lambda i: _names_in(annotations / f"{i}.xml")
    if not table.is_file():
        why = "neither Annotations/*.xml nor image_labels.json (they are never read off masks)"
        raise FileNotFoundError(f"{root}: no image labels: {why}")
    return read_json(table, {str: [str]}).get


def _names_in(annotation: Path) -> list[str] | None:
    try:
        return [o.findtext("name", "") for o in read_xml(annotation).iter("object")]
    except FileNotFoundError:
        return None


def read_text(path: Path, hint: str = "save it as UTF-8") -> str:
    """A file's text; a DataError says where it is not UTF-8, and the `hint`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8", hint) from None


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file; a DataError names one that is none."""
    refuse_special(path, DataError)
    try:
        return ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise
    except OSError as error:  # such as a name that is too long
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two about its encoding
        raise DataError(f"{path}: is no XML, or a truncated file ({error})") from None


def load(root: str | Path, split: str, failed: dict[str, str] | None = None) -> Pictures:
    """A split of VOC, or of any data set in its layout, in the split's order.

    Args:
        root: see :func:`find_root`. A file ``class_names.json`` there replaces the 20 VOC classes.
        split: ``train``, ``train_aug``, ``val``, ``test`` or any other list in ``ImageSets/Segmentation``. Masks come
            from ``SegmentationClass``, else from ``SegmentationClassAug``; there may be none.
        failed: where given, what is wrong with a picture's labels is noted here under its id, the picture has none, and
            the others are read.

    Raises:
        FileNotFoundError: layout, split or labels missing.
        FileError: ``class_names.json`` or ``image_labels.json`` is damaged.
        DataError: labels missing for a picture (an empty list of them is taken as it is), or of an unknown class; a
            list or an annotation that cannot be read.

    Example:
        >>> load("VOCdevkit", "val").num_classes  # doctest: +SKIP
        20
    """
    root = find_root(root)
    own = root / "class_names.json"
    class_names = checked_names(read_json(own), own) if own.is_file() else CLASS_NAMES
    names_of = _label_reader(root)
    records = []
    for i in split_ids(root, split):
        labels: tuple[int, ...] = ()
        try:
            names = names_of(i)
            if names is None and split != "test":  # whose labels are not public
                raise DataError(f"{root}: picture {i} of split {split} has no image labels")
            labels = class_indices(names or (), class_names, where=f"{root}, picture {i}")
        except DataError as error:
            if failed is None:
                raise
            failed[i] = str(error)
        records.append(_record(root, i, labels))
    return Pictures(records, class_names)


def _record(root: Path, i: str, labels: tuple[int, ...] = ()) -> Record:
    """A picture with the files that are there."""

    def first(*names: str) -> Path | None:
        # Unlike a path's own is_file(), this takes a name that is too long for one that is not there.
        return next((root / name for name in names if os.path.isfile(root / name)), None)

    image = first(f"JPEGImages/{i}.png") or root / f"JPEGImages/{i}.jpg"
    mask = first(f"SegmentationClass/{i}.png", f"SegmentationClassAug/{i}.png")
    return Record(i, image, labels, mask, first(f"SegmentationPart/{i}.png"))


def check(root: str | Path) -> dict[str, dict[str, int]]:
    """For each split of a VOC folder: ``listed`` ids, and ``pictures``, ``masks`` and usable ``labels`` that are there.

    Beside them ``expected``, the full VOC's count; 0 where the split is none of VOC's. That a picture shows no class is
    usable, except in ``test``, whose labels are not public.
    """
    root, report = find_root(root), {}
    for path in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")):
        failed: dict[str, str] = {}
        records = load(root, path.stem, failed).records
        report[path.stem] = {
            "listed": len(records),
            "pictures": sum(os.path.isfile(record.image) for record in records),
            "masks": sum(record.mask is not None for record in records),
            "labels": sum(bool(r.labels) or (path.stem != "test" and r.id not in failed) for r in records),
            "expected": SPLIT_SIZES.get(path.stem, 0),
        }
    return report
