"""Heat maps, overlays and panels."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from dsna_lib.book import figures
from dsna_lib.data.pictures import VOID, palette

IMAGE = np.full((6, 8, 3), 100, np.uint8)


def test_heat_mixes_picture_and_map(monkeypatch):
    attention_map = np.zeros((3, 4))
    attention_map[:, 2:] = 1
    mixed = figures.heat(IMAGE, attention_map)
    assert mixed.shape == IMAGE.shape
    assert mixed.dtype == np.uint8
    np.testing.assert_allclose(mixed[0, 0], 40, atol=8)  # the colormap's low end is almost black
    assert mixed[0, -1].sum() > mixed[0, 0].sum() + 200
    monkeypatch.setattr(figures, "STRENGTH", 0)
    np.testing.assert_array_equal(figures.heat(IMAGE, attention_map), IMAGE)


def test_resize_is_bilinear_and_stays_in_range():
    np.testing.assert_allclose(figures.resize(np.array([[0.0, 1.0]]), (1, 4)), [[0, 0.25, 0.75, 1]])
    assert figures.resize(np.array([[-1.0, 2.0]]), (2, 2)).tolist() == [[0, 1]] * 2


def test_a_flipped_map_is_resized_like_its_copy():
    ramp = np.linspace(0, 1, 6).reshape(2, 3)
    assert (figures.resize(ramp[:, ::-1], (4, 6)) == figures.resize(ramp[:, ::-1].copy(), (4, 6))).all()


def test_classes_have_colors_of_their_own():
    np.testing.assert_array_equal(figures.colorize([[0, 1], [15, 255]]), figures.COLORS[[[0, 1], [15, 255]]])
    assert len(np.unique(figures.COLORS[:11], axis=0)) == 11
    np.testing.assert_array_equal(figures.COLORS[11:], palette()[11:])


def test_overlay_leaves_background_and_hatches_void():
    mixed = figures.overlay(IMAGE, np.array([[0, 1] + [VOID] * 6] * 6))
    np.testing.assert_array_equal(mixed[0, 0], IMAGE[0, 0])
    np.testing.assert_array_equal(mixed[0, 1], figures.COLORS[1])  # its border
    line, ground = 0.4 * 100, 0.4 * 100 + 0.6 * 255
    np.testing.assert_allclose(mixed[0, 2:, 0], [ground] * 6, atol=1)
    np.testing.assert_allclose(mixed[5, 2:, 0], [ground, line, line, ground, ground, ground], atol=1)


def test_overlay_draws_the_border_of_a_class_inside_it():
    mask = np.ones((6, 8), np.uint8)
    mask[:, 4:] = 0
    mixed = figures.overlay(IMAGE, mask)
    np.testing.assert_array_equal(mixed[0, 3], figures.COLORS[1])
    np.testing.assert_allclose(mixed[0, 0], 0.4 * 100 + 0.6 * figures.COLORS[1], atol=1)
    np.testing.assert_array_equal(mixed[0, 4], IMAGE[0, 4])


@pytest.mark.parametrize("rows", [1, 3])
def test_panel(rows):
    figure = figures.panel([[IMAGE, np.zeros((6, 8))]] * rows, ["picture", "map"], width=1.5)
    assert len(figure.axes) == 2 * rows
    assert [axis.get_title() for axis in figure.axes] == ["picture", "map"] + ["", ""] * (rows - 1)
    assert not any(axis.axison for axis in figure.axes)
    assert figure.axes[1].images[0].get_clim() == (0, 1)
    assert figure.get_figwidth() == 3
    figure.canvas.draw()
    plt.close(figure)


def test_a_panel_may_title_each_picture():
    figure = figures.panel([[IMAGE, IMAGE]] * 2, ["a", "b", "c", ""])
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", ""]
    assert figure.get_figwidth() == 4
    plt.close(figure)


def test_a_legend_names_what_is_shown_in_its_color():
    figure = figures.panel([[np.zeros((4, 6, 3), np.uint8)]], ["picture"])
    figures.legend(figure, np.array([[0, 2], [VOID, 2]], np.uint8), ("cat", "dog"))
    (made,) = figure.legends
    assert [text.get_text() for text in made.get_texts()] == ["dog", "void"]
    dog, void = made.get_patches()
    np.testing.assert_allclose(dog.get_facecolor()[:3], figures.COLORS[2] / 255)
    assert void.get_facecolor()[:3] == (1, 1, 1)
    assert void.get_hatch()


def test_a_legend_of_nothing_is_none():
    figure = figures.panel([[np.zeros((4, 6, 3), np.uint8)]], ["picture"])
    figures.legend(figure, np.zeros((2, 2), np.uint8), ("cat",))
    assert figure.legends == []


def test_a_notebook_keeps_jpeg_from_then_on(monkeypatch):
    backend = pytest.importorskip("matplotlib_inline.backend_inline", reason="it comes with Jupyter's kernel")
    asked = []
    monkeypatch.setattr(backend, "set_matplotlib_formats", lambda *formats, **how: asked.append((formats, how)))
    figures.as_jpeg(60)
    assert asked == [(("jpeg",), {"pil_kwargs": {"quality": 60, "optimize": True}})]


def test_formats_that_were_asked_for_are_kept(monkeypatch):
    backend = pytest.importorskip("matplotlib_inline.backend_inline", reason="it comes with Jupyter's kernel")
    from matplotlib_inline.config import InlineBackend
    from traitlets.config import Config

    asked = []
    monkeypatch.setattr(backend, "set_matplotlib_formats", lambda *formats, **how: asked.append(formats))
    figures.as_png()
    told = SimpleNamespace(config=Config(InlineBackend={"figure_formats": {"pdf"}}))
    monkeypatch.setattr(InlineBackend, "instance", lambda: told)
    figures.as_jpeg()
    figures.as_png()
    assert asked == [("png",)]
