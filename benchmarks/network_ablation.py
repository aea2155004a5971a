"""What each part of the light segmentation network and of its recipe is worth, in the same minutes.

One variant has LargeFOV's design on the same backbone, each of the others changes one choice of the training. All learn
from true masks for about as long (their steps are timed first, and they get as many passes over the pictures as fit; or
the number that is given) and are scored on the validation pictures as Table III is. One training each: small
differences mean nothing. Of variants that are measured later, the file keeps the others.

    python benchmarks/network_ablation.py [--seconds 300] [--name network_ablation]
    python benchmarks/network_ablation.py --variants "SGD instead of AdamW" --passes 4 --name network_ablation
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from dsna_lib import training
from dsna_lib.config import recipe as recipes
from dsna_lib.config.recipe import NetworkConfig
from dsna_lib.data.pictures import Pictures, subset
from dsna_lib.engine.files import read_json
from dsna_lib.engine.provenance import write_result
from dsna_lib.methods.full_supervision import FULL_SUPERVISION
from dsna_lib.segmentation import networks
from dsna_lib.segmentation.training import train_segmentation
from dsna_lib.tables.measure import matrix_of
from dsna_lib.tables.run import Experiment
from dsna_lib.tables.segmentation import train_and_score

# What to change in the network's parts, by the names of NetworkConfig.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "the recipe": {},
    "stride 8 by dilation, without a decoder": {"model": {"decoder": False, "dilation": 4}},
    "SGD instead of AdamW": {"training": {"optimizer": "sgd", "backbone_rate": 0.003, "head_rate": 0.03}},
    "only the last stage learns": {"model": {"train_last": 1}},
    "whole pictures instead of crops": {"training": {"crops": "whole"}},
    "from ImageNet's weights": {"": {"start": "weights"}},
}
TIMED = 5  # steps


def changed(network: NetworkConfig, changes: Mapping[str, Mapping[str, Any]]) -> NetworkConfig:
    """The network with a variant's changes; those under no name are its own."""
    parts = {part: replace(getattr(network, part), **how) for part, how in changes.items() if part}
    return replace(network, **parts, **changes.get("", {}))


def seconds_a_step(network: NetworkConfig, pictures: Pictures) -> float:
    """The median of a few steps; the first ones warm up."""
    config = replace(network.training, epochs=1, held_out=0.0)
    shown = subset(pictures, (TIMED + 2) * config.batch_size)
    model = networks.create(replace(network.model, class_names=pictures.class_names))
    with tempfile.TemporaryDirectory() as folder:
        train_segmentation(model, shown, config, folder)
        ends = [line["seconds"] for line in training.read_log(folder)]
    return statistics.median(after - before for before, after in pairwise(ends[1:]))


def passes_in(seconds: float, network: NetworkConfig, pictures: Pictures) -> int:
    """How many passes over the pictures fit; at least one."""
    steps = len(pictures) // network.training.batch_size
    return max(1, round(seconds / (steps * seconds_a_step(network, pictures))))


def measure(network: NetworkConfig, experiment: Experiment, passes: int) -> dict[str, Any]:
    """Train a variant and score it, in percent."""
    schedule = replace(network.training, epochs=passes, held_out=0.0)
    score = train_and_score(FULL_SUPERVISION, schedule.seed, experiment, replace(network, training=schedule))
    last = score.how["metrics"]  # of the training's last step
    scores = {column: round(100 * matrix_of(each.sum(axis=0)).mean_iou, 2) for column, each in score.counts.items()}
    return {"steps": last["step"], "seconds": round(last["seconds"])} | scores


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--recipe", default="drawn")
    ask.add_argument("--seconds", type=float, default=300.0, help="of training, a variant")
    ask.add_argument("--passes", type=int, help="over the pictures, whatever time they take")
    ask.add_argument("--variants", default=";".join(VARIANTS), help="which, with ; between")
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    recipe = recipes.load(args.recipe)
    experiment, path = Experiment.load(recipe), Path("results") / f"{args.name}.json"
    rows = read_json(path)["values"]["rows"] if args.name and path.is_file() else {}
    for title in args.variants.split(";"):
        network = changed(recipe.network(), VARIANTS[title])
        passes = args.passes or passes_in(args.seconds, network, experiment.train)
        rows[title] = measure(network, experiment, passes)
        print(f"{title:40} {rows[title]}", flush=True)
    if args.name:
        how = {"script": "benchmarks/network_ablation.py", "note": "passes chosen so that variants take about as long"}
        ordered = {title: rows[title] for title in VARIANTS if title in rows}
        write_result(args.name, {"rows": ordered}, how | experiment.provenance())


if __name__ == "__main__":
    main()
