"""Other pictures that methods learn from: other animals, single ones with labels of the web, and clips."""

import hashlib

import numpy as np
import pytest

from dsna_lib.data import minivoc
from dsna_lib.data.minivoc import scene, sets
from dsna_lib.data.minivoc.others import OTHER_NAMES, draw_other
from dsna_lib.data.minivoc.sets import Clip, draw_clip, draw_others, draw_web


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [draw_clip(1, index, 64, 3) for index in range(4)]


def checksum(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(repr(a.shape).encode() + a.tobytes() for a in arrays)).hexdigest()[:16]


def test_other_animals_are_no_classes_and_have_masks():
    drawings = [draw_others(1, index, 64) for index in range(6)]
    assert not set(OTHER_NAMES) & set(minivoc.CLASS_NAMES)
    assert {drawing.classes[0] for drawing in drawings} == set(range(len(OTHER_NAMES)))
    for drawing in drawings:
        assert 1 <= len(drawing.classes) <= 3
        assert set(np.unique(drawing.mask)) == {0, minivoc.VOID, *(label + 1 for label in drawing.labels)}
        assert drawing.part.max() == 0
    assert {len(draw_others(1, index, 64, 1).classes) for index in range(3)} == {1}


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_another_animal_has_the_size_that_it_is_asked_for(name):
    covered = np.count_nonzero(draw_other(name, 3000, 5).canvas)
    assert 0.7 * 3000 < covered < 1.4 * 3000


def test_of_twenty_labels_of_the_web_four_are_wrong(monkeypatch):
    """Of any twenty in a row that begin at a multiple."""
    shown = []
    monkeypatch.setattr(scene.Scene, "render", lambda self, dice: shown.append(self.classes[1:]) or EMPTY)
    drawings = [draw_web(1, index, 48) for index in range(20, 40)]
    wrong = [drawing.label != drawing.true for drawing in drawings]
    assert sum(wrong) == 4
    assert shown == [[drawing.true + 1] for drawing in drawings]
    assert sorted(drawing.true for drawing in drawings) == sorted([*range(10)] * 2)
    assert {drawing.label for drawing in drawings} <= set(range(10))


EMPTY = minivoc.Drawing(*[np.zeros((4, 4), np.uint8)] * 3, (), np.zeros((4, 4), np.uint8), ())


def test_a_picture_of_the_web_has_plain_ground(monkeypatch):
    """But for the grain of the paper and the light, which take less than 40 of 255."""
    shown = draw_web(1, 2, 64).image.astype(int)
    monkeypatch.setattr(sets, "populate", lambda *_, **__: None)
    ground = draw_web(1, 2, 64).image.astype(int)
    assert np.abs(ground - np.median(ground, axis=(0, 1))).max() < 40
    assert np.abs(shown - ground).max() > 100


def test_an_animal_moves_as_the_flow_says_over_still_ground(clips):
    for clip in clips:
        assert clip.frames.shape == (*clip.masks.shape, 3)
        assert clip.flow.shape == (2, *clip.masks.shape[1:], 2)
        seen = clip.masks > 0
        covered = (clip.masks == clip.label + 1) + (clip.masks == minivoc.VOID) / 2
        grid = np.stack(np.indices(seen.shape[1:])[::-1], axis=-1)  # x and y of each pixel
        places = (covered[..., None] * grid).sum(axis=(1, 2)) / covered.sum(axis=(1, 2))[:, None]
        for t in range(2):
            moved = clip.flow[t][seen[t]]
            assert (clip.flow[t][~seen[t]] == 0).all()
            assert (moved == moved[0]).all()
            assert np.abs(moved[0]).max() >= 64 / 224
            np.testing.assert_allclose(places[t + 1] - places[t], moved[0], atol=0.2)
        # The shadow falls two pixels down and one to the right at most.
        near = np.logical_or.reduce([np.roll(seen, (y, x), (1, 2)) for y in range(-1, 4) for x in range(-1, 3)])
        still = ~near.any(axis=0)
        assert still.sum() > 500
        assert (clip.frames[:, still] == clip.frames[:1, still]).all()
        assert set(np.unique(clip.masks)) == {0, clip.label + 1, minivoc.VOID}


def test_a_long_clip_stays_within_the_picture():
    clip = draw_clip(1, 0, 48, 24)
    shown = (clip.masks > 0).sum(axis=(1, 2))
    assert shown.min() > 0.9 * shown.max()


def test_same_pixels_on_every_machine(clips):
    """Raise HELP_VERSION together with these."""
    others = draw_others(0, 3_000_000, 64)
    sums = [checksum(*others[:3]), checksum(draw_web(0, 4_000_000, 64).image), checksum(*clips[0][:3])]
    assert sums == ["ee04ed6fef0a570d", "a09b04dd078a697d", "f038a61a0f81cf25"]
