"""A finished stage is reused, any change makes a new one, and results say where they come from."""

from __future__ import annotations

import getpass
import json
import re
import socket
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from dsna_lib import backbones, runs, training
from dsna_lib.attention import ModelConfig
from dsna_lib.backbones import CheckpointError
from dsna_lib.data import Pictures, Record
from dsna_lib.training import TrainingConfig, TrainingError

MODEL = ModelConfig(tiny.NAMES, weights=None)
TRAINING = TrainingConfig(epochs=1, batch_size=4, crop=16, workers=0, device="cpu")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder for runs, and the tiny backbone instead of a real one."""
    monkeypatch.setenv("DSNA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(backbones, "create", lambda name, stride, weights: tiny.backbone())
    return tmp_path


@pytest.fixture
def split(here):
    return tiny.pictures(here / "data")


@pytest.fixture
def trainings(monkeypatch):
    """How often training was called."""
    calls, train = [], training.train_attention
    monkeypatch.setattr(training, "train_attention", lambda *a: calls.append(1) or train(*a))
    return calls


def test_root(monkeypatch, here):
    assert runs.root() == here / "runs"
    monkeypatch.delenv("DSNA_RUNS")
    assert runs.root() == Path("runs")


def test_a_run_is_named_by_stage_configuration_and_code(here):
    first = runs.open_run("maps", {"size": 224}, ("maps",))
    assert first.folder.parent == here / "runs" / "maps"
    assert re.fullmatch("[0-9a-f]{12}", first.folder.name)
    assert runs.open_run("maps", {"size": 224}, ("maps",)).folder == first.folder
    assert runs.open_run("maps", {"size": 225}, ("maps",)).folder != first.folder
    assert runs.open_run("maps", {"size": 224}, ("maps", "data/voc")).folder != first.folder
    assert runs.open_run("maps", {"size": 224}, ("maps",), here / "own").folder == here / "own"


def test_a_configuration_may_be_a_dataclass_and_its_order_does_not_count():
    assert runs.open_run("a", TRAINING, ()).config["crop"] == 16
    one, other = (runs.open_run("a", c, ()).folder for c in ({"x": 1, "y": 2}, {"y": 2, "x": 1}))
    assert one == other


def test_the_digest_follows_the_code(monkeypatch, here):
    package = here / "package"
    (package / "data").mkdir(parents=True)
    (package / "maps.py").write_text("a = 1")
    (package / "data" / "voc.py").write_text("b = 1")
    monkeypatch.setattr(runs, "__file__", str(package / "runs.py"))
    before = runs.code_digest(("maps", "data/voc"))
    assert runs.code_digest(("data/voc", "maps")) == before
    assert runs.code_digest(("maps",)) != before
    (package / "maps.py").write_text("a = 2")
    assert runs.code_digest(("maps", "data/voc")) != before
    with pytest.raises(FileNotFoundError, match="gone.py"):
        runs.code_digest(("gone",))


def test_training_depends_on_code_that_exists():
    assert len(runs.code_digest(runs.TRAINING_CODE)) == 64


def test_the_data_digest_follows_ids_labels_and_classes():
    records = [Record("a", Path("a.png"), (0,)), Record("b", Path("b.png"), (1,))]
    digest = runs.data_digest(Pictures(records, ("cat", "dog")))
    assert digest == runs.data_digest(
        Pictures([replace(r, image=Path("x"), mask=Path("m")) for r in records], ("cat", "dog"))
    )
    assert digest != runs.data_digest(Pictures(records[::-1], ("cat", "dog")))
    assert digest != runs.data_digest(Pictures(records, ("cat", "cow")))
    assert digest != runs.data_digest(Pictures([replace(records[0], labels=(0, 1)), records[1]], ("cat", "dog")))


def test_finishing():
    run = runs.open_run("maps", {"size": 224}, ("maps",))
    assert not run.finished
    run.finish(iou=0.5)
    assert run.finished
    content = run.read()
    assert (content["stage"], content["config"], content["metrics"]) == ("maps", {"size": 224}, {"iou": 0.5})
    assert content["environment"]["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_a_finished_training_is_reused(split, trainings):
    first, run = runs.train_once(MODEL, split, TRAINING)
    assert run.finished
    assert run.read()["metrics"]["step"] == 2
    assert {"model.pth", "metrics.jsonl", "run.json", "training.json"} <= {p.name for p in run.folder.iterdir()}
    second, again = runs.train_once(MODEL, split, TRAINING)
    assert again.folder == run.folder
    assert len(trainings) == 1
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())
    assert not second.training


def test_what_changes_nothing_learned_does_not_train_anew(split, trainings):
    _, first = runs.train_once(MODEL, split, TRAINING)
    _, again = runs.train_once(MODEL, split, replace(TRAINING, workers=1, checkpoint_every=5))
    assert again.folder == first.folder
    assert len(trainings) == 1


def test_any_change_trains_anew(split, trainings):
    folders = {
        runs.train_once(MODEL, split, TRAINING)[1].folder,
        runs.train_once(replace(MODEL, dropout=0.3), split, TRAINING)[1].folder,
        runs.train_once(MODEL, split, replace(TRAINING, seed=1))[1].folder,
        runs.train_once(MODEL, Pictures(split.records[:6], split.class_names), TRAINING)[1].folder,
    }
    assert len(folders) == len(trainings) == 4


def test_an_unfinished_training_is_resumed(split, trainings, monkeypatch):
    attention_save = runs.attention.save
    monkeypatch.setattr(runs.attention, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        runs.train_once(MODEL, split, TRAINING)
    monkeypatch.setattr(runs.attention, "save", attention_save)
    monkeypatch.setattr(training, "_step", lambda *_: pytest.fail("trained again"))
    assert runs.train_once(MODEL, split, TRAINING)[1].finished


def test_a_folder_of_ones_own_is_reused_but_never_for_another_model_or_other_data(split, trainings, here):
    own = here / "own"
    runs.train_once(MODEL, split, TRAINING, own)
    runs.train_once(MODEL, split, TRAINING, own)
    assert len(trainings) == 1
    with pytest.raises(TrainingError, match="own holds a run of another model or other data"):
        runs.train_once(replace(MODEL, dropout=0.3), split, TRAINING, own)
    with pytest.raises(TrainingError, match="own holds a run of another model or other data"):
        runs.train_once(MODEL, Pictures(split.records[:6], split.class_names), TRAINING, own)
    with pytest.raises(TrainingError, match="holds a run with seed=0, not 1"):
        runs.train_once(MODEL, split, replace(TRAINING, seed=1), own)


def test_a_model_file_tells_how_it_was_trained(split, here):
    _, run = runs.train_once(MODEL, split, TRAINING)
    known = runs.model_provenance(run.folder / "model.pth")
    assert re.fullmatch("[0-9a-f]{12}", known["file"])
    assert known["training"]["crop"] == 16
    assert known["data"]["pictures"] == 8
    assert known["model"]["head"] == "decoupled"
    assert known["environment"]["packages"]
    assert str(here) not in json.dumps(known)
    alone = here / "model.pth"
    alone.write_bytes((run.folder / "model.pth").read_bytes())
    assert runs.model_provenance(alone) == {"file": known["file"]}


def test_a_lost_model_file_is_named(split):
    _, run = runs.train_once(MODEL, split, TRAINING)
    (run.folder / "model.pth").unlink()
    with pytest.raises(CheckpointError, match="model.pth: no such weight file"):
        runs.train_once(MODEL, split, TRAINING)


def test_results_know_where_they_come_from_but_not_on_whose_machine(here):
    path = runs.write_result("table", {"iou": 44.0}, {"split": "val", "shortcuts": ["6 epochs"]}, here / "results")
    text = path.read_text()
    content = json.loads(text)
    assert path == here / "results" / "table.json"
    assert content["values"] == {"iou": 44.0}
    assert content["provenance"]["split"] == "val"
    environment = content["provenance"]["environment"]
    assert set(environment) == {"time", "python", "packages", "device", "system", "commit"}
    assert set(environment["packages"]) == set(runs.PACKAGES)
    assert environment["packages"]["numpy"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", environment["time"])
    for private in (
        socket.gethostname(),
        f'"{getpass.getuser()}"',
        str(here),
        str(Path(runs.__file__).parent),
        "/home",
    ):
        assert private not in text


def test_the_commit(monkeypatch, here):
    """Also outside a checkout, and without git."""
    commit = runs.environment()["commit"]
    assert commit is None or re.fullmatch(r"[0-9a-f]{12}(\+changes)?", commit)
    monkeypatch.setattr(runs, "__file__", str(here / "runs.py"))
    assert runs.environment()["commit"] is None
    monkeypatch.setenv("PATH", str(here))
    assert runs.environment()["commit"] is None


def test_a_package_that_is_not_installed():
    assert runs._version("no-such-package-at-all") is None
