"""Pictures of maps and annotations, in one look for the whole book."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn.functional import interpolate

from dsna_lib.data.pictures import VOID, palette

COLORMAP = "inferno"


def heat(image: np.ndarray, attention_map: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """A map laid over its picture as a heat map.

    Args:
        image: ``(H, W, 3)`` uint8.
        attention_map: ``(h, w)`` in 0..1; resized bilinearly to the picture.
        strength: share of the heat map, in 0..1.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    colors = matplotlib.colormaps[COLORMAP](resize(attention_map, image.shape[:2]), bytes=True)[..., :3]
    return np.uint8(np.float32(1 - strength) * image + np.float32(strength) * colors)


def resize(attention_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize ``(h, w)`` in 0..1 bilinearly to `size` (height, width)."""
    grid = torch.as_tensor(np.asarray(attention_map), dtype=torch.float32)[None, None]
    return interpolate(grid, size=tuple(size), mode="bilinear", align_corners=False)[0, 0].clamp(0, 1).numpy()


def colorize(mask: np.ndarray) -> np.ndarray:
    """A mask in VOC's colors: ``(H, W)`` class indices to ``(H, W, 3)`` uint8."""
    return palette()[np.asarray(mask)]


def overlay(image: np.ndarray, mask: np.ndarray, strength: float = 0.6) -> np.ndarray:
    """A mask over its picture: classes colored, background as it is, void washed out.

    Args:
        image: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` class indices, 255 void.
        strength: share of the color, in 0..1.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    mask = np.asarray(mask)
    weight = np.where(mask == 0, 0.0, strength)[..., None]
    weight[mask == VOID] = 0.75
    return np.uint8((1 - weight) * image + weight * colorize(mask))


def panel(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], width: float = 2.0) -> Figure:
    """A grid of pictures with column titles.

    Args:
        rows: rows of pictures ``(H, W, 3)`` uint8 or maps ``(H, W)`` in 0..1.
        titles: one a column.
        width: of a column, in inches.

    Returns:
        The figure; the caller shows or saves it, and describes it.
    """
    heights = [max(image.shape[0] / image.shape[1] for image in row) * width for row in rows]
    figure, axes = plt.subplots(
        len(rows),
        len(titles),
        figsize=(width * len(titles), sum(heights) + 0.3),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            axes[r, c].imshow(image, cmap=COLORMAP, vmin=0, vmax=1 if image.ndim == 2 else None)
            if r == 0:
                axes[r, c].set_title(titles[c], fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure
