"""Methods that are told more than image labels: each of them from help to scores, and what a labeler is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_experiments
from tiny_experiments import NETWORK, RECIPE

from dsna_lib.data.pictures import read_image, read_mask
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.methods.base import LABELS, lessons, prepare
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.from_help import HelpMethod
from dsna_lib.methods.rows import INTERACTIVE, METHODS, TABLE_III
from dsna_lib.tables.run import Experiment
from dsna_lib.tables.segmentation import train_and_score


@pytest.fixture
def told(tmp_path, monkeypatch):
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    return tiny.told_pictures(tmp_path / "data")


def test_they_are_the_first_block_of_table_iv():
    assert {m.title: (m.needs - LABELS, m.paper) for m in INTERACTIVE} == {
        "ScribbleSup": ({"scribbles"}, 63.1),
        "ScribbleSup (point)": ({"points"}, 51.6),
        "What's the Point": ({"points"}, 46.1),
        "BoxSup": ({"boxes"}, 62.0),
    }
    assert all(METHODS[method.title] is method and method not in TABLE_III for method in INTERACTIVE)


@pytest.mark.parametrize("method", INTERACTIVE, ids=str)
def test_from_help_to_scores(told, tmp_path: Path, method):
    val = tiny.pictures(tmp_path / "val", 4, masks=True)
    score = train_and_score(method, 0, Experiment(RECIPE, told, told, val), NETWORK)
    assert score.counts["iou"].shape == (4, 4, 5)
    assert score.annotation is not None


GIVEN: list[Any] = []


def keep(image: np.ndarray, hint: Any, costs: np.ndarray) -> np.ndarray:
    """A labeler."""
    GIVEN.append((image, hint, costs))
    return np.ones(image.shape[:2], np.uint8)


def fail(image: np.ndarray, hint: Any, costs: np.ndarray) -> np.ndarray:
    """Another one."""
    raise ValueError(f"no idea of {len(hint)}")


def test_a_labeler_is_given_the_picture_the_help_and_the_classifiers_opinion(told):
    pictures = told.with_records([told.records[0], replace(told.records[1], labels=()), told.records[2]])
    method, recipe = HelpMethod("keep", "boxes", keep), replace(RECIPE, annotation=replace(RECIPE.annotation, tau=0.8))
    stage = prepare(method, recipe, told, pictures, 0)
    GIVEN.clear()
    folder = method.annotate(stage)
    assert len(GIVEN) == 2
    assert not read_mask(folder / "p01.png").any()  # shows nothing: nobody is asked
    assert (read_mask(folder / "p00.png") == 1).all()
    opinion = replace(CAM, refined=False).annotate(prepare(CAM, recipe, told, pictures, 0))
    for record, (image, boxes, costs) in zip((pictures.records[0], pictures.records[2]), GIVEN, strict=True):
        np.testing.assert_array_equal(image, read_image(record.image))
        assert boxes == stage.help["boxes"][record.id]
        said, (label,) = read_mask(opinion / f"{record.id}.png"), record.labels
        assert {*np.flatnonzero(np.isfinite(costs[:, 0, 0]))} == {0, label + 1}
        np.testing.assert_allclose(costs[label + 1][said == label + 1], -np.log(0.8), rtol=1e-6)
        np.testing.assert_allclose(costs[0][said == label + 1], -np.log(0.2), rtol=1e-5)
        np.testing.assert_allclose(costs[0][said == 255], np.log(2), rtol=1e-6)
    assert method.annotate(stage) == folder
    assert len(GIVEN) == 2
    assert runs.Run(folder, "", {}).read()["metrics"] == {"origin": "given"}


def test_what_a_labeler_cannot_do_is_named(told):
    method = HelpMethod("fail", "boxes", fail)
    with pytest.raises(RunError, match="8 pictures could not be annotated, such as p00: no idea of 1"):
        method.annotate(prepare(method, RECIPE, told, told, 0))


def test_the_masks_are_never_looked_at(told):
    """The same annotations where there are none."""
    method = METHODS["ScribbleSup"]
    learned, loss = lessons(method, prepare(method, RECIPE, told, told, 0))
    assert loss is None
    for record in told.records:
        record.mask.unlink()
    assert lessons(method, prepare(method, RECIPE, told, told, 0))[0].records == learned.records
