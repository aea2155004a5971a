"""What is wrong in a mask, counted: against a plain count, and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dsna_lib.data.pictures import VOID
from dsna_lib.segmentation.mistakes import KINDS, count_mistakes


def counted_one_by_one(prediction: np.ndarray, truth: np.ndarray, width: int) -> list[int]:
    """The same by a loop over pixels."""
    counts = dict.fromkeys(KINDS, 0)
    for row, column in np.ndindex(truth.shape):
        true, given = truth[row, column], prediction[row, column]
        given = 0 if given == VOID else given
        if true in (VOID, given):
            continue
        around = truth[max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
        if (around == given).any():
            kind = "outline"
        elif given == 0:
            kind = "missed"
        else:
            kind = "invented" if true == 0 else "confused"
        counts[kind] += 1
    return list(counts.values())


@pytest.mark.parametrize("width", [0, 1, 3])
def test_it_counts_what_a_loop_over_pixels_counts(width: int) -> None:
    """Blocks of random labels, so that objects, borders and void meet."""
    generator = np.random.default_rng(width)
    for _ in range(5):
        truth, prediction = (
            np.kron(generator.choice([0, 0, 1, 2, VOID], (6, 8)), np.ones((5, 5))).astype(np.uint8) for _ in range(2)
        )
        counts = count_mistakes(prediction, truth, width)
        assert counts.tolist() == counted_one_by_one(prediction, truth, width)
        answered = np.where(prediction == VOID, 0, prediction)
        assert counts.sum() == ((answered != truth) & (truth != VOID)).sum()


def test_each_kind_of_mistake() -> None:
    """Three objects: one a little too narrow, one not seen, one taken for another; and one that is not there."""
    truth = np.zeros((20, 120), np.uint8)
    truth[:, :20], truth[:, 40:60], truth[:, 80:100] = 1, 2, 3
    prediction = np.zeros_like(truth)
    prediction[:, :18], prediction[:, 80:100], prediction[:, 118:] = 1, 1, 2
    counts = dict(zip(KINDS, count_mistakes(prediction, truth).tolist(), strict=True))
    at_the_border = 2 * 5 * 20  # a missed object's own border: background is true a few pixels away
    assert counts == {"outline": 40 + at_the_border, "missed": 200, "confused": 400, "invented": 40}


def test_a_perfect_mask_has_none_and_shapes_must_agree() -> None:
    """Void in the truth never counts."""
    truth = np.array([[0, 1, VOID]], np.uint8)
    assert count_mistakes(np.array([[0, 1, 2]], np.uint8), truth).tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"\(1, 2\) and truth \(1, 3\)"):
        count_mistakes(truth[:, :2], truth)
