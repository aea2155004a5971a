r"""What help costs a person: seconds a picture, from a few times that were measured once.

Of each class of the data set somebody says whether the picture shows it, which takes a second. Where it does, points or
a scribble take the place of this answer; boxes and outlines are made of each object, of classes that are there:

.. math::

    t_{labels} &= K \\
    t_{points} &= (K - k) + 2.4\,k + 0.9\,(n - k) \\
    t_{scribbles} &= (K - k) + 10.9\,k \\
    t_{boxes} &= (K - k) + 7\,n \\
    t_{masks} &= (K - k) + 79\,n

with K classes, k of them in the picture, and n objects.

Sources: Bearman, Russakovsky, Ferrari and Fei-Fei, "What's the Point: Semantic Segmentation with Point Supervision",
ECCV 2016, for all times but that of a box; Papadopoulos, Uijlings, Keller and Ferrari, "Extreme clicking for efficient
object annotation", ICCV 2017, for that one. They were measured on photographs. A scribble is one a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from dsna_lib.data.help import load_help
from dsna_lib.data.marks import Box, Hints
from dsna_lib.data.pictures import DataError, Pictures

ABSENT = 1.0  #: seconds to say of one class whether it is there
OF_CLASS = {"labels": 1.0, "points": 2.4, "scribbles": 10.9}  #: seconds for each class that is there
FURTHER = {"points": 0.9}  #: seconds for each object of a class beyond its first
OF_OBJECT = {"boxes": 7.0, "masks": 79.0}  #: seconds for each object
KINDS = (*OF_CLASS, *OF_OBJECT)  #: of help whose time is known


class Counts(NamedTuple):
    """What there is to be said about a picture; means over a data set."""

    classes: float  #: that the data set has
    present: float  #: that the picture shows
    objects: float  #: in the picture


VOC = Counts(classes=20, present=1.5, objects=2.8)  #: as Bearman et al. count PASCAL VOC 2012


def seconds(kind: str, counts: Counts) -> float:
    """A person's time for one picture, in seconds.

    Args:
        kind: one of :data:`KINDS`.
        counts: of the picture, or their means.

    Raises:
        DataError: a kind of help whose time nobody has measured.

    Example:
        >>> [round(seconds(kind, VOC), 1) for kind in KINDS]
        [20.0, 23.3, 34.9, 38.1, 239.7]
    """
    absent = ABSENT * (counts.classes - counts.present)
    if kind in OF_CLASS:
        further = FURTHER.get(kind, 0.0) * (counts.objects - counts.present)
        return absent + OF_CLASS[kind] * counts.present + further
    if kind in OF_OBJECT:
        return absent + OF_OBJECT[kind] * counts.objects
    raise DataError(f"nobody has timed {kind!r}", f"choose one of {', '.join(KINDS)}")


def counts_of(pictures: Pictures) -> Counts:
    """The means over a data set; its objects are the boxes that it has as help.

    Raises:
        DataError: the data set has no boxes, or none for a picture.
    """
    boxes = cast("Hints[Sequence[Box]] | None", load_help("boxes", pictures))
    if not boxes:
        raise DataError("without boxes nobody knows how many objects there are", "see dsna data make --with-help")
    if bare := [record.id for record in pictures.records if record.labels and record.id not in boxes]:
        raise DataError(f"{len(bare)} pictures have no box, {bare[0]} among them", "add them to help/boxes.csv")
    objects = sum(len(boxes[record.id]) for record in pictures.records if record.labels)
    present = sum(len(record.labels) for record in pictures.records)
    return Counts(pictures.num_classes, present / len(pictures), objects / len(pictures))
