"""Which pictures are drawn how often: pictures show some classes far more often than others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from dsna_lib.data.pictures import Pictures


def drawing_weights(targets: Tensor, balance: float) -> Tensor:
    """How often each picture is drawn, relative to the others, by the rarest of its classes: ``(N,)``, mean 1.

    With f the number of pictures that show a class, a picture weighs the largest f ** -balance of its classes; one
    without any class weighs as little as one of the commonest.

    Args:
        targets: ``(N, C)`` multi-hot.
        balance: 0 for all alike; 1 so that each class is drawn about as often as any other.

    Example:
        >>> drawing_weights(torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1]]), 1.0)
        tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """
    counts = targets.sum(dim=0).clamp_min(1).float()
    weights = (counts**-balance * targets).amax(dim=1).maximum(counts.max() ** -balance)
    return weights / weights.mean()


class BalancedSampler(Sampler[int]):
    """Draws as many pictures as there are, with replacement, by :func:`drawing_weights`.

    What is drawn follows from the seed and the pictures' epoch.
    """

    def __init__(self, pictures: Pictures, balance: float, seed: int) -> None:
        self.pictures, self.seed = pictures, seed
        self.weights = drawing_weights(pictures.targets(), balance)

    def __len__(self) -> int:
        return len(self.pictures)

    def __iter__(self) -> Iterator[int]:
        state = np.random.SeedSequence([self.seed, self.pictures.epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(state[0]))
        yield from torch.multinomial(self.weights, len(self), replacement=True, generator=generator).tolist()
