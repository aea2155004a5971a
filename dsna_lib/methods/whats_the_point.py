r"""What's the point: image labels, and the class of one pixel of each object.

The loss adds to what an image label says of some place of the picture what a point says of its own. With S the softmax
over classes, L the classes present (the background always among them), L' the absent ones, and I the pixels pointed at:

.. math:: L = -\frac{1}{|L|} \sum_{c \in L} \log S_{c,t_c} - \frac{1}{|L'|} \sum_{c \in L'} \log (1 - S_{c,t_c})
    - \frac{1}{|I|} \sum_{i \in I} \log S_{g_i,i}, \qquad t_c = \arg\max_u S_{c,u}

with :math:`g_i` the class of point i. The first term is MIL-FCN's (:mod:`dsna_lib.methods.mil_fcn`), the second pushes
an absent class down at the place where the network believes in it most.

Source: Bearman, Russakovsky, Ferrari and Fei-Fei, "What's the Point: Semantic Segmentation with Point Supervision",
ECCV 2016: the second row with points of Table IV. Their network is an FCN on VGG-16; here it is that of all rows.

Decided here:

- *Objectness.* They have one more term, a prior of objects (Alexe et al., PAMI 2012) that was trained on boxes of other
  pictures. Nothing that this row is told can stand in for it, so it is left out, and no term says how far an object
  reaches.
- *Weights.* Points weigh alike, as theirs do unless annotators disagree: each has 1 over their number in the picture.
- *Where a point lies.* It reads the network's grid at the cell that is nearest. Training squeezes pictures, in which a
  single pixel may be lost, so a point is annotated as a square of 3 x 3 pixels, the rest of the picture void.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dsna_lib.data.pictures import VOID, Record, read_image
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.bfbp import mean_of_chosen
from dsna_lib.methods.table_iv import printed


@dataclass(frozen=True)
class PointLoss:
    """The three terms, averaged over pictures; see :class:`dsna_lib.segmentation.training.Loss`.

    Points are the batch's masks, void elsewhere; training shows whole pictures, of which the image labels speak.

    Example:
        >>> batch = {"labels": torch.tensor([[1.0]]), "mask": torch.tensor([[[1, 255]]], dtype=torch.uint8)}
        >>> PointLoss()(torch.zeros(1, 2, 1, 2), batch)  # both classes are present, and one point: 2 log 2
        tensor(1.3863)
    """

    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C + 1, h, w)``, labels ``(N, C)`` and points ``(N, H, W)`` to a scalar."""
        log_s = functional.log_softmax(logits.float(), dim=1)
        return (image_term(log_s, batch["labels"]) + point_term(log_s, batch["mask"])).mean()


def image_term(log_s: Tensor, labels: Tensor) -> Tensor:
    """What the image labels ``(N, C)`` say of log S ``(N, C + 1, h, w)``: the first two sums, ``(N,)``."""
    flat, classes = log_s.flatten(2), log_s.shape[1]
    best = flat.argmax(dim=2)  # (N, C + 1), t_c
    at_best = flat.gather(2, best[:, None].expand(-1, classes, -1))  # log S of each class (dim 1) at each t_c (dim 2)
    shown = at_best.diagonal(dim1=1, dim2=2)
    # log (1 - S) from the other classes, which is exact where S is almost 1.
    own = torch.eye(classes, dtype=torch.bool, device=log_s.device)
    not_shown = at_best.masked_fill(own, -torch.inf).logsumexp(dim=1)
    present = functional.pad(labels > 0.5, (1, 0), value=True)
    return -mean_of_chosen(shown, present) - mean_of_chosen(not_shown, ~present)


def point_term(log_s: Tensor, points: Tensor) -> Tensor:
    """What points ``(N, H, W)`` uint8, 255 for none, say of log S ``(N, C + 1, h, w)``: the last sum, ``(N,)``."""
    n, y, x = (points != VOID).nonzero(as_tuple=True)
    # The outer cells are centered on the border pixels: see `labels_at_cell_centers`.
    (height, width), (full_height, full_width) = log_s.shape[-2:], points.shape[-2:]
    row, column = (
        (place * ((cells - 1) / max(full - 1, 1))).round().long()
        for place, cells, full in ((y, height, full_height), (x, width, full_width))
    )
    each = -log_s[n, points[n, y, x].long(), row, column]
    total = log_s.new_zeros(len(log_s)).index_add(0, n, each)
    return total / torch.bincount(n, minlength=len(log_s)).clamp(min=1)


@dataclass(frozen=True)
class WhatsThePoint:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "What's the Point"
    needs: frozenset[Help] = LABELS | {"points"}
    paper: float | None = printed("What's the Point")
    trains: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """The points and nothing else."""
        told = stage.help["points"]

        def label(record: Record) -> np.ndarray:
            mask = np.full(read_image(record.image).shape[:2], VOID, np.uint8)
            for reach in (1, 0):  # the points themselves last, so that no neighbor's square hides one
                for x, y, c in told[record.id]:
                    mask[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = c + 1
            return mask

        return stage.annotate_each("annotate", label, {"labeler": "points"}, __name__)

    def loss(self, stage: Stage) -> PointLoss:
        """Image labels and points."""
        return PointLoss()


WHATS_THE_POINT = WhatsThePoint()
