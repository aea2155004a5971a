r"""MIL-FCN: multiple instance learning, straight from image labels to a segmentation network.

A picture is a bag of places, and its label says of a class that *some* place shows it. So each class that is present,
the background always among them, is asked for at the one place where the network believes in it most:

.. math:: L = -\frac{1}{|C_I|} \sum_{c \in C_I} \log f_{c,u_c}, \qquad u_c = \arg\max_u f_{c,u}

with :math:`f_{c,u}` the softmax over classes at place u of the coarse score map, and :math:`C_I` the classes present.
Nothing is annotated; absent classes are pushed down by the softmax alone.

Source: Pathak, Shelhamer, Long and Darrell, "Fully Convolutional Multi-Class Multiple Instance Learning", ICLR
Workshop 2015. Their network is an FCN on VGG-16; here it is that of all rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from dsna_lib.methods.base import LABELS, Help, Stage


@dataclass(frozen=True)
class MILLoss:
    """The multinomial loss on each present class's maximum; see :class:`dsna_lib.segmentation.training.Loss`.

    Example:
        >>> batch = {"labels": torch.tensor([[1.0, 0.0]])}
        >>> MILLoss()(torch.zeros(1, 3, 2, 2), batch)  # log 3
        tensor(1.0986)
    """

    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C + 1, h, w)`` and labels ``(N, C)`` to a scalar."""
        best = functional.log_softmax(logits.float(), dim=1).amax(dim=(2, 3))  # (N, C + 1)
        background = torch.ones_like(best[:, :1])  # always there
        present = torch.cat([background, batch["labels"].to(best)], dim=1)
        return -((present * best).sum(dim=1) / present.sum(dim=1)).mean()


@dataclass(frozen=True)
class MILFCN:
    """See :class:`dsna_lib.methods.base.Method`; 25.7 is what Table IV quotes."""

    title: str = "MIL-FCN"
    needs: frozenset[Help] = LABELS
    paper: float | None = 25.7
    trains: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> None:
        """Nothing is annotated."""

    def loss(self, stage: Stage) -> MILLoss:
        """The network learns from image labels alone."""
        return MILLoss()


MIL_FCN = MILFCN()
