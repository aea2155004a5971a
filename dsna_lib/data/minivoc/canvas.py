"""What everything is drawn with: dice, colors, shapes, and pens that fill these on sheets of paint numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

VERSION = 2  # of the drawings: raise it when a pixel changes, so that no old set passes for a new one

Color = tuple[int, int, int]
Points = np.ndarray  # (N, 2) of x, y
INK: Color = (46, 42, 52)
WHITE: Color = (250, 246, 236)


class Dice:
    """Random numbers from the raw PCG64 stream of a key of non-negative integers."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([VERSION, *key]))

    def unit(self) -> float:
        """A float in [0, 1)."""
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def between(self, low: float, high: float) -> float:
        """A float from ``low`` to below ``high``."""
        return low + (high - low) * self.unit()

    def whole(self, count: int) -> int:
        """An integer in 0..count-1."""
        return int(self.unit() * count)

    def pick(self, options: Sequence[Any]) -> Any:
        """Any of the options, all equally likely."""
        return options[self.whole(len(options))]

    def shuffled(self, options: Iterable[Any]) -> list[Any]:
        """The options in random order."""
        return [option for _, option in sorted((self.unit(), option) for option in options)]

    def varied(self, color: Color, reach: int = 14) -> Color:
        """``color`` moved a little, as one channel offset for all plus one for each."""
        common = self.whole(2 * reach + 1) - reach
        red, green, blue = (min(255, max(0, c + common + self.whole(reach + 1) - reach // 2)) for c in color)
        return red, green, blue

    def grain(self, height: int, width: int) -> np.ndarray:
        """Noise ``(height, width)`` int16, roughly bell-shaped around 0, within -24..24."""
        raw = self._bits.random_raw(height * width).reshape(height, width)
        nibbles = [(raw >> np.uint64(shift) & np.uint64(15)).astype(np.int16) for shift in (0, 16, 32, 48)]
        return (nibbles[0] - nibbles[1] + nibbles[2] - nibbles[3]) * 24 // 30


def tone(color: Color, percent: int) -> Color:
    """``color`` darker (below 100) or lighter (above 100, towards white)."""
    if percent <= 100:
        red, green, blue = (channel * percent // 100 for channel in color)
    else:
        red, green, blue = (channel + (255 - channel) * (percent - 100) // 100 for channel in color)
    return red, green, blue


# A full turn in 1024 steps. The table is rounded because libraries differ in a cosine's last bit.
_COS = np.round(np.cos(np.arange(1024) * (2 * np.pi / 1024)) * 2**14) / 2**14
_SIN = np.roll(_COS, 256)


def turned(points: Points, degrees: float) -> Points:
    """``points`` turned clockwise around the origin."""
    step = round(degrees * 1024 / 360) % 1024
    x, y = points[:, 0], points[:, 1]
    return np.stack([x * _COS[step] - y * _SIN[step], x * _SIN[step] + y * _COS[step]], axis=1)


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0) -> Points:
    """An ellipse around (x, y), turned clockwise by ``tilt`` degrees."""
    return turned(np.stack([_COS[::32] * rx, _SIN[::32] * ry], axis=1), tilt) + (x, y)


def frill(x: float, y: float, radius: float, depth: float, lobes: int) -> Points:
    """A circle with ``lobes`` pointed waves, for manes and flowers."""
    angles = np.arange(lobes * 8) * (1024 // (lobes * 8))
    reach = radius + depth * np.abs(_SIN[(angles * lobes // 2) % 1024])
    return np.stack([x + reach * _COS[angles], y + reach * _SIN[angles]], axis=1)


def curve(points: Sequence[tuple[float, float]], closed: bool = True) -> Points:
    """A Catmull-Rom curve through ``points``."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    t = np.arange(8)[None, :, None] / 8
    cubic = (b * 2 + (c - a) * t + (a * 2 - b * 5 + c * 4 - d) * (t * t) + (b * 3 - a - c * 3 + d) * (t * t * t)) / 2
    line = cubic.reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-1:]])


def stroke(points: Sequence[tuple[float, float]], start: float, end: float) -> Points:
    """A brush stroke along a curve, from width ``start`` to width ``end``."""
    spine = curve(points, closed=False)
    along = np.concatenate([spine[1:2] - spine[:1], spine[2:] - spine[:-2], spine[-1:] - spine[-2:-1]])
    length = np.sqrt((along * along).sum(axis=1, keepdims=True))
    across = along[:, ::-1] * (-1, 1) / np.where(length == 0, 1, length)
    half = (start + (end - start) * np.arange(len(spine))[:, None] / (len(spine) - 1)) / 2
    return np.concatenate([spine + across * half, (spine - across * half)[::-1]])


def _inside(points: Points, height: int, width: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """The box of a canvas that a polygon touches, and its pixels there, bool, by the non-zero winding rule.

    Each edge marks, in each row that it crosses, the first pixel centre to its right with +1 or -1; summed along a row
    the marks give the winding number. Integers only, whole sixteenths of a pixel: every machine decides alike.
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


class Sheet:
    """A canvas of paint numbers; paint 0 is no paint."""

    def __init__(self, height: int, width: int) -> None:
        self.canvas = np.zeros((height, width), np.uint8)
        self.paints: list[tuple[Color, bool]] = [((0, 0, 0), False)]

    def paint(self, color: Color, part: bool = False) -> int:
        """The number of a paint, mixed when it is new."""
        if (color, part) not in self.paints:
            self.paints.append((color, part))
        return self.paints.index((color, part))


class Pen:
    """Draws shapes of an animal's own coordinates onto a sheet: scaled, turned, mirrored and moved."""

    def __init__(self, sheet: Sheet, scale: float, x: float, y: float, turn: float = 0, flip: bool = False) -> None:
        self.sheet, self.scale, self.origin, self.turn, self.flip = sheet, scale, (x, y), turn, flip

    def fill(self, shape: Points, color: Color, part: bool = False, on: int | None = None) -> int:
        """Fill ``shape``, where ``on`` is given only over that paint, and return the paint's number."""
        points = turned(shape, self.turn) * (-self.scale if self.flip else self.scale, self.scale) + self.origin
        box, inside = _inside(np.round(points * 16).astype(np.int64), *self.sheet.canvas.shape)
        number = self.sheet.paint(color, part)
        target = self.sheet.canvas[box]
        target[inside if on is None else inside & (target == on)] = number
        return number
