"""Free photographs with image labels and masks, as a folder that ``--data folder`` reads.

``book/teaching/photographs.toml`` says where each comes from, whose it is, and the outlines that were drawn of it.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from dsna_lib.data import voc
from dsna_lib.data.folder import TABLE
from dsna_lib.data.pictures import VOID, read_image, write_mask
from dsna_lib.engine.files import write_atomically
from teaching.page import TEXTS

RIM = 5  # pixels of void around each outline: they are drawn by hand
SOURCES = ("file", "title", "author", "license", "source", "note")


def described() -> dict[str, dict[str, Any]]:
    """The photographs: id to what the file says of it."""
    return tomllib.loads((TEXTS / "photographs.toml").read_text(encoding="utf-8"))


def image_of(place: str) -> np.ndarray:
    """A photograph ``(H, W, 3)`` by package and name, such as ``skimage:chelsea``.

    Raises:
        ValueError: another package.
    """
    package, _, name = place.partition(":")
    if package == "matplotlib":
        from matplotlib.cbook import get_sample_data

        return read_image(Path(str(get_sample_data(name, asfileobj=False))))
    if package != "skimage":
        raise ValueError(f"{place}: a photograph comes from skimage or matplotlib")
    from skimage import data

    image = getattr(data, name)()
    image = image[0] if isinstance(image, tuple) else image  # of a stereo pair the left one
    return np.stack([image] * 3, axis=-1) if image.ndim == 2 else image


def mask_of(size: tuple[int, int], outlines: list[Mapping[str, str]]) -> np.ndarray:
    """A mask of class indices from outlines, void along their borders.

    Args:
        size: (height, width).
        outlines: each with ``class``, of VOC or ``void``, and ``points``, "x,y" between spaces; later ones lie above.
    """
    canvas = Image.new("L", size[::-1], 0)
    for outline in outlines:
        points = [tuple(map(int, point.split(","))) for point in outline["points"].split()]
        index = VOID if outline["class"] == "void" else voc.CLASS_NAMES.index(outline["class"]) + 1
        ImageDraw.Draw(canvas).polygon(points, fill=index)
    mask = np.array(canvas)
    border = ndimage.maximum_filter(mask, RIM) != ndimage.minimum_filter(mask, RIM)
    return np.where(border, VOID, mask).astype(np.uint8)


def write_photographs(folder: Path) -> None:
    """Write the photographs, their table of labels, their masks, and whose they are."""
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    labels, sources = [("file", "labels")], [SOURCES]
    for name, about in described().items():
        image = image_of(about["from"])
        write_atomically(folder / f"{name}.png", partial(Image.fromarray(image).save, format="PNG"))
        write_mask(folder / "masks" / f"{name}.png", mask_of(image.shape[:2], about.get("outlines", [])))
        labels.append((f"{name}.png", ";".join(about["labels"])))
        sources.append((f"{name}.png", *(about.get(key, "") for key in SOURCES[1:])))
    for file, rows in ((TABLE, labels), ("SOURCES.csv", sources)):
        with (folder / file).open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)
