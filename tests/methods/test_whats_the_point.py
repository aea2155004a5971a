"""What's the point: its loss against loops and by hand, what it is told, and a training from points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from tiny_experiments import RECIPE

from dsna_lib.data import transforms
from dsna_lib.data.pictures import VOID, read_mask
from dsna_lib.methods.base import lessons, prepare
from dsna_lib.methods.whats_the_point import WHATS_THE_POINT, PointLoss, image_term, point_term


def by_loops(logits: np.ndarray, labels: np.ndarray, points: list[list[tuple[int, int, int]]]) -> float:
    """The formula of the module, with points as (class, row, column) of the grid."""
    losses = []
    for scores, present, told in zip(logits, labels, points, strict=True):
        s = np.exp(scores) / np.exp(scores).sum(axis=0)
        shown = [0, *(c + 1 for c in np.flatnonzero(present))]
        absent = [c for c in range(len(s)) if c not in shown]
        loss = -np.mean([np.log(s[c].max()) for c in shown])
        loss -= np.mean([np.log(1 - s[c].max()) for c in absent]) if absent else 0
        loss -= np.mean([np.log(s[c, i, j]) for c, i, j in told]) if told else 0
        losses.append(loss)
    return float(np.mean(losses))


def test_against_loops() -> None:
    """On a grid of 3 x 4 for pictures of 9 x 13: cells are four pixels apart, the outer ones on the border."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4, 3, 4)), rng.integers(0, 2, (5, 3))
    labels[0], labels[1] = 0, 1  # none of the classes, and all of them
    points = [[(int(rng.integers(0, 4)), k, (k + n) % 4) for k in range(n % 3)] for n in range(5)]
    mask = np.full((5, 9, 13), VOID, np.uint8)
    for n, told in enumerate(points):
        for c, i, j in told:
            mask[n, min(4 * i + n % 2, 8), 4 * j] = c
    batch = {"labels": torch.from_numpy(labels).float(), "mask": torch.from_numpy(mask)}
    assert PointLoss()(torch.from_numpy(logits), batch).item() == pytest.approx(
        by_loops(logits, labels, points), rel=1e-5
    )


def test_by_hand() -> None:
    """Background, a present and an absent class at two places; a point at the second."""
    s = torch.tensor([[[0.5, 0.1], [0.3, 0.6], [0.2, 0.3]]]).view(1, 3, 1, 2).log()
    image = -(np.log(0.5) + np.log(0.6)) / 2 - np.log(1 - 0.3)
    assert image_term(s, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(image, rel=1e-5)
    mask = torch.tensor([[[255, 255, 1]]], dtype=torch.uint8)
    assert point_term(s, mask).item() == pytest.approx(-np.log(0.6), rel=1e-5)
    assert point_term(s, torch.full_like(mask, 255)).item() == 0
    both = torch.tensor([[[2, 255, 1]]], dtype=torch.uint8)
    assert point_term(s, both).item() == pytest.approx(-(np.log(0.2) + np.log(0.6)) / 2, rel=1e-5)


def test_the_cell_that_is_nearest_hears_a_point() -> None:
    """9 pixels on 3 cells, centered on the pixels 0, 4 and 8."""
    heard = []
    for x in range(9):
        logits = torch.zeros(1, 2, 1, 3, requires_grad=True)
        mask = torch.full((1, 1, 9), VOID, dtype=torch.uint8)
        mask[0, 0, x] = 1
        point_term(logits.log_softmax(dim=1), mask).sum().backward()
        heard.append(int(logits.grad[0, 1, 0].abs().argmax()))
    assert heard[:2] + heard[3:6] + heard[7:] == [0, 0, 1, 1, 1, 2, 2]  # 2 and 6 lie between two


def test_an_absent_class_that_is_believed_to_fill_a_place_still_learns() -> None:
    """1 - S is far below what float32 knows of S."""
    logits = torch.tensor([0.0, 40.0, 0.0]).view(1, 3, 1, 1).requires_grad_()
    value = image_term(logits.log_softmax(dim=1), torch.tensor([[0.0, 1.0]]))
    value.sum().backward()
    assert value.item() == pytest.approx(40 + 40 - np.log(2), rel=1e-5)
    assert logits.grad[0, 1, 0, 0] > 1


@pytest.fixture
def told(tmp_path, monkeypatch):
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    return tiny.told_pictures(tmp_path / "data")


def test_annotations_are_the_points_alone(told, tmp_path: Path) -> None:
    table = tmp_path / "data/help/points.csv"
    table.write_text(f"{table.read_text()}p00,0,0,blue\np00,1,1,green\n")
    none = replace(told.records[1], labels=())
    pictures = told.with_records([told.records[0], none, *told.records[2:]])
    learned, loss = lessons(WHATS_THE_POINT, prepare(WHATS_THE_POINT, RECIPE, pictures, pictures, 0))
    assert isinstance(loss, PointLoss)
    first, second, third = (read_mask(record.mask) for record in learned.records[:3])
    assert first[0, :4].tolist() == [3, 2, 2, 255]  # of 3 x 3 each; at the points themselves, the points
    assert first[1, 1] == 2
    assert not second.any()  # shows nothing
    truth = read_mask(told.records[2].mask)
    assert {*np.unique(third)} == {3, 255}
    assert (third == 3).sum() == 9
    assert (truth[third == 3] == 3).all()


def test_a_network_learns_its_pictures_from_points(told) -> None:
    """The class at the point, and no absent one anywhere."""
    learned, loss = lessons(WHATS_THE_POINT, prepare(WHATS_THE_POINT, RECIPE, told, told, 0))
    shown = learned.with_transform(transforms.inference(33), masks=True)
    batch = {name: torch.stack([item[name] for item in shown]) for name in ("image", "labels", "mask")}
    model = tiny.segmentation(dropout=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        loss(model(batch["image"]), batch).backward()
        optimizer.step()
    log_s = model(batch["image"]).detach().log_softmax(dim=1)
    assert (point_term(log_s, batch["mask"]) < np.log(2)).all()
    assert (log_s[:, 1:].amax(dim=(2, 3))[batch["labels"] == 0] < np.log(0.5)).all()
