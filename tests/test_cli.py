"""The command line: every command, its JSON, its exit codes, and one clear sentence for bad input."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsna_lib import attention, cli, crf, photos, runs, training
from dsna_lib.cli import main
from dsna_lib.data import read_mask, voc, write_mask
from dsna_lib.data.minivoc import CLASS_NAMES as ANIMALS
from dsna_lib.data.pictures import palette

KINDS = ("expansive", "discriminative", "merged")
SIZE = ["--size", "64", "--device", "cpu"]


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    """A model of the 20 VOC classes with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.pth"
    attention.save(attention.create(attention.ModelConfig(voc.CLASS_NAMES, weights=None)), path)
    return path


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    """Four pictures with masks in the VOC layout."""
    root = tmp_path_factory.mktemp("data") / "VOC2012"
    generator = np.random.default_rng(0)
    labels = {"one": ["cat"], "two": ["dog", "person"], "three": ["cat", "dog"], "four": ["person"]}
    for i, names in labels.items():
        mask = np.zeros((40, 56), np.uint8)
        for place, name in enumerate(names):
            mask[8:30, 4 + 24 * place : 24 + 24 * place] = voc.CLASS_NAMES.index(name) + 1
        mask[30] = 255
        write_mask(root / f"SegmentationClass/{i}.png", mask)
        noise = generator.integers(0, 60, (40, 56, 3))
        picture = Image.fromarray(np.uint8(palette()[mask] // 2 + noise))
        (root / "JPEGImages").mkdir(exist_ok=True)
        picture.save(root / f"JPEGImages/{i}.jpg")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("\n".join(labels) + "\n")
    (root / "image_labels.json").write_text(json.dumps(labels))
    return root


@pytest.fixture
def root(original, tmp_path) -> Path:
    """A copy of the data set to damage."""
    return Path(shutil.copytree(original, tmp_path / "VOC2012"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Default output folders land in the test's own folder; no debugging, no other process."""
    monkeypatch.chdir(tmp_path)
    for name in ("DSNA_DEBUG", "DSNA_RUNS", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys):
    """Run a command in this process; returns its exit code, stdout and stderr, which never hold a traceback."""

    def call(*words, traceback: bool = False):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert ("Traceback" in err) is traceback, err
        assert "Traceback" not in out
        return code, out, err

    return call


def picture(path: Path, size=(56, 40), mode="RGB", **options) -> Path:
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def sentences(err: str) -> list[str]:
    """What stands on stderr, without progress bars."""
    return [line for line in err.replace("\r", "\n").splitlines() if line.startswith("dsna")]


# --- the frame --------------------------------------------------------------------------------------------------------


def test_help_needs_no_torch_and_documents_exit_codes():
    code = "import sys, dsna_lib.cli as c; r = c.main(['--help']); assert 'torch' not in sys.modules; sys.exit(r)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("train", "maps", "annotate", "evaluate", "table", "data"))
    assert all(number in done.stdout for number in ("  0  ", "  1  ", "  2  ", "  3  ", "  130  "))


@pytest.mark.parametrize(
    "command, words",
    [
        (
            "train",
            ["default: 20; with --quick: 6", "default: 0.001", "side of the training crop in pixels", "data set:"],
        ),
        ("maps", ["default: 224", "default: float16", "pixels"]),
        ("annotate", ["default: 0.7", "default: merged", "default: sec", "default: annotations", "workers"]),
        ("evaluate", ["default: false_negative", "default: val", "Table I"]),
        ("data make", ["default: 400", "default: 100", "default: 0", "pixels"]),
        ("data check", ["open every picture"]),
        ("data download", ["2 GB"]),
    ],
)
def test_help_shows_units_and_defaults(run, monkeypatch, command, words):
    monkeypatch.setenv("COLUMNS", "300")
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    for word in words:
        assert word in out


@pytest.mark.parametrize(
    "command, named",
    [
        ("", "COMMAND"),
        ("paint", "paint"),
        ("train", "--data"),
        ("train --data coco", "coco"),
        ("train --data minivoc --epochs 0", "at least 1"),
        ("train --data minivoc --epochs many", "whole number"),
        ("train --data minivoc --dropout 1.5", "in 0 .. 1"),
        ("train --data minivoc --backbone vgg61", "vgg61"),
        ("train --data voc", "--root"),
        ("maps", "--data"),
        ("annotate a.jpg --labels cat --tau 0.5", "between 0.5 .. 1"),
        ("annotate a.jpg --labels cat --crf best", "best"),
        ("annotate a.jpg --labels cat --data minivoc", "--data"),
        ("annotate --data minivoc --labels cat", "--labels"),
        ("evaluate --data minivoc", "--model"),
        ("evaluate x --data minivoc --void skip", "skip"),
        ("evaluate x --data minivoc --record scores", "--model"),
        ("train --data minivoc --scales 1.5,1", "smaller first"),
        ("train --data minivoc --scales wide", "--scales"),
        ("data", "ACTION"),
    ],
)
def test_wrong_usage_is_2(run, command, named):
    code, out, err = run(*command.split())
    assert (code, out) == (2, "")
    assert named in err


def test_debug_shows_the_traceback(run, model_file, monkeypatch):
    words = ["annotate", "gone.jpg", "--labels", "cat", "--model", "gone.pth"]
    assert run(*words)[0] == 3
    assert run(*words, "--debug", traceback=True)[0] == 3
    monkeypatch.setenv("DSNA_DEBUG", "1")
    assert run(*words, traceback=True)[0] == 3


def test_interrupted_is_130(run, monkeypatch):
    monkeypatch.setattr(runs, "train_once", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(cli, "_load", lambda args: attention_free_pictures())
    code, _, err = run("train", "--data", "minivoc")
    assert code == 130
    assert "interrupted" in err


def attention_free_pictures():
    from dsna_lib.data import Pictures

    return Pictures([], ("cat",))


def test_an_unexpected_error_is_still_one_sentence(run, monkeypatch):
    monkeypatch.setattr(voc, "check", lambda root: {}["lost"])
    code, _, err = run("data", "check", ".")
    assert code == 3
    assert sentences(err) == ["dsna data check: error: unexpected KeyError: 'lost' (--debug shows where it happened)"]


def test_errors_of_worker_processes_lose_their_traceback():
    text = (
        "Caught PictureError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File ...\n"
    )
    error = ValueError(text + "dsna_lib.data.pictures.PictureError: a.jpg: no such picture\n")
    assert cli._sentence(error) == "a.jpg: no such picture"


# --- table ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(run, original, monkeypatch):
    """Table I of the small data set, by a backbone of random weights that a test has time for."""
    schedule = ["--epochs", "1", "--batch-size", "2", "--crop", "32", "--workers", "0", "--device", "cpu"]
    model = ["--weights", "none", "--train-last", "0", "--size", "32"]

    def call(*words, root=original):
        return run("table", *words, "--data", "voc", "--root", root, *schedule, *model)

    return call


def test_a_table_is_run_written_and_found_again(table, tmp_path):
    code, out, _ = table("I", "--seeds", 2, "--note", "drawn noise")
    assert code == 0
    assert "2 of 2: decoupled, dropout 0.5, seed 1: done" in out
    assert "| merged |" in out
    assert "the merged map beats the expansive map in IoU" in out
    content = json.loads(Path("results/table_I_voc_efficientnet_lite0.json").read_text())
    assert [row["title"] for row in content["values"]["rows"]] == list(KINDS)
    assert content["provenance"]["note"] == "drawn noise"
    assert content["provenance"]["trained"]["decoupled, dropout 0.5"]["1"]["training"]["seed"] == 1

    code, out, _ = table("I", "--seeds", 2, "--json", "--out", tmp_path / "again")
    assert code == 0
    assert json.loads(out)["tables"]["I"]["rows"] == content["values"]["rows"]
    for form, sign in (("latex", r"\toprule"), ("csv", "mean,std")):
        assert sign in table("I", "--seeds", 2, "--format", form)[1]


@pytest.mark.parametrize(
    "words, said",
    [
        (["VIII"], "unknown table 'VIII'; choose one of I, II, single-stream"),
        (["II", "--rows", "0;0.2"], "table II has no row '0.2'; its rows are 0; 0.3; 0.4"),
        (["I", "II", "--rows", "0"], "--rows takes rows of one table"),
        (["I", "--seeds", "0"], "argument --seeds: 0 must be at least 1"),
        (["I", "--jobs", "0"], "argument --jobs: 0 must be at least 1"),
        (["I", "--val", "tset"], "split 'tset'"),
        (["I", "--backbone", "vgg61"], "unknown backbone 'vgg61'"),
    ],
)
def test_a_table_that_cannot_be(table, words, said):
    code, _, err = table(*words)
    assert code == 2
    assert said in err
    assert not Path("results").exists()


def test_a_table_of_pictures_without_masks_names_one(table, root):
    (root / "SegmentationClass/two.png").unlink()
    code, _, err = table("I", "--seeds", 1, root=root)
    assert code == 3
    assert "1 of 1 settings failed" in err
    assert "two.jpg has no ground-truth mask" in err


# --- data -------------------------------------------------------------------------------------------------------------


def test_data_make_and_check(run, tmp_path):
    code, out, err = run("data", "make", "--out", "mini", "--train", 3, "--val", 2, "--size", 48, "--json")
    assert code == 0
    assert json.loads(out) | {"folder": ""} == {
        "done": 5, "folder": "", "seed": 0, "train": 3, "val": 2, "size": 48, "workers": 1
    }  # fmt: skip
    assert "3 training" in err
    code, out, _ = run("data", "check", "mini", "--decode", "--json")
    assert code == 0
    assert json.loads(out)["splits"]["train"] == {"listed": 3, "pictures": 3, "masks": 3, "labels": 3, "expected": 1464}
    code, _, err = run("data", "make", "--out", "mini", "--train", 4, "--val", 2, "--size", 48)
    assert code == 3
    assert "mini holds the data set" in err


def test_data_check_names_bad_files(run, root):
    (root / "JPEGImages/one.jpg").unlink()
    broken = (root / "JPEGImages/two.jpg").read_bytes()
    (root / "JPEGImages/two.jpg").write_bytes(broken[: len(broken) // 2])
    write_mask(root / "SegmentationClass/three.png", np.zeros((9, 9), np.uint8))
    code, _, err = run("data", "check", root)
    assert code == 1
    assert "1 of 4 pictures are missing" in err
    code, out, err = run("data", "check", root, "--decode", "--json")
    assert code == 1
    failed = json.loads(out)["failed"]
    assert {"one", "two", "three"} <= failed.keys()
    assert "four" not in failed
    assert "one.jpg: no such picture" in err
    assert "two.jpg: cannot be read" in err
    assert "three.png: the mask is 9 x 9, its picture 56 x 40" in err


def test_data_check_names_a_picture_without_labels(run, root):
    table = json.loads((root / "image_labels.json").read_text())
    (root / "image_labels.json").write_text(json.dumps(table | {"one": ["kitten"]}))
    code, _, err = run("data", "check", root, "--decode")
    assert code == 1
    assert "picture one: unknown class 'kitten'" in err


def test_data_check_without_a_data_set(run, tmp_path):
    code, _, err = run("data", "check", tmp_path / "nowhere")
    assert code == 3
    assert "nowhere" in sentences(err)[0]


def test_data_download(run, monkeypatch):
    from dsna_lib.data import download

    asked = []
    monkeypatch.setattr(download, "download_voc", lambda root, sbd: asked.append((root, sbd)) or root / "VOC2012")
    assert run("data", "download", "here", "--no-sbd")[:2] == (0, "here/VOC2012\n")
    code, out, _ = run("data", "download", "here", "--json")
    assert (code, json.loads(out)["folder"]) == (0, "here/VOC2012")
    assert asked == [(Path("here"), False), (Path("here"), True)]

    def fail(root, sbd):
        raise download.DownloadError("no mirror has VOCtrainval_11-May-2012.tar")

    monkeypatch.setattr(download, "download_voc", fail)
    code, out, err = run("data", "download", "here", "--json")
    assert code == 3
    assert "no mirror" in json.loads(out)["error"]
    assert sentences(err) == ["dsna data download: error: no mirror has VOCtrainval_11-May-2012.tar"]


# --- train ------------------------------------------------------------------------------------------------------------

SHORT = ["--epochs", 1, "--drop-after", 1, "--batch-size", 2, "--crop", 32, "--workers", 0, "--device", "cpu"]
BARE = ["--weights", "none", "--train-last", 0]


def test_train_says_where_the_model_is(run, original):
    words = ["train", "--data", "voc", "--root", original, *SHORT, *BARE, "--head", "single_stream", "--out", "trained"]
    code, out, err = run(*words, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["model"] == "trained/model.pth"
    assert result["step"] == 2
    assert np.isfinite(result["loss"])
    config = attention.load("trained/model.pth").config
    assert (config.head, config.train_last, config.weights) == ("single_stream", 0, None)
    written = Path("trained/model.pth").stat().st_mtime_ns
    code, out, _ = run(*words)
    assert (code, out) == (0, "trained/model.pth\n")
    assert Path("trained/model.pth").stat().st_mtime_ns == written
    code, _, err = run(*words, "--limit", 2)  # other pictures must not pass for the same run
    assert code == 3
    assert "trained was made with data" in err


def test_train_options_reach_the_configuration(run, original, monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "train_once", lambda *a: seen.append(a) or (_ for _ in ()).throw(ValueError("enough")))
    data = ["train", "--data", "voc", "--root", original]
    run(*data, "--quick", "--seed", 7, "--head-rate", 0.5, "--limit", 2, "--backbone", "vgg16", "--dropout", 0.1)
    run(*data)
    (model, pictures, config, out), plain = seen
    assert (config.epochs, config.precision, config.seed, config.head_rate) == (6, training.native_precision(), 7, 0.5)
    assert (model.backbone, model.dropout, model.weights) == ("vgg16", 0.1, "imagenet")
    assert (len(pictures), out) == (2, None)
    assert plain[2] == type(config)()


@pytest.mark.parametrize(
    "words, code, named",
    [
        (["--split", "trainn"], 2, "no split 'trainn'"),
        (["--weights", "gone.pth"], 3, "gone.pth: no such weight file"),
        (["--device", "cuda"], 3, "no GPU"),
        (["--batch-size", 9], 3, "4 pictures do not fill one batch of 9"),
        (["--head-rate", 1e38, "--epochs", 4, "--drop-after", 4], 3, "weights became infinite or NaN by step 2"),
    ],
)
def test_train_problems(run, original, monkeypatch, words, code, named):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found, out, err = run("train", "--data", "voc", "--root", original, *SHORT, *BARE, "--out", "trained", *words)
    assert (found, out) == (code, "")
    assert len(sentences(err)) == 1
    assert named in err


@pytest.mark.parametrize("workers", [0, 1])
def test_train_names_a_truncated_picture(run, root, workers):
    path = root / "JPEGImages/two.jpg"
    path.write_bytes(path.read_bytes()[:500])
    words = ["train", "--data", "voc", "--root", root, *SHORT, *BARE, "--batch-size", 4, "--workers", workers]
    code, _, err = run(*words)
    assert code == 3
    assert len(sentences(err)) == 1
    assert f"{path}: cannot be read" in err


def test_train_out_of_memory_says_what_to_lower(run, original, monkeypatch):
    def starve(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(attention.AttentionModel, "forward", starve)
    code, _, err = run("train", "--data", "voc", "--root", original, *SHORT, *BARE)
    assert code == 3
    assert "lower batch_size" in err


def test_train_on_a_folder_and_on_minivoc(run, tmp_path, monkeypatch):
    """Both are found; a split that they lack is wrong usage."""
    picture(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,labels\na.png,cat\n")
    code, _, err = run("train", "--data", "folder", "--root", tmp_path, "--split", "test")
    assert (code, "no split 'test'" in err) == (2, True)
    code, _, err = run("train", "--data", "minivoc", "--split", "test")
    assert (code, "no split 'test'" in err) == (2, True)
    code, _, err = run("train", "--data", "folder", "--root", tmp_path / "gone")
    assert (code, "labels.csv: no such file" in err) == (3, True)


# --- maps -------------------------------------------------------------------------------------------------------------


def test_maps_of_a_data_set(run, original, model_file):
    words = ["maps", "--data", "voc", "--root", original, "--model", model_file, *SIZE, "--json"]
    code, out, _ = run(*words)
    assert code == 0
    assert json.loads(out) == {"done": 4, "folder": "maps", "written": 4, "skipped": 0, "failed": {}}
    with np.load("maps/two.npz") as two:
        assert two["classes"].tolist() == ["dog", "person"]
        assert two["class_names"].tolist() == list(voc.CLASS_NAMES)
        assert two["scores"].shape == (20,)
        assert two["size"].tolist() == [40, 56]
        for kind in KINDS:
            assert two[kind].shape == (2, 4, 4)
            assert two[kind].dtype == np.float16
            assert 0 <= two[kind].min() <= two[kind].max() <= 1
        assert two["expansive"].max() == 1
    Path("maps/two.npz").unlink()
    code, out, _ = run(*words)
    assert (json.loads(out)["written"], json.loads(out)["skipped"]) == (1, 3)
    code, _, err = run(*words, "--all-classes")  # what is there holds fewer classes
    assert code == 3
    assert "maps was made with classes present, not all" in err


def test_maps_of_pictures(run, model_file, tmp_path):
    good = picture(tmp_path / "good.png")
    code, _, err = run("maps", good, tmp_path / "gone.png", "--model", model_file, *SIZE, "--dtype", "float32")
    assert code == 1
    assert sentences(err) == [f"dsna maps: gone: {tmp_path / 'gone.png'}: no such picture"]
    with np.load("maps/good.npz") as maps:
        assert maps["merged"].shape == (20, 4, 4)
        assert maps["merged"].dtype == np.float32
    assert run("maps", good, "--labels", "cat", "--model", model_file, *SIZE)[0] == 0
    with np.load("maps/good.npz") as maps:
        assert maps["merged"].shape == (1, 4, 4)


# --- annotate pictures ------------------------------------------------------------------------------------------------


@pytest.fixture
def annotate(run, model_file):
    def call(*words, **options):
        return run("annotate", *words, "--model", model_file, *SIZE, **options)

    return call


def test_annotate_writes_everything(annotate, tmp_path):
    path = picture(tmp_path / "photo.jpg")
    code, out, err = annotate(path, "--labels", "cat, person", "--json")
    assert code == 0, err
    (shown,) = json.loads(out)["pictures"]
    views = {f"{name}_{kind}.png" for name in ("cat", "person") for kind in KINDS} | {"overlay.png"}
    folder = Path("annotations/photo")
    assert {p.name for p in folder.iterdir()} == views | {"annotation.png", "annotation_crf.png"}
    for name in views:
        with Image.open(folder / name) as view:
            assert (view.size, view.mode) == ((56, 40), "RGB")
    allowed = {0, voc.CLASS_NAMES.index("cat") + 1, voc.CLASS_NAMES.index("person") + 1}
    before, after = read_mask(folder / "annotation.png", (40, 56)), read_mask(folder / "annotation_crf.png", (40, 56))
    assert set(np.unique(before)) <= allowed | {255}
    assert set(np.unique(after)) <= allowed
    assert shown["labels"] == ["cat", "person"]
    assert sum(shown["share"].values()) == pytest.approx(1, abs=1e-3)
    assert shown["share"]["void"] == pytest.approx((before == 255).mean(), abs=1e-3)
    assert shown["share_crf"]["cat"] == pytest.approx((after == 8).mean(), abs=1e-3)
    assert all(0 < p < 1 for p in shown["probability"].values())
    code, out, _ = annotate(path, "--labels", "dog", "--no-crf")
    assert code == 0
    assert "dog" in out
    assert "sure" in out
    assert {p.name for p in folder.iterdir()} == {
        "dog_expansive.png", "dog_discriminative.png", "dog_merged.png", "annotation.png", "overlay.png"
    }  # fmt: skip


def test_annotate_uses_the_shipped_model(run, model_file, tmp_path, monkeypatch):
    path = picture(tmp_path / "photo.png")
    monkeypatch.setattr(cli, "CHECKPOINT", model_file)
    assert run("annotate", path, "--labels", "cat", "--no-crf", *SIZE)[0] == 0
    assert Path("annotations/photo/cat_merged.png").is_file()
    monkeypatch.setattr(cli, "CHECKPOINT", tmp_path / "gone.pth")
    code, _, err = run("annotate", path, "--labels", "cat")
    assert code == 3
    assert "pass --model FILE" in err


def test_annotate_guesses_labels_only_when_asked(annotate, tmp_path):
    path = picture(tmp_path / "photo.png")
    code, _, err = annotate(path)
    assert code == 2
    assert "labels are needed" in err
    code, out, _ = annotate(path, "--labels", "auto", "--no-crf")
    assert code == 0
    assert "predicted" in out
    code, out, _ = annotate(path, "--labels", "auto", "--no-crf", "--json")
    assert json.loads(out)["labels_predicted"] is True
    assert json.loads(out)["pictures"][0]["labels"]


def test_predicted_labels():
    from dsna_lib.maps import PictureMaps

    def of(*scores):
        return photos.predicted_labels(PictureMaps(0, (1, 1), {}, torch.zeros(1, 1, 1), torch.tensor(scores)))

    assert of(-1.0, 0.5, 2.0) == (1, 2)
    assert of(-3.0, -1.0, -2.0) == (1,)


@pytest.mark.parametrize(
    "labels, named",
    [
        ("kat", ["unknown class 'kat'", "did you mean 'cat'", "aeroplane", "tvmonitor"]),
        ("unicorns", ["unknown class 'unicorns'", "aeroplane"]),
        ("", ["--labels is empty", "aeroplane"]),
        (" , ", ["--labels is empty", "aeroplane"]),
    ],
)
def test_unknown_and_missing_classes(annotate, tmp_path, labels, named):
    code, _, err = annotate(picture(tmp_path / "photo.png"), "--labels", labels)
    assert code == 2
    assert len(sentences(err)) == 1
    for words in named:
        assert words in err
    assert not Path("annotations").exists()


def test_a_class_that_is_not_in_the_picture_is_questioned():
    shown = {"picture": "a", "folder": "b", "share": {"background": 0.5, "cat": 0.2}, "probability": {"cat": 0.02}}
    assert "2% sure: is it there?" in photos.summary(shown)
    assert "is it there?" not in photos.summary(shown | {"probability": {"cat": 0.8}})


def form_rgba(path):
    return picture(path.with_suffix(".png"), mode="RGBA")


def form_grey(path):
    return picture(path.with_suffix(".png"), mode="L")


def form_cmyk(path):
    return picture(path.with_suffix(".jpg"), mode="CMYK")


def form_16_bit(path):
    values = np.linspace(0, 65535, 40 * 56).reshape(40, 56).astype(np.uint16)
    Image.fromarray(values).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def form_palette(path):
    return picture(path.with_suffix(".gif"), mode="P")


def form_rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: 40 x 56 pixels on disk are shown as 56 x 40
    return picture(path.with_suffix(".jpg"), size=(40, 56), exif=exif)


@pytest.mark.parametrize("form", [form_rgba, form_grey, form_cmyk, form_16_bit, form_palette, form_rotated])
def test_forms_of_pictures(annotate, tmp_path, form):
    path = form(tmp_path / "photo")
    code, _, err = annotate(path, "--labels", "cat")
    assert code == 0, err
    for name in ("annotation", "annotation_crf", "overlay"):
        with Image.open(f"annotations/photo/{name}.png") as made:
            assert made.size == (56, 40)


def test_one_pixel(annotate, tmp_path):
    code, _, err = annotate(picture(tmp_path / "dot.png", (1, 1)), "--labels", "cat,dog")
    assert code == 0, err
    assert read_mask("annotations/dot/annotation.png").shape == (1, 1)
    assert read_mask("annotations/dot/annotation_crf.png").shape == (1, 1)


def test_20_megapixels(annotate, tmp_path):
    Image.new("RGB", (5472, 3648), "gray").save(tmp_path / "large.jpg")
    code, out, err = annotate(tmp_path / "large.jpg", "--labels", "cat", "--json", "--max-side", 300)
    assert code == 0, err
    assert json.loads(out)["pictures"][0]["crf_size"] == [300, 200]
    folder = Path("annotations/large")
    assert read_mask(folder / "annotation.png").shape == read_mask(folder / "annotation_crf.png").shape == (3648, 5472)
    with Image.open(folder / "cat_merged.png") as view:
        assert view.size == (300, 200)


def test_reduced_keeps_small_pictures():
    image = np.zeros((40, 56, 3), np.uint8)
    assert photos.reduced(image, 56) is image
    assert photos.reduced(image, 0) is image
    assert photos.reduced(image, 28).shape == (20, 28, 3)


def test_bad_pictures_are_named_and_the_others_done(annotate, tmp_path):
    good, last = picture(tmp_path / "good.png"), picture(tmp_path / "last.png")
    cut = picture(tmp_path / "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:700])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    bad = [tmp_path / "gone.jpg", cut, tmp_path / "text.jpg", tmp_path / "empty.png"]
    code, out, err = annotate(good, *bad, last, "--labels", "cat", "--no-crf", "--json")
    assert code == 1
    result = json.loads(out)
    assert [shown["picture"] for shown in result["pictures"]] == [str(good), str(last)]
    assert result["failed"].keys() == {"gone", "cut", "text", "empty"}
    assert len(sentences(err)) == 4
    for path in bad:
        assert sum(str(path) in line for line in sentences(err)) == 1
    assert Path("annotations/last/annotation.png").is_file()
    assert annotate(*bad, "--labels", "cat", "--no-crf")[0] == 3  # nothing could be done


def test_a_picture_twice_and_two_of_one_stem(annotate, tmp_path):
    path = picture(tmp_path / "photo.png")
    code, out, _ = annotate(path, path, "photo.png", "--labels", "cat", "--no-crf", "--json")
    assert (code, len(json.loads(out)["pictures"])) == (0, 1)
    other = picture(tmp_path / "photo.jpg")
    code, _, err = annotate(path, other, "--labels", "cat")
    assert code == 2
    assert str(path) in err
    assert str(other) in err


def test_no_pydensecrf_loses_nothing(annotate, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    paths = [picture(tmp_path / name) for name in ("a.png", "b.png")]
    code, out, err = annotate(*paths, "--labels", "cat", "--json")
    assert code == 3
    assert len(sentences(err)) == 1
    assert "pydensecrf" in err
    assert "--no-crf" in err
    assert [shown["picture"] for shown in json.loads(out)["pictures"]] == [str(path) for path in paths]
    for name in ("a", "b"):
        assert Path(f"annotations/{name}/annotation.png").is_file()
        assert Path(f"annotations/{name}/overlay.png").is_file()
        assert not Path(f"annotations/{name}/annotation_crf.png").exists()
    assert annotate(*paths, "--labels", "cat", "--no-crf")[0] == 0


def test_full_disk(annotate, tmp_path, monkeypatch):
    good, second = picture(tmp_path / "good.png"), picture(tmp_path / "second.png")
    real, files = os.fdopen, []

    def fdopen(handle, mode):
        files.append(handle)
        if len(files) <= 5:  # three heat maps, the overlay and the annotation of the first picture
            return real(handle, mode)
        os.close(handle)
        return open("/dev/full", mode)

    monkeypatch.setattr(os, "fdopen", fdopen)
    code, _, err = annotate(good, second, "--labels", "cat", "--no-crf")
    assert code == 3
    assert len(sentences(err)) == 1
    assert "No space left on device" in err
    assert "annotations/second/cat_expansive.png" in err
    assert read_mask("annotations/good/annotation.png").shape == (40, 56)
    assert list(Path("annotations/second").iterdir()) == []


def test_unwritable_folder(annotate, tmp_path):
    good, other = picture(tmp_path / "good.png"), picture(tmp_path / "other.png")
    Path("file").touch()
    for out in ("file", "file/inside"):
        code, _, err = annotate(good, "--labels", "cat", "--out", out)
        assert code == 3
        assert f"cannot write into the folder {out}" in err
    Path("annotations").mkdir()
    Path("annotations/good").touch()  # only this picture's folder is in the way
    code, _, err = annotate(good, other, "--labels", "cat", "--no-crf")
    assert code == 1
    assert "annotations/good" in err
    assert Path("annotations/other/annotation.png").is_file()


def test_bad_checkpoints(run, model_file, original, tmp_path):
    path = picture(tmp_path / "photo.png")
    (tmp_path / "text.pth").write_text("no checkpoint")
    (tmp_path / "cut.pth").write_bytes(model_file.read_bytes()[:5000])
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    for name, words in (
        ("gone.pth", "no such weight file"),
        ("text.pth", "is no PyTorch checkpoint"),
        ("cut.pth", "is no PyTorch checkpoint, or a truncated one"),
        ("other.pth", "is a checkpoint, but no model file of this book"),
    ):
        code, _, err = run("annotate", path, "--labels", "cat", "--model", tmp_path / name)
        assert code == 3
        assert len(sentences(err)) == 1
        assert f"{tmp_path / name}: {words}" in err
    two = attention.create(attention.ModelConfig(("cat", "dog"), weights=None))
    attention.save(two, tmp_path / "two.pth")
    code, _, err = run("annotate", "--data", "voc", "--root", original, "--model", tmp_path / "two.pth")
    assert code == 3
    assert "knows 2 classes (cat, dog, ...), the data has 20 (aeroplane" in err


def test_no_gpu(run, model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = picture(tmp_path / "photo.png")
    code, _, err = run("annotate", path, "--labels", "cat", "--model", model_file, "--device", "cuda")
    assert code == 3
    assert sentences(err) == [
        "dsna annotate: error: --device cuda was asked for, but this machine shows no GPU; use --device cpu"
    ]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_out_of_memory(annotate, tmp_path, monkeypatch, error):
    def starve(*_):
        raise error

    monkeypatch.setattr(attention.AttentionModel, "forward", starve)
    code, _, err = annotate(picture(tmp_path / "photo.png"), "--labels", "cat")
    assert code == 3
    assert "out of memory" in err
    assert "lower --batch-size" in err


def test_out_of_memory_in_the_crf_names_the_picture(annotate, tmp_path, monkeypatch):
    def refine(image, *_):
        if image.shape[0] == 40:
            raise MemoryError
        return np.zeros(image.shape[:2], np.uint8)

    monkeypatch.setattr(crf, "refine", refine)
    paths = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", (30, 30))]
    code, _, err = annotate(*paths, "--labels", "cat")
    assert code == 1
    assert "dsna annotate: a: out of memory: lower" in err
    assert "--max-side" in err
    assert Path("annotations/b/annotation_crf.png").is_file()


# --- annotate and evaluate a data set ---------------------------------------------------------------------------------


@pytest.fixture
def on_voc(run, model_file):
    def call(command, root, *words):
        return run(command, "--data", "voc", "--root", root, "--model", model_file, *SIZE, *words)

    return call


def test_annotate_a_data_set_and_evaluate_it(run, on_voc, original):
    words = ["annotate", original, "--split", "val", "--kinds", "merged,expansive", "--json"]
    code, out, err = on_voc(*words)
    assert code == 0, err
    assert json.loads(out) == {
        "done": 4, "folder": "annotations", "kinds": ["merged", "expansive", "merged_crf"],
        "written": 4, "skipped": 0, "failed": {},
    }  # fmt: skip
    for kind in ("merged", "expansive", "merged_crf"):
        assert len(list(Path("annotations", kind).glob("*.png"))) == 4
    code, out, _ = on_voc(*words)
    assert (json.loads(out)["written"], json.loads(out)["skipped"]) == (0, 4)

    data = ["--data", "voc", "--root", original, "--split", "val"]
    code, out, _ = run("evaluate", "annotations/merged_crf", *data, "--json")
    assert code == 0
    row = json.loads(out)["rows"]["merged_crf"]
    assert 0 <= row["iou"] <= 100
    assert row["per_class"]["sheep"]["iou"] is None
    code, out, _ = run("evaluate", original / "SegmentationClass", *data, "--per-class")
    assert code == 0
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["SegmentationClass"] == ["100.0"] * 3
    assert lines["cat"] == ["100.0"] * 3
    assert lines["sheep"] == ["nan"] * 3


def test_void_policies(run, original):
    shutil.copytree(original / "SegmentationClass", "void")
    write_mask("void/one.png", np.full((40, 56), 255, np.uint8))
    recall = {}
    for void in ("false_negative", "background", "ignore"):
        words = ["evaluate", "void", "--data", "voc", "--root", original, "--void", void, "--json"]
        recall[void] = json.loads(run(*words)[1])["rows"]["void"]["per_class"]["cat"]["recall"]
    assert recall == {"false_negative": 50.0, "background": 50.0, "ignore": 100.0}


def test_another_model_does_not_go_on_in_the_folder(run, on_voc, original, tmp_path):
    assert on_voc("annotate", original, "--no-crf")[0] == 0
    attention.save(attention.create(attention.ModelConfig(voc.CLASS_NAMES, weights=None)), "other.pth")
    words = ["annotate", "--data", "voc", "--root", original, "--no-crf", *SIZE]
    code, _, err = run(*words, "--model", "other.pth")
    assert code == 3
    assert "annotations was made with model" in err
    assert on_voc("annotate", original, "--crf", "sec")[0] == 0
    code, _, err = on_voc("annotate", original, "--crf", "deeplab")
    assert code == 3
    assert "merged_crf was made with crf sec, not deeplab" in err


def test_bad_pictures_of_a_data_set(on_voc, root):
    (root / "JPEGImages/one.jpg").unlink()
    (root / "JPEGImages/three.jpg").write_bytes(b"\xff\xd8 no more")
    code, out, err = on_voc("annotate", root, "--json")
    assert code == 1
    assert json.loads(out)["failed"].keys() == {"one", "three"}
    assert {path.stem for path in Path("annotations/merged_crf").glob("*.png")} == {"two", "four"}
    assert "one.jpg: no such picture" in err
    code, out, err = on_voc("evaluate", root, "--json")
    assert code == 1
    assert json.loads(out)["done"] == 2
    assert "three.jpg: cannot be read" in err


def test_no_pydensecrf_keeps_a_data_sets_annotations(on_voc, original, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    code, _, err = on_voc("annotate", original)
    assert code == 3
    assert "--no-crf" in err
    assert len(list(Path("annotations/merged").glob("*.png"))) == 4


@pytest.mark.parametrize(
    "command, words, named",
    [
        ("annotate", ["--split", "vall"], "no split 'vall' here; there is train, val"),
        ("annotate", ["--kinds", "merged,best"], "this model has expansive, discriminative, merged"),
        ("annotate", ["--kinds", ""], "this model has"),
        ("evaluate", ["--kinds", "best"], "this model has"),
    ],
)
def test_unknown_split_and_kind(on_voc, original, command, words, named):
    code, _, err = on_voc(command, original, *words)
    assert code == 2
    assert named in err


def test_an_empty_split(on_voc, root):
    (root / "ImageSets/Segmentation/val.txt").write_text("")
    code, _, err = on_voc("evaluate", root)
    assert code == 3
    assert "split val" in err
    assert "no pictures" in err


def test_evaluate_by_the_protocol_of_table_1(on_voc, original):
    code, out, err = on_voc("evaluate", original, "--crf", "sec", "--out", "kept", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert list(result["rows"]) == ["expansive", "discriminative", "merged", "merged_crf"]
    assert result["labels"] == "the true image labels"
    assert "true image labels" in err
    assert len(list(Path("kept/merged_crf").glob("*.png"))) == 4
    code, out, _ = on_voc("evaluate", original, "--limit", 2, "--kinds", "merged")
    assert code == 0
    assert "2 pictures of val, annotated with their true image labels." in out
    assert sorted(path.name for path in Path().iterdir()) == ["kept"]


def test_a_single_stream_model_has_one_map(run, original, tmp_path):
    model = attention.create(attention.ModelConfig(voc.CLASS_NAMES, weights=None, head="single_stream"))
    attention.save(model, "single.pth")
    data = ["--data", "voc", "--root", original, "--model", "single.pth", *SIZE]
    assert list(json.loads(run("evaluate", *data, "--json")[1])["rows"]) == ["discriminative"]
    code, _, err = run("annotate", *data)
    assert code == 2
    assert "this model has discriminative" in err
    path = picture(tmp_path / "photo.png")
    assert run("annotate", path, "--labels", "cat", "--no-crf", "--model", "single.pth", *SIZE)[0] == 0
    names = {p.name for p in Path("annotations/photo").iterdir()}
    assert names == {"cat_discriminative.png", "annotation.png", "overlay.png"}


@pytest.mark.parametrize("damage", ["missing", "size", "class"])
def test_evaluate_names_a_bad_annotation(run, original, damage):
    shutil.copytree(original / "SegmentationClass", "made")
    if damage == "missing":
        Path("made/two.png").unlink()
    else:
        write_mask("made/two.png", np.full((40, 56) if damage == "class" else (9, 9), 77, np.uint8))
    code, out, err = run("evaluate", "made", "--data", "voc", "--root", original)
    assert (code, out) == (3, "")
    assert len(sentences(err)) == 1
    assert "made/two.png" in err


def test_two_processes_do_what_one_does(on_voc, original, model_file, tmp_path):
    assert on_voc("annotate", original, "--batch-size", 1, "--out", "one")[0] == 0
    words = ["annotate", "--data", "voc", "--root", original, "--model", model_file, *SIZE]
    words += ["--batch-size", 1, "--out", "two", "--json"]
    command = [sys.executable, "-m", "dsna_lib.cli", *map(str, words)]
    network = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    path = {"PYTHONPATH": os.pathsep.join([str(Path(cli.__file__).parents[1]), *sys.path])}
    environments = [os.environ | network | path | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]
    started = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for env in environments
    ]
    outputs = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert json.loads(outputs[0][0])["written"] == 4
    assert outputs[1][0] == ""
    for kind in ("merged", "merged_crf"):
        for path in sorted(Path("one", kind).glob("*.png")):
            assert path.read_bytes() == Path("two", kind, path.name).read_bytes()


def free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_minivoc_is_drawn_when_it_is_needed(run, tmp_path, monkeypatch):
    assert run("data", "make", "--out", "mini", "--train", 2, "--val", 2, "--size", 48)[0] == 0
    attention.save(attention.create(attention.ModelConfig(ANIMALS, weights=None)), "animals.pth")
    words = ["evaluate", "--data", "minivoc", "--root", "mini", "--model", "animals.pth", *SIZE]
    code, out, err = run(*words, "--record", "scores", "--note", "a toy")
    assert code == 0, err
    kept = json.loads(Path("results/scores.json").read_text())
    assert set(kept["values"]["rows"]) == {"expansive", "discriminative", "merged"}
    assert kept["provenance"]["labels"] == "the true image labels"
    assert (kept["provenance"]["note"], kept["provenance"]["pictures"]) == ("a toy", 2)
    assert "expansive" in out
