r"""AF-SS: whole regions of the picture are classified, and each pixel hears all regions that it lies in.

Maps of a classifier know classes and no outlines; regions that a picture falls into by its colors have outlines and no
class. *Selective search* offers regions of all sizes: from a fine segmentation on, the two neighbors that are most
alike become one, until all is one. Each of these proposals r is classified, and those for a class are *aggregated*:

.. math:: p_c(r) = \frac{1}{|r|} \sum_{u \in r} s_c(u), \qquad
    A_c(u) = \frac{1}{|\{r : u \in r\}|} \sum_{r \ni u} \max\big(0, p_c(r)\big)

with :math:`s_c` the dense scores of a pooled linear classifier, whose mean over all of the picture is its score: it is
asked about a region by pooling over the region alone. How alike two neighbors a and b are is

.. math:: \sum_k \min(h_{ak}, h_{bk}) + 1 - \frac{|a| + |b|}{n} + 1 - \frac{|box(a \cup b)| - |a| - |b|}{n}

with h their histograms of colors, n the pixels of the picture, and box the rectangle around both.

Source: Qi et al., "Augmented Feedback in Semantic Segmentation under Image Level Supervision", ECCV 2016, the row
*AF-SS*; selective search is by Uijlings et al., IJCV 2013. We know of no public code of the former.
Decided here:

- *One round.* Theirs alternates: masks of a segmentation network choose proposals, from which a localization network
  learns, whose aggregated proposals make new masks. Here a table trains one segmentation network a row; so it is
  the first round, and CAM's classifier stands in for the localization network.
- *Aggregation.* A proposal of a score below zero is not for the class and adds nothing. The mean is over all proposals
  of a pixel: how many these are says nothing of its class.
- *Proposals.* One segmentation, with scikit-image's Felzenszwalb and selective search's fast setting (scale and
  smallest region 100, sigma 0.8), and one grouping. Selective search takes several of both, and histograms of texture.
- *Threshold, background, CRF.* The table's, in place of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsna_lib.annotate import pseudo_annotation, resize
from dsna_lib.attention import AttentionOutput
from dsna_lib.data.pictures import Record, read_image, write_mask
from dsna_lib.engine import runs
from dsna_lib.engine.outputs import is_whole
from dsna_lib.maps import PictureMaps
from dsna_lib.methods.base import LABELS, Help, MethodError, Stage, thresholds
from dsna_lib.methods.explain import CLASSIFIER
from dsna_lib.methods.table_iv import printed

BINS = 25  # of each color's histogram


def segments(image: np.ndarray) -> np.ndarray:
    """A fine segmentation of a picture: ``(H, W)``, numbered from 0 without gaps.

    Raises:
        MethodError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import felzenszwalb  # of the book, not of the library: it need not be there
    except ImportError:
        raise MethodError("AF-SS needs scikit-image for its proposals", "`pip install scikit-image`") from None
    fine = felzenszwalb(image, scale=100, sigma=0.8, min_size=100)
    return np.unique(fine, return_inverse=True)[1].reshape(fine.shape)


def proposals(image: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Which of the R fine segments each proposal holds: ``(2 R - 1, R)`` bool, the segments first, the picture last.

    Args:
        image: ``(H, W, 3)`` uint8.
        fine: ``(H, W)``, see :func:`segments`.

    Example:
        >>> proposals(np.zeros((1, 3, 3), np.uint8), np.array([[0, 1, 1]])).astype(int).tolist()
        [[1, 0], [0, 1], [1, 1]]
    """
    count, pixels = int(fine.max()) + 1, fine.size
    members = [{k} for k in range(count)]
    areas = np.bincount(fine.ravel()).tolist()
    histograms = [_histogram(image[fine == k]) for k in range(count)]
    boxes = [_box(fine == k) for k in range(count)]

    def likeness(a: int, b: int) -> float:
        top, left, bottom, right = _around(boxes[a], boxes[b])
        both = areas[a] + areas[b]
        empty = (bottom - top) * (right - left) - both
        return float(np.minimum(histograms[a], histograms[b]).sum()) + 2 - (both + empty) / pixels

    alike = {pair: likeness(*pair) for pair in _neighbors(fine)}
    while alike:
        a, b = max(alike, key=lambda pair: alike[pair])
        new, share = len(members), areas[a] / (areas[a] + areas[b])
        members.append(members[a] | members[b])
        areas.append(areas[a] + areas[b])
        histograms.append(share * histograms[a] + (1 - share) * histograms[b])
        boxes.append(_around(boxes[a], boxes[b]))
        touching = {end for pair in alike if {a, b} & {*pair} for end in pair} - {a, b}
        alike = {pair: value for pair, value in alike.items() if not {a, b} & {*pair}}
        alike |= {(other, new): likeness(other, new) for other in sorted(touching)}
    held = np.zeros((len(members), count), bool)
    for row, parts in enumerate(members):
        held[row, [*parts]] = True
    return held


def _histogram(colors: np.ndarray) -> np.ndarray:
    """Of colors ``(n, 3)``: :data:`BINS` for each of the three, which sum to 1."""
    counts = [np.histogram(channel, BINS, (0, 256))[0] for channel in colors.T]
    return np.concatenate(counts) / (3 * len(colors))


def _box(region: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, and the first row and column beyond."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _around(a: Sequence[int], b: Sequence[int]) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _neighbors(fine: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of segments that share a side of a pixel, the lower number first, in order."""
    sides = [(fine[:, :-1], fine[:, 1:]), (fine[:-1], fine[1:])]
    touching = np.concatenate([np.stack([one.ravel(), other.ravel()]) for one, other in sides], axis=1)
    found = np.unique(np.sort(touching, axis=0), axis=1)
    return [(int(a), int(b)) for a, b in found.T if a != b]


def aggregate(scores: Tensor, fine: np.ndarray, held: np.ndarray) -> Tensor:
    """The aggregated map A ``(C, H, W)``.

    Args:
        scores: ``(C, H, W)`` dense scores s.
        fine: ``(H, W)``, see :func:`segments`.
        held: ``(P, R)`` bool, see :func:`proposals`.
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

    def annotate(self, stage: Stage) -> Path:
        """Aggregated proposals, as any other map."""
        model, file = stage.train(CLASSIFIER)
        limits = thresholds(stage.annotation)

        def work(folder: Path) -> None:
            for picture in stage.iterate_maps(model, dense_scores):
                record = stage.pictures.records[picture.index]
                path = folder / f"{record.id}.png"
                if not is_whole(path):
                    write_mask(path, _annotation(picture, record, **limits))

        identity = {"model": runs.file_digest(file), "thresholds": limits}
        return stage.refine(stage.folder("annotate", work, identity, __name__))

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


def dense_scores(
    model: torch.nn.Module, pictures: Tensor, present: Tensor
) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """A :data:`dsna_lib.maps.MapMaker` of the kind ``"scores"``: a single stream's s, of either sign."""
    output = model(pictures)
    return output, {"scores": output.discriminative.float()}


def _annotation(picture: PictureMaps, record: Record, **limits: Any) -> np.ndarray:
    if not record.labels:
        return np.zeros(picture.size, np.uint8)
    image = read_image(record.image)
    fine = segments(image)
    maps = aggregate(resize(picture.maps["scores"], picture.size), fine, proposals(image, fine))
    features = resize(picture.features.sum(dim=0, keepdim=True), picture.size)
    return pseudo_annotation(maps, features, record.labels, picture.size, **limits).cpu().numpy()


AF_SS = AugmentedFeedback()
