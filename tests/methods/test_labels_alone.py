"""The methods of Table IV that are told image labels alone: each from labels to a network, once, on tiny pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
from tiny_experiments import NETWORK, RECIPE

from dsna_lib.data.pictures import VOID, Pictures, read_mask
from dsna_lib.methods import rows, two_phase
from dsna_lib.methods.base import LABELS, Method, lessons, prepare
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.table_iv import printed
from dsna_lib.segmentation.training import train_once

# What is annotated: without a foreground class where a method leaves its name open.
ANNOTATED = {"BFBP", "DCSM", "AF-SS", "Two-phase", "Anirban et al."}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder of runs that all methods share, and with it their classifier."""
    folder = tmp_path_factory.mktemp("labels")
    with pytest.MonkeyPatch.context() as patch:
        tiny_experiments.use(patch, folder / "runs")
        yield folder


@pytest.fixture(scope="module")
def data(here: Path) -> Pictures:
    """Eight pictures; the last has two labels, and the one before it none."""
    made = tiny.pictures(here / "data", masks=True)
    bare = replace(made.records[-2], labels=())
    return made.with_records([*made.records[:-2], bare, replace(made.records[-1], labels=(0, 1))])


def test_the_rows_are_table_ivs() -> None:
    assert [method.title for method in rows.LABELS_ALONE] == [
        "EM-Adapt", "BFBP", "DCSM", "AF-SS", "Two-phase", "Anirban et al."
    ]  # fmt: skip
    for method in rows.LABELS_ALONE:
        assert method.paper == printed(method.title)
        assert method.needs == LABELS
        assert rows.METHODS[method.title] is method
        assert method not in rows.TABLE_III
        assert method not in rows.select()
    assert rows.MIL_FCN.paper == printed("MIL-FCN")
    with pytest.raises(KeyError, match="Table IV has 2 rows of a method 'DSNA'"):
        printed("DSNA")


@pytest.mark.parametrize("method", rows.LABELS_ALONE, ids=str)
def test_from_labels_to_a_network(method: Method, data: Pictures, here: Path) -> None:
    stage = prepare(method, RECIPE, data, data, seed=0)
    learned, loss = lessons(method, stage)
    annotated = [record for record in learned.records if record.mask is not None]
    assert len(annotated) == (len(data) if method.title in ANNOTATED else 0)
    found: set[int] = set()
    for record, known in zip(annotated, data.records, strict=False):
        values = {*np.unique(read_mask(record.mask)).tolist()}
        assert values <= {0, *((label + 1 for label in known.labels) if len(known.labels) < 2 else (1, 2, VOID))}
        assert values == {0} or known.labels
        found |= values
    assert not annotated or (0 in found and found & {1, 2, 3})
    _, run = train_once(replace(NETWORK.model, class_names=tiny.NAMES), learned, NETWORK.training, loss=loss)
    assert run.finished
    assert np.isfinite(run.read()["metrics"]["loss"])
    if annotated:  # found again, nothing made twice
        assert method.annotate(stage) == annotated[0].mask.parent


def test_another_threshold_is_another_folder(data: Pictures, here: Path) -> None:
    changed = replace(RECIPE, annotation=replace(RECIPE.annotation, foreground_threshold=0.4, crf="none"))
    usual = replace(RECIPE, annotation=replace(RECIPE.annotation, crf="none"))
    for method in rows.LABELS_ALONE:
        if method.title in ANNOTATED - {"BFBP"}:
            folders = {method.annotate(prepare(method, recipe, data, data, seed=0)) for recipe in (usual, changed)}
            assert len(folders) == 2


def test_two_phase_trains_one_network_more_and_keeps_it(data: Pictures, here: Path, monkeypatch) -> None:
    done, train = [], two_phase.train_attention
    monkeypatch.setattr(two_phase, "train_attention", lambda model, *a: done.append(model) or train(model, *a))
    stage = prepare(two_phase.TWO_PHASE, RECIPE, data, data, seed=1)
    first, file = stage.train(CAM.head)
    before = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    model, path = two_phase.second_phase(stage, first, file)
    again, same = two_phase.second_phase(stage, stage.train(CAM.head)[0], file)
    assert len(done) == 1
    assert path == same != file
    assert tiny.same(again.state_dict(), model.state_dict())
    assert tiny.same(before, first.state_dict())
    assert not tiny.same(before, {k: v for k, v in model.state_dict().items() if not k.startswith("first.")})
