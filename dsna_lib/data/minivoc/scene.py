"""A picture: the background and its motifs, the cast of animals, and how these come together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dsna_lib.config.drawn import SMALLEST
from dsna_lib.data.minivoc.animals import CLASS_NAMES, FAMILIES, FAMILY_OF, draw_animal
from dsna_lib.data.minivoc.canvas import Color, Dice, Pen, Sheet, curve, frill, oval, stroke, tone

VOID = 255

FINE = 4  # canvas pixels along each side of a picture pixel
_FEWEST = 150  # pixels of an animal; felt only in pictures below 224, where 1 % would be a blot

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


class Drawing(NamedTuple):
    """One drawn picture."""

    image: np.ndarray  #: ``(H, W, 3)`` uint8 RGB
    #: ``(H, W)`` uint8; 0 background, 1..C classes, 255 where a pixel mixes an animal with its surroundings
    mask: np.ndarray
    part: np.ndarray  #: ``(H, W)`` uint8; the class index where most of a pixel is a discriminative part, else 0
    labels: tuple[int, ...]  #: sorted 0-based classes, without background, that ``mask`` shows
    objects: np.ndarray  #: ``(H, W)`` uint8; 0 background, 1, 2, ... the object that a pixel shows, 255 where it mixes
    classes: tuple[int, ...]  #: the 0-based class of each object


def _motif(pen: Pen, dice: Dice, kind: str, color: Color) -> None:
    """A leaf, stone, tuft of grass or the like, about one unit in radius."""
    if kind == "leaf":
        leaf = pen.fill(curve([(0, 1), (-0.42, 0.2), (-0.3, -0.5), (0, -1), (0.3, -0.5), (0.42, 0.2)]), color)
        pen.fill(np.array([(0, 1), (0.6, 0.4), (0.6, -1), (0, -1)]), tone(color, 90), on=leaf)
    elif kind == "pebble":
        stone = pen.fill(curve([(-0.9, 0.2), (-0.5, -0.5), (0.3, -0.6), (0.95, 0), (0.5, 0.55), (-0.4, 0.6)]), color)
        pen.fill(oval(0.1, 0.75, 0.9, 0.5), tone(color, 88), on=stone)
    elif kind == "grass":
        for k, x in enumerate((-0.5, -0.2, 0.1, 0.4)):
            bend = dice.between(-0.5, 0.5)
            blade = stroke([(x, 0.9), (x + bend * 0.3, 0), (x + bend, dice.between(-1.2, -0.5))], 0.22, 0.02)
            pen.fill(blade, tone(color, 90 + 10 * (k % 2)))
    elif kind == "flower":
        pen.fill(frill(0, 0, 0.4, 0.4, 8), color)
        pen.fill(oval(0, 0, 0.28, 0.28), tone(color, 150))
    elif kind == "ring":
        pen.fill(oval(0, 0, 0.7, 0.7), color)
        pen.fill(oval(0.04, 0.04, 0.5, 0.5), tone(color, 116))
    else:
        for x, y, radius in ((-0.7, 0.1, 0.42), (0, -0.14, 0.6), (0.66, 0.1, 0.46)):
            pen.fill(oval(x, y, radius * 1.2, radius * 0.8), tone(color, 114))


def background(dice: Dice, height: int, width: int) -> Sheet:
    """Rolling bands and a clutter of leaves, stones, grass and such; it knows nothing of the animals."""
    sheet = Sheet(height, width)
    colors = [dice.varied(color, 8) for color in dice.pick(_SCENES)]
    sheet.canvas[:] = sheet.paint(colors[0])
    unit = max(height, width) / 2
    for color, level in zip(colors[1:4], (0.3, 0.55, 0.78), strict=True):
        crest = [(x, level * height + dice.between(-0.12, 0.12) * height) for x in np.arange(-1, 6) * width / 4]
        line = curve(crest, closed=False)
        band = np.concatenate([line, [(width * 1.5, height * 2), (-width, height * 2)]])
        Pen(sheet, 1, 0, 0).fill(band, color)
    kinds = dice.shuffled(("leaf", "pebble", "grass", "flower", "ring", "cloud"))[:3]
    tones = [tone(color, percent) for color in colors for percent in (90, 106)]
    for k in range(40 + dice.whole(31)):
        size = unit * dice.between(0.05, 0.2) * (1.6 if k < 6 else 1)  # a few large ones first, at the back
        pen = Pen(sheet, size, dice.unit() * width, dice.unit() * height, dice.between(-40, 40), dice.unit() < 0.5)
        _motif(pen, dice, dice.pick(kinds), dice.pick(tones))
    return sheet


class Scene:
    """A background and the animals put on it, on one canvas of paint numbers with the light that falls on it."""

    def __init__(self, background: Sheet) -> None:
        self.canvas = background.canvas
        height, width = self.canvas.shape
        self.light = np.repeat((255 - 24 * np.arange(height) // height).astype(np.uint8)[:, None], width, axis=1)
        self.paints = background.paints
        self.owner = [0] * len(self.paints)  # the animal of each paint, counted from 1
        self.classes = [0]  # the class index of each animal; the background is animal 0
        self._whole: list[np.ndarray] = []  # what each animal would show if nothing hid it

    def put(self, animal: Sheet, class_index: int, top: int, left: int) -> bool:
        """Put an animal in front, unless too little of it, or of one behind it, would show.

        "Enough" is two thirds of the discriminative part and two fifths of the animal; a label that no part proves
        would teach nothing. Returns whether the animal was put.
        """
        (height, width), (tall, long) = self.canvas.shape, animal.canvas.shape
        rows, columns = slice(max(top, 0), min(top + tall, height)), slice(max(left, 0), min(left + long, width))
        cut = animal.canvas[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        canvas = self.canvas.copy()
        canvas[rows, columns] = np.where(cut > 0, cut + np.uint8(len(self.paints)), canvas[rows, columns])
        paints = self.paints + animal.paints
        owner = self.owner + [len(self.classes)] * len(animal.paints)
        itself = [int(number > 0) for number in range(len(animal.paints))]
        whole = [*self._whole, _shown(animal.canvas, itself, animal.paints)[0]]
        if (_shown(canvas, owner, paints) * (5, 3) < np.array(whole) * (2, 2)).any():
            return False
        self._shine(cut > 0, rows, columns)
        self.canvas, self.paints, self.owner, self._whole = canvas, paints, owner, whole
        self.classes.append(class_index)
        return True

    def _shine(self, shape: np.ndarray, rows: slice, columns: slice) -> None:
        """Light from above on an animal, and its paper-cut shadow on what lies behind."""
        for down, right in ((2 * FINE, FINE), (FINE, FINE // 2)):
            target = self.light[rows.start + down : rows.stop + down, columns.start + right : columns.stop + right]
            shadow = shape[: target.shape[0], : target.shape[1]]
            target[shadow] = target[shadow].astype(np.uint16) * 216 // 256
        fall = (255 - 44 * np.arange(shape.shape[0]) // shape.shape[0]).astype(np.uint8)[:, None]
        self.light[rows, columns] = np.where(shape, fall, self.light[rows, columns])

    def render(self, dice: Dice) -> Drawing:
        """Average the fine canvas down to pixels, and read both masks off it."""
        colors = np.array([color for color, _ in self.paints], np.uint16)
        owner, classes = np.asarray(self.owner, np.uint8), np.asarray(self.classes, np.uint8)
        part_class = classes[owner] * np.array([part for _, part in self.paints], np.uint8)
        # Of each pixel, its 16 canvas pixels: (16, H, W).
        paint, light = (
            np.stack([plane[i::FINE, j::FINE] for i in range(FINE) for j in range(FINE)])
            for plane in (self.canvas, self.light)
        )
        owners, parts = np.take(owner, paint), np.take(part_class, paint)
        first, last = owners.min(axis=0), owners.max(axis=0)
        objects = np.where(first == last, last, np.uint8(VOID))
        mask = np.where(first == last, classes[last], np.uint8(VOID))
        part = np.where((parts > 0).sum(axis=0) * 2 >= FINE**2, parts.max(axis=0), np.uint8(0))
        total = (np.take(colors, paint, axis=0) * light[..., None].astype(np.uint16)).sum(axis=0, dtype=np.uint32)
        # 255 * 255 * 16 is white in full light; the grain of the paper is two noises, one of them in 4 x 4 blocks
        height, width = mask.shape
        coarse = dice.grain(height // 4 + 1, width // 4 + 1).repeat(4, 0).repeat(4, 1)[:height, :width]
        grain = 256 + dice.grain(height, width) // 2 + coarse // 4
        image = np.clip((total // (255 * FINE**2)).astype(np.int32) * grain[..., None] // 256, 0, 255).astype(np.uint8)
        labels = tuple(int(c) - 1 for c in np.unique(mask) if 0 < c < VOID)
        return Drawing(image, mask, part, labels, objects, tuple(c - 1 for c in self.classes[1:]))


def _shown(canvas: np.ndarray, owner: Sequence[int], paints: Sequence[tuple[Color, bool]]) -> np.ndarray:
    """Pixels of each animal and of its part on a canvas, ``(animals, 2)``; counted on a quarter of them."""
    counts = np.bincount(canvas[::2, ::2].ravel(), minlength=len(paints))
    part_counts = counts * [part for _, part in paints]
    return np.stack([np.bincount(owner, weights=c).astype(np.int64)[1:] for c in (counts, part_counts)], axis=1)


def dealt(names: Sequence[str], seed: int, index: int) -> str:
    """One of some names for each picture, from shuffled decks, so that they come out even."""
    return Dice(seed, index // len(names)).shuffled(names)[index % len(names)]


def _cast(dice: Dice, seed: int, index: int) -> list[str]:
    """The classes of a picture's animals: the first is dealt, others are often of its family."""
    cast = [dealt(CLASS_NAMES, seed, index)]
    for _ in range(dice.pick((0, 0, 0, 0, 1, 1, 1, 1, 2, 2))):
        relatives = FAMILIES[FAMILY_OF[cast[0]]]
        cast.append(dice.pick((cast[0], dice.pick(relatives), dice.pick(CLASS_NAMES), dice.pick(CLASS_NAMES))))
    return cast


def draw(seed: int, index: int, size: int = 224) -> Drawing:
    """Draw one picture; a pure function of its arguments.

    Args:
        seed: the data set's seed, 0 or more.
        index: the picture's number, 0 or more.
        size: the longer side in pixels, 48 or more; a picture is square or 4:3, lying or standing.

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> draw(0, index=3, size=64).labels == draw(0, index=3, size=64).labels
        True
    """
    if seed < 0 or index < 0 or size < SMALLEST:
        raise ValueError(f"seed and index must be 0 or more and size {SMALLEST} or more, not {seed}, {index}, {size}")
    dice = Dice(seed, index, 1)
    scene = Scene(background(dice, *sides(dice, size)))
    populate(scene, dice, _cast(dice, seed, index), CLASS_NAMES, draw_animal, seed, index)
    return scene.render(dice)


def sides(dice: Dice, size: int) -> tuple[int, int]:
    """Height and width of a picture's canvas."""
    short = size * 3 // 4
    height, width = dice.pick(((size, size), (short, size), (size, short)))
    return height * FINE, width * FINE


def populate(
    scene: Scene,
    dice: Dice,
    cast: Sequence[str],
    names: Sequence[str],
    drawn: Callable[..., Sheet],
    *key: int,
    smallest: int = 100,
) -> None:
    """Put the animals of a cast where there is room, the largest at the back.

    Args:
        scene: where to.
        dice: of the picture.
        cast: an animal each.
        names: of all classes, in their order.
        drawn: draws an animal, see :func:`~dsna_lib.data.minivoc.animals.draw_animal`.
        key: of the picture, from which those of the animals follow.
        smallest: share of the picture that an animal takes, in ten-thousandths; the largest is 7,000.
    """
    height, width = scene.canvas.shape
    # shares of the picture, log-uniform, in whole ten-thousandths
    shares = sorted((round(smallest * (7000 / smallest) ** dice.unit()) for _ in cast), reverse=True)
    for number, (name, share) in enumerate(zip(cast, shares, strict=True)):
        area = max(height * width * share // 10000, _FEWEST * FINE**2)
        for attempt in range(16):
            if attempt % 4 == 0:  # at first, and whenever four places were refused: then smaller
                animal = drawn(name, area * 6 ** (attempt // 4) // 10 ** (attempt // 4), *key, 2 + number)
            top = _position(dice.unit(), animal.canvas.shape[0], height)
            left = _position(dice.unit(), animal.canvas.shape[1], width)
            if scene.put(animal, names.index(name) + 1, top, left):
                break


def _position(spot: float, length: int, side: int) -> int:
    """Where an animal of ``length`` begins on a ``side``: inside the picture but for a tenth of it at most."""
    low, high = sorted((-length // 10, side - length + length // 10))
    return low + int(spot * (high - low + 1))
