"""The folder of help: it holds what was drawn, says that it is simulated, and is made whole or not at all."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from dsna_lib.config.drawn import HelpConfig
from dsna_lib.data import minivoc
from dsna_lib.data.help import PLACES, SETS, check_help, clips, load_help, origin
from dsna_lib.data.minivoc import help_files
from dsna_lib.data.minivoc.places import places_of
from dsna_lib.data.minivoc.sets import draw_clip, draw_others, draw_web
from dsna_lib.data.pictures import read_image, read_mask
from dsna_lib.engine.errors import DsnaError, SettingError

FEW = {"saliency": 1, "web": 2, "videos": 1, "frames": 2, "other_masks": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = minivoc.make(tmp_path_factory.mktemp("data") / "set", seed=2, train=2, val=1, size=64)
    minivoc.make_help(root, **FEW)
    return root


def test_places_are_those_that_were_drawn(root):
    for split, index in (("train", 1), ("val", 1_000_000)):
        pictures = minivoc.load(split, root)
        i = pictures.records[-1].id
        told = places_of(minivoc.draw(2, index, 64), 2, index)
        assert [tuple(point) for point in load_help("points", pictures)[i]] == told.points
        assert [tuple(box)[:5] for box in load_help("boxes", pictures)[i]] == told.boxes
        np.testing.assert_array_equal(load_help("scribbles", pictures)[i], told.scribbles)


def test_sets_are_those_that_were_drawn(root):
    pictures = minivoc.load("train", root)
    web, frames = load_help("web", pictures), load_help("videos", pictures)
    drawing, clip = draw_web(2, 4_000_001, 64), draw_clip(2, 5_000_000, 64, 2)
    np.testing.assert_array_equal(read_image(web.records[1].image), drawing.image)
    assert [len(web), web.records[1].labels] == [2, (drawing.label,)]
    assert [record.labels for record in frames.records] == [(clip.label,)] * 2
    np.testing.assert_array_equal(read_image(clips(frames)["clip_00000"].records[1].image), clip.frames[1])
    assert all(record.mask is record.part is None for record in (*web.records, *frames.records))
    for kind, start, most in (("saliency", 2_000_000, 2), ("other_masks", 3_000_000, 3)):
        others, drawn = load_help(kind, pictures), draw_others(2, start, 64, most)
        mask = read_mask(others.records[0].mask)
        np.testing.assert_array_equal(read_image(others.records[0].image), drawn.image)
        np.testing.assert_array_equal((mask > 0) & (mask < 255), (drawn.mask > 0) & (drawn.mask < 255))
        if kind == "saliency":
            assert set(np.unique(mask)) == {0, 1, 255}
        else:
            np.testing.assert_array_equal(mask, drawn.mask)


def test_masks_and_flow_of_clips_are_not_told(root):
    assert {path.suffix for path in (root / "help/videos").rglob("*.*")} == {".png", ".txt", ".json"}
    for kind in ("web", "videos"):
        assert not (root / "help" / kind / "SegmentationClass").exists()


def test_the_card_says_version_counts_checksums_and_that_it_is_simulated(root):
    card = json.loads((root / "help/drawn.json").read_text())
    assert card["version"] == help_files.HELP_VERSION
    assert "simulated" in card["origin"]
    assert card["origin"] == origin(minivoc.load("train", root))
    assert FEW.items() <= card.items()
    assert card["pictures"] == json.loads((root / "minivoc.json").read_text())
    assert card["checksums"].keys() == {*PLACES, *SETS}
    assert minivoc.changed_help(root) == {}
    assert check_help(minivoc.load("train", root), decode=True) == (
        dict.fromkeys(PLACES, 2) | {"saliency": 1, "web": 2, "videos": 2, "other_masks": 1},
        {},
    )


def test_the_data_set_itself_stays_as_it_was(root):
    assert minivoc.make(root, seed=2, train=2, val=1, size=64) == root
    assert len(minivoc.load("train", root)) == 2


def test_made_again_it_is_found(root, monkeypatch):
    monkeypatch.setattr(help_files, "_make", lambda *_: pytest.fail("drew again"))
    assert minivoc.make_help(root, **FEW) == root / "help"
    with pytest.raises(DsnaError, match="help holds other help than was asked for; delete it"):
        minivoc.make_help(root, **FEW | {"web": 3})


def test_refusals(tmp_path):
    with pytest.raises(DsnaError, match=r"no drawn data set lies here; make it first"):
        minivoc.make_help(tmp_path)
    with pytest.raises(SettingError, match="frames=1 must be from 2 to 24"):
        minivoc.make_help(tmp_path, frames=1)
    (tmp_path / "minivoc.json").write_text('{"seed": 0, "size": 48, "train": 1, "val": 1}')
    (tmp_path / "help").mkdir()
    with pytest.raises(DsnaError, match="holds other help"):
        minivoc.make_help(tmp_path)


def test_a_failed_drawing_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "minivoc.json").write_text('{"seed": 0, "size": 48, "train": 1, "val": 0}')

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(help_files, "draw_web", full)
    with pytest.raises(OSError, match="No space left"):
        minivoc.make_help(tmp_path, **FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".help.lock", "minivoc.json"]


@pytest.mark.parametrize("name", ["points.csv", "scribbles/train_00001.png", "videos/JPEGImages/clip_00000/01.png"])
def test_a_changed_file_is_found(root, name):
    path = root / "help" / name
    before = path.read_bytes()
    try:
        if path.suffix == ".csv":
            path.write_bytes(before.replace(b"train_00001", b"train_00002"))
        else:
            path.write_bytes((root / "help/web/JPEGImages/web_00000.png").read_bytes())
        changed = minivoc.changed_help(root)
    finally:
        path.write_bytes(before)
    kind = name.split("/")[0].removesuffix(".csv")
    assert changed.keys() == {kind}
    assert "are not those that were drawn; delete" in changed[kind]


def test_small_defaults():
    assert asdict(HelpConfig()) == {"saliency": 200, "web": 400, "videos": 60, "frames": 8, "other_masks": 200}
