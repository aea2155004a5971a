"""EM-Adapt: its guesses by hand and against the authors' algorithm in NumPy, and a training from labels alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dsna_lib.methods.em_adapt import EM_ADAPT, EMAdaptLoss, estimate


def guess(scores: list[list[float]], labels: list[int], *shares: float) -> list[int]:
    given = torch.tensor(scores)[None, :, None]
    return estimate(given, torch.tensor([labels], dtype=torch.float32), *shares)[0, 0].tolist()


def test_by_hand() -> None:
    """The background leads by 9, 7, 5, 3, 1. With a share of 0.4 the class gets their rank 2, 5, and wins below it."""
    scores = [[9.0, 8.0, 7.0, 6.0, 5.0], [0.0, 1.0, 2.0, 3.0, 4.0]]
    assert guess(scores, [1], 0.4, 0.4) == [0, 0, 0, 1, 1]
    assert guess(scores, [1], 0.4, 0.2) == [0, 0, 0, 0, 1]
    assert guess(scores, [1], 0.4, 0.0) == [0, 0, 0, 0, 0]
    assert guess(scores, [0], 0.0, 0.9) == [0] * 5  # absent, whatever it scores


def test_a_background_that_lost_everywhere_gets_its_share() -> None:
    scores = [[0.0, 1.0, 2.0, 3.0, 4.0], [9.0, 8.0, 7.0, 6.0, 5.0], [99.0] * 5]
    assert guess(scores, [1, 0], 0.4, 0.2) == [1, 1, 0, 0, 0]  # and the place where both are even


def test_no_more_than_it_lacks_is_given() -> None:
    """Both have their shares already, so that no place changes hands."""
    scores = [[3.0, 3.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]]
    assert guess(scores, [1]) == [0, 0, 0, 1, 1]


def by_loops(scores: np.ndarray, labels: np.ndarray, rounds: int) -> np.ndarray:
    """AdaptiveBiasChannel with ``suppress_others``, then the argmax; orders of classes are those that torch draws."""
    top = scores.copy()
    present = [0, *(c + 1 for c in np.flatnonzero(labels))]
    absent = [c for c in range(len(top)) if c not in present]
    lowest = top[present].min(axis=0)
    top[absent] = np.where(top[absent] > lowest, lowest - 1e-5, top[absent])
    highest = top[present].max(axis=0)
    for _ in range(rounds):
        drawn = [present[1 + k] for k in torch.randperm(len(present) - 1).tolist()]
        for c in [0, *drawn]:
            lacking = sorted(highest - top[c])
            top[c] += lacking[int((0.4 if c == 0 else 0.2) * len(lacking))]
            highest = np.maximum(highest, top[c])
    return top.argmax(axis=0)


@pytest.mark.parametrize("rounds", [1, 5])
def test_against_the_authors_algorithm(rounds: int) -> None:
    rng = np.random.default_rng(rounds)
    scores, labels = rng.normal(size=(6, 5, 42)).astype(np.float32), rng.integers(0, 2, (6, 4))
    scores[:, 0] += 2
    labels[0] = 0
    torch.manual_seed(3)
    want = [by_loops(*pair, rounds) for pair in zip(scores, labels, strict=True)]
    torch.manual_seed(3)
    got = estimate(torch.from_numpy(scores).view(6, 5, 6, 7), torch.from_numpy(labels), rounds=rounds)
    # Places where two classes are even belong to either.
    assert (got.flatten(1).numpy() == np.stack(want)).mean() > 0.99
    shares = [np.bincount(each.flatten(), minlength=5) / 42 for each in got.numpy()]
    assert all(share[0] > 0.3 for share in shares)
    assert all(share[1 + c] > 0.1 for share, own in zip(shares, labels, strict=True) for c in np.flatnonzero(own))
    assert not any(share[1 + c] for share, own in zip(shares, labels, strict=True) for c in np.flatnonzero(own == 0))


def test_the_loss_is_the_cross_entropy_on_the_guess_without_biases() -> None:
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0], [0.0, 1.0, 2.0, 3.0, 4.0]]).view(1, 2, 1, 5).requires_grad_()
    loss = EMAdaptLoss()(scores, {"labels": torch.tensor([[1.0]])})
    right = torch.tensor([9.0, 7.0, 5.0, 3.0, -1.0]).sigmoid()
    torch.testing.assert_close(loss, -right.log().mean())
    loss.backward()
    torch.testing.assert_close(scores.grad[0, 1, 0], torch.tensor([1.0, 1, 1, 1, -1]) * (1 - right) / 5)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"labels \(1, 3\) must be \(N, C\) = \(1, 2\)"):
        estimate(torch.zeros(1, 3, 2, 2), torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"shares 0.4 and 1.2 must lie in 0..1"):
        estimate(torch.zeros(1, 3, 2, 2), torch.ones(1, 2), share=1.2)


def test_its_row() -> None:
    assert (EM_ADAPT.title, EM_ADAPT.paper, EM_ADAPT.trains) == ("EM-Adapt", 38.2, frozenset())
