r"""AF-MCG: augmented feedback with proposals that boundaries make, at several scales, and pairs of them.

What *AF-SS* (:mod:`dsna_lib.methods.augmented_feedback`) does to the proposals of selective search is done to better
ones, those of *multiscale combinatorial grouping*: the two neighboring regions with the weakest boundary between them
become one, until all is one; boundaries of several scales make as many such hierarchies; and their regions, together
with pairs of neighboring ones, are the proposals. The strength of a boundary between regions a and b is

.. math:: s_{ab} = \frac{1}{|E_{ab}|} \sum_{(u, v) \in E_{ab}} \frac{g_\sigma(u) + g_\sigma(v)}{2}, \qquad
    g_\sigma = \max_k \| \nabla (G_\sigma * I_k) \|

with :math:`E_{ab}` the pairs of neighboring pixels on its two sides, I_k the colors, and :math:`G_\sigma` a Gaussian.

Source: Qi et al., "Augmented Feedback in Semantic Segmentation under Image Level Supervision", ECCV 2016, the row
*AF-MCG*; MCG is by Arbelaez et al., CVPR 2014. Decided here, beside what AF-SS decides:

- *Boundaries.* The strength of edges in color stands in for a detector that was trained on boundaries that people drew.
- *Scales.* Gaussians of 1, 2 and 4 pixels on the picture, in place of boundaries found in three sizes of it. All
  hierarchies start from the same superpixels (:mod:`dsna_lib.methods.superpixels`).
- *Combinations.* Pairs, where MCG has up to four regions.
- *Ranking.* None. MCG's was trained on VOC's masks, for which Table IV lists the row under external sources; nothing
  here is told of any mask, and all proposals count alike, each once however many scales have it.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_gradient_magnitude

from dsna_lib.methods.augmented_feedback import AugmentedFeedback
from dsna_lib.methods.superpixels import SELECTIVE_SEARCH, superpixels
from dsna_lib.methods.table_iv import printed

SIGMAS = (1.0, 2.0, 4.0)


def proposals(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which superpixels each proposal holds ``(P, n)`` bool, of a picture ``(H, W, 3)`` and their numbers ``(H, W)``.

    Example:
        >>> proposals(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]])).astype(int).tolist()
        [[0, 1], [1, 0], [1, 1]]
    """
    colors = np.moveaxis(image.astype(np.float32), 2, 0)
    strengths = (np.max([gaussian_gradient_magnitude(c, sigma) for c in colors], axis=0) for sigma in SIGMAS)
    return np.unique(np.concatenate([grouped(labels, strength) for strength in strengths]), axis=0)


def grouped(labels: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The regions of one hierarchy, and all pairs of them that touched: ``(P, n)`` bool, some of them twice.

    Args:
        labels: ``(H, W)``, the superpixels' numbers, 0..n - 1.
        strength: ``(H, W)``, how strong a boundary would be at each pixel.
    """
    count = int(labels.max()) + 1
    members = [*np.eye(count, dtype=bool)]
    # For each region those that it touches: the strength along the boundary, summed, and its length.
    touching: list[dict[int, np.ndarray]] = [{} for _ in range(count)]
    for (a, b), boundary in _boundaries(labels, strength).items():
        touching[a][b] = touching[b][a] = boundary
    pairs = [members[a] | members[b] for a in range(count) for b in touching[a] if a < b]
    queue = [(total / length, a, b) for a in range(count) for b, (total, length) in touching[a].items() if a < b]
    heapq.heapify(queue)
    for new in range(count, 2 * count - 1):
        a = b = -1
        while a < 0 or b not in touching[a]:  # which they no longer are, once one of them is gone
            _, a, b = heapq.heappop(queue)
        around: dict[int, np.ndarray] = {}
        for part, other in ((a, b), (b, a)):
            for neighbor, boundary in touching[part].items():
                if neighbor != other:
                    del touching[neighbor][part]
                    around[neighbor] = around.get(neighbor, 0) + boundary
            touching[part] = {}
        members.append(members[a] | members[b])
        touching.append(around)
        for neighbor, boundary in around.items():
            touching[neighbor][new] = boundary
            pairs.append(members[new] | members[neighbor])
            heapq.heappush(queue, (boundary[0] / boundary[1], neighbor, new))
    return np.array([*members, *pairs])


def _boundaries(labels: np.ndarray, strength: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Each two superpixels that touch, the lower number first, to the summed strength between them and its length."""
    found = []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        a, b = labels[one], labels[other]
        along = np.stack([np.minimum(a, b), np.maximum(a, b), (strength[one] + strength[other]) / 2])
        found.append(along[:, a != b])
    low, high, values = np.concatenate(found, axis=1)
    pairs, which = np.unique(np.stack([low, high], axis=1).astype(int), axis=0, return_inverse=True)
    which = which.ravel()
    sums = np.stack([np.bincount(which, values, len(pairs)), np.bincount(which, minlength=len(pairs))], axis=1)
    return {(a, b): each for (a, b), each in zip(pairs.tolist(), sums, strict=True)}


@dataclass(frozen=True)
class FeedbackOfHierarchies(AugmentedFeedback):
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "AF-MCG"
    paper: float | None = printed("AF-MCG")

    def proposals(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Superpixels, and proposals of their hierarchies."""
        fine = superpixels(image, SELECTIVE_SEARCH).labels
        return fine, proposals(image, fine)


AF_MCG = FeedbackOfHierarchies()
