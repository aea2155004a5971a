"""The animals of the three families, each a body of its family with the part that tells its class for certain."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from dsna_lib.data.minivoc.canvas import INK, WHITE, Color, Dice, Pen, Sheet, curve, frill, oval, stroke, tone, turned

FAMILIES: dict[str, tuple[str, ...]] = {
    "mammals": ("rabbit", "deer", "lion", "elephant"),
    "birds": ("rooster", "toucan", "owl"),
    "fish": ("shark", "swordfish", "anglerfish"),
}
CLASS_NAMES: tuple[str, ...] = tuple(name for names in FAMILIES.values() for name in names)
FAMILY_OF = {name: family for family, names in FAMILIES.items() for name in names}

# One pool of colors for each family: they narrow the class down to its family and no further.
_COATS: dict[str, tuple[Color, ...]] = {
    "mammals": ((205, 142, 86), (178, 98, 66), (146, 132, 124), (228, 200, 160), (122, 90, 76), (104, 116, 136)),
    "birds": ((52, 122, 124), (214, 160, 62), (184, 84, 66), (122, 82, 122), (80, 106, 150), (226, 206, 172)),
    "fish": ((72, 120, 164), (222, 122, 98), (74, 146, 132), (126, 138, 152), (216, 178, 116), (130, 112, 164)),
}
# Each class of a family has its usual texture, the one at its place here; an animal wears it with this probability,
# and any of the four otherwise. So a body is evidence for its class, as a cat's fur is, and no proof of it.
_TEXTURES = ("fur", "spots", "stripes", "scales")
_USUAL = 0.7


def draw_eye(pen: Pen, x: float, y: float, radius: float) -> None:
    """An eye that looks ahead."""
    pen.fill(oval(x, y, radius, radius * 1.15), INK)
    pen.fill(oval(x + radius * 0.3, y - radius * 0.4, radius * 0.38, radius * 0.38), WHITE)


def _texture(pen: Pen, dice: Dice, name: str, coat: Color, body: int) -> None:
    """The usual texture of a class on a body, or any."""
    dark, light = tone(coat, 72), tone(coat, 134)
    usual, other = _TEXTURES[FAMILIES[FAMILY_OF[name]].index(name)], dice.pick(_TEXTURES)
    kind = usual if dice.unit() < _USUAL else other
    if kind == "stripes":
        for x in np.arange(-5, 6) * 0.18 + dice.between(-0.06, 0.06):
            pen.fill(stroke([(x, -1), (x + 0.1, -0.3), (x - 0.04, 0.25)], 0.09, 0.02), dark, on=body)
    elif kind == "scales":
        for row in range(7):
            for x in np.arange(-6, 6) * 0.2 + row % 2 * 0.1:
                y = -0.66 + row * 0.17
                pen.fill(stroke([(x - 0.08, y), (x, y + 0.07), (x + 0.08, y)], 0.03, 0.03), dark, on=body)
    else:
        for _ in range(34):
            x, y = dice.between(-0.95, 0.95), dice.between(-0.7, 0.5)
            if kind == "spots":
                radius = dice.between(0.03, 0.1)
                pen.fill(oval(x, y, radius, radius * 0.85), light if radius < 0.055 else dark, on=body)
            else:
                pen.fill(stroke([(x, y), (x - 0.08, y + 0.05), (x - 0.13, y + 0.12)], 0.045, 0.005), dark, on=body)


def _mammal(pen: Pen, dice: Dice, name: str, coat: Color) -> None:
    dark, light = tone(coat, 82), tone(coat, 135)
    stretch, legs = dice.between(0.92, 1.08), dice.between(0.84, 1.0)

    pen.fill(stroke([(-0.85, -0.1), (-1.08, 0.02), (-1.12, dice.between(-0.2, 0.3))], 0.14, 0.07), dark)
    for x in (-0.42, 0.62):
        pen.fill(stroke([(x, 0.2), (x + 0.02, 0.55), (x, legs - 0.04)], 0.28, 0.22), tone(coat, 70))
    outline = [(-0.92, 0.0), (-0.76, -0.44), (-0.2, -0.56), (0.4, -0.56), (0.84, -0.3), (0.86, 0.14), (0.5, 0.5)]
    body = pen.fill(curve([*outline, (-0.1, 0.56), (-0.66, 0.46)]) * (stretch, 1), coat)
    _texture(pen, dice, name, coat, body)
    for x in (-0.66, 0.38):
        pen.fill(stroke([(x, 0.1), (x + 0.02, 0.55), (x, legs)], 0.32, 0.24), coat)
        pen.fill(stroke([(x - 0.13, legs - 0.06), (x, legs - 0.05), (x + 0.15, legs - 0.06)], 0.12, 0.12), dark)
    pen.fill(oval(-0.1 * stretch, 0.62, 0.62, 0.2), light, on=body)

    head = (0.74, -0.52)
    _MAMMAL_PARTS[name](pen, dice, coat, head, behind=True)
    if name != "rabbit":
        for x, tilt in ((head[0] - 0.3, -38), (head[0] + 0.1, 12)):
            pen.fill(oval(x, head[1] - 0.36, 0.11, 0.16, tilt), dark)
    pen.fill(oval(*head, 0.43, 0.4), coat)
    if name != "elephant":
        pen.fill(oval(head[0] + 0.28, head[1] + 0.14, 0.24, 0.19), light)
        pen.fill(oval(head[0] + 0.45, head[1] + 0.06, 0.075, 0.06), INK)
    pen.fill(oval(head[0] - 0.02, head[1] + 0.16, 0.08, 0.06), tone((222, 120, 110), 112))
    draw_eye(pen, head[0] + 0.1, head[1] - 0.08, 0.065)
    _MAMMAL_PARTS[name](pen, dice, coat, head, behind=False)


def _ears(pen: Pen, dice: Dice, coat: Color, head: tuple[float, float], behind: bool) -> None:
    root = (head[0] - 0.18 if behind else head[0] + 0.06, head[1] - 0.3)
    lean = dice.between(-24, -10) if behind else dice.between(4, 16)
    pen.fill(turned(oval(0, -0.36, 0.145, 0.46), lean) + root, tone(coat, 88 if behind else 108), part=True)
    pen.fill(turned(oval(0, -0.38, 0.075, 0.34), lean) + root, (232, 158, 150), part=True)


def _antlers(pen: Pen, dice: Dice, coat: Color, head: tuple[float, float], behind: bool) -> None:
    bone = (120, 88, 64) if behind else (150, 112, 78)
    side = -1 if behind else 1
    root = (head[0] - 0.12, head[1] - 0.3) if behind else (head[0] + 0.1, head[1] - 0.33)
    spread = dice.between(0.26, 0.4)
    for line, width in (
        ([(0, 0.06), (side * spread, -0.36), (side * (spread - 0.08), -0.86)], 0.14),
        ([(side * spread * 0.7, -0.2), (side * (spread + 0.2), -0.36), (side * (spread + 0.26), -0.62)], 0.11),
        ([(side * spread, -0.42), (side * (spread - 0.2), -0.56), (side * (spread - 0.24), -0.78)], 0.11),
    ):
        pen.fill(stroke(line, width, 0.05) + root, bone, part=True)


def _mane(pen: Pen, dice: Dice, coat: Color, head: tuple[float, float], behind: bool) -> None:
    if behind:
        color = dice.pick(((134, 74, 44), (160, 92, 40), (104, 62, 52)))
        pen.fill(frill(*head, 0.5, 0.1, 16), color, part=True)
        pen.fill(frill(*head, 0.44, 0.06, 16), tone(color, 118), part=True)


def _trunk(pen: Pen, dice: Dice, coat: Color, head: tuple[float, float], behind: bool) -> None:
    if behind:
        return
    x, y = head
    tip = dice.between(-0.12, 0.3)
    line = [(x + 0.28, y + 0.08), (x + 0.58, y + 0.28), (x + 0.6, y + 0.66), (x + 0.84, y + 0.72 - tip)]
    pen.fill(stroke(line, 0.28, 0.12), tone(coat, 94), part=True)
    for k in range(4):
        y_fold = y + 0.3 + k * 0.1
        fold = [(x + 0.46, y_fold), (x + 0.58, y_fold + 0.04), (x + 0.68, y_fold)]
        pen.fill(stroke(fold, 0.025, 0.025), tone(coat, 74), part=True)
    pen.fill(oval(x - 0.29, y - 0.02, 0.22, 0.3, 8), tone(coat, 78), part=True)
    pen.fill(oval(x - 0.27, y, 0.145, 0.215, 8), (226, 150, 140), part=True)


_MAMMAL_PARTS = {"rabbit": _ears, "deer": _antlers, "lion": _mane, "elephant": _trunk}


def _bird(pen: Pen, dice: Dice, name: str, coat: Color) -> None:
    dark, light = tone(coat, 76), tone(coat, 145)

    for k, lift in enumerate((0.1, 0.28, 0.46)):
        tip = (-1.08 + 0.06 * k, lift + dice.between(-0.08, 0.08))
        pen.fill(stroke([(-0.3, 0.3), (-0.74, lift + 0.1), tip], 0.3, 0.12), (dark, tone(coat, 88), dark)[k])
    for x in (-0.12, 0.2):
        pen.fill(stroke([(x, 0.7), (x + 0.02, 0.9), (x, 1.04)], 0.07, 0.07), (214, 142, 70))
        pen.fill(stroke([(x - 0.12, 1.05), (x, 1.02), (x + 0.2, 1.05)], 0.07, 0.05), (214, 142, 70))
    outline = [(-0.72, 0.2), (-0.56, -0.3), (-0.14, -0.7), (0.3, -0.8), (0.62, -0.36), (0.7, 0.16), (0.42, 0.7)]
    body = pen.fill(curve([*outline, (-0.1, 0.84), (-0.54, 0.62)]), coat)
    _texture(pen, dice, name, coat, body)
    pen.fill(oval(0.46, 0.3, 0.42, 0.56, 14), light, on=body)
    wing = pen.fill(curve([(-0.5, -0.1), (-0.1, -0.3), (0.22, 0.02), (0.06, 0.4), (-0.4, 0.58), (-0.78, 0.6)]), dark)
    for k in range(3):
        y = 0.02 + 0.16 * k
        pen.fill(stroke([(0.1, y), (-0.2, y + 0.16), (-0.62, y + 0.28)], 0.03, 0.05), tone(coat, 60), on=wing)

    head = (0.24, -0.72)
    if name == "rooster":
        for k, (x, y, radius) in enumerate(((-0.28, -0.36, 0.15), (-0.06, -0.5, 0.19), (0.2, -0.46, 0.17))):
            lift = dice.between(0, 0.06)
            comb = oval(head[0] + x, head[1] + y - lift, radius, radius * 1.3, -24 + 22 * k)
            pen.fill(comb, (204, 62, 56), part=True)
    pen.fill(oval(*head, 0.46, 0.44), coat)
    if name == "owl":
        _owl_face(pen, dice, coat, head)
        return
    pen.fill(oval(head[0] + 0.02, head[1] + 0.14, 0.09, 0.06), tone((226, 130, 112), 110))
    if name == "toucan":
        _great_beak(pen, dice, head)
    else:
        beak = [(head[0] + 0.36, head[1] - 0.1), (head[0] + 0.72, head[1] + 0.06), (head[0] + 0.36, head[1] + 0.14)]
        pen.fill(np.array(beak), (230, 168, 74))
        wattle = curve([(0.36, 0.1), (0.5, 0.22), (0.46, 0.46), (0.34, 0.4), (0.3, 0.2)]) + head
        pen.fill(wattle, (204, 62, 56), part=True)
    draw_eye(pen, head[0] + 0.16, head[1] - 0.08, 0.07)


def _great_beak(pen: Pen, dice: Dice, head: tuple[float, float]) -> None:
    orange = dice.pick(((238, 160, 58), (232, 130, 66), (240, 190, 80)))
    length = dice.between(0.94, 1.1)
    upper = [(0.28, -0.24), (0.62, -0.3), (length - 0.04, -0.1), (length + 0.04, 0.26), (length - 0.2, 0.12)]
    beak = pen.fill(curve([*upper, (0.6, 0.2), (0.3, 0.18)]) + head, orange, part=True)
    pen.fill(oval(head[0] + length, head[1] + 0.14, 0.18, 0.3, -20), INK, part=True, on=beak)
    pen.fill(stroke([(0.3, 0.06), (0.6, 0.04), (length, 0.14)], 0.03, 0.03) + head, tone(orange, 70), True, beak)


def _owl_face(pen: Pen, dice: Dice, coat: Color, head: tuple[float, float]) -> None:
    x, y = head
    for side in (-1, 1):
        tuft = [(x + side * 0.16, y - 0.36), (x + side * 0.44, y - 0.62), (x + side * 0.42, y - 0.2)]
        pen.fill(np.array(tuft), tone(coat, 70), part=True)
    for side in (-1, 1):
        pen.fill(oval(x + side * 0.18, y + 0.02, 0.2, 0.21), tone(coat, 160), part=True)
    iris = dice.pick(((240, 178, 60), (232, 140, 56), (246, 204, 96)))
    for side in (-1, 1):
        pen.fill(oval(x + side * 0.17, y + 0.01, 0.13, 0.135), iris, part=True)
        pen.fill(oval(x + side * 0.16, y + 0.01, 0.078, 0.082), INK, part=True)
        pen.fill(oval(x + side * 0.16 + 0.03, y - 0.03, 0.028, 0.028), WHITE, part=True)
    pen.fill(np.array([(x - 0.07, y + 0.08), (x + 0.07, y + 0.08), (x, y + 0.28)]), (226, 150, 66), part=True)


def _fish(pen: Pen, dice: Dice, name: str, coat: Color) -> None:
    dark, light = tone(coat, 78), tone(coat, 145)
    depth = dice.between(0.9, 1.08)

    sweep = dice.between(-0.08, 0.08)
    tail = [(-0.62, 0), (-0.98, -0.34 + sweep), (-1.26, -0.5), (-1.08, 0), (-1.26, 0.46), (-0.98, 0.3 + sweep)]
    fin = pen.fill(curve(tail), dark)
    for y in (-0.28, -0.1, 0.08, 0.26):
        pen.fill(stroke([(-0.8, y * 0.3), (-1, y), (-1.26, y * 1.3)], 0.03, 0.02), tone(coat, 62), on=fin)
    if name == "shark":
        _back_fin(pen, dice, coat)
    else:
        pen.fill(curve([(-0.42, -0.4), (-0.26, -0.62), (0.08, -0.66), (0.3, -0.5), (0, -0.34)]), dark)
    pen.fill(curve([(-0.3, 0.36), (-0.4, 0.68), (-0.06, 0.62), (0.1, 0.46)]), dark)
    if name == "swordfish":
        reach = dice.between(1.82, 2.0)
        pen.fill(np.array([(0.8, -0.2), (reach, -0.02), (0.8, 0.3)]), (92, 96, 112), part=True)
        pen.fill(np.array([(0.8, -0.2), (reach, -0.02), (0.8, 0.02)]), (150, 156, 170), part=True)
    outline = [(-0.78, -0.08), (-0.4, -0.36), (0.1, -0.54), (0.6, -0.46), (0.94, -0.16), (1.0, 0.06), (0.84, 0.3)]
    body = pen.fill(curve([*outline, (0.3, 0.52), (-0.3, 0.38), (-0.78, 0.08)]) * (1, depth), coat)
    _texture(pen, dice, name, coat, body)
    pen.fill(oval(0.3, 0.6 * depth, 0.95, 0.34), light, on=body)
    pen.fill(stroke([(0.42, -0.3), (0.34, -0.02), (0.42, 0.24)], 0.04, 0.03), dark)
    pen.fill(curve([(0.26, 0.08), (0.0, 0.12), (-0.22, 0.4), (0.06, 0.36)]), dark)
    if name == "shark":
        pen.fill(curve([(0.97, 0.1), (0.8, 0.14), (0.58, 0.16), (0.66, 0.3), (0.84, 0.32)]), (122, 50, 58), part=True)
        for x in (0.64, 0.74, 0.84):
            pen.fill(np.array([(x - 0.05, 0.13), (x + 0.05, 0.12), (x, 0.24)]), WHITE, part=True)
    else:
        pen.fill(stroke([(0.98, 0.14), (0.84, 0.22), (0.7, 0.2)], 0.04, 0.02), tone(coat, 50))
    draw_eye(pen, 0.66, -0.14, 0.08)
    if name == "anglerfish":
        _lantern(pen, dice)


def _back_fin(pen: Pen, dice: Dice, coat: Color) -> None:
    height, lean = dice.between(0.98, 1.14), dice.between(-0.42, -0.3)
    fin = [(0.3, -0.42), (0.16, -0.7), (lean + 0.1, -height), (lean, -height + 0.04), (-0.3, -0.66), (-0.34, -0.3)]
    pen.fill(curve([*fin, (0, -0.3)]), tone(coat, 64), part=True)
    gleam = stroke([(0.2, -0.5), (0.04, -0.74), (lean + 0.12, -height + 0.1)], 0.06, 0.02)
    pen.fill(gleam, tone(coat, 84), part=True)


def _lantern(pen: Pen, dice: Dice) -> None:
    x, y = dice.between(1.06, 1.2), dice.between(-0.66, -0.5)
    pen.fill(stroke([(0.4, -0.44), (0.62, -0.98), (x - 0.06, -0.96), (x, y)], 0.11, 0.06), (96, 74, 92), part=True)
    for radius, color in ((0.21, (240, 186, 72)), (0.15, (250, 218, 120)), (0.08, (255, 246, 206))):
        pen.fill(oval(x, y, radius, radius), color, part=True)


class Look(NamedTuple):
    """How animals of a family are drawn."""

    body: Callable[[Pen, Dice, str, Color], None]  #: draws the one of a name, in a color
    lean: float  #: how far it may lean, in degrees
    coats: tuple[Color, ...]  #: the colors that it may have


_LOOKS = {
    family: Look(body, lean, _COATS[family])
    for family, body, lean in (("mammals", _mammal, 14), ("birds", _bird, 12), ("fish", _fish, 26))
}


def _drawn(name: str, scale: float, *key: int, look: Look | None = None) -> Sheet:
    """An animal on a sheet of its own, ``scale`` canvas pixels to its unit."""
    look = look or _LOOKS[FAMILY_OF[name]]
    dice, sheet = Dice(*key), Sheet(int(scale * 5), int(scale * 5))
    lean = dice.between(-look.lean, look.lean)
    pen = Pen(sheet, scale, scale * 2.5, scale * 2.5, lean, dice.unit() < 0.5)
    look.body(pen, dice, name, dice.varied(dice.pick(look.coats)))
    return sheet


@cache
def _coverage(name: str, look: Look | None) -> float:
    """The area of an animal in square units, measured on one drawing."""
    return np.count_nonzero(_drawn(name, 32.0, 0, look=look).canvas) / 32**2


def draw_animal(name: str, area: int, *key: int, look: Look | None = None) -> Sheet:
    """An animal that covers about ``area`` canvas pixels, on a sheet trimmed to it.

    Args:
        name: a class of the data set, or whatever ``look`` can draw.
        area: how much it covers.
        key: of its dice.
        look: by default that of the class's family.
    """
    sheet = _drawn(name, round(math.sqrt(area / _coverage(name, look)) * 64) / 64, *key, look=look)
    rows, columns = (np.flatnonzero(sheet.canvas.any(axis=axis)) for axis in (1, 0))
    sheet.canvas = sheet.canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return sheet
