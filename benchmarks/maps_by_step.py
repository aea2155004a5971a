"""How maps form while a classifier learns: a model of the book's recipe, looked at ten times.

Measured is, on validation pictures, how much of a picture lies above 0.2 of the map of a class that is present, and
which share of the map's mass falls on the object. The maps of two pictures are kept, as they are, for chapter 5's
slider.

    python benchmarks/maps_by_step.py [--recipe drawn] [--seeds 3] [--name maps_by_step]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dsna_lib import attention, maps, training
from dsna_lib.attention import AttentionModel
from dsna_lib.book.figures import resize
from dsna_lib.config import recipe as recipes
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.data import read_mask
from dsna_lib.data.pictures import Pictures, without_masks
from dsna_lib.engine.provenance import write_result
from dsna_lib.tables.run import Experiment

KINDS = ("expansive", "discriminative")
KEPT = 2  # pictures whose maps are kept: the first of one class, and the first of two


class Watch:
    """Remembers, of each model that it is shown, what its maps are like."""

    def __init__(self, val: Pictures) -> None:
        counts = [len(record.labels) for record in val.records]
        self.val, self.kept = val, [counts.index(classes) for classes in range(1, KEPT + 1)]
        self.masks = [read_mask(record.mask) for record in val.records]
        self.values: dict[str, dict[str, list[float]]] = {kind: {"area": [], "on_object": []} for kind in KINDS}
        self.frames: list[dict[str, list[str]]] = []

    def filled(self) -> float:
        """The share of its picture that an object fills, in the mean: where the mass of an even map would be."""
        pairs = zip(self.val.records, self.masks, strict=True)
        return float(np.mean([(mask == c + 1).mean() for record, mask in pairs for c in record.labels]))

    def __call__(self, model: AttentionModel) -> None:
        """Measure the maps of present classes, and keep those of two pictures."""
        shares: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        frames: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for one in maps.iterate_maps(model, self.val):
            mask, labels = self.masks[one.index], self.val.records[one.index].labels
            for kind in KINDS:
                planes = one.maps[kind][list(labels)].cpu().numpy()  # (labels, h, w)
                shares[kind] += [covered(plane, mask == c + 1) for plane, c in zip(planes, labels, strict=True)]
                if one.index in self.kept:
                    frames[kind] += [(255 * plane).round().astype(np.uint8).tobytes().hex() for plane in planes]
        for kind in KINDS:
            area, on_object = np.mean(shares[kind], axis=0)
            self.values[kind]["area"].append(round(float(area), 4))
            self.values[kind]["on_object"].append(round(float(on_object), 4))
        self.frames.append(frames)


def covered(plane: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Of a map ``(h, w)`` in 0..1, the share of the picture above 0.2 and that of its mass on the object ``(H, W)``."""
    full, threshold = resize(plane, truth.shape), AnnotationConfig().foreground_threshold
    return float((full > threshold).mean()), float(full[truth].sum() / max(full.sum(), 1e-6))


def measure(experiment: Experiment, seed: int) -> tuple[dict[str, Any], Watch]:
    """Train the recipe's model; what its maps were before the first step and at each look."""
    watch, schedule = Watch(experiment.val), replace(experiment.recipe.training, seed=seed)
    torch.manual_seed(seed)
    model = attention.create(replace(experiment.recipe.attention, class_names=experiment.val.class_names))
    watch(model.eval())
    with tempfile.TemporaryDirectory() as folder:
        training.train_attention(model, without_masks(experiment.mining), schedule, folder, watch)
        curve = training.read_curve(folder)
    found = {"seed": seed, "step": [0, *curve["step"]], "mean_average_precision": curve["mean_average_precision"]}
    return found | watch.values, watch


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--recipe", default="drawn")
    ask.add_argument("--root", help="where the pictures lie; drawn ones need none")
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    experiment = Experiment.load(recipes.load(args.recipe), args.root)
    trained = []
    for seed in range(args.seeds):
        found, watch = measure(experiment, seed)
        trained.append(found)
        for kind in KINDS:
            print(f"seed {seed}, {kind:15} mass on the object", *(f"{x:.2f}" for x in found[kind]["on_object"]))
        if seed == 0:
            kept = {"pictures": [experiment.val.records[k].id for k in watch.kept], "frames": watch.frames}
    if args.name:
        how = {"script": "benchmarks/maps_by_step.py", "kept": "the maps of seed 0, each (14, 14) in 0..255 as hex"}
        values = {"filled": round(watch.filled(), 4), "trainings": trained, "kept": kept}
        write_result(args.name, values, how | experiment.provenance())


if __name__ == "__main__":
    main()
