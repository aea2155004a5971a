"""What help costs a person: the printed times, and the counts that they are multiplied with."""

import numpy as np
import pytest

from dsna_lib.data import effort, minivoc
from dsna_lib.data.pictures import DataError, Pictures


def test_the_printed_times_of_voc():
    """Bearman et al. print all but that of boxes, which has their way of counting."""
    printed = {"labels": 20.0, "points": 23.3, "scribbles": 34.9, "boxes": 38.1, "masks": 239.7}
    for kind, seconds in printed.items():
        assert effort.seconds(kind, effort.VOC) == pytest.approx(seconds, abs=0.051), kind


def test_each_class_and_each_object_is_paid_once():
    nothing, one, two = (effort.Counts(5, *of) for of in ((0, 0), (1, 1), (1, 2)))
    for kind in effort.KINDS:
        assert effort.seconds(kind, nothing) == 5, "somebody has to see that nothing is there"
        assert effort.seconds(kind, one) >= 5
    for kind, more in (("labels", 0), ("points", 0.9), ("scribbles", 0), ("boxes", 7), ("masks", 79)):
        assert effort.seconds(kind, two) - effort.seconds(kind, one) == pytest.approx(more)


def test_what_nobody_has_timed_is_refused():
    with pytest.raises(DataError, match="nobody has timed 'web'; choose one of labels, points"):
        effort.seconds("web", effort.VOC)


def test_counts_are_those_of_the_boxes(tmp_path):
    root = minivoc.make(tmp_path / "drawn", train=4, val=1, size=48)
    train = minivoc.load("train", root=root)
    with pytest.raises(DataError, match="without boxes"):
        effort.counts_of(train)
    minivoc.make_help(root, saliency=1, web=1, videos=1, frames=2, other_masks=1)
    table = (root / "help/boxes.csv").read_text().splitlines()[1:]
    own = [line for line in table if line.startswith("train")]
    present = np.mean([len(record.labels) for record in train.records])
    assert effort.counts_of(train) == effort.Counts(train.num_classes, present, len(own) / 4)
    lost = train.records[2]
    kept = [line for line in table if not line.startswith(lost.id)]
    (root / "help/boxes.csv").write_text("\n".join(["id,left,top,right,bottom,class", *kept]))
    with pytest.raises(DataError, match=f"1 pictures have no box, {lost.id} among them"):
        effort.counts_of(Pictures(train.records, train.class_names))
