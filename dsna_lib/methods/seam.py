r"""SEAM: a classifier whose map of a smaller picture is the smaller map, and which alike pixels correct.

A mask follows its picture when that is rescaled; a class activation map does not, as nothing asks it to. So the
classifier learns from each picture I and its rescaled copy A(I), with two more terms beside their classification
losses. With M their maps, those of absent classes 0, *equivariance* asks for

.. math:: L_{ER} = \| A(M(I)) - M(A(I)) \|_1

Each map is also corrected by *pixel correlation*: what a place shows is what places that look alike show, in features
:math:`\theta(x)` that are learned,

.. math:: \hat M_i = \frac{\sum_j \kappa_{ij} M_j}{\sum_j \kappa_{ij}}, \qquad
    \kappa_{ij} = \max\Big(0, \frac{\theta(x_i) \cdot \theta(x_j)}{\|\theta(x_i)\| \, \|\theta(x_j)\|}\Big)

*Cross regularization* holds the corrected map of
each picture against the other one's own, the fifth of their values that differ most,

.. math:: L_{ECR} = \| A(\hat M(I)) - M(A(I)) \|_1 + \| A(M(I)) - \hat M(A(I)) \|_1

Corrected maps are scaled to 0..1 like the others; those of the whole picture are annotated.

Source: Wang, Zhang, Kan, Shan and Chen, "Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
Segmentation", CVPR 2020. As in the authors' published code, https://github.com/YudeWang/SEAM, a map that is corrected
or held against has only the highest class of each place; no slope flows into it, and from the correlation none into
the backbone; features are those of two grids and the picture's colors. The row quotes its number with a ResNet-38.
Decided here:

- *Rescaling* by a half: their 0.3 would leave the table's smaller pictures a few places.
- *Background.* Theirs, 1 less the highest map, is corrected beside the classes. Their maps do not depend on it, so it
  is left out.
- *Classifier.* CAM's, network, schedule and loss. Their loss has a term that keeps the corrected maps of all pictures
  low, which is left out.
- *Threshold, background, CRF.* The table's, in place of theirs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import attention
from dsna_lib.annotate import annotate_split
from dsna_lib.attention import AttentionModel, AttentionOutput, classification_loss
from dsna_lib.backbones import Backbone, weights_digest, weights_name
from dsna_lib.maps import positive_part
from dsna_lib.methods.base import MapMethod, Stage, thresholds
from dsna_lib.methods.explain import CLASSIFIER
from dsna_lib.methods.later import printed_later
from dsna_lib.methods.learned import learn

SCALE, HARD, CHANNELS = 0.5, 0.2, 64


class View(NamedTuple):
    """What the network says of pictures."""

    output: AttentionOutput
    keys: Tensor  #: ``(N, K, h, w)``, the features theta


class SEAM(nn.Module):
    """A pooled linear classifier, and features that tell which of its places look alike.

    Args:
        model: whose backbone and head it has; they learn.
    """

    def __init__(self, model: AttentionModel) -> None:
        super().__init__()
        assert isinstance(model.backbone, Backbone)
        self.backbone, self.head = model.backbone, model.head
        levels = self.backbone.pyramid(torch.zeros(1, 3, 65, 65, device=self.backbone.mean.device))[-2:]
        self.theta = nn.Conv2d(sum(level.shape[1] for level in levels) + 3, CHANNELS, 1, bias=False)

    def forward(self, pictures: Tensor) -> tuple[View, View]:
        """What it says of pictures ``(N, 3, H, W)``, and of the same rescaled."""
        small = functional.interpolate(pictures, scale_factor=SCALE, mode="bilinear", antialias=True)
        return self.view(pictures), self.view(small)

    def view(self, pictures: Tensor) -> View:
        """What it says of pictures ``(N, 3, H, W)``."""
        levels = self.backbone.pyramid(pictures)[-2:]
        grid = levels[-1].shape[-2:]
        seen = [functional.interpolate(each.detach(), grid, mode="bilinear") for each in (*levels, pictures)]
        return View(self.head(levels[-1])._replace(features=levels[-1]), self.theta(torch.cat(seen, dim=1)))


def own_maps(view: View, present: Tensor) -> Tensor:
    """M ``(N, C, h, w)`` in 0..1, 0 for classes that are not present ``(N, C)``."""
    return positive_part(view.output.discriminative.float()) * present[..., None, None]


def corrected(maps: Tensor, keys: Tensor) -> Tensor:
    """The corrected maps of the classes ``(N, C, h, w)`` in 0..1, of their own ones and of keys ``(N, K, h, w)``.

    Example:
        >>> maps, keys = torch.tensor([[[[1.0, 0.5, 0.0]]]]), torch.tensor([[[[1.0, 2.0, -1.0]]]])
        >>> corrected(maps, keys)  # the first two look alike
        tensor([[[[1., 1., 0.]]]])
    """
    unit = functional.normalize(keys.float().flatten(2), dim=1)
    alike = (unit.transpose(1, 2) @ unit).relu()
    best = strongest(maps).flatten(2)
    return positive_part((best @ alike / alike.sum(dim=1, keepdim=True).clamp_min(1e-5)).view_as(maps))


def strongest(maps: Tensor) -> Tensor:
    """Maps ``(N, C, h, w)``, 0 for all classes but the highest of each place; no slope flows back."""
    maps = maps.detach()
    return maps.where(maps == maps.amax(dim=1, keepdim=True), 0)


def regularization(large: Tensor, small: Tensor, large_keys: Tensor, small_keys: Tensor) -> Tensor:
    """L_ER and L_ECR, summed: a scalar.

    Args:
        large, small: own maps of the pictures ``(N, C, h, w)``, and of the rescaled ones.
        large_keys, small_keys: their keys ``(N, K, h, w)``.
    """

    def shrunk(maps: Tensor) -> Tensor:
        return functional.interpolate(maps, small.shape[-2:], mode="bilinear")

    equivariance = (shrunk(large) - small).abs().mean()
    crossed = (
        (shrunk(corrected(large, large_keys)), strongest(small)),
        (corrected(small, small_keys), strongest(shrunk(large))),
    )
    hardest = [(one - other).abs().flatten(1) for one, other in crossed]
    return equivariance + sum(each.topk(max(1, int(HARD * each.shape[1]))).values.mean() for each in hardest)


def seam_loss(views: tuple[View, View], batch: dict[str, Tensor], over_classes: str = "mean") -> Tensor:
    """All terms: from what the network says and labels ``(N, C)`` to a scalar."""
    labels = batch["labels"]
    classified = sum(classification_loss(view.output.scores, labels, over_classes) for view in views) / 2
    return classified + regularization(*(own_maps(view, labels) for view in views), *(view.keys for view in views))


def seam_maps(model: nn.Module, pictures: Tensor, present: Tensor) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """A :data:`dsna_lib.maps.MapMaker` of the kind ``"seam"``."""
    assert isinstance(model, SEAM)
    view = model.view(pictures)
    return view.output, {"seam": corrected(own_maps(view, present), view.keys)}


@dataclass(frozen=True)
class EquivariantAttention(MapMethod):
    """See :class:`dsna_lib.methods.base.Method`."""

    @property
    def trains(self) -> frozenset[str]:
        """A classifier of its own."""
        return frozenset({self.title})

    def annotate(self, stage: Stage) -> Path:
        """Train it, and annotate with its corrected maps."""
        config = replace(stage.model, **asdict(self.head))
        torch.manual_seed(stage.training.seed)
        network = SEAM(attention.create(config))
        identity = {
            "model": asdict(config) | {"weights": weights_name(config.weights)},
            "weights": weights_digest(config.backbone, config.weights),
        }
        over_classes = stage.training.loss_over_classes

        def loss_of(views: tuple[View, View], batch: dict[str, Tensor]) -> Tensor:
            return seam_loss(views, batch, over_classes)

        limits = thresholds(stage.annotation)
        known = {"model": learn(stage, network, stage.mining, loss_of, identity, __name__), "thresholds": limits}

        def work(folder: Path) -> None:
            how: dict[str, Any] = asdict(stage.maps) | limits
            report = annotate_split(network, stage.pictures, folder, [self.kind], maker=self.maker, **how)
            report.raise_failures("annotated")

        return stage.refine(stage.folder("annotate", work, known, __name__) / self.kind)


SEAM_METHOD = EquivariantAttention("SEAM", CLASSIFIER, "seam", seam_maps, paper=printed_later("SEAM"))
