"""What a segmentation network marks on the book's four photographs, as ``dsna segment`` runs it: no label is read.

Nobody has outlined these photographs. So places are named by hand that are surely the object, and others that surely
are not, as polygons well inside and well outside; whatever lies between (a cat's ear, a helmet on a table) does not
count.

    python benchmarks/four_photographs.py [--model FILE] [--name four_photographs]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from dsna_lib import checkpoints
from dsna_lib.book import photos
from dsna_lib.config import recipe
from dsna_lib.data import voc
from dsna_lib.data.pictures import read_mask
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.provenance import write_result
from dsna_lib.engine.runs import model_provenance
from dsna_lib.segmentation import networks

Polygon = Sequence[tuple[int, int]]  # its corners, (x, y) in pixels


class Places(NamedTuple):
    """Where a photograph surely shows its object, and where it surely does not."""

    inside: Sequence[Polygon]
    outside: Sequence[Polygon]


PLACES = {
    "cat": Places(
        inside=[[(80, 15), (330, 15), (350, 70), (350, 160), (325, 215), (310, 260), (230, 275), (80, 285), (60, 170)]],
        outside=[
            [(405, 10), (448, 10), (448, 290), (405, 290), (385, 240), (400, 150)],
            [(2, 2), (22, 2), (22, 110), (2, 120)],
        ],
    ),
    "astronaut": Places(
        inside=[
            [(160, 60), (185, 30), (225, 20), (270, 35), (290, 70), (265, 150), (255, 185), (195, 180), (180, 145)],
            [(110, 230), (150, 255), (230, 295), (300, 275), (340, 300), (350, 350), (275, 440), (275, 505), (130, 505)]
            + [(50, 450), (50, 380), (70, 310)],
        ],
        outside=[
            [(5, 10), (60, 10), (100, 150), (60, 220), (5, 220)],
            [(90, 5), (145, 5), (140, 60), (120, 140), (100, 100)],
            [(330, 10), (505, 10), (505, 330), (440, 330), (370, 280), (330, 190)],
        ],
    ),
    "motorcycle": Places(
        inside=[
            [(150, 200), (200, 185), (340, 195), (455, 175), (485, 200), (460, 240), (480, 300), (470, 350)]
            + [(330, 375), (230, 320), (290, 285), (250, 255), (130, 230)],
            [(135, 335), (155, 280), (195, 265), (235, 285), (255, 335), (235, 380), (195, 395), (150, 375)],
            [(540, 375), (555, 325), (600, 310), (650, 335), (665, 390), (645, 435), (610, 440), (560, 415)],
        ],
        outside=[
            [(5, 5), (330, 5), (300, 95), (60, 95), (5, 95)],
            [(5, 390), (105, 390), (210, 450), (280, 470), (520, 475), (700, 430), (735, 340), (735, 495), (5, 495)],
            [(610, 60), (735, 60), (735, 280), (620, 260)],
        ],
    ),
    "grace_hopper": Places(
        inside=[
            [(175, 100), (200, 50), (270, 30), (330, 60), (360, 95), (355, 125), (180, 130)],
            [(180, 150), (355, 150), (350, 240), (320, 320), (290, 350), (220, 345), (190, 290), (175, 230)],
            [(195, 370), (240, 430), (270, 430), (340, 350), (420, 375), (475, 405), (495, 470), (505, 590), (45, 590)]
            + [(50, 440), (95, 395)],
        ],
        outside=[
            [(400, 10), (505, 10), (505, 360), (440, 335), (395, 280), (385, 120)],
            [(5, 10), (135, 10), (135, 90), (125, 300), (60, 350), (5, 330)],
        ],
    ),
}


def inside_of(polygons: Sequence[Polygon], shape: tuple[int, ...]) -> np.ndarray:
    """Polygons as a mask ``(H, W)`` bool."""
    drawn = Image.new("1", (shape[1], shape[0]))
    for polygon in polygons:
        ImageDraw.Draw(drawn).polygon([*polygon], fill=1)
    return np.array(drawn)


def shares(mask: np.ndarray, label: int, places: Places) -> dict[str, float]:
    """Percent of the object that got its class, of it that got any, and of what is no object that got any class."""
    inside, outside = (inside_of(polygons, mask.shape) for polygons in places)
    found = {"object": mask[inside] == label, "any class": mask[inside] != 0, "outside": mask[outside] != 0}
    return {name: round(100 * float(where.mean()), 1) for name, where in found.items()}


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", type=Path, default=checkpoints.SEGMENTATION)
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    config = recipe.load("photographs-cpu").network().inference
    model = networks.load(args.model, voc.CLASS_NAMES).to(choose_device())
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        for record in photos.free(temporary).records:
            folder = Path(temporary) / "masks" / record.id
            photos.write_segmentation(record.image, model, folder, config, max_side=500)
            mask = read_mask(folder / "segmentation.png")
            rows[record.id] = shares(mask, record.labels[0] + 1, PLACES[record.id])
            print(f"{record.id:13}" + "".join(f"{name:>12} {share:5.1f}" for name, share in rows[record.id].items()))
    if args.name:
        how = {"script": "benchmarks/four_photographs.py", "inference": asdict(config), "labels": "none"}
        write_result(args.name, {"rows": rows}, how | {"trained": model_provenance(args.model)})


if __name__ == "__main__":
    main()
