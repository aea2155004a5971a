r"""DCSP, discovering class-specific pixels: a pixel has a class where it is salient *and* the class is attended to.

The harmonic mean of saliency S and of a class's attention A is near the smaller one of them, so either may veto:

.. math:: H_c(u) = \frac{2}{1 / A_c(u) + 1 / S(u)}, \qquad
    y_u = \begin{cases} \arg\max_c H_c(u) & \max_c H_c(u) > \theta \\ 0 & \text{elsewhere} \end{cases}

over the classes c of the image label. The network is held to the label beside these pixels: each class that is present
is asked for at the one place where the network believes in it most (:mod:`dsna_lib.methods.mil_fcn`),

.. math:: L = L_{cross-entropy}(y) - \frac{1}{|C_I|} \sum_{c \in C_I} \log \max_u f_{c,u}

Source: Chaudhry, Dokania and Torr, "Discovering Class-Specific Pixels for Weakly-Supervised Semantic Segmentation",
BMVC 2017; the number is that of its VGG-16.

Decided here:

- *Attention* is the positive part of CAM, scaled to 0..1, by the classifier that CAM's, SEC's and AE's rows share.
  DCSP's own is that of the network that is being trained, and changes with it; here it stays.
- *Saliency* is what the data set tells, :mod:`dsna_lib.methods.saliency`. DCSP asks its detector again about what is
  left after the salient part was erased; the maps are taken as they are here, as given ones can be asked only once.
- *Threshold.* That of the table's maps, 0.2. What is not above it is background: nothing is void.
- *Image label.* DCSP says that each class is to have a pixel at least, and leaves the loss to its classifier's branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from dsna_lib.annotate import resize
from dsna_lib.data.pictures import Record
from dsna_lib.engine import runs
from dsna_lib.maps import PictureMaps
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.mil_fcn import MILLoss
from dsna_lib.methods.saliency import saliency
from dsna_lib.methods.table_iv import printed
from dsna_lib.methods.turns import combined
from dsna_lib.segmentation.training import segmentation_loss


def harmonic_mean(attention: np.ndarray, salient: np.ndarray) -> np.ndarray:
    """Of maps ``(K, H, W)`` and one map ``(H, W)``, all in 0..1; 0 where either is.

    Example:
        >>> harmonic_mean(np.array([[[1.0, 0.5, 0.0]]]), np.array([[1.0, 1.0, 1.0]])).round(2).tolist()
        [[[1.0, 0.67, 0.0]]]
    """
    return 2 * attention * salient / np.maximum(attention + salient, np.finfo(float).tiny)


def class_specific(attention: np.ndarray, salient: np.ndarray, labels: Sequence[int], threshold: float) -> np.ndarray:
    """The annotation ``(H, W)`` uint8 of a picture, 0 background and 1..C classes.

    Args:
        attention: ``(K, H, W)`` in 0..1, of the K classes in `labels`.
        salient: ``(H, W)`` in 0..1.
        labels: 0-based.
        threshold: of the harmonic mean.
    """
    return combined(harmonic_mean(attention, salient), labels, threshold)


@dataclass(frozen=True)
class DCSPLoss:
    """The cross-entropy, and each present class's best place; see :class:`dsna_lib.segmentation.training.Loss`."""

    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C + 1, h, w)`` and a batch with ``mask`` and ``labels`` to a scalar."""
        return segmentation_loss(logits, batch["mask"]) + MILLoss()(logits, batch)


@dataclass(frozen=True)
class DCSP:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "DCSP"
    needs: frozenset[Help] = LABELS | {"saliency"}
    paper: float | None = printed("DCSP", "VGG-16")
    trains: frozenset[str] = CAM.trains | {"saliency"}

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """Class-specific pixels; no CRF: saliency says where objects end."""
        model, file = stage.train(CAM.head)
        salient, threshold = saliency(stage), stage.annotation.foreground_threshold

        def label(record: Record, picture: PictureMaps) -> np.ndarray:
            attention = resize(picture.maps[CAM.kind][list(record.labels)], picture.size).cpu().numpy()
            return class_specific(attention, salient.of(record), record.labels, threshold)

        identity = {"model": runs.file_digest(file), "saliency": salient.source, "threshold": threshold}
        return stage.annotate_maps(model, CAM.maker, label, identity, __name__)

    def loss(self, stage: Stage) -> DCSPLoss:
        """See :class:`dsna_lib.methods.base.Method`."""
        return DCSPLoss()


DCSP_METHOD = DCSP()
