"""Fill in tables of maps: train every head once for each seed, and measure all that any table asks of it.

Trainings and measurements are runs: a second table that shares a head, or the same table after a kill, finds what is
finished.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from scipy import stats

from dsna_lib.config.attention import HeadConfig
from dsna_lib.config.recipe import Recipe
from dsna_lib.data import sources
from dsna_lib.data.pictures import Pictures, without_masks
from dsna_lib.engine import runs
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.files import plain
from dsna_lib.engine.pools import ALONE, Unit, Workers, run_units
from dsna_lib.methods.base import thresholds
from dsna_lib.tables import measure
from dsna_lib.tables.definitions import Table, TableError, protocols_of
from dsna_lib.tables.measure import Measurement
from dsna_lib.tables.verdicts import Evidence, claim_verdicts
from dsna_lib.training import train_once

SIZES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 1.01)  # bins of an object's share of its picture

# Values and provenance of a table, as dsna_lib.engine.provenance.write_result takes them.
Result = tuple[dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class Experiment:
    """A recipe with its pictures.

    Attributes:
        recipe: how everything is trained and measured.
        mining: pictures that attention models and classifiers learn from.
        train: those that are annotated, and that segmentation networks learn from; masks are read by full supervision
            alone.
        val: what everything is measured on; with masks.
    """

    recipe: Recipe
    mining: Pictures
    train: Pictures
    val: Pictures

    @classmethod
    def load(cls, recipe: Recipe, root: str | Path | None = None) -> Experiment:
        """The recipe's own pictures; `root` is where the data set lies, and the embedded one needs none."""
        data = recipe.data
        mining, val = (sources.load_split(data, split, root) for split in (data.train, data.val))
        train = mining if data.segment is None else sources.load_split(data, data.segment, root)
        return cls(recipe, mining, train, val)

    def provenance(self) -> dict[str, Any]:
        """The recipe and what it was applied to."""
        splits = {"mining": self.mining, "train": self.train, "val": self.val}
        return {
            "recipe": plain(asdict(self.recipe)),
            "note": self.recipe.note,
            "pictures": {name: len(pictures) for name, pictures in splits.items()},
            "of_class": dict(zip(self.train.class_names, self.train.targets().int().sum(dim=0).tolist(), strict=True)),
            "data": {name: runs.data_digest(pictures, masks=name == "val") for name, pictures in splits.items()},
        }

    def checked_seeds(self, seeds: int | None) -> int:
        """How many seeds a table is made with, the recipe's where None, once it is known that it can be made at all.

        Raises:
            TableError: less than one.
            PictureError: a picture to measure on without a mask.
        """
        seeds = self.recipe.seeds if seeds is None else seeds
        if seeds < 1:
            raise TableError(f"seeds={seeds}: a table needs at least one")
        measure.require_masks(self.val)
        return seeds


def train_and_measure(
    head: HeadConfig, seed: int, experiment: Experiment, *own: Table
) -> tuple[Measurement, dict[str, Any]]:
    """A trained head's measurement, for all tables and your `own`, and its provenance; what is finished is read."""
    recipe, val, protocols = experiment.recipe, experiment.val, protocols_of(head, *own)
    config = replace(recipe.attention, class_names=experiment.mining.class_names, **asdict(head))
    model, trained = train_once(config, without_masks(experiment.mining), replace(recipe.training, seed=seed))
    path, how = trained.folder / "model.pth", asdict(recipe.maps) | thresholds(recipe.annotation)

    def work(folder: Path) -> dict[str, Any]:
        measured = measure.measure(model.to(choose_device(recipe.training.device)), val, protocols, **how)
        measured.save(folder / "measurement.npz")
        return {"mean_average_precision": measured.mean_average_precision}

    asked = [asdict(protocol) for protocol in protocols]
    data = {"model": runs.file_digest(path), "data": runs.data_digest(val, masks=True)}
    run = runs.complete(runs.open_run("measure", data | {"protocols": asked, "how": how}, measure.__name__), work)
    stored = run.folder / "measurement.npz"
    try:
        return Measurement.load(stored), runs.model_provenance(path)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        warnings.warn(f"{stored} is missing or damaged and is measured again", stacklevel=2)
        work(run.folder)
        return Measurement.load(stored), runs.model_provenance(path)


def run_tables(
    tables: Sequence[Table],
    experiment: Experiment,
    seeds: int | None = None,
    workers: Workers = ALONE,
    say: Callable[[str], None] = print,
) -> list[Result]:
    """Fill in tables: values and provenance of each. A head that several of them share is trained once.

    Args:
        tables: of :data:`~dsna_lib.tables.definitions.TABLES`, or of your own.
        experiment: how to train and measure, and on what.
        seeds: everything is made with seeds 0 .. seeds - 1; None for the recipe's number.
        workers: who does it.
        say: is told what finished.

    Raises:
        TableError, PictureError: see :meth:`Experiment.checked_seeds`.
        RunError: some heads failed; the message names each. The finished ones are kept.
    """
    seeds, classes = experiment.checked_seeds(seeds), experiment.val.num_classes + 1
    work = partial(_measured, experiment=experiment, own=tuple(tables))
    done = run_units(heads_of(tables, seeds), work, workers, say)
    how = {
        "labels": "the true image labels",
        "protocol": f"{experiment.recipe.maps}, no CRF, means over {classes} classes with background",
    }
    results = []
    for table in tables:
        units = heads_of([table], seeds)
        values = summarize(table, {unit: done[unit][0] for unit in units}, seeds)
        trained = {unit: done[unit][1] for unit in units}
        results.append(with_trainings(values, experiment, how, trained))
    return results


def heads_of(tables: Sequence[Table], seeds: int) -> list[Unit]:
    """What tables train: each head with each seed."""
    heads = dict.fromkeys(row.head for table in tables for row in table.rows)
    return [Unit(head, seed) for seed in range(seeds) for head in heads]


def with_trainings(
    values: dict[str, Any], experiment: Experiment, how: dict[str, Any], trained: Mapping[Unit, Mapping[str, Any]]
) -> Result:
    """A table with where its numbers come from, and what the pictures and the models' own reports warn of."""
    warned, by_seed = sources.one_sided(experiment.mining), dict[str, dict[str, Any]]()
    for unit, model in trained.items():
        by_seed.setdefault(str(unit.what), {})[str(unit.seed)] = model
        warned += [f"{unit}: {warning}" for warning in model.get("metrics", {}).get("warnings", [])]
    return values | {"warnings": warned}, experiment.provenance() | how | {"trained": by_seed}


def _measured(unit: Unit, experiment: Experiment, own: Sequence[Table]) -> tuple[Measurement, dict[str, Any]]:
    return train_and_measure(unit.what, unit.seed, experiment, *own)


def summarize(table: Table, measurements: Mapping[Unit, Measurement], seeds: int) -> dict[str, Any]:
    """What a table says, in plain numbers, by the measurements of every head and seed of its rows.

    Returns:
        ``rows`` (``title``, ``paper``, ``mean``, ``std`` over seeds, and ``seeds``), ``claims``; of each training
        ``curves`` over the foreground threshold and ``sizes`` over that of objects; ``weight`` of Eq. 11 by size of
        object, ``mean_average_precision`` of the classifiers.
    """
    of_head = {row.head: [measurements[Unit(row.head, seed)] for seed in range(seeds)] for row in table.rows}
    columns, rows, curves, sizes = (*table.columns, "oracle_threshold"), [], {}, {}
    for row in table.rows:
        trainings = of_head[row.head]
        scores = [each.scores(row.protocol, row.void) for each in trainings]
        wanted = [{name: score[name] for name in columns if name in score} for score in scores]
        rows.append({"title": row.title, "paper": dict(row.paper)} | over_seeds(wanted))
        sizes[row.title] = [each.by_size(row.protocol, SIZES) for each in trainings]
        if row.protocol in trainings[0].curves:
            curves[row.title] = [each.curve(row.protocol) for each in trainings]
    return {
        "table": table.name,
        "title": table.title,
        "columns": list(table.columns),
        "rows": rows,
        "claims": claim_verdicts(table.name, partial(_evidence, table, of_head)),
        "curves": curves,
        "sizes": sizes,
        "weight": {str(head): _weight(known) for head, known in of_head.items() if head.head == "decoupled"},
        "mean_average_precision": {
            str(head): [round(each.mean_average_precision, 4) for each in known] for head, known in of_head.items()
        },
    }


def _evidence(
    table: Table, of_head: Mapping[HeadConfig, Sequence[Measurement]], title: str, measure: str
) -> Evidence | None:
    """Of a row and a measure, or None; rows of one head are readings of the same trainings."""
    for row in table.rows:
        if row.title == title:
            scores = [each.scores(row.protocol, row.void).get(measure) for each in of_head[row.head]]
            if None in scores:
                return None
            without = [each.without(row.protocol, measure, row.void) for each in of_head[row.head]]
            return Evidence(str(row.head), np.array(scores), np.stack(without))
    return None


def over_seeds(each: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The measures of each seed, with their ``mean`` and sample standard deviation ``std``, None of a single seed."""
    known = [name for name in each[0] if all(name in scores for scores in each)]
    columns, several = {name: [scores[name] for scores in each] for name in known}, len(each) > 1
    mean = {name: round(float(np.mean(numbers)), 2) for name, numbers in columns.items()}
    std = {name: round(float(np.std(numbers, ddof=1)), 2) if several else None for name, numbers in columns.items()}
    return {"mean": mean, "std": std, "seeds": list(each)}


def _weight(trainings: Sequence[Measurement]) -> dict[str, Any]:
    """The weight of the expansive map by size of object, all seeds together, and how the two go along."""
    area, weight = np.concatenate([m.area for m in trainings]), np.concatenate([m.weight for m in trainings])
    varied = np.ptp(area) > 0 and np.ptp(weight) > 0
    correlation = round(float(stats.spearmanr(area, weight).statistic), 3) if varied else None
    return {"spearman": correlation, "bins": measure.weight_by_size(area, weight, SIZES)}
