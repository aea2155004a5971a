r"""Webly supervised: pictures that were searched by a class's name, on plain ground, need no annotator.

Whoever searches the web for a class and plain ground finds pictures of one object each, which their ground alone
segments: with g the ground's color, the median along the border, a pixel is the object's where

.. math:: d_u = \| I_u - g \| > \theta

with :math:`\theta` Otsu's threshold on d, and so is what this encloses. It is of the class that was searched for. From
these masks a first network learns, wrong labels among them; it annotates the training pictures, each with the likeliest
of the background and the classes of its image label; and from those the row's own network learns.

Source: Jin, Ortiz Segovia and Süsstrunk, "Webly Supervised Semantic Segmentation", CVPR 2017.

Decided here:

- *Masks* of pictures on plain ground by the ground's color, in place of the segmentation that Jin et al. use there.
- *First network.* The recipe's segmentation network with its schedule (:mod:`dsna_lib.methods.turns`), in place of a
  shallow network on VGG-16's features for each class.
- *Third set.* Jin et al. also search for pictures with natural ground, which the first network annotates; our data sets
  have none of these, and the training pictures are the ones that it annotates.
- *Wrong labels* are left as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes

from dsna_lib.data.pictures import Record, read_image
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.table_iv import printed
from dsna_lib.methods.turns import EarlierNetwork, of_one_class
from dsna_lib.segmentation.training import with_annotations


def otsu(values: np.ndarray, bins: int = 256) -> float:
    """The threshold that leaves the least variance within the two groups of values: the middle of a bin.

    Example:
        >>> 1 < otsu(np.array([0.0, 1.0, 1.0, 9.0, 10.0])) < 9
        True
    """
    counts, edges = np.histogram(values, bins)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * middles)
    between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / np.maximum(above, 1)) ** 2
    return float(edges[1:-1][between == between.max()].mean())


def on_plain_ground(image: np.ndarray) -> np.ndarray:
    """Where a picture ``(H, W, 3)`` uint8 shows something else than its ground: ``(H, W)`` bool."""
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    distance = np.linalg.norm(image - np.median(border, axis=0), axis=2)
    return binary_fill_holes(distance > otsu(distance))


@dataclass(frozen=True)
class WeblySupervised:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "Webly-supervised"
    needs: frozenset[Help] = LABELS | {"web"}
    paper: float | None = printed("Webly-supervised")
    trains: frozenset[str] = frozenset({"web"})

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """What a network that learned from the web says of the training pictures; no CRF."""
        web = of_one_class(replace(stage, pictures=stage.help["web"]), self.title)

        def label(record: Record) -> np.ndarray:
            return np.where(on_plain_ground(read_image(record.image)), record.labels[0] + 1, 0)

        found = web.annotate_each("annotate", label, {"ground": "plain"}, __name__)
        return EarlierNetwork(stage, with_annotations(web.pictures, found)).annotate(stage)

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


WEBLY_SUPERVISED = WeblySupervised()
