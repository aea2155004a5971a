"""Pictures beside those of the data set, which some methods learn from: other animals, single ones, and clips.

Each is a pure function of a seed and a number, as :func:`~dsna_lib.data.minivoc.scene.draw` is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dsna_lib.data.minivoc.animals import CLASS_NAMES, draw_animal
from dsna_lib.data.minivoc.canvas import Dice, Sheet
from dsna_lib.data.minivoc.others import OTHER_NAMES, draw_other
from dsna_lib.data.minivoc.scene import FINE, Drawing, Scene, background, dealt, populate, sides

_PLAIN = ((226, 222, 212), (206, 216, 222), (214, 222, 200), (232, 214, 204), (196, 196, 206), (238, 236, 230))
_BLOCK, _WRONG = 20, 4  # of so many pictures from the web, so many have a wrong label


class WebDrawing(NamedTuple):
    """A picture as one finds it by a class's name."""

    image: np.ndarray  #: ``(H, W, 3)`` uint8 RGB
    label: int  #: the 0-based class by whose name it was found: of 20 pictures, 4 show another one
    true: int  #: the class that it shows


class Clip(NamedTuple):
    """One animal that moves over still ground; its shadow moves along."""

    frames: np.ndarray  #: ``(T, H, W, 3)`` uint8 RGB
    masks: np.ndarray  #: ``(T, H, W)`` uint8, as in a :class:`~dsna_lib.data.minivoc.scene.Drawing`; told to nobody
    #: ``(T - 1, H, W, 2)`` float32, how far what a pixel shows has moved in the next frame, right and down, in pixels;
    #: told to nobody
    flow: np.ndarray
    label: int  #: the 0-based class of the animal


def draw_others(seed: int, index: int, size: int, most: int = 3) -> Drawing:
    """Draw up to ``most`` animals of no class of the data set, before a background like its own.

    Its mask's classes are those of :data:`~dsna_lib.data.minivoc.others.OTHER_NAMES`.
    """
    dice = Dice(seed, index, 1)
    scene = Scene(background(dice, *sides(dice, size)))
    cast = [dealt(OTHER_NAMES, seed, index), *(dice.pick(OTHER_NAMES) for _ in range(dice.whole(most)))]
    populate(scene, dice, cast, OTHER_NAMES, draw_other, seed, index)
    return scene.render(dice)


def draw_web(seed: int, index: int, size: int) -> WebDrawing:
    """Draw one animal on plain ground, with the label that the web gives it."""
    dice = Dice(seed, index, 1)
    ground = Sheet(*sides(dice, size))
    ground.canvas[:] = ground.paint(dice.varied(dice.pick(_PLAIN)))
    scene, name = Scene(ground), dealt(CLASS_NAMES, seed, index)
    populate(scene, dice, [name], CLASS_NAMES, draw_animal, seed, index, smallest=800)
    true, wrong = CLASS_NAMES.index(name), Dice(seed, index // _BLOCK, 1, 1).shuffled(range(_BLOCK))[:_WRONG]
    label = dice.pick([c for c in range(len(CLASS_NAMES)) if c != true]) if index % _BLOCK in wrong else true
    return WebDrawing(scene.render(dice).image, label, true)


def draw_clip(seed: int, index: int, size: int, frames: int) -> Clip:
    """Draw an animal that moves evenly, by 1 to 5 of 224 pixels a frame, and stays within the picture."""
    dice = Dice(seed, index, 1)
    ground = background(dice, *sides(dice, size))
    canvas, name = np.array(ground.canvas.shape), dealt(CLASS_NAMES, seed, index)
    area = int(canvas.prod() * dice.between(0.03, 0.15))
    step = np.zeros(2, int)  # down and right, in canvas pixels
    while np.abs(step).max() < size * FINE / 224:
        step = np.array([int(dice.between(-5, 5) * size * FINE / 224) for _ in range(2)])
    animal = draw_animal(name, area, seed, index, 2)
    while (room := canvas - animal.canvas.shape - np.abs(step) * (frames - 1)).min() < 0:
        area = area * 9 // 10
        animal = draw_animal(name, area, seed, index, 2)
    start = [int(dice.unit() * (free + 1)) for free in room] - np.minimum(step, 0) * (frames - 1)
    drawings = []
    for top, left in start + step * np.arange(frames)[:, None]:
        scene = Scene(ground)
        scene.put(animal, CLASS_NAMES.index(name) + 1, top, left)
        drawings.append(scene.render(Dice(seed, index, 3)))  # the same grain on all frames: the ground is still
    images, masks = (np.stack([getattr(drawing, kind) for drawing in drawings]) for kind in ("image", "mask"))
    flow = (masks[:-1, ..., None] > 0) * (step[::-1] / FINE)
    return Clip(images, masks, flow.astype(np.float32), CLASS_NAMES.index(name))
