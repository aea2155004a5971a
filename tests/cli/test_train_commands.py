"""``dsna train`` and ``dsna train-segmentation``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import picture, sentences

from dsna_lib import attention, training
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.training import SegmentationTraining, TrainingConfig
from dsna_lib.data import read_mask, transforms, write_mask
from dsna_lib.engine.devices import native_precision
from dsna_lib.engine.files import read_json
from dsna_lib.segmentation import training as segmentation_training

SHORT = ["--epochs", 1, "--drop-after", 1, "--batch-size", 2, "--crop", 32, "--workers", 0, "--device", "cpu"]
BARE = ["--weights", "none", "--train-last", 0]
RECIPE = """
[data]
source = "voc"
train = "train"
segment = "val"
limit = 3

[attention]
backbone = "vgg16"
dropout = 0.25

[training]
epochs = 7
crop = 96
precision = "auto"

[networks.large.model]
backbone = "vgg16"
dilation = 6

[networks.small.model]
channels = 32

[networks.small.training]
epochs = 5
crops = "whole"
precision = "auto"
"""


@pytest.fixture
def seen(monkeypatch) -> list[tuple]:
    """What the trainings are asked for, instead of them."""
    asked: list[tuple] = []

    def train_once(*given):
        asked.append(given)
        raise ValueError("enough")

    monkeypatch.setattr(training, "train_once", train_once)
    monkeypatch.setattr(segmentation_training, "train_once", train_once)
    return asked


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(RECIPE)
    return path


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


def test_train_options_reach_the_configuration(run, original, seen):
    data = ["train", "--data", "voc", "--root", original]
    run(*data, "--quick", "--seed", 7, "--head-rate", 0.5, "--limit", 2, "--backbone", "vgg16", "--dropout", 0.1)
    run(*data)
    (model, pictures, config, out), plain = seen
    assert (config.epochs, config.precision, config.seed, config.head_rate) == (6, native_precision(), 7, 0.5)
    assert (model.backbone, model.dropout, model.weights) == ("vgg16", 0.1, "imagenet")
    assert (len(pictures), out) == (2, None)
    assert plain[2] == TrainingConfig()


def test_train_by_a_recipe(run, original, seen, recipe):
    """Options come before changes, changes before the recipe, and the recipe before the paper's schedule."""
    words = ["train", "--recipe", recipe, "--root", original]
    run(*words)
    run(*words, "-p", "training.crop=64", "-p", "attention.head=single_stream", "--epochs", 2, "--limit", 2)
    run(*words, "--quick", "--head-rate", 0.5, "--data", "voc", "--split", "val")
    by_recipe, changed, quick = seen
    model, pictures, config, _ = by_recipe
    assert (model.backbone, model.dropout, model.class_names[7]) == ("vgg16", 0.25, "cat")
    assert (config.epochs, config.crop, config.precision, config.head_rate) == (7, 96, native_precision(), 0.01)
    assert [record.id for record in pictures.records] == ["one", "two", "three"]
    model, pictures, config, _ = changed
    assert (model.head, config.epochs, config.crop, len(pictures)) == ("single_stream", 2, 64, 2)
    assert (quick[2].epochs, quick[2].drop_after, quick[2].head_rate, quick[2].crop) == (6, 4, 0.5, 96)


def test_another_device_has_another_quickest_precision(run, original, seen, recipe, monkeypatch):
    """What a recipe calls auto was the GPU's, where there is one."""
    of_device = {"auto": "fp16", "cpu": "no"}
    monkeypatch.setattr("dsna_lib.config.training.native_precision", of_device.get)
    monkeypatch.setattr("dsna_lib.engine.devices.native_precision", of_device.get)
    words = ["train", "--recipe", recipe, "--root", original]
    run(*words)
    run(*words, "--device", "cpu")
    run(*words, "--device", "cpu", "-p", "training.precision=bf16")
    run(*words, "--device", "cpu", "--precision", "bf16")
    assert [config.precision for _, _, config, _ in seen] == ["fp16", "no", "bf16", "bf16"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["--recipe", "paper2"], "paper2: no such recipe; did you mean 'paper'?"),
        (["--recipe", "gone.toml"], "gone.toml: no such recipe"),
        (
            ["--recipe", "own.toml", "-p", "training.epoch=3"],
            "own.toml: unknown key training.epoch; did you mean 'epochs'",
        ),
        (["--recipe", "own.toml", "-p", "training.epochs=many"], "training.epochs='many' must be a whole number"),
        (["--recipe", "own.toml", "-p", 'training.epochs="3"'], "training.epochs='3' must be a whole number"),
        (["--recipe", "own.toml", "-p", "training.epochs=0"], "training.epochs=0 must be at least 1"),
        (["--recipe", "own.toml", "-p", "training.epochs"], "write KEY=VALUE, such as training.epochs=3"),
        (["--recipe", "own.toml", "-p", "attention.backbone=vgg61"], "unknown backbone 'vgg61'"),
        (["--recipe", "own.toml", "-p", "data.train=tset"], "no split 'tset' here"),
        (["--recipe", "own.toml"], "the data set 'voc' needs its folder; name it by --root"),
    ],
)
def test_recipes_that_cannot_be(run, original, recipe, seen, words, said):
    root = ["--root", original] if "tset" in words[-1] else []
    code, out, err = run("train", *words, *root)
    assert (code, out) == (2, "")
    assert len(sentences(err)) == 1
    assert said in err
    assert seen == []


def test_a_number_as_text_in_the_file(run, tmp_path):
    (tmp_path / "text.toml").write_text('[training]\nhead_rate = "0.1"\n')
    code, _, err = run("train", "--recipe", "text.toml")
    assert code == 2
    assert sentences(err) == ["dsna train: error: text.toml: training.head_rate='0.1' must be a number"]


@pytest.mark.parametrize(
    "words, code, named",
    [
        (["--split", "trainn"], 2, "no split 'trainn'"),
        (["--weights", "gone.pth"], 3, "gone.pth: no such weight file"),
        (["--device", "cuda"], 3, "no GPU"),
        (["--batch-size", 9], 3, "4 pictures do not fill one batch of 9; lower --batch-size"),
        (["--head-rate", 1e38, "--epochs", 4, "--drop-after", 4], 3, "weights became infinite or NaN by step 2"),
    ],
)
def test_train_problems(run, original, monkeypatch, words, code, named):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ended, out, err = run("train", "--data", "voc", "--root", original, *SHORT, *BARE, "--out", "trained", *words)
    assert (ended, out) == (code, "")
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
    assert "lower --batch-size or --crop, or use --precision bf16" in err


def test_train_and_annotate_a_folder_of_one_class(run, tmp_path):
    """As the README has it, without a column of splits; every picture of the one class is warned of at once."""
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    table = "file,labels\na.png,zebra\nb.png,zebra\n"
    data = ["--data", "folder", "--root", tmp_path]
    (tmp_path / "labels.csv").write_text(table)
    code, _, err = run("train", *data, *SHORT, *BARE, "--out", "one-sided", "--json")
    warning = "dsna train: warning: all 2 pictures show zebra, so that nothing teaches what is no zebra: add pictures "
    assert (code, [line.startswith(warning) for line in sentences(err)]) == (0, [True, True])
    (tmp_path / "labels.csv").write_text(table + "c.png,\nd.png,\n")
    code, _, err = run("train", *data, *SHORT, *BARE, "--out", "trained")
    assert (code, sentences(err)) == (0, [])
    words = ["--model", "trained/model.pth", "--size", 32, "--device", "cpu", "--no-crf"]
    assert run("annotate", *data, *words, "--out", "annotations")[0] == 0
    assert [read_mask(f"annotations/merged/{name}.png").any() for name in "abcd"] == [True, True, False, False]
    (tmp_path / "labels.csv").write_text(table.replace("zebra", "") + "c.png,zebra\n")
    code, _, err = run("annotate", *data, *words, "--limit", 2, "--out", "nothing")
    assert (code, "no picture of split train has a label" in err, Path("nothing").exists()) == (3, True, False)


def test_train_on_a_folder_and_on_minivoc(run, tmp_path):
    """Both are there; a split that they lack is wrong usage."""
    picture(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,labels,split\na.png,cat,train\n")
    code, _, err = run("train", "--data", "folder", "--root", tmp_path, "--split", "test")
    assert (code, "no row has split 'test'; there is train" in err) == (2, True)
    code, _, err = run("train", "--data", "minivoc", "--split", "test")
    assert (code, "no split 'test'" in err) == (2, True)
    code, _, err = run("train", "--data", "folder", "--root", tmp_path / "gone")
    assert (code, "labels.csv: no such file" in err) == (3, True)


def test_what_a_training_warns_of_is_printed(run, original, monkeypatch):
    report = {"examined": 4, "classes_answered": 1, "warnings": ["the classifier answers cat to all 4 pictures"]}
    monkeypatch.setattr(training, "examine", lambda *given: report)
    words = ["train", "--data", "voc", "--root", original, *SHORT, *BARE, "--out", "trained"]
    for _ in range(2):  # a run that is found again warns again
        code, out, err = run(*words)
        assert (code, out) == (0, "trained/model.pth\n")
        assert sentences(err) == ["dsna train: warning: the classifier answers cat to all 4 pictures"]
    assert json.loads(run(*words, "--json")[1])["warnings"] == report["warnings"]


# --- segmentation -----------------------------------------------------------------------------------------------------

SCHEDULE = ["--epochs", "1", "--batch-size", "2", "--crop", "33", "--workers", "0", "--device", "cpu"]
NETWORK = ["--weights", "none", "--train-last", "0", "--channels", "8", "--dilation", "1"]


@pytest.fixture
def train(run, root):
    def call(*words):
        return run("train-segmentation", "--data", "voc", "--root", root, *NETWORK, *SCHEDULE, *words)

    return call


def test_train_on_annotations(train, annotations, tmp_path):
    code, out, _ = train("--annotations", annotations, "--out", tmp_path / "run", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["done"] == 4
    assert Path(result["model"]) == tmp_path / "run" / "model.pth"
    assert result["channels"] == 8


def test_the_truth_is_an_upper_bound_that_is_asked_for(train, tmp_path):
    code, _, err = train()
    assert code == 2
    assert "(--annotations) or the true masks (--truth)" in err
    assert train("--truth", "--out", tmp_path / "run")[0] == 0
    assert read_json(tmp_path / "run" / "run.json")["identity"]["loss"] == {"CrossEntropy": {}}


def test_only_vgg16_has_a_pretrained_head(train, annotations):
    code, _, err = train("--annotations", annotations, "--pretrained-head")
    assert code == 2
    assert (
        "--pretrained-head: only VGG-16's weights hold a head to start from, not backbone='efficientnet_lite0'" in err
    )


def test_sec(train, annotations, tmp_path, monkeypatch):
    code, _, err = train("--annotations", annotations, "--sec", "seed,shrink")
    assert code == 2
    assert "--sec: losses=('seed', 'shrink'): name at least one of seed, expand, constrain" in err
    crops, whole = [], transforms.whole
    monkeypatch.setattr(transforms, "whole", lambda crop, jitter: crops.append(crop) or whole(crop, jitter))
    assert train("--annotations", annotations, "--sec", "seed,expand", "--out", tmp_path / "run")[0] == 0
    identity = read_json(tmp_path / "run" / "run.json")["identity"]
    assert identity["loss"]["SECLoss"]["losses"] == ["seed", "expand"]
    assert identity["training"]["crops"] == "whole"
    assert crops == [33]


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda folder: (folder / "two.png").unlink(), "1 of 4 pictures have no annotation to learn from: two"),
        (
            lambda folder: write_mask(folder / "two.png", np.full((40, 56), 255, np.uint8)),
            "1 of 4 pictures have no annotation to learn from: two (void everywhere)",
        ),
        (lambda folder: write_mask(folder / "two.png", np.full((40, 56), 21, np.uint8)), "two.png: holds class 21"),
        (lambda folder: write_mask(folder / "two.png", np.zeros((30, 56), np.uint8)), "the mask is 56 x 30"),
        (lambda folder: (folder / "two.png").write_bytes(b"no"), "two.png: cannot be read as a mask"),
    ],
)
def test_bad_annotations_are_refused(train, annotations, damage, said):
    damage(annotations)
    code, _, err = train("--annotations", annotations)
    assert code == 3
    assert said in err
    assert len(sentences(err)) == 1


def test_missing_annotations_are_left_out_when_told(train, annotations, tmp_path):
    (annotations / "two.png").unlink()
    assert "leave them out with --skip" in train("--annotations", annotations)[2]
    code, out, _ = train("--annotations", annotations, "--skip-missing", "--out", tmp_path / "run")
    assert code == 0
    assert "1 of 4 pictures have no annotation and are left out" in out
    for path in annotations.iterdir():
        path.unlink()
    code, _, err = train("--annotations", annotations, "--skip-missing", "--out", tmp_path / "other")
    assert code == 3
    assert "is this the right folder?" in err


def test_a_network_by_a_recipe(run, original, seen, recipe):
    words = ["train-segmentation", "--truth", "--recipe", recipe, "--root", original]
    run(*words)
    run(*words, "--network", "small", "--dilation", 3, "--crops", "rescaled", "--split", "train")
    run("train-segmentation", "--truth", "--data", "voc", "--root", original)
    (model, pictures, config, _, loss), (other, _, changed, _, _), (plain, _, usual, _, _) = seen
    assert (model.backbone, model.dilation, model.class_names[7]) == ("vgg16", 6, "cat")
    assert (config, loss, len(pictures)) == (SegmentationTraining(), None, 3)
    assert (other.backbone, other.channels, other.dilation) == ("efficientnet_lite0", 32, 3)
    assert (changed.epochs, changed.crops) == (5, "rescaled")
    assert plain == SegmentationConfig(pictures.class_names)
    assert usual == SegmentationTraining()
    code, _, err = run(*words, "--network", "smal")
    assert code == 2
    assert "the recipe has no network 'smal'; did you mean 'small'?" in err


def test_segmentations_of_a_recipe_learn_from_its_own_split(run, root, seen, recipe):
    (root / "ImageSets/Segmentation/val.txt").write_text("four\n")
    words = ["train-segmentation", "--truth", "--recipe", recipe, "--root", root]
    run(*words)
    run(*words, "--split", "train")
    assert [[record.id for record in pictures.records] for _, pictures, *_ in seen] == [
        ["four"],
        ["one", "two", "three"],
    ]


def test_a_silent_network_is_named(train, tmp_path, monkeypatch):
    report = {"examined": 4, "warnings": ["7 of 8 channels of the head are silent in 4 training pictures"]}
    monkeypatch.setattr(segmentation_training, "examine", lambda *given: report)
    code, _, err = train("--truth", "--out", tmp_path / "run")
    assert code == 0
    assert sentences(err) == [f"dsna train-segmentation: warning: {report['warnings'][0]}"]
