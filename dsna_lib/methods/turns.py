r"""The turns before a row's own: segmentation networks that annotate what the next one learns from.

Methods that are told about other pictures often learn from those first, and from the training pictures later. A row of
the table trains one network, so what comes before it are annotations here: of the recipe's usual segmentation network,
trained on the masks of an earlier turn by the same schedule, and asked about pictures whose image labels are known,

.. math:: y_u = \arg\max_{c \in C_I} P_{c,u}

with P its mean over the recipe's scales, and :math:`C_I` the background and the classes of the image label.

A schedule says how many times a network sees its pictures, and is made for a number of them: it takes as many steps
here, be they more or fewer.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from dsna_lib.config.training import TrainingConfig
from dsna_lib.data.pictures import Pictures, Record, read_image
from dsna_lib.engine import runs
from dsna_lib.engine.devices import choose_device
from dsna_lib.methods.base import MethodError, Stage
from dsna_lib.segmentation.inference import probabilities
from dsna_lib.segmentation.networks import SegmentationModel
from dsna_lib.segmentation.training import train_once

T = TypeVar("T", bound=TrainingConfig)
_HINT = "add a table [networks.NAME]"


class EarlierNetwork:
    """A segmentation network of an earlier turn, trained or as it was.

    Args:
        stage: of the row.
        pictures: what it learns from, with masks; those without one are left out. They may have classes of their own.

    Attributes:
        identity: of its answers: its file, and how it is run.

    Raises:
        MethodError: the recipe has no segmentation network.
    """

    def __init__(self, stage: Stage, pictures: Pictures) -> None:
        if stage.network is None:
            raise MethodError("a turn before the last needs a segmentation network, and the recipe has none", _HINT)
        network, pictures = stage.network, with_masks(pictures)
        config = replace(network.model, class_names=pictures.class_names)
        if network.start == "attention":  # as the row's own
            config = replace(config, weights=str(stage.train()[1]))
        schedule = in_as_many_steps(replace(network.training, seed=stage.training.seed), stage.pictures, pictures)
        model, run = train_once(config, pictures, schedule)
        self.model: SegmentationModel = model.to(choose_device(network.training.device))
        how = network.inference
        self._how: dict[str, Any] = {"scales": how.scales, "flip": how.flip, "precision": how.precision}
        self.identity = {"network": runs.file_digest(run.folder / "model.pth"), **self._how}

    def likely(self, image: np.ndarray) -> np.ndarray:
        """How likely each class is at each pixel ``(C + 1, H, W)`` of a picture ``(H, W, 3)`` uint8."""
        shown = torch.from_numpy(image).permute(2, 0, 1)[None]
        return probabilities(self.model, shown, **self._how)[0].cpu().numpy()

    def annotate(self, stage: Stage) -> Path:
        """A folder with ``ID.png`` for each of the stage's pictures: the likeliest class of those present."""

        def label(record: Record) -> np.ndarray:
            return likeliest(self.likely(read_image(record.image)), record.labels)

        return stage.annotate_each("annotate", label, self.identity, __name__)


def in_as_many_steps(config: T, usual: Sized, pictures: Sized) -> T:
    """A schedule of the usual pictures, with as many epochs as make as many steps of other ones.

    Example:
        >>> in_as_many_steps(TrainingConfig(epochs=4, drop_after=3), range(1000), range(200)).epochs
        20
    """
    factor = len(usual) / len(pictures)
    epochs, drop_after = (round(factor * each) for each in (config.epochs, config.drop_after))
    return replace(config, epochs=max(1, epochs), drop_after=drop_after)


def likeliest(likely: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """The likeliest of the background and the classes present at each pixel ``(H, W)`` uint8.

    Args:
        likely: ``(C + 1, H, W)``.
        labels: 0-based indices of the classes present.

    Example:
        >>> likeliest(np.array([[[0.3, 0.2]], [[0.6, 0.5]], [[0.1, 0.3]]]), [1]).tolist()
        [[0, 2]]
    """
    present = np.array([0, *(label + 1 for label in sorted(labels))], np.uint8)
    return present[likely[present].argmax(axis=0)]


def combined(likely: np.ndarray, labels: Sequence[int], threshold: float = 0.5) -> np.ndarray:
    """The likeliest class of each pixel, or background where none is above a threshold: ``(H, W)`` uint8.

    Args:
        likely: ``(K, H, W)``, how likely each pixel shows each of the K classes in `labels`, which are 0-based.

    Example:
        >>> combined(np.array([[[0.6, 0.4, 0.7]], [[0.2, 0.3, 0.9]]]), [4, 7]).tolist()
        [[5, 0, 8]]
    """
    best = np.array(labels, np.uint8)[likely.argmax(axis=0)] + 1
    return np.where(likely.max(axis=0) > threshold, best, 0).astype(np.uint8)


def with_masks(pictures: Pictures) -> Pictures:
    """Those of the pictures that have a mask."""
    return pictures.with_records([record for record in pictures.records if record.mask])


def of_one_class(stage: Stage, title: str) -> Stage:
    """The stage of those of its pictures that show one class alone.

    Raises:
        MethodError: there is none; the message has the method's title.
    """
    found = [record for record in stage.pictures.records if len(record.labels) == 1]
    if not found:
        raise MethodError(f"{title} starts from pictures of one class, and none of the {len(stage.pictures)} is one")
    return replace(stage, pictures=stage.pictures.with_records(found))
