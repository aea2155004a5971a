r"""EM-Adapt: guess where the labels are, learn from the guess, and guess again with what was learned.

The class of each place is a hidden variable, of which the image label says whether it occurs. *E-step*: the likeliest
class of each place u, after classes that are absent are ruled out and each present one got a bias of its own,

.. math:: \hat y_u = \arg\max_{c \in C_I} \big(s_{c,u} + b_c\big)

*M-step*: a step of the cross-entropy of the scores s, without biases, on that guess as if it were the truth. A network
that knows nothing yet would give all places to one class. So the biases adapt to each picture: they are the smallest
with which the background wins at least a share :math:`\rho_{bg}` of the places, and each present class at least
:math:`\rho_{fg}`. One class after the other gets what it lacks,

.. math:: b_c \leftarrow b_c + d_{(\rho n)}, \qquad d_u = \max_{c'} \big(s_{c',u} + b_{c'}\big) - s_{c,u} - b_c

with :math:`d_{(k)}` the value of rank k, from 0 on, among the n places. As this takes places from the classes before,
several rounds go over all of them, the background first and the others in random order.

Source: Papandreou, Chen, Murphy and Yuille, "Weakly- and Semi-Supervised Learning of a Deep Convolutional Network for
Semantic Image Segmentation", ICCV 2015, and the layer *AdaptiveBiasChannel* of the authors' code, which finds the
biases as above. Shares of 0.4 and 0.2 are theirs. Decided here:

- *Rounds.* Five; their number is an argument of the authors' layer.
- *Absent classes.* Never the answer, as there with ``suppress_others``.
- *Network.* That of all rows, where they have DeepLab-LargeFOV; nothing is annotated beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.table_iv import printed


@torch.no_grad()
def estimate(
    scores: Tensor, labels: Tensor, background_share: float = 0.4, share: float = 0.2, rounds: int = 5
) -> Tensor:
    """The E-step: the class of each place ``(N, h, w)``, of scores ``(N, C + 1, h, w)`` and labels ``(N, C)``.

    Raises:
        ValueError: labels of another shape, or a share outside 0..1.

    Example:
        >>> scores = torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0], [0.0, 0.0, 0.0, 0.0, 1.0]]).view(1, 2, 1, 5)
        >>> estimate(scores, torch.tensor([[1.0]])).tolist()  # the background would win everywhere
        [[[0, 0, 0, 0, 1]]]
    """
    n, classes = scores.shape[:2]
    if labels.shape != (n, classes - 1):
        raise ValueError(f"labels {tuple(labels.shape)} must be (N, C) = {(n, classes - 1)}, as the scores say")
    if not (0 <= background_share <= 1 and 0 <= share <= 1):
        raise ValueError(f"shares {background_share:g} and {share:g} must lie in 0..1")
    guesses = []
    for own, present in zip(scores.float().flatten(2), labels > 0.5, strict=True):
        named = [0, *(present.nonzero().flatten() + 1).tolist()]
        biased = own[named].clone()  # (K, places): the background, and the classes present
        for _ in range(rounds):
            for row in [0, *(1 + torch.randperm(len(named) - 1)).tolist()]:
                lacking = biased.amax(dim=0) - biased[row]
                rank = int((background_share if row == 0 else share) * len(lacking))
                biased[row] += lacking.sort().values[min(rank, len(lacking) - 1)]
        guesses.append(torch.tensor(named, device=own.device)[biased.argmax(dim=0)])
    return torch.stack(guesses).view(n, *scores.shape[2:])


@dataclass(frozen=True)
class EMAdaptLoss:
    """The M-step's loss on the E-step's guess; see :class:`dsna_lib.segmentation.training.Loss`.

    Attributes:
        background_share, share, rounds: of :func:`estimate`.

    Example:
        >>> EMAdaptLoss()(torch.zeros(1, 3, 2, 2), {"labels": torch.tensor([[1.0, 0.0]])})  # log 3
        tensor(1.0986)
    """

    background_share: float = 0.4
    share: float = 0.2
    rounds: int = 5
    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C + 1, h, w)`` and labels ``(N, C)`` to a scalar."""
        guess = estimate(logits, batch["labels"], self.background_share, self.share, self.rounds)
        return functional.cross_entropy(logits.float(), guess)


@dataclass(frozen=True)
class EMAdapt:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "EM-Adapt"
    needs: frozenset[Help] = LABELS
    paper: float | None = printed("EM-Adapt")
    trains: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> None:
        """Nothing is annotated."""

    def loss(self, stage: Stage) -> EMAdaptLoss:
        """The network learns from its own guesses."""
        return EMAdaptLoss()


EM_ADAPT = EMAdapt()
