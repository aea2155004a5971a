"""The embedded data set: drawn animals in the PASCAL VOC layout, the same on every machine for a seed.

**What it is for.** Weakly supervised segmentation asks two things of an attention map: does it *find the part* that
tells the class, and does it *cover the whole object*? No real data set has a ground truth for both. Here each animal
has a large body, drawn alike for all classes of its family (coats, patterns and poses come from one shared pool), and
one small part, about a tenth of its area, that alone tells the class:

=========  ==========================================================================
family     classes and their telling parts
=========  ==========================================================================
mammals    rabbit (ears), deer (antlers), lion (mane), elephant (trunk and ear)
birds      rooster (comb, wattle), toucan (beak), owl (face with tufts)
fish       shark (back fin and teeth), swordfish (sword), anglerfish (lantern)
=========  ==========================================================================

So every picture comes with a class mask and a *part* mask. One to three animals of one or several classes overlap on a
cluttered background that says nothing about the class; sizes are about log-uniform from 1 % to 60 % of the picture.

**What it is not.** A stage set, built so that the paper's question shows. Numbers measured on it say how a method
behaves under known conditions; verdicts on the paper come from real pictures.

**How a picture is made.** A picture is a canvas, four times finer than the result, of *paint numbers*; each paint knows
its color, its animal and whether it belongs to a telling part. One lookup in one canvas thus yields the picture and
both masks. Animals are polygons in their own coordinates (x to the nose, y down, the body about one unit in radius).

**Why it is the same everywhere.** Chance comes from the raw stream of PCG64, which NumPy guarantees; the distributions
on top of it may change between releases, so they are not used. Coordinates are rounded to integers before any pixel is
decided, polygons are filled in integer arithmetic here and not by a drawing library, and files are lossless.

Example:
    >>> picture = draw(0, index=0, size=224)
    >>> picture.image.shape == picture.mask.shape + (3,) == picture.part.shape + (3,)
    True
    >>> all(0 <= label < len(CLASS_NAMES) for label in picture.labels)
    True
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from dsna_lib.data.pictures import Pictures

VERSION = 1  # of the drawings: raise it when a pixel changes, so that no old set passes for a new one
VOID = 255
FAMILIES: dict[str, tuple[str, ...]] = {
    "mammals": ("rabbit", "deer", "lion", "elephant"),
    "birds": ("rooster", "toucan", "owl"),
    "fish": ("shark", "swordfish", "anglerfish"),
}
CLASS_NAMES: tuple[str, ...] = tuple(name for names in FAMILIES.values() for name in names)
SPLITS = ("train", "val")

_FINE = 4  # canvas pixels along each side of a picture pixel
_VAL_START = 1_000_000  # validation pictures are numbered from here, whatever the size of the training split
_SMALLEST = 48  # side of a picture
_FEWEST = 150  # pixels of an animal; felt only in pictures below 224, where 1 % would be a blot

Color = tuple[int, int, int]
Points = np.ndarray  # (N, 2) of x, y

# One pool of coats for each family: a body narrows the class down to its family and no further.
_COATS: dict[str, tuple[Color, ...]] = {
    "mammals": ((205, 142, 86), (178, 98, 66), (146, 132, 124), (228, 200, 160), (122, 90, 76), (104, 116, 136)),
    "birds": ((52, 122, 124), (214, 160, 62), (184, 84, 66), (122, 82, 122), (80, 106, 150), (226, 206, 172)),
    "fish": ((72, 120, 164), (222, 122, 98), (74, 146, 132), (126, 138, 152), (216, 178, 116), (130, 112, 164)),
}
# Backgrounds, from far to near, and two accents.
_SCENES: tuple[tuple[Color, ...], ...] = (
    ((222, 228, 200), (188, 206, 162), (150, 178, 134), (114, 148, 116), (238, 214, 150), (226, 168, 140)),
    ((236, 214, 202), (212, 178, 178), (168, 142, 164), (122, 116, 148), (244, 196, 150), (214, 128, 120)),
    ((206, 228, 226), (160, 202, 204), (116, 170, 180), (86, 136, 154), (238, 222, 180), (222, 150, 130)),
    ((244, 228, 198), (230, 202, 158), (210, 172, 128), (180, 142, 110), (156, 168, 126), (206, 120, 92)),
    ((230, 236, 240), (204, 216, 224), (170, 190, 204), (134, 160, 180), (232, 206, 190), (150, 150, 184)),
    ((178, 192, 164), (128, 154, 126), (92, 124, 102), (66, 96, 88), (218, 190, 116), (186, 114, 88)),
    ((108, 118, 152), (84, 94, 130), (64, 72, 108), (50, 56, 90), (226, 206, 150), (150, 124, 164)),
)
_INK: Color = (46, 42, 52)
_WHITE: Color = (250, 246, 236)


class Drawing(NamedTuple):
    """One drawn picture.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        mask: ``(H, W)`` uint8; 0 background, 1..C classes, 255 where a pixel mixes an animal with its surroundings.
        part: ``(H, W)`` uint8; the class index where most of a pixel is a telling part, else 0.
        labels: sorted 0-based classes, without background, that ``mask`` shows.
    """

    image: np.ndarray
    mask: np.ndarray
    part: np.ndarray
    labels: tuple[int, ...]


# --- chance, colors and shapes ----------------------------------------------------------------------------------------


class _Dice:
    """Random numbers from the raw PCG64 stream of a key of non-negative integers."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([VERSION, *key]))

    def unit(self) -> float:
        """A float in [0, 1)."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def whole(self, count: int) -> int:
        """An integer in 0..count-1."""
        return int(self.unit() * count)

    def chance(self, probability: float) -> bool:
        return self.unit() < probability

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.whole(len(options))]

    def shuffled(self, options: Iterable[Any]) -> list[Any]:
        return [option for _, option in sorted((self.unit(), option) for option in options)]

    def grain(self, height: int, width: int) -> np.ndarray:
        """Noise ``(height, width)`` int16, roughly bell-shaped around 0, within -24..24."""
        raw = self._bits.random_raw(height * width).reshape(height, width)
        nibbles = [(raw >> np.uint64(shift) & np.uint64(15)).astype(np.int16) for shift in (0, 16, 32, 48)]
        return (nibbles[0] - nibbles[1] + nibbles[2] - nibbles[3]) * 24 // 30


def _tone(color: Color, percent: int) -> Color:
    """``color`` darker (below 100) or lighter (above 100, towards white)."""
    if percent <= 100:
        return tuple(channel * percent // 100 for channel in color)
    return tuple(channel + (255 - channel) * (percent - 100) // 100 for channel in color)


def _varied(dice: _Dice, color: Color, reach: int = 14) -> Color:
    """``color`` moved a little, as one channel offset for all plus one for each."""
    common = dice.whole(2 * reach + 1) - reach
    return tuple(min(255, max(0, channel + common + dice.whole(reach + 1) - reach // 2)) for channel in color)


# A full turn in 1024 steps. The table is rounded because libraries differ in a cosine's last bit.
_COS = np.round(np.cos(np.arange(1024) * (2 * np.pi / 1024)) * 2**14) / 2**14
_SIN = np.roll(_COS, 256)


def _turned(points: Points, degrees: float) -> Points:
    step = round(degrees * 1024 / 360) % 1024
    x, y = points[:, 0], points[:, 1]
    return np.stack([x * _COS[step] - y * _SIN[step], x * _SIN[step] + y * _COS[step]], axis=1)


def _oval(x: float, y: float, rx: float, ry: float, tilt: float = 0) -> Points:
    """An ellipse around (x, y), turned clockwise by ``tilt`` degrees."""
    circle = np.stack([_COS[::32] * rx, _SIN[::32] * ry], axis=1)
    center = (x, y)
    return _turned(circle, tilt) + center


def _frill(x: float, y: float, radius: float, depth: float, lobes: int) -> Points:
    """A circle with ``lobes`` pointed waves, for manes and flowers."""
    angles = np.arange(lobes * 8) * (1024 // (lobes * 8))
    reach = radius + depth * np.abs(_SIN[(angles * lobes // 2) % 1024])
    return np.stack([x + reach * _COS[angles], y + reach * _SIN[angles]], axis=1)


def _curve(points: Sequence[tuple[float, float]], closed: bool = True) -> Points:
    """A Catmull-Rom curve through ``points``."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    t = np.arange(8)[None, :, None] / 8
    cubic = (b * 2 + (c - a) * t + (a * 2 - b * 5 + c * 4 - d) * (t * t) + (b * 3 - a - c * 3 + d) * (t * t * t)) / 2
    line = cubic.reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-1:]])


def _stroke(points: Sequence[tuple[float, float]], start: float, end: float) -> Points:
    """A brush stroke along a curve, from width ``start`` to width ``end``."""
    spine = _curve(points, closed=False)
    along = np.concatenate([spine[1:2] - spine[:1], spine[2:] - spine[:-2], spine[-1:] - spine[-2:-1]])
    length = np.sqrt((along * along).sum(axis=1, keepdims=True))
    across = along[:, ::-1] * (-1, 1) / np.where(length == 0, 1, length)
    half = (start + (end - start) * np.arange(len(spine))[:, None] / (len(spine) - 1)) / 2
    return np.concatenate([spine + across * half, (spine - across * half)[::-1]])


# --- canvas -----------------------------------------------------------------------------------------------------------


def _inside(points: Points, height: int, width: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """Fill a polygon given in whole sixteenths of a canvas pixel, by the non-zero winding rule.

    Each edge marks, in each row that it crosses, the first pixel centre to its right with +1 or -1; summed along a row
    the marks give the winding number. Integers only, so every machine decides every pixel alike.

    Returns:
        The box ``(rows, columns)`` of the canvas that the polygon touches, and a bool mask of that box.
    """
    x, y = points[:, 0], points[:, 1]
    left, right = (min(max(int(v), 0), width) for v in (x.min() // 16, x.max() // 16 + 1))
    top, bottom = (min(max(int(v), 0), height) for v in (y.min() // 16, y.max() // 16 + 1))
    rows = np.arange(top, bottom) * 16 + 8
    run, rise = np.diff(x, append=x[:1]), np.diff(y, append=y[:1])
    above = y[:, None] <= rows
    edge, row = np.nonzero(above != np.concatenate([above[1:], above[:1]]))
    numerator = (x[edge] - 8) * rise[edge] + run[edge] * (rows[row] - y[edge])
    column = np.minimum(np.maximum(-(-numerator // (16 * rise[edge])), left), right) - left
    marks = np.zeros((bottom - top, right - left + 1), np.int8)
    np.add.at(marks, (row, column), np.sign(rise[edge]).astype(np.int8))
    return (slice(top, bottom), slice(left, right)), marks.cumsum(axis=1, dtype=np.int8, out=marks)[:, :-1] != 0


class _Sheet:
    """A canvas of paint numbers; paint 0 is no paint."""

    def __init__(self, height: int, width: int) -> None:
        self.canvas = np.zeros((height, width), np.uint8)
        self.paints: list[tuple[Color, bool]] = [((0, 0, 0), False)]

    def paint(self, color: Color, part: bool = False) -> int:
        """The number of a paint, mixed when it is new."""
        if (color, part) not in self.paints:
            self.paints.append((color, part))
        return self.paints.index((color, part))


class _Pen:
    """Draws shapes of an animal's own coordinates onto a sheet: scaled, turned, mirrored and moved."""

    def __init__(self, sheet: _Sheet, scale: float, x: float, y: float, turn: float = 0, flip: bool = False) -> None:
        self.sheet, self.scale, self.origin, self.turn, self.flip = sheet, scale, (x, y), turn, flip

    def fill(self, shape: Points, color: Color, part: bool = False, on: int | None = None) -> int:
        """Fill ``shape``, where ``on`` is given only over that paint, and return the paint's number."""
        points = _turned(shape, self.turn) * (-self.scale if self.flip else self.scale, self.scale) + self.origin
        box, inside = _inside(np.round(points * 16).astype(np.int64), *self.sheet.canvas.shape)
        number = self.sheet.paint(color, part)
        target = self.sheet.canvas[box]
        target[inside if on is None else inside & (target == on)] = number
        return number


# --- animals ----------------------------------------------------------------------------------------------------------


def _eye(pen: _Pen, x: float, y: float, radius: float) -> None:
    pen.fill(_oval(x, y, radius, radius * 1.15), _INK)
    pen.fill(_oval(x + radius * 0.3, y - radius * 0.4, radius * 0.38, radius * 0.38), _WHITE)


def _pattern(pen: _Pen, dice: _Dice, coat: Color, body: int) -> None:
    """Texture on a body, from a pool that all classes share."""
    dark, light = _tone(coat, 86), _tone(coat, 118)
    kind = dice.pick(("fur", "spots", "stripes", "scales"))
    if kind == "stripes":
        for x in np.arange(-5, 6) * 0.18 + dice.between(-0.06, 0.06):
            pen.fill(_stroke([(x, -1), (x + 0.1, -0.3), (x - 0.04, 0.25)], 0.09, 0.02), dark, on=body)
    elif kind == "scales":
        for row in range(7):
            for x in np.arange(-6, 6) * 0.2 + row % 2 * 0.1:
                y = -0.66 + row * 0.17
                pen.fill(_stroke([(x - 0.08, y), (x, y + 0.07), (x + 0.08, y)], 0.03, 0.03), dark, on=body)
    else:
        for _ in range(34):
            x, y = dice.between(-0.95, 0.95), dice.between(-0.7, 0.5)
            if kind == "spots":
                radius = dice.between(0.03, 0.1)
                pen.fill(_oval(x, y, radius, radius * 0.85), light if radius < 0.055 else dark, on=body)
            else:
                pen.fill(_stroke([(x, y), (x - 0.08, y + 0.05), (x - 0.13, y + 0.12)], 0.045, 0.005), dark, on=body)


def _mammal(pen: _Pen, dice: _Dice, name: str) -> None:
    coat = _varied(dice, dice.pick(_COATS["mammals"]))
    dark, light = _tone(coat, 82), _tone(coat, 135)
    stretch, legs = dice.between(0.92, 1.08), dice.between(0.84, 1.0)

    pen.fill(_stroke([(-0.85, -0.1), (-1.08, 0.02), (-1.12, dice.between(-0.2, 0.3))], 0.14, 0.07), dark)
    for x in (-0.42, 0.62):
        pen.fill(_stroke([(x, 0.2), (x + 0.02, 0.55), (x, legs - 0.04)], 0.28, 0.22), _tone(coat, 70))
    outline = [(-0.92, 0.0), (-0.76, -0.44), (-0.2, -0.56), (0.4, -0.56), (0.84, -0.3), (0.86, 0.14), (0.5, 0.5)]
    shape = _curve([*outline, (-0.1, 0.56), (-0.66, 0.46)]) * (stretch, 1)
    body = pen.fill(shape, coat)
    _pattern(pen, dice, coat, body)
    for x in (-0.66, 0.38):
        pen.fill(_stroke([(x, 0.1), (x + 0.02, 0.55), (x, legs)], 0.32, 0.24), coat)
        pen.fill(_stroke([(x - 0.13, legs - 0.06), (x, legs - 0.05), (x + 0.15, legs - 0.06)], 0.12, 0.12), dark)
    pen.fill(_oval(-0.1 * stretch, 0.62, 0.62, 0.2), light, on=body)

    head = (0.74, -0.52)
    _MAMMAL_PARTS[name](pen, dice, coat, head, behind=True)
    if name != "rabbit":
        for x, tilt in ((head[0] - 0.3, -38), (head[0] + 0.1, 12)):
            pen.fill(_oval(x, head[1] - 0.36, 0.11, 0.16, tilt), dark)
    pen.fill(_oval(*head, 0.43, 0.4), coat)
    if name != "elephant":
        pen.fill(_oval(head[0] + 0.28, head[1] + 0.14, 0.24, 0.19), light)
        pen.fill(_oval(head[0] + 0.45, head[1] + 0.06, 0.075, 0.06), _INK)
    pen.fill(_oval(head[0] - 0.02, head[1] + 0.16, 0.08, 0.06), _tone((222, 120, 110), 112))
    _eye(pen, head[0] + 0.1, head[1] - 0.08, 0.065)
    _MAMMAL_PARTS[name](pen, dice, coat, head, behind=False)


def _ears(pen: _Pen, dice: _Dice, coat: Color, head: tuple[float, float], behind: bool) -> None:
    root = (head[0] - 0.18 if behind else head[0] + 0.06, head[1] - 0.3)
    lean = dice.between(-24, -10) if behind else dice.between(4, 16)
    pen.fill(_turned(_oval(0, -0.36, 0.145, 0.46), lean) + root, _tone(coat, 88 if behind else 108), part=True)
    pen.fill(_turned(_oval(0, -0.38, 0.075, 0.34), lean) + root, (232, 158, 150), part=True)


def _antlers(pen: _Pen, dice: _Dice, coat: Color, head: tuple[float, float], behind: bool) -> None:
    bone = (120, 88, 64) if behind else (150, 112, 78)
    side = -1 if behind else 1
    root = (head[0] - 0.12, head[1] - 0.3) if behind else (head[0] + 0.1, head[1] - 0.33)
    spread = dice.between(0.26, 0.4)
    for line, width in (
        ([(0, 0.06), (side * spread, -0.36), (side * (spread - 0.08), -0.86)], 0.14),
        ([(side * spread * 0.7, -0.2), (side * (spread + 0.2), -0.36), (side * (spread + 0.26), -0.62)], 0.11),
        ([(side * spread, -0.42), (side * (spread - 0.2), -0.56), (side * (spread - 0.24), -0.78)], 0.11),
    ):
        pen.fill(_stroke(line, width, 0.05) + root, bone, part=True)


def _mane(pen: _Pen, dice: _Dice, coat: Color, head: tuple[float, float], behind: bool) -> None:
    if behind:
        color = dice.pick(((134, 74, 44), (160, 92, 40), (104, 62, 52)))
        pen.fill(_frill(*head, 0.5, 0.1, 16), color, part=True)
        pen.fill(_frill(*head, 0.44, 0.06, 16), _tone(color, 118), part=True)


def _trunk(pen: _Pen, dice: _Dice, coat: Color, head: tuple[float, float], behind: bool) -> None:
    if behind:
        return
    x, y = head
    tip = dice.between(-0.12, 0.3)
    line = [(x + 0.28, y + 0.08), (x + 0.58, y + 0.28), (x + 0.6, y + 0.66), (x + 0.84, y + 0.72 - tip)]
    pen.fill(_stroke(line, 0.28, 0.12), _tone(coat, 94), part=True)
    for k in range(4):
        y_fold = y + 0.3 + k * 0.1
        fold = [(x + 0.46, y_fold), (x + 0.58, y_fold + 0.04), (x + 0.68, y_fold)]
        pen.fill(_stroke(fold, 0.025, 0.025), _tone(coat, 74), part=True)
    pen.fill(_oval(x - 0.29, y - 0.02, 0.22, 0.3, 8), _tone(coat, 78), part=True)
    pen.fill(_oval(x - 0.27, y, 0.145, 0.215, 8), (226, 150, 140), part=True)


_MAMMAL_PARTS = {"rabbit": _ears, "deer": _antlers, "lion": _mane, "elephant": _trunk}


def _bird(pen: _Pen, dice: _Dice, name: str) -> None:
    coat = _varied(dice, dice.pick(_COATS["birds"]))
    dark, light = _tone(coat, 76), _tone(coat, 145)

    for k, lift in enumerate((0.1, 0.28, 0.46)):
        tip = (-1.08 + 0.06 * k, lift + dice.between(-0.08, 0.08))
        pen.fill(_stroke([(-0.3, 0.3), (-0.74, lift + 0.1), tip], 0.3, 0.12), (dark, _tone(coat, 88), dark)[k])
    for x in (-0.12, 0.2):
        pen.fill(_stroke([(x, 0.7), (x + 0.02, 0.9), (x, 1.04)], 0.07, 0.07), (214, 142, 70))
        pen.fill(_stroke([(x - 0.12, 1.05), (x, 1.02), (x + 0.2, 1.05)], 0.07, 0.05), (214, 142, 70))
    outline = [(-0.72, 0.2), (-0.56, -0.3), (-0.14, -0.7), (0.3, -0.8), (0.62, -0.36), (0.7, 0.16), (0.42, 0.7)]
    body = pen.fill(_curve([*outline, (-0.1, 0.84), (-0.54, 0.62)]), coat)
    _pattern(pen, dice, coat, body)
    pen.fill(_oval(0.46, 0.3, 0.42, 0.56, 14), light, on=body)
    wing = pen.fill(_curve([(-0.5, -0.1), (-0.1, -0.3), (0.22, 0.02), (0.06, 0.4), (-0.4, 0.58), (-0.78, 0.6)]), dark)
    for k in range(3):
        y = 0.02 + 0.16 * k
        pen.fill(_stroke([(0.1, y), (-0.2, y + 0.16), (-0.62, y + 0.28)], 0.03, 0.05), _tone(coat, 60), on=wing)

    head = (0.24, -0.72)
    if name == "rooster":
        _comb(pen, dice, head)
    pen.fill(_oval(*head, 0.46, 0.44), coat)
    if name == "owl":
        _owl_face(pen, dice, coat, head)
        return
    pen.fill(_oval(head[0] + 0.02, head[1] + 0.14, 0.09, 0.06), _tone((226, 130, 112), 110))
    if name == "toucan":
        _great_beak(pen, dice, head)
    else:
        beak = [(head[0] + 0.36, head[1] - 0.1), (head[0] + 0.72, head[1] + 0.06), (head[0] + 0.36, head[1] + 0.14)]
        pen.fill(np.array(beak), (230, 168, 74))
        wattle = _curve([(0.36, 0.1), (0.5, 0.22), (0.46, 0.46), (0.34, 0.4), (0.3, 0.2)]) + head
        pen.fill(wattle, (204, 62, 56), part=True)
    _eye(pen, head[0] + 0.16, head[1] - 0.08, 0.07)


def _comb(pen: _Pen, dice: _Dice, head: tuple[float, float]) -> None:
    red = (204, 62, 56)
    for k, (x, y, radius) in enumerate(((-0.28, -0.36, 0.15), (-0.06, -0.5, 0.19), (0.2, -0.46, 0.17))):
        lift = dice.between(0, 0.06)
        pen.fill(_oval(head[0] + x, head[1] + y - lift, radius, radius * 1.3, -24 + 22 * k), red, part=True)


def _great_beak(pen: _Pen, dice: _Dice, head: tuple[float, float]) -> None:
    orange = dice.pick(((238, 160, 58), (232, 130, 66), (240, 190, 80)))
    length = dice.between(0.94, 1.1)
    upper = [(0.28, -0.24), (0.62, -0.3), (length - 0.04, -0.1), (length + 0.04, 0.26), (length - 0.2, 0.12)]
    beak = pen.fill(_curve([*upper, (0.6, 0.2), (0.3, 0.18)]) + head, orange, part=True)
    pen.fill(_oval(head[0] + length, head[1] + 0.14, 0.18, 0.3, -20), _INK, part=True, on=beak)
    pen.fill(_stroke([(0.3, 0.06), (0.6, 0.04), (length, 0.14)], 0.03, 0.03) + head, _tone(orange, 70), True, beak)


def _owl_face(pen: _Pen, dice: _Dice, coat: Color, head: tuple[float, float]) -> None:
    x, y = head
    for side in (-1, 1):
        tuft = [(x + side * 0.16, y - 0.36), (x + side * 0.44, y - 0.62), (x + side * 0.42, y - 0.2)]
        pen.fill(np.array(tuft), _tone(coat, 70), part=True)
    for side in (-1, 1):
        pen.fill(_oval(x + side * 0.18, y + 0.02, 0.2, 0.21), _tone(coat, 160), part=True)
    iris = dice.pick(((240, 178, 60), (232, 140, 56), (246, 204, 96)))
    for side in (-1, 1):
        pen.fill(_oval(x + side * 0.17, y + 0.01, 0.13, 0.135), iris, part=True)
        pen.fill(_oval(x + side * 0.16, y + 0.01, 0.078, 0.082), _INK, part=True)
        pen.fill(_oval(x + side * 0.16 + 0.03, y - 0.03, 0.028, 0.028), _WHITE, part=True)
    pen.fill(np.array([(x - 0.07, y + 0.08), (x + 0.07, y + 0.08), (x, y + 0.28)]), (226, 150, 66), part=True)


def _fish(pen: _Pen, dice: _Dice, name: str) -> None:
    coat = _varied(dice, dice.pick(_COATS["fish"]))
    dark, light = _tone(coat, 78), _tone(coat, 145)
    depth = dice.between(0.9, 1.08)

    sweep = dice.between(-0.08, 0.08)
    tail = [(-0.62, 0), (-0.98, -0.34 + sweep), (-1.26, -0.5), (-1.08, 0), (-1.26, 0.46), (-0.98, 0.3 + sweep)]
    fin = pen.fill(_curve(tail), dark)
    for y in (-0.28, -0.1, 0.08, 0.26):
        pen.fill(_stroke([(-0.8, y * 0.3), (-1, y), (-1.26, y * 1.3)], 0.03, 0.02), _tone(coat, 62), on=fin)
    if name == "shark":
        _back_fin(pen, dice, coat)
    else:
        pen.fill(_curve([(-0.42, -0.4), (-0.26, -0.62), (0.08, -0.66), (0.3, -0.5), (0, -0.34)]), dark)
    pen.fill(_curve([(-0.3, 0.36), (-0.4, 0.68), (-0.06, 0.62), (0.1, 0.46)]), dark)
    if name == "swordfish":
        _sword(pen, dice)
    outline = [(-0.78, -0.08), (-0.4, -0.36), (0.1, -0.54), (0.6, -0.46), (0.94, -0.16), (1.0, 0.06), (0.84, 0.3)]
    body = pen.fill(_curve([*outline, (0.3, 0.52), (-0.3, 0.38), (-0.78, 0.08)]) * (1, depth), coat)
    _pattern(pen, dice, coat, body)
    pen.fill(_oval(0.3, 0.6 * depth, 0.95, 0.34), light, on=body)
    pen.fill(_stroke([(0.42, -0.3), (0.34, -0.02), (0.42, 0.24)], 0.04, 0.03), dark)
    pen.fill(_curve([(0.26, 0.08), (0.0, 0.12), (-0.22, 0.4), (0.06, 0.36)]), dark)
    if name == "shark":
        _teeth(pen)
    else:
        pen.fill(_stroke([(0.98, 0.14), (0.84, 0.22), (0.7, 0.2)], 0.04, 0.02), _tone(coat, 50))
    _eye(pen, 0.66, -0.14, 0.08)
    if name == "anglerfish":
        _lantern(pen, dice)


def _back_fin(pen: _Pen, dice: _Dice, coat: Color) -> None:
    height, lean = dice.between(0.98, 1.14), dice.between(-0.42, -0.3)
    fin = [(0.3, -0.42), (0.16, -0.7), (lean + 0.1, -height), (lean, -height + 0.04), (-0.3, -0.66), (-0.34, -0.3)]
    pen.fill(_curve([*fin, (0, -0.3)]), _tone(coat, 64), part=True)
    gleam = _stroke([(0.2, -0.5), (0.04, -0.74), (lean + 0.12, -height + 0.1)], 0.06, 0.02)
    pen.fill(gleam, _tone(coat, 84), part=True)


def _teeth(pen: _Pen) -> None:
    jaw = [(0.97, 0.1), (0.8, 0.14), (0.58, 0.16), (0.66, 0.3), (0.84, 0.32)]
    pen.fill(_curve(jaw), (122, 50, 58), part=True)
    for x in (0.64, 0.74, 0.84):
        pen.fill(np.array([(x - 0.05, 0.13), (x + 0.05, 0.12), (x, 0.24)]), _WHITE, part=True)


def _sword(pen: _Pen, dice: _Dice) -> None:
    reach = dice.between(1.82, 2.0)
    pen.fill(np.array([(0.8, -0.2), (reach, -0.02), (0.8, 0.3)]), (92, 96, 112), part=True)
    pen.fill(np.array([(0.8, -0.2), (reach, -0.02), (0.8, 0.02)]), (150, 156, 170), part=True)


def _lantern(pen: _Pen, dice: _Dice) -> None:
    x, y = dice.between(1.06, 1.2), dice.between(-0.66, -0.5)
    pen.fill(_stroke([(0.4, -0.44), (0.62, -0.98), (x - 0.06, -0.96), (x, y)], 0.11, 0.06), (96, 74, 92), part=True)
    for radius, color in ((0.21, (240, 186, 72)), (0.15, (250, 218, 120)), (0.08, (255, 246, 206))):
        pen.fill(_oval(x, y, radius, radius), color, part=True)


_FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}
_BODIES = {"mammals": (_mammal, 14), "birds": (_bird, 12), "fish": (_fish, 26)}  # and how far each may lean, in degrees


def _drawn(name: str, scale: float, *key: int) -> _Sheet:
    """An animal on a sheet of its own, ``scale`` canvas pixels to its unit."""
    draw_body, lean = _BODIES[_FAMILY_OF[name]]
    dice = _Dice(*key)
    sheet = _Sheet(int(scale * 5), int(scale * 5))
    draw_body(_Pen(sheet, scale, scale * 2.5, scale * 2.5, dice.between(-lean, lean), dice.chance(0.5)), dice, name)
    return sheet


@cache
def _coverage(name: str) -> float:
    """The area of an animal in square units, measured on one drawing."""
    return np.count_nonzero(_drawn(name, 32.0, 0).canvas) / 32**2


def _animal(name: str, area: int, *key: int) -> _Sheet:
    """An animal that covers about ``area`` canvas pixels, on a sheet trimmed to it."""
    sheet = _drawn(name, round(math.sqrt(area / _coverage(name)) * 64) / 64, *key)
    rows, columns = (np.flatnonzero(sheet.canvas.any(axis=axis)) for axis in (1, 0))
    sheet.canvas = sheet.canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return sheet


# --- background -------------------------------------------------------------------------------------------------------


def _leaf(pen: _Pen, dice: _Dice, color: Color) -> None:
    leaf = pen.fill(_curve([(0, 1), (-0.42, 0.2), (-0.3, -0.5), (0, -1), (0.3, -0.5), (0.42, 0.2)]), color)
    pen.fill(np.array([(0, 1), (0.6, 0.4), (0.6, -1), (0, -1)]), _tone(color, 90), on=leaf)


def _pebble(pen: _Pen, dice: _Dice, color: Color) -> None:
    stone = pen.fill(_curve([(-0.9, 0.2), (-0.5, -0.5), (0.3, -0.6), (0.95, 0), (0.5, 0.55), (-0.4, 0.6)]), color)
    pen.fill(_oval(0.1, 0.75, 0.9, 0.5), _tone(color, 88), on=stone)


def _grass(pen: _Pen, dice: _Dice, color: Color) -> None:
    for k, x in enumerate((-0.5, -0.2, 0.1, 0.4)):
        bend = dice.between(-0.5, 0.5)
        blade = _stroke([(x, 0.9), (x + bend * 0.3, 0), (x + bend, dice.between(-1.2, -0.5))], 0.22, 0.02)
        pen.fill(blade, _tone(color, 90 + 10 * (k % 2)))


def _flower(pen: _Pen, dice: _Dice, color: Color) -> None:
    pen.fill(_frill(0, 0, 0.4, 0.4, 8), color)
    pen.fill(_oval(0, 0, 0.28, 0.28), _tone(color, 150))


def _ring(pen: _Pen, dice: _Dice, color: Color) -> None:
    pen.fill(_oval(0, 0, 0.7, 0.7), color)
    pen.fill(_oval(0.04, 0.04, 0.5, 0.5), _tone(color, 116))


def _cloud(pen: _Pen, dice: _Dice, color: Color) -> None:
    for x, y, radius in ((-0.7, 0.1, 0.42), (0, -0.14, 0.6), (0.66, 0.1, 0.46)):
        pen.fill(_oval(x, y, radius * 1.2, radius * 0.8), _tone(color, 114))


_MOTIFS = (_leaf, _pebble, _grass, _flower, _ring, _cloud)


def _background(dice: _Dice, height: int, width: int) -> _Sheet:
    """Rolling bands and a clutter of leaves, stones, grass and such; it knows nothing of the animals."""
    sheet = _Sheet(height, width)
    colors = [_varied(dice, color, 8) for color in dice.pick(_SCENES)]
    sheet.canvas[:] = sheet.paint(colors[0])
    unit = max(height, width) / 2
    for color, level in zip(colors[1:4], (0.3, 0.55, 0.78), strict=True):
        crest = [(x, level * height + dice.between(-0.12, 0.12) * height) for x in np.arange(-1, 6) * width / 4]
        line = _curve(crest, closed=False)
        band = np.concatenate([line, [(width * 1.5, height * 2), (-width, height * 2)]])
        _Pen(sheet, 1, 0, 0).fill(band, color)
    kinds = dice.shuffled(range(len(_MOTIFS)))[:3]
    tones = [_tone(color, percent) for color in colors for percent in (90, 106)]
    for k in range(40 + dice.whole(31)):
        size = unit * dice.between(0.05, 0.2) * (1.6 if k < 6 else 1)  # a few large ones first, at the back
        pen = _Pen(sheet, size, dice.unit() * width, dice.unit() * height, dice.between(-40, 40), dice.chance(0.5))
        _MOTIFS[dice.pick(kinds)](pen, dice, dice.pick(tones))
    return sheet


# --- pictures ---------------------------------------------------------------------------------------------------------


class _Scene:
    """A background and the animals put on it, on one canvas of paint numbers with the light that falls on it."""

    def __init__(self, background: _Sheet) -> None:
        self.canvas = background.canvas
        height, width = self.canvas.shape
        self.light = np.repeat((255 - 24 * np.arange(height) // height).astype(np.uint8)[:, None], width, axis=1)
        self.paints = background.paints
        self.owner = [0] * len(self.paints)  # the animal of each paint, counted from 1
        self.classes = [0]  # the class index of each animal; the background is animal 0
        self._whole: list[np.ndarray] = []  # what each animal would show if nothing hid it

    def _shown(self, canvas: np.ndarray, owner: Sequence[int], paints: Sequence[tuple[Color, bool]]) -> np.ndarray:
        """Pixels of each animal and of its part on ``canvas``, ``(animals, 2)``; counted on a quarter of them."""
        counts = np.bincount(canvas[::2, ::2].ravel(), minlength=len(paints))
        part_counts = counts * [part for _, part in paints]
        return np.stack([np.bincount(owner, weights=c).astype(np.int64)[1:] for c in (counts, part_counts)], axis=1)

    def put(self, animal: _Sheet, class_index: int, top: int, left: int) -> bool:
        """Put an animal in front, unless too little of it, or of one behind it, would show.

        "Enough" is two thirds of the telling part and two fifths of the animal; a label that no part proves would
        teach nothing. Returns whether the animal was put.
        """
        (height, width), (tall, long) = self.canvas.shape, animal.canvas.shape
        rows, columns = slice(max(top, 0), min(top + tall, height)), slice(max(left, 0), min(left + long, width))
        cut = animal.canvas[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        canvas = self.canvas.copy()
        canvas[rows, columns] = np.where(cut > 0, cut + np.uint8(len(self.paints)), canvas[rows, columns])
        paints = self.paints + animal.paints
        owner = self.owner + [len(self.classes)] * len(animal.paints)
        itself = [int(number > 0) for number in range(len(animal.paints))]
        whole = [*self._whole, self._shown(animal.canvas, itself, animal.paints)[0]]
        if (self._shown(canvas, owner, paints) * (5, 3) < np.array(whole) * (2, 2)).any():
            return False
        self._shine(cut > 0, rows, columns)
        self.canvas, self.paints, self.owner, self._whole = canvas, paints, owner, whole
        self.classes.append(class_index)
        return True

    def _shine(self, shape: np.ndarray, rows: slice, columns: slice) -> None:
        """Light from above on an animal, and its paper-cut shadow on what lies behind."""
        for down, right in ((2 * _FINE, _FINE), (_FINE, _FINE // 2)):
            target = self.light[rows.start + down : rows.stop + down, columns.start + right : columns.stop + right]
            shadow = shape[: target.shape[0], : target.shape[1]]
            target[shadow] = target[shadow].astype(np.uint16) * 216 // 256
        fall = (255 - 44 * np.arange(shape.shape[0]) // shape.shape[0]).astype(np.uint8)[:, None]
        self.light[rows, columns] = np.where(shape, fall, self.light[rows, columns])

    def render(self, dice: _Dice) -> Drawing:
        """Average the fine canvas down to pixels, and read both masks off it."""
        colors = np.array([color for color, _ in self.paints], np.uint16)
        owner = np.asarray(self.owner, np.uint8)
        part_class = np.asarray(self.classes, np.uint8)[owner] * np.array([part for _, part in self.paints], np.uint8)
        tiles = [(slice(i, None, _FINE), slice(j, None, _FINE)) for i in range(_FINE) for j in range(_FINE)]
        height, width = (side // _FINE for side in self.canvas.shape)
        total = np.zeros((height, width, 3), np.uint32)
        first, last = np.full((height, width), 255, np.uint8), np.zeros((height, width), np.uint8)
        part, part_count = np.zeros_like(last), np.zeros_like(last)
        for tile in tiles:
            paint = self.canvas[tile]
            total += np.take(colors, paint, axis=0) * self.light[tile][..., None].astype(np.uint16)
            np.minimum(first, np.take(owner, paint), out=first)
            np.maximum(last, np.take(owner, paint), out=last)
            shown = np.take(part_class, paint)
            np.maximum(part, shown, out=part)
            part_count += shown > 0
        # 255 * 255 * 16 is white in full light; the grain of the paper is two noises, one of them in 4 x 4 blocks
        coarse = dice.grain(height // 4 + 1, width // 4 + 1).repeat(4, 0).repeat(4, 1)[:height, :width]
        grain = 256 + dice.grain(height, width) // 2 + coarse // 4
        image = np.clip((total // (255 * _FINE**2)).astype(np.int32) * grain[..., None] // 256, 0, 255).astype(np.uint8)
        mask = np.where(first == last, np.asarray(self.classes, np.uint8)[last], VOID).astype(np.uint8)
        labels = tuple(int(c) - 1 for c in np.unique(mask) if 0 < c < VOID)
        return Drawing(image, mask, np.where(part_count * 2 >= _FINE**2, part, 0).astype(np.uint8), labels)


def _cast(dice: _Dice, seed: int, index: int) -> list[str]:
    """The classes of a picture's animals: the first from a shuffled deck, so that classes come out even."""
    deck = _Dice(seed, index // len(CLASS_NAMES)).shuffled(CLASS_NAMES)
    cast = [deck[index % len(CLASS_NAMES)]]
    for _ in range(dice.pick((0, 0, 0, 0, 1, 1, 1, 1, 2, 2))):
        relatives = FAMILIES[_FAMILY_OF[cast[0]]]
        cast.append(dice.pick((cast[0], dice.pick(relatives), dice.pick(CLASS_NAMES), dice.pick(CLASS_NAMES))))
    return cast


def draw(seed: int, index: int, size: int = 224) -> Drawing:
    """Draw one picture; a pure function of its arguments.

    Args:
        seed: the data set's seed, 0 or more.
        index: the picture's number, 0 or more.
        size: the longer side in pixels, 48 or more; a picture is square or 4:3, lying or standing.

    Returns:
        The picture, its two masks and its labels.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> draw(0, index=3, size=64).labels == draw(0, index=3, size=64).labels
        True
    """
    if seed < 0 or index < 0 or size < _SMALLEST:
        raise ValueError(f"seed and index must be 0 or more and size {_SMALLEST} or more, not {seed}, {index}, {size}")
    dice = _Dice(seed, index, 1)
    short = size * 3 // 4
    height, width = (side * _FINE for side in dice.pick(((size, size), (short, size), (size, short))))
    scene = _Scene(_background(dice, height, width))
    cast = _cast(dice, seed, index)
    # shares of the picture, log-uniform, in whole ten-thousandths; the largest animal goes to the back
    shares = sorted((round(100 * 70.0 ** dice.unit()) for _ in cast), reverse=True)
    for number, (name, share) in enumerate(zip(cast, shares, strict=True)):
        area = max(height * width * share // 10000, _FEWEST * _FINE**2)
        for attempt in range(16):
            if attempt % 4 == 0:  # at first, and whenever four places were refused: then smaller
                animal = _animal(name, area * 6 ** (attempt // 4) // 10 ** (attempt // 4), seed, index, 2 + number)
            top = _position(dice.unit(), animal.canvas.shape[0], height)
            left = _position(dice.unit(), animal.canvas.shape[1], width)
            if scene.put(animal, CLASS_NAMES.index(name) + 1, top, left):
                break
    return scene.render(dice)


def _position(spot: float, length: int, side: int) -> int:
    """Where an animal of ``length`` begins on a ``side``: inside the picture but for a tenth of it at most."""
    low, high = sorted((-length // 10, side - length + length // 10))
    return low + int(spot * (high - low + 1))


# --- on disk ----------------------------------------------------------------------------------------------------------


def make(root: Path | str, seed: int = 0, train: int = 400, val: int = 100, size: int = 224, workers: int = 1) -> Path:
    """Write the data set in the VOC layout, whole or not at all.

    Beside VOC's ``JPEGImages`` (PNG files here), ``SegmentationClass`` and ``ImageSets/Segmentation`` there are
    ``SegmentationPart``, ``image_labels.json``, ``class_names.json`` and ``minivoc.json`` with the parameters.
    Validation pictures do not depend on ``train``, nor training pictures on ``val``.

    Args:
        root: the folder to make.
        seed: the drawings' seed.
        train: number of training pictures.
        val: number of validation pictures.
        size: the pictures' longer side in pixels.
        workers: processes that draw; the pictures do not depend on it. Above 1, each starts a fresh Python, so a
            script that calls this needs the usual ``if __name__ == "__main__":``.

    Returns:
        ``root``; at once where the same data set already lies there.

    Raises:
        ValueError: ``root`` holds a data set with other parameters, an incomplete one, or something else.

    Example:
        >>> make("minivoc", train=40, val=10, size=96)  # doctest: +SKIP
        PosixPath('minivoc')
    """
    root = Path(root)
    wanted = {"version": VERSION, "seed": seed, "train": train, "val": val, "size": size}
    if _holds(root, wanted):
        return root
    ids = {f"{split}_{k:05d}": start + k for split, start, k in _numbered(train, val)}
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as temporary:
        folder = Path(temporary) / "set"
        for name in ("JPEGImages", "SegmentationClass", "SegmentationPart", "ImageSets/Segmentation"):
            (folder / name).mkdir(parents=True)
        jobs = (repeat(folder), repeat(seed), repeat(size), ids, ids.values())
        if workers > 1:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                labels = list(pool.map(_write, *jobs, chunksize=8))
        else:
            labels = list(map(_write, *jobs))
        for split in SPLITS:
            listed = "".join(f"{i}\n" for i in ids if i.startswith(split))
            (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text(listed)
        tables = {"image_labels": dict(zip(ids, labels, strict=True)), "class_names": CLASS_NAMES, "minivoc": wanted}
        for name, table in tables.items():
            (folder / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")
        try:
            os.replace(folder, root)
        except OSError:  # another process was faster, or something has come to lie there
            if not _holds(root, wanted):
                raise
    return root


def _numbered(train: int, val: int) -> Iterable[tuple[str, int, int]]:
    yield from (("train", 0, k) for k in range(train))
    yield from (("val", _VAL_START, k) for k in range(val))


def _write(folder: Path, seed: int, size: int, name: str, index: int) -> list[str]:
    """Draw one picture into ``folder`` and return its class names."""
    from dsna_lib.data.pictures import write_mask

    drawing = draw(seed, index, size)
    Image.fromarray(drawing.image).save(folder / "JPEGImages" / f"{name}.png", compress_level=3)
    write_mask(folder / "SegmentationClass" / f"{name}.png", drawing.mask)
    write_mask(folder / "SegmentationPart" / f"{name}.png", drawing.part)
    return [CLASS_NAMES[label] for label in drawing.labels]


def _holds(root: Path, wanted: dict[str, int]) -> bool:
    """Whether ``root`` holds the data set ``wanted``; False where nothing lies there.

    Raises:
        ValueError: something else lies there.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    card = root / "minivoc.json"
    if not card.is_file():
        raise ValueError(f"{root} exists and is no embedded data set; choose another folder")
    found = json.loads(card.read_text())
    if found != wanted:
        raise ValueError(f"{root} holds the data set {found}, not {wanted}; delete it or choose another folder")
    for name in ("JPEGImages", "SegmentationClass", "SegmentationPart"):
        if sum(1 for _ in root.glob(f"{name}/*.png")) != wanted["train"] + wanted["val"]:
            raise ValueError(f"{root / name} lacks pictures; delete {root}, and it is drawn again")
    return True


def cache_folder() -> Path:
    """Where data sets made on first use are kept: the environment variable ``DSNA_CACHE``, else the user's cache."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("DSNA_CACHE") or user_cache_dir("dsna-book"))


def load(split: str, root: Path | str | None = None, **options: int) -> Pictures:
    """Load a split of the data set, which is drawn on first use.

    Args:
        split: ``"train"`` or ``"val"``.
        root: its folder; by default one in :func:`cache_folder` for each choice of options. A data set that lies in
            ``root`` is taken as it is unless options are given.
        options: ``seed``, ``train``, ``val``, ``size`` and ``workers`` of :func:`make`.

    Returns:
        The pictures, with class masks and part masks.

    Raises:
        ValueError: unknown split, or ``root`` holds something else.

    Example:
        >>> load("val").num_classes  # doctest: +SKIP
        10
    """
    from dsna_lib.data import voc

    if split not in SPLITS:
        raise ValueError(f"the embedded data set has no split {split!r}; choose one of {', '.join(SPLITS)}")
    own = root is None
    if own:
        chosen = {"seed": 0, "train": 400, "val": 100, "size": 224} | options
        tag = "-".join(f"{key}{chosen[key]}" for key in ("seed", "train", "val", "size"))
        root = cache_folder() / f"minivoc-v{VERSION}-{tag}"
    if options or not (Path(root) / "minivoc.json").is_file():
        make(root, **options)
    pictures = voc.load(root, split)
    pictures.keep = own  # they are small and few
    return pictures
