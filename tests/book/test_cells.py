"""Maps to touch, without a browser."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bs4 import BeautifulSoup

from dsna_lib.book.cells import Cells
from dsna_lib.engine.errors import SettingError

IMAGE = np.full((30, 40, 3), 90, np.uint8)
A, S = np.array([[0.1, 0.9, 0.0], [0.25, 0.3, 0.123]]), np.array([[-1.0, 2.0, 3.456], [0.0, 0.0, 0.0]])
VALUES = {"cat": {"a": A, "s": S}, "dog </script>": {"a": S, "s": A}}


def parse(cells: Cells) -> BeautifulSoup:
    return BeautifulSoup(cells._repr_html_(), "html.parser")


def test_every_class_and_measure_has_its_map_and_the_first_class_is_shown():
    images = parse(Cells(IMAGE, VALUES)).find_all("img")
    assert [(img["data-of"], "display:block" in img["style"]) for img in images] == [
        *(("cat", True), ("dog </script>", False)),
        *(("cat", True), ("dog </script>", False)),
    ]
    assert [img["alt"] for img in images][:2] == ["a of cat over the picture", "a of dog </script> over the picture"]


def test_the_page_holds_the_numbers_and_starts_at_the_highest():
    found = parse(Cells(IMAGE, VALUES, decimals=1)).find("script", type="application/json")
    known = json.loads(found.text)
    assert known["size"] == [2, 3]
    assert known["start"] == [0, 1]
    assert known["values"]["cat"]["s"] == [[-1.0, 2.0, 3.5], [0.0, 0.0, 0.0]]
    assert list(known["values"]) == list(VALUES), "a name cannot end the script"


def test_controls_are_native_named_and_hidden_without_javascript():
    soup = parse(Cells(IMAGE, VALUES))
    assert [option.text for option in soup.find("label").find_all("option")] == list(VALUES)
    assert all("display:none" in part["style"] for part in soup.find_all(attrs={"data-control": True}))
    assert [plane["aria-label"].partition(":")[0] for plane in soup.find_all(attrs={"data-plane": True})] == ["a", "s"]
    assert soup.find("output")["aria-live"] == "polite"


def test_a_map_may_be_a_flipped_view():
    flipped, copy = (Cells(IMAGE, {"cat": {"a": plane}})._repr_html_() for plane in (A[::-1], A[::-1].copy()))
    assert flipped == copy


def test_a_flat_map_can_be_shown():
    assert "<img" in Cells(IMAGE, {"cat": {"a": np.zeros((2, 2))}})._repr_html_()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "the same measures, at least one"),
        ({"cat": {}}, "the same measures, at least one"),
        ({"cat": {"a": A}, "dog": {"s": A}}, "the same measures"),
        ({"cat": {"a": A, "s": A[:1]}}, r"planes of one size \(h, w\)"),
        ({"cat": {"a": A[0]}}, r"planes of one size \(h, w\)"),
    ],
)
def test_what_does_not_agree_is_refused(values, message):
    with pytest.raises(SettingError, match=message):
        Cells(IMAGE, values)
