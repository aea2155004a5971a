"""Draw the figure of README and introduction: pictures, their maps, and what becomes of them.

    python tools/pipeline_figure.py

With the models that come with the package, on pictures chosen by a rule: the first validation picture of the drawn set
with one class and the first with two, in which every class fills more than a twentieth; and two free photographs,
scikit-image's cat and its astronaut. The maps are those of the first class.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from dataclasses import asdict
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

from dsna_lib import annotate, attention, checkpoints, crf, maps
from dsna_lib.book import figures, photos
from dsna_lib.config.photos import SHOWN
from dsna_lib.config.recipe import MapConfig
from dsna_lib.data import Pictures, minivoc, read_image, read_mask
from dsna_lib.data.pictures import VOID

ROOT = Path(__file__).resolve().parents[1]
MAPS = ("expansive\nA", "discriminative\nS", "merged\nT")
TITLES = ("picture", *MAPS, "pseudo-\nannotation", "after\nthe CRF", "true\nmask")
LETTERS = 14  # points: the figure is shown at half its size


def drawn() -> Pictures:
    """By the rule, see the module."""
    pictures = minivoc.load("val")
    chosen: dict[int, str] = {}
    for record in pictures.records:
        mask = read_mask(str(record.mask))
        if min((mask == c + 1).mean() for c in record.labels) > 0.05:
            chosen.setdefault(len(record.labels), record.id)
    return pictures.select([chosen[1], chosen[2]])


def rows(model: Path, pictures: Pictures, shown: MapConfig) -> list[list[np.ndarray]]:
    """A row of panels for each picture."""
    made = []
    for seen in maps.iterate_maps(attention.load(model, pictures.class_names), pictures, **asdict(shown)):
        record = pictures.records[seen.index]
        image, label = read_image(record.image), record.labels[0]
        annotation = annotate.pseudo_annotation(seen.maps["merged"], seen.features, record.labels, seen.size).numpy()
        refined = crf.refine(image, crf.class_probabilities(annotation, record.labels, pictures.num_classes))
        heats = [figures.heat(image, maps.min_max(seen.maps[kind][label]).numpy()) for kind in maps.MAP_KINDS]
        truth = np.full_like(image, 255) if record.mask is None else figures.overlay(image, read_mask(record.mask))
        made.append([image, *heats, figures.overlay(image, annotation), figures.overlay(image, refined), truth])
    return made


def main() -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--out", type=Path, default=ROOT / "book" / "_static" / "pipeline.png")
    args = ask.parse_args()
    mpl.use("Agg")
    with tempfile.TemporaryDirectory() as folder:
        animals, photographs = drawn(), photos.free(folder).select(["cat", "astronaut"])
        shown = rows(checkpoints.DRAWN["decoupled", 0.5], animals, MapConfig())
        shown += rows(checkpoints.ATTENTION, photographs, SHOWN)
    # No class of these photographs has the number, and so the color, of one of these animals.
    names = [*photographs.class_names]
    labels = {c for pictures in (animals, photographs) for record in pictures.records for c in record.labels}
    for c in {c for record in animals.records for c in record.labels}:
        names[c] = animals.class_names[c]
    figure = figures.panel(shown, TITLES, width=1.7)
    figures.legend(figure, np.array([*(c + 1 for c in sorted(labels)), VOID]), names)
    for text in [axis.title for axis in figure.axes] + figure.legends[0].get_texts():
        text.set_fontsize(LETTERS)
    figure.set_figheight(figure.get_figheight() + 0.7)  # for two lines of titles and the legend
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(whole := io.BytesIO(), dpi=100)
    # A sixth of the bytes, for faint bands. Means of the colors keep those of the legend, which fill little.
    Image.open(whole).convert("RGB").quantize(256, kmeans=10).save(args.out)


if __name__ == "__main__":
    main()
