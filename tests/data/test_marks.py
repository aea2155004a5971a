"""Points, boxes, scribbles and saliency maps: read from their files, each checked, one picture at a time."""

import pickle

import numpy as np
import pytest
from help_samples import data_set, image, written
from PIL import Image

from dsna_lib.data import write_mask
from dsna_lib.data.help import load_help
from dsna_lib.data.marks import Box, Point
from dsna_lib.engine.errors import DsnaError


@pytest.fixture
def pictures(tmp_path):
    return data_set(tmp_path)


@pytest.fixture
def place(tmp_path, pictures):
    (tmp_path / "help").mkdir()
    return tmp_path / "help"


# --- points and boxes


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_points(pictures, place, mark):
    """Those of pictures that are not asked about are left alone."""
    rows = ["id,x,y,class", "a,0,11, dog", "b ,3,4,cow", "a,15,0,cat", "", "gone,99,99,yeti"]
    written(place / "points.csv", "\n".join(rows).replace(",", mark))
    points = load_help("points", pictures)
    assert dict(points) == {"a": (Point(0, 11, 1), Point(15, 0, 0)), "b": (Point(3, 4, 2),)}
    assert dict(pickle.loads(pickle.dumps(points))) == dict(points)  # as workers of a loader get it
    with pytest.raises(KeyError, match="nothing is told about 'gone'"):
        points["gone"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,16,3,cat", "points.csv, row 3: the point 16, 3 lies outside the picture a, which is 16 x 12; count"),
        ("a,3,-1,cat", "row 3: the point 3, -1 lies outside"),
        ("a,3,4,cta", "row 3: unknown class 'cta'; did you mean 'cat'?"),
        ("a,3,4", "row 3: unknown class ''"),
        ("a,3,4.5,cat", "row 3: y must be a whole number of pixels, not '4.5'"),
        ("a,,4,cat", "row 3: x must be a whole number of pixels, not ''"),
    ],
)
def test_a_bad_point_is_named_and_other_pictures_are_none_the_worse(pictures, place, row, said):
    written(place / "points.csv", f"id,x,y,class\na,1,1,dog\n{row}\nb,3,4,cow\n")
    points = load_help("points", pictures)
    with pytest.raises(DsnaError, match=said.replace("?", r"\?")):
        points["a"]
    assert points["b"] == (Point(3, 4, 2),)


def test_boxes_of_a_table(pictures, place):
    written(place / "boxes.csv", "id,left,top,right,bottom,class\na,0,0,16,12,cat\na,2,3,3,4,dog\n")
    assert dict(load_help("boxes", pictures)) == {"a": (Box(0, 0, 16, 12, 0), Box(2, 3, 3, 4, 1))}


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ("5,2,5,4", "boxes.csv, row 2: the box 5, 2, 5, 4 .* has no area; right must be beyond left"),
        ("5,2,9,1", "row 2: the box 5, 2, 9, 1 .* has no area"),
        ("5,2,17,4", "row 2: the box 5, 2, 17, 4 .* reaches beyond the picture, which is 16 x 12"),
        ("-1,2,9,4", "row 2: .* reaches beyond"),
        ("1,2,9,13", "row 2: .* reaches beyond"),
    ],
)
def test_a_bad_box_is_named(pictures, place, box, said):
    written(place / "boxes.csv", f"id,left,top,right,bottom,class\na,{box},cat\nb,1,1,2,2,cow\n")
    boxes = load_help("boxes", pictures)
    with pytest.raises(DsnaError, match=said):
        boxes["a"]
    assert boxes["b"] == (Box(1, 1, 2, 2, 2),)


def annotation(*objects: str) -> str:
    return f"<annotation><size/>{''.join(f'<object>{each}</object>' for each in objects)}</annotation>"


def box_of(left: object, top: object, right: object, bottom: object) -> str:
    return f"<bndbox><xmin>{left}</xmin><ymin>{top}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>"


def test_boxes_of_voc_count_from_one_and_keep_their_flags(pictures, tmp_path):
    """The parts of a person have boxes of their own, which are not the person's; an off-by-one is cut."""
    part = f"<part><name>head</name>{box_of(1, 1, 2, 2)}</part>"
    first = f"<name>cat</name><truncated>1</truncated><difficult>0</difficult>{part}{box_of(1, 1, 16, 12)}"
    second = f"<name>dog</name><difficult>1</difficult>{box_of('3.2', 4, 5, 6)}"
    written(tmp_path / "Annotations/a.xml", annotation(first, second))
    written(tmp_path / "Annotations/b.xml", annotation(f"<name>cow</name>{box_of(0, 0, 17, 13)}"))
    boxes = load_help("boxes", pictures)
    assert boxes["a"] == (Box(0, 0, 16, 12, 0, False, True), Box(2, 3, 5, 6, 1, True, False))
    assert boxes["b"] == (Box(0, 0, 16, 12, 2),)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("<name>dog</name>", "a.xml, object 2: has no bndbox"),
        (f"<name>dog</name>{box_of(1, 1, 'wide', 4)}", "a.xml, object 2: has no bndbox of xmin"),
        (f"<name>dgo</name>{box_of(1, 1, 4, 4)}", "a.xml, object 2: unknown class 'dgo'; did you mean 'dog'"),
        (f"<name>dog</name>{box_of(5, 1, 4, 4)}", "a.xml, object 2: the box 4, 0, 4, 4 .* has no area"),
        (f"<name>dog</name>{box_of(5, 1, 24, 4)}", "a.xml, object 2: .* reaches beyond the picture"),
        ("<name>", "a.xml: is no XML, or a truncated file"),
    ],
)
def test_a_bad_annotation_is_named(pictures, tmp_path, told, said):
    written(tmp_path / "Annotations/a.xml", annotation(f"<name>cat</name>{box_of(1, 1, 4, 4)}", told))
    written(tmp_path / "Annotations/b.xml", annotation(f"<name>cow</name>{box_of(1, 1, 4, 4)}"))
    boxes = load_help("boxes", pictures)
    with pytest.raises(DsnaError, match=said):
        boxes["a"]
    assert boxes["b"] == (Box(0, 0, 4, 4, 2),)


def test_annotations_that_name_classes_alone_tell_no_boxes(pictures, tmp_path):
    written(tmp_path / "Annotations/a.xml", annotation("<name>cat</name>"))
    assert load_help("boxes", pictures) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,x,y\na,1,2\n", "points.csv: no column class; the header must be `id,x,y,class`"),
        (b"", "points.csv: no column id"),
        (b"id,x,y,class\na,1,2,c\xe4t\n", "points.csv: byte 20 is not UTF-8; save the table as `CSV UTF-8`"),
        (b'id,x,y,class\na,1,2,"' + b"c" * 200_000, "points.csv: row . cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(pictures, place, content, said):
    (place / "points.csv").write_bytes(content)
    with pytest.raises(DsnaError, match=said):
        load_help("points", pictures)


def test_a_digest_follows_the_files(pictures, place):
    rows = "id,x,y,class\na,1,1,dog\n"
    written(place / "points.csv", rows)
    before = load_help("points", pictures).digest()
    assert load_help("points", pictures).digest() == before
    written(place / "points.csv", rows.replace("1,1", "1,2"))
    assert load_help("points", pictures).digest() != before


# --- scribbles and saliency maps


def test_a_scribble_as_png(pictures, place):
    said = np.full((12, 16), 255, np.uint8)
    said[2, 3:9], said[8, 3:9] = 2, 0
    write_mask(place / "scribbles/a.png", said)
    scribbles = load_help("scribbles", pictures)
    assert list(scribbles) == ["a"]
    np.testing.assert_array_equal(scribbles["a"], said)


def polygon(tag: str, *spots: tuple[object, object]) -> str:
    points = "".join(f"<point><X>{x}</X><Y>{y}</Y></point>" for x, y in spots)
    return f"<polygon><tag>{tag}</tag>{points}</polygon>"


def test_a_scribble_of_scribblesup(pictures, place):
    """Lines three pixels wide through the points; what lies beyond the picture is cut off."""
    lines = polygon("dog", (4, 5), (8, 5), (20, 5)) + polygon("background", (2, 10), (6, 10)) + polygon("cat", (1, 1))
    written(place / "scribbles/a.xml", f"<annotation>{lines}</annotation>")
    said = load_help("scribbles", pictures)["a"]
    assert said.shape == (12, 16)
    assert (said[4:7, 5:16] == 2).all()
    assert (said[9:12, 3:6] == 0).all()
    assert said[1, 1] == 1
    assert (said[[3, 7], 5:] == 255).all()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (polygon("cta", (1, 1)), "a.xml, polygon 1: unknown class 'cta'; did you mean 'cat'"),
        (polygon("cat", (99, 1), (99, 5)), "polygon 1: no point of it lies within the picture, which is 16 x 12"),
        (polygon("cat"), "polygon 1: no point of it"),
        (polygon("cat", ("x", 1)), "polygon 1: a point has no X or no Y that is a number"),
        ("", "a.xml: says nothing; draw a stroke at least, or delete the file"),
        ("<polygon>", "a.xml: is no XML"),
    ],
)
def test_a_bad_scribble_of_scribblesup_is_named(pictures, place, lines, said):
    written(place / "scribbles/a.xml", f"<annotation>{lines}</annotation>")
    written(place / "scribbles/b.xml", f"<annotation>{polygon('cow', (1, 1))}</annotation>")
    scribbles = load_help("scribbles", pictures)
    with pytest.raises(DsnaError, match=said):
        scribbles["a"]
    assert scribbles["b"][1, 1] == 3


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.zeros((9, 16)), "scribbles/a.png: the scribble is 16 x 9, its picture 16 x 12"),
        (np.full((12, 16), 255), "scribbles/a.png: says nothing; draw a stroke"),
        (np.full((12, 16), 4), "scribbles/a.png: holds class 4, the data knows 0 to 3"),
    ],
)
def test_a_bad_scribble_is_named(pictures, place, pixels, said):
    write_mask(place / "scribbles/a.png", pixels)
    write_mask(place / "scribbles/b.png", np.zeros((12, 16)))
    scribbles = load_help("scribbles", pictures)
    with pytest.raises(DsnaError, match=said):
        scribbles["a"]
    assert scribbles["b"].max() == 0


def test_saliency_maps(pictures, place):
    gray = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    (place / "saliency").mkdir()
    Image.fromarray(gray).save(place / "saliency/a.png")
    image(place / "saliency/b.png", 12, 15)
    maps = load_help("saliency", pictures)
    np.testing.assert_array_equal(maps["a"], gray)
    with pytest.raises(DsnaError, match=r"saliency/b.png: the saliency map is 15 x 12, its picture 16 x 12"):
        maps["b"]
    Image.fromarray(np.stack([gray, gray, gray + 1], axis=-1)).save(place / "saliency/b.png")
    with pytest.raises(DsnaError, match=r"saliency/b.png: is no gray map; save it without colors"):
        maps["b"]
