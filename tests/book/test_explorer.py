"""What settings make of a picture, and the live explorer without a browser."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tiny
import torch
from bs4 import BeautifulSoup
from PIL import Image

from dsna_lib import annotate, crf, maps
from dsna_lib.attention import ConventionalAttention, SingleStreamAttention
from dsna_lib.book import explorer, figures
from dsna_lib.config.attention import ModelConfig
from dsna_lib.data.pictures import Pictures, read_image


@pytest.fixture
def model():
    return tiny.model()


@pytest.fixture
def image(tmp_path):
    return read_image(tiny.pictures(tmp_path, 1).records[0].image)


@pytest.fixture
def seen(model, image):
    return explorer.see(model, image, 32)


def heat_of(attention_maps, labels, image):
    """By hand: the highest map of the labels, each enlarged and scaled to 0..1, over the picture."""
    full = [annotate.resize(attention_maps[[c]], image.shape[:2])[0] for c in labels]
    scaled = [(m - m.min()) / (m.max() - m.min()) for m in full]
    return figures.heat(image, torch.stack(scaled).max(dim=0).values.numpy())


# see, drop


def test_see_agrees_with_the_pass_over_a_data_set(model, tmp_path):
    pictures = tiny.pictures(tmp_path, 2)
    passed = next(maps.iterate_maps(model, pictures, [1], size=32))
    seen = explorer.see(model, read_image(pictures.records[1].image), 32)
    assert seen.size == passed.size
    torch.testing.assert_close(seen.maps, passed.maps)
    torch.testing.assert_close((seen.features, seen.scores), (passed.features, passed.scores))


def test_see_takes_a_flipped_view(model, image):
    flipped, copy = (explorer.see(model, view, 32).scores for view in (image[:, ::-1], image[:, ::-1].copy()))
    torch.testing.assert_close(flipped, copy, rtol=0, atol=0)


def test_without_dropout_nothing_changes(model, seen):
    dropped = explorer.drop(model, seen, 0.0)
    torch.testing.assert_close(dropped.maps, seen.maps)
    torch.testing.assert_close(dropped.scores, seen.scores)


def test_dropout_disturbs_the_expansive_branch_alone(model, seen):
    dropped = explorer.drop(model, seen, 0.5)
    assert not torch.allclose(dropped.maps["expansive"], seen.maps["expansive"])
    torch.testing.assert_close(dropped.maps["discriminative"], seen.maps["discriminative"])
    assert not torch.allclose(dropped.scores, seen.scores)


def test_dropout_depends_on_its_seed_and_leaves_no_trace(model, seen):
    model.head.eval()
    state = torch.get_rng_state()
    first, again, other = (explorer.drop(model, seen, 0.5, seed).maps["expansive"] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.head.dropout_before.p == 0.5
    assert not model.head.dropout_before.training


def test_dropout_at_a_rate_is_what_training_draws_at_it(seen):
    model = tiny.model(dropout=0.7)
    torch.manual_seed(5)
    expected = model.head.train()(seen.features[None])
    dropped = explorer.drop(model.eval(), seen, 0.7, seed=5)
    torch.testing.assert_close(dropped.maps["expansive"], maps.min_max(expected.expansive[0].detach()))
    torch.testing.assert_close(dropped.scores, expected.scores[0].detach())


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_drop_refuses_other_rates(model, seen, rate):
    with pytest.raises(ValueError, match=f"rate={rate}"):
        explorer.drop(model, seen, rate)


def test_drop_refuses_a_head_without_dropout_on_one_branch(model, seen):
    model.head = ConventionalAttention(8, 3)
    with pytest.raises(ValueError, match="ConventionalAttention"):
        explorer.drop(model, seen, 0.5)


# views


def test_views_by_default_are_those_of_the_library(image, seen):
    made = explorer.views(image, seen, [0, 2])
    assert set(made.panels) == {"picture", *maps.MAP_KINDS, "annotation"}
    expected = annotate.pseudo_annotation(seen.maps["merged"], seen.features, [0, 2], image.shape[:2]).numpy()
    np.testing.assert_array_equal(made.masks["annotation"], expected)
    np.testing.assert_array_equal(made.panels["annotation"], figures.overlay(image, expected))
    np.testing.assert_array_equal(made.panels["merged"], heat_of(seen.maps["merged"], [0, 2], image))
    for panel in made.panels.values():
        assert panel.shape == image.shape
        assert panel.dtype == np.uint8


@pytest.mark.parametrize(("weight", "kind"), [(1.0, "expansive"), (0.0, "discriminative")])
def test_a_weight_of_one_or_zero_leaves_one_map(image, seen, weight, kind):
    made = explorer.views(image, seen, [1], weight=weight)
    np.testing.assert_array_equal(made.panels["merged"], made.panels[kind])
    expected = annotate.pseudo_annotation(seen.maps[kind], seen.features, [1], image.shape[:2]).numpy()
    np.testing.assert_array_equal(made.masks["annotation"], expected)


def test_a_weight_between_mixes_the_maps_and_leaves_the_picture_alone(image, seen):
    before = {kind: attention_map.clone() for kind, attention_map in seen.maps.items()}
    made = explorer.views(image, seen, [1], weight=0.25)
    mixed = 0.25 * before["expansive"] + 0.75 * before["discriminative"]
    np.testing.assert_array_equal(made.panels["merged"], heat_of(mixed, [1], image))
    torch.testing.assert_close(seen.maps, before, rtol=0, atol=0)


def test_thresholds_grow_and_shrink_the_regions(image, seen):
    areas = [
        (explorer.views(image, seen, [0], foreground_threshold=t).masks["annotation"] == 1).sum()
        for t in (0.1, 0.4, 0.8)
    ]
    assert areas[0] > areas[1] > areas[2]
    backgrounds = [
        (explorer.views(image, seen, [0], background_threshold=t).masks["annotation"] == 0).sum()
        for t in (0.05, 0.3, 0.9)
    ]
    assert backgrounds[0] < backgrounds[2]


def test_tau_adds_the_refined_annotation(image, seen):
    made = explorer.views(image, seen, [0], tau=0.8)
    expected = crf.refine(image, crf.class_probabilities(made.masks["annotation"], [0], 3, 0.8))
    np.testing.assert_array_equal(made.masks["refined"], expected)
    np.testing.assert_array_equal(made.panels["refined"], figures.overlay(image, expected))


def test_views_follow_the_picture_that_is_given(image, seen):
    small = image[::2, ::2].copy()
    assert explorer.views(small, seen, [0]).masks["annotation"].shape == small.shape[:2]


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"weight": 1.2}, "weight=1.2"), ({"labels": []}, "labels is empty"), ({"tau": 0.5}, "tau=0.5")],
)
def test_views_refuse_what_makes_no_sense(image, seen, setting, message):
    with pytest.raises(ValueError, match=message):
        explorer.views(image, seen, **({"labels": [0]} | setting))


def test_views_refuse_a_single_stream(model, image):
    model.head = SingleStreamAttention(8, 3)
    with pytest.raises(ValueError, match="needs an expansive map"):
        explorer.views(image, explorer.see(model, image, 32), [0])


def test_a_frame_holds_its_panels_from_left_to_right(image, seen):
    made = explorer.views(image, seen, [0])
    frame, width = made.frame(["picture", "annotation"]), image.shape[1]
    assert frame.shape == (image.shape[0], 2 * width + explorer.GAP, 3)
    np.testing.assert_array_equal(frame[:, :width], image)
    np.testing.assert_array_equal(frame[:, -width:], made.panels["annotation"])
    assert (frame[:, width:-width] == 255).all()
    np.testing.assert_array_equal(made.frame(["picture"]), image)


def test_describe_counts_what_is_there():
    mask = np.array([[0, 0, 0, 0, 0, 2, 2, 2, 255, 255]])
    assert explorer.describe(mask, [1, 0], ["cat", "dog"]) == "dog 30%, cat 0%, background 50%, void 20%"


# The explorer


@pytest.fixture
def live(model, tmp_path):
    """An explorer's parts; its widgets need no kernel until a front end draws them."""
    widgets = pytest.importorskip("ipywidgets")
    return explorer._Explorer(widgets, model, tiny.pictures(tmp_path, 3), 32)


def panels(live) -> dict[str, str]:
    soup = BeautifulSoup(live.shown.value, "html.parser")
    return {img["alt"]: img["src"] for img in soup.find_all("img")}


def test_explorer_starts_with_the_first_picture_and_its_labels(live):
    assert list(panels(live)) == ["picture", *maps.MAP_KINDS, "annotation"]
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
        explorer.explorer(model, Pictures([], tiny.NAMES))
    model.config = ModelConfig(("cat", "dog", "cow"))
    with pytest.raises(ValueError, match="knows cat, dog, cow; the pictures hold red, green, blue"):
        explorer.explorer(model, pictures)
    model.head = ConventionalAttention(8, 3)
    with pytest.raises(ValueError, match="decoupled head"):
        explorer.explorer(model, pictures)


def test_explorer_returns_one_widget(model, tmp_path):
    widgets = pytest.importorskip("ipywidgets")
    box = explorer.explorer(model, tiny.pictures(tmp_path, 1), 32)
    assert isinstance(box, widgets.VBox)


def test_explorer_names_the_package_that_is_missing(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        explorer.explorer(model, tiny.pictures(tmp_path, 1))
