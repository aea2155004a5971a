"""The diagrams: what they show, and to whom."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from dsna_lib.book import diagrams
from dsna_lib.engine.errors import SettingError

SVG = "{http://www.w3.org/2000/svg}"


def drawing(diagram):
    """Its root; a body that is no XML would end here."""
    return ElementTree.fromstring(diagram._repr_html_()).find(f"{SVG}svg")


def words(element):
    return ["".join(text.itertext()) for text in element.iter(f"{SVG}text")]


@pytest.mark.parametrize("diagram, equations", [
    (diagrams.conventional(), {1, 2, 3, 4}), (diagrams.decoupled(), {5, 6, 7, 8, 9, 10}),
])  # fmt: skip
def test_each_equation_stands_at_its_step(diagram, equations):
    found = re.findall(r"\(([\d, ]+)\)", " ".join(words(drawing(diagram))))
    assert sorted(int(number) for group in found for number in group.split(",")) == sorted(equations)


@pytest.mark.parametrize("diagram", [
    diagrams.conventional(), diagrams.decoupled(gradients=True), diagrams.pipeline("labels"),
])  # fmt: skip
def test_everything_lies_within_the_drawing(diagram):
    svg = drawing(diagram)
    left, top, width, height = map(int, svg.get("viewBox").split())
    for text in svg.iter(f"{SVG}text"):
        long = 7 * len("".join(text.itertext()))  # pixels, at most
        start = {"start": 0, "middle": long / 2, "end": long}[text.get("text-anchor")]
        assert left <= int(text.get("x")) - start
        assert int(text.get("x")) - start + long <= left + width
    for line in svg.iter(f"{SVG}path"):
        numbers = [int(number) for number in re.findall(r"-?\d+", line.get("d"))]
        assert all(left <= number <= left + width for number in numbers)
    assert all(top <= int(text.get("y")) <= top + height for text in svg.iter(f"{SVG}text"))


def test_words_take_the_color_of_the_page():
    """Light in the dark; the branches' colors would be hard to read on one of the grounds."""
    svg = drawing(diagrams.decoupled(gradients=True))
    assert {text.get("fill") for text in svg.iter(f"{SVG}text")} == {"currentColor"}


def test_what_it_shows_is_told_to_those_who_do_not_see_it():
    region = ElementTree.fromstring(diagrams.decoupled(gradients=True)._repr_html_())
    assert (region.get("aria-label"), region.get("tabindex")) == ("The decoupled structure", "0")
    told = region.find(f"{SVG}svg").get("aria-label")
    assert "discriminative one, D-A" in told
    assert "Dashed arrows lead back" in told
    assert "Dashed" not in drawing(diagrams.decoupled()).get("aria-label")


def test_only_the_parts_that_are_here_are_strong():
    groups = drawing(diagrams.decoupled(here=("expansive", "loss"))).findall(f"{SVG}g")
    strong = [" ".join(words(group)) for group in groups if group.get("opacity") == "1"]
    assert len(groups) == len(diagrams.PARTS)
    assert len(strong) == 2
    assert "E-A detector" in strong[0]
    assert "labels y" in strong[1]


def test_gradients_are_drawn_where_they_are_asked_for():
    assert not any("∂" in text for text in words(drawing(diagrams.decoupled())))
    assert sum("∂" in text for text in words(drawing(diagrams.decoupled(gradients=True)))) == 2


def test_an_unknown_part_is_refused():
    with pytest.raises(SettingError, match="here=tail: choose among backbone, expansive, discriminative, score, loss"):
        diagrams.decoupled(here="tail")


def test_in_a_terminal_it_is_its_name():
    assert repr(diagrams.conventional()) == "Diagram('Conventional spatial attention')"


@pytest.mark.parametrize("here", diagrams.STEPS)
def test_the_step_that_is_here_stands_out(here):
    diagram = diagrams.pipeline(here)
    groups = drawing(diagram).findall(f"{SVG}g")
    strong = [group for group in groups if group.get("opacity") == "1"]
    assert len(groups) == len(diagrams.STEPS)
    assert [diagrams.STEPS[here][1] in words(group) for group in strong] == [True]
    assert f"the step {list(diagrams.STEPS).index(here) + 1}" in drawing(diagram).get("aria-label")


def test_an_unknown_step_is_refused():
    with pytest.raises(SettingError, match="here=masks: choose among labels, model, maps, annotation, network"):
        diagrams.pipeline(here="masks")
