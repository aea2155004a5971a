"""All tables of a recipe: the plan counts what is done, and a killed run goes on to the results of one that was not."""

from __future__ import annotations

import json
import os
import signal
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_experiments
from tiny_experiments import NETWORK, RECIPE, quiet

from dsna_lib import training
from dsna_lib.config import recipe as recipes
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.recipe import DataConfig
from dsna_lib.config.segmentation import InferenceConfig
from dsna_lib.data import sources
from dsna_lib.data.pictures import Pictures, Record, read_mask, without_masks
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError, SettingError
from dsna_lib.engine.files import read_json
from dsna_lib.maps import MAP_KINDS
from dsna_lib.methods.base import MethodError
from dsna_lib.tables import reproduce, segmentation
from dsna_lib.tables.reproduce import keep
from dsna_lib.tables.run import Experiment

ROWS = ("SEC, seed", "AE, step 2", "DSNA, expansive", "DSNA, merged", "MIL-FCN", "full supervision")
TABLES = ("I", "single-stream", "III", "IV", "VI")
# Without a CRF, which not every Python has; two epochs, so that half of each training is kept when it is killed.
SHORT = {"epochs": 2, "drop_after": 2}
SMALL = replace(
    NETWORK,
    rows=ROWS,
    training=replace(NETWORK.training, **SHORT),
    inference=InferenceConfig(scales=(0.7, 1.0), crf="none"),
)
RECIPE = replace(
    RECIPE,
    tables=TABLES,
    training=replace(RECIPE.training, **SHORT),
    annotation=AnnotationConfig(crf="none"),
    networks={"small": SMALL},
)
# Decoupled and single-stream attention, CAM's classifier, one for what AE erased, and a network a row; each shows 8
# pictures twice, by fours.
TRAININGS, STEPS_EACH = 4 + len(ROWS), 4
FILES = {
    "I": "table_I_minivoc.json",
    "single-stream": "table_single-stream_minivoc.json",
    "III, small": "table_III_minivoc.json",
    "IV": "table_IV.md",
    "VI": "table_VI.md",
}


def experiment_in(folder: Path, **changes: Any) -> Experiment:
    return replace(tiny_experiments.experiment(folder), recipe=replace(RECIPE, **changes))


def reproduced(experiment: Experiment, out: Path) -> dict[str, Path]:
    return reproduce.run(reproduce.plan(experiment), out=out, say=quiet)


def results(out: Path) -> dict[str, Any]:
    """What the files say; of provenance only what does not tell when and how long."""
    said: dict[str, Any] = {}
    for path in sorted(out.iterdir()):
        if path.suffix == ".json":
            content = read_json(path)
            trained = content["provenance"]["trained"]
            digests = {(what, seed): how["file"] for what, seeds in trained.items() for seed, how in seeds.items()}
            said[path.name] = content["values"], digests
        else:
            said[path.name] = path.read_text()
    return said


def stop_at(step: int, stop: Callable[[], Any]) -> Callable[..., float]:
    """A training step that does something else when it is called for the n-th time."""
    done, once = [], training._step

    def stopping(*arguments: Any) -> float:
        if len(done) == step:
            stop()
        done.append(1)
        return once(*arguments)

    return stopping


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one a training step."""
    done: list[int] = []
    once = training._step
    monkeypatch.setattr(training, "_step", lambda *a: done.append(1) or once(*a))
    return done


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing is made yet."""
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    return tmp_path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a run that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        tiny_experiments.use(patch, folder / "runs")
        reproduced(experiment_in(folder), folder / "out")
    return results(folder / "out")


# --- plans


def stand_in(count: int) -> Pictures:
    """Pictures that are counted and never looked at."""
    return Pictures([Record(f"p{k:02d}", Path(f"p{k:02d}.png"), (0,)) for k in range(count)], ("cat", "dog"))


@pytest.fixture
def plan_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], reproduce.Plan]:
    """The plan of one of the book's recipes for 64 pictures to mine, 30 to segment, 8 to measure on and 7 of test."""
    monkeypatch.setattr(sources, "load_split", lambda data, split, root: stand_in(7))

    def plan(name: str) -> reproduce.Plan:
        return reproduce.plan(Experiment(recipes.load(name), stand_in(64), stand_in(30), stand_in(8)))

    return plan


PLANNED = ("photographs-cpu", "photographs-resnet50", "photographs-vgg16", "drawn", "colab", "paper")


def test_every_recipe_of_the_book_is_planned_here():
    named = {file.stem for file in (Path(__file__).parents[2] / "recipes").glob("*.toml")}
    assert named == set(PLANNED)


# 64 pictures, of which 4 are held out and looked at ten times; 60 make 3 batches of 16. Three heads, four epochs.
THREE_HEADS = [3, 3 * 12, 3 * 12 * 16, 3 * (8 + 10 * 4), 0]


def test_the_plan_of_an_attention_model_alone_by_hand(plan_of):
    assert [work.tolist() for _, work in plan_of("photographs-vgg16").steps()] == [THREE_HEADS]


def test_the_plan_of_two_rows_on_the_same_backbone_by_hand(plan_of):
    """2 of 30 pictures are held out, the others make one batch of 16; one method annotates, two networks segment."""
    maps, networks = (work.tolist() for _, work in plan_of("photographs-resnet50").steps())
    assert maps == THREE_HEADS
    assert networks == [2, 2 * 6, 2 * 6 * 16, 30 + 2 * (8 + 10 * 2), 30 + 2 * 8]


def test_the_plan_of_photographs_by_hand(plan_of):
    """One seed. Attention: as above, 5 epochs of 3 batches of 16 are 15 steps; the networks: see below."""
    plan = plan_of("photographs-cpu")
    maps, light, largefov = ({"title": title, "work": work.tolist()} for title, work in plan.steps())
    assert maps == {"title": "attention models, measured: tables I", "work": [1, 15, 15 * 16, 8 + 10 * 4, 0]}
    # The model of DSNA's rows, where networks start, comes with the package, so CAM's classifier is the only new one.
    # 5 networks of 5 epochs of a batch of 16: 2 of the 30 pictures are held out and looked at ten times. Four methods
    # annotate 30 pictures, and five networks segment 8: all are refined.
    assert light["title"] == "network light, 5 methods: table III"
    seen = 10 * 4 + 5 * 10 * 2 + 4 * 30 + 5 * 8
    assert light["work"] == [1 + 5, 15 + 5 * 5, 15 * 16 + 5 * 5 * 16, seen, 4 * 30 + 5 * 8]
    # No classifier is new. 4 epochs of 6 batches of 5.
    assert largefov["title"] == "network largefov, 5 methods: table III"
    assert largefov["work"] == [5, 5 * 24, 5 * 24 * 5, 4 * 30 + 5 * 8, 4 * 30 + 5 * 8]
    assert str(plan).splitlines() == [
        "PASCAL VOC on two cores",
        "64 pictures to mine, 30 to segment, 8 to measure on; 1 seeds",
        "1. attention models, measured: tables I",
        "   1 trainings with 15 steps over 240 pictures; 48 pictures looked at, 0 refined by a CRF",
        "2. network light, 5 methods: table III",
        "   6 trainings with 40 steps over 640 pictures; 300 pictures looked at, 160 refined by a CRF",
        "3. network largefov, 5 methods: table III",
        "   5 trainings with 120 steps over 600 pictures; 160 pictures looked at, 160 refined by a CRF",
        "in all at most: 12 trainings with 175 steps over 1,480 pictures; 508 pictures looked at, 320 refined by a CRF",
    ]


# Trainings a seed of each step. Table II has five heads beside Table I's, the single stream is one more, the tables of
# methods add CAM's classifier and conventional attention, and the sensitivity one with another dropout. Table III's
# twelve rows need CAM's classifier and three for what AE erased, where nobody else has trained it.
@pytest.mark.parametrize(
    "name, trainings, printed, test",
    [
        ("drawn", [1 + 5 + 1 + 2 + 1, 3 + 12], [], []),
        ("colab", [1 + 5 + 1 + 2 + 1, 3 + 12], [], []),
        ("paper", [1 + 5 + 1, 4 + 12, 2], ["5. printed from these: tables IV, V, VI"], [[0, 0, 0, 2 * 7, 2 * 7]]),
    ],
)
def test_the_plans_of_the_other_recipes_by_hand(plan_of, name, trainings, printed, test):
    plan = plan_of(name)
    recipe = plan.experiment.recipe
    seeds, training = recipe.seeds, recipe.training
    works = [work.tolist() for _, work in plan.steps()]
    assert [work[0] for work in works if work[0]] == [seeds * count for count in trainings]
    assert [work for work in works if not work[0]] == test
    # Of 64 pictures the paper's recipe learns from all, in 4 batches of 15. The others hold out 6 and look at them ten
    # times, and make 3 batches of 16.
    held, batches = (0, 4) if name == "paper" else (6, 3)
    steps = seeds * trainings[0] * training.epochs * batches
    looks = seeds * trainings[0] * (8 + 10 * held)
    assert works[0] == [seeds * trainings[0], steps, steps * training.batch_size, looks, 0]
    # Ten methods annotate 30 pictures each, AE's last three show all 64 to two, three and four classifiers; twelve
    # networks segment 8 pictures. They hold out as large a share of the 30 as the classifiers of the 64.
    classifiers = trainings[1] - 12
    looks = 10 * 30 + (2 + 3 + 4) * 64 + 12 * 8 + classifiers * 10 * held + 12 * 10 * (held // 2)
    assert works[1][3:] == [seeds * looks, seeds * (10 * 30 + 12 * 8)]
    assert [line for line in str(plan).splitlines() if "printed" in line] == printed


def test_without_a_crf_nothing_is_refined(here):
    plan = reproduce.plan(experiment_in(here))
    assert [int(work[-1]) for _, work in plan.steps()] == [0, 0]
    network = replace(SMALL, inference=replace(SMALL.inference, crf="deeplab"))
    plan = reproduce.plan(experiment_in(here, networks={"small": network}))
    assert [int(work[-1]) for _, work in plan.steps()] == [0, len(ROWS) * 4]


def test_what_is_only_printed_needs_no_pictures_with_masks(here):
    experiment = experiment_in(here, tables=("IV", "V"))
    plan = reproduce.plan(replace(experiment, val=without_masks(experiment.val)))
    assert plan.steps() == []
    assert str(plan).splitlines()[2] == "1. printed from these: tables IV, V"
    assert "in all at most: 0 trainings with 0 steps" in str(plan)
    files = reproduce.run(plan, out=here / "out", say=quiet)
    assert {name: path.name for name, path in files.items()} == {"IV": "table_IV.md", "V": "table_V.md"}


@pytest.mark.parametrize(
    "changes, error, said",
    [
        (
            {"tables": ("I", "IIII")},
            SettingError,
            r"tables: there is no table 'IIII'; did you mean 'III'.*; there is I, ",
        ),
        (
            {"networks": {"a": replace(SMALL, rows=("CAM", "SEC, sed"))}},
            MethodError,
            "no method 'SEC, sed'; did you mean",
        ),
        ({"networks": {}}, SettingError, r"no segmentation network; add a table \[networks.NAME\]"),
        (
            {"networks": {"a": SMALL, "b": replace(SMALL, rows=("CAM",))}},
            SettingError,
            "networks a, b: several would write table_III_minivoc.json",
        ),
        (
            {"networks": {"a": replace(SMALL, rows=("CAM",))}, "data": DataConfig(test="test")},
            SettingError,
            r"networks.a.rows lacks 'DSNA, merged', whose masks of data.test are packed",
        ),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_before_anything_is_made(here, changes, error, said):
    with pytest.raises(error, match=said):
        reproduce.plan(experiment_in(here, **changes))
    assert not (here / "runs").exists()


def test_networks_of_two_backbones_have_a_file_each(here):
    large = replace(SMALL, model=replace(SMALL.model, backbone="vgg16"))
    changes = {"networks": {"a": SMALL, "b": large}, "tables": ("III",)}
    plan = reproduce.plan(experiment_in(here, data=DataConfig(source="voc"), **changes))
    assert list(plan.networks) == ["a", "b"]


# --- runs


def test_everything_is_made_and_no_more_than_was_planned(here, steps, monkeypatch):
    seen: list[str] = []
    for module, name in ((training, "train_attention"), (segmentation, "train_once")):
        once = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, once=once, name=name, **k: seen.append(name) or once(*a, **k))
    experiment = experiment_in(here)
    plan = reproduce.plan(experiment)
    files = reproduce.run(plan, out=here / "out", say=quiet)
    assert {name: path.name for name, path in files.items()} == FILES
    assert all(path.parent == here / "out" and path.stat().st_size for path in files.values())
    planned = sum(work for _, work in plan.steps())
    # Each row asks for its network; the networks and the classifiers are all that is trained.
    assert len(seen) == TRAININGS == planned[0]
    assert len(steps) == TRAININGS * STEPS_EACH == planned[1]
    assert planned[2] == len(steps) * 4
    rows = {row["title"]: row["mean"]["iou"] for row in read_json(files["III, small"])["values"]["rows"]}
    assert sorted(rows) == sorted(ROWS)
    assert f"{rows['DSNA, merged']:.1f}" in files["VI"].read_text()
    assert files["IV"].read_text().startswith("Results on VOC val")
    assert [row["title"] for row in read_json(files["I"])["values"]["rows"]] == list(MAP_KINDS)


@pytest.mark.parametrize("at", [1, 18, TRAININGS * STEPS_EACH - 1])
def test_a_killed_run_goes_on_to_the_results_of_one_that_was_not(here, undisturbed, monkeypatch, at):
    """By Ctrl-C at a training step: finished epochs are not repeated, nor trainings, nor masks."""
    experiment = experiment_in(here)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "_step", stop_at(at, interrupt))
        reproduced(experiment, here / "out")
    done: list[int] = []
    once = training._step
    monkeypatch.setattr(training, "_step", lambda *a: done.append(1) or once(*a))
    reproduced(experiment, here / "out")
    assert results(here / "out") == undisturbed
    assert len(done) == TRAININGS * STEPS_EACH - at + at % 2  # each epoch, two steps, is kept
    before = {path: path.stat().st_mtime_ns for path in (here / "runs").rglob("*") if path.suffix in (".png", ".pth")}
    done.clear()
    reproduced(experiment, here / "out")
    assert done == []
    assert {path: path.stat().st_mtime_ns for path in before} == before


def reproduce_until_killed(folder: Path, step: int) -> None:
    """The work of a process that nobody lets come to its end."""
    with pytest.MonkeyPatch.context() as patch:
        tiny_experiments.use(patch, folder / "runs")
        patch.setattr(training, "_step", stop_at(step, lambda: os.kill(os.getpid(), signal.SIGKILL)))
        reproduced(experiment_in(folder), folder / "out")


def test_a_process_that_was_killed_for_good_leaves_nothing_half_done(here, undisturbed, steps):
    at = 6 * STEPS_EACH + 3
    assert tiny.in_processes(reproduce_until_killed, here, at) == [-signal.SIGKILL]
    assert (here / "out" / FILES["I"]).is_file()
    assert not (here / "out" / FILES["III, small"]).exists()
    reproduced(experiment_in(here), here / "out")
    assert results(here / "out") == undisturbed
    assert len(steps) == TRAININGS * STEPS_EACH - at + 1


def test_a_unit_that_fails_is_named_and_the_next_call_does_it_alone(here, undisturbed, steps, monkeypatch):
    experiment, once = experiment_in(here), segmentation.train_and_score

    def failing(method: Any, *rest: Any) -> Any:
        if method.title == "MIL-FCN":
            raise RuntimeError("the disk is full")
        return once(method, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(segmentation, "train_and_score", failing)
        with pytest.raises(
            RunError, match=r"^1 of 6 failed \(MIL-FCN, seed 0: the disk is full\), the other 5 are kept"
        ):
            reproduced(experiment, here / "out")
    assert len(steps) == (TRAININGS - 1) * STEPS_EACH
    reproduced(experiment, here / "out")
    assert len(steps) == TRAININGS * STEPS_EACH
    assert results(here / "out") == undisturbed


@pytest.mark.parametrize("crf", ["none", "deeplab"])
def test_a_test_split_packs_an_archive(here, steps, monkeypatch, crf):
    """Of the masks by the network that learned from merged annotations, the kind that Table III scores last."""
    test = without_masks(tiny.pictures(here / "test", 3))
    asked = []
    monkeypatch.setattr(sources, "load_split", lambda data, split, root: asked.append((split, root)) or test)
    network = replace(SMALL, rows=("DSNA, merged",), inference=replace(SMALL.inference, crf=crf))
    data = DataConfig(source="voc", test="test")
    plan = reproduce.plan(experiment_in(here, tables=("III",), networks={"small": network}, data=data), here)
    assert asked == [("test", here)]
    title, work = plan.steps()[-1]
    assert title == "masks of the test split, packed for VOC's server"
    assert work.tolist() == [0, 0, 0, 3, 0 if crf == "none" else 3]
    said: list[str] = []
    files = reproduce.run(plan, out=here / "out", say=said.append)
    assert len(steps) == 2 * STEPS_EACH  # the model and the network of Table III's row, and no more
    assert list(files) == ["III, small", "test, small"]
    assert files["III, small"].name == "table_III_voc_tiny.json"
    assert f"{files['test, small']}: for VOC's evaluation server" in said
    folders = runs.root().glob("segment/*/multi" if crf == "none" else "segment/*/crf")
    (masks,) = (folder for folder in folders if len(list(folder.iterdir())) == 3)  # there are four pictures of val
    with tarfile.open(files["test, small"]) as archive:
        names = archive.getnames()
        archive.extractall(here / "unpacked", filter="data")
    assert names == [f"results/VOC2012/Segmentation/comp6_test_cls/{record.id}.png" for record in test.records]
    for name, record in zip(names, test.records, strict=True):
        assert (here / "unpacked" / name).read_bytes() == (masks / f"{record.id}.png").read_bytes()
        assert set(read_mask(here / "unpacked" / name).ravel().tolist()) <= set(range(4))


# --- files


@pytest.mark.parametrize(
    "source, name",
    [("minivoc", "table_II_minivoc"), ("voc", "table_II_voc_vgg16"), ("folder", "table_II_folder_vgg16")],
)
def test_what_is_kept_is_null_where_it_is_not_a_number(tmp_path, source, name):
    """JSON has no NaN, and what is read again must be what was written."""
    nan = float("nan")
    values = {"table": "II", "rows": [{"mean": {"iou": nan, "recall": 40.0}, "seeds": ({"iou": nan},)}]}
    values["curves"] = {"0": [[nan, float("inf"), 1.5, None]]}
    provenance = {"recipe": {"data": {"source": source}}, "note": "none"}
    path = keep((values, provenance), "vgg16", tmp_path / "out")
    assert path == tmp_path / "out" / f"{name}.json"
    content = json.loads(path.read_text(), parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))
    assert content["values"] == {
        "table": "II",
        "rows": [{"mean": {"iou": None, "recall": 40.0}, "seeds": [{"iou": None}]}],
        "curves": {"0": [[None, None, 1.5, None]]},
    }
    assert content["provenance"].pop("environment")["python"]
    assert content["provenance"] == provenance
