"""What methods may be told beside image labels, read from the folder ``help`` in a data set's own.

::

    help/
      points.csv          id,x,y,class
      boxes.csv           id,left,top,right,bottom,class
      scribbles/ID.png    class indices: 0 background, 255 where nothing is said; or ID.xml of ScribbleSup
      saliency/ID.png     gray maps of the data set's pictures; or a set of other pictures with masks
      web/                a set of pictures with image labels that may be wrong
      videos/             a set of frames with the labels of their clips
      other_masks/        a set of pictures of other classes, with masks

Points, scribbles, boxes and gray maps are about the data set's own pictures: :class:`~dsna_lib.data.marks.Hints`, by
their ids. A *set* is a :class:`~dsna_lib.data.pictures.Pictures`, in the VOC layout with the list ``train``, or a
folder with a ``labels.csv``. Without a ``boxes.csv``, boxes come from VOC's ``Annotations``.

Pixels are counted from 0 at the upper left; ``right`` and ``bottom`` are the first column and row beyond a box. No mask
of the data set's own pictures can be reached through any of this. The drawn set's files are made by
:func:`~dsna_lib.data.minivoc.help_files.make_help`, whose card says that they are simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from dsna_lib.data import folder, voc
from dsna_lib.data.marks import Hints, hints
from dsna_lib.data.pictures import DataError, Pictures, without_masks
from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.files import read_json

PLACES = ("points", "scribbles", "boxes")  # what is told about the data set's own pictures
SETS = ("saliency", "web", "videos", "other_masks")  # the first may be gray maps instead
CARD = "drawn.json"  # says how help was made that nobody told


def help_folder(pictures: Pictures) -> Path | None:
    """The folder ``help`` of a data set, whether it is there or not; None for one that lies in no known layout."""
    for record in pictures.records[:1]:
        for above in record.image.parents:
            if (above / "JPEGImages").is_dir() or (above / folder.TABLE).is_file():
                return above / "help"
    return None


def is_there(root: str | Path) -> bool:
    """Whether a data set in the VOC layout has a folder of help."""
    try:
        return (voc.find_root(root) / "help").is_dir()
    except FileNotFoundError:
        return False


def load_help(kind: str, pictures: Pictures) -> Hints[Any] | Pictures | None:
    """What is told of a kind: :class:`~dsna_lib.data.marks.Hints` about the pictures, or a set of others.

    Args:
        kind: one of :data:`PLACES` and :data:`SETS`.
        pictures: the data set's, whose classes points, scribbles, boxes, ``web`` and ``videos`` share.

    Returns:
        None where there is nothing of the kind.

    Raises:
        DataError: a table or a set that cannot be used as a whole; the message names file and row.

    Example:
        >>> load_help("points", minivoc.load("train"))["train_00000"]  # doctest: +SKIP
        (Point(x=83, y=154, label=7), Point(x=185, y=156, label=1))
    """
    place = help_folder(pictures)
    if place is None:
        return None
    if kind in PLACES or (kind == "saliency" and not _is_set(place / kind)):
        return hints(kind, place, pictures) or None
    return _set(place / kind, kind, pictures.class_names) if _is_set(place / kind) else None


def clips(frames: Pictures, failed: dict[str, str] | None = None) -> dict[str, Pictures]:
    """The clips of a set of videos: name to frames, in order. A frame's id is ``CLIP/FRAME``.

    Args:
        frames: the set.
        failed: where given, what is wrong with a clip is noted here under its name, and the others are returned.

    Raises:
        DataError: a clip of one frame, or with different labels.
    """
    made: dict[str, Pictures] = {}
    by_clip = groupby(sorted(frames.records, key=lambda record: record.id), lambda record: record.id.rpartition("/")[0])
    for clip, records in ((clip, list(records)) for clip, records in by_clip):
        wrong = "is the only frame of its clip" if len(records) == 1 else ""
        if len({record.labels for record in records}) > 1:
            wrong = "and the other frames of its clip have different labels"
        if wrong and failed is None:
            raise DataError(f"{records[0].image}: {wrong}", "a clip is a folder of two frames or more with one label")
        if wrong and failed is not None:
            failed[clip] = f"{records[0].image}: {wrong}"
        else:
            made[clip] = frames.with_records(records)
    return made


# --- sets -------------------------------------------------------------------------------------------------------------


def _is_set(place: Path) -> bool:
    return (place / "JPEGImages").is_dir() or (place / folder.TABLE).is_file()


def _set(place: Path, kind: str, class_names: tuple[str, ...]) -> Pictures:
    """A set, without masks unless they are what it is for."""
    same = kind in ("web", "videos")
    if (place / "JPEGImages").is_dir():
        found = voc.load(place, "train")
    else:
        found = folder.load(place, class_names if same else None, "train")
    if not found.records:
        raise DataError(f"{place}: lists no picture", "delete the folder, or list some")
    if same and found.class_names != class_names:
        raise DataError(f"{place}: its classes are not those of the data set, {', '.join(class_names)}")
    if same:
        return without_masks(found)
    if kind == "other_masks" and (shared := [name for name in found.class_names if name in class_names]):
        raise DataError(f"{place}: {shared[0]} is a class of the data set", "leave its pictures out")
    if kind == "saliency" and found.num_classes != 1:
        raise DataError(f"{place}: has {found.num_classes} classes", "call whatever is salient by one name")
    if not any(record.mask for record in found.records):
        raise DataError(f"{place}: none of its pictures has a mask", "that is what it is for")
    return found


# --- checking ---------------------------------------------------------------------------------------------------------


def check_help(pictures: Pictures, decode: bool = False) -> tuple[dict[str, int], dict[str, str]]:
    """How many pictures each kind of help is about, and what is wrong with it, by kind or ``KIND/ID``.

    Args:
        pictures: the data set's, of all splits.
        decode: read everything, picture by picture.
    """
    counts: dict[str, int] = {}
    failed: dict[str, str] = {}
    for kind in (*PLACES, *SETS):
        try:
            told = load_help(kind, pictures)
        except (DsnaError, FileNotFoundError) as error:
            failed[kind] = str(error)
            continue
        if told is not None:
            counts[kind] = len(told)
            for i, read in _readings(told) if decode else ():
                try:
                    read()
                except DsnaError as error:
                    failed[f"{kind}/{i}"] = str(error)
            if kind == "videos" and isinstance(told, Pictures):
                stills: dict[str, str] = {}
                clips(told, stills)
                failed |= {f"{kind}/{clip}": said for clip, said in stills.items()}
    return counts, failed


def _readings(told: Hints[Any] | Pictures) -> Iterator[tuple[str, Callable[[], object]]]:
    """What reads a picture's help, by its id."""
    if isinstance(told, Hints):
        yield from ((i, partial(told.__getitem__, i)) for i in told)
    else:
        read = told.with_transform(None, masks=any(record.mask for record in told.records)).__getitem__
        yield from ((record.id, partial(read, k)) for k, record in enumerate(told.records))


def origin(pictures: Pictures) -> str:
    """Where a data set's help comes from, in words: ``simulated`` where nobody told it, as its card says."""
    place = help_folder(pictures)
    if place is None or not (place / CARD).is_file():
        return "given"
    return str(read_json(place / CARD, {"origin": str})["origin"])
