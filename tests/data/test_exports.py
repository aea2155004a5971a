"""Other tools' exports: which classes each picture shows, whatever else they hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from dsna_lib.data import folder
from dsna_lib.data.exports import convert
from dsna_lib.data.pictures import DataError
from dsna_lib.engine.errors import FileError


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("beach.jpg", "garden/cat.png", "lawn.jpg", "masks/cat.png"):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(path)
    return tmp_path / "mine"


EXPECTED = "file,labels\nbeach.jpg,dog;person\ngarden/cat.png,cat\nlawn.jpg,\n"
COCO = {
    "images": [
        {"id": 7, "file_name": "images/beach.jpg", "width": 6, "height": 4},
        {"id": 9, "file_name": "garden/cat.png"},
        {"id": 3, "file_name": "lawn.jpg"},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 1]},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 1, 1, 0, 1]]},
        {"id": 3, "image_id": 7, "category_id": 18, "iscrowd": 1},
        {"id": 4, "image_id": 9, "category_id": 17},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
}
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <meta><task><labels><label><name>dog</name></label><label><name>zebra</name></label></labels></task></meta>
  <image id="0" name="beach.jpg" width="6" height="4">
    <box label="dog" xtl="0" ytl="0" xbr="1" ybr="1"><attribute name="label">no</attribute></box>
    <polygon label="person" points="0,0;1,1;0,1"/><box label="dog" xtl="2" ytl="2" xbr="3" ybr="3"/>
  </image>
  <image id="1" name="cat.png" width="6" height="4"><tag label="cat" source="manual"/></image>
  <image id="2" name="lawn.jpg" width="6" height="4"></image>
</annotations>"""


def choice(*names: str) -> dict:
    return {"result": [{"value": {"choices": list(names)}, "type": "choices", "from_name": "animal"}]}


BOX = {"x": 1.0, "width": 20.0, "rectanglelabels": ["person"], "original_width": 6}
WHOLE = [
    {"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-beach.jpg", "note": "sunny"}, "annotations": [
        choice("dog"),
        {"result": [{"value": BOX, "type": "rectanglelabels"}], "prediction": {"result": choice("cow")["result"]}},
        choice("horse") | {"was_cancelled": True},
    ], "predictions": [choice("sheep")]},
    {"id": 2, "data": {"image": "/data/local-files/?d=some/garden/cat.png"}, "annotations": [choice("cat")]},
    {"id": 3, "data": {"image": "s3://bucket/lawn.jpg"}, "annotations": [{"result": []}]},
    {"id": 4, "data": {"image": "not-yet.jpg"}, "annotations": []},
]  # fmt: skip
SHORT = [
    {"image": "/data/upload/1/0a1b2c3d-beach.jpg", "id": 1, "label": [BOX], "choice": "dog", "annotator": 1},
    {"image": "https://some.where/cat.png?token=1.jp", "id": 2, "choice": {"choices": ["cat"]}, "lead_time": 3.5},
    {"image": "lawn.jpg", "id": 3, "annotator": "a@b.c", "updated_at": "2026-01-01T00:00:00Z"},
]
CSV = """image,id,label,choice,annotator,annotation_id,created_at,updated_at,lead_time
/data/upload/1/0a1b2c3d-beach.jpg,1,"[{""x"":1.0,""rectanglelabels"":[""person""]}]",dog,1,1,2026-01-01,2026-01-01,3.5
cat.png,2,,"{""choices"":[""cat""]}",1,2,2026-01-01,2026-01-01,3.5
lawn.jpg,3,,,1,3,2026-01-01,2026-01-01,3.5
"""
FORMS = {
    "coco.json": json.dumps(COCO),
    "cvat.xml": CVAT,
    "whole.json": json.dumps(WHOLE, indent=2),
    "short.JSON": json.dumps(SHORT),
    "label-studio.csv": "\ufeff" + CSV,
}


def export(root: Path, name: str, text: str) -> Path:
    path = root.parent / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FORMS)
def test_every_form_becomes_the_same_table(root, name):
    shown = convert(export(root, name, FORMS[name]), root)
    assert shown == {"beach.jpg": {"dog", "person"}, "garden/cat.png": {"cat"}, "lawn.jpg": set()}
    assert (root / "labels.csv").read_text() == EXPECTED
    assert [len(record.labels) for record in folder.load(root, split="train").records] == [2, 1, 0]


def test_annotators_of_one_picture_are_united(root):
    rows = "image,choice,annotator\nlawn.jpg,cow,1\nlawn.jpg,,2\nlawn.jpg,sheep,3\n"
    assert convert(export(root, "a.csv", rows), root) == {"lawn.jpg": {"cow", "sheep"}}


def coco(**changes) -> str:
    return json.dumps(COCO | changes)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.txt", "", r"a.txt: an export is .json \(COCO"),
        ("a.json", "", "a.json: is empty"),
        ("a.json", "{}", "a.json: its content lacks 'images'"),
        ("a.json", coco(annotations=[{"image_id": 8, "category_id": 1}]), "image 8 and category 1, of which one"),
        ("a.json", coco(images=[{"id": [], "file_name": "a.jpg"}]), r"\['id'\] must be a number, not \[\]"),
        ("a.json", coco(categories=[{"id": k, "name": "\ud800"} for k in (1, 17, 18)]), "cannot be written as UTF-8"),
        ("a.json", coco(annotations=[]), "a.json: no picture has a label"),
        ("a.json", coco(categories=[{"id": k, "name": "a, b"} for k in (1, 17, 18)]), "label 'a, b' would be torn"),
        ("a.json", coco(images=[*COCO["images"], {"id": 1, "file_name": "x.jpg"}]), "1 of its 4 pictures .*: x.jpg"),
        ("a.json", coco(images=[*COCO["images"], {"id": 1, "file_name": "../coco.jpg"}]), "not in .*: ../coco.jpg"),
        ("a.json", '[{"text": "a"}]', "task 1 names no picture"),
        ("a.json", '["lawn.jpg"]', r"its content\[0\] must be an object"),
        ("a.csv", "image,animal\nlawn.jpg,dog\n", "task 1 does not say whether 'animal' is a label; export it as JSON"),
        ("a.json", '[{"data": {"image": "a.jpg"}, "annotations": [3]}]', "1: an annotation must be an object, not 3"),
        ("a.csv", 'image,choice\nlawn.jpg,"[{"\n', "a.csv: cannot be read as Label Studio's CSV"),
        ("a.csv", f"image,choice\nlawn.jpg,{'[' * 100_000}\n", "a.csv: cannot be read as Label Studio's CSV"),
        ("a.xml", "<annotations><image", "a.xml: is no XML"),
        ("a.xml", '<annotations><track label="dog"/></annotations>', "a.xml: holds no image; export it as"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_written(root, name, text, message):
    with pytest.raises((DataError, FileError), match=message):
        convert(export(root, name, text), root)
    assert not (root / "labels.csv").exists()


def test_a_picture_that_is_there_twice_is_not_guessed(root):
    (root / "lawn").mkdir()
    (root / "lawn" / "cat.png").write_bytes((root / "garden" / "cat.png").read_bytes())
    with pytest.raises(DataError, match="or not just once: cat.png"):
        convert(export(root, "cvat.xml", CVAT), root)


def test_a_table_that_is_there_stays(root):
    (root / "labels.csv").write_text("mine")
    with pytest.raises(DataError, match="labels.csv: is there already"):
        convert(export(root, "cvat.xml", CVAT), root)
    assert (root / "labels.csv").read_text() == "mine"
