"""Webly supervised: what stands before plain ground, against brute force and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import tiny_experiments
from tiny_experiments import RECIPE

from dsna_lib.data.pictures import read_mask
from dsna_lib.methods import webly
from dsna_lib.methods.base import prepare
from dsna_lib.methods.webly import WEBLY_SUPERVISED, on_plain_ground, otsu


def within(values: np.ndarray, threshold: float) -> float:
    """The variance within the two groups, weighted by their sizes."""
    groups = values[values <= threshold], values[values > threshold]
    return sum(len(group) * group.var() for group in groups if len(group))


def test_otsu_leaves_the_least_variance_within_the_groups():
    rng = np.random.default_rng(0)
    for share in (50, 200):
        values = np.concatenate([rng.normal(20, 4, 300 - share), rng.normal(60, 9, share)])
        best = min(within(values, each) for each in values)
        assert within(values, otsu(values)) == pytest.approx(best, rel=0.01)


def test_a_square_with_a_hole_on_plain_ground():
    """The hole has the ground's color, and belongs to what is around it; a faint shadow does not."""
    image = np.full((30, 40, 3), 220, np.uint8)
    image[8:22, 10:30] = (200, 60, 40)
    image[12:16, 15:20] = 220
    image[24:26, 10:30] = 210
    wanted = np.zeros((30, 40), bool)
    wanted[8:22, 10:30] = True
    np.testing.assert_array_equal(on_plain_ground(image), wanted)


def test_an_object_may_reach_the_border():
    image = np.full((30, 40, 3), 220, np.uint8)
    image[8:22, :20] = 30
    np.testing.assert_array_equal(on_plain_ground(image), image[..., 0] == 30)


def test_the_first_network_learns_the_objects_under_the_labels_of_the_search(tmp_path, monkeypatch):
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    pictures, learned = tiny.helped_pictures(tmp_path / "data"), {}

    class Network:
        def __init__(self, stage, told):
            learned.update({r.id: read_mask(r.mask) for r in told.records})

        def annotate(self, stage):
            return "annotated", [r.id for r in stage.pictures.records]

    monkeypatch.setattr(webly, "EarlierNetwork", Network)
    stage = prepare(WEBLY_SUPERVISED, RECIPE, pictures, pictures, 0)
    assert WEBLY_SUPERVISED.annotate(stage) == ("annotated", [r.id for r in pictures.records])
    assert [*learned] == [f"w{k}" for k in range(8)]
    for k, mask in enumerate(learned.values()):
        top, wanted = 2 + k % 5, np.zeros((24, 24), np.uint8)
        wanted[top : top + 10, top + 3 : top + 13] = k % 3 + 1
        np.testing.assert_array_equal(mask, wanted)
