"""``dsna data``: make, check, download, split."""

import json
from pathlib import Path

import numpy as np
from command_line import picture, sentences

from dsna_lib.data import voc, write_mask


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


def test_data_make_with_help_and_check(run):
    few = ("--saliency", 1, "--web", 2, "--videos", 1, "--frames", 2, "--other-masks", 1)
    make = ("data", "make", "--out", "mini", "--train", 2, "--val", 0, "--size", 48)
    code, out, err = run(*make, "--json", *few)
    assert code == 0
    told = json.loads(out)
    assert told["help"].endswith("mini/help")
    assert told["web"] == 2
    assert "2 pictures of one animal from the web" in err
    code, out, err = run("data", "check", "mini", "--decode")
    assert code == 0
    assert "points      2 pictures (simulated: " in out
    assert "videos      2 pictures (simulated: " in out
    table = Path("mini/help/points.csv")
    table.write_text(table.read_text().replace("train_00001", "train_00000"))
    code, out, err = run("data", "check", "mini", "--decode", "--json")
    assert code == 1
    assert json.loads(out)["help"]["points"] == 1
    assert "mini/help/points: its files are not those that were drawn" in json.loads(out)["failed"]["points"]
    code, _, err = run(*make, "--with-help")
    assert code == 3
    assert "holds other help than was asked for" in err


def test_data_check_names_bad_files(run, root):
    (root / "JPEGImages/one.jpg").unlink()
    broken = (root / "JPEGImages/two.jpg").read_bytes()
    (root / "JPEGImages/two.jpg").write_bytes(broken[: len(broken) // 2])
    write_mask(root / "SegmentationClass/three.png", np.zeros((9, 9), np.uint8))
    code, _, err = run("data", "check", root)
    assert code == 1
    assert "1 of 4 pictures are missing or damaged" in err
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


def test_data_check_goes_on_after_a_damaged_annotation_and_names_classes_beyond(run, root):
    (root / "Annotations").mkdir()
    for name in ("one", "two", "three", "four"):
        (root / f"Annotations/{name}.xml").write_text("<a><object><name>cat</name></object></a>")
    (root / "Annotations/two.xml").write_text("<a><object>")
    for name in ("two", "three"):
        write_mask(root / f"SegmentationClass/{name}.png", np.full((40, 56), 21, np.uint8))
    code, _, err = run("data", "check", root)
    assert code == 1
    assert "1 of 4 labels are missing or damaged" in err
    code, out, _ = run("data", "check", root, "--decode", "--json")
    assert code == 1
    failed = json.loads(out)["failed"]
    assert "two.xml: is no XML" in failed["two"]
    assert "two.png: holds class 21, the data knows 0 to 20" in failed["two"]
    assert "three.png: holds class 21" in failed["three"]
    assert not {"one", "four"} & failed.keys()


def test_data_check_writes_train_aug_on_request(run, root, monkeypatch):
    """From the masks' names; pictures' labels stay those of the annotations."""
    monkeypatch.setitem(voc.SPLIT_SIZES, "train_aug", 1)
    picture(root / "JPEGImages/five.jpg")
    (root / "SegmentationClassAug").mkdir()
    for name in ("one", "five"):
        write_mask(root / f"SegmentationClassAug/{name}.png", np.full((40, 56), 3))
    table = json.loads((root / "image_labels.json").read_text())
    (root / "image_labels.json").write_text(json.dumps(table | {"five": ["cat"]}))
    code, _, err = run("data", "check", root)
    said = f"train_aug is not complete; it can be made of {root}/SegmentationClassAug: add --write-train-aug"
    assert (code, sentences(err)) == (0, [f"dsna data check: warning: {said}"])
    assert not (root / "ImageSets/Segmentation/train_aug.txt").exists()
    code, out, err = run("data", "check", root, "--write-train-aug")
    assert (code, sentences(err)) == (0, [])
    assert "train_aug   1 listed, 1 pictures, 1 masks, 1 labels" in out
    assert [record.labels for record in voc.load(root, "train_aug").records] == [(7,)]


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


def test_data_split(run, tmp_path):
    for k in range(5):
        picture(tmp_path / f"{k}.png")
    (tmp_path / "labels.csv").write_text("file,labels\n" + "".join(f"{k}.png,cat\n" for k in range(5)))
    code, out, _ = run("data", "split", tmp_path, "--seed", 1, "--share", 0.4)
    assert (code, out) == (0, f"{tmp_path}/labels.csv: 3 pictures of train and 2 of val\n")
    code, out, _ = run("data", "split", tmp_path, "--seed", 1, "--share", 0.4, "--json")
    assert (code, json.loads(out)["splits"]) == (0, {"train": 3, "val": 2})
    code, _, err = run("data", "split", tmp_path)
    assert (code, "has a column `split` of other splits already" in err) == (3, True)
    code, _, err = run("data", "split", tmp_path, "--share", 1)
    assert code == 2


def test_data_convert(run, tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")
    images = '<image name="a.png"><tag label="cat"/></image><image name="b.png"/>'
    Path("cvat.xml").write_text(f"<annotations>{images}</annotations>")
    code, out, _ = run("data", "convert", "cvat.xml", tmp_path)
    assert (code, out) == (0, f"{tmp_path}/labels.csv: 2 pictures, 1 of them negative; classes: cat\n")
    code, _, err = run("data", "convert", "gone.json", tmp_path / "new")
    assert (code, sentences(err)) == (3, ["dsna data convert: error: gone.json: No such file or directory"])
