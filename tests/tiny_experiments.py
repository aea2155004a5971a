"""Recipes and experiments that fit in seconds, on the model and the data set of :mod:`tiny`."""

from __future__ import annotations

import atexit
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from dsna_lib import backbones
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.recipe import MapConfig, NetworkConfig, Recipe
from dsna_lib.config.segmentation import InferenceConfig, SegmentationConfig
from dsna_lib.config.training import SegmentationTraining, TrainingConfig
from dsna_lib.tables.run import Experiment

# Every training ends with a full garbage collection, which takes longer than a tiny training: the half million objects
# of the imports need not be looked at each time.
gc.freeze()
atexit.register(gc.unfreeze)

NETWORK = NetworkConfig(
    model=SegmentationConfig(backbone="tiny", channels=8, dilation=1, weights=None),
    training=SegmentationTraining(epochs=1, batch_size=4, crop=17, workers=0, device="cpu"),
    inference=InferenceConfig(scales=(0.7, 1.0)),
)
RECIPE = Recipe(
    title="tiny",
    seeds=1,
    attention=ModelConfig(weights=None),
    training=TrainingConfig(epochs=1, batch_size=4, crop=16, workers=0, device="cpu"),
    maps=MapConfig(size=24),
    networks={"tiny": NETWORK},
)


def use(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Keep runs in this folder, and take the tiny backbone instead of a real one."""
    patch.setenv("DSNA_RUNS", str(folder))
    patch.setattr(backbones, "create", lambda name, stride, weights: tiny.backbone())


def experiment(folder: Path, **changes: Any) -> Experiment:
    """Eight pictures to learn from and four to measure on; `changes` are of the recipe."""
    train, val = tiny.pictures(folder / "data", masks=True), tiny.pictures(folder / "val", 4, masks=True)
    return Experiment(replace(RECIPE, **changes), train, train, val)


def quiet(text: str) -> None:
    """Instead of print."""
