"""The folder of help: where it lies, sets of other pictures, and what is refused or named."""

import json

import numpy as np
import pytest
from help_samples import NAMES, data_set, image, written

from dsna_lib.data import Pictures, Record, write_mask
from dsna_lib.data.help import PLACES, SETS, check_help, clips, help_folder, load_help, origin
from dsna_lib.engine.errors import DsnaError


@pytest.fixture
def pictures(tmp_path):
    return data_set(tmp_path)


def voc_set(place, ids, labels, names, masks=()):
    """A set in the VOC layout; masks are all 1."""
    for i in ids:
        image(place / f"JPEGImages/{i}.png")
    for i in masks:
        write_mask(place / f"SegmentationClass/{i}.png", np.ones((12, 16)))
    written(place / "ImageSets/Segmentation/train.txt", "\n".join(ids))
    written(place / "image_labels.json", json.dumps(dict(zip(ids, labels, strict=True))))
    written(place / "class_names.json", json.dumps(names))


def test_help_lies_beside_the_pictures(tmp_path, pictures):
    assert help_folder(pictures) == tmp_path / "help"
    own = Record("x", image(tmp_path / "mine/garden/x.png"), (0,))
    written(tmp_path / "mine/labels.csv", "file,labels\ngarden/x.png,cat\n")
    assert help_folder(Pictures([own], NAMES)) == tmp_path / "mine/help"
    assert help_folder(Pictures([], NAMES)) is None
    assert all(load_help(kind, pictures) is None for kind in (*PLACES, *SETS))
    loose = Pictures([Record("x", image(tmp_path.parent / "loose" / "x.png"), (0,))], NAMES)
    assert help_folder(loose) is None
    assert load_help("points", loose) is None


def test_pictures_of_the_web(tmp_path, pictures):
    """Whatever masks lie there are not handed over."""
    voc_set(tmp_path / "help/web", ["w1", "w2"], [["dog"], ["cat", "cow"]], NAMES, masks=["w1"])
    web = load_help("web", pictures)
    assert [(record.id, record.labels, record.mask) for record in web.records] == [
        ("w1", (1,), None),
        ("w2", (0, 2), None),
    ]


def test_a_set_as_a_folder_with_a_table(tmp_path, pictures):
    image(tmp_path / "help/web/x.png")
    written(tmp_path / "help/web/labels.csv", "file,labels\nx.png,cow\n")
    assert [record.labels for record in load_help("web", pictures).records] == [(2,)]
    image(tmp_path / "help/saliency/x.png")
    write_mask(tmp_path / "help/saliency/masks/x.png", np.ones((12, 16)))
    written(tmp_path / "help/saliency/labels.csv", "file,labels\nx.png,thing\n")
    salient = load_help("saliency", pictures)
    assert salient.class_names == ("thing",)
    assert salient.with_transform(None, masks=True)[0]["mask"].max() == 1


def test_other_masks(tmp_path, pictures):
    voc_set(tmp_path / "help/other_masks", ["o1", "o2"], [["yak"], ["emu"]], ["emu", "yak"], masks=["o1", "o2"])
    others = load_help("other_masks", pictures)
    assert (others.class_names, len(others)) == (("emu", "yak"), 2)
    assert all(record.mask for record in others.records)


@pytest.mark.parametrize(
    ("kind", "names", "masks", "said"),
    [
        ("web", ["cat", "dog"], [], r"help/web: its classes are not those of the data set, cat, dog, cow"),
        ("videos", ["dog"], [], r"help/videos: its classes are not those"),
        ("other_masks", ["dog", "yak"], ["i"], "help/other_masks: dog is a class of the data set; leave"),
        ("other_masks", ["yak"], [], "help/other_masks: none of its pictures has a mask; that is"),
        ("saliency", ["emu", "yak"], ["i"], "help/saliency: has 2 classes; call whatever is salient by one name"),
    ],
)
def test_a_set_that_is_of_no_use_is_named(tmp_path, pictures, kind, names, masks, said):
    voc_set(tmp_path / "help" / kind, ["i"], [names[:1]], names, masks)
    with pytest.raises(DsnaError, match=said):
        load_help(kind, pictures)


def test_a_set_that_lists_nothing_is_named(tmp_path, pictures):
    voc_set(tmp_path / "help/web", [], [], NAMES)
    (tmp_path / "help/web/JPEGImages").mkdir()
    with pytest.raises(DsnaError, match="help/web: lists no picture; delete the folder, or list some"):
        load_help("web", pictures)


def test_clips_are_the_frames_of_a_folder_in_order(tmp_path, pictures):
    ids = ["c2/01", "c1/00", "c1/01", "c2/00"]
    voc_set(tmp_path / "help/videos", ids, [["cat"], ["dog"], ["dog"], ["cat"]], NAMES)
    made = clips(load_help("videos", pictures))
    assert {clip: [record.id for record in frames.records] for clip, frames in made.items()} == {
        "c1": ["c1/00", "c1/01"],
        "c2": ["c2/00", "c2/01"],
    }


def test_a_video_of_one_frame_is_named_and_others_are_read(tmp_path, pictures):
    ids, labels = ["c1/00", "c1/01", "c2/00", "c3/00", "c3/01"], [["dog"], ["dog"], ["cat"], ["cat"], ["cow"]]
    voc_set(tmp_path / "help/videos", ids, labels, NAMES)
    frames, failed = load_help("videos", pictures), {}
    assert list(clips(frames, failed)) == ["c1"]
    place = tmp_path / "help/videos/JPEGImages"
    assert failed == {
        "c2": f"{place}/c2/00.png: is the only frame of its clip",
        "c3": f"{place}/c3/00.png: and the other frames of its clip have different labels",
    }
    with pytest.raises(DsnaError, match=r"c2/00.png: is the only frame of its clip; a clip is a folder of two frames"):
        clips(frames)


def test_checking_counts_and_names_what_is_bad(tmp_path, pictures):
    place = tmp_path / "help"
    written(place / "points.csv", "id,x,y,class\na,99,1,cat\nb,1,1,cow\n")
    written(place / "boxes.csv", "id,left\n")
    voc_set(place / "videos", ["c1/00", "c2/00", "c2/01"], [["dog"]] * 3, NAMES)
    voc_set(place / "other_masks", ["o1", "o2"], [["yak"]] * 2, ["yak"], masks=["o1"])
    (place / "videos/JPEGImages/c2/01.png").write_bytes(b"")
    counts, failed = check_help(pictures)
    assert counts == {"points": 2, "videos": 3, "other_masks": 2}
    assert failed.keys() == {"boxes", "videos/c1"}
    counts, failed = check_help(pictures, decode=True)
    assert failed.keys() == {"points/a", "boxes", "videos/c1", "videos/c2/01", "other_masks/o2"}
    assert "points.csv, row 2: the point 99, 1 lies outside" in failed["points/a"]
    assert "o2.png: has no mask" in failed["other_masks/o2"]


def test_no_mask_of_the_data_set_can_be_reached(tmp_path, pictures):
    """Whatever is handed over names no file of the pictures' masks."""
    place = tmp_path / "help"
    written(place / "points.csv", "id,x,y,class\na,9,1,cat\nb,1,1,cow\n")
    write_mask(place / "scribbles/a.png", np.zeros((12, 16)))
    voc_set(place / "web", ["w"], [["dog"]], NAMES)
    masks = {str(record.mask) for record in pictures.records}
    for kind in ("points", "scribbles", "web"):
        told = load_help(kind, pictures)
        text = repr(vars(told))
        assert not any(mask in text for mask in masks)


def test_who_told_it(tmp_path, pictures):
    assert origin(pictures) == "given"
    written(tmp_path / "help/drawn.json", '{"origin": "simulated from masks"}')
    assert origin(pictures) == "simulated from masks"
