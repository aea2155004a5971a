"""Whatever bytes a file holds, its reader returns or says what is wrong: no other error, and no waiting for ever.

The files are random bytes; whole ones with bytes changed, cut off or doubled; and well-formed ones with odd values.
The same examples come on every run.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dsna_lib import attention, backbones
from dsna_lib.config import recipe
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.data import folder, voc
from dsna_lib.data.exports import convert
from dsna_lib.data.pictures import palette, read_image, read_mask
from dsna_lib.engine import runs
from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.files import read_json, read_json_lines
from dsna_lib.segmentation import networks

pytestmark = pytest.mark.filterwarnings("ignore")  # of Pillow and torch, about what they are made to read
Bytes = st.SearchStrategy[bytes]


def examples(count: int, **strategies: st.SearchStrategy) -> Callable:
    """A test of so many examples, the same ones on every run; one that takes long fails."""
    steady = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=timedelta(seconds=20),
        suppress_health_check=list(HealthCheck),
    )
    return lambda test: steady(given(**strategies)(test))


def reads(read: Callable[[Path], object], path: Path, content: bytes) -> None:
    """Any error but the library's own passes through."""
    path.write_bytes(content)
    with suppress(DsnaError):
        read(path)


def damaged(*whole: bytes) -> Bytes:
    """Random bytes, or one of these files with bytes changed, cut off or doubled."""

    @st.composite
    def broken(draw: st.DrawFn) -> bytes:
        if draw(st.integers(0, 7)) == 0:
            return draw(st.binary(max_size=200))
        content = bytearray(draw(st.sampled_from(whole)))
        for _ in range(draw(st.integers(1, 4))):
            # Half of the places lie in the first bytes, where files say what they are.
            place = draw(st.integers(0, min(len(content), 80)) | st.integers(0, len(content)))
            length = draw(st.integers(1, 8))
            how = draw(st.sampled_from(["change", "cut", "take out", "double"]))
            if how == "change":
                content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
            elif how == "cut":
                del content[place:]
            elif how == "take out":
                del content[place : place + length]
            else:
                content[place:place] = content[place : place + 10 * length]
        return bytes(content)

    return broken()


def odd(whole: Sequence[str], parts: Sequence[str], pieces: Sequence[str]) -> Bytes:
    """A text of these in which one to three of its parts, which patterns find, have become odd pieces."""

    @st.composite
    def spoiled(draw: st.DrawFn) -> bytes:
        text = draw(st.sampled_from(whole))
        for _ in range(draw(st.integers(1, 3))):
            places = [match.span() for match in re.finditer(draw(st.sampled_from(parts)), text)] or [(0, 0)]
            start, end = draw(st.sampled_from(places))
            text = text[:start] + draw(st.sampled_from(pieces)) + text[end:]
        return text.encode()

    return spoiled()


# JSON: values, and whole lists and objects, become something else.
DEEP = [400, 1900, 100_000]  # within, near and beyond what Python takes
WORDS = ["", " ", "a" * 300, "a" * 200_000, "../a.png", "/etc/passwd", "a,b", "a\0b", "\ud800", "\u2028", "none"]
JSON_PIECES = [
    *map(json.dumps, WORDS),
    *("null", "true", "0", "-1", "1.5", "1e999", "NaN", "-Infinity", "1" * 4000, "1" * 5000),
    *("[]", "{}", "[null]", "[[]]", "[1]", '{"a": null}', '{"labels": [[1]]}', '{"result": 1}', '["\\ud800"]'),
    *("[" * depth + "]" * depth for depth in DEEP),
    *('{"a":' * depth + "1" + "}" * depth for depth in DEEP),
]
JSON_PARTS = [r'"[^"]*"|\b\d[\d.]*', r'(?<=: )("[^"]*"|\d[\d.]*)', r"\{[^{}]*\}", r"\[[^\[\]]*\]"]


def json_files(*values: Any) -> Bytes:
    texts = [json.dumps(value) for value in values]
    return damaged(*(text.encode() for text in texts)) | odd(texts, JSON_PARTS, JSON_PIECES)


# XML cannot hold half a surrogate or a zero, but what stands for them.
XML_PIECES = [
    *("", '""', '"dog"', "&a;", "&#0;", "&#xD800;", "&#x10FFFF;", "&lt;", "<![CDATA[a]]>", "<!--a-->", "a" * 300),
    *('"' + "a" * 200_000 + '"', '"../a.png"', '"/a.png"', '"a;b"', '"utf-7"', '"utf-16"', '"idna"', '"rot13"'),
    *("<a>" * depth + "</a>" * depth for depth in DEEP),
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(f'<!ENTITY a{k} "{"&a;" * 10}">' for k in range(9)) + "]>",
]
XML_PARTS = [r'"[^"]*"', r"<[^<>]*>", r"(?<=>)[^<>]*(?=<)", r"\b\w+\b"]


def xml_files(text: str) -> Bytes:
    return damaged(text.encode()) | odd([text], XML_PARTS, XML_PIECES)


def tables(header: str, *rows: Sequence[str]) -> Bytes:
    """CSV files that begin with these rows; some cells become odd ones."""
    cells = st.sampled_from([word for word in WORDS if word != "\ud800"]) | st.text(max_size=8) | st.sampled_from(
        ['"', '""', "\r", "\n", "[{", '[{"a": 1}]', "[" * 400 + "]" * 400, "[" * 100_000, "1" * 5000, "nan", ".", ".."]
    )  # fmt: skip

    @st.composite
    def table(draw: st.DrawFn) -> bytes:
        lines = [header.split(","), *map(list, rows)]
        for _ in range(draw(st.integers(1, 3))):
            line = draw(st.sampled_from(lines))
            where = draw(st.integers(0, len(line)))
            line[where : where + 1] = draw(st.lists(cells, max_size=2))
        text = io.StringIO()
        mark, end = draw(st.sampled_from(",,,;\t")), draw(st.sampled_from(["\n", "\r\n", "\r"]))
        csv.writer(text, delimiter=mark, lineterminator=end).writerows(lines)
        return text.getvalue().encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16"])))

    whole = "\n".join([header, *(",".join(row) for row in rows)]) + "\n"
    return damaged(whole.encode()) | table()


# Pictures, of every form and kind that Pillow writes.


def picture(form: str, mode: str, **options: Any) -> bytes:
    image, file = Image.linear_gradient("L").resize((9, 7)).convert(mode), io.BytesIO()
    if mode == "P":
        image.putpalette(palette().ravel().tolist())
    image.save(file, form, **options)
    return file.getvalue()


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = 6  # lies on its side
    return tags


PICTURES = [
    *(picture("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    picture("PNG", "RGB", exif=exif()),
    *(picture("JPEG", mode, exif=exif()) for mode in ("L", "RGB", "CMYK")),
    picture("JPEG", "RGB", progressive=True),
    picture("GIF", "P", transparency=3),
    *(picture("TIFF", mode) for mode in ("1", "L", "P", "RGB", "I;16", "I", "F")),
    *(picture("TIFF", "RGB", compression=how) for how in ("tiff_lzw", "jpeg", "tiff_adobe_deflate", "packbits")),
    *(picture(form, "RGB") for form in ("BMP", "WEBP", "PPM", "TGA", "PCX", "ICO", "JPEG2000", "SGI", "IM")),
]


@examples(300, content=damaged(*PICTURES))
def test_pictures(content, tmp_path):
    reads(read_image, tmp_path / "a.png", content)


def test_a_dds_of_unknown_form(tmp_path):
    content = bytearray(picture("DDS", "RGB"))
    content[80:84] = bytes(4)
    reads(read_image, tmp_path / "a.dds", bytes(content))


MASKS = [
    *(picture("PNG", mode) for mode in ("1", "L", "P", "RGB")),
    *(picture("PNG", "P", bits=bits) for bits in (2, 4)),
    *(picture(form, "L") for form in ("GIF", "BMP", "TIFF")),
]


@examples(200, content=damaged(*MASKS))
def test_masks(content, tmp_path):
    reads(lambda path: read_mask(path, (7, 9), 20), tmp_path / "a.png", content)


# VOC's layout: each file in turn.
ANNOTATION = """<?xml version="1.0" encoding="utf-8"?>
<annotation><filename>a.jpg</filename><object><name>dog</name><bndbox><xmin>1</xmin></bndbox></object>
<object><name>cat</name></object></annotation>"""


@pytest.fixture
def layout(tmp_path) -> Path:
    """A folder in VOC's layout with one picture."""
    files = {
        "JPEGImages/a.jpg": picture("JPEG", "RGB"),
        "ImageSets/Segmentation/train.txt": b"a\n",
        "image_labels.json": b'{"a": ["dog"]}',
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


LISTED = b"a\n/JPEGImages/b.jpg /SegmentationClassAug/b.png\n..\\c\n"
NAMES = [word.encode(errors="surrogatepass") for word in WORDS]


@examples(100, content=damaged(LISTED) | st.lists(st.sampled_from([*NAMES, b"a"]), max_size=3).map(b"\n".join))
@pytest.mark.parametrize("annotated", [False, True])
def test_lists_of_splits(content, annotated, layout):
    if annotated:
        (layout / "Annotations").mkdir(exist_ok=True)
    for split in ("test", "train"):
        path = layout / "ImageSets" / "Segmentation" / f"{split}.txt"
        reads(lambda path: voc.load(layout, path.stem, {}), path, content)
        reads(lambda path: voc.load(layout, path.stem), path, content)
    with suppress(DsnaError):
        voc.check(layout)


@examples(100, content=xml_files(ANNOTATION))
def test_annotations_of_voc(content, layout):
    (layout / "Annotations").mkdir(exist_ok=True)
    reads(lambda _: voc.load(layout, "train"), layout / "Annotations" / "a.xml", content)


@examples(100, content=json_files({"a": ["dog"], "b": []}))
def test_labels_of_voc(content, layout):
    reads(lambda _: voc.load(layout, "train"), layout / "image_labels.json", content)


@examples(100, content=json_files(["dog", "cat"]))
def test_class_names_of_voc(content, layout):
    reads(lambda _: voc.load(layout, "train"), layout / "class_names.json", content)


# A folder of one's own.


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder with three pictures."""
    for name in ("beach.jpg", "garden/cat.png", "lawn.jpg"):
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "mine"


ROWS = [("beach.jpg", "person;dog", "train"), ("garden/cat.png", "cat", "val"), ("lawn.jpg", "", "train")]


@examples(150, content=tables("file,labels,split", *ROWS) | tables("file,labels", *(row[:2] for row in ROWS)))
def test_tables_of_labels(content, own):
    table = own / "labels.csv"
    reads(lambda _: folder.load(own), table, content)
    reads(lambda _: folder.load(own, ["person", "dog", "cat"], split="val"), table, content)
    reads(lambda _: folder.draw_splits(own, 0.5), table, content)


# What other tools export.
COCO = {
    "images": [{"id": 7, "file_name": "beach.jpg"}, {"id": 9, "file_name": "garden/cat.png"}],
    "annotations": [{"image_id": 7, "category_id": 1}, {"image_id": 9, "category_id": 2}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
}
RESULT = {"value": {"x": 1.0, "rectanglelabels": ["dog"]}, "type": "rectanglelabels"}
WHOLE = [
    {"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-beach.jpg"}, "annotations": [{"result": [RESULT]}]},
    {"id": 2, "data": {"image": "lawn.jpg"}, "annotations": [{"result": [], "was_cancelled": True}]},
]
SHORT = [{"image": "cat.png", "id": 1, "choice": {"choices": ["cat"]}, "label": [{"rectanglelabels": ["dog"]}]}]
STUDIO = [("cat.png", "1", '[{"rectanglelabels": ["cat"]}]', "dog", "3.5"), ("lawn.jpg", "2", "", "", "1")]
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><image id="0" name="beach.jpg"><box label="dog" xtl="0"><attribute name="a">b</attribute></box></image>
<image id="1" name="cat.png"><tag label="cat"/></image></annotations>"""


def converts(own: Path, name: str, content: bytes) -> None:
    (own / "labels.csv").unlink(missing_ok=True)
    reads(lambda path: convert(path, own), own.parent / name, content)


@examples(200, content=json_files(COCO))
def test_exports_of_coco(content, own):
    converts(own, "a.json", content)


@examples(300, content=json_files(WHOLE, SHORT))
def test_exports_of_label_studio_as_json(content, own):
    converts(own, "a.json", content)


@examples(150, content=tables("image,id,label,choice,lead_time", *STUDIO))
def test_exports_of_label_studio_as_csv(content, own):
    converts(own, "a.csv", content)


@examples(150, content=xml_files(CVAT))
def test_exports_of_cvat(content, own):
    converts(own, "a.xml", content)


# JSON, lines of it, and the cards of runs.
SHAPE = {"step": int, "loss": float, "names": [str], "by": {str: {"a": object}}}
VALUE = {"step": 3, "loss": 0.5, "names": ["a", "b"], "by": {"c": {"a": None}, "d": {"a": [1]}}}


@examples(150, content=json_files(VALUE))
def test_json(content, tmp_path):
    reads(lambda path: read_json(path, SHAPE), tmp_path / "a.json", content)


@examples(150, content=json_files(VALUE).map(lambda line: line + b"\n" + json.dumps(VALUE).encode()))
def test_json_lines(content, tmp_path):
    reads(lambda path: read_json_lines(path, SHAPE), tmp_path / "a.jsonl", content)


IDENTITY = {"model": {"head": "cam", "class_names": ["dog"]}, "seed": 1, "code": "0a1b"}
CARD = {"stage": "train", "state": "finished", "identity": IDENTITY, "metrics": {"loss": 0.5}, "environment": {"a": 1}}


@examples(200, content=json_files(CARD, CARD | {"state": "running"}))
def test_cards_of_runs(content, tmp_path):
    run, model = runs.Run(tmp_path, "train", IDENTITY), tmp_path / "model.pth"
    model.write_bytes(b"weights")
    reads(lambda _: run.finished, tmp_path / runs.CARD, content)
    reads(lambda _: runs.model_provenance(model), tmp_path / runs.CARD, content)
    reads(lambda _: runs.claim_folder(tmp_path, "train", **IDENTITY), tmp_path / runs.CARD, content)


# Recipes.
RECIPE = """title = "a recipe"
seeds = 3
tables = ["I", "II"]
data = {source = "voc", limit = 5}
[attention]
backbone = "vgg16"
dropout = 0.5
[maps]
scales = [0.5, 1.0]
flip = true
[networks.own]
rows = ["DSNA (ours)"]
[networks.own.model]
channels = 16
"""
TOML_PIECES = [
    *("", "0", "-1", "1.5", "nan", "-inf", "1e999", "true", "0xffffffffffffffffffffff", "1" * 5000, "0x" + "f" * 5000),
    *('""', '"\\u0000"', '"\\uD800"', '"' + "a" * 5000 + '"', "'none'"),
    *("1979-05-27", "1979-13-45T25:00:00Z", "07:32:00"),
    *("[]", "{}", "[1, 'a']", "{a = 1}", "[{}]", "[a]", "[[a]]", "a.b", "a.b.c = 1", "seeds = 4", '"a" = 1'),
    *("[" * depth + "]" * depth for depth in (100, *DEEP)),
    *("{a = " * depth + "1" + "}" * depth for depth in (100, 500)),
    ".".join(["a"] * 5000) + " = 1",
]
TOML_PARTS = [r'"[^"]*"|\b\d[\d.]*|true', r"(?<== ).*", r"(?m)^.*$", r"\b[a-z]+\b"]


@examples(200, content=damaged(RECIPE.encode()) | odd([RECIPE], TOML_PARTS, TOML_PIECES))
def test_recipes(content, tmp_path):
    reads(recipe.load, tmp_path / "a.toml", content)


@examples(100, piece=st.sampled_from(TOML_PIECES), key=st.sampled_from(["seeds", "title", "data.limit", "networks.a"]))
def test_changes_of_recipes(piece, key, tmp_path):
    reads(lambda path: recipe.load(path, [f"{key}={piece}"]), tmp_path / "a.toml", RECIPE.encode())


# Model files: those of networks whose backbone is not stored, so that they are small.
KINDS = {"attention": (attention, ModelConfig), "segmentation": (networks, SegmentationConfig)}


def stored(content: Any, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, bytes]:
    """A model file of each kind."""
    path, files = tmp_path_factory.mktemp("models") / "model.pth", {}
    for name, (kind, config) in KINDS.items():
        sizes = {"channels": 2} if name == "segmentation" else {}
        kind.save(kind.create(config(("cat", "dog"), train_last=0, **sizes)), path)
        files[name] = path.read_bytes()
    return files


WEIGHTS = {"a.weight": torch.zeros(2, 3), "b": [1, None, {"c": torch.ones(2).half()}]}
CHECKPOINTS = damaged(stored(WEIGHTS), stored(WEIGHTS, zipped=False), pickle.dumps({"a": 1}), b"PK\3\4")


@examples(300, content=CHECKPOINTS)
def test_weight_files(content, tmp_path):
    reads(backbones.load_weights, tmp_path / "a.pth", content)


@examples(60, data=st.data(), zipped=st.booleans())
@pytest.mark.parametrize("name", KINDS)
def test_damaged_model_files(data, zipped, name, written, tmp_path):
    whole = written[name] if zipped else stored(torch.load(io.BytesIO(written[name]), weights_only=True), zipped)
    reads(KINDS[name][0].load, tmp_path / "a.pth", data.draw(damaged(whole)))


ODD_VALUES = [
    *(None, True, 0, -1, 10**30, 1.5, float("nan"), float("inf"), complex(1, 2)),
    *("", "none", "\ud800", "a\0b", "a" * 300, b"a", [], {}, (), {"a"}),
    *(["cat", "cat"], [1], ["\ud800", "dog"], {"cat": 1}, {1: 2}, torch.float16, torch.Size([2])),
    *(torch.zeros(()), torch.zeros(2), torch.zeros(0), torch.zeros(2, dtype=torch.bool)),
    torch.ones(1).expand(2, 1280, 1, 1),
    *(torch.ones(2, dtype=kind) for kind in (torch.complex64, torch.int64, torch.bfloat16, torch.float8_e5m2)),
    *(torch.zeros(2, device="meta"), torch.ones(2).to_sparse(), torch.ones(2) * float("nan")),
    torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.quint8),
    torch.nn.Parameter(torch.ones(2)),
]


@examples(100, data=st.data())
@pytest.mark.parametrize("name", KINDS)
def test_odd_model_files(data, name, written, tmp_path):
    content = torch.load(io.BytesIO(written[name]), weights_only=True)
    for _ in range(data.draw(st.integers(1, 2))):
        table = data.draw(st.sampled_from([content["config"], content["state"]]))
        table[data.draw(st.sampled_from([*table, "b", 1]))] = data.draw(st.sampled_from(ODD_VALUES))
    if data.draw(st.integers(0, 5)) == 5:
        content[data.draw(st.sampled_from([*content, 1]))] = data.draw(st.sampled_from(ODD_VALUES))
    reads(KINDS[name][0].load, tmp_path / "a.pth", stored(content))
