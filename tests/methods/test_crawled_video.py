"""Crawled video: motion against the frame, superpixels that follow it, and the cut of a clip."""

from __future__ import annotations

import numpy as np

from dsna_lib.methods import crawled_video
from dsna_lib.methods.crawled_video import costs, cut, flow, follow, masks_of, motion
from dsna_lib.methods.superpixels import describe


def strips(*starts: int) -> np.ndarray:
    """Labels ``(2, 12)`` of strips that start at these columns."""
    return np.searchsorted(starts, np.arange(12), side="right")[None].repeat(2, axis=0) - 1


def of(labels: np.ndarray):
    return describe(np.zeros((2, 12, 3), np.uint8), labels)


def test_motion_is_against_the_frame():
    """The camera moves by (3, -1) everywhere; half of strip 1 moves on by 2, and all of strip 3 by 4."""
    moved = np.tile([3.0, -1.0], (2, 12, 1))
    moved[0, 3:6] += (2, 0)
    moved[:, 9:] += (0, -4)
    np.testing.assert_allclose(motion(of(strips(0, 3, 6, 9)), moved), [0, 0.25, 0, 1])


def test_less_than_half_a_pixel_is_no_motion():
    moved = np.zeros((2, 12, 2))
    for most, wanted in ((0.49, 0), (0.51, 1)):
        moved[:, :3, 0] = most
        np.testing.assert_allclose(motion(of(strips(0, 3, 6, 9)), moved), [wanted, 0, 0, 0])


def scene(left: int) -> np.ndarray:
    """A square of 60 pixels from `left` on, before ground of 120; both are textured, and the square alone moves."""
    rng = np.random.default_rng(0)
    ground, square = (np.kron(rng.integers(40, 200, (30, 30)), np.ones((4, 4))) for _ in range(2))
    ground[30:90, left : left + 60] = square[:60, :60]
    return np.repeat(ground[..., None], 3, axis=2).astype(np.uint8)


def test_flow_is_how_far_what_a_pixel_shows_has_moved():
    moved = flow(scene(13), scene(15))
    np.testing.assert_allclose(np.median(moved[45:75, 30:55], axis=(0, 1)), (0, 2), atol=0.3)
    np.testing.assert_allclose(np.median(moved[:15], axis=(0, 1)), (0, 0), atol=0.1)


def test_a_superpixel_is_followed_by_where_most_of_it_goes():
    """All moves by 3 to the right: the last strip leaves the picture."""
    first, second = of(strips(0, 4, 9)), of(strips(0, 5, 8))
    moved = np.tile([0.0, 3.0], (2, 12, 1))
    # Columns 3..6 lie in strips 0 (3, 4) and 1 (5, 6); 7..11 in 1 (7) and 2 (8..11); 12.. in none.
    assert follow(first, second, moved).tolist() == [0, 2, -1]


def test_a_frame_without_evidence_is_cut_as_the_one_before_it(monkeypatch):
    """Strip 1 of the first frame is the object, and flows to strip 2 of the second, of which nothing is known."""
    monkeypatch.setattr(crawled_video, "pair_weights", lambda parts: np.full(len(parts.pairs), 0.1))
    frames = [of(strips(0, 3, 6, 9))] * 2
    unary = [np.array([[0.0, 2], [2, 0], [0, 2], [0, 2]]), np.ones((4, 2))]
    first, second = cut(frames, unary, [np.tile([0.0, 3.0], (2, 12, 1))])
    assert np.flatnonzero(first[0]).tolist() == [3, 4, 5]
    assert np.flatnonzero(second[0]).tolist() == [6, 7, 8]


def test_evidence_adds_up_and_is_never_sure():
    """Three superpixels: attended to and still; a little of both; all of both."""
    found = costs(np.array([1.0, 0.3, 0.95]), np.array([0.0, 0.4, 0.8]))
    log = np.log
    wanted = [
        [-log(0.1) - log(0.9)] * 2,
        [-log(0.7) - log(0.6), -log(0.3) - log(0.4)],
        [-log(0.1 * 0.2), -log(0.9 * 0.8)],
    ]
    np.testing.assert_allclose(found, wanted)


def test_the_square_that_moves_is_the_object(monkeypatch):
    """Of the square the upper half is attended to; its lower half is, a little; and so is ground, which stays."""
    images, labels = [scene(13), scene(15)], np.zeros((2, 120, 120), int)
    attention = np.zeros((2, 120, 120))
    for t, left in enumerate((13, 15)):
        labels[t, :, 60:] = 1
        labels[t, 30:60, left : left + 60], labels[t, 60:90, left : left + 60] = 2, 3
        for k, attended in enumerate((0, 0.9, 1.0, 0.3)):
            attention[t][labels[t] == k] = attended
    made = [describe(*each) for each in zip(images, labels, strict=True)]
    monkeypatch.setattr(crawled_video, "superpixels", lambda image, _: made[0 if image is images[0] else 1])
    monkeypatch.setattr(crawled_video, "pair_weights", lambda parts: np.zeros(len(parts.pairs)))
    for found, wanted in zip(masks_of(images, attention), labels > 1, strict=True):
        np.testing.assert_array_equal(found, wanted)
