"""AF-SS: proposals of flat pictures by hand, their aggregation by loops, and what it says without scikit-image."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from dsna_lib.methods.augmented_feedback import AF_SS, aggregate, proposals, segments
from dsna_lib.methods.base import MethodError
from dsna_lib.methods.cam import CAM


def striped(*colors: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat gray stripes of equal width, each a segment."""
    image = np.repeat(np.array(colors, np.uint8), 4)[None, :, None].repeat(2, axis=0).repeat(3, axis=2)
    return image, np.repeat(np.arange(len(colors)), 4)[None].repeat(2, axis=0)


def test_the_neighbors_that_are_most_alike_become_one_first() -> None:
    """Stripes 1 and 2 share their color, and so do 0 and 3, which are no neighbors."""
    held = proposals(*striped(10, 200, 200, 10))
    assert held.shape == (7, 4)
    np.testing.assert_array_equal(held[:4], np.eye(4, dtype=bool))
    assert held[4].tolist() == [False, True, True, False]
    assert held[5:].sum(axis=1).tolist() == [3, 4]


def test_small_regions_merge_before_large_ones() -> None:
    """All of one color: likeness is 1 + 1 - (|a| + |b|)/n + 1 for neighbors that fill their box."""
    image = np.zeros((1, 10, 3), np.uint8)
    fine = np.array([[0, 0, 0, 0, 1, 1, 2, 2, 2, 3]])
    held = proposals(image, fine)
    assert [set(np.flatnonzero(row)) for row in held[4:]] == [{2, 3}, {0, 1}, {0, 1, 2, 3}]


def test_what_fills_its_box_merges_first() -> None:
    """Segments 1 and 2 lie side by side; 0 and 1 are as small together, and form a corner."""
    fine = np.array([[1, 1, 2, 2], [0, 3, 3, 3], [0, 3, 3, 3]])
    held = proposals(np.zeros((3, 4, 3), np.uint8), fine)
    assert set(np.flatnonzero(held[4])) == {1, 2}


def test_a_picture_of_one_segment_is_its_own_proposal() -> None:
    assert proposals(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), int)).tolist() == [[True]]


def test_aggregation_is_its_equation() -> None:
    rng = np.random.default_rng(0)
    image, fine = striped(10, 200, 190, 30, 90)
    scores, held = rng.normal(size=(3, *fine.shape)), proposals(image, fine)
    got = aggregate(torch.from_numpy(scores), fine, held)
    for c in range(3):
        own = [max(0, scores[c][row[fine]].mean()) for row in held]
        for u in np.ndindex(*fine.shape):
            want = np.mean([own[p] for p, row in enumerate(held) if row[fine[u]]])
            assert got[(c, *u)].item() == pytest.approx(want)


def test_the_whole_picture_is_asked_what_the_classifier_is_asked() -> None:
    """Of one segment, A is the picture's score everywhere, where that speaks for the class."""
    scores = torch.rand(2, 3, 4) * torch.tensor([1, -1]).view(2, 1, 1)
    got = aggregate(scores, np.zeros((3, 4), int), np.ones((1, 1), bool))
    torch.testing.assert_close(got, scores.mean(dim=(1, 2)).relu()[:, None, None].expand(2, 3, 4))


def test_segments_are_numbered_without_gaps_and_follow_edges() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 10:30] = (250, 40, 40)
    fine = segments(image)
    assert {*np.unique(fine)} == {*range(fine.max() + 1)}
    assert fine.max() >= 1
    inside = fine[12:28, 12:28]
    assert len(np.unique(inside)) == 1
    assert (fine == inside[0, 0]).sum() < 600


def test_without_scikit_image_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MethodError, match="AF-SS needs scikit-image for its proposals; `pip install scikit-image`"):
        segments(np.zeros((2, 2, 3), np.uint8))


def test_its_row() -> None:
    assert (AF_SS.title, AF_SS.paper) == ("AF-SS", 52.6)
    assert AF_SS.trains == CAM.trains
