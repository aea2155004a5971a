"""A table trains what it needs once, keeps what is finished, and its verdicts need more than one seed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from tiny_experiments import RECIPE, quiet

from dsna_lib import paper, training
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.attention import HeadConfig
from dsna_lib.config.recipe import DataConfig, MapConfig
from dsna_lib.data.pictures import PictureError, without_masks
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.pools import PoolError, Workers
from dsna_lib.tables import measure, render, run
from dsna_lib.tables.definitions import TABLES, Row, Table, TableError
from dsna_lib.tables.measure import MapProtocol
from dsna_lib.tables.run import Experiment, run_tables, train_and_measure

TWO = Table("two", "Two rates", (Row("0", HeadConfig(dropout=0.0)), Row("0.5")))


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A folder for runs, and the tiny backbone instead of a real one."""
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    pictures = tiny.pictures(tmp_path / "data", masks=True)
    return Experiment(RECIPE, pictures, pictures, pictures)


@pytest.fixture
def work(monkeypatch):
    """What was trained and measured, in order."""
    done, train, look = [], training.train_attention, measure.measure
    monkeypatch.setattr(training, "train_attention", lambda *a: done.append("train") or train(*a))
    monkeypatch.setattr(measure, "measure", lambda *a, **k: done.append("measure") or look(*a, **k))
    return done


def only(table: Table, experiment: Experiment, seeds: int = 1) -> run.Result:
    """One table."""
    (result,) = run_tables([table], experiment, seeds, say=quiet)
    return result


# --- running


def test_values_are_those_of_the_measurements(experiment):
    values, provenance = only(TWO, experiment, 2)
    for row, summary in zip(TWO.rows, values["rows"], strict=True):
        each = [train_and_measure(row.head, seed, experiment)[0].scores(row.protocol) for seed in range(2)]
        ious = [scores["iou"] for scores in each]
        assert [scores["iou"] for scores in summary["seeds"]] == ious
        assert summary["mean"]["iou"] == round(float(np.mean(ious)), 2)
        assert summary["std"]["iou"] == round(float(np.std(ious, ddof=1)), 2)
    assert values["curves"]["0"][1]["iou"][3] == values["rows"][0]["seeds"][1]["iou"]
    assert sum(line["objects"] for line in values["weight"]["decoupled, dropout 0"]["bins"]) == 2 * len(experiment.val)
    assert provenance["trained"]["decoupled, dropout 0.5"]["1"]["training"]["seed"] == 1
    assert provenance["recipe"]["maps"]["size"] == 24
    assert provenance["pictures"] == {"mining": 8, "train": 8, "val": 8}
    json.dumps([values, provenance], allow_nan=False)


def test_seeds_make_different_models(experiment):
    values, _ = only(TWO, experiment, 2)
    first, second = values["curves"]["0.5"]
    assert first != second


def test_finished_units_are_found_again(experiment, work):
    first, _ = only(TWO, experiment, 2)
    assert sorted(work) == ["measure"] * 4 + ["train"] * 4
    work.clear()
    again, _ = only(TWO, experiment, 2)
    assert again == first
    assert work == []


def test_tables_share_what_they_have_in_common(experiment, work):
    only(TABLES["I"], experiment, 1)
    work.clear()
    only(TABLES["single-stream"], experiment, 1)
    assert work == ["train", "measure"]  # the single stream only


def test_several_tables_at_once_train_what_they_share_once(experiment, work):
    chosen = [TABLES["I"], TABLES["single-stream"]]
    both = run_tables(chosen, experiment, seeds=1, say=quiet)
    assert sorted(work) == ["measure"] * 2 + ["train"] * 2
    for table, (values, provenance) in zip(chosen, both, strict=True):
        alone, how = only(table, experiment, 1)
        assert values == alone
        assert list(provenance["trained"]) == list(how["trained"])
    assert list(both[0][1]["trained"]) == ["decoupled, dropout 0.5"]


def test_a_run_killed_while_measuring_keeps_its_training(experiment, work, monkeypatch):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measure, "measure", killed)
        only(TWO, experiment, 1)
    assert work == ["train"]
    only(TWO, experiment, 1)
    assert work == ["train", "measure", "train", "measure"]


def test_a_damaged_measurement_is_said_and_made_again(experiment, work):
    first, _ = only(TWO, experiment, 1)
    path = next(runs.root().glob("measure/*/measurement.npz"))
    path.write_bytes(path.read_bytes()[:100])
    work.clear()
    with pytest.warns(UserWarning, match=r"measurement\.npz is missing or damaged and is measured again"):
        again, _ = only(TWO, experiment, 1)
    assert work == ["measure"]
    assert again == first


def test_a_failed_head_is_named_and_the_others_are_kept(experiment, work, monkeypatch):
    once = train_and_measure

    def sometimes(head, seed, experiment, *own):
        if head.dropout == 0:
            raise RuntimeError("the loss is nan")
        return once(head, seed, experiment, *own)

    with monkeypatch.context() as patch:
        patch.setattr(run, "train_and_measure", sometimes)
        with pytest.raises(
            RunError, match=r"1 of 2 failed \(decoupled, dropout 0, seed 0: the loss is nan\), the other 1 are kept"
        ):
            only(TWO, experiment, 1)
    assert work == ["train", "measure"]
    only(TWO, experiment, 1)
    assert work == ["train", "measure"] * 2


def test_no_seeds_or_jobs_are_refused(experiment, work):
    with pytest.raises(TableError, match="seeds=0: a table needs at least one"):
        run_tables([TWO], experiment, seeds=0, say=quiet)
    with pytest.raises(PoolError, match="jobs=0 must be at least 1"):
        run_tables([TWO], experiment, workers=Workers(jobs=0), say=quiet)
    assert work == []


def test_the_recipe_says_how_many_seeds(experiment):
    two = replace(experiment, recipe=replace(experiment.recipe, seeds=2))
    ((values, _),) = run_tables([TWO.select(["0"])], two, say=quiet)
    assert len(values["rows"][0]["seeds"]) == 2


def test_pictures_without_masks_are_refused_before_anything_is_trained(experiment, work):
    with pytest.raises(PictureError, match=r"p00\.png has no ground-truth mask to measure against"):
        only(TWO, replace(experiment, val=without_masks(experiment.val)))
    assert work == []


def test_pictures_to_learn_from_need_no_masks(experiment, work):
    values, _ = only(TWO, experiment)
    blind = without_masks(experiment.train)
    again, _ = only(TWO, replace(experiment, mining=blind, train=blind))
    assert again == values
    assert work == ["train", "measure"] * 2


@pytest.mark.parametrize(
    "changes, again",
    [
        ({"annotation": AnnotationConfig(foreground_threshold=0.23)}, ["measure"]),
        ({"annotation": AnnotationConfig(background_threshold=0.6)}, ["measure"]),
        ({"annotation": AnnotationConfig(tau=0.9, crf="none")}, []),  # no annotation of a table of maps is refined
        ({"maps": MapConfig(size=32)}, ["measure"]),
        ({"training": replace(RECIPE.training, head_rate=0.02)}, ["train", "measure"]),
        ({"attention": replace(RECIPE.attention, train_last=1)}, ["train", "measure"]),
        ({"title": "another", "note": "of no consequence"}, []),
    ],
)
def test_what_the_recipe_changes_is_made_again(experiment, work, changes, again):
    table = TWO.select(["0"])
    usual, _ = only(table, experiment)
    work.clear()
    other, provenance = only(table, replace(experiment, recipe=replace(experiment.recipe, **changes)))
    assert work == again
    assert (other == usual) == (again == [])
    assert provenance["note"] == changes.get("note", "")


def test_other_pictures_to_measure_on_are_measured_anew(experiment, work):
    few = experiment.val.with_records(experiment.val.records[:4])
    only(TWO.select(["0"]), experiment)
    work.clear()
    only(TWO.select(["0"]), replace(experiment, val=few))
    assert work == ["measure"]


def test_several_jobs_give_the_numbers_of_one(experiment, tmp_path, monkeypatch):
    monkeypatch.undo()  # worker processes know real backbones only
    recipe = replace(RECIPE, training=replace(RECIPE.training, crop=32), maps=MapConfig(size=32))
    small = replace(experiment, recipe=recipe, mining=tiny.pictures(tmp_path / "few", 4))
    of_jobs = []
    for jobs in (1, 2):
        monkeypatch.setenv("DSNA_RUNS", str(tmp_path / f"jobs{jobs}"))
        said: list[str] = []
        ((values, _),) = run_tables([TWO], small, seeds=1, workers=Workers(jobs), say=said.append)
        of_jobs.append(values)
        assert sorted(line.split(": ", 1)[1] for line in said) == [
            "decoupled, dropout 0, seed 0: done",
            "decoupled, dropout 0.5, seed 0: done",
        ]
    assert of_jobs[0] == of_jobs[1]


def test_a_collapsed_classifier_is_named_by_the_table_and_its_counts_are_kept(experiment, monkeypatch):
    """One of two heads has a bias that drowns everything else."""
    train = training.train_attention

    def collapsing(model, *arguments):
        folder = train(model, *arguments)
        if model.config.dropout == 0:
            model.head.discriminative.bias.data = torch.tensor([0.0, 100.0, 0.0])
        return folder

    monkeypatch.setattr(training, "train_attention", collapsing)
    learning = replace(RECIPE.training, epochs=10, backbone_rate=0.15, head_rate=0.3)
    experiment = replace(experiment, recipe=replace(RECIPE, training=learning))
    values, provenance = only(TWO, experiment)
    (warning,) = values["warnings"]
    assert warning.startswith("decoupled, dropout 0, seed 0: the classifier answers green to all")
    assert f"- Warning: {warning}." in render.render_table(values).splitlines()
    reports = [provenance["trained"][f"decoupled, dropout {rate}"]["0"]["metrics"] for rate in ("0", "0.5")]
    assert reports[0]["classes_answered"] == 1 < reports[1]["classes_answered"]
    assert [len(report["warnings"]) for report in reports] == [1, 0]
    json.dumps([values, provenance], allow_nan=False)


def test_an_experiment_is_loaded_from_its_recipe():
    """The pictures that are segmented are those of mining, unless the recipe names a split for them."""
    recipe = replace(RECIPE, data=DataConfig(limit=3, drawn=5))
    usual = Experiment.load(recipe)
    assert [len(pictures) for pictures in (usual.mining, usual.train, usual.val)] == [3, 3, 3]
    assert usual.train is usual.mining
    other = Experiment.load(replace(recipe, data=replace(recipe.data, segment="val")))
    assert [record.id for record in other.train.records] == [record.id for record in usual.val.records]
    assert [record.id for record in other.mining.records] == [record.id for record in usual.mining.records]


# --- claims


def test_a_claim_about_several_rows_is_one_slope(experiment):
    values, _ = only(TABLES["II"].select(["0", "0.5", "0.7"]), experiment, 2)
    claim = next(c for c in values["claims"] if c["text"].startswith("recall grows"))
    first, _, last = (np.mean([each["recall"] for each in row["seeds"]]) for row in values["rows"])
    assert claim["difference"] == pytest.approx(last - first, abs=0.011)  # the middle one has no say in the slope
    assert claim["low"] < claim["difference"] < claim["high"]
    assert claim["verdict"] == "2 trainings: no verdict"


def test_one_training_gives_no_verdict(experiment):
    values, _ = only(TABLES["I"], experiment, 1)
    texts = [claim.text for claim in paper.CLAIMS if claim.table == "I"]
    assert [claim["text"] for claim in values["claims"]] == [text for text in texts if " objects" not in text]
    for claim in values["claims"]:
        assert claim["verdict"] == "one training: no verdict"
        assert claim["low"] is claim["p"] is claim["corrected"] is None


def test_rows_of_one_head_are_readings_of_the_same_trainings(experiment):
    measured = {unit.what: train_and_measure(unit.what, 0, experiment)[0] for unit in run.heads_of([TWO], 1)}
    of_head = {head: [each] for head, each in measured.items()}
    one, other = (run._evidence(TWO, of_head, title, "iou") for title in ("0", "0.5"))
    assert one.setting != other.setting
    expansive, merged = (run._evidence(TABLES["I"], of_head, title, "iou") for title in ("expansive", "merged"))
    assert expansive.setting == merged.setting == other.setting
    assert (merged.scores, merged.without.shape) == (other.scores, (1, len(experiment.val)))
    assert run._evidence(TABLES["I"], of_head, "merged", "part") is None
    assert run._evidence(TABLES["I"], of_head, "no row", "iou") is None


def test_claims_of_missing_rows_are_not_judged(experiment):
    values, _ = only(TABLES["II"].select(["0", "0.5"]), experiment, 2)
    judged = {claim["text"]: claim for claim in values["claims"]}
    assert "rate 0.5 beats no dropout in IoU" in judged
    assert "rate 0.5 beats rate 0.7 in IoU" not in judged
    pairs = zip(*(row["seeds"] for row in values["rows"]), strict=True)
    gained = [with_dropout["iou"] - without["iou"] for without, with_dropout in pairs]
    assert judged["rate 0.5 beats no dropout in IoU"]["difference"] == pytest.approx(np.mean(gained), abs=0.011)


def test_a_table_of_ones_own(experiment):
    row = Row("coarse", HeadConfig(dropout=0.0), MapProtocol("maximum", upsample_first=False))
    values, _ = only(Table("own", "Mine", (row,), ("iou",)), experiment)
    assert 0 <= values["rows"][0]["mean"]["iou"] <= 100


def test_seeds_that_lack_a_measure_leave_it_out():
    each = [{"iou": 40.0, "part": 1.0}, {"iou": 43.0}]
    spread = run.over_seeds(each)
    assert spread == {"mean": {"iou": 41.5}, "std": {"iou": round(math.sqrt(4.5), 2)}, "seeds": each}
    assert run.over_seeds(each[:1])["std"] == {"iou": None, "part": None}
