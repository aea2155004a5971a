"""A table trains what it needs once, keeps what is finished, and its verdicts need more than one seed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny

from dsna_lib import backbones, measure, paper, pipelines, runs, tables, training
from dsna_lib.attention import ModelConfig
from dsna_lib.measure import Reading
from dsna_lib.tables import Recipe, Row, Setting, Table, TableError
from dsna_lib.training import TrainingConfig

MODEL = ModelConfig(tiny.NAMES, weights=None)
TRAINING = TrainingConfig(epochs=1, batch_size=4, crop=16, workers=0, device="cpu")
TWO = Table("two", "Two rates", (Row("0", Setting(dropout=0.0)), Row("0.5")))


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A folder for runs, and the tiny backbone instead of a real one."""
    monkeypatch.setenv("DSNA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(backbones, "create", lambda name, stride, weights: tiny.backbone())
    pictures = tiny.pictures(tmp_path / "data", masks=True)
    return Recipe(pictures, pictures, MODEL, TRAINING, size=24)


@pytest.fixture
def work(monkeypatch):
    """What was trained and measured, in order."""
    done, train, look = [], training.train_attention, measure.measure
    monkeypatch.setattr(training, "train_attention", lambda *a: done.append("train") or train(*a))
    monkeypatch.setattr(measure, "measure", lambda *a, **k: done.append("measure") or look(*a, **k))
    return done


def quiet(text: str) -> None:
    pass


# --- the tables themselves


@pytest.mark.parametrize("table", tables.TABLES.values(), ids=lambda t: t.name)
def test_every_row_can_be_made(table):
    titles = [row.title for row in table.rows]
    assert len(set(titles)) == len(titles)
    for row in table.rows:
        assert row.reading.map in measure.readings_of(row.setting.head), row.title
        assert row.reading in tables.readings(row.setting)
    assert set(table.columns) <= set(tables.HEADS)


def printed(table: str) -> tuple[dict[str, Mapping[str, float | None]], set[str]]:
    """What the paper prints for each row of a table, and the table's columns."""
    if table == "III":
        rows = {m.title: {} if m.paper is None else {"iou": m.paper} for m in pipelines.METHODS.values()}
        return rows, set(pipelines.KINDS)
    if table == "VI":
        means = paper.TABLE_VI_MEAN
        return {"VGG-16": {"iou": means["vgg16-val"]}, "ResNet-101": {"iou": means["resnet-val"]}}, {"iou"}
    found = tables.find(table)
    return {row.title: row.paper for row in found.rows}, set(found.columns)


@pytest.mark.parametrize("claim", paper.CLAIMS, ids=lambda c: f"{c.table}-{c.text}")
def test_claims_are_about_rows_that_exist_and_hold_in_the_papers_own_numbers(claim):
    rows, columns = printed(claim.table)
    assert len(claim.rows) > 1
    assert set(claim.rows) <= set(rows)
    assert claim.measure in columns
    if claim.source == "paper":
        scores = [rows[title][claim.measure] for title in claim.rows]
        assert all(low < high for low, high in pairwise(scores))


def test_the_papers_rows_are_the_papers():
    assert [row.paper["iou"] for row in tables.TABLES["I"].rows] == [42.1, 39.4, 44.0]
    assert {row.title: row.setting.dropout for row in tables.TABLES["II"].rows}["0.7"] == 0.7
    assert tables.TABLES["single-stream"].rows[0].paper == paper.SINGLE_STREAM


def test_an_unknown_table_or_row_is_refused_with_what_there_is():
    with pytest.raises(TableError, match="unknown table 'VII'; choose one of I, II, single-stream"):
        tables.find("VII")
    with pytest.raises(TableError, match=r"table II has no row '0\.2'; its rows are 0; 0\.3"):
        tables.find("II").select(["0.5", "0.2"])
    assert [row.title for row in tables.find("II").select(["0.5", "0"]).rows] == ["0", "0.5"]


# --- running


def test_values_are_those_of_the_measurements(recipe):
    values, provenance = tables.run(TWO, recipe, seeds=2, say=quiet)
    for row, found in zip(TWO.rows, values["rows"], strict=True):
        each = [tables.measured(row.setting, seed, recipe)[0].scores(row.reading) for seed in range(2)]
        ious = [scores["iou"] for scores in each]
        assert [scores["iou"] for scores in found["seeds"]] == ious
        assert found["mean"]["iou"] == round(float(np.mean(ious)), 2)
        assert found["std"]["iou"] == round(float(np.std(ious, ddof=1)), 2)
    assert values["curves"]["0"][1]["iou"][3] == values["rows"][0]["seeds"][1]["iou"]
    assert sum(line["objects"] for line in values["weight"]["decoupled, dropout 0"]["bins"]) == 2 * len(recipe.val)
    assert provenance["trained"]["decoupled, dropout 0.5"]["1"]["training"]["seed"] == 1
    json.dumps([values, provenance], allow_nan=False)


def test_seeds_make_different_models(recipe):
    values, _ = tables.run(TWO, recipe, seeds=2, say=quiet)
    one, other = values["curves"]["0.5"]
    assert one != other


def test_finished_units_are_found_again(recipe, work):
    first, _ = tables.run(TWO, recipe, seeds=2, say=quiet)
    assert sorted(work) == ["measure"] * 4 + ["train"] * 4
    work.clear()
    again, _ = tables.run(TWO, recipe, seeds=2, say=quiet)
    assert again == first
    assert work == []


def test_tables_share_what_they_have_in_common(recipe, work):
    tables.run(tables.TABLES["I"], recipe, seeds=1, say=quiet)
    work.clear()
    tables.run(tables.TABLES["single-stream"], recipe, seeds=1, say=quiet)
    assert work == ["train", "measure"]  # the single stream only


def test_several_tables_at_once_train_what_they_share_once(recipe, work):
    chosen = [tables.TABLES["I"], tables.TABLES["single-stream"]]
    both = tables.run_all(chosen, recipe, seeds=1, say=quiet)
    assert sorted(work) == ["measure"] * 2 + ["train"] * 2
    for table, (values, provenance) in zip(chosen, both, strict=True):
        alone, how = tables.run(table, recipe, seeds=1, say=quiet)
        assert values == alone
        assert list(provenance["trained"]) == list(how["trained"])
    assert list(both[0][1]["trained"]) == ["decoupled, dropout 0.5"]


def test_a_run_killed_while_measuring_keeps_its_training(recipe, work, monkeypatch):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measure, "measure", killed)
        tables.run(TWO, recipe, seeds=1, say=quiet)
    assert work == ["train"]
    tables.run(TWO, recipe, seeds=1, say=quiet)
    assert work == ["train", "measure", "train", "measure"]


def test_a_damaged_measurement_is_said_and_made_again(recipe, work):
    first, _ = tables.run(TWO, recipe, seeds=1, say=quiet)
    path = next(runs.root().glob("measure/*/measurement.npz"))
    path.write_bytes(path.read_bytes()[:100])
    work.clear()
    with pytest.warns(UserWarning, match=r"measurement\.npz is missing or damaged and is measured again"):
        again, _ = tables.run(TWO, recipe, seeds=1, say=quiet)
    assert work == ["measure"]
    assert again == first


def test_a_failed_setting_is_named_and_the_others_are_kept(recipe, work, monkeypatch):
    once = tables.measured

    def sometimes(setting, seed, recipe, *own):
        if setting.dropout == 0:
            raise RuntimeError("the loss is nan")
        return once(setting, seed, recipe, *own)

    with monkeypatch.context() as patch:
        patch.setattr(tables, "measured", sometimes)
        with pytest.raises(
            RuntimeError,
            match=r"1 of 2 settings failed \(decoupled, dropout 0, seed 0: the loss is nan\), the other 1 are kept",
        ):
            tables.run(TWO, recipe, seeds=1, say=quiet)
    assert work == ["train", "measure"]
    tables.run(TWO, recipe, seeds=1, say=quiet)
    assert work == ["train", "measure"] * 2


def test_no_seeds_or_jobs_are_refused(recipe):
    for wrong in ({"seeds": 0}, {"jobs": 0}):
        with pytest.raises(TableError, match="at least one of each"):
            tables.run(TWO, recipe, **wrong, say=quiet)


def test_several_jobs_give_the_numbers_of_one(recipe, tmp_path, monkeypatch):
    monkeypatch.undo()  # worker processes know real backbones only
    small = replace(recipe, train=tiny.pictures(tmp_path / "few", 4), training=replace(TRAINING, crop=32), size=32)
    found = []
    for jobs in (1, 2):
        monkeypatch.setenv("DSNA_RUNS", str(tmp_path / f"jobs{jobs}"))
        said: list[str] = []
        values, _ = tables.run(TWO, small, seeds=1, jobs=jobs, say=said.append)
        found.append(values)
        assert sorted(line.split(": ", 1)[1] for line in said) == [
            "decoupled, dropout 0, seed 0: done",
            "decoupled, dropout 0.5, seed 0: done",
        ]
    assert found[0] == found[1]


POOL = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from dsna_lib import tables

context = get_context("spawn")
pool = ProcessPoolExecutor(1, context, tables._start_worker, (1, context.Value("i", 0)))
print(pool.submit(os.getpid).result(), flush=True)
pool.submit(time.sleep, 100).result()
"""


def runs_still(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")  # one that has ended may wait there for somebody to ask how
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_workers_end_with_a_killed_command():
    with subprocess.Popen([sys.executable, "-c", POOL], stdout=subprocess.PIPE, text=True) as command:
        worker = int(command.stdout.readline())
        assert runs_still(worker)
        command.kill()
    deadline = time.monotonic() + 20
    while runs_still(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    ended = not runs_still(worker)
    if not ended:
        os.kill(worker, signal.SIGKILL)
    assert ended, "the worker outlived its command"


# --- verdicts


def test_verdicts():
    assert tables.verdict([2.0, 2.5, 3.0]) == "holds"
    assert tables.verdict([-2.0, -2.5, -3.0]) == "does not hold"
    assert tables.verdict([3.0, 2.0, -0.1]) == "within the seeds' spread"  # one seed disagrees
    assert tables.verdict([0.1, 0.1, 5.0]) == "within the seeds' spread"  # the mean is below the deviation
    assert tables.verdict([9.0]) == "one seed: no verdict"


@pytest.mark.parametrize(
    "steps, verdict",
    [
        (["holds", "holds"], "holds"),
        (["holds", "within the seeds' spread"], "within the seeds' spread"),
        (["within the seeds' spread", "does not hold", "holds"], "does not hold"),
        (["holds (one training)", "not separated (one training)"], "not separated (one training)"),
    ],
)
def test_a_claim_of_several_steps_is_judged_step_by_step(steps, verdict):
    assert tables._together([{"verdict": step} for step in steps]) == verdict


def test_the_weakest_step_stands_for_a_claim_of_several(recipe):
    values, _ = tables.run(tables.TABLES["II"].select(["0", "0.5", "0.7"]), recipe, seeds=2, say=quiet)
    claim = next(c for c in values["claims"] if c["text"].startswith("recall grows"))
    recalls = np.array([[each["recall"] for each in row["seeds"]] for row in values["rows"]])  # (rates, seeds)
    steps = np.diff(recalls, axis=0)
    np.testing.assert_allclose(claim["differences"], steps[steps.mean(axis=1).argmin()], atol=0.006)


def counts_of(correct: list[int]) -> np.ndarray:
    """Pictures of ten pixels of one class; how many of them are found."""
    counts = np.zeros((len(correct), 2, 3), int)
    counts[:, 1, 1], counts[:, 1, 2] = correct, 10 - np.array(correct)
    return counts


def test_the_bootstrap_separates_what_the_pictures_separate():
    low, high = tables.bootstrap(counts_of([3, 4, 3, 4] * 5), counts_of([6, 7, 6, 7] * 5), "recall", rounds=200)
    assert low == high == 30.0  # 3 of 10 pixels more in every picture, whichever are drawn
    low, high = tables.bootstrap(counts_of([5, 1] * 9), counts_of([1, 5] * 9), "recall", rounds=200)
    assert low < 0 < high
    assert (low, high) == tables.bootstrap(counts_of([5, 1] * 9), counts_of([1, 5] * 9), "recall", rounds=200)


def test_one_seed_is_judged_by_the_bootstrap_and_says_so(recipe):
    values, _ = tables.run(tables.TABLES["I"], recipe, seeds=1, say=quiet)
    assert len(values["claims"]) == 5
    for claim in values["claims"]:
        assert claim["verdict"].endswith("(one training)")
        low, high = claim["interval"]
        assert claim["verdict"].startswith("holds" if low > 0 else "does not hold" if high < 0 else "not separated")


def test_claims_of_missing_rows_are_not_judged(recipe):
    values, _ = tables.run(tables.TABLES["II"].select(["0", "0.5"]), recipe, seeds=2, say=quiet)
    judged = {claim["text"]: claim for claim in values["claims"]}
    assert "rate 0.5 beats no dropout in IoU" in judged
    assert "rate 0.5 beats rate 0.7 in IoU" not in judged
    gained = [one["iou"] - other["iou"] for other, one in zip(*(row["seeds"] for row in values["rows"]), strict=True)]
    np.testing.assert_allclose(judged["rate 0.5 beats no dropout in IoU"]["differences"], gained, atol=0.006)


# --- rendering

VALUES = {
    "columns": ["precision", "iou"],
    "rows": [
        {"title": "a", "paper": {"precision": 52.0, "iou": None}, "mean": {"precision": 50.0, "iou": 40.04}}
        | {"std": {"precision": 1.0, "iou": 0.25}},
        {"title": "b", "paper": {}, "mean": {"precision": 60.0, "iou": 41.0}, "std": {"precision": None, "iou": None}},
    ],
    "claims": [
        {"text": "b beats a", "source": "paper", "differences": [1.0, 3.0], "verdict": "holds"},
        {
            "text": "a ties b",
            "source": "book",
            "differences": [0.2],
            "interval": [-1.0, 1.5],
            "verdict": "not separated",
        },
    ],
}


def test_markdown():
    assert tables.render(VALUES).splitlines() == [
        "|  | precision | IoU | paper: precision |",
        "| --- | ---: | ---: | ---: |",
        "| a | 50.0 ± 1.0 | 40.0 ± 0.2 | 52.0 |",
        "| b | 60.0 | 41.0 | - |",
    ]
    assert tables.render_claims(VALUES).splitlines()[1:] == [
        "| --- | --- | ---: | --- |",
        "| b beats a | paper | +2.0 (+1.0 to +3.0) | holds |",
        "| a ties b | book | +0.2 (-1.0 to +1.5) | not separated |",
    ]
    assert tables.render_claims({"claims": []}) == ""


def test_columns_of_words_are_aligned_to_the_left():
    rows = [["a", 1.25, None, "long"], ["b", "2.0 ± 0.1", 3, "short"]]
    assert tables.markdown(["row", "IoU", "seeds", "note"], rows, words=["note"]) == (
        "| row | IoU | seeds | note |\n"
        "| --- | ---: | ---: | --- |\n"
        "| a | 1.2 | - | long |\n"
        "| b | 2.0 ± 0.1 | 3 | short |\n"
    )
    assert tables.markdown(["row", "IoU"], []).splitlines()[1] == "| --- | ---: |"
    with pytest.raises(ValueError, match="no column is named 'notes'; the columns are row, note"):
        tables.markdown(["row", "note"], [], words=["notes"])


def test_frame():
    frame = tables.frame(VALUES)
    assert frame.index.tolist() == ["a", "b"]
    assert frame["precision", "paper"]["a"] == 52.0
    assert frame["IoU", "mean"].tolist() == [40.04, 41.0]
    assert ("IoU", "paper") not in frame.columns  # the paper prints none


def test_latex_and_csv():
    latex = tables.render(VALUES, "latex")
    assert r"\toprule" in latex
    assert "a & 50.0 & 1.0 & 52.0 & 40.0" in latex
    assert tables.render(VALUES, "csv").splitlines()[-1].startswith("b,60.0,")
    with pytest.raises(TableError, match="unknown form 'pdf'; choose one of markdown, latex, csv"):
        tables.render(VALUES, "pdf")


def test_a_table_of_ones_own(recipe):
    row = Row("coarse", Setting(dropout=0.0), Reading("maximum", upsample_first=False))
    values, _ = tables.run(Table("own", "Mine", (row,), ("iou",)), recipe, seeds=1, say=quiet)
    assert 0 <= values["rows"][0]["mean"]["iou"] <= 100
