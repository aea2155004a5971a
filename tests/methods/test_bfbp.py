"""BFBP: its prior and its loss by hand and by loops; its masks with and without a CRF."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from dsna_lib.data.pictures import VOID, Record
from dsna_lib.maps import PictureMaps
from dsna_lib.methods import bfbp
from dsna_lib.methods.bfbp import BFBP, BFBPLoss, mask_of, prior, smooth_maximum


def test_the_prior_by_hand() -> None:
    """Means over channels 1 3 5 9 become 0 1/4 1/2 1; the coarser 2 1, where -4 counts as 0, become 1 0.

    On the finer grid that is 1 3/4 1/4 0, and the sums 1 1 3/4 1 are scaled to 1 1 0 1.
    """
    fine = torch.tensor([[[[0.0, 2, 4, 8]], [[2.0, 4, 6, 10]]]])
    coarse = torch.tensor([[[[4.0, 0]], [[-4.0, 2]]]])
    torch.testing.assert_close(prior([fine, coarse]), torch.tensor([[[[1.0, 1, 0, 1]]]]))


def test_a_mask_without_a_crf_is_the_prior_above_one_half() -> None:
    likely = np.array([[0.0, 0.5, 0.6, 1.0]], np.float32)
    assert mask_of(likely, np.zeros((1, 4, 3), np.uint8), "none").tolist() == [[False, False, True, True]]


def test_the_crf_moves_the_outline_to_the_edge_unless_nothing_would_be_left() -> None:
    image = np.zeros((24, 24, 3), np.uint8)
    image[6:18, 6:18] = 220
    likely = np.full((24, 24), 0.1, np.float32)
    likely[9:18, 9:18] = 0.9
    refined = mask_of(likely, image, "sec")
    np.testing.assert_array_equal(refined, image[..., 0] > 0)
    faint = np.full((24, 24), 0.05, np.float32)
    faint[12, 12] = 0.6  # the CRF would wipe it out
    np.testing.assert_array_equal(mask_of(faint, image, "sec"), faint > 0.5)


@pytest.mark.parametrize(("labels", "value"), [((2,), 3), ((0, 2), VOID), ((), 0)])
def test_the_foreground_has_a_name_where_there_is_one_alone(tmp_path, labels, value) -> None:
    write = {"prior": torch.tensor([[[0.0, 9.0]]])}
    seen = PictureMaps(0, (2, 8), write, torch.zeros(1, 1, 2), torch.zeros(3))
    Image.new("RGB", (8, 2)).save(tmp_path / "a.png")
    made = bfbp._annotation(Record("a", tmp_path / "a.png", labels), seen, "none")
    assert made.tolist() == [[0] * 4 + [value] * 4] * 2


def test_the_smooth_maximum_lies_between_mean_and_maximum() -> None:
    f, places = torch.tensor([[[0.2, 0.8, 0.9]]]), torch.tensor([[True, True, False]])
    want = math.log((math.exp(5 * 0.2) + math.exp(5 * 0.8)) / 2) / 5
    assert smooth_maximum(f, places, 5).item() == pytest.approx(want)
    assert smooth_maximum(f, places, 1e-3).item() == pytest.approx(0.5, abs=1e-3)
    assert smooth_maximum(f, places, 80).item() == pytest.approx(0.8, abs=0.01)
    nowhere, everywhere = torch.zeros_like(places), torch.ones_like(places)
    torch.testing.assert_close(smooth_maximum(f, nowhere, 5), smooth_maximum(f, everywhere, 5))


def by_loops(f: np.ndarray, masks: np.ndarray, labels: np.ndarray, r: float = 5) -> float:
    """The formula of the module, place by place; f (N, C + 1, n), masks (N, n)."""
    losses = []
    for own, mask, present in zip(f, masks, labels, strict=True):
        inside = [u for u in range(own.shape[1]) if mask[u] != 0]
        outside = [u for u in range(own.shape[1]) if mask[u] == 0]

        def best(c: int, places: list[int], own=own) -> float:
            return math.log(sum(math.exp(r * own[c, u]) for u in places) / len(places)) / r

        here = [math.log(best(c + 1, inside)) for c in np.flatnonzero(present)] if inside else []
        elsewhere = [math.log(1 - best(c + 1, [*range(own.shape[1])])) for c in np.flatnonzero(present == 0)]
        behind = [math.log(own[0, u]) for u in outside]
        losses.append(-sum(np.mean(term) for term in (here, elsewhere, behind) if term))
    return float(np.mean(losses))


def test_the_loss_against_loops() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 4, 3, 4)), rng.integers(0, 2, (5, 3))
    masks = rng.choice([0, 2, VOID], (5, 3, 4)).astype(np.uint8)
    labels[0], labels[1] = 0, 1
    masks[2], masks[3] = 0, VOID  # background alone; foreground alone
    f = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    batch = {"labels": torch.from_numpy(labels).float(), "mask": torch.from_numpy(masks)}
    given = torch.from_numpy(logits).requires_grad_()
    got = BFBPLoss()(given, batch)
    assert got.item() == pytest.approx(by_loops(f.reshape(5, 4, -1), masks.reshape(5, -1), labels), rel=1e-5)
    got.backward()
    assert torch.isfinite(given.grad).all()


def test_a_class_learns_inside_the_mask_alone() -> None:
    """Of one class, present: outside, only the background's own probability counts."""
    logits = torch.zeros(1, 2, 1, 4, requires_grad=True)
    batch = {"labels": torch.ones(1, 1), "mask": torch.tensor([[[0, 0, 255, 1]]], dtype=torch.uint8)}
    BFBPLoss()(logits, batch).backward()
    assert (logits.grad[0, 1, 0].sign()).tolist() == [1, 1, -1, -1]


def test_its_row() -> None:
    assert (BFBP.title, BFBP.paper, BFBP.trains) == ("BFBP", 46.6, frozenset())
    assert BFBPLoss.needs_masks
    assert BFBPLoss.whole_pictures
