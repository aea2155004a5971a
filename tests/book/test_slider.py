"""Sliders over ready frames, without a browser."""

from __future__ import annotations

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from dsna_lib.book import figures
from dsna_lib.book.slider import Slider
from dsna_lib.engine.errors import SettingError

FRAMES = {value: np.full((12, 30, 3), shade, np.uint8) for value, shade in (("low", 0), ("mid", 99), ("high", 250))}
ALTS = ["a black bar", "a gray bar", "a white bar"]


def parse(slider: Slider) -> BeautifulSoup:
    return BeautifulSoup(slider._repr_html_(), "html.parser")


def shown(soup: BeautifulSoup) -> list[int]:
    """Which frames a page without JavaScript shows."""
    return [k for k, img in enumerate(soup.find_all("img")) if "display:none" not in img["style"]]


def test_a_page_without_javascript_shows_the_frame_in_the_middle_and_no_control():
    soup = parse(Slider("shade", FRAMES, ALTS))
    assert shown(soup) == [1]
    assert "display:none" in soup.find("input").find_parent("div")["style"]
    assert soup.find("output").text == "mid"


def test_the_first_frame_can_be_chosen():
    soup = parse(Slider("shade", FRAMES, ALTS, start=0))
    assert shown(soup) == [0]
    assert soup.find("input")["value"] == "0"
    assert soup.find("input")["aria-valuetext"] == soup.find("output").text == "low"


def test_frames_carry_their_pictures_values_and_descriptions():
    images = parse(Slider("shade", FRAMES, ALTS)).find_all("img")
    assert [img["alt"] for img in images] == ALTS
    assert [img["data-value"] for img in images] == list(FRAMES)
    for img, frame in zip(images, FRAMES.values(), strict=True):
        kind, data = img["src"].split(",", 1)
        assert kind == "data:image/webp;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        np.testing.assert_allclose(pixels.astype(int), frame.astype(int), atol=6)
        assert (img["width"], img["height"]) == ("30", "12")


def test_the_control_is_a_labeled_native_slider():
    soup = parse(Slider("shade of gray", FRAMES, ALTS, columns=["left", "right"]))
    control = soup.find("input", type="range")
    assert (control["min"], control["max"], control["step"]) == ("0", "2", "1")
    assert control.find_parent("label").text.strip() == "shade of gray"
    assert [span.text for span in soup.find_all("span")] == ["shade of gray", "left", "right"]


def test_several_sliders_on_one_page_do_not_clash():
    html = Slider("one", FRAMES, ALTS)._repr_html_() + Slider("two", FRAMES, ALTS)._repr_html_()
    soup = BeautifulSoup(html, "html.parser")
    assert len(soup.find_all("input")) == 2
    assert soup.find_all(id=True) == []
    assert soup.find_all(attrs={"name": True}) == []


def test_the_page_loads_nothing_and_is_the_same_every_time():
    html = Slider("shade", FRAMES, ALTS)._repr_html_()
    assert html == Slider("shade", FRAMES, ALTS)._repr_html_()
    assert re.findall(r"https?:|//[a-z]|@import|url\(", re.sub(r'src="[^"]*"', "", html)) == []
    assert re.findall(r'src="(?!data:)', html) == []


def test_text_of_the_author_stays_text():
    soup = parse(Slider('<b>"x" & y</b>', {'"<i>"': FRAMES["low"], "b": FRAMES["mid"]}, ['a "quoted" <alt>', "c"]))
    assert soup.find("b") is None
    assert soup.find("i") is None
    assert soup.find("img")["alt"] == 'a "quoted" <alt>'
    assert soup.find("figure")["aria-label"] == '<b>"x" & y</b>'


def test_figures_are_frames_too():
    frames = {}
    for width in (1, 5):
        figure, axis = plt.subplots(figsize=(2, 1), dpi=50)
        axis.plot([0, 1], linewidth=width)
        frames[str(width)] = figure
        plt.close(figure)
    first, second = parse(Slider("width", frames, ["a thin line", "a thick line"])).find_all("img")
    assert (first["width"], first["height"]) == ("100", "50")
    assert first["src"] != second["src"]


def test_ten_heat_maps_stay_small():
    rows, columns = np.mgrid[:168, :224]
    photo = np.uint8(127 + 60 * np.sin(rows / 9)[..., None] * np.cos(columns / 7)[..., None] * [1, 0.8, 0.6])
    spots = [np.exp(-((rows - 80) ** 2 + (columns - 20 * k) ** 2) / 3000) for k in range(10)]
    frames = {str(k): np.hstack([figures.heat(photo, spot), photo]) for k, spot in enumerate(spots)}
    assert len(Slider("place", frames, ["a spot"] * 10)._repr_html_()) < 120_000


def test_repr_is_short():
    assert repr(Slider("shade", FRAMES, ALTS)) == "Slider('shade', 3 frames)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frames": {"low": FRAMES["low"]}, "alts": ["a"]}, "has 1 frames"),
        ({"alts": ALTS[:2]}, "3 frames and 2 alts"),
        ({"alts": ["a", " ", "b"]}, "describe every frame"),
        ({"start": 3}, "start=3"),
        ({"frames": FRAMES | {"mid": FRAMES["mid"][:6]}}, r"not of \(6, 30\) and \(12, 30\)"),
        ({"frames": FRAMES | {"mid": FRAMES["mid"] / 255}}, "float64"),
        ({"frames": FRAMES | {"mid": FRAMES["mid"][..., 0]}}, r"\(12, 30\) uint8"),
    ],
)
def test_slider_refuses_what_it_cannot_show(arguments, message):
    with pytest.raises(SettingError, match=message):
        Slider(**({"title": "shade", "frames": FRAMES, "alts": ALTS} | arguments))
