"""Co-segmentation: objects that only many pictures show, descriptors by hand, and masks of drawn pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
from tiny_experiments import RECIPE

from dsna_lib.data.pictures import read_mask
from dsna_lib.methods import co_segmentation
from dsna_lib.methods.base import LABELS, prepare
from dsna_lib.methods.co_segmentation import CO_SEGMENTATION, cosegment, described, fitted, objects
from dsna_lib.methods.superpixels import describe
from dsna_lib.methods.turns import of_one_class


def test_what_pictures_have_in_common_is_the_object() -> None:
    """All have one part that looks alike, and grounds of their own; in some the object lies on the border."""
    rng = np.random.default_rng(0)
    looks, borders = [], []
    for k in range(40):
        grounds = np.eye(8)[rng.integers(2, 8, 3)] + rng.normal(0, 0.05, (3, 8))
        looks.append(np.concatenate([grounds, np.eye(8)[:1] + rng.normal(0, 0.05, (1, 8))]))
        borders.append(np.array([True, True, k % 3 > 0, k % 4 == 0]))
    chosen = cosegment(looks, [np.full(4, 0.25)] * 40, borders)
    assert [each.tolist() for each in chosen] == [[False, False, False, True]] * 40
    alone = cosegment(looks[:1], [np.full(4, 0.25)], borders[:1])[0]
    assert alone.tolist() != chosen[0].tolist()


def test_the_best_function_is_that_of_its_equation() -> None:
    """Weights that sum to 1 on either side, and a penalty that leaves the offset alone."""
    rng = np.random.default_rng(1)
    x, share, s = rng.normal(2, 1, size=(9, 3)), rng.random(9), np.arange(9) % 3 == 0
    a = share / np.where(s, share[s].sum(), share[~s].sum())
    center, middle = a @ x / a.sum(), a @ s / a.sum()
    w = np.linalg.solve((x - center).T * a @ (x - center) + 0.5 * np.eye(3), (x - center).T * a @ (s - middle))
    np.testing.assert_allclose(fitted(x, share, s, ridge=0.5), (x - center) @ w + middle)


def test_every_picture_keeps_an_object() -> None:
    """The second one's object looks like what is around the first one's."""
    looks = [np.array([[0.0], [0.1], [1.0]]), np.array([[0.0], [0.2], [0.1]])]
    borders = [np.array([True, True, False]), np.array([True, True, True])]
    chosen = cosegment(looks, [np.full(3, 1 / 3)] * 2, borders)
    assert [each.tolist() for each in chosen] == [[False, False, True], [False, True, False]]


def test_nothing_to_tell_apart() -> None:
    looks, shares = [np.ones((2, 1))], [np.full(2, 0.5)]
    assert cosegment(looks, shares, [np.zeros(2, bool)])[0].all()
    assert not cosegment(looks, shares, [np.ones(2, bool)])[0].any()


def test_descriptors_by_hand() -> None:
    """Features on a 1 x 2 grid: the first superpixel has three quarters of its pixels in the first cell."""
    parts = describe(np.zeros((2, 8, 3), np.uint8), np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 2, axis=0))
    assert described(parts, np.array([[[3.0, 0.0]], [[0.0, 2.0]]]))[:, :2].tolist() == [[1, 0], [0, 1]]
    parts = describe(np.zeros((1, 8, 3), np.uint8), np.array([[0, 0, 0, 1, 1, 0, 1, 1]]))
    found = described(parts, np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    np.testing.assert_allclose(found[:, :2], np.array([[3, 1], [1, 3]]) / 10**0.5)
    assert found.shape == (2, 2 + 75 + 20)


def test_squares_on_even_ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two classes of the web; what is finished is not made again."""
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    helped = tiny.helped_pictures(tmp_path / "data")
    stage = prepare(CO_SEGMENTATION, RECIPE, helped, helped, 0)
    web = of_one_class(replace(stage, pictures=stage.help["web"]), "web")
    folder = objects(web)
    for k, record in enumerate(web.pictures.records):
        top, want = 2 + k % 5, np.zeros((24, 24), np.uint8)
        want[top : top + 10, top + 3 : top + 13] = record.labels[0] + 1
        mask = read_mask(folder / f"{record.id}.png")
        assert ((mask == want).mean(), {*np.unique(mask)}) >= (0.9, {0}), record.id
        assert mask.max() == record.labels[0] + 1
    monkeypatch.setattr(co_segmentation, "cosegment", lambda *a: 1 / 0)
    assert objects(web) == folder


def test_its_row() -> None:
    assert (CO_SEGMENTATION.title, CO_SEGMENTATION.paper) == ("Co-segmentation", 56.4)
    assert CO_SEGMENTATION.needs == LABELS | {"web"}
