r"""BoxSup: of many candidate segments, the one that fits a box best, and that the network believes in.

A box says where an object ends, and not which of the pixels within are its own. Candidate segments do, without a class.
For each box B of class c the candidate S is chosen that minimizes

.. math:: 1 - \mathrm{IoU}(B, \mathrm{box}(S)) - \frac{\lambda}{|I|} \Big(\sum_{u \in B \cap S} \log P_{c,u}
    + \sum_{u \in I \setminus (B \cap S)} \log P_{0,u}\Big), \qquad \lambda = 3

with box(S) the tight box around S, I the picture, and P what the network believes: the second term is the network's own
loss on what would be annotated. The chosen segments have their boxes' classes, what lies in none of them is background.

Source: Dai, He and Sun, "BoxSup: Exploiting Bounding Boxes to Supervise Convolutional Networks for Semantic
Segmentation", ICCV 2015.

Decided here:

- *Turns.* BoxSup takes turns between choosing and training. Here is one, with the opinion of a classifier in place of
  the network's: see :mod:`dsna_lib.methods.from_help`. For every epoch BoxSup draws one of the best 5 candidates; one
  set of annotations holds the best.
- *Candidates.* BoxSup's best ones are MCG's, which was trained on VOC's masks. In their place are those of selective
  search (Uijlings et al., "Selective Search for Object Recognition", IJCV 2013), which BoxSup compares with them: of
  one of its runs, superpixels of its fast setting, merged by color, texture, size and fill.
- *Loss.* The mean over the picture's pixels, as it is minimized here.
- *Beyond the box* nothing of a segment is kept, and where several meet, the smallest wins, as for every method here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsna_lib.data.marks import Box
from dsna_lib.methods.from_help import HelpMethod
from dsna_lib.methods.superpixels import SELECTIVE_SEARCH, Segments, Superpixels, merge, superpixels
from dsna_lib.methods.table_iv import printed

BELIEF = 3.0  # lambda


def box_overlaps(box: Sequence[int], others: np.ndarray) -> np.ndarray:
    """Intersection over union ``(R,)`` of a box with others ``(R, 4)``.

    Example:
        >>> box_overlaps((0, 0, 2, 2), np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 4, 4]])).round(2).tolist()
        [1.0, 0.33, 0.0]
    """
    left, top, right, bottom = box
    wide = np.minimum(right, others[:, 2]) - np.maximum(left, others[:, 0])
    high = np.minimum(bottom, others[:, 3]) - np.maximum(top, others[:, 1])
    shared = wide.clip(min=0) * high.clip(min=0)
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    return shared / ((right - left) * (bottom - top) + areas - shared)


def choose(box: Box, parts: Superpixels, segments: Segments, costs: np.ndarray) -> int:
    """The candidate with the lowest objective for a box, given -log P ``(C + 1, H, W)``."""
    inside = slice(box.top, box.bottom), slice(box.left, box.right)
    # What each superpixel costs more as a part of the object than as background; the rest is the same for all segments.
    more = (costs[box.label + 1] - costs[0])[inside].ravel()
    believed = segments.members @ np.bincount(parts.labels[inside].ravel(), more, len(parts.sizes)) / parts.labels.size
    return int(np.argmin(1 - box_overlaps(box[:4], segments.boxes) + BELIEF * believed))


def from_boxes(image: np.ndarray, boxes: Sequence[Box], costs: np.ndarray) -> np.ndarray:
    """A :data:`~dsna_lib.methods.from_help.Labeler` of boxes."""
    parts = superpixels(image, SELECTIVE_SEARCH)
    costs = np.where(np.isfinite(costs), costs, costs[0])  # of a class that no label names there is no opinion
    segments, found = merge(parts), []
    for box in boxes:
        mask = np.zeros(image.shape[:2], bool)
        inside = slice(box.top, box.bottom), slice(box.left, box.right)
        mask[inside] = segments.members[choose(box, parts, segments, costs)][parts.labels[inside]]
        found.append((mask.sum(), box.label, mask))
    annotation = np.zeros(image.shape[:2], np.uint8)
    for _, label, mask in sorted(found, key=lambda each: -each[0]):
        annotation[mask] = label + 1
    return annotation


BOX_SUP = HelpMethod("BoxSup", "boxes", from_boxes, printed("BoxSup"))
