"""Trainings, one alone or those of the paper's tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import timm

from dsna_lib import backbones, training
from dsna_lib.cli.main import UsageError, warn
from dsna_lib.cli.options import DRAWN, given
from dsna_lib.config import recipe as recipes
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.recipe import NetworkConfig, Recipe
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.tables import TITLES
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data import Pictures, sources
from dsna_lib.engine import devices
from dsna_lib.engine.files import refuse_unwritable
from dsna_lib.engine.pools import Workers
from dsna_lib.engine.runs import Run
from dsna_lib.methods import rows
from dsna_lib.methods.sec import SECLoss
from dsna_lib.segmentation import training as segmentation_training
from dsna_lib.tables import published, render, segmentation
from dsna_lib.tables import reproduce as plans
from dsna_lib.tables.definitions import find_table
from dsna_lib.tables.run import Experiment, Result, run_tables

Schedule = TypeVar("Schedule", bound=TrainingConfig)


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe that was named, with its changes; where only a data set was, the paper's schedules."""
    if args.recipe is not None:
        return recipes.load(args.recipe, args.changes or ())
    if args.changes:
        raise UsageError(f"-p {args.changes[0]} changes a recipe: name it (--recipe)")
    if args.data is None:
        raise UsageError("name a data set (--data) or a recipe (--recipe)")
    return Recipe()


def _check_backbone(name: str) -> None:
    """Refuse a backbone that is not there, before pictures are loaded."""
    if name not in backbones.OWN and not timm.is_model(name):
        raise UsageError(f"unknown backbone {name!r}; choose {', '.join(backbones.OWN)} or a timm model")


# --- one training -----------------------------------------------------------------------------------------------------


def train(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna train``."""
    recipe = _recipe(args)
    model = replace(recipe.attention, **given(args, ModelConfig))
    config = _schedule(args, recipe.training)
    pictures = _pictures(args, recipe, model.backbone, recipe.data.train)
    model = replace(model, class_names=pictures.class_names)
    warn(args, warnings := sources.one_sided(pictures))
    return _trained(pictures, training.train_once(model, pictures, config, args.out)[1], warnings)


def train_segmentation(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna train-segmentation``."""
    if bool(args.annotations) == args.truth:
        raise UsageError("name either a folder of annotations (--annotations) or the true masks (--truth)")
    if args.network and not args.recipe:
        raise UsageError("--network is one of a recipe's: name the recipe (--recipe)")
    try:
        loss = None if args.sec is None else SECLoss(tuple(args.sec))
    except ValueError as error:
        raise UsageError(f"--sec: {error}") from error
    recipe = _recipe(args)
    network = recipe.network(args.network) if args.recipe else NetworkConfig()
    model = replace(network.model, **(asked := given(args, SegmentationConfig)))
    if network.start == "attention" and "weights" not in asked:
        said = "the recipe's network starts where its attention model ended"
        raise UsageError(f"{said}: name that model's file (--weights FILE), or another start (--weights imagenet)")
    config = _schedule(args, network.training)
    pictures = _pictures(args, recipe, model.backbone, recipe.data.segment or recipe.data.train)
    if args.annotations:
        listed = len(pictures)
        pictures = segmentation_training.with_annotations(pictures, args.annotations, args.skip_missing)
        if len(pictures) < listed:
            print(f"{listed - len(pictures)} of {listed} pictures have no annotation and are left out.")
    model = replace(model, class_names=pictures.class_names)
    return _trained(pictures, segmentation_training.train_once(model, pictures, config, args.out, loss)[1])


def _schedule(args: argparse.Namespace, config: Schedule) -> Schedule:
    """A schedule with --quick and with what was given on the command line."""
    changes = (config.QUICK if args.quick else {}) | given(args, type(config))
    if "device" in changes and config.precision == devices.native_precision(config.device):
        changes = {"precision": "auto"} | changes  # it was the quickest of another device
    return replace(config, **changes)


def _pictures(args: argparse.Namespace, recipe: Recipe, backbone: str, split: str) -> Pictures:
    """The split that was asked for, or that of the recipe."""
    _check_backbone(backbone)
    data = replace(recipe.data, source=args.data or recipe.data.source, limit=args.limit or recipe.data.limit)
    return sources.load_split(data, args.split or split, args.root)


def _trained(pictures: Pictures, run: Run, warnings: Sequence[str] = ()) -> dict[str, Any]:
    path, metrics = run.folder / "model.pth", run.read()["metrics"]
    print(path)
    warned = {"warnings": [*warnings, *metrics.get("warnings", ())]}
    return {"done": len(pictures), "model": path, "folder": run.folder, **metrics, **warned}


# --- tables -----------------------------------------------------------------------------------------------------------


def table(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna table``."""
    names = list(dict.fromkeys(args.names))
    if args.rows and len(names) > 1:
        raise UsageError("--rows takes rows of one table: name one table")
    by_method = [name for name in names if name == "III" or (name == "IV" and (args.recipe or args.rows))]
    shown = [name for name in names if name in published.TITLES and name not in by_method]
    maps = [find_table(name) for name in names if name not in (*by_method, *shown)]
    maps = [maps[0].select(args.rows)] if args.rows and maps else maps
    result: dict[str, Any] = {"done": len(names), "files": {}, "tables": {}, "warnings": []}
    if maps or by_method:
        refuse_unwritable(args.out / f"table_{names[0]}.json")  # before anything is trained
        args.recipe = args.recipe or DRAWN
        recipe, workers = _recipe(args), Workers(args.jobs, args.scheduler)
        network = recipe.network(args.network) if by_method else None
        asked = rows.select(args.rows or network.rows) if network else []
        experiment = _experiment(recipe, args.root)
        for measured in run_tables(maps, experiment, args.seeds, workers) if maps else ():
            _keep(args, result, measured, recipe.attention.backbone)
        for name in by_method:
            assert network is not None
            everybody = name == "IV" and not args.rows
            methods = segmentation.told_enough(rows.TABLE_IV, experiment) if everybody else asked
            measured = segmentation.run_table_iii(
                methods, experiment, network, args.seeds, workers, table=name, kept=args.scores
            )
            _keep(args, result, measured, network.model.backbone)
    for name in shown:
        print(f"\n{TITLES[name]}\n\n{published.render_published(name, args.out)}")
    return result


def _experiment(recipe: Recipe, root: Path | None) -> Experiment:
    for name in (recipe.attention.backbone, *(network.model.backbone for network in recipe.networks.values())):
        _check_backbone(name)
    return Experiment.load(recipe, root)


def _keep(args: argparse.Namespace, result: dict[str, Any], measured: Result, backbone: str) -> None:
    """Write a table that was measured, and print it."""
    values, provenance = measured
    name, noted = values["table"], {} if args.note is None else {"note": args.note}
    provenance = {"command": "dsna table"} | provenance | noted
    result["files"][name] = plans.keep((values, provenance), backbone, args.out)
    result["tables"][name] = values
    if args.format != "markdown":  # which has them below the table
        result["warnings"] += [f"table {name}: {warning}" for warning in values["warnings"]]
    print(f"\n{values['title']}\n\n{render.render_table(values, args.format)}\n{render.render_claims(values)}")
    print(f"written to {result['files'][name]}")


def reproduce(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna reproduce``."""
    plan = plans.plan(_experiment(_recipe(args), args.root), args.root)
    print(plan)
    if args.dry_run:
        return {"done": 0, "plan": str(plan)}
    refuse_unwritable(args.out / "table.json")  # before anything is trained
    files = plans.run(plan, Workers(args.jobs, args.scheduler), args.out, kept=args.scores)
    for name, path in files.items():
        print(f"{name}: {path}")
    return {"done": len(files), "files": files}
