"""A user's own pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dsna_lib.data import folder, voc
from dsna_lib.data.pictures import DataError, PictureError, write_mask

FILES = ("beach.jpg", "garden/cat.png", "street.jpg")


@pytest.fixture
def root(tmp_path):
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (6, 4), "white").save(path)
    return tmp_path


def write(root, text: str, encoding: str = "utf-8"):
    (root / "labels.csv").write_bytes(text.encode(encoding))
    return root


def names(pictures) -> list[tuple[str, ...]]:
    return [tuple(pictures.class_names[i] for i in record.labels) for record in pictures.records]


def test_a_plain_table(root):
    write(root, 'file,labels\nbeach.jpg,person;dog\ngarden/cat.png,"pottedplant, cat"\nstreet.jpg, car \n')
    pictures = folder.load(root)
    assert pictures.class_names == voc.CLASS_NAMES
    assert [record.id for record in pictures.records] == ["beach", "cat", "street"]
    assert pictures.records[1].image == root / "garden" / "cat.png"
    assert pictures.records[0].labels == (11, 14)  # dog, person: sorted
    assert names(pictures) == [("dog", "person"), ("cat", "pottedplant"), ("car",)]
    assert pictures[0]["image"].shape == (3, 4, 6)
    assert pictures[0]["labels"].nonzero().ravel().tolist() == [11, 14]


@pytest.mark.parametrize(
    "text",
    [
        "file;labels\nbeach.jpg;person,dog\n",
        'file;labels\nbeach.jpg;"person;dog"\n',
        "file\tlabels\nbeach.jpg\tperson;dog\n",
        "\ufefffile;labels\r\nbeach.jpg;person, dog\r\n;\r\n",  # as Excel writes it
        " File , Labels \n\nbeach.jpg ,  person ; dog ; dog ;\n\n",
        'labels,file\n"dog,person",beach.jpg\n',
        "file,labels,note\nbeach.jpg,dog;person,nice,\n",
        'file;"labels";notes, if any, on it\nbeach.jpg;dog,person;nice\n',
        'file,labels\nbeach.jpg, "person,dog"',
    ],
)
def test_every_usual_form_reads_the_same(root, text):
    assert names(folder.load(write(root, text))) == [("dog", "person")]


def test_a_backslash_in_a_path_is_a_slash(root):
    assert folder.load(write(root, "file,labels\ngarden\\cat.png,cat\n")).records[0].id == "cat"


def test_classes_default_to_those_found_where_voc_does_not_cover_them(root):
    write(root, "file,labels\nbeach.jpg,zebra\nstreet.jpg,car;émeu\n")
    assert folder.load(root).class_names == ("car", "zebra", "émeu")


def test_given_classes_keep_their_order(root):
    write(root, "file,labels\nbeach.jpg,dog\nstreet.jpg,car\n")
    pictures = folder.load(root, class_names=["zebra", "dog", "car"])
    assert pictures.class_names == ("zebra", "dog", "car")
    assert [record.labels for record in pictures.records] == [(1,), (2,)]


def test_more_classes_than_masks_can_hold_are_refused_by_the_tables_name(root):
    labels = ";".join(f"c{k}" for k in range(255))
    with pytest.raises(ValueError, match="labels.csv has 255 classes, and masks hold 254"):
        folder.load(write(root, f"file,labels\nbeach.jpg,{labels}\n"))


@pytest.mark.parametrize("bad", ["dog", [], ["dog", "dog"]])
def test_class_names_must_be_a_list_of_different_names(root, bad):
    with pytest.raises(ValueError, match="`class_names` must be a list"):
        folder.load(write(root, "file,labels\nbeach.jpg,dog\n"), class_names=bad)


def test_splits_share_their_classes(root):
    write(root, "file,labels,split\nbeach.jpg,zebra,train\ngarden/cat.png,cat,val\nstreet.jpg,car,train\n")
    assert [r.id for r in folder.load(root, split="train").records] == ["beach", "street"]
    assert [r.id for r in folder.load(root, split="val").records] == ["cat"]
    assert folder.load(root, split="val").class_names == folder.load(root).class_names == ("car", "cat", "zebra")
    with pytest.raises(DataError, match="no row has split 'test'; there is train, val"):
        folder.load(root, split="test")


@pytest.mark.parametrize("split", ["train", "val", None])
def test_without_the_column_all_rows_belong_to_each_split(root, split):
    write(root, "file,labels\nbeach.jpg,dog\nstreet.jpg,car\n")
    assert [record.id for record in folder.load(root, split=split).records] == ["beach", "street"]


def test_an_empty_cell_of_the_column_belongs_to_no_split(root):
    write(root, "file,labels,split\nbeach.jpg,dog,train\nstreet.jpg,car,\n")
    assert [record.id for record in folder.load(root, split="train").records] == ["beach"]
    assert len(folder.load(root)) == 2
    with pytest.raises(DataError, match="no row has split 'val'; there is train"):
        folder.load(root, split="val")


@pytest.mark.parametrize("row", ["street.jpg,", "street.jpg", "street.jpg, ; ", 'street.jpg,""'])
def test_a_picture_without_labels_is_a_negative_one(root, row):
    pictures = folder.load(write(root, f"file,labels\nbeach.jpg,zebra\n{row}\n"))
    assert pictures.class_names == ("zebra",)
    assert pictures.targets().tolist() == [[1.0], [0.0]]
    assert pictures[1]["labels"].tolist() == [0.0]


def test_a_table_of_negatives_alone_names_no_class(root):
    write(root, "file,labels\nbeach.jpg,\nstreet.jpg,\n")
    with pytest.raises(DataError, match=r"labels.csv: no row has a label; name the classes"):
        folder.load(root)
    assert folder.load(root, class_names=["zebra"]).targets().tolist() == [[0.0], [0.0]]


@pytest.fixture
def many(tmp_path):
    """24 pictures: 8 of dogs, two of which show a cat, too; 4 of cats alone; 12 of nothing."""
    labels = ["dog"] * 6 + ["cat;dog"] * 2 + ["cat"] * 4 + [""] * 12
    for k in range(len(labels)):
        Image.new("RGB", (6, 4)).save(tmp_path / f"{k}.png")
    rows = [f"{k}.png;nice, is it;{names.replace(';', ',')}" for k, names in enumerate(labels)]
    return write(tmp_path, "\n".join(["File;note;labels;", *rows]))


def test_a_drawn_split_shares_out_each_class_alike(many):
    assert folder.draw_splits(many, 0.5, seed=3) == {"train": 12, "val": 12}
    for split in ("train", "val"):
        shown = folder.load(many, split=split).targets()
        assert shown.any(dim=1).sum() == 6
        assert shown[:, 7].sum() == 3  # of the six pictures with a cat, the rarer class
    assert folder.draw_splits(many, 0.5, seed=3) == {"train": 12, "val": 12}  # once more is the same


@pytest.mark.parametrize("share, count", [(0.1, 2), (0.2, 5), (0.9, 22)])
def test_a_drawn_split_has_its_share_and_follows_the_seed(many, share, count):
    before, drawn = (many / "labels.csv").read_text(), []
    for seed in (0, 0, 1):
        (many / "labels.csv").write_text(before)
        assert folder.draw_splits(many, share, seed)["val"] == count
        drawn.append([record.id for record in folder.load(many, split="val").records])
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_drawn_split_keeps_the_rest_of_the_table(many):
    folder.draw_splits(many)
    lines = (many / "labels.csv").read_text().splitlines()
    assert lines[0] == "File;note;labels;;split"
    assert lines[7] in (f"6.png;nice, is it;cat,dog;;{split}" for split in ("train", "val"))
    assert len(lines) == 25


def test_other_splits_are_not_drawn_over(root):
    text = "file,labels,split\nbeach.jpg,dog,train\nstreet.jpg,car,test\n"
    with pytest.raises(DataError, match="labels.csv: has a column `split` of other splits already; take it out"):
        folder.draw_splits(write(root, text), 0.5)
    assert (root / "labels.csv").read_text() == text


def test_a_share_that_leaves_a_split_empty_is_refused(root):
    write(root, "file,labels\nbeach.jpg,dog\nstreet.jpg,car\n")
    with pytest.raises(DataError, match="a share of 0.1 of 2 pictures leaves a split empty; change `share`"):
        folder.draw_splits(root, 0.1)


def test_masks_are_found_and_checked_when_read(root):
    write(root, "file,labels\nbeach.jpg,dog\nstreet.jpg,car\ngarden/cat.png,cat\n")
    mask = np.array([[0, 12, 12, 255, 0, 0]] * 4, np.uint8)
    write_mask(root / "masks" / "beach.png", mask)
    write_mask(root / "masks" / "street.png", mask[:2])
    pictures = folder.load(root)
    assert [record.mask is not None for record in pictures.records] == [True, True, False]
    seen = pictures.with_transform(None, masks=True)
    np.testing.assert_array_equal(seen[0]["mask"].numpy(), mask)
    with pytest.raises(PictureError, match=r"street.png: the mask is 6 x 2, its picture 6 x 4"):
        seen[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column file or labels; .* it is nothing"),
        ("file,label\nbeach.jpg,dog\n", "no column labels; .* it is file, label"),
        ("name;labels\nbeach.jpg;dog\n", "no column file; .* it is name, labels"),
        ("file,labels\n\n", "has no rows"),
        ("file,labels\ngone.jpg,dog\n", r"row 2 \(gone.jpg\): there is no file .*gone.jpg"),
        ("file,labels\ngarden,dog\n", r"row 2 \(garden\): there is no file"),
        ("file,labels\n,dog\n", "row 2 names no file"),
        (
            "file,labels\nbeach.jpg,dog,cat\n",
            r"row 2 \(beach.jpg\) has 3 cells for 2 columns: put several labels in quotes",
        ),
        ("file,labels\nbeach.jpg,dog\nbeach.jpg,cat\n", r"row 3 \(beach.jpg\) repeats row 2 \(beach.jpg\)"),
        ("file,labels\nbeach.jpg,dog\n./beach.jpg,cat\n", r"row 3 \(./beach.jpg\) repeats row 2"),
        ("file,labels\nbeach.jpg,background\n", "unknown class 'background'"),
    ],
)
def test_what_is_wrong_is_named(root, text, message):
    with pytest.raises(DataError, match=message) as error:
        folder.load(write(root, text))
    assert str(root / "labels.csv") in str(error.value)


def test_a_table_that_is_no_file_is_refused_unread(root):
    (root / "labels.csv").symlink_to("/dev/null")
    with pytest.raises(DataError, match="labels.csv: is a pipe or a device"):
        folder.load(root)


@pytest.mark.parametrize("name", ["...jpg", "..jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused(root, name):
    (root / name).write_bytes((root / "beach.jpg").read_bytes())
    with pytest.raises(DataError, match=f"{name}: what is named after its id"):
        folder.load(write(root, f"file,labels\n{name},dog\n"))


def test_two_pictures_of_one_name_would_share_a_mask(root):
    Image.new("RGB", (6, 4)).save(root / "cat.jpg")
    with pytest.raises(DataError, match=r"row 3 \(cat.jpg\) has the same name without suffix as row 2"):
        folder.load(write(root, "file,labels\ngarden/cat.png,cat\ncat.jpg,cat\n"))


def test_a_missing_table_is_named(root):
    with pytest.raises(DataError, match=r"labels.csv: no such file"):
        folder.load(root)
    with pytest.raises(DataError, match=r"labels.csv: no such file"):
        folder.load(root / "beach.jpg")


def test_another_encoding_is_said(root):
    with pytest.raises(DataError, match="byte 21 is not UTF-8; save the table as `CSV UTF-8`"):
        folder.load(write(root, "file,labels\nbeach.jpgé,dog\n", encoding="latin-1"))


def test_a_cell_beyond_reason_is_no_table(root):
    with pytest.raises(DataError, match=r"labels.csv: row 3 cannot be read \(field larger"):
        folder.load(write(root, f"file,labels\nbeach.jpg,dog\nstreet.jpg,{'x' * 200_000}\n"))


def test_an_unknown_class_gets_a_suggestion_and_the_known_names(root):
    write(root, "file,labels\nbeach.jpg,Dog\nstreet.jpg,car;xylophone\n")
    with pytest.raises(DataError) as error:
        folder.load(root, class_names=("car", "dog"))
    message = str(error.value)
    assert "labels.csv: 2 problems" in message
    assert "row 2 (beach.jpg): unknown class 'Dog'; did you mean 'dog'?" in message
    assert "row 3 (street.jpg): unknown class 'xylophone'\n" in message
    assert message.endswith("The classes are car, dog.")


def test_all_problems_are_counted_and_five_shown_in_order(root):
    rows = [f"gone{i}.jpg,dog" for i in range(6)] + [",beach"]
    rows.insert(1, "too.jpg,many,cells")
    with pytest.raises(DataError) as error:
        folder.load(write(root, "\n".join(["file,labels", *rows])))
    lines = str(error.value).splitlines()
    assert lines[0].endswith("labels.csv: 8 problems")
    assert [line.split(" (")[0].strip() for line in lines[1:6]] == ["row 2", "row 3", "row 4", "row 5", "row 6"]
    assert lines[6].strip() == "... and 3 more"
    assert len(lines) == 7
