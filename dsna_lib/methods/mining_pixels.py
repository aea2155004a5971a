r"""Mining pixels: expectation maximization that begins on simple pictures, by saliency or attention.

What class a pixel shows is a latent variable. In a *simple* picture, of one class c, it is known wherever either cue
speaks: saliency S, bottom-up, or the class's attention A, top-down,

.. math:: y_u = \begin{cases} c & \max(S_u, A_{c,u}) > \tfrac12 \\ 0 & \text{elsewhere} \end{cases}

An *initial* network learns from these. Then comes a round of EM: the E-step gives each pixel of all pictures the class
of the highest posterior, which the image label restricts,

.. math:: y_u = \arg\max_{c \in C_I} f_{c,u}

with :math:`C_I` the background and the classes of the label; the M-step is the row's own network, which learns from it.

Source: Hou, Dokania, Massiceti, Wei, Cheng and Torr, "Mining Pixels: Weakly Supervised Semantic Segmentation Using
Image Labels", 2016, arXiv:1612.02101.

Decided here:

- *Simple pictures* are those of the data set that show one class; :mod:`dsna_lib.methods.stc` differs in having no
  attention, and a second turn on simple pictures.
- *Cues.* The larger one of both, above one half; attention is CAM by the classifier that CAM's, SEC's and AE's rows
  share, saliency what the data set tells (:mod:`dsna_lib.methods.saliency`).
- *Rounds.* One, of hard labels, with the table's cross-entropy for the M-step; their own M-step is left out.
- *Network.* The recipe's, with its schedule (:mod:`dsna_lib.methods.turns`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsna_lib.annotate import resize
from dsna_lib.data.pictures import Record
from dsna_lib.engine import runs
from dsna_lib.maps import PictureMaps
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.saliency import saliency
from dsna_lib.methods.table_iv import printed
from dsna_lib.methods.turns import EarlierNetwork, of_one_class
from dsna_lib.segmentation.training import with_annotations


def either(salient: np.ndarray, attention: np.ndarray, label: int) -> np.ndarray:
    """A simple picture's mask ``(H, W)`` uint8 from its two cues ``(H, W)`` in 0..1, for a 0-based class.

    Example:
        >>> either(np.array([[0.9, 0.1, 0.4]]), np.array([[0.0, 0.6, 0.4]]), 4).tolist()
        [[5, 5, 0]]
    """
    return np.where(np.maximum(salient, attention) > 0.5, label + 1, 0).astype(np.uint8)


@dataclass(frozen=True)
class MiningPixels:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "Mining-pixels"
    needs: frozenset[Help] = LABELS | {"saliency"}
    paper: float | None = printed("Mining-pixels")
    trains: frozenset[str] = CAM.trains | {"saliency", "mining"}

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """What the initial network says of all pictures; no CRF."""
        simple, salient = of_one_class(stage, self.title), saliency(stage)
        model, file = stage.train(CAM.head)

        def label(record: Record, picture: PictureMaps) -> np.ndarray:
            attention = resize(picture.maps[CAM.kind][list(record.labels)], picture.size)[0].cpu().numpy()
            return either(salient.of(record), attention, *record.labels)

        identity = {"model": runs.file_digest(file), "saliency": salient.source}
        found = simple.annotate_maps(model, CAM.maker, label, identity, __name__)
        return EarlierNetwork(stage, with_annotations(simple.pictures, found)).annotate(stage)

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


MINING_PIXELS = MiningPixels()
