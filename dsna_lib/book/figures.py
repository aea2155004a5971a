"""Pictures of maps and annotations, in one look for the whole book.

What draws figures is imported where one is drawn: commands that color a mask need not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch

from dsna_lib import annotate
from dsna_lib.data.pictures import VOID, palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORMAP = "inferno"
STRENGTH = 0.6  # share of a heat map, or of a class's color, over the picture
#: Of classes ``(256, 3)``: VOC's, but for the first ten, which are told apart on the animals of the drawn pictures.
COLORS = palette()
COLORS[1:11] = [
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (170, 110, 40),
    (170, 255, 60),
]


def heat(image: np.ndarray, attention_map: np.ndarray) -> np.ndarray:
    """A map ``(h, w)`` in 0..1, resized bilinearly and laid over its picture ``(H, W, 3)`` uint8 as a heat map."""
    colors = matplotlib.colormaps[COLORMAP](resize(attention_map, image.shape[:2]), bytes=True)[..., :3]
    return (np.float32(1 - STRENGTH) * image + np.float32(STRENGTH) * colors).astype(np.uint8)


def resize(attention_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize ``(h, w)`` in 0..1 bilinearly to `size` (height, width)."""
    plane = torch.from_numpy(np.array(attention_map, np.float32))  # a copy: a flipped view has negative strides
    return annotate.resize(plane[None], size)[0].clamp(0, 1).numpy()


def colorize(mask: np.ndarray) -> np.ndarray:
    """A mask in :data:`COLORS`: ``(H, W)`` class indices to ``(H, W, 3)`` uint8."""
    return COLORS[np.asarray(mask)]


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A mask of class indices ``(H, W)`` over its picture ``(H, W, 3)`` uint8.

    Classes are colored, their borders in full color, and void is hatched.
    """
    mask = np.asarray(mask)
    weight = np.where(mask == 0, 0.0, STRENGTH)[..., None]
    painted = colorize(mask)
    painted[mask == VOID] = 255
    down, across = np.indices(mask.shape)
    width = max(2, min(mask.shape) // 80)  # of a line, in pixels
    painted[(mask == VOID) & ((down + across) // width % 4 == 0)] = 0
    labels = np.pad(mask, 1, mode="edge")
    near = [labels[1:-1, :-2], labels[1:-1, 2:], labels[:-2, 1:-1], labels[2:, 1:-1]]
    weight[np.any([other != mask for other in near], axis=0) & (mask > 0) & (mask != VOID)] = 1
    return ((1 - weight) * image + weight * painted).astype(np.uint8)


def as_jpeg(quality: int = 75) -> None:
    """Let a notebook keep its figures as JPEG from here on: pictures in PNG would be five times as large.

    Whoever asked for formats when the notebook was started, as ``dsna figure --format`` does, gets these.
    """
    _keep("jpeg", pil_kwargs={"quality": quality, "optimize": True})


def as_png() -> None:
    """Let a notebook keep its figures as PNG again, see :func:`as_jpeg`."""
    _keep("png")


def _keep(form: str, **how: Any) -> None:
    from matplotlib_inline.backend_inline import set_matplotlib_formats  # of notebooks: elsewhere it need not be there
    from matplotlib_inline.config import InlineBackend

    if "figure_formats" not in InlineBackend.instance().config.InlineBackend:
        set_matplotlib_formats(form, **how)


def legend(figure: Figure, masks: np.ndarray, class_names: Sequence[str]) -> None:
    """Below a figure, the color and the name of each class that is anywhere in `masks`, of any shape.

    Args:
        figure: whose layout makes room for it.
        masks: 0 background, which has no color, 1..C classes, 255 void.
        class_names: of the C classes.
    """
    from matplotlib.patches import Patch

    present = [label for label in np.unique(masks).tolist() if label]
    names = {label: "void" if label == VOID else class_names[label - 1] for label in present}
    patches = [
        Patch(facecolor="white", edgecolor="black", hatch="////", label=name)  # as `overlay` shows it
        if label == VOID
        else Patch(color=tuple(colorize(np.array(label)) / 255), label=name)
        for label, name in names.items()
    ]
    if patches:
        columns = -(-len(patches) // -(-len(patches) // 6))  # at most six, and lines of nearly the same length
        figure.legend(handles=patches, loc="outside lower center", ncols=columns, fontsize=9, frameon=False)


def panel(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str], width: float = 2.0) -> Figure:
    """A grid of pictures with titles.

    Args:
        rows: rows of pictures ``(H, W, 3)`` uint8 or maps ``(H, W)`` in 0..1, the same number in each.
        titles: one a column, or one a picture, row by row; "" for none.
        width: of a column, in inches.
    """
    import matplotlib.pyplot as plt

    columns = len(rows[0])
    titled = len(titles) // columns  # rows that have titles: the first, or all
    heights = [max(image.shape[0] / image.shape[1] for image in row) * width for row in rows]
    size = (width * columns, sum(heights) + 0.3 * titled)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=size, height_ratios=heights, squeeze=False, layout="constrained"
    )
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            axes[r, c].imshow(image, cmap=COLORMAP, vmin=0, vmax=1 if image.ndim == 2 else None)
            if r < titled:
                axes[r, c].set_title(titles[r * columns + c], fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure
