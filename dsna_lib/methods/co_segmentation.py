r"""Co-segmentation: in pictures of one class from the web, the object is what they have in common.

A single picture does not say which of its regions is the object; many pictures of one class do, since the object is in
all of them and what is around it changes. Each picture i falls into superpixels r with descriptors :math:`x_{ir}`. One
linear function of them tells the objects of a class from what is around them, in all of its pictures at once,

.. math:: \min_{w, b, s} \sum_i \sum_r a_{ir} \big(w^\top x_{ir} + b - s_{ir}\big)^2 + \lambda \|w\|^2, \qquad
    s_{ir} \in \{0, 1\}

with :math:`s_{ir}` 1 where a superpixel is the object's, which nobody tells, and weights :math:`a_{ir}`. At first s is
0 for superpixels on the picture's border; then w and b, and s, are the best ones given the other, in turns. A first
network learns from these masks, each of the class that was searched for; it annotates the training pictures with the
likeliest of the background and the classes of the image label; and from those the row's own network learns.

Source: Shen, Lin, Liu, Shen and Reid, "Weakly Supervised Semantic Segmentation Based on Co-segmentation", BMVC 2017;
the objective is that of discriminative clustering (Joulin, Bach and Ponce, "Discriminative Clustering for Image
Co-segmentation", CVPR 2010). Decided here:

- *Co-segmentation* by that objective, in place of the published program that Shen et al. run on their pictures.
- *Descriptors.* The features of CAM's classifier, of length 1, and the histograms of colors and gradients
  (:mod:`dsna_lib.methods.superpixels`).
- *Weights.* Shares of a picture's pixels, so that pictures weigh alike, then scaled so that objects and the rest of all
  pictures do. Every picture keeps an object: its best superpixel, if no other.
- *First network.* The recipe's, with its schedule: see :mod:`dsna_lib.methods.turns`.
- *Wrong labels* of the web are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsna_lib.data.pictures import Record, read_image, write_mask
from dsna_lib.engine import runs
from dsna_lib.engine.outputs import is_whole
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.explain import CLASSIFIER
from dsna_lib.methods.superpixels import SELECTIVE_SEARCH, Superpixels, superpixels
from dsna_lib.methods.table_iv import printed
from dsna_lib.methods.turns import EarlierNetwork, of_one_class
from dsna_lib.segmentation.training import with_annotations

ROUNDS, RIDGE = 5, 1e-3


def described(parts: Superpixels, features: np.ndarray) -> np.ndarray:
    """Descriptors ``(n, D + 95)`` of superpixels, given features ``(D, h, w)`` of their picture."""
    (height, width), (h, w) = parts.labels.shape, features.shape[1:]
    cells = (np.arange(height) * h // height)[:, None] * w + np.arange(width) * w // width
    held = np.bincount((parts.labels * h * w + cells).ravel(), minlength=len(parts.sizes) * h * w)
    deep = held.reshape(-1, h * w) @ features.reshape(len(features), -1).T
    deep /= np.linalg.norm(deep, axis=1, keepdims=True).clip(min=1e-12)
    return np.concatenate([deep, parts.colors, parts.textures], axis=1)


def cosegment(
    looks: Sequence[np.ndarray], shares: Sequence[np.ndarray], borders: Sequence[np.ndarray], rounds: int = ROUNDS
) -> list[np.ndarray]:
    """Which superpixels are the object's ``(n,)`` bool, for each of the pictures of a class.

    Args:
        looks: descriptors ``(n, D)``.
        shares: of the picture's pixels ``(n,)``.
        borders: whether superpixels lie on the picture's border ``(n,)`` bool.
        rounds: of taking turns.

    Example:
        >>> looks = [np.array([[0.0], [1.0]]), np.array([[1.0], [0.0], [0.9]])]
        >>> borders = [np.array([True, False]), np.array([False, True, True])]  # one object reaches the border
        >>> [each.tolist() for each in cosegment(looks, [np.full(2, 0.5), np.full(3, 1 / 3)], borders)]
        [[False, True], [True, False, True]]
    """
    x, share, s = np.concatenate(looks), np.concatenate(shares), ~np.concatenate(borders)
    ends = np.cumsum([len(each) for each in looks])[:-1]
    for _ in range(rounds):
        if s.all() or not s.any():  # nothing to tell apart
            break
        s = np.concatenate([(v > 0.5) | (v == v.max()) for v in np.split(fitted(x, share, s), ends)])
    return np.split(s, ends)


def fitted(x: np.ndarray, share: np.ndarray, s: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """The values ``(n,)`` of the best w and b, given s ``(n,)`` bool, descriptors ``(n, D)`` and shares ``(n,)``."""
    x = np.pad(x, ((0, 0), (0, 1)), constant_values=1)
    a = np.where(s, share / share[s].sum(), share / share[~s].sum())
    penalty = ridge * np.diag([*np.ones(x.shape[1] - 1), 0])  # not of b
    return x @ np.linalg.lstsq((x.T * a) @ x + penalty, (x.T * a) @ s.astype(float), rcond=None)[0]


def objects(stage: Stage) -> Path:
    """Masks of a stage's pictures of one class each, those of a class segmented together."""
    model, file = stage.train(CLASSIFIER)

    def work(folder: Path) -> None:
        for label in sorted({record.labels[0] for record in stage.pictures.records}):
            own = [record for record in stage.pictures.records if record.labels[0] == label]
            if all(is_whole(folder / f"{record.id}.png") for record in own):
                continue
            made = replace(stage, pictures=stage.pictures.with_records(own)).iterate_maps(model)
            known = [_superpixels(record, each.features.cpu().numpy()) for record, each in zip(own, made, strict=True)]
            labels, looks, shares, borders = zip(*known, strict=True)
            for record, parts, chosen in zip(own, labels, cosegment(looks, shares, borders), strict=True):
                write_mask(folder / f"{record.id}.png", np.where(chosen[parts], label + 1, 0).astype(np.uint8))

    return stage.folder("annotate", work, {"model": runs.file_digest(file)}, __name__)


def _superpixels(record: Record, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    parts = superpixels(read_image(record.image), SELECTIVE_SEARCH)
    at_border = np.concatenate([parts.labels[0], parts.labels[-1], parts.labels[:, 0], parts.labels[:, -1]])
    border = np.bincount(at_border, minlength=len(parts.sizes)) > 0
    return parts.labels.astype(np.uint16), described(parts, features), parts.sizes / parts.labels.size, border


@dataclass(frozen=True)
class CoSegmentation:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "Co-segmentation"
    needs: frozenset[Help] = LABELS | {"web"}
    paper: float | None = printed("Co-segmentation")
    trains: frozenset[str] = frozenset({str(CLASSIFIER), "co-segmented web"})

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """What a network that learned from the web says of the training pictures; no CRF."""
        web = of_one_class(replace(stage, pictures=stage.help["web"]), self.title)
        return EarlierNetwork(stage, with_annotations(web.pictures, objects(web))).annotate(stage)

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


CO_SEGMENTATION = CoSegmentation()
