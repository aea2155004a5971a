"""A point, a scribble and a box for each object: inside it, around it, and the same everywhere."""

import hashlib

import numpy as np
import pytest

from dsna_lib.data import minivoc
from dsna_lib.data.minivoc.canvas import Dice
from dsna_lib.data.minivoc.places import Places, _scribble, depths, places_of

KEYS = [(0, index, 64) for index in range(6)]


@pytest.fixture(scope="module")
def told() -> list[tuple[minivoc.Drawing, Places]]:
    drawings = [minivoc.draw(*key) for key in KEYS]
    return [(drawing, places_of(drawing, *key[:2])) for drawing, key in zip(drawings, KEYS, strict=True)]


def test_objects_are_those_of_the_mask(told):
    for drawing, _ in told:
        for number, label in enumerate(drawing.classes, start=1):
            assert (drawing.mask[drawing.objects == number] == label + 1).all()
        for value in (0, minivoc.VOID):
            np.testing.assert_array_equal(drawing.objects == value, drawing.mask == value)
    assert any(len(drawing.classes) > len(drawing.labels) for drawing, _ in told)  # two of a class


def test_depths_by_hand():
    region = np.array([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 1, 1]], bool)
    assert depths(region).tolist() == [[0, 1, 1, 1, 0], [1, 1, 2, 1, 1], [1, 1, 2, 2, 1], [0, 1, 1, 1, 1]]


def test_each_object_has_a_point_well_inside(told):
    for drawing, places in told:
        assert [label for *_, label in places.points] == list(drawing.classes)
        for number, (x, y, _) in enumerate(places.points, start=1):
            depth = depths(drawing.objects == number)
            assert depth[y, x] * 2 >= depth.max() > 0


def test_boxes_are_tight(told):
    for drawing, places in told:
        for number, (left, top, right, bottom, label) in enumerate(places.boxes, start=1):
            pixels = [(x, y) for y, row in enumerate(drawing.objects) for x, value in enumerate(row) if value == number]
            columns, rows = zip(*pixels, strict=True)
            assert (left, top, right, bottom) == (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
            assert label == drawing.classes[number - 1]


def test_scribbles_stay_inside_and_are_a_few_pixels_wide(told):
    for drawing, places in told:
        said = places.scribbles != minivoc.VOID
        np.testing.assert_array_equal(places.scribbles[said], drawing.mask[said])
        for number in range(len(drawing.classes) + 1):  # of each object, and of the background
            stroke = said & (drawing.objects == number)
            assert 0 < stroke.sum() < 0.35 * (drawing.objects == number).sum()
            assert depths(stroke).max() <= 3
        assert (said & (drawing.objects == 0)).sum() > 40


def test_what_is_too_small_for_a_stroke_gets_a_dot():
    region = np.zeros((9, 9), bool)
    region[4, 6] = True
    np.testing.assert_array_equal(_scribble(Dice(0), region), region)


def test_same_places_on_every_machine(told):
    """Raise HELP_VERSION together with these."""
    content = hashlib.sha256(repr([(p.points, p.boxes) for _, p in told]).encode())
    for _, places in told:
        content.update(places.scribbles.tobytes())
    assert content.hexdigest()[:16] == "42261b19d2c967f2"
    drawing, places = told[2]
    again = places_of(drawing, 0, 2)
    assert again[:2] == places[:2]
    assert places_of(drawing, 0, 1).points != places.points
