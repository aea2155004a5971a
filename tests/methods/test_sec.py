"""SEC's three losses: by hand, against NumPy, by numeric gradients, and with the dense CRF in the loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from dsna_lib import crf
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.crf import CRFParams
from dsna_lib.methods import sec
from dsna_lib.methods.sec import (
    SECLoss,
    constrain_loss,
    crf_marginals,
    expand_loss,
    global_weighted_rank_pooling,
    scaled_crf,
    scaled_decay,
    seed_loss,
)
from dsna_lib.segmentation.networks import SegmentationModel
from dsna_lib.segmentation.training import train_segmentation
from dsna_lib.training import read_log

FLOOR = 1e-4


# The losses in plain NumPy, one picture and one class at a time


def softmax(scores: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Over the first axis of ``(K, h, w)``."""
    f = np.exp(scores - scores.max(axis=0))
    f = f / f.sum(axis=0) + floor
    return f / f.sum(axis=0)


def pooled(values: np.ndarray, decay: float) -> float:
    ranked = sorted(values.ravel().tolist(), reverse=True)
    weights = [decay**j if j else 1.0 for j in range(len(ranked))]
    return sum(w * v for w, v in zip(weights, ranked, strict=True)) / sum(weights)


def numpy_seed(logits: np.ndarray, cues: np.ndarray, floor: float = 0.0) -> float:
    losses = []
    for scores, cue in zip(logits, cues, strict=True):
        f = softmax(scores, floor)
        terms = [-math.log(f[cue[i, j], i, j]) for i, j in np.ndindex(*cue.shape) if cue[i, j] != 255]
        losses.append(sum(terms) / len(terms) if terms else 0.0)
    return float(np.mean(losses))


def numpy_expand(logits: np.ndarray, labels: np.ndarray, decays: tuple[float, float, float]) -> float:
    present_decay, absent_decay, background_decay = decays
    losses = []
    for scores, label in zip(logits, labels, strict=True):
        f = softmax(scores, FLOOR)
        present = [-math.log(pooled(f[c + 1], present_decay)) for c in range(len(label)) if label[c]]
        absent = [-math.log(1 - pooled(f[c + 1], absent_decay)) for c in range(len(label)) if not label[c]]
        background = -math.log(pooled(f[0], background_decay))
        losses.append(sum(sum(x) / len(x) for x in (present, absent) if x) + background)
    return float(np.mean(losses))


def numpy_constrain(logits: np.ndarray, marginals: np.ndarray) -> float:
    losses = []
    for scores, q in zip(logits, marginals, strict=True):
        f = softmax(scores, FLOOR)
        terms = [q[at] * math.log(q[at] / f[at]) for at in np.ndindex(*q.shape) if q[at] > 0]
        losses.append(sum(terms) / q[0].size)
    return float(np.mean(losses))


def draw(seed: int = 0, shape: tuple[int, ...] = (3, 4, 5, 6), scale: float = 2.0) -> Tensor:
    """Logits in float64."""
    return torch.from_numpy(np.random.default_rng(seed).normal(0, scale, shape))


def draw_cues(seed: int = 0) -> Tensor:
    """Cues on the grid of :func:`draw`; the last picture has none."""
    cues = np.random.default_rng(seed).choice([0, 1, 2, 3, 255], size=(3, 5, 6)).astype(np.uint8)
    cues[-1] = 255
    return torch.from_numpy(cues)


# One picture with one present class, one with all, one with none.
LABELS = torch.tensor([[0, 1, 0], [1, 1, 1], [0, 0, 0]])


def images_of(count: int = 3, size: tuple[int, int] = (33, 41)) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).random((count, 3, *size), np.float32))


# Seed


def test_seed_by_hand():
    """Two cued places in the first picture, one in the second, none in the third: each picture counts once."""
    logits = torch.zeros(3, 2, 1, 3)
    logits[0, 1, 0, 0] = math.log(3)  # f_1 = 3/4
    logits[1, 0, 0, 2] = math.log(9)  # f_0 = 9/10
    cues = torch.tensor([[[1, 255, 0]], [[255, 255, 0]], [[255, 255, 255]]], dtype=torch.uint8)
    first = (-math.log(3 / 4) - math.log(1 / 2)) / 2
    torch.testing.assert_close(seed_loss(logits, cues), torch.tensor((first - math.log(9 / 10) + 0) / 3))


@pytest.mark.parametrize("seed", range(4))
def test_seed_is_the_formula(seed):
    logits, cues = draw(seed), draw_cues(seed)
    assert seed_loss(logits, cues).item() == pytest.approx(numpy_seed(logits.numpy(), cues.numpy()), rel=1e-12)


def test_seed_gradient_is_exact_and_zero_without_cues():
    logits, cues = draw().requires_grad_(), draw_cues()
    assert torch.autograd.gradcheck(lambda x: seed_loss(x, cues), logits)
    seed_loss(logits, cues).backward()
    moved = (logits.grad != 0).any(dim=1)
    assert torch.equal(moved, cues != 255)


def test_no_cues_at_all_is_zero_and_not_nan():
    logits = draw().requires_grad_()
    loss = seed_loss(logits, torch.full((3, 5, 6), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_larger_cues_are_shrunk_to_the_grid():
    """17 pixels to 3 cells: pixels 0, 8 and 16; all others may hold anything."""
    cues = torch.full((1, 17, 17), 3, dtype=torch.uint8)
    grid = torch.tensor([[0, 1, 255], [2, 255, 255], [255, 1, 0]], dtype=torch.uint8)
    cues[0, ::8, ::8] = grid
    logits = draw(shape=(1, 4, 3, 3))
    torch.testing.assert_close(seed_loss(logits, cues), seed_loss(logits, grid[None]))


def test_a_confident_mistake_keeps_its_gradient():
    logits = torch.tensor([50.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
    seed_loss(logits, torch.ones(1, 1, 1, dtype=torch.uint8)).backward()
    torch.testing.assert_close(logits.grad.flatten(), torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("seed", range(4))
def test_the_floored_seed_is_the_formula_of_the_authors_layers(seed):
    """Where scores are far apart it shows: no place costs more than -log 1e-4."""
    logits, cues = draw(seed, scale=12.0), draw_cues(seed)
    expected = numpy_seed(logits.numpy(), cues.numpy(), FLOOR)
    assert seed_loss(logits, cues, floor=True).item() == pytest.approx(expected, rel=1e-12)
    assert expected < numpy_seed(logits.numpy(), cues.numpy()) - 0.1


def test_the_floor_is_off_unless_said():
    logits, batch = draw(scale=12.0), batch_of()
    plain, floored = SECLoss(("seed",)), SECLoss(("seed",), seed_floor=True)
    assert torch.equal(plain(logits, batch), seed_loss(logits, batch["mask"]))
    assert torch.equal(floored(logits, batch), seed_loss(logits, batch["mask"], floor=True))
    assert floored(logits, batch) < plain(logits, batch) - 0.1


def test_floored_seed_gradient_is_exact():
    logits, cues = draw().requires_grad_(), draw_cues()
    assert torch.autograd.gradcheck(lambda x: seed_loss(x, cues, floor=True), logits)


@pytest.mark.parametrize("margin", [5.0, 10.0, 15.0, 20.0])
def test_under_a_floor_the_gradient_dies_at_a_confidently_wrong_cue(margin):
    """Two classes, and the cue says the one that is `margin` behind.

    With p its probability, the gradient of the default is 1 - p; the floor leaves p (1 - p) / (p + 1e-4) of it.
    """
    p = 1 / (1 + math.exp(margin))
    gradients = []
    for floor in (False, True):
        logits = torch.tensor([margin, 0.0], dtype=torch.float64).view(1, 2, 1, 1).requires_grad_()
        seed_loss(logits, torch.ones(1, 1, 1, dtype=torch.uint8), floor).backward()
        gradients.append(-logits.grad[0, 1].item())
    assert gradients == pytest.approx([1 - p, p * (1 - p) / (p + FLOOR)], rel=1e-9)
    assert gradients[0] > 0.99
    assert (gradients[1] < 0.01) == (margin > 13)


def test_seed_refuses_bad_cues():
    with pytest.raises(ValueError, match="a cue holds class 4, but the logits end at class 3"):
        seed_loss(draw(), draw_cues().masked_fill(draw_cues() == 3, 4))
    with pytest.raises(
        ValueError, match=r"cues \(2, 5, 6\) must be \(N, H, W\) with the N of the logits \(3, 4, 5, 6\)"
    ):
        seed_loss(draw(), draw_cues()[:2])
    with pytest.raises(ValueError, match=r"cues \(3, 1, 5, 6\) must be \(N, H, W\)"):
        seed_loss(draw(), draw_cues()[:, None])


# Expand


def test_pooling_by_hand():
    scores = torch.tensor([0.2, 0.8, 0.5])
    assert global_weighted_rank_pooling(scores, 0).item() == pytest.approx(0.8)
    assert global_weighted_rank_pooling(scores, 1).item() == pytest.approx(0.5)
    assert global_weighted_rank_pooling(scores, 0.5).item() == pytest.approx((0.8 + 0.5 / 2 + 0.2 / 4) / 1.75)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.996, 1.0])
def test_pooling_is_the_formula_with_ties_too(decay):
    scores = torch.from_numpy(np.random.default_rng(0).choice([0.1, 0.2, 0.7], (2, 3, 4, 5)))
    got = global_weighted_rank_pooling(scores, decay)
    assert got.shape == (2, 3)
    for place in np.ndindex(2, 3):
        assert got[place].item() == pytest.approx(pooled(scores[place].numpy(), decay), rel=1e-12)
    torch.testing.assert_close(global_weighted_rank_pooling(scores.flatten(2), decay), got)


def test_pooling_gradient_is_the_weights():
    scores = torch.tensor([0.2, 0.8, 0.5], dtype=torch.float64, requires_grad=True)
    global_weighted_rank_pooling(scores, 0.5).backward()
    torch.testing.assert_close(scores.grad, torch.tensor([1, 4, 2], dtype=torch.float64) / 7)


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_pooling_refuses_other_decays(decay):
    with pytest.raises(ValueError, match=f"decay={decay} must lie between 0"):
        global_weighted_rank_pooling(torch.rand(3), decay)


def share_of_half_the_weight(decay: float, places: int) -> float:
    """Which share of the places, from the highest, holds half of the weight."""
    weights = decay ** np.arange(places)
    return np.searchsorted(weights.cumsum() / weights.sum(), 0.5) / places


def test_the_paper_decays_pool_a_tenth_and_31_percent():
    assert share_of_half_the_weight(0.996, 41 * 41) == pytest.approx(0.10, abs=0.005)
    assert share_of_half_the_weight(0.999, 41 * 41) == pytest.approx(0.31, abs=0.005)
    assert share_of_half_the_weight(0.996, 17 * 17) > 1 / 3


@pytest.mark.parametrize("decay", [0.996, 0.999])
@pytest.mark.parametrize("side", [9, 17, 41, 65])
def test_a_scaled_decay_pools_the_same_share(decay, side):
    scaled = scaled_decay(decay, side * side)
    expected = share_of_half_the_weight(decay, 41 * 41)
    assert share_of_half_the_weight(scaled, side * side) == pytest.approx(expected, abs=1.5 / side**2)


def test_scaled_decay_keeps_its_ends_and_the_reference():
    assert [scaled_decay(d, 7) for d in (0.0, 1.0)] == [0.0, 1.0]
    assert scaled_decay(0.996, 41 * 41) == 0.996
    assert scaled_decay(0.5, 2, reference=4) == 0.25
    with pytest.raises(ValueError, match="places=0 must be at least 1"):
        scaled_decay(0.9, 0)


def test_expand_by_hand():
    """Background, a present and an absent class, two places; decays of mean, maximum and mean."""
    f = np.array([[0.5, 0.3], [0.4, 0.2], [0.1, 0.5]])
    logits = torch.from_numpy(np.log(f)).view(1, 3, 1, 2)
    floored = (f + FLOOR) / (1 + 3 * FLOOR)
    expected = -math.log(floored[1].mean()) - math.log(1 - floored[2].max()) - math.log(floored[0].mean())
    got = expand_loss(logits, torch.tensor([[1, 0]]), 1.0, 0.0, 1.0)
    assert got.item() == pytest.approx(expected, rel=1e-12)
    assert got.item() == pytest.approx(-math.log(0.3) - math.log(0.5) - math.log(0.4), rel=2e-3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("decays", [(0.996, 0.0, 0.999), (0.5, 0.2, 0.9)])
def test_expand_is_the_formula(seed, decays):
    logits = draw(seed)
    expected = numpy_expand(logits.numpy(), LABELS.numpy(), decays)
    assert expand_loss(logits, LABELS, *decays, reference=None).item() == pytest.approx(expected, rel=1e-12)
    scaled = tuple(d ** (41 * 41 / 30) for d in decays)
    expected = numpy_expand(logits.numpy(), LABELS.numpy(), scaled)
    assert expand_loss(logits, LABELS, *decays).item() == pytest.approx(expected, rel=1e-12)


def test_expand_gradient_is_exact():
    logits = draw().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: expand_loss(x, LABELS), logits)
    assert torch.autograd.gradcheck(lambda x: expand_loss(x, LABELS, 0.7, 0.3, 0.9, None), logits)


def test_a_picture_that_obeys_its_label_loses_less():
    """A tenth of the grid is the present class, the rest background: less loss than any of three mistakes."""

    def picture(tenth: int, rest: int) -> Tensor:
        shown = torch.full((41 * 41,), rest)
        shown[:168] = tenth
        return 8 * torch.nn.functional.one_hot(shown, 3).double().T.reshape(1, 3, 41, 41)

    label = torch.tensor([[1, 0]])
    right = expand_loss(picture(1, 0), label)
    for wrong in (picture(0, 0), picture(1, 1), picture(1, 2)):
        assert right < expand_loss(wrong, label) - 0.3


def test_certainty_stays_finite():
    """All on an absent class, float32: the floor keeps the loss and its gradient finite."""
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 2] = 1000
    logits.requires_grad_()
    loss = expand_loss(logits, torch.tensor([[1, 0]]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_expand_refuses_labels_of_another_shape():
    with pytest.raises(ValueError, match=r"labels \(3, 4\) must be \(N, C\) = \(3, 3\), as the logits say"):
        expand_loss(draw(), torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"labels \(2, 3\) must be \(N, C\) = \(3, 3\)"):
        expand_loss(draw(), LABELS[:2])


# Constrain


def test_the_crf_on_the_papers_grid_and_on_smaller_ones():
    assert scaled_crf((41, 41)) == CRFParams(3 / 12, 3, 80 / 12, 13, 10, 10)
    small = scaled_crf((20, 21))
    assert small.bilateral_xy == pytest.approx(80 / 12 * math.sqrt(420) / 41)
    assert small.smooth_xy == pytest.approx(3 / 12 * math.sqrt(420) / 41)
    assert (small.bilateral_rgb, small.smooth_weight, small.bilateral_weight, small.iterations) == (13, 3, 10, 10)


@pytest.mark.parametrize("seed", range(3))
def test_constrain_is_the_formula(seed):
    logits, images = draw(seed), images_of()
    f = torch.from_numpy(np.stack([softmax(x, FLOOR) for x in logits.numpy()]))
    q = crf_marginals(f, images)
    assert q.dtype == torch.float64
    torch.testing.assert_close(q.sum(dim=1), torch.ones(3, 5, 6, dtype=torch.float64), atol=1e-5, rtol=0)
    expected = numpy_constrain(logits.numpy(), q.numpy())
    assert expected > 0.01
    assert constrain_loss(logits, images).item() == pytest.approx(expected, rel=1e-6)


def test_constrain_gradient_is_exact_with_q_held(monkeypatch):
    logits, images = draw().requires_grad_(), images_of()
    loss = constrain_loss(logits, images)
    loss.backward()
    f = torch.from_numpy(np.stack([softmax(x, FLOOR) for x in logits.detach().numpy()]))
    q = crf_marginals(f, images)
    monkeypatch.setattr(sec, "crf_marginals", lambda *_: q)
    assert torch.autograd.gradcheck(lambda x: constrain_loss(x, images), logits)
    held = logits.detach().clone().requires_grad_()
    constrain_loss(held, images).backward()
    torch.testing.assert_close(logits.grad, held.grad, atol=1e-6, rtol=1e-4)


def test_no_pairwise_terms_leave_nothing_to_learn():
    """Then Q is f, the divergence 0, and so is its gradient."""
    logits, images = draw(scale=1.0).requires_grad_(), images_of()
    nothing = CRFParams(smooth_weight=0, bilateral_weight=0)
    loss = constrain_loss(logits, images, params=nothing)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad.abs().max() < 1e-6


def test_where_no_class_is_preferred_none_is_made_up():
    """A uniform f on a uniform picture: by symmetry Q is uniform, too."""
    f = torch.full((1, 4, 9, 9), 0.25)
    q = crf_marginals(f, torch.full((1, 3, 65, 65), 0.5))
    torch.testing.assert_close(q, f, atol=1e-5, rtol=0)
    assert constrain_loss(torch.zeros(1, 4, 9, 9), torch.full((1, 3, 65, 65), 0.5)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("start", [7, 9])
def test_an_edge_of_the_picture_pulls_the_segment_to_itself(start):
    """The picture brightens at the 9th column of the grid (number 8), the segment starts one before or after."""
    images = torch.zeros(1, 3, 129, 129)
    images[..., 8 * 8 - 4 :] = 1
    mistaken, right = ((torch.arange(17) >= k).long().expand(17, 17) for k in (start, 8))
    logits = 1.5 * torch.nn.functional.one_hot(mistaken, 2).permute(2, 0, 1)[None]
    q = crf_marginals(logits.softmax(dim=1), images)
    assert torch.equal(logits.argmax(dim=1)[0], mistaken)
    assert torch.equal(q.argmax(dim=1)[0], right)
    for _ in range(30):
        logits.requires_grad_()
        (gradient,) = torch.autograd.grad(constrain_loss(logits, images), logits)
        logits = (logits - 100 * gradient).detach()
    assert torch.equal(logits.argmax(dim=1)[0], right)


def test_present_classes_only():
    logits, images = draw().requires_grad_(), images_of()
    seen = []

    def spy(probabilities: Tensor, *rest: object) -> Tensor:
        seen.append(crf_marginals(probabilities, *rest))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sec, "crf_marginals", spy)
        loss = constrain_loss(logits, images, LABELS)
    absent = torch.tensor([[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 1, 1]]).bool()  # the background is always present
    (q,) = seen
    assert torch.equal((q == 0).all(dim=(2, 3)), absent)
    torch.testing.assert_close(q.sum(dim=1), torch.ones_like(q[:, 0]), atol=1e-5, rtol=0)
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[absent] > 0).all()  # descent makes them fade


def test_the_crf_sees_raw_colors_at_the_grid(monkeypatch):
    """Every byte there is; what lies between two is rounded, not cut."""
    colors = np.arange(16 * 6 * 3).reshape(16, 6, 3) % 256
    images = torch.zeros(1, 3, 121, 41)
    images[0, :, ::8, ::8] = ((torch.from_numpy(colors) - 0.3) / 255).clamp(min=0).permute(2, 0, 1)
    seen = []
    monkeypatch.setattr(crf, "marginals", lambda image, f, params: (seen.append((image, params)), f)[1])
    f = torch.full((1, 2, 16, 6), 0.5, dtype=torch.float64)
    assert torch.equal(crf_marginals(f, images), f)
    image, params = seen[0]
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, colors)
    assert params == scaled_crf((16, 6))


def test_constrain_refuses_normalized_and_misshapen_pictures():
    with pytest.raises(ValueError, match=r"pictures must lie in 0..1, not -2..2: pass them before any normalization"):
        constrain_loss(draw(), torch.linspace(-2, 2, 3 * 3 * 8 * 8).view(3, 3, 8, 8))
    with pytest.raises(ValueError, match=r"pictures must lie in 0..1, not 0..255"):
        constrain_loss(draw(), torch.linspace(0, 255, 3 * 3 * 8 * 8).view(3, 3, 8, 8))
    with pytest.raises(ValueError, match=r"images \(2, 3, 33, 41\) must be \(N, 3, H, W\) with the N of the logits"):
        constrain_loss(draw(), images_of(2))
    with pytest.raises(ValueError, match=r"labels \(3, 2\) must be"):
        constrain_loss(draw(), images_of(), LABELS[:, :2])


# Together


def batch_of() -> dict[str, Tensor]:
    return {"image": images_of(), "labels": LABELS.float(), "mask": draw_cues()}


def test_the_sum_is_the_sum():
    logits, batch = draw(), batch_of()
    parts = [SECLoss((name,))(logits, batch) for name in ("seed", "expand", "constrain")]
    torch.testing.assert_close(parts[0], seed_loss(logits, batch["mask"]))
    torch.testing.assert_close(parts[1], expand_loss(logits, batch["labels"]))
    torch.testing.assert_close(parts[2], constrain_loss(logits, batch["image"]), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(SECLoss()(logits, batch), sum(parts), atol=1e-6, rtol=1e-5)


def test_options_reach_their_losses():
    logits, batch = draw(), batch_of()
    decayed = SECLoss(("expand",), present_decay=0.9, absent_decay=0.5, background_decay=0.95)(logits, batch)
    torch.testing.assert_close(decayed, expand_loss(logits, LABELS, 0.9, 0.5, 0.95))
    own = CRFParams(iterations=1)
    restricted = SECLoss(("constrain",), crf=own, present_only=True)(logits, batch)
    torch.testing.assert_close(restricted, constrain_loss(logits, batch["image"], LABELS, own), atol=1e-6, rtol=1e-5)


def test_only_what_is_needed_is_read():
    logits, batch = draw(), batch_of()
    assert SECLoss(("seed",))(logits, {"mask": batch["mask"]}) > 0
    assert SECLoss(("expand",))(logits, {"labels": batch["labels"]}) > 0


@pytest.mark.parametrize("decay", [0.0, 0.996, 1.0])
def test_no_float64_on_the_scores_device(decay):
    with tiny.NoFloat64():
        assert sec.global_weighted_rank_pooling(torch.rand(2, 3, 5, 5, device="meta"), decay).dtype == torch.float32
        scores, labels = torch.rand(2, 4, 5, 5, device="meta"), torch.ones(2, 3, device="meta")
        assert expand_loss(scores, labels).device.type == "meta"


@pytest.mark.parametrize("losses", [(), ("seed", "shrink"), ("seeds",)])
def test_unknown_losses(losses):
    with pytest.raises(ValueError, match="name at least one of seed, expand, constrain, and nothing else"):
        SECLoss(losses)


@pytest.mark.parametrize("loss", [SECLoss((name,)) for name in sec.LOSSES], ids=sec.LOSSES)
def test_half_precision_logits_are_computed_in_single(loss):
    """Also inside autocast, as in training: the loss is that of the same logits in float32."""
    half, batch = draw().bfloat16(), batch_of()
    expected = loss(half.float(), batch)
    assert expected.dtype == torch.float32
    torch.testing.assert_close(loss(half, batch), expected)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(half.requires_grad_(), batch)
    torch.testing.assert_close(got, expected)
    got.backward()
    assert half.grad.dtype == torch.bfloat16
    assert torch.isfinite(half.grad).all()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_it_trains(tmp_path, precision):
    """Colored squares on gray: after a few epochs all three losses together are lower than at the start."""
    torch.manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Conv2d(8, len(tiny.NAMES) + 1, 1))
    model = SegmentationModel(tiny.backbone(), head)
    config = SegmentationTraining(
        epochs=6, drop_after=6, batch_size=4, backbone_rate=0.02, head_rate=0.02, crop=33, workers=0, device="cpu",
        precision=precision, crops="whole",
    )  # fmt: skip
    pictures = tiny.pictures(tmp_path / "pictures", masks=True)
    log = read_log(train_segmentation(model, pictures, config, tmp_path / "run", SECLoss()))
    losses = [line["loss"] for line in log]
    assert len(losses) == 12
    assert np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2])
