r"""STC, simple to complex: saliency labels pictures of one class, and what is learned from them labels all the others.

A salient region says where an object is and not what. In a *simple* picture, which shows one class, that is no
question: its saliency map S is how likely its class c is at each place, and the first network, *initial*, learns

.. math:: L = -\frac{1}{n} \sum_u \Big( S_u \log f_{c,u} + (1 - S_u) \log f_{0,u} \Big)

Asked for the likeliest of the background and the classes of the image label, it annotates the simple pictures anew,
from which the second network learns, *enhanced*; and that one annotates all pictures, *complex* ones with several
classes among them, for the third, *powerful*: the row's own.

Source: Wei et al., "STC: A Simple to Complex Framework for Weakly-Supervised Semantic Segmentation", TPAMI 2017.

Decided here:

- *Simple pictures* are those of the data set that show one class, in place of 40,000 from the web (Table IV lists STC
  under web images), so that all rows learn from the same pictures.
- *Saliency* is what the data set tells, :mod:`dsna_lib.methods.saliency`, in place of DRFI's detector.
- *Draws.* Masks on disk are hard, so the initial network learns from labels that are drawn: each pixel is an object
  with probability S. The loss on them has L as its mean over draws; a picture is drawn once, by a seed of its own.
- *Networks.* All three are the recipe's, with its schedule: see :mod:`dsna_lib.methods.turns`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsna_lib.data.pictures import Record
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.saliency import saliency
from dsna_lib.methods.table_iv import printed
from dsna_lib.methods.turns import EarlierNetwork, of_one_class
from dsna_lib.segmentation.training import with_annotations


def drawn(salient: np.ndarray, record: Record, seed: int) -> np.ndarray:
    """A simple picture's mask ``(H, W)`` uint8: its class with the probability that the saliency map ``(H, W)`` says.

    Example:
        >>> drawn(np.array([[0.0, 1.0]]), Record("a", Path("a.png"), (4,)), seed=0).tolist()
        [[0, 5]]
    """
    dice = np.random.default_rng([seed, zlib.crc32(record.id.encode())])
    return np.where(dice.random(salient.shape) < salient, record.labels[0] + 1, 0).astype(np.uint8)


@dataclass(frozen=True)
class STC:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "STC"
    needs: frozenset[Help] = LABELS | {"saliency"}
    paper: float | None = printed("STC")
    trains: frozenset[str] = frozenset({"saliency", "initial", "enhanced"})

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """What the enhanced network says of all pictures; no CRF, as in STC."""
        easy, salient, seed = of_one_class(stage, self.title), saliency(stage), stage.training.seed
        identity = {"saliency": salient.source, "seed": seed}
        annotations = easy.annotate_each("annotate", lambda r: drawn(salient.of(r), r, seed), identity, __name__)
        initial = EarlierNetwork(stage, with_annotations(easy.pictures, annotations))
        enhanced = EarlierNetwork(stage, with_annotations(easy.pictures, initial.annotate(easy)))
        return enhanced.annotate(stage)

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


STC_METHOD = STC()
