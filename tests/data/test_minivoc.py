"""The embedded data set: the same pixels everywhere, masks that agree with labels, and a safe way onto disk."""

import hashlib
import json

import numpy as np
import pytest

from dsna_lib.data import minivoc
from dsna_lib.data.pictures import read_image, read_mask

# Raise minivoc.VERSION together with these: a changed pixel is another data set.
CHECKSUMS = {
    (0, 0, 224): "4547c78bf69e876c",
    (0, 20, 224): "8b074fa1d8ac0d26",
    (0, 1000007, 224): "4b82bf15a63457d5",
    (7, 3, 160): "feefd6cfecd682bc",
    (123, 45, 64): "1f419e2f7cd22f8d",
}  # fmt: skip


def checksum(drawing: minivoc.Drawing) -> str:
    pixels = hashlib.sha256()
    for array in drawing[:3]:
        pixels.update(repr(array.shape).encode() + array.tobytes())
    return pixels.hexdigest()[:16]


@pytest.fixture(scope="module")
def drawings() -> list[minivoc.Drawing]:
    return [minivoc.draw(3, index, 96) for index in range(80)]


@pytest.mark.parametrize(("arguments", "expected"), CHECKSUMS.items())
def test_same_pixels_on_every_machine(arguments, expected):
    drawing = minivoc.draw(*arguments)
    assert checksum(drawing) == expected
    assert checksum(minivoc.draw(*arguments)) == expected


def test_seed_and_index_matter():
    assert len({checksum(minivoc.draw(seed, index, 64)) for seed in (0, 1) for index in (0, 1)}) == 4


@pytest.mark.parametrize("arguments", [(-1, 0, 96), (0, -1, 96), (0, 0, 47)])
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=", ".join(map(str, arguments))):
        minivoc.draw(*arguments)


def test_shapes(drawings):
    assert {d.mask.shape for d in drawings} == {(96, 96), (72, 96), (96, 72)}
    for d in drawings:
        assert d.image.shape == (*d.mask.shape, 3) == (*d.part.shape, 3)
        assert d.image.dtype == d.mask.dtype == d.part.dtype == np.uint8


def test_labels_are_the_classes_in_the_mask(drawings):
    for d in drawings:
        assert d.labels
        assert d.labels == tuple(sorted({int(v) - 1 for v in np.unique(d.mask)} - {-1, 254}))
    assert {label for d in drawings for label in d.labels} == set(range(len(minivoc.CLASS_NAMES)))


def test_each_class_shows_its_part_inside_its_object(drawings):
    for d in drawings:
        inside = d.part > 0
        assert np.isin(d.mask[inside], [0]).sum() == 0
        assert ((d.mask[inside] == d.part[inside]) | (d.mask[inside] == minivoc.VOID)).all()
        assert {int(v) - 1 for v in np.unique(d.part)} - {-1} >= set(d.labels)


@pytest.mark.parametrize("name", minivoc.CLASS_NAMES)
def test_the_part_is_small(name):
    shares = []
    for key in range(8):
        sheet = minivoc._drawn(name, 32.0, key)
        counts = np.bincount(sheet.canvas.ravel(), minlength=len(sheet.paints))
        shares.append(counts[[part for _, part in sheet.paints]].sum() / counts[1:].sum())
    assert 0.08 < np.mean(shares) < 0.16


@pytest.mark.parametrize("family", minivoc.FAMILIES)
def test_a_family_shares_its_bodies(family):
    """The same dice give relatives the same coat: without its part, an animal does not tell its class."""
    bodies = []
    for name in minivoc.FAMILIES[family]:
        sheet = minivoc._drawn(name, 32.0, 5)
        counts = np.bincount(sheet.canvas.ravel(), minlength=len(sheet.paints))
        body = [color for _, (color, part) in sorted(zip(counts, sheet.paints, strict=True), reverse=True) if not part]
        bodies.append(body[1])  # behind the unpainted sheet, the largest paint is the coat
    assert len(set(bodies)) == 1


def test_void_is_a_thin_border(drawings):
    for d in drawings:
        void = d.mask == minivoc.VOID
        assert void.any()
        deep = void[1:-1, 1:-1] & void[:-2, 1:-1] & void[2:, 1:-1] & void[1:-1, :-2] & void[1:-1, 2:]
        assert deep.sum() < 0.25 * void.sum()


def test_sizes_span_from_tiny_to_most_of_the_picture():
    drawings = [minivoc.draw(0, index, 128) for index in range(60)]
    shares = [np.mean(d.mask == label + 1) for d in drawings for label in d.labels]
    assert min(shares) < 0.015
    assert max(shares) > 0.5
    thirds = np.histogram(np.log(shares), bins=np.log([0.005, 0.04, 0.15, 0.65]))[0]
    assert thirds.min() > 0.15 * len(shares)


def test_one_or_several_classes(drawings):
    counts = np.bincount([len(d.labels) for d in drawings], minlength=4)
    assert counts[0] == 0
    assert (counts[1:4] > 0).all()


def test_one_deck_deals_each_class_once():
    first = [minivoc._cast(minivoc._Dice(0, index, 1), 0, index)[0] for index in range(30)]
    for start in (0, 10, 20):
        assert sorted(first[start : start + 10]) == sorted(minivoc.CLASS_NAMES)


def test_polygon_fill_by_hand():
    """A square from (1, 1) to (3, 4) covers 2 x 3 pixels; a shape off the canvas covers none."""
    square = np.array([(1, 1), (3, 1), (3, 4), (1, 4)]) * 16
    for points in (square, square[::-1]):
        box, inside = minivoc._inside(points, 6, 5)
        canvas = np.zeros((6, 5), bool)
        canvas[box] = inside
        assert canvas.sum() == 6
        assert canvas[1:4, 1:3].all()
    for shift in (-200, 200):
        assert not minivoc._inside(square + shift, 6, 5)[1].any()


# --- on disk


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
    monkeypatch.setattr(minivoc, "draw", lambda *_: pytest.fail("drew again"))
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


def test_a_failed_make_leaves_nothing(tmp_path, monkeypatch):
    draw = minivoc.draw

    def broken(seed, index, size):
        if index == 1:
            raise OSError("disk full")
        return draw(seed, index, size)

    monkeypatch.setattr(minivoc, "draw", broken)
    with pytest.raises(OSError, match="disk full"):
        minivoc.make(tmp_path / "set", train=3, val=0, size=48)
    assert list(tmp_path.iterdir()) == []


def test_a_faster_process_wins_quietly(tmp_path, monkeypatch):
    root, options = tmp_path / "set", {"train": 1, "val": 1, "size": 48}
    holds = minivoc._holds
    answers = iter([False])

    def overtaken(path, wanted):
        if next(answers, True):
            return holds(path, wanted)
        monkeypatch.setattr(minivoc, "_holds", holds)
        minivoc.make(root, **options)
        return False

    monkeypatch.setattr(minivoc, "_holds", overtaken)
    assert minivoc.make(root, **options) == root
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


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
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["minivoc-v1-seed0-train2-val1-size48"]


def test_load_refuses_an_unknown_split(made):
    with pytest.raises(ValueError, match="no split 'test'; choose one of train, val"):
        minivoc.load("test", made)


def test_load_refuses_other_options(made):
    with pytest.raises(ValueError, match="holds the data set"):
        minivoc.load("train", made, seed=4)
