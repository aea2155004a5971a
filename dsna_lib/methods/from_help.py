r"""Methods that label each picture from what they are told about it: what points, scribbles and boxes leave open.

ScribbleSup and BoxSup take turns: help and the network's opinion give annotations, the network learns from them, and
so on. A row of the table trains one network, so each of them takes one turn here, and the opinion is that of the
classifier that CAM's, SEC's and AE's rows share: its annotation (Sec. III-C), as probabilities (Eq. 12-13),

.. math:: P_{c,u} = \begin{cases} 1 / |C_I| & \text{where it is void} \\
    \tau & \text{where it says } c \\ (1 - \tau) / (|C_I| - 1) & \text{where it says another class} \end{cases}

with :math:`C_I` the background and the classes of the image label. That classifier has learned from image labels alone,
which all rows are told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from dsna_lib.crf import class_probabilities
from dsna_lib.data.pictures import Record, read_image, read_mask
from dsna_lib.methods.base import LABELS, Help, Stage, identify
from dsna_lib.methods.cam import CAM

# A picture (H, W, 3), what is told about it, and -log P of each class (C + 1, H, W), infinite for those that its label
# does not name, to a mask (H, W): 0 background, 1..C classes, 255 void.
Labeler = Callable[[np.ndarray, Any, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class HelpMethod:
    """A :class:`~dsna_lib.methods.base.Method` that makes annotations of help and of a classifier's opinion.

    Attributes:
        kind: of the help.
        labeler: what makes a picture's annotation.
    """

    title: str
    kind: Help
    labeler: Labeler
    paper: float | None = None
    trains: frozenset[str] = CAM.trains

    def __str__(self) -> str:
        return self.title

    @property
    def needs(self) -> frozenset[Help]:
        """Image labels, and its kind of help."""
        return LABELS | {self.kind}

    def annotate(self, stage: Stage) -> Path:
        """See :class:`~dsna_lib.methods.base.Method`; no CRF: where objects end is each method's own idea."""
        told, tau = cast(Mapping[str, Mapping[str, Any]], stage.help)[self.kind], stage.annotation.tau
        opinion = stage.annotate(CAM.head, CAM.kind, CAM.maker)

        def label(record: Record) -> np.ndarray:
            image = read_image(record.image)
            said = read_mask(opinion / f"{record.id}.png", image.shape[:2])
            probabilities = class_probabilities(said, record.labels, stage.pictures.num_classes, tau)
            with np.errstate(divide="ignore"):
                return self.labeler(image, told[record.id], -np.log(probabilities))

        modules, described = identify(self.labeler)
        identity = {"opinion": stage.content(opinion), "tau": tau, "labeler": described}
        return stage.annotate_each("annotate", label, identity, __name__, *modules)

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""
