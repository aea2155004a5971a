"""Other animals, of no class of the data set: what may be told about them says nothing about its classes."""

from __future__ import annotations

from functools import partial

import numpy as np

from dsna_lib.data.minivoc.animals import Look, draw_animal, draw_eye
from dsna_lib.data.minivoc.canvas import INK, Color, Dice, Pen, curve, frill, oval, stroke, tone

OTHER_NAMES = ("turtle", "snail", "crab", "butterfly", "caterpillar", "hedgehog")

_COATS: tuple[Color, ...] = (
    (118, 150, 84), (196, 116, 72), (206, 158, 92), (142, 106, 150), (92, 128, 156), (150, 124, 98), (212, 132, 138),
)  # fmt: skip


def _turtle(pen: Pen, dice: Dice, coat: Color) -> None:
    skin = tone(coat, 140)
    for x in (-0.66, 0.5):
        pen.fill(stroke([(x, 0.2), (x + 0.08, 0.5), (x + 0.04, dice.between(0.58, 0.7))], 0.34, 0.28), tone(skin, 84))
    pen.fill(np.array([(-0.8, 0.2), (-1.2, 0.34), (-0.8, 0.4)]), skin)
    pen.fill(stroke([(0.7, 0.2), (0.98, 0.0), (1.08, -0.2)], 0.3, 0.26), skin)
    pen.fill(oval(1.14, -0.26, 0.3, 0.24, 8), skin)
    shell = pen.fill(curve([(-1, 0.34), (-0.8, -0.22), (-0.2, -0.62), (0.4, -0.5), (0.86, 0.0), (0.92, 0.34)]), coat)
    for x in (-0.6, -0.06, 0.48):
        pen.fill(frill(x, -0.1 - 0.14 * (x < 0.4), 0.2, 0.03, 6), tone(coat, 70), on=shell)
    pen.fill(stroke([(-1.04, 0.34), (0, 0.44), (0.96, 0.34)], 0.14, 0.14), tone(coat, 122))
    draw_eye(pen, 1.22, -0.32, 0.06)


def _snail(pen: Pen, dice: Dice, coat: Color) -> None:
    skin = tone(coat, 148)
    pen.fill(
        curve([(-1.2, 0.62), (-0.4, 0.36), (0.5, 0.3), (0.8, -0.12), (1.1, -0.1), (1.06, 0.42), (0.6, 0.62)]), skin
    )
    for x, reach in ((0.86, -0.62), (1.04, -0.56)):
        pen.fill(stroke([(x, -0.06), (x + 0.04, -0.34), (x + dice.between(0, 0.14), reach)], 0.08, 0.06), skin)
        pen.fill(oval(x + 0.08, reach, 0.07, 0.07), INK)
    x, y = -0.26, -0.18
    pen.fill(oval(x, y, 0.78, 0.7), coat)
    for k, radius in enumerate((0.58, 0.42, 0.26, 0.12)):
        shade = tone(coat, 72) if k % 2 == 0 else tone(coat, 118)
        pen.fill(oval(x + 0.05 * (k + 1), y + 0.05 * (k + 1), radius, radius * 0.9), shade)


def _crab(pen: Pen, dice: Dice, coat: Color) -> None:
    dark = tone(coat, 76)
    for side in (-1, 1):
        for x, fall in ((0.5, 0.44), (0.62, 0.3), (0.7, 0.12)):
            leg = [(side * x, 0.2), (side * (x + 0.4), fall - 0.1), (side * (x + 0.56), fall + dice.between(0.26, 0.4))]
            pen.fill(stroke(leg, 0.11, 0.06), dark)
        lift = dice.between(-0.16, 0.08)
        pen.fill(stroke([(side * 0.6, 0), (side * 1.04, -0.14), (side * 1.1, -0.5 + lift)], 0.16, 0.14), dark)
        pen.fill(oval(side * 1.08, -0.66 + lift, 0.3, 0.24, side * 30), coat)
        gap = np.array([(side * 1.02, -0.62), (side * 1.28, -0.96), (side * 0.94, -0.98)]) + (0, lift)
        pen.fill(gap, dark)
        pen.fill(stroke([(side * 0.2, -0.2), (side * 0.22, -0.4), (side * 0.24, -0.5)], 0.08, 0.08), dark)
        draw_eye(pen, side * 0.24, -0.54, 0.1)
    shell = pen.fill(
        curve([(-0.84, -0.06), (-0.4, -0.34), (0.4, -0.34), (0.84, -0.06), (0.5, 0.44), (-0.5, 0.44)]), coat
    )
    for x in (-0.4, 0, 0.4):
        pen.fill(oval(x, 0.0, 0.12, 0.09), tone(coat, 130), on=shell)


def _butterfly(pen: Pen, dice: Dice, coat: Color) -> None:
    spread, accent = dice.between(0.86, 1.08), dice.pick(((238, 196, 96), (226, 110, 92), (232, 224, 206)))
    for side in (-1, 1):
        for tilt, x, y, long, wide in ((-38, 0.56, -0.44, 0.7, 0.42), (40, 0.44, 0.42, 0.5, 0.34)):
            wing = pen.fill(oval(side * x * spread, y, long * spread, wide, side * tilt), tone(coat, 72))
            pen.fill(oval(side * x * spread, y, long * 0.82 * spread, wide * 0.78, side * tilt), coat, on=wing)
            pen.fill(oval(side * (x + 0.12) * spread, y * 1.1, 0.15, 0.13), accent)
        feeler = [(0, -0.5), (side * 0.12, -0.84), (side * 0.34, -1.02)]
        pen.fill(stroke(feeler, 0.06, 0.04), INK)
    pen.fill(stroke([(0, -0.5), (0.02, 0.1), (0, 0.74)], 0.2, 0.1), (72, 58, 62))
    pen.fill(oval(0, -0.52, 0.14, 0.14), (72, 58, 62))


def _caterpillar(pen: Pen, dice: Dice, coat: Color) -> None:
    phase = dice.whole(1024)
    for k in range(6):
        x, y = -1.16 + 0.42 * k, 0.06 + 0.16 * _wave(phase + 300 * k)
        pen.fill(stroke([(x, y + 0.2), (x, y + 0.34), (x + 0.04, y + 0.44)], 0.12, 0.1), tone(coat, 60))
        pen.fill(oval(x, y, 0.32, 0.34), tone(coat, 108 if k % 2 else 86))
        pen.fill(oval(x, y - 0.1, 0.1, 0.08), tone(coat, 150))
    x, y = 1.2, dice.between(-0.3, -0.14)
    for bend in (-0.08, 0.18):
        pen.fill(stroke([(x, y - 0.2), (x + bend, y - 0.5), (x + 2 * bend, y - 0.64)], 0.06, 0.05), INK)
    pen.fill(oval(x, y, 0.36, 0.36), tone(coat, 74))
    draw_eye(pen, x + 0.14, y - 0.06, 0.08)


def _wave(step: int) -> float:
    """From -1 to 1 and back along 1024 steps, in straight lines."""
    return abs(step % 1024 - 512) / 256 - 1


def _hedgehog(pen: Pen, dice: Dice, coat: Color) -> None:
    skin = (222, 192, 160)
    for x in (-0.5, -0.2, 0.36, 0.6):
        pen.fill(stroke([(x, 0.4), (x + 0.02, 0.58), (x + 0.06, 0.7)], 0.18, 0.16), tone(skin, 78))
    pen.fill(curve([(0.3, -0.3), (0.78, -0.22), (1.3, 0.24), (0.9, 0.46), (0.2, 0.56)]), skin)
    back = pen.fill(frill(-0.18, 0.0, 0.68, 0.18, 16), tone(coat, 80))
    for _ in range(26):
        x, y = dice.between(-0.85, 0.5), dice.between(-0.65, 0.6)
        pen.fill(stroke([(x, y), (x - 0.08, y - 0.05), (x - 0.16, y - 0.12)], 0.06, 0.01), tone(coat, 134), on=back)
    pen.fill(oval(1.28, 0.24, 0.1, 0.09), INK)
    draw_eye(pen, 0.86, 0.02, 0.07)


_BODIES = dict(zip(OTHER_NAMES, (_turtle, _snail, _crab, _butterfly, _caterpillar, _hedgehog), strict=True))


def _body(pen: Pen, dice: Dice, name: str, coat: Color) -> None:
    _BODIES[name](pen, dice, coat)


draw_other = partial(draw_animal, look=Look(_body, 16, _COATS))
