"""BoxSup: the choice of a segment for a box, by hand and against a loop over all candidates."""

from __future__ import annotations

import numpy as np
import pytest

from dsna_lib.data.marks import Box
from dsna_lib.methods import box_sup
from dsna_lib.methods.box_sup import box_overlaps, choose, from_boxes
from dsna_lib.methods.superpixels import Segments, describe, merge


def test_overlaps():
    others = np.array([[2, 2, 6, 6], [4, 2, 8, 6], [2, 2, 4, 4], [6, 2, 8, 6], [0, 0, 8, 8]])
    np.testing.assert_allclose(box_overlaps((2, 2, 6, 6), others), [1, 8 / 24, 4 / 16, 0, 16 / 64])


STRIPS = np.arange(4).repeat(2)[None].repeat(2, axis=0)  # of two columns each
PARTS = describe(np.zeros((2, 8, 3), np.uint8), STRIPS)


def segments(*members: tuple[int, ...]) -> Segments:
    held = np.isin(np.arange(4), members[0])[None]
    for each in members[1:]:
        held = np.concatenate([held, np.isin(np.arange(4), each)[None]])
    return Segments(held, np.array([[2 * min(each), 0, 2 * max(each) + 2, 2] for each in members]))


def believing(*of_the_object: float) -> np.ndarray:
    """-log P ``(2, 2, 8)`` of background and a class, by the strips' probabilities of the class."""
    object_ = np.repeat(of_the_object, 2)[None].repeat(2, axis=0)
    return -np.log(np.stack([1 - object_, object_]))


def test_without_an_opinion_the_best_overlap_is_chosen():
    found = choose(Box(2, 0, 6, 2, 0), PARTS, segments((1,), (1, 2), (0, 1, 2), (0, 1, 2, 3)), believing(*[0.5] * 4))
    assert found == 1


@pytest.mark.parametrize(("chance", "wanted"), [(0.33, 1), (0.35, 0)])
def test_the_belief_weighs_three_times(chance, wanted):
    """The box holds strips 1 and 2; strip 1 alone overlaps it by 1 / 2.

    To leave strip 2 out, a fourth of the picture, gains 3 / 4 log ((1 - p) / p), which is 1 / 2 for p = 0.339; with
    weight 2 that were 0.269, with weight 4 0.378.
    """
    candidates = segments((1, 2), (1,))
    assert choose(Box(2, 0, 6, 2, 0), PARTS, candidates, believing(0.5, 0.9, chance, 0.5)) == wanted


def test_against_a_loop_over_all_candidates():
    rng = np.random.default_rng(0)
    labels = np.arange(6)[:, None] // 2 * 4 + np.arange(8) // 2
    parts = describe(rng.integers(0, 255, (6, 8, 3), np.uint8), labels)
    candidates = merge(parts)
    for _ in range(50):
        (left, right), (top, bottom) = (sorted(rng.choice(side + 1, 2, replace=False)) for side in (8, 6))
        probabilities = rng.dirichlet([1, 1, 1], (6, 8)).transpose(2, 0, 1)
        objectives = []
        for members, other in zip(candidates.members, candidates.boxes, strict=True):
            cost = 0.0
            for y, x in np.ndindex(6, 8):
                inside = left <= x < right and top <= y < bottom
                cost -= np.log(probabilities[2 if inside and members[labels[y, x]] else 0, y, x])
            wide = min(right, other[2]) - max(left, other[0])
            high = min(bottom, other[3]) - max(top, other[1])
            shared = max(wide, 0) * max(high, 0)
            area, its = (right - left) * (bottom - top), (other[2] - other[0]) * (other[3] - other[1])
            objectives.append(1 - shared / (area + its - shared) + 3 * cost / 48)
        found = choose(Box(left, top, right, bottom, 1), parts, candidates, -np.log(probabilities))
        assert objectives[found] == pytest.approx(min(objectives), rel=1e-9)


@pytest.fixture
def squares(monkeypatch) -> np.ndarray:
    """A large square and a small one on gray, cut into superpixels without an error."""
    image = np.full((30, 40, 3), 90, np.uint8)
    image[5:25, 5:25], image[10:16, 28:36] = (200, 20, 20), (20, 20, 200)
    labels = np.zeros((30, 40), int)
    labels[5:25, 5:25], labels[10:16, 28:36] = 1, 2
    monkeypatch.setattr(box_sup, "superpixels", lambda image, _: describe(image, labels))
    return image


def unsure(classes: int) -> np.ndarray:
    return np.full((classes, 30, 40), np.log(classes))


def test_segments_take_their_boxes_classes_and_the_rest_is_background(squares):
    found = from_boxes(squares, [Box(5, 5, 25, 25, 1), Box(28, 10, 36, 16, 0)], unsure(3))
    wanted = np.zeros((30, 40), int)
    wanted[5:25, 5:25], wanted[10:16, 28:36] = 2, 1
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.uint8


def test_nothing_is_kept_beyond_the_box(squares):
    found = from_boxes(squares, [Box(5, 5, 25, 22, 0)], unsure(2))
    assert found[5:22, 5:25].all()
    assert found.sum() == 17 * 20


def test_the_smaller_of_two_that_meet_is_on_top(squares):
    """In either order: a box of all the picture, which is believed to be all of the class, and one of a square."""
    costs, boxes = np.full((3, 30, 40), 0.1), [Box(0, 0, 40, 30, 0), Box(5, 5, 25, 25, 1)]
    costs[0] = 2.0
    for order in (boxes, boxes[::-1]):
        found = from_boxes(squares, order, costs)
        assert (found[5:25, 5:25] == 2).all()
        assert (found == 1).sum() == 30 * 40 - 20 * 20


def test_a_class_that_the_label_does_not_name_can_be_chosen(squares):
    costs = unsure(3)
    costs[1] = np.inf
    assert (from_boxes(squares, [Box(28, 10, 36, 16, 0)], costs)[10:16, 28:36] == 1).all()
