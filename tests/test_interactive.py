"""Sliders over ready frames, the settings behind them, and the live explorer without a browser."""

from __future__ import annotations

import base64
import io
import re
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny
import torch
from bs4 import BeautifulSoup
from PIL import Image

from dsna_lib import annotate, crf, figures, interactive, maps
from dsna_lib.attention import ConventionalAttention, ModelConfig, SingleStreamAttention
from dsna_lib.data import Pictures, read_image
from dsna_lib.interactive import Slider

FRAMES = {value: np.full((12, 30, 3), shade, np.uint8) for value, shade in (("low", 0), ("mid", 99), ("high", 250))}
ALTS = ["a black bar", "a gray bar", "a white bar"]


@pytest.fixture
def model():
    return tiny.model()


@pytest.fixture
def image(tmp_path):
    return read_image(tiny.pictures(tmp_path, 1).records[0].image)


@pytest.fixture
def found(model, image):
    return interactive.see(model, image, 32)


def parse(slider: Slider) -> BeautifulSoup:
    return BeautifulSoup(slider._repr_html_(), "html.parser")


def shown(soup: BeautifulSoup) -> list[int]:
    """Which frames a page without JavaScript shows."""
    return [k for k, img in enumerate(soup.find_all("img")) if "display:none" not in img["style"]]


def heat_of(attention_maps, labels, image):
    """By hand: the highest map of the labels, each enlarged and scaled to 0..1, over the picture."""
    full = [annotate.resize(attention_maps[[c]], image.shape[:2])[0] for c in labels]
    scaled = [(m - m.min()) / (m.max() - m.min()) for m in full]
    return figures.heat(image, torch.stack(scaled).max(dim=0).values.numpy())


# see, drop


def test_see_agrees_with_the_pass_over_a_data_set(model, tmp_path):
    pictures = tiny.pictures(tmp_path, 2)
    one = next(maps.compute(model, pictures, [1], size=32))
    seen = interactive.see(model, read_image(pictures.records[1].image), 32)
    assert seen.size == one.size
    torch.testing.assert_close(seen.maps, one.maps)
    torch.testing.assert_close((seen.features, seen.scores), (one.features, one.scores))


def test_without_dropout_nothing_changes(model, found):
    dropped = interactive.drop(model, found, 0.0)
    torch.testing.assert_close(dropped.maps, found.maps)
    torch.testing.assert_close(dropped.scores, found.scores)


def test_dropout_disturbs_the_expansive_branch_alone(model, found):
    dropped = interactive.drop(model, found, 0.5)
    assert not torch.allclose(dropped.maps["expansive"], found.maps["expansive"])
    torch.testing.assert_close(dropped.maps["discriminative"], found.maps["discriminative"])
    assert not torch.allclose(dropped.scores, found.scores)


def test_dropout_depends_on_its_seed_and_leaves_no_trace(model, found):
    model.head.eval()
    state = torch.get_rng_state()
    one, again, other = (interactive.drop(model, found, 0.5, seed).maps["expansive"] for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.head.dropout_before.p == 0.5
    assert not model.head.dropout_before.training


def test_dropout_at_a_rate_is_what_training_draws_at_it(found):
    model = tiny.model(dropout=0.7)
    torch.manual_seed(5)
    expected = model.head.train()(found.features[None])
    dropped = interactive.drop(model.eval(), found, 0.7, seed=5)
    torch.testing.assert_close(dropped.maps["expansive"], maps.min_max(expected.expansive[0].detach()))
    torch.testing.assert_close(dropped.scores, expected.scores[0].detach())


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_drop_refuses_other_rates(model, found, rate):
    with pytest.raises(ValueError, match=f"rate={rate}"):
        interactive.drop(model, found, rate)


def test_drop_refuses_a_head_without_dropout_on_one_branch(model, found):
    model.head = ConventionalAttention(8, 3)
    with pytest.raises(ValueError, match="ConventionalAttention"):
        interactive.drop(model, found, 0.5)


# views


def test_views_by_default_are_those_of_the_library(image, found):
    made = interactive.views(image, found, [0, 2])
    assert set(made.panels) == {"picture", *maps.KINDS, "annotation"}
    expected = annotate.pseudo_annotation(found.maps["merged"], found.features, [0, 2], image.shape[:2]).numpy()
    np.testing.assert_array_equal(made.masks["annotation"], expected)
    np.testing.assert_array_equal(made.panels["annotation"], figures.overlay(image, expected))
    np.testing.assert_array_equal(made.panels["merged"], heat_of(found.maps["merged"], [0, 2], image))
    for panel in made.panels.values():
        assert panel.shape == image.shape
        assert panel.dtype == np.uint8


@pytest.mark.parametrize(("weight", "kind"), [(1.0, "expansive"), (0.0, "discriminative")])
def test_a_weight_of_one_or_zero_leaves_one_map(image, found, weight, kind):
    made = interactive.views(image, found, [1], weight=weight)
    np.testing.assert_array_equal(made.panels["merged"], made.panels[kind])
    expected = annotate.pseudo_annotation(found.maps[kind], found.features, [1], image.shape[:2]).numpy()
    np.testing.assert_array_equal(made.masks["annotation"], expected)


def test_a_weight_between_mixes_the_maps_and_leaves_the_picture_alone(image, found):
    before = {kind: one.clone() for kind, one in found.maps.items()}
    made = interactive.views(image, found, [1], weight=0.25)
    mixed = 0.25 * before["expansive"] + 0.75 * before["discriminative"]
    np.testing.assert_array_equal(made.panels["merged"], heat_of(mixed, [1], image))
    torch.testing.assert_close(found.maps, before, rtol=0, atol=0)


def test_thresholds_grow_and_shrink_the_regions(image, found):
    areas = [
        (interactive.views(image, found, [0], foreground_threshold=t).masks["annotation"] == 1).sum()
        for t in (0.1, 0.4, 0.8)
    ]
    assert areas[0] > areas[1] > areas[2]
    backgrounds = [
        (interactive.views(image, found, [0], background_threshold=t).masks["annotation"] == 0).sum()
        for t in (0.05, 0.3, 0.9)
    ]
    assert backgrounds[0] < backgrounds[2]


def test_tau_adds_the_refined_annotation(image, found):
    pytest.importorskip("pydensecrf.densecrf")
    made = interactive.views(image, found, [0], tau=0.8)
    expected = crf.refine(image, crf.class_probabilities(made.masks["annotation"], [0], 3, 0.8))
    np.testing.assert_array_equal(made.masks["refined"], expected)
    np.testing.assert_array_equal(made.panels["refined"], figures.overlay(image, expected))


def test_views_follow_the_picture_that_is_given(image, found):
    small = image[::2, ::2].copy()
    assert interactive.views(small, found, [0]).masks["annotation"].shape == small.shape[:2]


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"weight": 1.2}, "weight=1.2"), ({"labels": []}, "labels is empty"), ({"tau": 0.5}, "tau=0.5")],
)
def test_views_refuse_what_makes_no_sense(image, found, setting, message):
    with pytest.raises(ValueError, match=message):
        interactive.views(image, found, **({"labels": [0]} | setting))


def test_views_refuse_a_single_stream(model, image):
    model.head = SingleStreamAttention(8, 3)
    with pytest.raises(ValueError, match="needs an expansive map"):
        interactive.views(image, interactive.see(model, image, 32), [0])


def test_a_frame_holds_its_panels_from_left_to_right(image, found):
    made = interactive.views(image, found, [0])
    frame, width = made.frame(["picture", "annotation"]), image.shape[1]
    assert frame.shape == (image.shape[0], 2 * width + interactive.GAP, 3)
    np.testing.assert_array_equal(frame[:, :width], image)
    np.testing.assert_array_equal(frame[:, -width:], made.panels["annotation"])
    assert (frame[:, width:-width] == 255).all()
    np.testing.assert_array_equal(made.frame(["picture"]), image)


def test_describe_counts_what_is_there():
    mask = np.array([[0, 0, 0, 0, 0, 2, 2, 2, 255, 255]])
    assert interactive.describe(mask, [1, 0], ["cat", "dog"]) == "dog 30%, cat 0%, background 50%, void 20%"


# Slider


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
    with pytest.raises(ValueError, match=message):
        Slider(**({"title": "shade", "frames": FRAMES, "alts": ALTS} | arguments))


# The explorer


@pytest.fixture
def live(model, tmp_path):
    """An explorer's parts; its widgets need no kernel until a front end draws them."""
    widgets = pytest.importorskip("ipywidgets")
    return interactive._Explorer(widgets, model, tiny.pictures(tmp_path, 3), 32)


def panels(live) -> dict[str, str]:
    soup = BeautifulSoup(live.shown.value, "html.parser")
    return {img["alt"]: img["src"] for img in soup.find_all("img")}


def test_explorer_starts_with_the_first_picture_and_its_labels(live):
    assert list(panels(live)) == ["picture", *maps.KINDS, "annotation"]
    assert live.controls["labels"].value == (0,)
    assert "red" in live.shown.value
    assert live.controls["weight"].disabled
    assert live.controls["tau"].disabled


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"foreground": 0.8}, {"annotation"}),
        ({"background": 0.9}, {"annotation"}),
        ({"predicted": False, "weight": 0.0}, {"merged", "annotation"}),
        ({"seed": 1}, set()),
        ({"dropout": 0.5}, {"expansive", "merged", "annotation"}),
    ],
)
def test_explorer_redraws_what_a_knob_changes(live, settings, changed):
    before = panels(live)
    for name, value in settings.items():
        live.controls[name].value = value
    after = panels(live)
    assert {name for name in before if before[name] != after[name]} <= changed
    assert (after != before) == bool(changed)


def test_explorer_refines(live):
    pytest.importorskip("pydensecrf.densecrf")
    live.controls["refining"].value = True
    assert "refined" in panels(live)
    assert not live.controls["tau"].disabled


def test_explorer_takes_another_picture_and_its_labels(live):
    before = panels(live)
    live.controls["picture"].value = 2
    assert live.controls["labels"].value == (2,)
    assert panels(live)["picture"] != before["picture"]


def test_explorer_takes_a_file_and_proposes_labels(live, tmp_path):
    path = tmp_path / "own.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 700, 3), np.uint8)).save(path)
    live.controls["path"].value = str(path)
    assert live.image.shape == (240, 336, 3)  # made smaller, else the CRF would lag
    assert live.controls["labels"].value
    live.controls["path"].value = ""
    assert live.controls["labels"].value == (0,)
    assert live.image.shape == (20, 26, 3)


def test_explorer_says_what_is_wrong_and_goes_on(live):
    live.controls["labels"].value = ()
    assert "labels is empty" in live.shown.value
    live.controls["path"].value = "<nowhere>.jpg"
    assert "&lt;nowhere&gt;.jpg: no such picture" in live.shown.value
    live.controls["dropout"].value = 0.3
    assert panels(live) == {}
    live.controls["path"].value = ""
    assert list(panels(live))


def test_explorer_refuses_unfit_models_and_no_pictures(model, tmp_path):
    pictures = tiny.pictures(tmp_path, 1)
    with pytest.raises(ValueError, match="pictures is empty"):
        interactive.explorer(model, Pictures([], tiny.NAMES))
    model.config = ModelConfig(("cat", "dog", "cow"))
    with pytest.raises(ValueError, match="knows cat, dog, cow; the pictures hold red, green, blue"):
        interactive.explorer(model, pictures)
    model.head = ConventionalAttention(8, 3)
    with pytest.raises(ValueError, match="decoupled head"):
        interactive.explorer(model, pictures)


def test_explorer_returns_one_widget(model, tmp_path):
    widgets = pytest.importorskip("ipywidgets")
    box = interactive.explorer(model, tiny.pictures(tmp_path, 1), 32)
    assert isinstance(box, widgets.VBox)


def test_explorer_names_the_package_that_is_missing(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        interactive.explorer(model, tiny.pictures(tmp_path, 1))
