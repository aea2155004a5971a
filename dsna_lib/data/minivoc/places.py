"""What somebody may tell about places in a drawing: a point, a scribble and a box for each object.

They are simulated: a person would look at the picture, these are read off what was drawn. Chance comes from dice of
their own, so that a picture has the same ones whatever else is drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dsna_lib.data.minivoc.canvas import INK, Dice, Pen, Sheet, stroke
from dsna_lib.data.minivoc.scene import VOID, Drawing

_POINTS, _SCRIBBLES = 11, 12  # the last number of a key of dice
_WIDTH = 3.0  # of a scribble, in pixels
_TRIES = 24  # strokes thrown for a scribble


class Places(NamedTuple):
    """What is told about a drawing."""

    points: list[tuple[int, int, int]]  #: x, y and 0-based class, one for each object
    #: left, top, right, bottom and 0-based class of each object; right and bottom are the first beyond it
    boxes: list[tuple[int, int, int, int, int]]
    scribbles: np.ndarray  #: ``(H, W)`` uint8; 0 background, 1..C classes, 255 where nothing is said


def places_of(drawing: Drawing, seed: int, index: int) -> Places:
    """The point, scribble and box of each object that shows a whole pixel, and a scribble on the background."""
    regions = [(drawing.objects == number + 1, label) for number, label in enumerate(drawing.classes)]
    regions = [(region, label) for region, label in regions if region.any()]
    dice, points, boxes = Dice(seed, index, _POINTS), [], []
    for region, label in regions:
        points.append((*_point(dice, region), label))
        boxes.append((*_box(region), label))
    dice, scribbles = Dice(seed, index, _SCRIBBLES), np.full(drawing.mask.shape, VOID, np.uint8)
    for region, label in [(drawing.objects == 0, -1), *regions]:
        if region.any():
            scribbles[_scribble(dice, region)] = label + 1
    return Places(points, boxes, scribbles)


def depths(region: np.ndarray) -> np.ndarray:
    """How deep each pixel lies in a region ``(H, W)``: 0 outside, as beyond the picture, and 1 at its edge.

    Example:
        >>> depths(np.ones((3, 4), bool)).tolist()
        [[1, 1, 1, 1], [1, 2, 2, 1], [1, 1, 1, 1]]
    """
    depth = np.zeros(region.shape, np.int16)
    while region.any():
        depth += region
        padded = np.pad(region, 1)
        rows = padded[:-2] & padded[1:-1] & padded[2:]
        region = rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
    return depth


def _any_of(dice: Dice, pixels: np.ndarray) -> tuple[int, int]:
    """Any of the pixels of a mask, as x and y."""
    place = np.flatnonzero(pixels)
    row, column = divmod(int(place[dice.whole(len(place))]), pixels.shape[1])
    return column, row


def _point(dice: Dice, region: np.ndarray) -> tuple[int, int]:
    """A pixel well inside: at least half as deep as the deepest."""
    depth = depths(region)
    return _any_of(dice, depth * 2 >= depth.max())


def _box(region: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _scribble(dice: Dice, region: np.ndarray) -> np.ndarray:
    """The longest of some random strokes that stay inside a region; a dot at its deepest where none does.

    Their spots lie anywhere at first, and then ever nearer to one another: long ones rarely fit into a narrow region.
    """
    depth = depths(region)
    row, column = divmod(int(depth.argmax()), depth.shape[1])
    best = np.zeros_like(region)
    best[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    best &= region
    deep = depth * 4 > depth.max()
    for tries_left in range(_TRIES, 0, -1):
        reach = max(region.shape) * tries_left // _TRIES
        x, y = _any_of(dice, deep)
        near = np.zeros_like(region)
        near[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
        spots = [(x, y), *(_any_of(dice, deep & near) for _ in range(2))]
        across = max(range(2), key=lambda axis: np.ptp([spot[axis] for spot in spots]))
        spots.sort(key=lambda spot: spot[across])
        sheet = Sheet(*region.shape)
        Pen(sheet, 1, 0.5, 0.5).fill(stroke(spots, _WIDTH, _WIDTH), INK)  # a pixel's middle lies half a pixel in
        drawn = sheet.canvas > 0
        if drawn.sum() > best.sum() and not (drawn & ~region).any():
            best = drawn
    return best
