"""Superpixels: what they look like and which touch, and the order in which they are merged, by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dsna_lib.methods import superpixels
from dsna_lib.methods.base import MethodError
from dsna_lib.methods.superpixels import FELZENSZWALB, SELECTIVE_SEARCH, describe, merge


def picture(*colors: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of one gray each, two pixels wide and two high, and their numbers."""
    gray = np.repeat(np.array([colors], np.uint8), 2, axis=1).repeat(2, axis=0)
    return np.stack([gray] * 3, axis=2), np.arange(len(colors)).repeat(2)[None].repeat(2, axis=0)


def test_histograms_count_pixels_and_pairs_share_an_edge():
    image, labels = picture(0, 255)
    image[0, 0] = (255, 0, 0)
    parts = describe(image, labels)
    assert parts.sizes.tolist() == [4, 4]
    assert parts.pairs.tolist() == [[0, 1]]
    red, green, blue = parts.colors[0].reshape(3, 25) * 12  # of 4 pixels in 3 channels
    assert (red[0], red[24], green[0], blue[0]) == (3, 1, 4, 4)
    assert parts.colors[1].reshape(3, 25)[:, 24].tolist() == [1 / 3] * 3
    np.testing.assert_allclose([parts.colors.sum(axis=1), parts.textures.sum(axis=1)], 1)


def test_gradients_have_a_sign_and_a_direction():
    """Brighter to the right by 40 a pixel: (40 + 127.5) / 25.5 is in bin 6; no change downwards is in bin 5."""
    ramp = np.tile(np.arange(0, 240, 40, dtype=np.uint8), (6, 1))
    for gray, places in ((ramp, (6, 15)), (ramp[:, ::-1], (3, 15)), (ramp.T, (5, 16))):
        textures = describe(np.stack([gray] * 3, axis=2), np.zeros((6, 6), int)).textures[0]
        assert {*np.flatnonzero(textures)} == {*places}


def test_corners_alone_do_not_touch():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    assert describe(np.zeros((4, 4, 3), np.uint8), labels).pairs.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]


def test_the_most_alike_are_merged_first():
    parts = describe(*picture(10, 200, 202, 90))
    segments = merge(parts)
    np.testing.assert_array_equal(segments.members[:4], np.eye(4))
    assert segments.members[4].tolist() == [False, True, True, False]  # in one bin of the histograms of colors
    assert segments.members.sum(axis=1).tolist() == [1, 1, 1, 1, 2, 3, 4]
    assert segments.boxes[[0, 4, 6]].tolist() == [[0, 0, 2, 2], [2, 0, 6, 2], [0, 0, 8, 2]]


def test_small_ones_are_merged_before_large_ones():
    """Of equal looks: the two of four pixels, though the larger neighbor fills its box as well."""
    labels = np.repeat([0, 1, 2], [6, 2, 2])[None].repeat(2, axis=0)
    assert merge(describe(np.zeros((2, 10, 3), np.uint8), labels)).members[3].tolist() == [False, True, True]


def test_every_merge_joins_neighbors():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 50, 3), np.uint8)
    parts = describe(image, (np.arange(40)[:, None] // 8 * 7 + np.arange(50) // 8).astype(int))
    segments, count = merge(parts), len(parts.sizes)
    assert segments.members.shape == (2 * count - 1, count)
    assert len(np.unique(segments.members, axis=0)) == 2 * count - 1
    for members, box in zip(segments.members, segments.boxes, strict=True):
        rows, columns = np.nonzero(members[parts.labels])
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        reached, known = set(), {int(np.flatnonzero(members)[0])}
        while known - reached:
            reached = set(known)
            known |= {int(b) for pair in parts.pairs for a, b in (pair, pair[::-1]) if a in reached and members[b]}
        assert len(known) == members.sum()


@pytest.mark.parametrize("coarseness", [FELZENSZWALB, SELECTIVE_SEARCH])
def test_superpixels_end_where_colors_do(coarseness):
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 25:] = (200, 40, 90)
    parts = superpixels.superpixels(image, coarseness)
    left, right = (np.unique(side) for side in (parts.labels[:, :24], parts.labels[:, 26:]))  # the edge is smoothed
    assert (len(left), len(right)) == (1, 1)
    assert left != right


def test_a_picture_of_one_color_is_one_superpixel_without_pairs():
    parts = superpixels.superpixels(np.full((20, 20, 3), 7, np.uint8), FELZENSZWALB)
    assert (parts.sizes.tolist(), parts.pairs.shape) == ([400], (0, 2))
    assert merge(parts).boxes.tolist() == [[0, 0, 20, 20]]


def test_scikit_image_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MethodError, match="superpixels need scikit-image; `pip install scikit-image`"):
        superpixels.superpixels(np.zeros((4, 4, 3), np.uint8), FELZENSZWALB)
