"""Draw the README's figure: a drawn picture, its maps, and the pseudo-annotation.

    python tools/pipeline_figure.py --model MODEL.pth [--pictures ID ID]

The model is the one that chapter 05 trains; the chapter prints where its file lies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

from dsna_lib import annotate, attention, maps
from dsna_lib.book import figures
from dsna_lib.data import minivoc, read_image, read_mask

ROOT = Path(__file__).resolve().parents[1]
TITLES = ("picture", "expansive A", "discriminative S", "merged T", "pseudo-annotation", "ground truth")


def main() -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", type=Path, required=True)
    ask.add_argument("--pictures", nargs="+", help="ids of val pictures (default: the first two)")
    ask.add_argument("--out", type=Path, default=ROOT / "book" / "_static" / "pipeline.png")
    args = ask.parse_args()
    mpl.use("Agg")
    pictures = minivoc.load("val")
    pictures = pictures.select(args.pictures or [record.id for record in pictures.records[:2]])
    rows = []
    for seen in maps.iterate_maps(attention.load(args.model, pictures.class_names), pictures):
        record = pictures.records[seen.index]
        image, target = read_image(record.image), read_mask(record.mask)
        annotation = annotate.pseudo_annotation(seen.maps["merged"], seen.features, record.labels, seen.size).numpy()
        heats = [figures.heat(image, seen.maps[kind][record.labels[0]].numpy()) for kind in maps.MAP_KINDS]
        rows.append([image, *heats, figures.overlay(image, annotation), figures.overlay(image, target)])
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figures.panel(rows, TITLES).savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
