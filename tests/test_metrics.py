"""Eq. 14-16 by hand, by counting and against torchmetrics; void policies; average precision."""

from __future__ import annotations

import math

import numpy as np
import numpy_reference as reference
import pytest
import torch
from sklearn.metrics import average_precision_score
from torchmetrics.classification import MulticlassJaccardIndex, MultilabelAveragePrecision

from dsna_lib.metrics import VOID_POLICIES, ConfusionMatrix, average_precision


def matrix(prediction, target, num_classes=3, void="false_negative") -> ConfusionMatrix:
    filled = ConfusionMatrix(num_classes, void)
    filled.update(np.array(prediction), np.array(target))
    return filled


#                 background       class 1        class 2
HAND = matrix([0, 0, 0, 1, 255] + [1, 1, 2, 255] + [2, 0, 0], [0, 0, 0, 0, 0] + [1, 1, 1, 1] + [2, 2, 255])


def test_counts_by_hand():
    assert HAND.counts.tolist() == [[3, 1, 0, 1], [0, 2, 1, 1], [1, 0, 1, 0]]


def test_void_as_false_negative_by_hand():
    np.testing.assert_allclose(HAND.iou, [3 / 6, 2 / 5, 1 / 3])
    np.testing.assert_allclose(HAND.precision, [3 / 4, 2 / 3, 1 / 2])
    np.testing.assert_allclose(HAND.recall, [3 / 5, 2 / 4, 1 / 2])
    assert HAND.mean_iou == pytest.approx((1 / 2 + 2 / 5 + 1 / 3) / 3)
    assert HAND.mean_precision == pytest.approx((3 / 4 + 2 / 3 + 1 / 2) / 3)
    assert HAND.mean_recall == pytest.approx((3 / 5 + 1 / 2 + 1 / 2) / 3)
    assert HAND.summary() == {"precision": 63.89, "recall": 53.33, "iou": 41.11}


def test_void_as_background_by_hand():
    """The two voids become a hit of the background and a false positive of it."""
    background = HAND.with_void("background")
    np.testing.assert_allclose(background.iou, [4 / 7, 2 / 5, 1 / 3])
    np.testing.assert_allclose(background.precision, [4 / 6, 2 / 3, 1 / 2])
    np.testing.assert_allclose(background.recall, [4 / 5, 2 / 4, 1 / 2])


def test_void_left_out_by_hand():
    left_out = HAND.with_void("ignore")
    np.testing.assert_allclose(left_out.iou, [3 / 5, 2 / 4, 1 / 3])
    np.testing.assert_allclose(left_out.precision, HAND.precision)
    np.testing.assert_allclose(left_out.recall, [3 / 4, 2 / 3, 1 / 2])


def test_with_void_leaves_the_first_alone():
    other = HAND.with_void("ignore")
    other.update(np.array([0]), np.array([0]))
    assert HAND.counts.sum() == 11
    assert HAND.void == "false_negative"


@pytest.mark.parametrize("seed", range(4))
def test_against_counting_by_loops(seed):
    rng = np.random.default_rng(seed)
    prediction, target = (rng.choice([0, 1, 2, 3, 255], size=(9, 13)) for _ in range(2))
    counted, wanted = matrix(prediction, target, 5), reference.scores_of_masks(prediction, target, 5)
    for name in ("iou", "precision", "recall"):
        np.testing.assert_allclose(getattr(counted, name), wanted[name])
    assert math.isnan(counted.iou[4])
    assert counted.mean_iou == pytest.approx(np.nanmean(wanted["iou"]))


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 6, (4, 20, 17), generator=generator)
    prediction = torch.where(torch.rand(target.shape, generator=generator) < 0.6, target, 5 - target)
    target[torch.rand(target.shape, generator=generator) < 0.1] = 255
    ours = ConfusionMatrix(6)
    for p, t in zip(prediction, target, strict=True):
        ours.update(p, t)
    theirs = {
        average: MulticlassJaccardIndex(num_classes=6, ignore_index=255, average=average)(prediction, target)
        for average in ("macro", "none")
    }
    np.testing.assert_allclose(ours.iou, theirs["none"], rtol=1e-5)
    assert ours.mean_iou == pytest.approx(theirs["macro"].item(), rel=1e-5)


def test_a_whole_data_set_is_counted_not_averaged_by_picture():
    whole = matrix([1, 1, 1, 0], [1, 1, 1, 1], 2)
    whole.update(np.array([0]), np.array([1]))
    assert whole.iou[1] == pytest.approx(3 / 5)


def test_absent_classes():
    only_two = matrix([0, 1], [0, 0], 4)
    np.testing.assert_array_equal(only_two.iou, [0.5, 0, np.nan, np.nan])
    np.testing.assert_array_equal(only_two.precision, [1, 0, np.nan, np.nan])
    np.testing.assert_array_equal(only_two.recall, [0.5, np.nan, np.nan, np.nan])
    assert only_two.mean_recall == 0.5
    empty = ConfusionMatrix(2)
    assert math.isnan(empty.mean_iou)
    empty.update(np.full((2, 2), 255), np.full((2, 2), 255))
    assert empty.counts.sum() == 0


def test_merge_adds_up():
    both = matrix([0, 1], [0, 1]).merge(matrix([2, 255], [1, 0]))
    assert both.counts.tolist() == matrix([0, 1, 2, 255], [0, 1, 1, 0]).counts.tolist()
    with pytest.raises(ValueError, match="cannot merge matrices of 3 and 4 classes"):
        both.merge(ConfusionMatrix(4))


def test_update_takes_uint8_and_leaves_it_alone():
    prediction = np.array([[255, 1]], np.uint8)
    target = np.array([[1, 255]], np.uint8)
    ConfusionMatrix(2).update(prediction, target)
    assert (prediction.tolist(), target.tolist()) == ([[255, 1]], [[1, 255]])


@pytest.mark.parametrize(
    "prediction, target, message",
    [
        ([0, 1], [0], r"prediction \(2,\) and target \(1,\)"),
        ([0, 3], [0, 0], "prediction holds 3, which is none of the 3 classes"),
        ([0, 0], [0, 3], "target holds 3, which is none"),
        ([-1, 0], [0, 0], "prediction holds -1"),
        ([0, 0], [0, 254], "target holds 254"),
    ],
)
def test_bad_masks(prediction, target, message):
    empty = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=message):
        empty.update(np.array(prediction), np.array(target))
    assert empty.counts.sum() == 0


def test_void_policies():
    assert VOID_POLICIES == ("false_negative", "background", "ignore")
    with pytest.raises(ValueError, match="void='miss': choose one of false_negative"):
        ConfusionMatrix(2, void="miss")


def test_average_precision_by_hand():
    """Class 0 ranks hit, miss, hit: (1 + 2/3) / 2. Class 1 ranks miss, miss, hit: 1/3. Class 2 has none."""
    scores = np.array([[3, 1, 0], [2, 2, 0], [1, 3, 0]])
    labels = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(average_precision(scores, labels), [5 / 6, 1 / 3, np.nan])


@pytest.mark.parametrize("seed", range(3))
def test_average_precision_agrees_with_torchmetrics(seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(60, 4, generator=generator)
    labels = (torch.rand(60, 4, generator=generator) < 0.3).float()
    theirs = MultilabelAveragePrecision(num_labels=4, average=None)(scores, labels.int())
    np.testing.assert_allclose(average_precision(scores, labels), theirs, rtol=1e-5)


def test_average_precision_of_equal_scores_by_hand():
    """Two alike, one hit: half of those at that score are right, whichever comes first."""
    assert average_precision([[0.0], [0.0]], [[1], [0]]).tolist() == [0.5]
    assert average_precision([[0.0], [0.0]], [[0], [1]]).tolist() == [0.5]
    # 3: a hit. 2: a hit and a miss, precision 2/3. 1: a hit among two, precision 3/5.
    scores, labels = [[3], [2], [2], [1], [1]], [[1], [0], [1], [1], [0]]
    assert average_precision(scores, labels)[0] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


@pytest.mark.parametrize("levels", [1, 2, 5, 40])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_with_ties_is_that_of_scikit_learn_in_any_order(seed, levels):
    rng = np.random.default_rng(seed)
    scores, labels = rng.integers(0, levels, (60, 5)) / levels, rng.random((60, 5)) < 0.3
    labels[0] = True
    ours, order = average_precision(scores, labels), rng.permutation(60)
    np.testing.assert_allclose(ours, average_precision_score(labels, scores, average=None), rtol=1e-12)
    np.testing.assert_array_equal(ours, average_precision(scores[order], labels[order]))


def test_average_precision_of_half_precision_scores_and_of_infinite_ones():
    """Scores of bf16 tie often; -inf is what a class that was left out gets."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(300, 2, generator=generator).bfloat16().float()
    labels = (torch.rand(300, 2, generator=generator) < 0.3).numpy()
    assert len(scores[:, 0].unique()) < 300
    scikit_learns = average_precision_score(labels, scores.numpy(), average=None)
    np.testing.assert_allclose(average_precision(scores, labels), scikit_learns, rtol=1e-12)
    assert average_precision([[-np.inf], [-np.inf]], [[1], [0]]).tolist() == [0.5]
