"""MIL-FCN: its loss against NumPy, and a training from image labels alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from dsna_lib.config.recipe import Recipe
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data.pictures import Pictures
from dsna_lib.methods.base import lessons, prepare
from dsna_lib.methods.mil_fcn import MIL_FCN, MILLoss
from dsna_lib.methods.rows import METHODS, TABLE_III
from dsna_lib.segmentation.training import train_segmentation


def by_loops(logits: np.ndarray, labels: np.ndarray) -> float:
    """The formula of the module, place by place."""
    losses = []
    for scores, present in zip(logits, labels, strict=True):
        classes = [0, *(c + 1 for c in np.flatnonzero(present))]
        best = []
        for c in classes:
            shares = [np.exp(scores[c, i, j]) / np.exp(scores[:, i, j]).sum() for i in range(3) for j in range(4)]
            best.append(np.log(max(shares)))
        losses.append(-np.mean(best))
    return float(np.mean(losses))


def test_against_loops() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4, 3, 4)), rng.integers(0, 2, (5, 3))
    labels[0] = 0  # a picture that shows none of the classes still shows background
    batch = {"labels": torch.from_numpy(labels).float()}
    assert MILLoss()(torch.from_numpy(logits), batch).item() == pytest.approx(by_loops(logits, labels), rel=1e-5)


def test_only_the_best_place_of_each_present_class_learns() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    MILLoss()(logits, {"labels": torch.tensor([[0.0, 1.0]])}).backward()
    shares = logits.detach().softmax(dim=1)[0].flatten(1)
    places = {int(shares[c].argmax()) for c in (0, 2)}
    learning = logits.grad[0].abs().sum(dim=0).flatten().nonzero().flatten().tolist()
    assert set(learning) == places


def test_it_is_a_row_that_needs_labels_alone(tmp_path: Path) -> None:
    assert METHODS["MIL-FCN"] is MIL_FCN
    assert MIL_FCN in TABLE_III
    assert MIL_FCN.needs == {"labels"}
    pictures = tiny.pictures(tmp_path, masks=True)
    stage = prepare(MIL_FCN, Recipe(), pictures, pictures, seed=0)
    learned, loss = lessons(MIL_FCN, stage)
    assert isinstance(loss, MILLoss)
    assert all(record.mask is None for record in learned.records)


def answers(model: torch.nn.Module, pictures: Pictures) -> list[bool]:
    """Whether the most probable class over all places, background aside, is the picture's."""
    with torch.no_grad():
        best = [int(model(item["image"][None] / 255)[0, 1:].amax(dim=(1, 2)).argmax()) for item in pictures]
    return [c in record.labels for c, record in zip(best, pictures.records, strict=True)]


def test_a_network_learns_its_pictures_from_labels_alone(tmp_path: Path) -> None:
    pictures = tiny.pictures(tmp_path, count=6)
    model = tiny.segmentation(dropout=0.0)
    config = SegmentationTraining(
        epochs=60, drop_after=60, batch_size=6, backbone_rate=0.1, head_rate=0.1, crop=33, workers=0, device="cpu"
    )
    train_segmentation(model, pictures, replace(config, seed=1), tmp_path / "run", MILLoss())
    assert all(answers(model, pictures))
