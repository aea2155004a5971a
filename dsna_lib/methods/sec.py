r"""SEC: seed, expand and constrain, three losses that train a segmentation network from image labels and cues.

A segmentation network gives each place u of its output grid a probability :math:`f_{u,c}` for each class c, 0 being
the background. Few places have a *cue*, a class that an image classifier localized there; for the rest three
principles have to do, one loss each:

*Seed*: where there is a cue, trust it. :math:`S_c` are the places with a cue for class c:

.. math:: L_{seed} = -\frac{1}{\sum_c |S_c|} \sum_c \sum_{u \in S_c} \log f_{u,c}

*Expand*: a class that the image label names covers a fair part of the picture, one that it does not name covers
nothing. How much of a class the picture holds is its global weighted rank pooling, a weighted mean over the n places
in falling order of their scores, between the maximum (decay d = 0) and the mean (d = 1):

.. math:: G_c(d) = \frac{1}{Z} \sum_{j=1}^{n} d^{\,j-1} f_{i_j,c}, \qquad Z = \sum_{j=1}^{n} d^{\,j-1}, \qquad
    f_{i_1,c} \ge f_{i_2,c} \ge \dots

With T the foreground classes that are present and T' those that are absent,

.. math:: L_{expand} = -\frac{1}{|T|} \sum_{c \in T} \log G_c(d_+)
    -\frac{1}{|T'|} \sum_{c \in T'} \log \big(1 - G_c(d_-)\big) - \log G_{0}(d_{bg})

*Constrain*: segments end where the picture has edges. Q are the marginals of a dense CRF whose unary term is f:

.. math:: L_{constrain} = \frac1n \sum_u \sum_c Q_{u,c} \log \frac{Q_{u,c}}{f_{u,c}}

Each is averaged over pictures; SEC minimizes their sum. All compute in float32 at least, whatever the logits are.

The paper's decays are made for 41 x 41 places, 321 pixels at output stride 8: there 0.996 puts half of the weight on
the highest tenth, and 0.999 on the highest 31 %. On 17 x 17 places the same 0.996 would spread it over more than a
third, and present classes would be asked for more of the picture. The share s of n places has rank sn, and

.. math:: \big(d^{\,n_{ref}/n}\big)^{sn} = d^{\,s\,n_{ref}}

no longer depends on n, so this power of d is taken on other grids; :func:`scaled_crf` does the like for the CRF.

Source: Kolesnikov and Lampert, "Seed, Expand and Constrain: Three Principles for Weakly-Supervised Image
Segmentation", ECCV 2016. What the paper leaves open is taken from the authors' published code,
https://github.com/kolesman/SEC: under f lies a floor of 1e-4, the CRF is computed on the small grid, and its output Q
is treated as ground truth (January 2018), so that no gradient flows through it. Ours differs from that code in this:
the CRF's unary term is -log of the floored f instead of the raw scores; Q has no floor, 0 log 0 being 0; Q / f is not
kept within 0.05 .. 20, beyond which their gradient dies; and the seed loss has its floor only where asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dsna_lib import crf
from dsna_lib.config.annotation import CRFParams
from dsna_lib.data.pictures import VOID
from dsna_lib.engine.errors import SettingError
from dsna_lib.methods.cam import CAM
from dsna_lib.paper import MIOU
from dsna_lib.segmentation.training import labels_at_cell_centers

GRID = 41  # side of the paper's grid
FLOOR = 1e-4  # added to every probability before it is renormalized, so that no logarithm is infinite


def seed_loss(logits: Tensor, cues: Tensor, floor: bool = False) -> Tensor:
    """L_seed: cross-entropy on the places with a cue; a picture without cues counts as 0.

    Args:
        logits: ``(N, C+1, h, w)``, class 0 is the background.
        cues: ``(N, H, W)`` uint8: 0 background, 1..C classes, 255 no cue; those at the centers of the grid's cells.
        floor: put the floor under f here, too. It lets the gradient die where a place is confidently wrong; without
            it, the logarithm of a softmax is finite anyway.

    Raises:
        ValueError: shapes that do not fit, or a class that the logits do not have.

    Example:
        >>> seed_loss(torch.zeros(1, 2, 1, 2), torch.tensor([[[1, 255]]], dtype=torch.uint8))  # log 2
        tensor(0.6931)
    """
    if cues.ndim != 3 or len(cues) != len(logits):
        raise ValueError(f"cues {tuple(cues.shape)} must be (N, H, W) with the N of the logits {tuple(logits.shape)}")
    cues = labels_at_cell_centers(cues, logits.shape[-2:])
    seeded = cues != VOID
    strange = cues[seeded & (cues >= logits.shape[1])]
    if len(strange):
        raise ValueError(f"a cue holds class {strange[0].item()}, but the logits end at class {logits.shape[1] - 1}")
    log_f = _floored(logits).log() if floor else functional.log_softmax(_precise(logits), dim=1)
    per_place = functional.nll_loss(log_f, cues.long(), ignore_index=VOID, reduction="none")
    return (per_place.sum(dim=(1, 2)) / seeded.sum(dim=(1, 2)).clamp(min=1)).mean()


def global_weighted_rank_pooling(scores: Tensor, decay: float) -> Tensor:
    """G(d) of scores ``(..., n)`` over the last axis, or of four-dimensional ones ``(N, K, h, w)`` over the last two.

    Raises:
        ValueError: a decay outside 0..1.

    Example:
        >>> global_weighted_rank_pooling(torch.tensor([0.2, 0.8, 0.5]), decay=0.5)  # (0.8 + 0.5/2 + 0.2/4) / 1.75
        tensor(0.6286)
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay={decay} must lie between 0 (the maximum) and 1 (the mean)")
    if scores.ndim == 4:
        scores = scores.flatten(2)
    ranked = scores.sort(dim=-1, descending=True).values
    weights = decay ** torch.arange(ranked.shape[-1], dtype=torch.float64)  # on the CPU: Apple's GPUs have no float64
    # Not a matrix product: autocast would compute one in half precision.
    return (ranked * (weights / weights.sum()).to(ranked)).sum(dim=-1)


def scaled_decay(decay: float, places: int, reference: int = GRID * GRID) -> float:
    """The decay that pools the same share of the picture as `decay` does of `reference` places.

    Raises:
        ValueError: no places.

    Example:
        >>> scaled_decay(0.996, 41 * 41)
        0.996
    """
    if places < 1:
        raise ValueError(f"places={places} must be at least 1")
    return decay ** (reference / places)


def expand_loss(
    logits: Tensor,
    labels: Tensor,
    present_decay: float = 0.996,
    absent_decay: float = 0.0,
    background_decay: float = 0.999,
    reference: int | None = GRID * GRID,
) -> Tensor:
    """L_expand: present classes and the background cover their share of the picture, absent classes nothing.

    Without a present class (or an absent one) that term is 0. The labels must speak of what the logits show: train on
    whole pictures, a random crop may have lost the object.

    Args:
        logits: ``(N, C+1, h, w)``, class 0 is the background.
        labels: ``(N, C)``, 1 where the class is present, else 0.
        present_decay, absent_decay, background_decay: d+, d- and d_bg; the paper's by default.
        reference: how many places the decays are meant for; None takes them as they are on any grid.

    Raises:
        ValueError: shapes that do not fit, or a decay outside 0..1.

    Example:
        >>> expand_loss(torch.zeros(2, 21, 41, 41), torch.eye(20)[:2]).ndim
        0
    """
    present = _present(logits, labels)
    f = _floored(logits).flatten(2)

    def pool(scores: Tensor, decay: float) -> Tensor:
        decay = decay if reference is None else scaled_decay(decay, scores.shape[-1], reference)
        return global_weighted_rank_pooling(scores, decay)

    covered = -pool(f[:, 1:], present_decay).log()
    uncovered = -(1 - pool(f[:, 1:], absent_decay)).log()
    background = -pool(f[:, 0], background_decay).log()
    return (_mean_over(present, covered) + _mean_over(~present, uncovered) + background).mean()


def scaled_crf(size: tuple[int, int]) -> CRFParams:
    """SEC's CRF for pictures shrunk to a grid of ``(h, w)``.

    On 41 x 41 the authors divide the positions' deviations of their CRF at full size (``"sec"`` in
    :data:`dsna_lib.crf.PRESETS`) by 12, which is about what a VOC picture, 500 pixels long, shrinks by. From there they
    change with the grid's side, so that they reach over the same share of the picture.

    Example:
        >>> scaled_crf((41, 41)).smooth_xy
        0.25
    """
    full, scale = crf.PRESETS["sec"], (size[0] * size[1]) ** 0.5 / GRID
    return replace(full, smooth_xy=full.smooth_xy / 12 * scale, bilateral_xy=full.bilateral_xy / 12 * scale)


@torch.no_grad()
def crf_marginals(probabilities: Tensor, images: Tensor, params: CRFParams | str | None = None) -> Tensor:
    """Q ``(N, K, h, w)``: the marginals of a dense CRF on pictures shrunk to the probabilities' grid.

    Pictures are shrunk bilinearly with their corners kept in place, as in the authors' code: 8k + 1 pixels to k + 1
    places is every eighth pixel, where the network's places have their centers.

    Args:
        probabilities: ``(N, K, h, w)`` f; classes that are 0 everywhere in a picture take no part in it.
        images: ``(N, 3, H, W)`` RGB in 0..1, not normalized.
        params: of the CRF, or the name of a preset; :func:`scaled_crf` by default.

    Raises:
        ValueError: pictures of another shape or range.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) != len(probabilities):
        raise ValueError(
            f"images {tuple(images.shape)} must be (N, 3, H, W) with the N of the logits {tuple(probabilities.shape)}"
        )
    low, high = images.amin().item(), images.amax().item()
    if not -1e-3 <= low <= high <= 1 + 1e-3:
        raise ValueError(f"pictures must lie in 0..1, not {low:.3g}..{high:.3g}: pass them before any normalization")
    height, width = probabilities.shape[-2:]
    params = scaled_crf((height, width)) if params is None else params
    small = functional.interpolate(images.float(), size=(height, width), mode="bilinear", align_corners=True)
    raw = (small * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    f = probabilities.float().cpu().numpy()
    q = [crf.marginals(image, classes, params) for image, classes in zip(raw, f, strict=True)]
    return torch.from_numpy(np.stack(q)).to(probabilities)


def constrain_loss(
    logits: Tensor, images: Tensor, labels: Tensor | None = None, params: CRFParams | str | None = None
) -> Tensor:
    """L_constrain: agree with what a dense CRF makes of the network's own output.

    Args:
        logits: ``(N, C+1, h, w)``, class 0 is the background.
        images, params: see :func:`crf_marginals`.
        labels: ``(N, C)`` image labels: only present classes and the background take part in Q, which takes less time
            and makes the absent ones fade. None, as in SEC, lets all of them take part.

    Raises:
        ValueError: see :func:`crf_marginals`; or labels of another shape.

    Example:
        >>> constrain_loss(torch.zeros(1, 3, 9, 9), torch.rand(1, 3, 65, 65)) < 1e-5  # no class is preferred anywhere
        tensor(True)
    """
    f = _floored(logits)
    allowed = f
    if labels is not None:
        # In front of the present classes the background, which is always there.
        allowed = f * functional.pad(_present(logits, labels), (1, 0), value=True)[..., None, None]
    q = crf_marginals(allowed, images, params)
    return (torch.xlogy(q, q) - q * f.log()).sum(dim=1).mean()


def _precise(logits: Tensor) -> Tensor:
    """At least float32."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _floored(logits: Tensor) -> Tensor:
    """f: the softmax, with a floor under it."""
    f = functional.softmax(_precise(logits), dim=1) + FLOOR
    return f / f.sum(dim=1, keepdim=True)


def _present(logits: Tensor, labels: Tensor) -> Tensor:
    """Labels as ``(N, C)`` bool, checked against the logits."""
    expected = (logits.shape[0], logits.shape[1] - 1)
    if labels.shape != expected:
        raise ValueError(f"labels {tuple(labels.shape)} must be (N, C) = {expected}, as the logits say")
    return labels > 0.5


def _mean_over(chosen: Tensor, values: Tensor) -> Tensor:
    """Mean of the chosen values of each picture, ``(N, C)`` to ``(N,)``; 0 where none is chosen."""
    return torch.where(chosen, values, 0).sum(dim=1) / chosen.sum(dim=1).clamp(min=1)


LossName = Literal["seed", "expand", "constrain"]
LOSSES: tuple[LossName, ...] = get_args(LossName)


@dataclass(frozen=True)
class SECLoss:
    """SEC's losses, or some of them, summed with weight 1: a :class:`dsna_lib.segmentation.training.Loss`.

    Cues are the batch's masks; training shows whole pictures, of which the image labels speak.

    Attributes:
        losses: which of :data:`LOSSES`; none, or an unknown one, is a ``SettingError``.
        present_decay, absent_decay, background_decay: of :func:`expand_loss`.
        crf: parameters for :func:`constrain_loss`.
        present_only: only the classes of the image label take part in the CRF; SEC lets all of them.
        seed_floor: of :func:`seed_loss`.

    Example:
        >>> batch = {"image": torch.rand(1, 3, 9, 9), "labels": torch.ones(1, 2), "mask": torch.ones(1, 9, 9).byte()}
        >>> SECLoss(("seed", "expand"))(torch.zeros(1, 3, 2, 2), batch).ndim
        0
    """

    losses: tuple[LossName, ...] = LOSSES
    present_decay: float = 0.996
    absent_decay: float = 0.0
    background_decay: float = 0.999
    crf: CRFParams | None = None
    present_only: bool = False
    seed_floor: bool = False
    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.losses or not set(self.losses) <= set(LOSSES):
            raise SettingError(f"losses={self.losses!r}: name at least one of {', '.join(LOSSES)}, and nothing else")

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C+1, h, w)`` to a scalar; of the batch, only what the chosen losses need is read."""
        total = logits.new_zeros((), dtype=torch.float32)
        if "seed" in self.losses:
            total = total + seed_loss(logits, batch["mask"], self.seed_floor)
        if "expand" in self.losses:
            decays = self.present_decay, self.absent_decay, self.background_decay
            total = total + expand_loss(logits, batch["labels"], *decays)
        if "constrain" in self.losses:
            labels = batch["labels"] if self.present_only else None
            total = total + constrain_loss(logits, batch["image"], labels, self.crf)
        return total


_STEPS: tuple[tuple[LossName, ...], ...] = (("seed",), ("seed", "constrain"), ("seed", "constrain", "expand"))
_TITLES = [f"SEC, {' + '.join(losses)}" for losses in _STEPS]
# CAM's annotations are the cues, before any CRF.
ROWS = tuple(
    replace(CAM, title=title, refined=False, minimized=SECLoss(losses), paper=MIOU[title])
    for title, losses in zip(_TITLES, _STEPS, strict=True)
)
FLOORED = replace(ROWS[-1], title=f"{_TITLES[-1]}, floored", minimized=SECLoss(_STEPS[-1], seed_floor=True), paper=None)
