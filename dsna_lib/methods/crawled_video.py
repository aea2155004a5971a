r"""Crawled video: what is attended to and moves differently from its surroundings is the object.

A clip that was found by a class's name has no masks, but motion: what moves on its own is an object, as a whole. The
superpixels i of all frames of a clip are cut into object and ground at once, by the labels y that minimize

.. math:: -\sum_i \log A_i(y_i) - \sum_i \log M_i(y_i) + \sum_{i \sim j} w_{ij} [y_i \ne y_j]

with :math:`A_i(1) = 1 - A_i(0)` the mean attention to the clip's class on superpixel i, and :math:`M_i(1) = 1 - M_i(0)`
how much it moves against its frame, in shares of the most that a superpixel of the frame does,

.. math:: M_i(1) = \frac{m_i}{\max_j m_j}, \qquad m_i = \frac{1}{|i|} \sum_{u \in i} \|v_u - \bar v\|

from the flow v and its median :math:`\bar v` over the frame; A and M are kept within 0.1..0.9, so that neither of them
decides alone. Superpixels are joined within a frame where they touch, by how much alike they look
(:func:`dsna_lib.methods.scribble_sup.pair_weights`), and to the one in the next frame that most of their pixels flow
to, with weight 1. From the frames' masks a first network learns; it annotates the training
pictures, each with the likeliest of the background and the classes of its image label, for the row's own.

Source: Hong, Yeo, Kwak, Lee and Han, "Weakly Supervised Semantic Segmentation using Web-Crawled Videos", CVPR 2017.

Decided here:

- *Attention* is CAM, by the classifier that CAM's, SEC's and AE's rows share; theirs is that of a classifier of their
  own, which also chooses the parts of videos that show the class at all; clips are taken as they are told here.
- *Motion.* Flow by iterated Lucas and Kanade, of scikit-image, against the frame's median, in place of inside-outside
  maps (Papazoglou and Ferrari, ICCV 2013). Where no superpixel moves by half a pixel there is none.
- *Color models* of object and ground, which they add to attention and motion, are left out.
- *Network.* Theirs has a decoder that turns attention into masks; here it is the recipe's, see
  :mod:`dsna_lib.methods.turns`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from dsna_lib.annotate import resize
from dsna_lib.data.help import clips
from dsna_lib.data.pictures import read_image, write_mask
from dsna_lib.engine import runs
from dsna_lib.engine.outputs import is_whole
from dsna_lib.methods.base import LABELS, Help, MethodError, Stage
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.scribble_sup import alpha_expansion, pair_weights
from dsna_lib.methods.superpixels import FELZENSZWALB, Superpixels, superpixels
from dsna_lib.methods.table_iv import printed
from dsna_lib.methods.turns import EarlierNetwork, of_one_class
from dsna_lib.segmentation.training import with_annotations

STILL = 0.5  # pixels below which nothing moves
_SURE = 0.9  # the most that attention or motion alone may say for or against


def flow(frame: np.ndarray, following: np.ndarray) -> np.ndarray:
    """How far what each pixel shows has moved in the following frame ``(H, W, 2)``, down and right.

    Raises:
        MethodError: scikit-image is not installed.
    """
    try:
        from skimage.registration import optical_flow_ilk  # of the book, not of the library: it need not be there
    except ImportError:
        raise MethodError("optical flow needs scikit-image", "`pip install scikit-image`") from None
    first, second = (image.mean(axis=2).astype(np.float32) / 255 for image in (frame, following))
    return np.moveaxis(optical_flow_ilk(first, second), 0, -1)


def motion(parts: Superpixels, moved: np.ndarray) -> np.ndarray:
    """M(1): how much each superpixel moves against the frame ``(n,)`` in 0..1, given its flow ``(H, W, 2)``."""
    alone = _means(parts, np.linalg.norm(moved - np.median(moved, axis=(0, 1)), axis=2))
    return alone / alone.max() if alone.max() > STILL else np.zeros_like(alone)


def _means(parts: Superpixels, values: np.ndarray) -> np.ndarray:
    """Of values ``(H, W)`` over each superpixel ``(n,)``."""
    return np.bincount(parts.labels.ravel(), values.ravel()) / parts.sizes


def costs(*evidence: np.ndarray) -> np.ndarray:
    """What each superpixel costs as ground and as object ``(n, 2)``, given A(1) and M(1), ``(n,)`` each in 0..1.

    Example:
        >>> costs(np.array([0.0]), np.array([0.5])).round(2).tolist()
        [[0.8, 3.0]]
    """
    likely = np.clip(evidence, 1 - _SURE, _SURE)
    return -np.log([1 - likely, likely]).sum(axis=1).T


def follow(parts: Superpixels, following: Superpixels, moved: np.ndarray) -> np.ndarray:
    """The superpixel of the following frame that most pixels of each superpixel flow to: ``(n,)``, -1 for none."""
    height, width = parts.labels.shape
    ends = np.rint(np.indices((height, width)).transpose(1, 2, 0) + moved).astype(int)
    inside = ((ends >= 0) & (ends < (height, width))).all(axis=2)
    votes = np.zeros((len(parts.sizes), len(following.sizes)), int)
    np.add.at(votes, (parts.labels[inside], following.labels[tuple(ends[inside].T)]), 1)
    return np.where(votes.any(axis=1), votes.argmax(axis=1), -1)


def cut(frames: Sequence[Superpixels], unary: Sequence[np.ndarray], moved: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Where each frame of a clip shows its object: ``(H, W)`` bool.

    Args:
        frames: their superpixels.
        unary: what each superpixel costs as ground and as object ``(n, 2)``.
        moved: the flow from each frame but the last to the next ``(H, W, 2)``.
    """
    starts = np.cumsum([0, *(len(parts.sizes) for parts in frames)])
    pairs = [parts.pairs + start for parts, start in zip(frames, starts, strict=False)]
    weights = [pair_weights(parts) for parts in frames]
    for k, each in enumerate(moved):
        ends = follow(frames[k], frames[k + 1], each)
        pairs.append(np.stack([starts[k] + np.arange(len(ends)), starts[k + 1] + ends], axis=1)[ends >= 0])
        weights.append(np.ones(len(pairs[-1])))
    labels = alpha_expansion(np.concatenate(unary), np.concatenate(pairs), np.concatenate(weights)) == 1
    return [labels[start:][parts.labels] for parts, start in zip(frames, starts, strict=False)]


def masks_of(images: Sequence[np.ndarray], attention: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Where each frame ``(H, W, 3)`` of a clip shows its object ``(H, W)`` bool, given attention ``(H, W)`` in 0..1."""
    moved = [flow(*pair) for pair in pairwise(images)]
    frames = [superpixels(image, FELZENSZWALB) for image in images]
    attended, motions = map(_means, frames, attention), map(motion, frames, [*moved, flow(images[-1], images[-2])])
    return cut(frames, [*map(costs, attended, motions)], moved)


@dataclass(frozen=True)
class CrawledVideo:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "Crawled-Video"
    needs: frozenset[Help] = LABELS | {"videos"}
    paper: float | None = printed("Crawled-Video")
    trains: frozenset[str] = CAM.trains | {"videos"}

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """What a network that learned from frames says of the training pictures; no CRF."""
        frames = of_one_class(replace(stage, pictures=stage.help["videos"]), self.title)
        model, file = stage.train(CAM.head)

        def work(folder: Path) -> None:
            for clip in clips(frames.pictures).values():
                paths = [folder / f"{record.id}.png" for record in clip.records]
                if all(is_whole(path) for path in paths):
                    continue
                (label, *_), attention = clip.records[0].labels, []
                for picture in replace(frames, pictures=clip).iterate_maps(model, CAM.maker):
                    attention.append(resize(picture.maps[CAM.kind][[label]], picture.size)[0].cpu().numpy())
                for path, mask in zip(
                    paths, masks_of([read_image(r.image) for r in clip.records], attention), strict=True
                ):
                    write_mask(path, np.where(mask, label + 1, 0))

        found = frames.folder("annotate", work, {"model": runs.file_digest(file)}, __name__)
        return EarlierNetwork(stage, with_annotations(frames.pictures, found)).annotate(stage)

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


CRAWLED_VIDEO = CrawledVideo()
