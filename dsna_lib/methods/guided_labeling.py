r"""Exploiting saliency: seeds of a classifier say what an object is, salient components how far it reaches.

A classifier finds the parts that tell classes apart, with a label and without an end; saliency has an end and no label.
Both fall into connected components, and each salient component S is looked at together with the seeds R that it meets:

- it meets seeds of one class: all of S has that class;
- of several: a dense CRF shares S out among those classes, from the seeds on;
- of none: it is void. It may be an object that the classifier has missed, or one of no class.

A connected seed that meets no salient component keeps its class, as the only thing that is known of an object; of one
that does, what lies beyond is cut off, since saliency says how far the object reaches. The rest is background.

Source: Oh, Benenson, Khoreva, Akata, Fritz and Schiele, "Exploiting Saliency for Object Segmentation from Image Level
Labels", CVPR 2017 (*Joon et al.* in Table IV), after the strategy G2 of their guide labeler.

Decided here:

- *Rules.* That a component without a seed is void, and that a seed ends where its component ends, is our reading of G2.
- *Seeds* are the foreground of the annotation by the classifier that CAM's, SEC's and AE's rows share, above the
  table's threshold; where classes meet, the smaller region has won.
- *Saliency* is what the data set tells (:mod:`dsna_lib.methods.saliency`); a pixel is salient above one half.
- *CRF.* The table's, with Eq. 12-13 for unary terms: seeds have probability tau, what is between them is open.
- *Components* meet where they share a pixel, and pixels are neighbors along their sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import label as components

from dsna_lib import crf
from dsna_lib.crf import class_probabilities
from dsna_lib.data.pictures import VOID, Record, read_image, read_mask
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.saliency import saliency
from dsna_lib.methods.table_iv import printed

SALIENT = 0.5

# Seeds within a salient component, 255 where there is none, and their classes (0-based) to a class for each pixel.
Share = Callable[[np.ndarray, list[int]], np.ndarray]


def guide(seeds: np.ndarray, salient: np.ndarray, share: Share) -> np.ndarray:
    """The guide labels of a picture.

    Args:
        seeds: ``(H, W)`` uint8: classes from 1 on, 0 where there is no seed.
        salient: ``(H, W)`` bool.
        share: decides on a component that meets seeds of several classes.

    Returns:
        ``(H, W)`` uint8: 0 background, 1..C classes, 255 void.

    Example:
        >>> seeds, salient = np.array([[2, 2, 0, 0, 1, 0, 0]], np.uint8), np.array([[0, 1, 1, 0, 0, 0, 1]], bool)
        >>> guide(seeds, salient, share=lambda inside, labels: inside).tolist()
        [[0, 2, 2, 0, 1, 0, 255]]
    """
    annotation = np.zeros_like(seeds)
    for c in np.unique(seeds[seeds > 0]):
        parts, _ = components(seeds == c)
        annotation[(parts > 0) & ~np.isin(parts, parts[salient])] = c
    parts, count = components(salient)
    for k in range(1, count + 1):
        part = parts == k
        met = np.unique(seeds[part & (seeds > 0)])
        if len(met) > 1:
            inside = np.where(part & (seeds > 0), seeds, VOID).astype(np.uint8)
            annotation[part] = share(inside, [int(c) - 1 for c in met])[part]
        else:
            annotation[part] = met[0] if len(met) else VOID
    return annotation


def share_out(
    image: np.ndarray, num_classes: int, tau: float, params: str, seeds: np.ndarray, labels: list[int]
) -> np.ndarray:
    """A :data:`Share` by the dense CRF of a picture; the background takes no part, as all of it is salient."""
    likely = class_probabilities(seeds, labels, num_classes, tau)
    likely[0] = 0
    return crf.refine(image, likely / likely.sum(axis=0), params)


@dataclass(frozen=True)
class GuidedLabeling:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "Joon et al."
    needs: frozenset[Help] = LABELS | {"saliency"}
    paper: float | None = printed("Joon et al.")
    trains: frozenset[str] = CAM.trains | {"saliency"}

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """Guide labels; no CRF beyond that within components."""
        found, salient, how = stage.annotate(CAM.head, CAM.kind, CAM.maker), saliency(stage), stage.annotation
        params = "sec" if how.crf == "none" else how.crf

        def label(record: Record) -> np.ndarray:
            image = read_image(record.image)
            seeds = read_mask(found / f"{record.id}.png", image.shape[:2])
            seeds[seeds == VOID] = 0
            share = partial(share_out, image, stage.pictures.num_classes, how.tau, params)
            return guide(seeds, salient.of(record) > SALIENT, share)

        identity = {"seeds": stage.content(found), "saliency": salient.source, "tau": how.tau, "crf": params}
        return stage.annotate_each("annotate", label, identity, __name__)

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


GUIDED_LABELING = GuidedLabeling()
