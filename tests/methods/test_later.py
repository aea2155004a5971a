"""Methods that came after the paper: each from labels to scores, once, on tiny pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
from tiny_experiments import NETWORK, RECIPE

from dsna_lib.data.pictures import VOID, read_mask
from dsna_lib.methods.base import Method, prepare
from dsna_lib.methods.later import printed_later
from dsna_lib.methods.rows import LATER
from dsna_lib.tables.run import Experiment
from dsna_lib.tables.segmentation import train_and_score


@pytest.mark.parametrize("method", LATER, ids=str)
def test_from_labels_to_scores(method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One picture has no label, and one has two."""
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    made, val = tiny.pictures(tmp_path / "data", masks=True), tiny.pictures(tmp_path / "val", 4, masks=True)
    bare, both = replace(made.records[-2], labels=()), replace(made.records[-1], labels=(0, 1))
    data = made.with_records([*made.records[:-2], bare, both])
    score = train_and_score(method, 0, Experiment(RECIPE, data, data, val), NETWORK)
    assert score.counts["iou"].shape == (4, 4, 5)
    folder = method.annotate(prepare(method, RECIPE, data, data, seed=0))
    found: set[int] = set()
    for record in data.records:
        mask = read_mask(folder / f"{record.id}.png")
        assert {*np.unique(mask).tolist()} <= {0, VOID, *(label + 1 for label in record.labels)}
        found |= {*np.unique(mask).tolist()}
    assert {0, 1, 2} & found > {0}
    assert not read_mask(folder / f"{bare.id}.png").any()


def test_a_printed_number_is_that_of_one_row() -> None:
    assert printed_later("IRNet") == 63.5
    with pytest.raises(ValueError, match="not enough values"):
        printed_later("SEC")
