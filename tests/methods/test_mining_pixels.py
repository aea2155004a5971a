"""Mining pixels: what either cue says, and what the initial network learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import tiny
import tiny_experiments
from tiny_experiments import RECIPE

from dsna_lib.data.pictures import read_image, read_mask
from dsna_lib.methods import mining_pixels
from dsna_lib.methods.base import prepare
from dsna_lib.methods.mining_pixels import MINING_PIXELS, either
from dsna_lib.methods.saliency import Saliency


def test_either_cue_is_enough():
    salient, attention = np.array([[0.6, 0.4, 0.6, 0.45]]), np.array([[0.1, 0.7, 0.6, 0.45]])
    assert either(salient, attention, 2).tolist() == [[3, 3, 3, 0]]


def test_the_initial_network_learns_simple_pictures_and_is_asked_about_all(tmp_path, monkeypatch):
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    pictures = tiny.helped_pictures(tmp_path / "data")
    pictures = pictures.with_records([replace(pictures.records[0], labels=(0, 1)), *pictures.records[1:]])
    learned = {}

    class Network:
        def __init__(self, stage, told):
            learned.update({r.id: read_mask(r.mask) for r in told.records})

        def annotate(self, stage):
            return [r.id for r in stage.pictures.records]

    def left(record):
        salient = np.zeros(read_image(record.image).shape[:2])
        salient[:, :13] = 1
        return salient

    monkeypatch.setattr(mining_pixels, "EarlierNetwork", Network)
    monkeypatch.setattr(mining_pixels, "saliency", lambda stage: Saliency(left, None))
    asked = MINING_PIXELS.annotate(prepare(MINING_PIXELS, RECIPE, pictures, pictures, 0))
    assert asked == [r.id for r in pictures.records]
    assert [*learned] == asked[1:]
    for record in pictures.records[1:]:
        mask, (label,) = learned[record.id], record.labels
        assert (mask[:, :13] == label + 1).all()
        assert set(np.unique(mask[:, 13:])) <= {0, label + 1}  # whatever is attended to
