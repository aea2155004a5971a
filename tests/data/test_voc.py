"""PASCAL VOC's layout: labels from XML or a table and never from masks, splits, nested folders, good errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsna_lib.data import sources, voc, write_mask
from dsna_lib.data.pictures import DataError
from dsna_lib.engine.errors import DsnaError, FileError

LABELS = {"a": ["dog", "person"], "b": ["cat"], "c": ["tvmonitor"]}


def make(root: Path, labels: dict[str, list[str]] = LABELS, xml: bool = False) -> Path:
    for i in labels:
        (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(root / "JPEGImages" / f"{i}.jpg")
        write_mask(root / "SegmentationClass" / f"{i}.png", np.full((4, 6), 20))
    split(root, "train", *labels)
    if xml:
        (root / "Annotations").mkdir()
        for i, names in labels.items():
            objects = "".join(f"<object><name>{n}</name><part><name>head</name></part></object>" for n in names + names)
            (root / "Annotations" / f"{i}.xml").write_text(f"<annotation><folder>x</folder>{objects}</annotation>")
    else:
        (root / "image_labels.json").write_text(json.dumps(labels))
    return root


def split(root: Path, name: str, *ids: str) -> None:
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(f"{i}\n" for i in ids))


@pytest.mark.parametrize("xml", [True, False])
def test_labels_from_either_source(tmp_path, xml):
    loaded = voc.load(make(tmp_path, xml=xml), "train")
    assert [r.id for r in loaded.records] == ["a", "b", "c"]
    assert [r.labels for r in loaded.records] == [(11, 14), (7,), (19,)]
    assert loaded.class_names == voc.CLASS_NAMES
    assert loaded.records[0].mask == tmp_path / "SegmentationClass" / "a.png"
    assert loaded.records[0].part is None
    assert loaded[0]["image"].shape == (3, 4, 6)


def test_xml_comes_before_the_table(tmp_path):
    root = make(tmp_path, xml=True)
    (root / "image_labels.json").write_text(json.dumps({i: ["boat"] for i in LABELS}))
    assert voc.load(root, "train").records[1].labels == (7,)


def test_labels_are_never_read_off_masks(tmp_path):
    root = make(tmp_path)
    (root / "image_labels.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither Annotations/\*.xml nor image_labels.json \(they are never"):
        voc.load(root, "train")


def test_the_twenty_classes():
    assert len(voc.CLASS_NAMES) == 20
    assert list(voc.CLASS_NAMES) == sorted(voc.CLASS_NAMES)
    assert (voc.CLASS_NAMES[0], voc.CLASS_NAMES[14], voc.CLASS_NAMES[19]) == ("aeroplane", "person", "tvmonitor")
    assert voc.SPLIT_SIZES == {"train": 1464, "val": 1449, "train_aug": 10582}


PLACES = ["", "VOC2012", "VOCdevkit/VOC2012", "VOCtrainval_11-May-2012/VOCdevkit/VOC2012"]


@pytest.mark.parametrize("inner", PLACES)
def test_nested_folders(tmp_path, inner):
    make(tmp_path / inner)
    assert voc.find_root(tmp_path) == tmp_path / inner
    assert len(voc.load(tmp_path, "train")) == 3


def test_no_voc_here(tmp_path):
    with pytest.raises(FileNotFoundError, match="no JPEGImages folder under .*VOCdevkit/VOC2012.*dsna data download"):
        voc.load(tmp_path, "train")


@pytest.mark.parametrize("name", ["../../escaped", "/escaped", ".."])
def test_an_id_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    root = make(tmp_path)
    (root / "image_labels.json").write_text(json.dumps({**LABELS, name: ["dog"]}))
    split(root, "train", "a", name)
    for load in (lambda: voc.load(root, "train"), lambda: voc.check(root)):
        with pytest.raises(DataError, match=f"JPEGImages.*{name}.jpg: what is named after its id '{name}' would"):
            load()


LISTS = {
    "two columns of paths": "/JPEGImages/a.jpg /SegmentationClassAug/a.png\n/JPEGImages/b.jpg /Segmentation/b.png\n",
    "as Windows writes it": "\ufeffa\r\n\r\nb\r\n  \r\n",
    "ids and masks": "a SegmentationClass/a.png\n\nb\tSegmentationClass/b.png",
    "paths without suffix": "JPEGImages/a\nVOC2012/JPEGImages/b",
    "files": "a.jpg\nb.PNG\n",
    "paths of another folder": "C:\\data\\voc\\a.jpg\n/data/pictures/b.jpeg\n",
}


@pytest.mark.parametrize("form", LISTS)
def test_every_usual_form_of_a_list_is_read_right(tmp_path, form):
    root = make(tmp_path)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_bytes(LISTS[form].encode())
    assert voc.split_ids(root, "train") == ["a", "b"]
    assert [record.labels for record in voc.load(root, "train").records] == [(11, 14), (7,)]


def test_ids_with_dots_and_folders_stay(tmp_path):
    split(tmp_path, "train", "2007.000032", "day/a", "/JPEGImages/day/b.jpg")
    assert voc.split_ids(tmp_path, "train") == ["2007.000032", "day/a", "day/b"]


def test_a_missing_split_lists_the_known_ones(tmp_path):
    root = make(tmp_path)
    split(root, "extra", "b")
    with pytest.raises(FileNotFoundError, match="val.txt: no split 'val' here; there is extra, train"):
        voc.load(root, "val")
    assert [r.id for r in voc.load(root, "extra").records] == ["b"]
    (root / "ImageSets" / "Segmentation" / "extra.txt").unlink()
    (root / "ImageSets" / "Segmentation" / "train.txt").unlink()
    with pytest.raises(FileNotFoundError, match="there is none"):
        voc.load(root, "val")


@pytest.mark.parametrize("xml", [True, False])
def test_unknown_classes_get_a_hint(tmp_path, xml):
    root = make(tmp_path, {"a": ["aeroplan"]}, xml=xml)
    with pytest.raises(ValueError, match="picture a: unknown class 'aeroplan'; did you mean 'aeroplane'?"):
        voc.load(root, "train")


def test_a_class_like_no_other_lists_them_all():
    with pytest.raises(ValueError, match="here: unknown class 'zzz'; the classes are aeroplane, .*, tvmonitor"):
        voc.class_indices(["zzz"], voc.CLASS_NAMES, "here")
    assert voc.class_indices(["person", "cat", "person"], voc.CLASS_NAMES, "here") == (7, 14)


@pytest.mark.parametrize("xml", [True, False])
def test_a_listed_picture_without_labels(tmp_path, xml):
    root = make(tmp_path, xml=xml)
    split(root, "train", "a", "new")
    split(root, "test", "a", "new")
    with pytest.raises(ValueError, match="picture new of split train has no image labels"):
        voc.load(root, "train")
    loaded = voc.load(root, "test")  # the test set's labels are not public
    assert [r.labels for r in loaded.records] == [(11, 14), ()]
    assert loaded.records[1].mask is None


def test_an_annotation_that_is_no_file_is_refused_unread(tmp_path):
    root = make(tmp_path, xml=True)
    (root / "Annotations" / "b.xml").unlink()
    (root / "Annotations" / "b.xml").symlink_to("/dev/null")
    with pytest.raises(DataError, match="b.xml: is a pipe or a device"):
        voc.load(root, "train")


def test_a_damaged_annotation_is_named(tmp_path):
    root = make(tmp_path, xml=True)
    (root / "Annotations" / "b.xml").write_text("<annotation><object>")
    with pytest.raises(ValueError, match="b.xml"):
        voc.load(root, "train")
    other = make(tmp_path / "other")
    (other / "image_labels.json").write_text('{"a": ["dog"')
    with pytest.raises(ValueError, match="image_labels.json"):
        voc.load(other, "train")


def test_others_are_read_where_what_is_wrong_with_labels_is_noted(tmp_path):
    root, failed = make(tmp_path, xml=True), {}
    (root / "Annotations" / "b.xml").write_text("<annotation><object>")
    records = voc.load(root, "train", failed).records
    assert {record.id: bool(record.labels) for record in records} == {"a": True, "b": False, "c": True}
    assert list(failed) == ["b"]
    assert "b.xml: is no XML" in failed["b"]
    assert voc.check(root)["train"] | {"expected": 0} == {
        "listed": 3, "pictures": 3, "masks": 3, "labels": 2, "expected": 0
    }  # fmt: skip


@pytest.mark.parametrize(
    "content, reason",
    [
        ("", "is empty"),
        ('["a"]', "its content must be an object"),
        ('{"a": "dog"}', r"its content\['a'\] must be a list, not 'dog'"),
        ('{"a": [3]}', r"its content\['a'\]\[0\] must be a text, not 3"),
    ],
)
def test_a_table_of_labels_of_another_shape_is_named(tmp_path, content, reason):
    root = make(tmp_path)
    (root / "image_labels.json").write_text(content)
    with pytest.raises(FileError, match=f"image_labels.json: {reason}"):
        voc.load(root, "train")


def test_damaged_names_of_classes_are_named(tmp_path):
    root = make(tmp_path)
    contents = {"": "is empty", '["dog"': "is no JSON", "{}": "must be a list of different names"}
    contents |= {json.dumps([f"c{k}" for k in range(255)]): "has 255 classes, and masks hold 254"}
    for content, reason in contents.items():
        (root / "class_names.json").write_text(content)
        with pytest.raises(DsnaError, match=f"class_names.json:? {reason}"):
            voc.load(root, "train")


def test_masks_of_the_augmented_set_come_second(tmp_path):
    root = make(tmp_path)
    (root / "SegmentationClass" / "b.png").unlink()
    for i in ("a", "b"):
        write_mask(root / "SegmentationClassAug" / f"{i}.png", np.zeros((4, 6)))
    (root / "SegmentationClass" / "c.png").unlink()
    masks = [r.mask for r in voc.load(root, "train").records]
    assert masks == [root / "SegmentationClass" / "a.png", root / "SegmentationClassAug" / "b.png", None]


def test_other_classes_png_pictures_and_part_masks(tmp_path):
    root = make(tmp_path, {"a": ["kite"]})
    (root / "class_names.json").write_text('["ball", "kite"]')
    (root / "JPEGImages" / "a.jpg").unlink()
    Image.new("RGB", (9, 9)).save(root / "JPEGImages" / "a.png")
    write_mask(root / "SegmentationPart" / "a.png", np.zeros((4, 6)))
    loaded = voc.load(root, "train")
    assert loaded.class_names == ("ball", "kite")
    assert loaded.records[0].labels == (1,)
    assert loaded.records[0].image == root / "JPEGImages" / "a.png"
    assert loaded.records[0].part == root / "SegmentationPart" / "a.png"


def test_a_picture_without_any_class_has_usable_labels(tmp_path):
    root = make(tmp_path, {"a": ["dog"], "b": []})
    split(root, "test", "a", "b")
    assert [counts["labels"] for counts in voc.check(root).values()] == [1, 2]


def test_check_counts_what_is_there(tmp_path):
    root = make(tmp_path / "VOC2012")
    split(root, "val", "a", "gone", "b")
    (root / "SegmentationClass" / "b.png").unlink()
    assert voc.check(tmp_path) == {
        "train": {"listed": 3, "pictures": 3, "masks": 2, "labels": 3, "expected": 1464},
        "val": {"listed": 3, "pictures": 2, "masks": 1, "labels": 2, "expected": 1449},
    }


def test_load_by_name(tmp_path):
    make(tmp_path)
    assert len(sources.load("voc", "train", tmp_path)) == 3
    with pytest.raises(ValueError, match="unknown data set 'coco'; choose one of minivoc, voc, folder"):
        sources.load("coco", "train")
    with pytest.raises(ValueError, match="the data set 'voc' needs its folder"):
        sources.load("voc", "train")
    (tmp_path / "labels.csv").write_text("file,labels\nJPEGImages/a.jpg,dog\n")
    assert len(sources.load("folder", "all", tmp_path)) == 1
