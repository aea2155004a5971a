"""How a training goes: what is held out, and classifiers that have collapsed are named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from dsna_lib.attention import AttentionOutput
from dsna_lib.data import Pictures, transforms
from dsna_lib.diagnostics import examine, hold_out, mean_average_precision, spread, tells_apart


class ByHand(nn.Module):
    """Answers with fixed scores or, without any, with the mean color of a picture."""

    def __init__(self, *scores: float) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, pictures: Tensor) -> AttentionOutput:
        scores = self.scores[None] if len(self.scores) else pictures.mean(dim=(2, 3))
        return AttentionOutput(scores, None, scores)


def labeled(pictures: Pictures, *labels: tuple[int, ...]) -> Pictures:
    """The first picture again and again, under these labels."""
    (record, *_) = pictures.records
    return pictures.with_records([replace(record, labels=several) for several in labels])


@pytest.fixture
def split(tmp_path):
    return tiny.pictures(tmp_path / "data")


def test_rare_classes_are_held_out_as_often_as_common_ones(split):
    many = labeled(split, *[(0,)] * 50, *[(0, 1)] * 6, *[(2,)] * 8, ())
    learned, aside = hold_out(many, 0.15)
    assert len(aside) == round(0.15 * 65)
    counts = aside.targets().sum(0)
    assert counts.tolist() == [6, 3, 4]  # half of the pictures of classes 1 and 2, and no more
    assert learned.targets().sum(0).tolist() == (many.targets().sum(0) - counts).tolist()


@pytest.mark.parametrize(("total", "share", "held"), [(8, 0.25, 2), (8, 0.0, 0), (24, 0.5, 12), (3, 0.1, 0)])
def test_a_share_is_held_out_and_the_same_one_again(tmp_path, total, share, held):
    split = tiny.pictures(tmp_path, total)
    learned, aside = hold_out(split, share)
    assert len(aside) == held
    assert aside.records == hold_out(split, share)[1].records
    assert sorted([*learned.records, *aside.records], key=split.records.index) == split.records
    assert learned.records == sorted(learned.records, key=split.records.index)


def test_pictures_without_any_class_are_held_out_as_often_as_a_class(split):
    """Of one class they are the only ones to tell it from; where they are few, half of them are left to learn from."""
    counts = []
    for number in (12, 4):
        some = labeled(split, *[(0,)] * 12, *[()] * number)
        _, aside = hold_out(some, 0.5)
        counts.append((len(aside), sum(not record.labels for record in aside.records)))
        assert tells_apart(aside)
    assert counts == [(12, 6), (8, 2)]


@pytest.mark.parametrize(
    "labels, said", [([], False), ([()], False), ([(0,), (0,)], False), ([(0,), ()], True), ([(0, 1), (0,)], True)]
)
def test_an_order_says_something_where_a_class_is_not_everywhere(split, labels, said):
    assert tells_apart(labeled(split, *labels)) is said


def test_mean_average_precision_equals_scikit_learns(split):
    model = ByHand()
    shown = split.with_transform(transforms.inference(24))
    scores = torch.stack([model(shown[k]["image"][None]).scores[0] for k in range(len(shown))])
    expected = [average_precision_score(split.targets()[:, c], scores[:, c]) for c in range(3)]
    assert mean_average_precision(model.train(), split, 24) == pytest.approx(np.mean(expected), abs=1e-4)
    assert not model.training


def test_a_healthy_classifier_is_not_warned_of(split):
    model = ByHand().train()
    report = {"examined": 8, "classes_shown": 3, "classes_answered": 3, "warnings": []}
    assert examine(model, split) == report
    assert not model.training


def test_one_answer_to_everything_is_warned_of(split):
    (warning,) = examine(ByHand(0.0, 1.0, 0.0), split)["warnings"]
    assert warning == "the classifier answers green to all of 8 training pictures, 5 without it"
    assert examine(ByHand(0.0, 1.0, 0.0), split)["classes_answered"] == 1


def test_one_answer_may_be_the_right_one(split):
    green = ByHand(0.0, 1.0, 0.0)
    assert examine(green, labeled(split, *[(1,)] * 8))["warnings"] == []
    assert examine(green, labeled(split, *[(0, 1), (1, 2), (1,)] * 3))["warnings"] == []
    assert examine(green, labeled(split, *[()] * 8))["warnings"] == []  # no picture asks for anything
    assert examine(green, labeled(split, (0,), *[(1,)] * 11))["warnings"] == []
    assert examine(green, labeled(split, (0,), (2,), *[(1,)] * 10))["warnings"] != []
    alone = Pictures(labeled(split, (0,), ()).records, ("red",))
    assert examine(ByHand(1.0), alone)["warnings"] == []


def test_pictures_that_lie_sorted_by_class_are_examined_here_and_there(split):
    sorted_by_class = labeled(split, *[(0,)] * 4, *[(1,)] * 4, *[(2,)] * 4)
    report = examine(ByHand(1.0, 0.0, 0.0), sorted_by_class, count=4)
    assert (report["examined"], report["classes_shown"], len(report["warnings"])) == (4, 3, 1)


@pytest.mark.parametrize("total, count, places", [(10, 4, [1, 3, 6, 8]), (3, 32, [0, 1, 2]), (7, 7, [*range(7)])])
def test_examined_pictures_are_evenly_spread(split, total, count, places):
    chosen = spread(labeled(split, *[(place,) for place in range(total)]), count)
    assert [record.labels for record in chosen.records] == [(place,) for place in places]
