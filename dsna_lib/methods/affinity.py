r"""Learned affinity: which pairs of places belong together, learned where maps are sure, and a random walk along it.

A classifier's maps are sure of few pixels. Of *pairs* of nearby pixels they know more than of classes: two that are
surely of one class belong together, two of different ones do not, in all pictures alike. A network that learns affinity
:math:`a_{ij}` in 0..1 from these pairs can tell pairs elsewhere, and a map walks along it to pixels that belong to what
it found, and not beyond the outline:

.. math:: L = -\frac{1}{2 |P^+_{fg}|} \sum_{P^+_{fg}} \log a_{ij} - \frac{1}{2 |P^+_{bg}|} \sum_{P^+_{bg}} \log a_{ij}
    - \frac{1}{|P^-|} \sum_{P^-} \log (1 - a_{ij}), \qquad
    M' = T^t M, \quad T = D^{-1} A^{\circ \beta}

with :math:`P^+_{fg}, P^+_{bg}` the pairs of one foreground class or of the background, :math:`P^-` those of different
classes, all within a radius; :math:`A^{\circ \beta}` the affinities to the power :math:`\beta`, 1 from a place to
itself and 0 beyond the radius, and D the sums of its rows. :mod:`dsna_lib.methods.affinity_net` and
:mod:`dsna_lib.methods.irn` differ in what affinity is, and in the background.

*Sure* is a pixel that a class wins against much background, or that a little background wins, both after the dense CRF;
all others are void. What the two have in common was decided so:

- *Grid.* The finer of the backbone's last two, places of 8 pixels in most; their features are projected and joined
  there. The radius is 5 of its places.
- *Start.* The backbone of CAM's classifier, whose maps it refines; the schedule is the classifiers'.
- *CRF.* The table's (Eq. 12-13), both on what is sure and, at last, on the annotations; none where the table has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import crf
from dsna_lib.annotate import resize
from dsna_lib.attention import AttentionOutput
from dsna_lib.backbones import Backbone
from dsna_lib.data.pictures import VOID, Record, read_image
from dsna_lib.engine import runs
from dsna_lib.engine.devices import choose_device
from dsna_lib.maps import PictureMaps, positive_part
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.learned import learn
from dsna_lib.segmentation.training import labels_at_cell_centers, with_annotations

RADIUS, STEPS, WIDTH, TINY = 5, 256, 32, 1e-5


@lru_cache(maxsize=8)
def paths(grid: tuple[int, int], radius: int = RADIUS) -> Tensor:
    """The straight way between each two places of a grid that are nearer than a radius: ``(P, radius)``.

    Places are counted row by row; the first and the last of a row are its ends, and some may occur twice.

    Example:
        >>> paths((1, 4), 3).tolist()  # neighbors, and places two apart with the one between
        [[0, 0, 1], [1, 2, 2], [2, 2, 3], [0, 1, 2], [1, 2, 3]]
    """
    (height, width), along = grid, torch.linspace(0, 1, radius)
    found = []
    for down in range(min(radius, height)):
        for right in range(-min(radius, width) + 1, min(radius, width)):
            if (down, right) <= (0, 0) or down**2 + right**2 >= radius**2:
                continue  # each pair once
            rows = torch.arange(height - down)[:, None] + along * down
            columns = torch.arange(max(0, -right), width - max(0, right))[:, None] + along * right
            found.append((rows.round()[:, None] * width + columns.round()).flatten(0, 1).long())
    return torch.cat(found) if found else torch.zeros(0, radius, dtype=torch.long)


def pair_loss(affinity: Tensor, labels: Tensor, ends: Tensor) -> Tensor:
    """L above, of affinities ``(N, P)``; a sum over no pair is 0.

    Args:
        labels: ``(N, n)``: 0 background, 1..C classes, 255 void, of which no pair is known.
        ends: ``(P, 2)``, the two places of each pair.

    Example:
        >>> ends, labels = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[1, 1, 0]])
        >>> pair_loss(torch.tensor([[0.5, 0.5]]), labels, ends)  # log 2 / 2 + log 2
        tensor(1.0397)
    """
    first, second = labels[:, ends].unbind(dim=2)
    known, same = (first != VOID) & (second != VOID), first == second
    alike, different = (affinity.float() + TINY).log(), (1 - affinity.float() + TINY).log()

    def mean(values: Tensor, chosen: Tensor) -> Tensor:
        return values.where(chosen, 0).sum() / chosen.sum().clamp_min(1)

    objects, background = mean(alike, known & same & (first > 0)), mean(alike, known & same & (first == 0))
    return -(objects + background) / 2 - mean(different, known & ~same)


def walk(maps: Tensor, affinity: Tensor, ends: Tensor, power: float, steps: int = STEPS) -> Tensor:
    """M' of maps ``(K, h, w)``, of affinities ``(P,)`` of pairs ``(P, 2)``.

    Example:
        >>> walk(torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([1.0, 0.0]), torch.tensor([[0, 1], [1, 2]]), 1, 1)
        tensor([[[0.5000, 0.5000, 0.0000]]])
    """
    joined = torch.eye(maps[0].numel(), device=maps.device)
    joined[ends[:, 0], ends[:, 1]] = joined[ends[:, 1], ends[:, 0]] = affinity.float() ** power
    transition = joined / joined.sum(dim=1, keepdim=True)
    return (torch.linalg.matrix_power(transition, steps) @ maps.flatten(1).T).T.view_as(maps)


def sure(little: np.ndarray, much: np.ndarray, labels: Sequence[int], refine: Callable[..., np.ndarray]) -> np.ndarray:
    """Where the class is known ``(H, W)`` uint8, 255 elsewhere.

    Args:
        little, much: planes ``(K + 1, H, W)``, the maps of the K classes in `labels` behind little background or much.
        refine: what makes of a hard annotation ``(H, W)`` a better one.

    Example:
        >>> maps = np.array([[[0.9, 0.4, 0.1]]])
        >>> sure(*(np.stack([np.full((1, 3), b), *maps]) for b in (0.2, 0.6)), [4], lambda annotation: annotation)
        array([[  5, 255,   0]], dtype=uint8)
    """
    known = np.array([0, *(label + 1 for label in labels)], np.uint8)
    largest, smallest = (refine(known[planes.argmax(axis=0)]) for planes in (little, much))
    return np.where(smallest > 0, smallest, np.where(largest == 0, 0, VOID)).astype(np.uint8)


class Joined(nn.Module):
    """A backbone whose last two grids are projected and joined on the finer one.

    Args:
        backbone: whose features are joined.
        channels: to give.
    """

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        self.backbone = backbone
        levels = backbone.pyramid(torch.zeros(1, 3, 65, 65, device=backbone.mean.device))[-2:]
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(level.shape[1], WIDTH, 1), nn.GroupNorm(4, WIDTH), nn.ReLU()) for level in levels
        )
        self.last = nn.Conv2d(WIDTH * len(levels), channels, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)`` to ``(N, channels, h, w)``."""
        levels = self.backbone.pyramid(pictures)[-2:]
        parts = [project(level) for project, level in zip(self.projections, levels, strict=True)]
        grid = parts[0].shape[-2:]
        return self.last(torch.cat([functional.interpolate(part, grid, mode="bilinear") for part in parts], dim=1))


@dataclass(frozen=True)
class AffinityMethod:
    """A :class:`~dsna_lib.methods.base.Method` that walks along learned affinity.

    Attributes:
        channels: of what the network gives for each place.
        power: beta.
        learned_backbone: whether the backbone learns, too.
    """

    title: str
    paper: float | None = None
    needs: frozenset[Help] = LABELS
    channels: ClassVar[int]
    power: ClassVar[float]
    learned_backbone: ClassVar[bool] = True

    def __str__(self) -> str:
        return self.title

    @property
    def trains(self) -> frozenset[str]:
        """CAM's classifier, and its own network."""
        return CAM.trains | {self.title}

    def affinity(self, output: Tensor, way: Tensor) -> Tensor:
        """Affinities ``(N, P)`` of the network's output ``(N, channels, h, w)``, given :func:`paths`."""
        raise NotImplementedError

    def backgrounds(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Little and much background ``(H, W)`` beside maps ``(K, H, W)`` in 0..1."""
        raise NotImplementedError

    def walked(self, maps: Tensor, output: Tensor, along: Callable[[Tensor], Tensor]) -> Tensor:
        """Planes ``(K + 1, h, w)``, the background first, of maps ``(K, h, w)``; `along` walks planes to the end."""
        raise NotImplementedError

    def annotate(self, stage: Stage) -> Path:
        """Sure regions, a network of affinity learned from them, and maps that have walked along it."""
        model, file = stage.train(CAM.head)
        known, module = {"model": runs.file_digest(file)}, type(self).__module__
        params, tau, classes = stage.annotation.crf, stage.annotation.tau, stage.pictures.num_classes

        def label_sure(record: Record, picture: PictureMaps) -> np.ndarray:
            maps = resize(picture.maps[CAM.kind][list(record.labels)], picture.size).cpu()
            planes = [torch.cat([each[None], maps]).numpy() for each in self.backgrounds(maps)]

            def refine(annotation: np.ndarray) -> np.ndarray:
                if params == "none":
                    return annotation
                likely = crf.class_probabilities(annotation, record.labels, classes, tau)
                return crf.refine(read_image(record.image), likely, params, device=choose_device(stage.training.device))

            return sure(planes[0], planes[1], record.labels, refine)

        how = known | {"sure": type(self).__name__, "tau": tau, "crf": params}
        seeds = stage.annotate_maps(model, CAM.maker, label_sure, how, "dsna_lib.crf", module)
        torch.manual_seed(stage.training.seed)
        assert isinstance(model.backbone, Backbone)
        network = Joined(deepcopy(model.backbone), self.channels)
        if not self.learned_backbone:
            network.backbone.train_last(0)
        learned = with_annotations(stage.pictures, seeds, skip_missing=True)
        known["affinity"] = learn(stage, network, learned, self._loss, known, module, masks=True)

        def maker(model: nn.Module, pictures: Tensor, present: Tensor) -> tuple[AttentionOutput, dict[str, Tensor]]:
            output, maps = CAM.maker(model, pictures, present)
            return output._replace(features=network(pictures)), maps  # the finer grid, for several scales, too

        def label(record: Record, picture: PictureMaps) -> np.ndarray:
            output = picture.features
            maps = positive_part(resize(picture.maps[CAM.kind][list(record.labels)], output.shape[1:]))
            way = paths((output.shape[1], output.shape[2])).to(output.device)
            affinity, ends = self.affinity(output[None], way)[0], way[:, [0, -1]]
            planes = self.walked(maps, output, lambda each: walk(each, affinity, ends, self.power))
            named = np.array([0, *(c + 1 for c in record.labels)], np.uint8)
            return named[resize(planes, picture.size).argmax(dim=0).cpu().numpy()]

        return stage.refine(stage.annotate_maps(model, maker, label, known, module))

    def _loss(self, output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        grid = (output.shape[2], output.shape[3])
        way = paths(grid).to(output.device)
        labels = labels_at_cell_centers(batch["mask"], grid).flatten(1)
        return pair_loss(self.affinity(output.float(), way), labels, way[:, [0, -1]])

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""
