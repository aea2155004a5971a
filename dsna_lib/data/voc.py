"""PASCAL VOC 2012 in its standard layout, with the SBD augmentation.

Image labels come from ``Annotations/*.xml`` or, where that folder is absent, from ``image_labels.json``
(``{id: [class names]}``). They are never derived from masks: a weakly supervised result whose labels were
read off the ground truth would have to say so.

Sources: Everingham et al., IJCV 2010 (VOC); Hariharan et al., ICCV 2011 (SBD, whose masks make up
``SegmentationClassAug`` and the split ``train_aug`` of 10,582 pictures).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from xml.etree import ElementTree

from dsna_lib.data.pictures import Pictures, Record

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
SPLIT_SIZES = {"train": 1464, "val": 1449, "train_aug": 10582}


def find_root(root: str | Path) -> Path:
    """The folder that holds ``JPEGImages``: `root` itself, or VOC2012 or VOCdevkit/VOC2012 under it.

    Raises:
        FileNotFoundError: none of them does; the message lists where it looked.
    """
    places = [Path(root) / inner for inner in ("", "VOC2012", "VOCdevkit/VOC2012")]
    for place in places:
        if (place / "JPEGImages").is_dir():
            return place
    looked = ", ".join(str(place) for place in places)
    raise FileNotFoundError(f"no JPEGImages folder under {root} (looked in {looked}); `dsna data download` fetches VOC")


def class_indices(names: Iterable[str], class_names: tuple[str, ...], where: str) -> tuple[int, ...]:
    """Sorted 0-based indices of class names.

    Args:
        names: class names.
        class_names: the known classes.
        where: what to name in the error.

    Raises:
        ValueError: an unknown name; the message suggests a close one.
    """
    indices = set()
    for name in names:
        if name not in class_names:
            close = get_close_matches(name, class_names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; the classes are {', '.join(class_names)}"
            raise ValueError(f"{where}: unknown class {name!r}{hint}")
        indices.add(class_names.index(name))
    return tuple(sorted(indices))


def split_ids(root: Path, split: str) -> list[str]:
    """The picture ids of a split, in the file's order.

    Raises:
        FileNotFoundError: no such split; the message lists those there are.
    """
    folder = root / "ImageSets" / "Segmentation"
    path = folder / f"{split}.txt"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.txt"))) or "none"
        raise FileNotFoundError(f"{path}: no split {split!r} here; there is {known}")
    return path.read_text().split()


def _label_reader(root: Path) -> Callable[[str], list[str]]:
    """A function from id to class names, from XML annotations or from image_labels.json."""
    annotations, table = root / "Annotations", root / "image_labels.json"
    if annotations.is_dir():
        return lambda i: _names_in(annotations / f"{i}.xml")
    if table.is_file():
        try:
            names = json.loads(table.read_text())
        except ValueError as error:
            raise ValueError(f"{table}: is no JSON, or a truncated file ({error})") from None
        return lambda i: names[i]
    raise FileNotFoundError(
        f"{root}: no image labels: neither Annotations/*.xml nor image_labels.json (they are never read off masks)"
    )


def _names_in(annotation: Path) -> list[str]:
    try:
        return [o.findtext("name", "") for o in ElementTree.parse(annotation).iter("object")]
    except ElementTree.ParseError as error:
        raise ValueError(f"{annotation}: is no XML, or a truncated file ({error})") from None


def load(root: str | Path, split: str) -> Pictures:
    """A split of VOC, or of any data set in its layout.

    Args:
        root: ``VOCdevkit``, ``VOCdevkit/VOC2012`` or their parent. A file ``class_names.json`` in it
            replaces the 20 VOC classes (the embedded data set has one).
        split: ``train``, ``train_aug``, ``val``, ``test`` or any other list in ``ImageSets/Segmentation``.

    Returns:
        The pictures, in the split's order. A picture's mask comes from ``SegmentationClass``, else from
        ``SegmentationClassAug``; there may be none (as for ``test``).

    Raises:
        FileNotFoundError: layout, split or labels missing.
        ValueError: labels missing for a picture, or of an unknown class. An empty list of labels is taken as it is;
            annotating such a picture reports it and goes on.

    Example:
        >>> load("VOCdevkit", "val").num_classes  # doctest: +SKIP
        20
    """
    root = find_root(root)
    own = root / "class_names.json"
    class_names = tuple(json.loads(own.read_text())) if own.is_file() else CLASS_NAMES
    names_of = _label_reader(root)
    records = []
    for i in split_ids(root, split):
        try:
            names = names_of(i)
        except (KeyError, FileNotFoundError):
            if split != "test":
                raise ValueError(f"{root}: picture {i} of split {split} has no image labels") from None
            names = []  # the test set's labels are not public
        labels = class_indices(names, class_names, where=f"{root}, picture {i}")
        records.append(
            Record(i, _image(root, i), labels, _mask(root, i), _existing(root / f"SegmentationPart/{i}.png"))
        )
    return Pictures(records, class_names)


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _image(root: Path, i: str) -> Path:
    jpeg = root / "JPEGImages" / f"{i}.jpg"
    return _existing(jpeg.with_suffix(".png")) or jpeg


def _mask(root: Path, i: str) -> Path | None:
    return _existing(root / f"SegmentationClass/{i}.png") or _existing(root / f"SegmentationClassAug/{i}.png")


def check(root: str | Path) -> dict[str, dict[str, int]]:
    """Count what a VOC folder holds.

    Returns:
        For each split: ``listed`` ids, ``pictures``, ``masks`` and ``labels`` found, and ``expected`` (the
        full VOC's count; 0 where the split is none of VOC's).
    """
    root = find_root(root)
    names_of = _label_reader(root)
    report = {}
    for path in sorted((root / "ImageSets" / "Segmentation").glob("*.txt")):
        ids = split_ids(root, path.stem)
        report[path.stem] = {
            "listed": len(ids),
            "pictures": sum(_image(root, i).is_file() for i in ids),
            "masks": sum(_mask(root, i) is not None for i in ids),
            "labels": sum(_has_labels(names_of, i) for i in ids),
            "expected": SPLIT_SIZES.get(path.stem, 0),
        }
    return report


def _has_labels(names_of: Callable[[str], list[str]], i: str) -> bool:
    try:
        return bool(names_of(i))
    except (KeyError, FileNotFoundError):
        return False
