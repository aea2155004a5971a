"""``dsna table`` and ``dsna reproduce``."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import KINDS, picture, sentences

from dsna_lib import training
from dsna_lib.data import read_mask, voc, write_mask
from dsna_lib.engine import cluster
from dsna_lib.engine.files import read_json
from dsna_lib.engine.pools import Unit, Workers
from dsna_lib.methods import rows as rows_of_methods
from dsna_lib.tables import reproduce
from dsna_lib.tables import segmentation as table_iii

# By a backbone whose layers do not learn, for which a test has time.
RECIPE = """
note = "drawn noise"
seeds = 2
tables = ["I", "III", "IV"]

[data]
source = "voc"

[attention]
train_last = 0

[training]
epochs = 1
batch_size = 2
crop = 32
workers = 0
device = "cpu"

[maps]
size = 32

[networks.small]
rows = ["full supervision"]

[networks.small.model]
train_last = 0
channels = 8
dilation = 1

[networks.small.training]
epochs = 1
batch_size = 2
crop = 33
workers = 0
device = "cpu"

[networks.small.inference]
scales = [1.0]

[networks.large.model]
backbone = "vgg16"
"""


@pytest.fixture(autouse=True)
def recipe(own_folder, tmp_path) -> None:
    (tmp_path / "own.toml").write_text(RECIPE)


@pytest.fixture
def table(run, original):
    """A table of the small data set."""

    def call(*words, root=original):
        return run("table", *words, "--recipe", "own.toml", "--root", root)

    return call


def test_a_table_is_run_written_and_seen_again(table, tmp_path):
    code, out, _ = table("I")
    assert code == 0
    assert "2 of 2: decoupled, dropout 0.5, seed 1: done" in out
    assert "| merged |" in out
    assert "the merged map beats the expansive map in IoU" in out
    content = read_json("results/table_I_voc_efficientnet_lite0.json")
    assert [row["title"] for row in content["values"]["rows"]] == list(KINDS)
    assert (content["provenance"]["command"], content["provenance"]["note"]) == ("dsna table", "drawn noise")
    assert content["provenance"]["recipe"]["training"]["crop"] == 32
    assert content["provenance"]["trained"]["decoupled, dropout 0.5"]["1"]["training"]["seed"] == 1

    code, out, _ = table("I", "--json", "--out", tmp_path / "again", "--note", "seen again")
    assert code == 0
    assert json.loads(out)["tables"]["I"]["rows"] == content["values"]["rows"]
    assert read_json("again/table_I_voc_efficientnet_lite0.json")["provenance"]["note"] == "seen again"
    for form, sign in (("latex", r"\toprule"), ("csv", "mean,std")):
        assert sign in table("I", "--format", form)[1]


def test_seeds_rows_and_changes(table):
    code, out, _ = table("I", "--seeds", 1, "--rows", "merged; expansive", "-p", "training.crop=48", "-p", "seeds=3")
    assert code == 0
    assert "1 of 1: decoupled" in out
    content = read_json("results/table_I_voc_efficientnet_lite0.json")
    assert [row["title"] for row in content["values"]["rows"]] == ["expansive", "merged"]
    assert content["provenance"]["recipe"]["training"]["crop"] == 48


@pytest.mark.parametrize(
    "words, said",
    [
        (["VIII"], "invalid choice: 'VIII' (choose from 'I', 'II', 'single-stream', 'methods', 'parts',"),
        (["II", "--rows", "0;0.2"], "table II has no row '0.2'; its rows are 0; 0.3; 0.4"),
        (["III", "--rows", "SEC, sed"], "there is no method 'SEC, sed'; did you mean 'SEC, seed'?"),
        (["III", "--network", "smal"], "the recipe has no network 'smal'; did you mean 'small'?"),
        (["I", "II", "--rows", "0"], "--rows takes rows of one table"),
        (["III", "I", "--rows", "CAM"], "--rows takes rows of one table"),
        (["I", "--seeds", "0"], "argument --seeds: 0 must be at least 1"),
        (["I", "--jobs", "0"], "argument --jobs: 0 must be at least 1"),
        (["I", "-p", "data.val=tset"], "no split 'tset' here"),
        (["I", "-p", "attention.backbone=vgg61"], "unknown backbone 'vgg61'"),
        (["III", "-p", "networks.small.model.backbone=vgg61"], "unknown backbone 'vgg61'"),
        (["I", "-p", "training.epoch=1"], "own.toml: unknown key training.epoch; did you mean 'epochs'?"),
        (["I", "-p", "training.epochs=soon"], "own.toml: training.epochs='soon' must be a whole number"),
    ],
)
def test_a_table_that_cannot_be(table, words, said):
    code, _, err = table(*words)
    assert code == 2
    assert said in err
    assert not Path("results").exists()


def test_results_that_cannot_be_written_are_refused_first(table, run, original):
    Path("results").touch()
    evaluate = ["evaluate", "--data", "voc", "--root", original, "--model", "gone.pth", "--record", "x"]
    for code, _, err in (
        table("I"),
        run("reproduce", "--recipe", "own.toml", "--root", original),
        run("figure", "5", "--out", "results"),
        run(*evaluate),
    ):
        assert code == 3
        assert re.search("cannot write results/.*: Not a directory", err)
    assert not Path("runs").exists()


def test_a_recipe_that_is_not_there(run):
    code, _, err = run("table", "I", "--recipe", "gone.toml")
    assert code == 2
    assert sentences(err)[0].startswith("dsna table: error: gone.toml: no such recipe")


def test_a_table_of_pictures_without_masks_names_one(table, root):
    (root / "SegmentationClass/two.png").unlink()
    code, _, err = table("I", root=root)
    assert code == 3
    assert len(sentences(err)) == 1
    assert "two.jpg" in err
    assert "no ground-truth mask" in err


def test_a_method_that_needs_what_the_data_lacks(run, tmp_path):
    """Before anything is trained, and before anybody is told to learn from masks that are not there."""
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("file,labels,split\na.png,cat,train\nb.png,cat,val\n")
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks/b.png", np.zeros((40, 56), np.uint8))
    words = ["table", "III", "--recipe", "own.toml", "-p", "data.source=folder", "--root", tmp_path]
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    (said,) = sentences(err)
    assert (
        said == "dsna table: error: full supervision needs masks, which 1 of 1 pictures of the data set do not have: a"
    )
    assert not Path("runs").exists()


@pytest.fixture
def one_class(original, tmp_path) -> Path:
    """A folder of one class, cat, with masks: two pictures that show it and two without any label."""
    root = tmp_path / "cats"
    (root / "masks").mkdir(parents=True)
    rows = {"one": "cat", "three": "cat", "two": "", "four": ""}
    (root / "labels.csv").write_text("file,labels\n" + "".join(f"{name}.jpg,{cat}\n" for name, cat in rows.items()))
    for name, cat in rows.items():
        shutil.copy(original / f"JPEGImages/{name}.jpg", root)
        mask = read_mask(original / f"SegmentationClass/{name}.png")
        write_mask(root / f"masks/{name}.png", np.where(mask == voc.CLASS_NAMES.index("cat") + 1, 8, 0) * bool(cat))
    return root


def test_pictures_without_any_class_go_through_every_stage(table, one_class):
    """They are learned from, mined, segmented and measured on; without them, it is said what one class lacks."""
    folder = ["-p", "data.source=folder", "--seeds", 1]
    code, _, err = table("I", *folder, root=one_class)
    assert (code, sentences(err)) == (0, [])
    values = read_json("results/table_I_folder_efficientnet_lite0.json")["values"]
    assert values["warnings"] == []
    assert all(0 <= row["mean"]["iou"] <= 100 for row in values["rows"])
    code, _, err = table("III", *folder, "--rows", "AE, step 2", root=one_class)
    assert (code, sentences(err)) == (0, [])
    (row,) = read_json("results/table_III_folder_efficientnet_lite0.json")["values"]["rows"]
    assert 0 <= row["mean"]["annotation"] <= 100
    assert row["per_class"]["background"] is not None

    text = (one_class / "labels.csv").read_text().splitlines()
    (one_class / "labels.csv").write_text("\n".join(text[:3]) + "\n")
    assert table("I", *folder, root=one_class)[0] == 0
    (warning,) = read_json("results/table_I_folder_efficientnet_lite0.json")["values"]["warnings"]
    assert warning.startswith("all 2 pictures show cat, so that nothing teaches what is no cat")


def test_a_scheduler_that_does_not_answer(table, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_WITHIN", 0.5)
    code, _, err = table("I", "--scheduler", "tcp://127.0.0.1:9")
    assert code == 3
    (said,) = sentences(err)
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in said
    assert said.endswith("start one with dask scheduler, or leave out --scheduler")


def test_warnings_of_trainings_are_printed(table, monkeypatch):
    warned = {"examined": 4, "warnings": ["the classifier answers cat to all 4 pictures"]}
    monkeypatch.setattr(training, "examine", lambda *given: warned)
    code, out, err = table("I", "--seeds", 1)
    said = "decoupled, dropout 0.5, seed 0: the classifier answers cat to all 4 pictures"
    assert (code, sentences(err)) == (0, [])
    assert f"Warning: {said}" in out
    assert sentences(table("I", "--seeds", 1, "--format", "csv")[2]) == [f"dsna table: warning: table I: {said}"]
    assert json.loads(table("I", "--seeds", 1, "--json")[1])["tables"]["I"]["warnings"] == [said]


def test_table_3_is_run_and_4_to_6_show_it(table, run, monkeypatch):
    seen = []

    def fake(methods, experiment, network, seeds, workers, table, kept):
        seen.append(([method.title for method in methods], network, seeds, workers, kept))
        counts = np.zeros((1, 21, 22), np.int32)
        counts[0, range(21), range(21)] = 5
        counts[0, 0, 1] = 5
        score = table_iii.Score(dict.fromkeys(table_iii.KINDS_WITH_CRF, counts), np.array([5, 0, 0, 0]), 50.0)
        scores = {Unit(method, seed): score for method in methods for seed in range(seeds)}
        values = table_iii.summarize(methods, scores, seeds, experiment.val, table) | {"warnings": []}
        return values, experiment.provenance() | {"how": "not at all"}

    monkeypatch.setattr(table_iii, "run_table_iii", fake)
    rows = "DSNA, merged;full supervision"
    words = "III", "--rows", rows, "--network", "large", "--seeds", 2, "--jobs", 3, "--out", "r", "--scores", "s"
    code, out, err = table(*words)
    assert code == 0, err
    titles, network, seeds, workers, kept = seen[0]
    assert (titles, network.model.backbone, seeds, workers, kept) == (
        rows.split(";"),
        "vgg16",
        2,
        Workers(3),
        Path("s"),
    )
    stored = read_json("r/table_III_voc_vgg16.json")
    assert stored["values"]["rows"][0]["mean"]["share"] == 100
    assert stored["provenance"]["how"] == "not at all"
    assert "full supervision" in out
    code, out, _ = run("table", "IV", "VI", "--out", "r")
    assert code == 0
    assert "ScribbleSup" in out
    assert "DSNA, merged, here" in out
    assert "DSNA, merged, voc_vgg16" in out
    assert table("III", "--seeds", 1, "--scheduler", "tcp://far:1")[0] == 0
    titles, network, _, workers, kept = seen[1]  # the first network, and its own rows
    alone = ["full supervision"], 8, Workers(1, "tcp://far:1"), None
    assert (titles, network.model.channels, workers, kept) == alone
    assert Path("results/table_III_voc_efficientnet_lite0.json").is_file()
    # With rows or a recipe the methods of Table IV are trained: all whose help is there, and the others are named.
    assert table("IV", "--rows", "EM-Adapt;full supervision", "--seeds", 1)[0] == 0
    assert seen[2][0] == ["EM-Adapt", "full supervision"]
    values = read_json("results/table_IV_voc_efficientnet_lite0.json")["values"]
    assert (values["table"], [row["needs"] for row in values["rows"]]) == ("IV", [["labels"], ["labels", "masks"]])
    code, out, _ = table("IV", "--seeds", 1)
    assert code == 0
    assert seen[3][0][:2] + seen[3][0][-2:] == ["AF-MCG", "AE-PSL", "DSNA, merged", "full supervision"]
    assert out.count("left out: ") == len(rows_of_methods.TABLE_IV) - len(seen[3][0])
    assert "left out: BoxSup needs boxes, which" in out


def test_classes_that_never_occur_are_null(table):
    """JSON has no NaN, and what is read again must be what was written."""
    code, out, _ = table("III", "--seeds", 1, "--json")
    assert code == 0
    text = Path("results/table_III_voc_efficientnet_lite0.json").read_text()
    assert "NaN" not in text
    (row,) = json.loads(text)["values"]["rows"]
    assert row["title"] == "full supervision"
    assert row["per_class"].keys() == {"background", *voc.CLASS_NAMES}
    assert json.loads(out)["tables"]["III"]["rows"] == [row]


def test_published_tables_need_no_measurement(run):
    code, out, _ = run("table", "V", "--recipe", "gone.toml")
    assert code == 0
    assert "56.4" in out


# --- reproduce --------------------------------------------------------------------------------------------------------


def test_what_reproduce_would_do(run, original, monkeypatch):
    monkeypatch.setattr(reproduce, "run", None)
    words = ["reproduce", "--recipe", "own.toml", "--root", original, "--dry-run"]
    code, out, _ = run(*words)
    assert code == 0
    assert "network small, 1 methods" in out
    assert "4 pictures to mine" in out
    assert not Path("results").exists()
    assert not Path("runs").exists()
    code, shown, err = run(*words, "--json")
    assert json.loads(shown) == {"done": 0, "plan": out.rstrip("\n")}
    assert out in err


def test_reproduce(run, original):
    words = ["reproduce", "--recipe", "own.toml", "--root", original, "-p", "seeds=1", "-p", 'tables=["I", "IV"]']
    code, out, err = run(*words, "--out", "r", "--json")
    assert code == 0, err
    files = json.loads(out)["files"]
    assert files == {"I": "r/table_I_voc_efficientnet_lite0.json", "IV": "r/table_IV.md"}
    assert read_json(files["I"])["provenance"]["recipe"]["seeds"] == 1
    assert "1 of 1: decoupled, dropout 0.5, seed 0: done" in err


def test_the_workers_of_reproduce(run, original, monkeypatch):
    asked = []
    monkeypatch.setattr(reproduce, "run", lambda plan, workers, out, kept: asked.append((workers, out, kept)) or {})
    words = ["reproduce", "--recipe", "own.toml", "--root", original]
    for more in (["--jobs", 2], ["--scheduler", "tcp://far:1", "--out", "r", "--scores", "s"]):
        assert run(*words, *more)[0] == 0
    assert asked == [(Workers(2), Path("results"), None), (Workers(1, "tcp://far:1"), Path("r"), Path("s"))]


def test_a_recipe_with_a_table_that_is_not_there(run, original):
    code, _, err = run("reproduce", "--recipe", "own.toml", "--root", original, "-p", 'tables=["VIII"]')
    assert code == 2
    assert "there is no table 'VIII'" in err
