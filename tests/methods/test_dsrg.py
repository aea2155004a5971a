"""DSRG: seeds that grow by hand and by a plain flood, and both losses in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from dsna_lib.data.pictures import VOID
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.dsrg import DSRG, DSRGLoss, balanced_seed_loss, grow
from dsna_lib.methods.later import printed_later
from dsna_lib.methods.sec import constrain_loss, crf_marginals


def test_growing_by_hand() -> None:
    """Class 1 grows over a corner and no further; class 2 is absent; the background needs more."""
    seeds = np.full((3, 5), VOID, np.uint8)
    seeds[0, 0], seeds[2, 4], seeds[0, 4] = 1, 0, 2
    q = np.zeros((3, 3, 5))
    q[1] = [[0.1, 0.9, 0.5, 0.9, 0.0], [0.0, 0.0, 0.86, 0.0, 0.0], [0.9, 0.0, 0.0, 0.84, 0.0]]
    q[2, 1, 4] = 0.95
    q[0, 2, 3], q[0, 2, 2] = 0.16, 0.995
    assert grow(seeds, q, [1]).tolist() == [[1, 1, 255, 1, 2], [255, 255, 1, 255, 255], [255, 255, 255, 255, 0]]
    q[0, 2, 3] = 0.995
    assert grow(seeds, q, [1])[2].tolist() == [255, 255, 0, 0, 0]
    assert grow(seeds, q, [1, 2])[1, 4] == 2
    assert seeds[0, 1] == VOID  # those that were given are kept


def flood(seeds: np.ndarray, q: np.ndarray, present: list[int]) -> np.ndarray:
    """The same, one neighbor after the other."""
    grown, (height, width) = seeds.copy(), seeds.shape
    for c in [0, *present]:
        waiting = [tuple(place) for place in np.argwhere(seeds == c)]
        while waiting:
            y, x = waiting.pop()
            for v, u in np.ndindex(3, 3):
                other = y + v - 1, x + u - 1
                inside = 0 <= other[0] < height and 0 <= other[1] < width
                if inside and grown[other] == VOID and q[(c, *other)] > (0.85 if c else 0.99):
                    grown[other] = c
                    waiting.append(other)
    return grown


@pytest.mark.parametrize("seed", range(5))
def test_growing_against_a_flood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = functional.softmax(torch.from_numpy(rng.normal(size=(4, 9, 9)) * 9), dim=0).numpy()
    seeds = np.where(rng.random((9, 9)) < 0.1, rng.integers(0, 4, (9, 9)), VOID).astype(np.uint8)
    want = flood(seeds, q, [1, 3])
    np.testing.assert_array_equal(grow(seeds, q, [1, 3]), want)
    assert (want != seeds).any()


def test_objects_and_background_weigh_alike() -> None:
    logits, seeds = torch.randn(2, 3, 2, 3), torch.tensor([[[0, 0, 0], [1, 2, 255]], [[255, 255, 1], [1, 1, 255]]])
    log_f = torch.log_softmax(logits, dim=1).numpy()
    first = -(log_f[0, 1, 1, 0] + log_f[0, 2, 1, 1]) / 2 - log_f[0, 0, 0].mean()
    second = -(log_f[1, 1, 0, 2] + log_f[1, 1, 1, 0] + log_f[1, 1, 1, 1]) / 3
    assert balanced_seed_loss(logits, seeds).item() == pytest.approx((first + second) / 2, rel=1e-5)
    assert balanced_seed_loss(logits, torch.full_like(seeds, VOID)) == 0


def test_the_loss_is_that_of_grown_seeds_and_secs_constrain() -> None:
    torch.manual_seed(0)
    logits = (torch.randn(2, 3, 5, 5) * 6).requires_grad_()
    batch = {"image": torch.rand(2, 3, 33, 33), "labels": torch.tensor([[1.0, 0.0], [1.0, 1.0]])}
    batch["mask"] = torch.full((2, 33, 33), VOID, dtype=torch.uint8)
    batch["mask"][:, ::8, 0], batch["mask"][:, 0, 8:] = 1, 0
    f = functional.softmax(logits.detach(), dim=1) + 1e-4
    q = crf_marginals(f / f.sum(dim=1, keepdim=True), batch["image"]).numpy()
    seeds = batch["mask"][:, ::8, ::8].numpy()
    grown = np.stack([flood(seeds[0], q[0], [1]), flood(seeds[1], q[1], [1, 2])])
    assert (grown != seeds).any()
    want = balanced_seed_loss(logits, torch.from_numpy(grown)) + constrain_loss(logits, batch["image"])
    loss = DSRGLoss()(logits, batch)
    torch.testing.assert_close(loss, want)
    loss.backward()
    assert logits.grad.isfinite().all()


def test_its_row() -> None:
    assert (DSRG.title, DSRG.paper, DSRG.refined) == ("DSRG", printed_later("DSRG"), False)
    assert DSRG.trains == CAM.trains
