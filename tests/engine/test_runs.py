"""A finished stage is reused, any change makes a new one, and a model file says where it comes from."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from dsna_lib import attention, backbones, training
from dsna_lib.backbones import CheckpointError
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.training import SegmentationTraining, TrainingConfig
from dsna_lib.data import Pictures, Record, minivoc
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import read_json, write_json
from dsna_lib.segmentation import training as segmentation
from dsna_lib.training import train_once

MODEL = ModelConfig(tiny.NAMES, weights=None)
TRAINING = TrainingConfig(epochs=1, batch_size=4, crop=16, workers=0, device="cpu")
NETWORK = SegmentationConfig(tiny.NAMES, "tiny", channels=8, dilation=1, weights=None)
LEARNING = SegmentationTraining(epochs=1, batch_size=4, crop=17, workers=0, device="cpu")


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
    monkeypatch.setattr(training, "train_attention", lambda *given: calls.append(1) or train(*given))
    return calls


@pytest.fixture
def sources(here, monkeypatch):
    """A copy of the package's sources, which the digests of code are taken of."""
    copy = here / "dsna_lib"
    shutil.copytree(runs.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pth"))
    monkeypatch.setattr(runs, "PACKAGE", copy)
    return copy


@pytest.fixture
def package(here, monkeypatch):
    """Writes a package of a test's own, and takes it for this one: module to source."""

    def write(sources: dict[str, str]) -> None:
        for name, source in sources.items():
            path = here / "ours" / f"{name.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in (here / "ours", path.parent):
                (folder / "__init__.py").touch()
            path.write_text(source)

    monkeypatch.setattr(runs, "PACKAGE", here / "ours")
    return write


def change_a_pixel(path: Path, row: int = 0, column: int = 0) -> None:
    pixels = np.array(Image.open(path))
    pixels[row, column] ^= 1
    Image.fromarray(pixels).save(path)


# --- what a run is --------------------------------------------------------------------------------------------------


def test_root(monkeypatch, here):
    assert runs.root() == here / "runs"
    for unset in (lambda: monkeypatch.setenv("DSNA_RUNS", ""), lambda: monkeypatch.delenv("DSNA_RUNS")):
        unset()
        assert runs.root() == Path("runs")


def test_a_run_is_named_by_stage_identity_and_code(here):
    first = runs.open_run("maps", {"size": 224}, "dsna_lib.maps")
    assert first.folder.parent == here / "runs" / "maps"
    assert re.fullmatch("[0-9a-f]{12}", first.folder.name)
    assert first.identity == {"size": 224, "code": runs.code_digest("dsna_lib.maps")}
    assert runs.open_run("maps", {"size": 224}, "dsna_lib.maps").folder == first.folder
    assert runs.open_run("maps", {"size": 225}, "dsna_lib.maps").folder != first.folder
    assert runs.open_run("maps", {"size": 224}, "dsna_lib.maps", "dsna_lib.data.voc").folder != first.folder
    own = runs.open_run("maps", {"size": 224}, "dsna_lib.maps", folder=here / "own")
    assert own == replace(first, folder=here / "own")
    assert not first.folder.exists()


def test_an_identity_is_plain_and_its_order_does_not_count():
    assert runs.open_run("a", asdict(TRAINING)).identity["scales"] == [1.0, 1.5]
    first, other = (runs.open_run("a", identity).folder for identity in ({"x": 1, "y": 2}, {"y": 2, "x": 1}))
    assert first == other
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        runs.open_run("a", {"maker": lambda: None})


def test_how_a_value_was_written_does_not_count():
    whole = TrainingConfig(backbone_rate=1, scales=[1, 2])
    assert whole.identity() == TrainingConfig(backbone_rate=1.0, scales=(1.0, 2.0)).identity()
    assert json.dumps(whole.identity()["backbone_rate"]) == "1.0"


def test_finishing():
    run = runs.open_run("maps", {"size": 224}, "dsna_lib.maps")
    assert not run.finished
    assert run.read() == {}
    run.finish(iou=0.5)
    assert run.finished
    card = run.read()
    assert (card["stage"], card["state"], card["metrics"]) == ("maps", "finished", {"iou": 0.5})
    assert card["identity"] == run.identity
    assert card["environment"]["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]


# --- the code's digest ------------------------------------------------------------------------------------------------


def test_the_code_of_a_training_is_all_that_it_imports():
    known = runs.imported_by("dsna_lib.training")
    needed = {"training", "attention", "backbones", "model_files", "config.training", "data.pictures", "engine.files"}
    assert {f"dsna_lib.{name}" for name in needed | {"data.transforms", "data"}} | {"dsna_lib"} <= set(known)
    assert not {f"dsna_lib.{name}" for name in ("crf", "maps", "data.voc", "data.minivoc", "methods.sec")} & set(known)
    assert "dsna_lib.crf" in runs.imported_by("dsna_lib.methods.sec")
    assert {"dsna_lib.data.transforms", "dsna_lib.data.pictures"} <= set(runs.imported_by("dsna_lib.tables.measure"))


def test_the_order_of_entry_modules_does_not_count():
    digest = runs.code_digest("dsna_lib.maps", "dsna_lib.data.voc")
    assert digest == runs.code_digest("dsna_lib.data.voc", "dsna_lib.maps")
    assert digest != runs.code_digest("dsna_lib.maps")


@pytest.mark.parametrize(
    "module, counts",
    [
        ("training.py", True),
        ("data/transforms.py", True),
        ("engine/files.py", True),  # by data/pictures.py
        ("engine/fields.py", True),  # by config/training.py
        ("__init__.py", True),
        ("data/__init__.py", True),
        ("data/voc.py", False),
        ("methods/sec.py", False),
        ("crf.py", False),
        ("engine/pools.py", False),
    ],
)
def test_the_digest_follows_all_that_is_imported_and_nothing_else(sources, module, counts):
    before = runs.code_digest("dsna_lib.training")
    with (sources / module).open("a") as file:
        file.write("# another version\n")
    assert (runs.code_digest("dsna_lib.training") != before) is counts


def test_a_change_that_keeps_size_and_time_of_a_file_counts(sources):
    before, path = runs.code_digest("dsna_lib.training"), sources / "engine/files.py"
    stat = path.stat()
    path.write_text(path.read_text().replace("indent=2", "indent=4"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert runs.code_digest("dsna_lib.training") != before


@pytest.mark.parametrize(
    "source",
    [
        "import ours.sub.helper",
        "import ours.sub.helper as short",
        "import os, ours.sub.helper",
        "from ours.sub import helper",
        "from ours.sub import helper as short",
        "from ours.sub.helper import *",
        "from ours.sub.helper import name",
        "from .sub import helper",
        "from .sub.helper import name",
        "from . import between",
        "from ours import between",
        "def late():\n    from ours.sub import helper",
        "class Late:\n    def run(self):\n        import ours.sub.helper",
        "try:\n    import ours.sub.helper\nexcept ImportError:\n    pass",
        "if name:\n    import ours.sub.helper",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import os\nelse:\n    import ours.sub.helper",
        "from typing import TYPE_CHECKING\nif not TYPE_CHECKING:\n    import ours.sub.helper",
    ],
)
def test_every_form_of_import_counts(package, source):
    package({"entry": source, "between": "from ours.sub import helper", "sub.helper": "name = 1", "other": ""})
    known = runs.imported_by("ours.entry")
    assert {"ours", "ours.sub", "ours.entry", "ours.sub.helper"} <= set(known)
    assert "ours.other" not in known


@pytest.mark.parametrize(
    "source",
    [
        "",
        "import os.path",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ours.sub.helper",
        "import typing\nif typing.TYPE_CHECKING:\n    from ours.sub import helper",
        "from __future__ import annotations\nfrom oursother import sub",
        "text = 'import ours.sub.helper'",
    ],
)
def test_what_is_not_imported_does_not_count(package, source):
    package({"entry": source, "sub.helper": "name = 1"})
    assert list(runs.imported_by("ours.entry")) == ["ours", "ours.entry"]


def test_imports_relative_to_a_package_and_above_it(package):
    sources = {"top": "name = 1", "sub.beside": "name = 2", "sub.other": "", "sub.helper": "from ..top import name"}
    sources |= {"sub.__init__": "from .beside import name", "sub.deep.leaf": "from ..helper import name"}
    package(sources | {"sub.deep.__init__": "from . import leaf"})
    known = {
        "ours",
        "ours.sub",
        "ours.sub.beside",
        "ours.sub.deep",
        "ours.sub.deep.leaf",
        "ours.sub.helper",
        "ours.top",
    }
    assert set(runs.imported_by("ours.sub.deep")) == known


def test_modules_that_import_each_other_are_both_known(package):
    package({"first": "from ours import second", "second": "def late():\n    import ours.first"})
    first, second = (runs.imported_by(f"ours.{name}") for name in ("first", "second"))
    assert list(first) == list(second) == ["ours", "ours.first", "ours.second"]
    assert first["ours.second"] == second["ours.second"] == runs.PACKAGE / "second.py"


@pytest.mark.parametrize("module", ["dsna_lib.gone", "gone", "json", "dsna_lib.engine.runs.root"])
def test_code_that_is_not_there_is_named(module):
    with pytest.raises(ModuleNotFoundError, match=f"^{module} is no module of this package"):
        runs.code_digest(module)


# --- the data's digest ------------------------------------------------------------------------------------------------


def test_the_data_digest_follows_ids_labels_and_classes(split):
    records, digest = split.records, runs.data_digest(split)
    moved = [replace(record, image=shutil.copy(record.image, f"{record.image}.copy")) for record in records]
    assert digest == runs.data_digest(Pictures(moved, tiny.NAMES))
    assert digest != runs.data_digest(Pictures(records[::-1], tiny.NAMES))
    assert digest != runs.data_digest(Pictures(records, ("red", "green", "cow")))
    assert digest != runs.data_digest(Pictures([replace(records[0], labels=(0, 1)), *records[1:]], tiny.NAMES))
    assert digest != runs.data_digest(Pictures([replace(records[0], id="other"), *records[1:]], tiny.NAMES))
    assert digest != runs.data_digest(Pictures(records[1:], tiny.NAMES))


def test_the_data_digest_follows_masks_where_they_are_asked_for(here):
    pictures = tiny.pictures(here / "masked", masks=True)
    records, without, with_masks = pictures.records, runs.data_digest(pictures), runs.data_digest(pictures, masks=True)
    assert without != with_masks
    bare = Pictures([replace(record, mask=None) for record in records], tiny.NAMES)
    assert runs.data_digest(bare) == without
    assert runs.data_digest(bare, masks=True) != with_masks
    parts = Pictures([replace(record, part=record.mask) for record in records], tiny.NAMES)
    assert runs.data_digest(parts) == without
    assert runs.data_digest(parts, masks=True) != with_masks
    change_a_pixel(records[3].mask)
    assert runs.data_digest(pictures) == without
    assert runs.data_digest(pictures, masks=True) != with_masks


def test_a_picture_that_is_not_there_is_named(here):
    with pytest.raises(FileNotFoundError, match="gone.png"):
        runs.data_digest(Pictures([Record("gone", here / "gone.png", (0,))], tiny.NAMES))


def test_what_is_no_file_has_no_digest():
    with pytest.raises(RunError, match="^/dev/null: is a pipe or a device"):
        runs.file_digest("/dev/null")


def test_a_file_is_read_once_as_long_as_it_stays(here, monkeypatch):
    path, reads, digest = here / "file", [], runs.hashlib.file_digest
    path.write_bytes(b"first")
    monkeypatch.setattr(runs.hashlib, "file_digest", lambda *given: reads.append(1) or digest(*given))
    first = runs.file_digest(path)
    assert runs.file_digest(str(path)) == first
    assert len(reads) == 1
    stat = path.stat()
    path.write_bytes(b"other")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert runs.file_digest(path) != first
    assert len(reads) == 2


# --- a folder is one run's --------------------------------------------------------------------------------------------


def test_a_claimed_folder_says_what_it_is_and_is_claimed_again_by_the_same(here):
    run = runs.claim_folder(here / "own", "erase", training={"seed": 0}, sizes=(1, 2))
    card = {"stage": "erase", "state": "running", "identity": {"training": {"seed": 0}, "sizes": [1, 2]}}
    assert read_json(here / "own" / "run.json") == card
    assert run == runs.Run(here / "own", "erase", card["identity"])
    assert runs.claim_folder(here / "own", "erase", sizes=(1, 2), training={"seed": 0}) == run
    assert not run.finished
    run.finish()
    runs.claim_folder(here / "own", "erase", training={"seed": 0}, sizes=[1, 2])
    assert run.finished


def test_a_part_of_a_run_claims_its_folder_by_what_it_knows(here):
    """Training claims by its schedule what was claimed with model, data and code before."""
    runs.claim_folder(here / "own", "segmentation", model={"dropout": 0.5}, training={"seed": 0})
    assert runs.claim_folder(here / "own", "train", training={"seed": 0}).stage == "segmentation"
    assert read_json(here / "own" / "run.json")["identity"] == {"model": {"dropout": 0.5}, "training": {"seed": 0}}


@pytest.mark.parametrize(
    "other, difference",
    [
        ({"seed": 1}, "was made with seed 0, not 1"),
        ({"model": {"head": {"name": "b", "rate": 0.5}}}, "was made with model.head.name 'a', not 'b'"),
        ({"model": {"head": {"name": "a"}}}, "was made with model.head.rate 0.5, not None"),
        ({"model": {"head": {"name": "a", "rate": 0.5}, "more": None}}, "was made with no model.more"),
        ({"model": "a"}, "was made with model {'head': {'name': 'a', 'rate': 0.5}}, not 'a'"),
        ({"code": "456"}, "was made with another version of the code"),
        ({"data": "789"}, "was made with no data"),
    ],
)
@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_folder_of_another_run_is_refused_with_the_difference(here, other, difference, state):
    known = {"seed": 0, "model": {"head": {"name": "a", "rate": 0.5}}, "code": "123"}
    run = runs.claim_folder(here / "own", "train", **known)
    if state == "finished":
        run.finish(loss=1.0)
    else:
        (here / "own" / "first.png").touch()
    before = (here / "own" / "run.json").read_bytes()
    with pytest.raises(RunError) as error:
        runs.claim_folder(here / "own", "train", **known | other)
    assert str(error.value) == f"{here / 'own'} {difference}; use another folder or delete it"
    assert (here / "own" / "run.json").read_bytes() == before


LEFT = ["metrics.jsonl", ".b.png.x1y2z3", "checkpoint.partial/state", "inner/run.json", ".inner.lock", "empty/"]


def test_a_folder_whose_run_stopped_before_it_had_a_result_is_free(here):
    """Whoever follows the advice of an error, such as to lower a rate, can do so in the same folder."""

    def fail(folder: Path) -> dict[str, float]:
        for name in LEFT:
            (path := folder / name).parent.mkdir(exist_ok=True)
            path.mkdir() if name.endswith("/") else path.touch()
        raise MemoryError

    with pytest.raises(MemoryError):
        runs.complete(runs.open_run("train", {"rate": 9.0, "crop": 5}, folder=here / "own"), fail)
    run = runs.complete(runs.open_run("maps", {"rate": 0.1}, folder=here / "own"), lambda folder: {"loss": 0.5})
    assert run.finished
    assert (run.read()["stage"], run.read()["identity"]["rate"]) == ("maps", 0.1)
    assert "crop" not in run.read()["identity"]


@pytest.mark.parametrize("name", ["checkpoint-0000012/state", "model.pth", "a.png", "merged/a.png"])
def test_a_folder_with_a_result_of_an_unfinished_run_is_not(here, name):
    runs.claim_folder(here / "own", "train", rate=9.0)
    (path := here / "own" / name).parent.mkdir(exist_ok=True)
    path.touch()
    with pytest.raises(RunError, match="own was made with rate 9.0, not 0.1; use another folder or delete it"):
        runs.claim_folder(here / "own", "train", rate=0.1)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"stage": "train", "config": {}, "metrics": {}}', '{"identity": {}}', "\x00"]
)
def test_a_folder_that_does_not_say_what_it_is_is_refused(here, content):
    """Damaged, or written by the first edition of this library: its checkpoints could come from anywhere."""
    (here / "own").mkdir()
    (here / "own" / "run.json").write_text(content)
    run = runs.open_run("train", {"seed": 0}, folder=here / "own")
    assert not run.finished
    with pytest.raises(RunError, match="own holds a run.json that does not say what it is; use another folder or"):
        runs.complete(run, lambda folder: pytest.fail("worked in it"))
    assert (here / "own" / "run.json").read_text() == content


@pytest.mark.parametrize("name", ["checkpoint-0000012/state", "model.pth"])
def test_a_folder_whose_checkpoints_do_not_say_what_they_are_of_is_refused(here, name):
    """An unfinished run of the first edition, which wrote its run.json at the end."""
    (path := here / "own" / name).parent.mkdir(parents=True)
    path.write_text("learned")
    with pytest.raises(RunError) as error:
        runs.claim_folder(here / "own", "train", seed=0)
    reason = "holds a model or checkpoints, and no run.json that says how they were made"
    assert str(error.value) == f"{here / 'own'} {reason}; use another folder or delete it"
    assert not (here / "own" / "run.json").exists()
    assert path.read_text() == "learned"


def test_other_files_in_a_folder_do_not_matter(here):
    (here / "own" / "models").mkdir(parents=True)
    (here / "own" / "notes.txt").touch()
    assert runs.claim_folder(here / "own", "train", seed=0).identity == {"seed": 0}


def test_a_folder_that_cannot_be_written_is_named(here):
    (here / "file").touch()
    with pytest.raises(OSError, match="cannot write into the folder .*file/own: Not a directory"):
        runs.claim_folder(here / "file" / "own", "train")


def test_a_run_is_done_once_and_says_so_from_its_start(here):
    run, calls = runs.open_run("maps", {"size": 224}, "dsna_lib.maps"), []

    def work(folder: Path) -> dict[str, float]:
        calls.append(read_json(folder / "run.json"))
        return {"iou": 0.5}

    assert runs.complete(run, work) is run
    assert runs.complete(run, work).read()["metrics"] == {"iou": 0.5}
    assert calls == [{"stage": "maps", "state": "running", "identity": run.identity}]


def test_a_killed_run_goes_on_in_its_folder(here):
    run = runs.open_run("maps", {"size": 224}, "dsna_lib.maps")

    def work(folder: Path) -> dict[str, int]:
        if not (folder / "half").exists():
            (folder / "half").touch()
            raise KeyboardInterrupt
        return {"found": 1}

    with pytest.raises(KeyboardInterrupt):
        runs.complete(run, work)
    assert not run.finished
    assert run.read()["state"] == "running"
    assert runs.complete(run, work).read()["metrics"] == {"found": 1}


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_run_from_before_a_change_of_code_is_never_taken_for_one_after_it(here, sources, state):
    """In a folder of one's own; the usual folder has another name then."""

    def work(folder: Path) -> dict[str, int]:
        if state == "running":
            (folder / "half").touch()
            raise KeyboardInterrupt
        return {}

    before = runs.open_run("train", {"seed": 0}, "dsna_lib.training", folder=here / "own")
    if state == "running":
        with pytest.raises(KeyboardInterrupt):
            runs.complete(before, work)
    else:
        assert runs.complete(before, work).finished
    with (sources / "engine/files.py").open("a") as file:
        file.write("# another version\n")
    after = runs.open_run("train", {"seed": 0}, "dsna_lib.training", folder=here / "own")
    assert not after.finished
    with pytest.raises(RunError, match="own was made with another version of the code; use another folder or delete"):
        runs.complete(after, lambda folder: pytest.fail("went on with it"))
    assert before.finished is (state == "finished")


def do_slowly(folder: Path) -> None:
    """A run that takes a while, as one of several programs or processes that need it at the same time."""
    rank = os.environ.get("RANK", "0")
    os.environ["DSNA_RUNS"] = str(folder / "runs")

    def work(own: Path) -> dict[str, int]:
        with (folder / "calls").open("a") as file:
            file.write(f"{rank}\n")
        assert read_json(own / "run.json")["state"] == "running"
        time.sleep(0.0 if int(rank) else 0.7)
        return {}

    assert runs.complete(runs.open_run("maps", {"size": 224}), work).finished


def test_programs_that_need_the_same_run_wait_for_the_first(here):
    programs = [tiny.SERVER.Process(target=do_slowly, args=(here,)) for _ in range(2)]
    for program in programs:
        program.start()
    for program in programs:
        program.join(timeout=60)
    assert [program.exitcode for program in programs] == [0, 0]
    assert (here / "calls").read_text() == "0\n"


def test_processes_that_train_together_all_work_and_one_of_them_writes(here):
    """The quick one waits at the end until the slow one has written."""
    assert tiny.in_processes(do_slowly, here, count=2) == [0, 0]
    assert sorted((here / "calls").read_text().split()) == ["0", "1"]
    (card,) = (here / "runs").rglob("run.json")
    assert read_json(card)["state"] == "finished"


def train_together(folder: Path) -> None:
    os.environ["DSNA_RUNS"] = str(folder / "runs")
    backbones.create = lambda name, stride, weights: tiny.backbone()
    _, run = train_once(MODEL, tiny.pictures(folder / f"data-{os.environ['RANK']}"), TRAINING)
    assert run.finished
    assert run.read()["metrics"]["step"] == 2
    assert torch.distributed.get_world_size() == 2


def test_two_processes_train_one_run(here):
    assert tiny.in_processes(train_together, here, count=2) == [0, 0]
    assert len(list((here / "runs").rglob("run.json"))) == 1


# --- trainings --------------------------------------------------------------------------------------------------------


def test_a_finished_training_is_reused(split, trainings):
    first, run = train_once(MODEL, split, TRAINING)
    assert run.finished
    assert run.read()["metrics"]["step"] == 2
    names = {path.name for path in run.folder.iterdir()}
    assert {"model.pth", "metrics.jsonl"} <= names
    assert {name for name in names if name.endswith(".json")} == {"run.json"}
    second, again = train_once(MODEL, split, TRAINING)
    assert again.folder == run.folder
    assert len(trainings) == 1
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert not second.training


def test_what_changes_nothing_learned_does_not_train_anew(split, trainings):
    _, first = train_once(MODEL, split, TRAINING)
    _, again = train_once(MODEL, split, replace(TRAINING, workers=1, checkpoint_every=5))
    assert again.folder == first.folder
    assert len(trainings) == 1


def test_any_change_trains_anew(split, trainings):
    fewer = Pictures(split.records[:6], split.class_names)
    trained = [
        train_once(MODEL, split, TRAINING),
        train_once(replace(MODEL, dropout=0.3), split, TRAINING),
        train_once(MODEL, split, replace(TRAINING, seed=1)),
        train_once(MODEL, split, replace(TRAINING, head_rate=0.011)),
        train_once(MODEL, fewer, TRAINING),
    ]
    folders = {run.folder for _, run in trained}
    assert len(folders) == len(trainings) == 5


def another_pixel(pictures: Pictures) -> Pictures:
    change_a_pixel(pictures.records[5].image, 7, 7)
    return pictures


def another_label(pictures: Pictures) -> Pictures:
    return pictures.with_records([replace(pictures.records[0], labels=(0, 2)), *pictures.records[1:]])


def another_order(pictures: Pictures) -> Pictures:
    return pictures.with_records(pictures.records[::-1])


@pytest.mark.parametrize("change", [another_pixel, another_label, another_order])
def test_changed_data_train_anew(split, trainings, change: Callable[[Pictures], Pictures]):
    _, first = train_once(MODEL, split, TRAINING)
    _, second = train_once(MODEL, change(split), TRAINING)
    assert second.folder != first.folder
    assert len(trainings) == 2


def test_another_name_of_a_class_trains_anew(split, trainings):
    renamed = ("red", "green", "cyan")
    _, first = train_once(MODEL, split, TRAINING)
    model, second = train_once(replace(MODEL, class_names=renamed), Pictures(split.records, renamed), TRAINING)
    assert second.folder != first.folder
    assert model.config.class_names == renamed


def test_the_drawn_set_at_another_size_trains_anew(here, trainings):
    """Ids and labels are the same at every size."""
    model = replace(MODEL, class_names=minivoc.CLASS_NAMES)
    for size in (224, 160):
        minivoc.make(here / f"drawn-{size}", train=4, val=0, size=size)
    large, small = (minivoc.load("train", here / f"drawn-{size}") for size in (224, 160))
    assert [(r.id, r.labels) for r in large.records] == [(r.id, r.labels) for r in small.records]
    folders = {train_once(model, pictures, TRAINING)[1].folder for pictures in (large, small, large)}
    assert len(folders) == len(trainings) == 2


@pytest.mark.parametrize("module, counts", [("engine/files.py", True), ("data/voc.py", False)])
def test_changed_code_trains_anew_where_it_takes_part(split, trainings, sources, module, counts):
    _, first = train_once(MODEL, split, TRAINING)
    with (sources / module).open("a") as file:
        file.write("# another version\n")
    _, second = train_once(MODEL, split, TRAINING)
    assert (second.folder != first.folder) is counts
    assert len(trainings) == 1 + counts


def test_masks_count_for_a_network_that_learns_from_them_and_for_no_classifier(here, trainings):
    pictures = tiny.pictures(here / "masked", masks=True)
    _, classifier = train_once(MODEL, pictures, TRAINING)
    _, network = segmentation.train_once(NETWORK, pictures, LEARNING)
    change_a_pixel(pictures.records[2].mask)
    assert train_once(MODEL, pictures, TRAINING)[1].folder == classifier.folder
    assert len(trainings) == 1
    assert segmentation.train_once(NETWORK, pictures, LEARNING)[1].folder != network.folder


def test_a_finished_network_is_reused_and_any_change_trains_anew(here, monkeypatch):
    pictures, calls, train = tiny.pictures(here / "masked", masks=True), [], segmentation.train_segmentation
    monkeypatch.setattr(segmentation, "train_segmentation", lambda *given: calls.append(1) or train(*given))
    first, run = segmentation.train_once(NETWORK, pictures, LEARNING)
    second, again = segmentation.train_once(NETWORK, pictures, replace(LEARNING, workers=1))
    assert again.folder == run.folder
    assert run.folder.parent.name == "segmentation"
    assert tiny.same(first.state_dict(), second.state_dict())
    assert [path.name for path in run.folder.glob("*.json")] == ["run.json"]
    assert len(calls) == 1
    folders = {
        segmentation.train_once(replace(NETWORK, dropout=0.2), pictures, LEARNING)[1].folder,
        segmentation.train_once(NETWORK, pictures, replace(LEARNING, schedule="poly"))[1].folder,
        run.folder,
    }
    assert len(folders) == len(calls) == 3


def test_an_unfinished_training_is_resumed(split, trainings, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(attention, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_once(MODEL, split, TRAINING)
    monkeypatch.setattr(training, "_step", lambda *_: pytest.fail("trained again"))
    assert train_once(MODEL, split, TRAINING)[1].finished


def test_an_unfinished_training_is_not_resumed_with_a_changed_picture(split, here, monkeypatch):
    own = here / "own"
    with monkeypatch.context() as patch:
        patch.setattr(attention, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train_once(MODEL, split, TRAINING, own)
    change_a_pixel(split.records[5].image)
    with pytest.raises(RunError, match=r"own was made with data\.digest '[0-9a-f]{12}', not '[0-9a-f]{12}'; use anoth"):
        train_once(MODEL, split, TRAINING, own)


def test_a_folder_of_ones_own_is_reused_but_never_for_another_model_or_other_data(split, trainings, here):
    own = here / "own"
    train_once(MODEL, split, TRAINING, own)
    train_once(MODEL, split, TRAINING, own)
    assert len(trainings) == 1
    with pytest.raises(
        RunError, match=r"own was made with model\.dropout 0\.5, not 0\.3; use another folder or delete"
    ):
        train_once(replace(MODEL, dropout=0.3), split, TRAINING, own)
    with pytest.raises(RunError, match=r"own was made with data\.digest"):
        train_once(MODEL, Pictures(split.records[:6], split.class_names), TRAINING, own)
    with pytest.raises(RunError, match=r"own was made with training\.seed 0, not 1"):
        train_once(MODEL, split, replace(TRAINING, seed=1), own)
    assert len(trainings) == 1


def test_checkpoints_of_a_training_whose_model_and_data_are_not_told_are_not_taken(split, here):
    training.train_attention(attention.create(MODEL), split, TRAINING, here / "own")
    with pytest.raises(RunError, match="own was made with no model; use another folder or delete it"):
        train_once(MODEL, split, TRAINING, here / "own")


def test_a_model_file_tells_how_it_was_trained(split, here):
    _, run = train_once(MODEL, split, TRAINING)
    known = runs.model_provenance(run.folder / "model.pth")
    assert re.fullmatch("[0-9a-f]{12}", known["file"])
    assert known["training"]["crop"] == 16
    assert known["data"]["pictures"] == 8
    assert known["model"]["head"] == "decoupled"
    assert not {"class_names", "weights"} & set(known["model"])
    assert known["metrics"]["step"] == 2
    assert known["environment"]["packages"]
    assert known["code"] == run.identity["code"]
    assert str(here) not in json.dumps(known)
    apart = here / "model.pth"
    apart.write_bytes((run.folder / "model.pth").read_bytes())
    assert runs.model_provenance(apart) == {"file": known["file"]}


def test_a_model_of_an_unfinished_or_unknown_run_tells_nothing_else(split):
    _, run = train_once(MODEL, split, TRAINING)
    path, card = run.folder / "model.pth", run.read()
    for told in (card | {"state": "running"}, {"stage": "train", "config": {}, "metrics": {}}):
        write_json(run.folder / "run.json", told)
        assert set(runs.model_provenance(path)) == {"file"}


def test_a_lost_model_file_is_named(split):
    _, run = train_once(MODEL, split, TRAINING)
    (run.folder / "model.pth").unlink()
    with pytest.raises(CheckpointError, match="model.pth: no such weight file"):
        train_once(MODEL, split, TRAINING)
