"""The command line of segmentation: training on annotations, masks without labels, Tables III to VI, bad input."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image
from test_cli import original, own_folder, picture, root, run, sentences  # noqa: F401  (fixtures)

from dsna_lib import cli, crf, pipelines, runs, segmentation
from dsna_lib.data import read_mask, voc, write_mask

SCHEDULE = ["--epochs", "1", "--batch-size", "2", "--crop", "33", "--workers", "0", "--device", "cpu"]
NETWORK = ["--weights", "none", "--train-last", "0", "--channels", "8", "--dilation", "1"]
ON_CPU = ["--device", "cpu", "--scales", "1"]


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    """A segmentation network of the 20 VOC classes with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "model.pth"
    config = segmentation.SegmentationConfig(voc.CLASS_NAMES, channels=8, dilation=1, weights=None)
    segmentation.save(segmentation.create(config), path)
    return path


@pytest.fixture
def train(run, root):  # noqa: F811
    def call(*words):
        return run("train-segmentation", "--data", "voc", "--root", root, *NETWORK, *SCHEDULE, *words)

    return call


@pytest.fixture
def annotations(root, tmp_path) -> Path:  # noqa: F811
    """The true masks, as if somebody had annotated."""
    folder = tmp_path / "annotations"
    for path in (root / "SegmentationClass").iterdir():
        write_mask(folder / path.name, read_mask(path))
    return folder


def test_train_on_annotations_and_segment(train, run, root, annotations, tmp_path):  # noqa: F811
    code, out, _ = train("--annotations", annotations, "--out", tmp_path / "run", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["done"] == 4
    assert Path(found["model"]) == tmp_path / "run" / "model.pth"
    words = ["segment", "--data", "voc", "--root", root, "--model", found["model"], "--kinds", "single,crf", *ON_CPU]
    code, out, _ = run(*words, "--json")
    assert code == 0
    assert [json.loads(out)[key] for key in ("done", "written", "skipped")] == [4, 4, 0]
    code, out, _ = run(*words, "--json")
    assert json.loads(out)["skipped"] == 4
    code, out, _ = run("evaluate", "segmentation/crf", "--data", "voc", "--root", root, "--per-class")
    assert code == 0
    assert "cat" in out


def test_labels_are_not_read(run, root, network, tmp_path):  # noqa: F811
    """With all labels wrong, or gone, the masks are the same."""
    words = ["segment", "--data", "voc", "--root", root, "--model", network, "--kinds", "single", *ON_CPU]
    assert run(*words, "--out", "one")[0] == 0
    table = root / "image_labels.json"
    table.write_text(json.dumps({i: ["sheep"] for i in json.loads(table.read_text())}))
    assert run(*words, "--out", "other")[0] == 0
    for path in Path("one/single").iterdir():
        assert path.read_bytes() == (Path("other/single") / path.name).read_bytes()


def test_the_truth_is_an_upper_bound_that_is_asked_for(train, tmp_path):
    code, _, err = train()
    assert code == 2
    assert "(--annotations) or the true masks (--truth)" in err
    assert train("--truth", "--out", tmp_path / "run")[0] == 0
    assert runs.read_json(tmp_path / "run" / "run.json")["config"]["loss"] == "cross-entropy"


def test_only_vgg16_has_a_pretrained_head(train, annotations):
    code, _, err = train("--annotations", annotations, "--pretrained-head")
    assert code == 3
    assert "only VGG-16's weights hold a head to start from, not backbone='efficientnet_lite0'" in err


def test_sec(train, annotations, tmp_path):
    code, _, err = train("--annotations", annotations, "--sec", "seed,shrink")
    assert code == 2
    assert "shrink" in err or "seed, expand, constrain" in err
    assert train("--annotations", annotations, "--sec", "seed,expand", "--out", tmp_path / "run")[0] == 0
    config = runs.read_json(tmp_path / "run" / "run.json")["config"]
    assert config["loss"]["SECLoss"]["losses"] == ["seed", "expand"]
    assert config["training"]["whole"] is True


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
    code, out, _ = train("--annotations", annotations, "--skip-missing", "--out", tmp_path / "run")
    assert code == 0
    assert "1 of 4 pictures have no annotation and are left out" in out
    for path in annotations.iterdir():
        path.unlink()
    code, _, err = train("--annotations", annotations, "--skip-missing", "--out", tmp_path / "other")
    assert code == 3
    assert "is this the right folder?" in err


def test_photographs(run, network, tmp_path):  # noqa: F811
    good, bad = picture(tmp_path / "good.png", (90, 60)), tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    code, out, err = run("segment", good, bad, "--model", network, *ON_CPU, "--json")
    assert code == 1
    assert "bad.jpg: cannot be read as a picture" in err
    found = json.loads(out)
    assert found["done"] == 1
    assert sum(found["pictures"][0]["share"].values()) == pytest.approx(1, abs=0.01)
    assert read_mask("segmentation/good/segmentation.png").shape == (60, 90)
    assert Image.open("segmentation/good/overlay.png").size == (90, 60)


def test_a_large_photograph_is_seen_smaller(run, network, tmp_path):  # noqa: F811
    large = picture(tmp_path / "large.png", (400, 200))
    code, out, _ = run("segment", large, "--model", network, *ON_CPU, "--max-side", "64", "--no-crf", "--json")
    assert code == 0
    assert json.loads(out)["pictures"][0]["size"] == [64, 32]
    assert read_mask("segmentation/large/segmentation.png").shape == (200, 400)


def test_the_network_that_ships_needs_no_label(run, tmp_path):  # noqa: F811
    """It is small, learned from weak annotations, and is shown pictures at the scales at which it has learned."""
    assert cli.SEGMENTATION_CHECKPOINT.stat().st_size < 8e6
    Image.fromarray(skimage.data.chelsea()).save(tmp_path / "chelsea.png")
    words = ["segment", tmp_path / "chelsea.png", "--device", "cpu", "--no-crf", "--json"]
    shares = []
    for scales in ([], ["--scales", "0.45,0.6,0.75"], ["--scales", "1"]):
        code, out, _ = run(*words, *scales)
        assert code == 0
        shares.append(json.loads(out)["pictures"][0]["share"])
    assert shares[0]["cat"] > 0.5
    assert shares[0] == shares[1] != shares[2]


def test_no_pydensecrf(run, root, network, monkeypatch):  # noqa: F811
    def missing():
        raise ImportError("the dense CRF needs pydensecrf")

    monkeypatch.setattr(crf, "_densecrf", missing)
    code, _, err = run("segment", "--data", "voc", "--root", root, "--model", network, *ON_CPU)
    assert code == 3
    assert "needs pydensecrf" in err
    assert run("segment", "--data", "voc", "--root", root, "--model", network, *ON_CPU, "--no-crf")[0] == 0


def test_bad_networks(run, network, root, tmp_path):  # noqa: F811
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(network.read_bytes()[:1000])
    for path, said in (
        (truncated, "is no PyTorch checkpoint, or a truncated one"),
        (cli.CHECKPOINT, "is a dsna-attention-1 file, and dsna-segmentation-1 was wanted"),
        (tmp_path / "none.pth", "no such weight file"),
    ):
        code, _, err = run("segment", "--data", "voc", "--root", root, "--model", path, *ON_CPU)
        assert code == 3
        assert said in err


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "name either pictures or a data set"),
        (["cat.jpg", "--data", "minivoc"], "name either pictures or a data set"),
        (["cat.jpg", "--kinds", "single"], "--kinds and --archive go with a data set"),
        (["--data", "minivoc", "--kinds", "sharp"], "--kinds sharp: choose from single, multi"),
        (["--data", "minivoc", "--kinds", "crf", "--no-crf"], "unless --no-crf is given"),
        (["--data", "minivoc", "--scales", "0,1"], "0,1 must be positive numbers"),
    ],
)
def test_wrong_usage(run, words, said):  # noqa: F811
    code, _, err = run("segment", *words)
    assert code == 2
    assert said in err


def test_the_servers_archive(run, root, network, tmp_path):  # noqa: F811
    words = ["--data", "voc", "--root", root, "--model", network, "--kinds", "single", *ON_CPU]
    code, _, _ = run("segment", *words, "--archive", tmp_path / "comp6.tar.gz")
    assert code == 0
    with tarfile.open(tmp_path / "comp6.tar.gz") as archive:
        names = sorted(archive.getnames())
    assert names == [f"results/VOC2012/Segmentation/comp6_test_cls/{i}.png" for i in ("four", "one", "three", "two")]


# --- tables -----------------------------------------------------------------------------------------------------------


def test_table_3_is_run_and_4_to_6_show_it(run, root, monkeypatch, tmp_path):  # noqa: F811
    seen = {}

    def fake(methods, recipe, seeds, jobs, say):
        seen.update(methods=[m.title for m in methods], recipe=recipe, seeds=seeds)
        counts = np.zeros((1, 21, 22), np.int32)
        counts[0, range(21), range(21)] = 5
        counts[0, 0, 1] = 5
        score = pipelines.Score(dict.fromkeys(pipelines.KINDS, counts), 50.0)
        found = {(method, seed): score for method in methods for seed in range(seeds)}
        return pipelines.values(methods, found, seeds, ("background", *voc.CLASS_NAMES)), {"how": "not at all"}

    monkeypatch.setattr(pipelines, "run", fake)
    words = ["--data", "voc", "--root", root, "--backbone", "vgg16", "--weights", "none", "--seeds", "2", "--out", "r"]
    rows = "DSNA, merged;full supervision"
    segment = ("epochs", "3", "scales", "1", "dilation", "6", "channels", "64", "train-last", "9", "head-rate", "0.05")
    segment = [f"--segment-{word}" if k % 2 == 0 else word for k, word in enumerate(segment)]
    segment += ["--segment-whole", "--segment-pretrained-head"]
    code, out, _ = run("table", "III", *words, "--rows", rows, *segment)
    assert code == 0
    assert seen["methods"] == ["DSNA, merged", "full supervision"]
    assert seen["seeds"] == 2
    training, network = seen["recipe"].training, seen["recipe"].network
    assert (training.epochs, training.head_rate, training.backbone_rate, training.whole) == (3, 0.05, 0.001, True)
    assert (network.dilation, network.channels, network.train_last, network.pretrained_head) == (6, 64, 9, True)
    assert seen["recipe"].scales == (1.0,)
    assert seen["recipe"].network.backbone == "vgg16"
    stored = runs.read_json("r/table_III_voc_vgg16.json")
    assert stored["values"]["rows"][0]["mean"]["share"] == 100
    assert "full supervision" in out
    code, out, _ = run("table", "IV", "VI", "--out", "r")
    assert code == 0
    assert "ScribbleSup" in out
    assert "DSNA, merged, here" in out
    assert "DSNA, merged, voc_vgg16" in out


def test_published_tables_need_no_measurement(run):  # noqa: F811
    code, out, _ = run("table", "V")
    assert code == 0
    assert "56.4" in out


@pytest.mark.parametrize(
    "words, said",
    [
        (["III"], "table III is measured: name a data set"),
        (["III", "--data", "minivoc", "--rows", "SEC"], "table III has no row 'SEC'; its rows are CAM; SEC, seed"),
        (["VII", "--data", "minivoc"], "unknown table 'VII'"),
        (["III", "I", "--data", "minivoc", "--rows", "CAM"], "--rows takes rows of one table"),
    ],
)
def test_a_table_that_cannot_be(run, words, said):  # noqa: F811
    code, _, err = run("table", *words)
    assert code == 2
    assert said in err
