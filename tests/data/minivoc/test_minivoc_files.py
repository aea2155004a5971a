"""The data set on disk: files that hold what was drawn, and a safe way there."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dsna_lib.data import minivoc
from dsna_lib.data.minivoc import files
from dsna_lib.data.pictures import read_image, read_mask
from dsna_lib.engine.errors import DsnaError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return minivoc.make(tmp_path_factory.mktemp("data") / "set", seed=2, train=5, val=3, size=64)


def test_files_hold_what_was_drawn(made):
    drawing = minivoc.draw(2, 4, 64)
    np.testing.assert_array_equal(read_image(made / "JPEGImages/train_00004.png"), drawing.image)
    np.testing.assert_array_equal(read_mask(made / "SegmentationClass/train_00004.png"), drawing.mask)
    np.testing.assert_array_equal(read_mask(made / "SegmentationPart/train_00004.png"), drawing.part)
    names = json.loads((made / "image_labels.json").read_text())["train_00004"]
    assert names == [minivoc.CLASS_NAMES[label] for label in drawing.labels]


def test_result_does_not_depend_on_the_number_of_processes(made, tmp_path):
    """Nor does the validation split depend on the size of the training split."""
    other = minivoc.make(tmp_path / "set", seed=2, train=2, val=3, size=64, workers=2)
    names = [path.relative_to(other) for path in other.rglob("*.png")]
    assert len(names) == 15
    for name in names:
        assert (other / name).read_bytes() == (made / name).read_bytes()


def test_make_again_returns_at_once(made, monkeypatch):
    monkeypatch.setattr(files, "draw", lambda *_: pytest.fail("drew again"))
    before = (made / "JPEGImages").stat().st_mtime_ns
    assert minivoc.make(made, seed=2, train=5, val=3, size=64) == made
    assert (made / "JPEGImages").stat().st_mtime_ns == before


def test_make_refuses_other_parameters(made):
    with pytest.raises(ValueError, match=r"'seed': 2.*'seed': 9"):
        minivoc.make(made, seed=9, train=5, val=3, size=64)


def test_make_refuses_a_foreign_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="no embedded data set"):
        minivoc.make(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_make_refuses_an_incomplete_set(tmp_path):
    root = minivoc.make(tmp_path / "set", train=1, val=1, size=48)
    (root / "SegmentationPart/val_00000.png").unlink()
    with pytest.raises(ValueError, match="SegmentationPart lacks pictures"):
        minivoc.make(root, train=1, val=1, size=48)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    "name, damage, reason",
    [
        ("minivoc.json", cut, "minivoc.json: is no JSON, or cut short"),
        ("image_labels.json", lambda path: path.write_text("{}"), "picture train_00000 .* has no image labels"),
        ("class_names.json", lambda path: path.unlink(), "unknown class|other pictures or classes"),
        ("ImageSets/Segmentation/val.txt", lambda path: path.unlink(), "val.txt: no split 'val' here"),
        ("ImageSets/Segmentation/val.txt", lambda path: path.write_text(""), "its split val has other pictures"),
        ("JPEGImages/val_00000.png", cut, "val_00000.png is missing or cut short"),
        ("SegmentationClass/train_00000.png", lambda path: path.write_bytes(b""), "train_00000.png is missing or cut"),
        ("SegmentationPart/val_00000.png", lambda path: path.rename(path.with_name("x.png")), "mask of val_00000 is"),
    ],
)
def test_make_refuses_a_damaged_set(tmp_path, name, damage, reason):
    root = minivoc.make(tmp_path / "set", train=1, val=1, size=48)
    assert minivoc.make(root, train=1, val=1, size=48) == root
    damage(root / name)
    with pytest.raises(DsnaError, match=reason):
        minivoc.make(root, train=1, val=1, size=48)


def test_a_failed_make_leaves_nothing(tmp_path, monkeypatch):
    draw = minivoc.draw

    def broken(seed, index, size):
        if index == 1:
            raise OSError(28, "No space left on device")
        return draw(seed, index, size)

    monkeypatch.setattr(files, "draw", broken)
    with pytest.raises(OSError, match="cannot write .*/set: No space left on device"):
        minivoc.make(tmp_path / "set", train=3, val=0, size=48)
    assert [path.name for path in tmp_path.iterdir()] == [".set.lock"]


def test_what_a_killed_program_left_goes_with_the_next(tmp_path):
    (tmp_path / ".set.drawing/JPEGImages").mkdir(parents=True)
    (tmp_path / ".set.drawing/JPEGImages/train_00007.png").touch()
    root = minivoc.make(tmp_path / "set", train=1, val=1, size=48)
    assert len(list((root / "JPEGImages").iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.lock", "set"]


def test_two_programs_draw_one_set_once(tmp_path, monkeypatch):
    """They would draw into the same folder beside it."""
    drawn, draw = [], files.draw
    monkeypatch.setattr(files, "draw", lambda *given: drawn.append(given) or time.sleep(0.05) or draw(*given))
    with ThreadPoolExecutor(2) as programs:
        made = [programs.submit(minivoc.make, tmp_path / "set", train=3, val=1, size=48) for _ in range(2)]
    assert [each.result() for each in made] == [tmp_path / "set"] * 2
    assert len(drawn) == 4


def test_a_faster_process_wins_quietly(tmp_path, monkeypatch):
    root, options = tmp_path / "set", {"train": 1, "val": 1, "size": 48}
    holds = files._holds
    answers = iter([False])

    def overtaken(path, wanted):
        if next(answers, True):
            return holds(path, wanted)
        monkeypatch.setattr(files, "_holds", holds)
        minivoc.make(root, **options)
        return False

    monkeypatch.setattr(files, "_holds", overtaken)
    assert minivoc.make(root, **options) == root
    assert sorted(path.name for path in tmp_path.iterdir()) == [".set.lock", "set"]


def test_load_reads_a_set_as_it_is(made):
    pictures = minivoc.load("val", made)
    assert [record.id for record in pictures.records] == ["val_00000", "val_00001", "val_00002"]
    assert pictures.class_names == minivoc.CLASS_NAMES
    for k, record in enumerate(pictures.records):
        drawing = minivoc.draw(2, 1_000_000 + k, 64)
        assert record.labels == drawing.labels
        np.testing.assert_array_equal(read_mask(record.mask), drawing.mask)
        np.testing.assert_array_equal(read_mask(record.part), drawing.part)


def test_load_makes_the_set_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DSNA_CACHE", str(tmp_path / "cache"))
    assert len(minivoc.load("train", train=2, val=1, size=48)) == 2
    name = "minivoc-v2-seed0-train2-val1-size48"
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [f".{name}.lock", name]


def test_load_refuses_an_unknown_split(made):
    with pytest.raises(ValueError, match="no split 'test'; choose one of train, val"):
        minivoc.load("test", made)


def test_load_refuses_other_options(made):
    with pytest.raises(ValueError, match="holds the data set"):
        minivoc.load("train", made, seed=4)
