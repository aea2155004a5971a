r"""AF-SS: whole regions of the picture are classified, and each pixel hears all regions that it lies in.

Maps of a classifier know classes and no outlines; regions that a picture falls into by its colors have outlines and no
class. *Selective search* offers regions of all sizes: from a fine segmentation on, the two neighbors that are most
alike become one, until all is one. Each of these proposals r is classified, and those for a class are *aggregated*:

.. math:: p_c(r) = \frac{1}{|r|} \sum_{u \in r} s_c(u), \qquad
    A_c(u) = \frac{1}{|\{r : u \in r\}|} \sum_{r \ni u} \max\big(0, p_c(r)\big)

with :math:`s_c` the dense scores of a pooled linear classifier, whose mean over all of the picture is its score: it is
asked about a region by pooling over the region alone.

Source: Qi et al., "Augmented Feedback in Semantic Segmentation under Image Level Supervision", ECCV 2016, the row
*AF-SS*; selective search is by Uijlings et al., IJCV 2013. We know of no public code of the former.
Decided here:

- *One round.* Theirs alternates: masks of a segmentation network choose proposals, from which a localization network
  learns, whose aggregated proposals make new masks. Here a table trains one segmentation network a row; so it is
  the first round, and CAM's classifier stands in for the localization network.
- *Aggregation.* A proposal of a score below zero is not for the class and adds nothing. The mean is over all proposals
  of a pixel: how many these are says nothing of its class.
- *Proposals.* One run of selective search, see :mod:`dsna_lib.methods.superpixels`; it has several, which differ in
  the superpixels, the colors and what makes neighbors alike.
- *Threshold, background, CRF.* The table's, in place of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsna_lib.annotate import pseudo_annotation, resize
from dsna_lib.attention import AttentionOutput
from dsna_lib.data.pictures import Record, read_image
from dsna_lib.engine import runs
from dsna_lib.maps import PictureMaps
from dsna_lib.methods.base import LABELS, Help, Stage, thresholds
from dsna_lib.methods.explain import CLASSIFIER
from dsna_lib.methods.superpixels import SELECTIVE_SEARCH, merge, superpixels
from dsna_lib.methods.table_iv import printed


def aggregate(scores: Tensor, fine: np.ndarray, held: np.ndarray) -> Tensor:
    """The aggregated map A ``(C, H, W)``.

    Args:
        scores: ``(C, H, W)`` dense scores s.
        fine: ``(H, W)``, the superpixels' numbers, 0..R - 1.
        held: ``(P, R)`` bool, which of them each proposal holds.
    """
    places = torch.from_numpy(fine).to(scores.device)
    within = torch.from_numpy(held).to(scores)
    sums = scores.new_zeros(len(scores), held.shape[1]).index_add_(1, places.flatten(), scores.flatten(1))
    areas = torch.bincount(places.flatten(), minlength=held.shape[1]).to(scores)
    own = sums @ within.T / (within @ areas)  # p: (C, P)
    return (own.relu() @ within / within.sum(dim=0))[:, places]


@dataclass(frozen=True)
class AugmentedFeedback:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "AF-SS"
    needs: frozenset[Help] = LABELS
    paper: float | None = printed("AF-SS")
    trains: frozenset[str] = frozenset({str(CLASSIFIER)})

    def __str__(self) -> str:
        return self.title

    def proposals(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Superpixels' numbers ``(H, W)`` of a picture ``(H, W, 3)``, and which each proposal holds ``(P, R)`` bool."""
        parts = superpixels(image, SELECTIVE_SEARCH)
        return parts.labels, merge(parts).members

    def annotate(self, stage: Stage) -> Path:
        """Aggregated proposals, as any other map."""
        model, file = stage.train(CLASSIFIER)
        limits = thresholds(stage.annotation)

        def label(record: Record, picture: PictureMaps) -> np.ndarray:
            maps = aggregate(resize(picture.maps["scores"], picture.size), *self.proposals(read_image(record.image)))
            features = resize(picture.features.sum(dim=0, keepdim=True), picture.size)
            return pseudo_annotation(maps, features, record.labels, picture.size, **limits).cpu().numpy()

        identity = {"model": runs.file_digest(file), "thresholds": limits}
        return stage.refine(stage.annotate_maps(model, dense_scores, label, identity, type(self).__module__))

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


def dense_scores(
    model: torch.nn.Module, pictures: Tensor, present: Tensor
) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """A :data:`dsna_lib.maps.MapMaker` of the kind ``"scores"``: a single stream's s, of either sign."""
    output = model(pictures)
    return output, {"scores": output.discriminative.float()}


AF_SS = AugmentedFeedback()
