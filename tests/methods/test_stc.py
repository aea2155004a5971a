"""STC: labels drawn from saliency, and the order of its turns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from tiny_experiments import RECIPE

from dsna_lib.data.pictures import Record, read_mask
from dsna_lib.methods import stc
from dsna_lib.methods.base import prepare
from dsna_lib.methods.saliency import Saliency
from dsna_lib.methods.stc import STC_METHOD, drawn
from dsna_lib.segmentation.training import segmentation_loss


def record(i: str, *labels: int) -> Record:
    return Record(i, Path(f"{i}.png"), labels)


def test_the_loss_on_drawn_labels_is_that_of_saliency_in_the_mean():
    """Eq. of the module, with f = (0.7, 0.1, 0.2) everywhere: the class has index 2."""
    salient = np.tile([0.0, 0.25, 0.5, 1.0], (100, 100))
    logits = torch.tensor([0.7, 0.1, 0.2]).log().view(1, 3, 1, 1).expand(1, 3, 100, 400)
    wanted = -np.mean(salient * np.log(0.2) + (1 - salient) * np.log(0.7))
    masks = torch.from_numpy(drawn(salient, record("a", 1), 0))[None]
    assert segmentation_loss(logits, masks).item() == pytest.approx(wanted, abs=0.01)
    assert masks.unique().tolist() == [0, 2]
    assert (masks[0, :, ::4] == 0).all()
    assert (masks[0, :, 3::4] == 2).all()


def test_a_picture_is_drawn_by_a_seed_of_its_own():
    salient = np.full((20, 20), 0.5)
    first = drawn(salient, record("a", 0), 0)
    np.testing.assert_array_equal(drawn(salient, record("a", 0), 0), first)
    assert (drawn(salient, record("b", 0), 0) != first).any()
    assert (drawn(salient, record("a", 0), 1) != first).any()


def test_its_turns(tmp_path, monkeypatch):
    """Drawn labels teach the initial network, whose answers teach the enhanced one, which annotates everything."""
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    pictures = tiny.helped_pictures(tmp_path / "data")
    pictures = pictures.with_records([replace(pictures.records[0], labels=(0, 1)), *pictures.records[1:]])
    learned: list[dict[str, list[int]]] = []

    class Network:
        def __init__(self, stage, told):
            learned.append({r.id: np.unique(read_mask(r.mask)).tolist() for r in told.records})
            self.number = len(learned)

        def annotate(self, stage):
            number = 254 if self.number > 1 else 0  # what it answers everywhere: background, then a mark
            return stage.annotate_each("annotate", lambda r: np.full((len_of(r), 26), number), {"n": number})

    def len_of(r: Record) -> int:
        return 20 + int(r.id[1:])

    monkeypatch.setattr(stc, "EarlierNetwork", Network)
    monkeypatch.setattr(stc, "saliency", lambda stage: Saliency(lambda r: np.ones((len_of(r), 26)), None))
    folder = STC_METHOD.annotate(prepare(STC_METHOD, RECIPE, pictures, pictures, 0))
    simple = [r.id for r in pictures.records[1:]]
    assert learned == [{i: [int(i[1:]) % 3 + 1] for i in simple}, {i: [0] for i in simple}]
    assert all((read_mask(folder / f"{r.id}.png") == 254).all() for r in pictures.records)
