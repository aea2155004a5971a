"""What masks of a few pictures teach that cost a person as much as the image labels of all of them.

As many of the drawn pictures are outlined as fit into the time that the labels of all take, and the table's full
supervision learns from these alone: its classifier, too, and by as many steps as with all pictures.

    dsna data make --out minivoc --with-help
    python benchmarks/help_budget.py --root minivoc [--seeds 3] [--scores results/scores/help_budget]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsna_lib.config import recipe as recipes
from dsna_lib.config.recipe import Recipe
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data import effort
from dsna_lib.engine.provenance import write_result
from dsna_lib.methods.full_supervision import FULL_SUPERVISION
from dsna_lib.tables.reproduce import training_work
from dsna_lib.tables.run import Experiment
from dsna_lib.tables.segmentation import run_table_iii


def affordable(pictures: int, counts: effort.Counts) -> int:
    """How many pictures are outlined in the time that the labels of so many take."""
    return int(pictures * effort.seconds("labels", counts) / effort.seconds("masks", counts))


def passes(schedule: TrainingConfig, many: int, few: int) -> int:
    """The epochs over a few pictures that have about as many steps as the schedule has over many."""
    _, steps, *_ = training_work(schedule, many, trainings=1)
    _, in_an_epoch, *_ = training_work(replace(schedule, epochs=1), few, trainings=1)
    return round(steps / max(1, in_an_epoch))


def smaller(recipe: Recipe, many: int, few: int) -> list[str]:
    """What to change in a recipe of many drawn pictures for one of a few."""
    changes = [f"data.drawn={few}", f"training.epochs={passes(recipe.training, many, few)}"]
    return changes + [
        f"networks.{name}.training.epochs={passes(network.training, many, few)}"
        for name, network in recipe.networks.items()
    ]


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--recipe", default="drawn")
    ask.add_argument("--root", type=Path, required=True, help="the drawn data set with its help")
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--scores", type=Path, help="of trainings that were made before, see `dsna table`")
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    whole = recipes.load(args.recipe)
    told = Experiment.load(whole, args.root).train
    counts = effort.counts_of(told)
    few = affordable(len(told), counts)
    recipe = recipes.load(args.recipe, smaller(whole, len(told), few))
    network = recipe.network(None)
    values, how = run_table_iii([FULL_SUPERVISION], Experiment.load(recipe), network, args.seeds, kept=args.scores)
    found: dict[str, Any] = {"counts": counts._asdict(), "pictures": {"labels": len(told), "masks": few}}
    for row in values["rows"]:  # which has no other ceiling than itself
        for numbers in (row["mean"], row["std"], *row["seeds"]):
            numbers.pop("share")
    found["rows"] = values["rows"]
    print(f"{few} pictures outlined, or {len(told)} labeled: {values['rows'][0]['mean']}")
    if args.name:
        print(f"written to {write_result(args.name, found, {'script': 'benchmarks/help_budget.py'} | how)}")


if __name__ == "__main__":
    main()
