"""Joint picture-and-mask transforms on torchvision's v2 API: of (image) or (image, mask).

Pictures are resampled bilinearly with antialiasing and become floats in 0..1, masks only ever nearest: the v2
transforms see the tv_tensors types and do so by themselves. Padding of a mask is 255 (void): it is never learned from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from dsna_lib.data.pictures import VOID

FILL = {tv_tensors.Image: 0, tv_tensors.Mask: VOID}


class RandomRescale(torch.nn.Module):
    """Resize so that the shorter side is `crop` times a random factor.

    Args:
        crop: the size that will be cropped later, in pixels.
        scales: the factor is drawn uniformly from this range.
    """

    def __init__(self, crop: int, scales: tuple[float, float]) -> None:
        super().__init__()
        self.crop, self.scales = crop, scales

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Resize all inputs by one random factor."""
        low, high = self.scales
        factor = low + (high - low) * torch.rand(()).item()
        height, width = inputs[0].shape[-2:]
        # The longer side stays below 16 crops: a strip of 1 x 20,000 pixels would not fit in memory.
        ratio = min(self.crop * factor / min(height, width), 16 * self.crop / max(height, width))
        size = [max(1, round(height * ratio)), max(1, round(width * ratio))]
        return [functional.resize(x, size, antialias=True) for x in inputs]


def _composed(*steps: torch.nn.Module, jitter: float = 0.0) -> v2.Compose:
    if jitter:
        steps = *steps, v2.ColorJitter(brightness=jitter, contrast=jitter, saturation=jitter, hue=jitter / 4)
    to_float = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
    return v2.Compose([v2.ToImage(), *steps, to_float])  # a plain tensor is a picture, too


def train(crop: int = 224, scales: tuple[float, float] = (1.0, 1.5), jitter: float = 0.0) -> v2.Compose:
    """Random rescale, random crop, random flip, random colors.

    Args:
        crop: side of the square crop in pixels.
        scales: range of the shorter side, in multiples of `crop`; below 1 the picture is padded.
        jitter: how much brightness, contrast and saturation may change, as a share; the hue by a quarter of it.
    """
    cut = v2.RandomCrop(crop, pad_if_needed=True, fill=FILL)
    return _composed(RandomRescale(crop, scales), cut, v2.RandomHorizontalFlip(), jitter=jitter)


def resized(crop: int = 224, shares: tuple[float, float] = (0.3, 1.0), jitter: float = 0.0) -> v2.Compose:
    """Random-resized crop, random flip, random colors: a box of random share and shape, squeezed into a square.

    Args:
        crop: side of the square in pixels.
        shares: range of the box's share of the picture, in 0..1; its sides are as 3:4 to 4:3.
        jitter: see :func:`train`.
    """
    cut = v2.RandomResizedCrop([crop, crop], scale=shares, antialias=True)
    return _composed(cut, v2.RandomHorizontalFlip(), jitter=jitter)


def whole(size: int, jitter: float = 0.0) -> v2.Compose:
    """The whole picture squeezed into a square of `size` pixels, a random flip, random colors: see :func:`train`."""
    return _composed(v2.Resize([size, size], antialias=True), v2.RandomHorizontalFlip(), jitter=jitter)


def inference(size: int | Sequence[int] = 224) -> v2.Compose:
    """Resize the whole picture to a side or (height, width) in pixels.

    A square distorts it, as networks trained at 224 expect.
    """
    return _composed(v2.Resize([size, size] if isinstance(size, int) else list(size), antialias=True))
