r"""BFBP: a network that can tell objects from each other already lights up where objects are.

The *built-in prior*: the mean over channels of a pretrained network's last activations on its two coarsest grids (conv4
and conv5 of VGG-16), each scaled to 0..1, added on the finer grid and scaled again, is how likely a pixel belongs to
any object; a dense CRF with these probabilities makes a mask M of the foreground. It knows no class. The image label
does, so the places of M are a bag of which some shows each class present, and the other places are background:

.. math:: L = -\frac{1}{|T|} \sum_{c \in T} \log S_c(M) - \frac{1}{|T'|} \sum_{c \in T'} \log\big(1 - S_c\big)
    - \frac{1}{|\bar M|} \sum_{u \notin M} \log f_{0,u}

with f the softmax over classes at each place, T the foreground classes present, T' those absent, and S the smooth
maximum over the places of M, or over all places where none are named,

.. math:: S_c(M) = \frac1r \log \Big( \frac{1}{|M|} \sum_{u \in M} e^{\,r f_{c,u}} \Big)

Source: Saleh et al., "Built-in Foreground/Background Prior for Weakly-Supervised Semantic Segmentation", ECCV 2016;
we know of no public code. Decided here:

- *r.* Five, as Pinheiro and Collobert (CVPR 2015) have it, from whom that maximum is.
- *Network.* The prior is read off the backbone of the table's classifiers as ImageNet left it, once, before anything
  is learned. Where it gives activations that are not ReLU's, as EfficientNet-lite0 on its finer grid, their positive
  part is taken.
- *CRF.* That of the table. Where it leaves the picture without foreground, or without background, the prior above one
  half is the mask.
- *Size.* The table's for maps, and the mask is looked up at the centers of the network's cells.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import attention, crf, maps
from dsna_lib.attention import AttentionOutput
from dsna_lib.backbones import Backbone, weights_digest, weights_name
from dsna_lib.data.pictures import VOID, Record, read_image
from dsna_lib.engine.devices import choose_device
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.table_iv import printed
from dsna_lib.segmentation.training import labels_at_cell_centers

TINY = 1e-6  # under a logarithm


def prior_maps(model: nn.Module, pictures: Tensor, present: Tensor) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """A :data:`dsna_lib.maps.MapMaker` of the kind ``"prior"``, one map ``(N, 1, h, w)`` in 0..1 for all classes."""
    backbone: Backbone = model.backbone  # type: ignore[assignment]  # a plain module's attributes have no types
    levels = [level.float() for level in backbone.pyramid(pictures)[-2:]]
    features = levels[-1]
    return AttentionOutput(torch.zeros_like(present).float(), None, features, features), {"prior": prior(levels)}


def prior(levels: list[Tensor]) -> Tensor:
    """How likely each place is an object's ``(N, 1, h, w)``, of activations ``(N, D, h, w)``, the finest grid first.

    Example:
        >>> prior([torch.tensor([[[[0.0, 4.0]]]]), torch.tensor([[[[1.0, 3.0]]]])])
        tensor([[[[0., 1.]]]])
    """
    means = [maps.min_max(level.relu().mean(dim=1, keepdim=True)) for level in levels]
    grid = means[0].shape[-2:]
    return maps.min_max(torch.stack([functional.interpolate(mean, grid, mode="bilinear") for mean in means]).sum(dim=0))


def mask_of(likely: np.ndarray, image: np.ndarray, params: str) -> np.ndarray:
    """The foreground ``(H, W)`` bool, of its probability ``(H, W)`` and the picture; see above."""
    above = likely > 0.5
    refined = above if params == "none" else crf.refine(image, np.stack([1 - likely, likely]), params) == 1
    return refined if 0 < refined.mean() < 1 else above


def smooth_maximum(f: Tensor, places: Tensor, r: float) -> Tensor:
    """S of f ``(N, K, n)`` over some places ``(N, n)`` bool, or all where there are none: ``(N, K)``.

    Example:
        >>> smooth_maximum(torch.tensor([[[0.2, 0.8, 0.9]]]), torch.tensor([[True, True, False]]), r=5.0)
        tensor([[0.6711]])
    """
    places = places | ~places.any(dim=1, keepdim=True)  # of no places, the slope would be no number
    count = places.sum(dim=1, keepdim=True)
    return ((r * f).masked_fill(~places[:, None], -torch.inf).logsumexp(dim=2) - count.log()) / r


@dataclass(frozen=True)
class BFBPLoss:
    """The loss above, of the foreground that the batch's masks leave; see :class:`dsna_lib.segmentation.training.Loss`.

    A mask's 0 is the background; all else is foreground, whichever class it says. Each term is a mean over pictures; a
    picture without places, or classes, for a term counts as 0.

    Attributes:
        r: how near the smooth maximum comes to the maximum.
    """

    r: float = 5.0
    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C + 1, h, w)``, masks ``(N, H, W)`` and labels ``(N, C)`` to a scalar."""
        f = functional.softmax(logits.float(), dim=1).flatten(2)
        inside = labels_at_cell_centers(batch["mask"], logits.shape[-2:]).flatten(1) != 0
        present = batch["labels"] > 0.5
        here = smooth_maximum(f[:, 1:], inside, self.r).clamp_min(TINY).log()
        elsewhere = (1 - smooth_maximum(f[:, 1:], torch.ones_like(inside), self.r)).clamp_min(TINY).log()
        behind = f[:, 0].clamp_min(TINY).log()
        shown = mean_of_chosen(here, present & inside.any(dim=1, keepdim=True))
        return -(shown + mean_of_chosen(elsewhere, ~present) + mean_of_chosen(behind, ~inside)).mean()


def mean_of_chosen(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean of each row's chosen values, 0 where there are none: ``(N, K)`` to ``(N,)``."""
    return torch.where(chosen, values, 0).sum(dim=1) / chosen.sum(dim=1).clamp_min(1)


@dataclass(frozen=True)
class BuiltInPrior:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "BFBP"
    needs: frozenset[Help] = LABELS
    paper: float | None = printed("BFBP")
    trains: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """Masks of the prior: the foreground is void, or of the picture's class where its label names one alone."""
        model = attention.create(stage.model).to(choose_device(stage.training.device))  # its head is not asked

        known = {name: asdict(stage.model)[name] for name in ("backbone", "output_stride")}
        weights = weights_name(stage.model.weights), weights_digest(stage.model.backbone, stage.model.weights)
        known |= {"weights": weights, "crf": stage.annotation.crf}
        return stage.annotate_maps(
            model, prior_maps, partial(_annotation, params=stage.annotation.crf), known, __name__
        )

    def loss(self, stage: Stage) -> BFBPLoss:
        """Image labels, told where to look."""
        return BFBPLoss()


def _annotation(record: Record, picture: maps.PictureMaps, params: str) -> np.ndarray:
    if not record.labels:
        return np.zeros(picture.size, np.uint8)
    (likely,) = maps.min_max(functional.interpolate(picture.maps["prior"][None], picture.size, mode="bilinear")[0])
    foreground = mask_of(likely.cpu().numpy(), read_image(record.image), params)
    return np.where(foreground, record.labels[0] + 1 if len(record.labels) == 1 else VOID, 0).astype(np.uint8)


BFBP = BuiltInPrior()
