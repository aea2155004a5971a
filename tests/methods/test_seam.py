"""SEAM: pixel correlation and both regularizers in NumPy, what they teach, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from tiny_experiments import RECIPE

from dsna_lib.attention import AttentionModel, SingleStreamAttention, classification_loss
from dsna_lib.maps import positive_part
from dsna_lib.methods import learned
from dsna_lib.methods.base import prepare
from dsna_lib.methods.later import printed_later
from dsna_lib.methods.seam import (
    SEAM,
    SEAM_METHOD,
    corrected,
    own_maps,
    regularization,
    seam_loss,
    seam_maps,
    strongest,
)


@pytest.fixture
def network() -> SEAM:
    torch.manual_seed(0)
    return SEAM(AttentionModel(tiny.backbone(), SingleStreamAttention(8, 3, dropout=0)))


def corrected_by_loops(maps: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """One picture: maps (C, n) and keys (K, n)."""
    best = np.where(maps == maps.max(axis=0), maps, 0)
    found = np.zeros_like(maps)
    for i in range(maps.shape[1]):
        alike = [max(0, keys[:, i] @ keys[:, j] / np.linalg.norm(keys[:, i]) / np.linalg.norm(keys[:, j]))
                 for j in range(maps.shape[1])]  # fmt: skip
        found[:, i] = best @ alike / sum(alike)
    return found / found.max(axis=1, keepdims=True)


def test_correction_against_loops() -> None:
    rng = np.random.default_rng(0)
    maps, keys = rng.random((2, 3, 2, 3)), rng.normal(size=(2, 4, 2, 3))
    got = corrected(torch.from_numpy(maps).float(), torch.from_numpy(keys)).flatten(2).numpy()
    for n in range(2):
        want = corrected_by_loops(maps[n].reshape(3, 6), keys[n].reshape(4, 6))
        np.testing.assert_allclose(got[n], want, rtol=1e-4)


def test_only_the_highest_class_of_a_place_is_held_against() -> None:
    maps = torch.tensor([[[[0.9, 0.2, 0.0]], [[0.4, 0.3, 0.0]]]], requires_grad=True)
    assert strongest(maps).tolist() == torch.tensor([[[[0.9, 0.0, 0.0]], [[0.0, 0.3, 0.0]]]]).tolist()
    assert not strongest(maps).requires_grad


def test_the_regularizers_against_numpy() -> None:
    """On grids of 2 x 2 and 1 x 1, shrinking is the mean of four places; a fifth of two values is one."""
    rng = np.random.default_rng(1)
    large, small = rng.random((1, 2, 2, 2)), rng.random((1, 2, 1, 1))
    keys, small_keys = rng.normal(size=(1, 3, 2, 2)), rng.normal(size=(1, 3, 1, 1))
    mean = large.mean(axis=(2, 3))
    er = np.abs(mean - small[..., 0, 0]).mean()
    refined = corrected_by_loops(large.reshape(2, 4), keys.reshape(3, 4)).mean(axis=1)
    own = small[0, :, 0, 0]
    first = np.abs(refined - np.where(own == own.max(), own, 0)).max()
    second = np.abs((own == own.max()) - np.where(mean[0] == mean[0].max(), mean[0], 0)).max()
    tensors = (torch.from_numpy(each).float() for each in (large, small, keys, small_keys))
    assert regularization(*tensors).item() == pytest.approx(er + first + second, rel=1e-5)


def test_maps_that_follow_their_pictures_cost_nothing() -> None:
    """An object of whole cells in either grid, with keys that tell it from the ground; moved, it costs."""
    large = torch.zeros(1, 2, 4, 4)
    large[:, 0, :2, :2] = 1
    small = large[..., ::2, ::2].clone()
    keys = torch.stack([large[:, 0], 1 - large[:, 0]], dim=1)
    assert regularization(large, small, keys, keys[..., ::2, ::2]) == 0
    assert regularization(large, small.flip(-1), keys, keys[..., ::2, ::2]) > 0.5


def test_the_loss_is_the_sum_of_its_terms(network: SEAM) -> None:
    pictures, labels = torch.rand(2, 3, 32, 32), torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    views = network(pictures)
    assert [view.output.discriminative.shape[-2:] for view in views] == [(8, 8), (4, 4)]
    maps = [positive_part(view.output.discriminative) * labels[..., None, None] for view in views]
    classified = [classification_loss(view.output.scores, labels) for view in views]
    want = sum(classified) / 2 + regularization(*maps, views[0].keys, views[1].keys)
    torch.testing.assert_close(seam_loss(views, {"labels": labels}), want)


def test_correlation_teaches_its_own_features_alone(network: SEAM) -> None:
    """Equivariance teaches the classifier; from cross regularization no slope reaches it."""
    views = network(torch.rand(2, 3, 32, 32))
    maps = [own_maps(view, torch.ones(2, 3)).detach() for view in views]
    regularization(*maps, views[0].keys, views[1].keys).backward()
    assert all(p.grad is None for name, p in network.named_parameters() if not name.startswith("theta"))
    assert network.theta.weight.grad.abs().sum() > 0
    views = network(torch.rand(2, 3, 32, 32))
    regularization(*(own_maps(view, torch.ones(2, 3)) for view in views), *(view.keys for view in views)).backward()
    assert all(p.grad is not None for p in network.parameters() if p is not network.head.discriminative.bias)


@torch.no_grad()
def test_its_maps_are_the_corrected_ones_of_the_classes_present(network: SEAM) -> None:
    pictures, present = torch.rand(2, 3, 32, 32), torch.tensor([[True, False, True], [False, True, False]])
    output, made = seam_maps(network.eval(), pictures, present)
    view = network.view(pictures)
    torch.testing.assert_close(made["seam"], corrected(own_maps(view, present), view.keys))
    assert not made["seam"][~present].any()
    torch.testing.assert_close(output.features, network.backbone(pictures))
    torch.testing.assert_close(output.scores, network.head(network.backbone(pictures)).scores)


def test_it_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    data = tiny.pictures(tmp_path / "data", masks=True)
    stage = prepare(SEAM_METHOD, RECIPE, data, data, seed=0)
    folder = SEAM_METHOD.annotate(stage)
    monkeypatch.setattr(learned.training, "fit", lambda *a: 1 / 0)
    assert SEAM_METHOD.annotate(stage) == folder
    with pytest.raises(ZeroDivisionError):
        SEAM_METHOD.annotate(prepare(SEAM_METHOD, RECIPE, data, data, seed=1))


def test_its_row() -> None:
    assert (SEAM_METHOD.title, SEAM_METHOD.paper, SEAM_METHOD.kind) == ("SEAM", printed_later("SEAM"), "seam")
