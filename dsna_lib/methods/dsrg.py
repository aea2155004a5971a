r"""DSRG: seeds grow while the network learns, to neighbors that it is sure of.

The seeds that a classifier gives are few, and a network that learns from them alone never sees an object's outline.
What is around a seed, and what the network meanwhile believes to be of its class, is most likely of its class: at each
step, a place u without a seed gets one of class c if

.. math:: Q_{c,u} > \theta_c, \qquad \theta_0 = 0.99, \quad \theta_{c > 0} = 0.85

and a chain of such places, each one of the eight neighbors of the next, leads to a seed of class c; c is the background
or a class of the image label, and Q what a dense CRF makes of the network's probabilities f. With S the grown seeds,
the network minimizes the *balanced seeding loss*

.. math:: L_{seed} = -\frac{1}{\sum_{c > 0} |S_c|} \sum_{c > 0} \sum_{u \in S_c} \log f_{c,u}
    - \frac{1}{|S_0|} \sum_{u \in S_0} \log f_{0,u}

and the boundary loss, which is SEC's *constrain* (:func:`dsna_lib.methods.sec.constrain_loss`): how far f is from Q. As
the network learns, more of the picture is sure, so the seeds of later steps reach further.

Source: Huang, Wang, Wang, Liu and Wang, "Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region
Growing", CVPR 2018; the row quotes its number with a ResNet-101. That seeds grow where Q, and not f, is sure, the
thresholds, the eight neighbors and the balance are as in the authors' published code,
https://github.com/speedinghzl/DSRG. Decided here:

- *Seeds.* CAM's annotations before any CRF, as in SEC's rows, with the table's background cue; theirs is a saliency
  detector's.
- *Both thresholds* are above one half, so that no two classes claim a place. What grew is forgotten after the step.
- *One round.* Theirs trains a second network on the masks of the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from dsna_lib.data.pictures import VOID
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.later import printed_later
from dsna_lib.methods.sec import FLOOR, crf_marginals
from dsna_lib.segmentation.training import labels_at_cell_centers


def grow(
    seeds: np.ndarray, q: np.ndarray, present: Iterable[int], background: float = 0.99, foreground: float = 0.85
) -> np.ndarray:
    """The grown seeds ``(h, w)`` uint8.

    Args:
        seeds: ``(h, w)`` uint8: 0 background, 1..C classes, 255 none.
        q: probabilities ``(C + 1, h, w)``.
        present: the classes that may grow, 1..C; the background always may.
        background, foreground: theta.

    Example:
        >>> q = np.array([[[0.1, 0.1, 0.5, 0.1]], [[0.9, 0.9, 0.5, 0.9]]])
        >>> grow(np.array([[1, 255, 255, 255]], np.uint8), q, [1]).tolist()  # nothing leads to the last one
        [[1, 1, 255, 255]]
    """
    grown = seeds.copy()
    for c in (0, *present):
        alike = (seeds == VOID) & (q[c] > (foreground if c else background))
        parts, _ = ndimage.label(alike | (seeds == c), np.ones((3, 3)))
        grown[alike & np.isin(parts, parts[seeds == c])] = c
    return grown


def balanced_seed_loss(logits: Tensor, seeds: Tensor) -> Tensor:
    """L_seed, averaged over pictures, of logits ``(N, C + 1, h, w)`` and seeds ``(N, h, w)``; a sum over none is 0.

    Example:
        >>> balanced_seed_loss(torch.zeros(1, 2, 1, 3), torch.tensor([[[0, 1, 255]]]))  # log 2, twice
        tensor(1.3863)
    """
    losses = functional.cross_entropy(logits.float(), seeds.long(), ignore_index=VOID, reduction="none")

    def mean(chosen: Tensor) -> Tensor:
        return losses.where(chosen, 0).sum(dim=(1, 2)) / chosen.sum(dim=(1, 2)).clamp_min(1)

    return (mean((seeds > 0) & (seeds != VOID)) + mean(seeds == 0)).mean()


@dataclass(frozen=True)
class DSRGLoss:
    """Both losses on grown seeds, which are the batch's masks; see :class:`dsna_lib.segmentation.training.Loss`.

    Attributes:
        background, foreground: of :func:`grow`.
    """

    background: float = 0.99
    foreground: float = 0.85
    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C + 1, h, w)``, pictures, seeds and labels ``(N, C)`` to a scalar."""
        f = functional.softmax(logits.float(), dim=1) + FLOOR
        f = f / f.sum(dim=1, keepdim=True)
        q = crf_marginals(f.detach(), batch["image"])  # once, for both losses
        seeds = labels_at_cell_centers(batch["mask"], logits.shape[-2:]).cpu().numpy()
        present = [np.flatnonzero(labels > 0.5) + 1 for labels in batch["labels"].cpu().numpy()]
        limits = self.background, self.foreground
        grown = np.stack([grow(*each, *limits) for each in zip(seeds, q.cpu().numpy(), present, strict=True)])
        seeded = balanced_seed_loss(logits, torch.from_numpy(grown).to(logits.device))
        return seeded + (torch.xlogy(q, q) - q * f.log()).sum(dim=1).mean()


DSRG = replace(CAM, title="DSRG", refined=False, minimized=DSRGLoss(), paper=printed_later("DSRG"))
