"""``dsna segment``."""

import json
import tarfile
from pathlib import Path

import pytest
import skimage
from command_line import picture
from PIL import Image

from dsna_lib import checkpoints
from dsna_lib.data import read_mask
from dsna_lib.engine.files import read_json
from dsna_lib.engine.pools import Workers

ON_CPU = ["--device", "cpu", "--scales", "1"]


def test_segment_a_data_set(run, root, network):
    words = ["segment", "--data", "voc", "--root", root, "--model", network, "--kinds", "single,crf", *ON_CPU]
    code, out, _ = run(*words, "--json")
    assert code == 0
    assert [json.loads(out)[key] for key in ("done", "written", "skipped")] == [4, 4, 0]
    code, out, _ = run(*words, "--json")
    assert json.loads(out)["skipped"] == 4
    code, out, _ = run("evaluate", "segmentation/crf", "--data", "voc", "--root", root, "--per-class")
    assert code == 0
    assert "cat" in out
    made, refined = (read_json(Path("segmentation", name)) for name in ("run.json", "crf/run.json"))
    assert (made["state"], made["identity"]["scales"], refined["identity"]) == (
        "finished",
        [1.0],
        {"crf": "segmentation"},
    )
    code, _, err = run(*words, "--flip")
    assert code == 3
    assert "segmentation was made with flip False, not True" in err
    code, _, err = run(*words, "--crf", "deeplab")
    assert code == 3
    assert "segmentation/crf was made with crf 'segmentation', not 'deeplab'" in err


def test_what_was_made_of_another_picture_is_made_again(run, root, network):
    words = ["segment", "--data", "voc", "--root", root, "--model", network, "--kinds", "single,crf", *ON_CPU]
    assert run(*words)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in Path("segmentation").rglob("*.png")}
    picture(root / "JPEGImages/two.jpg")
    Path("segmentation/crf/one.png").write_bytes(b"")
    code, out, _ = run(*words)
    assert code == 0
    said = "1 were made again, for they were not of these pictures and labels: two"
    assert out.splitlines()[-1] == f"segmentation: 2 written, 2 were there, 0 failed; {said}"
    after = {path: path.stat().st_mtime_ns for path in Path("segmentation").rglob("*.png")}
    changed = {"single/one.png", "crf/one.png", "single/two.png", "crf/two.png"}
    assert {str(path.relative_to("segmentation")) for path in before if after[path] != before[path]} == changed
    assert run(*words, "--out", "whole")[0] == 0
    for path in before:
        assert path.read_bytes() == ("whole" / path.relative_to("segmentation")).read_bytes()


def test_labels_are_not_read(run, root, network, tmp_path):
    """With all labels wrong, or gone, the masks are the same."""
    words = ["segment", "--data", "voc", "--root", root, "--model", network, "--kinds", "single", *ON_CPU]
    assert run(*words, "--out", "one")[0] == 0
    table = root / "image_labels.json"
    table.write_text(json.dumps({i: ["sheep"] for i in json.loads(table.read_text())}))
    assert run(*words, "--out", "other")[0] == 0
    for path in Path("one/single").iterdir():
        assert path.read_bytes() == (Path("other/single") / path.name).read_bytes()


def test_photographs(run, network, tmp_path):
    good, bad = picture(tmp_path / "good.png", (90, 60)), tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    code, out, err = run("segment", good, bad, "--model", network, *ON_CPU, "--json")
    assert code == 1
    assert "bad.jpg: cannot be read as a picture" in err
    result = json.loads(out)
    assert result["done"] == 1
    assert sum(result["pictures"][0]["share"].values()) == pytest.approx(1, abs=0.01)
    assert read_mask("segmentation/good/segmentation.png").shape == (60, 90)
    assert Image.open("segmentation/good/overlay.png").size == (90, 60)


def test_a_large_photograph_is_seen_smaller(run, network, tmp_path):
    large = picture(tmp_path / "large.png", (400, 200))
    code, out, _ = run("segment", large, "--model", network, *ON_CPU, "--max-side", "64", "--no-crf", "--json")
    assert code == 0
    assert json.loads(out)["pictures"][0]["size"] == [64, 32]
    assert read_mask("segmentation/large/segmentation.png").shape == (200, 400)


def test_the_network_that_ships_needs_no_label(run, tmp_path):
    """It is small, learned from weak annotations, and is shown pictures at the scales at which it has learned."""
    assert checkpoints.SEGMENTATION.stat().st_size < 8e6
    Image.fromarray(skimage.data.chelsea()).save(tmp_path / "chelsea.png")
    words = ["segment", tmp_path / "chelsea.png", "--device", "cpu", "--no-crf", "--json"]
    shares = []
    for scales in ([], ["--scales", "0.45,0.6,0.75"], ["--scales", "1"]):
        code, out, _ = run(*words, *scales)
        assert code == 0
        shares.append(json.loads(out)["pictures"][0]["share"])
    assert shares[0]["cat"] > 0.5
    assert shares[0] == shares[1] != shares[2]


def test_a_scale_beyond_all_memory_is_named(run, root, network):
    words = ["--data", "voc", "--root", root, "--model", network, "--device", "cpu", "--kinds", "single"]
    code, _, err = run("segment", *words, "--scales", "1e308")
    assert code == 2
    assert "at scale 1e+308 a picture of 40 pixels a side would have more than 32,768; lower --scales" in err


def test_no_pydensecrf(run, root, network, tmp_path, without_pydensecrf):
    photograph = picture(tmp_path / "photograph.png", (40, 30))
    for asked in (["--data", "voc", "--root", root], [photograph]):
        words = ["segment", *asked, "--model", network, *ON_CPU]
        code, _, err = run(*words, "--crf-backend", "pydensecrf")
        assert code == 3
        assert "let PyTorch compute the dense CRF (--crf-backend torch)" in err
        assert not Path("segmentation").exists()
        assert run(*words, "--out", "made")[0] == 0
    assert len(list(Path("made/crf").glob("*.png"))) == 4
    assert Path("made/photograph/segmentation.png").is_file()


def test_bad_networks(run, network, root, tmp_path):
    truncated = tmp_path / "truncated.pth"
    truncated.write_bytes(network.read_bytes()[:1000])
    for path, said in (
        (truncated, "is no PyTorch checkpoint, or a truncated one"),
        (checkpoints.ATTENTION, "is a dsna-attention-1 file, and dsna-segmentation-1 was wanted"),
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
        (["--data", "minivoc", "--scales", "0,1"], "argument --scales: 0 must be above 0"),
    ],
)
def test_wrong_usage(run, words, said):
    code, _, err = run("segment", *words)
    assert code == 2
    assert said in err


def test_the_servers_archive(run, root, network, tmp_path):
    words = ["--data", "voc", "--root", root, "--model", network, "--kinds", "single", *ON_CPU]
    code, _, _ = run("segment", *words, "--archive", tmp_path / "comp6.tar.gz")
    assert code == 0
    with tarfile.open(tmp_path / "comp6.tar.gz") as archive:
        names = sorted(archive.getnames())
    assert names == [f"results/VOC2012/Segmentation/comp6_test_cls/{i}.png" for i in ("four", "one", "three", "two")]


def test_an_archive_that_cannot_be_written_is_refused_first(run, root, network):
    words = ["--data", "voc", "--root", root, "--model", network, "--kinds", "single", *ON_CPU]
    Path("file").touch()
    code, _, err = run("segment", *words, "--archive", "file/comp6.tar.gz")
    assert code == 3
    assert "cannot write file/comp6.tar.gz: Not a directory" in err
    assert not Path("segmentation").exists()


@pytest.mark.parametrize(
    "words, who", [(["--jobs", 3], Workers(3)), (["--scheduler", "tcp://far:1"], Workers(1, "tcp://far:1"))]
)
def test_shares_go_to_the_workers(run, root, network, executor, words, who):
    code, out, err = run("segment", "--data", "voc", "--root", root, "--model", network, *ON_CPU, *words, "--json")
    assert code == 0, err
    assert json.loads(out)["written"] == 4
    assert executor == [who]
    assert len(list(Path("segmentation/crf").glob("*.png"))) == 4


def test_a_network_of_other_classes_writes_nothing(run, network):
    assert run("data", "make", "--out", "mini", "--train", 1, "--val", 1, "--size", 48)[0] == 0
    code, _, err = run("segment", "--data", "minivoc", "--root", "mini", "--model", network, *ON_CPU)
    assert code == 3
    assert "knows 20 classes (aeroplane, bicycle, bird, ...), the data has 10" in err
    assert not Path("segmentation").exists()
