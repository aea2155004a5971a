"""ScribbleSup: its graph cut against all labelings, and what strokes and points spread to in drawn cases."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from dsna_lib.data.marks import Point
from dsna_lib.data.pictures import VOID
from dsna_lib.methods.scribble_sup import alpha_expansion, from_points, from_scribbles, pair_weights
from dsna_lib.methods.superpixels import describe

CHAIN = np.array([[0, 1], [1, 2]])


def energy(labels: tuple[int, ...] | np.ndarray, unary: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> float:
    own = sum(unary[i, label] for i, label in enumerate(labels))
    return own + sum(w for (a, b), w in zip(pairs, weights, strict=True) if labels[a] != labels[b])


def random_graph(seed: int, labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pairs = np.array([pair for pair in product(range(6), repeat=2) if pair[0] < pair[1] and rng.random() < 0.6])
    return rng.random((6, labels)).round(2), pairs, rng.random(len(pairs)).round(2)


@pytest.mark.parametrize("seed", range(20))
def test_with_two_labels_it_is_the_minimum(seed):
    graph = random_graph(seed, 2)
    best = min(energy(labels, *graph) for labels in product(range(2), repeat=6))
    assert energy(alpha_expansion(*graph), *graph) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_with_more_labels_no_expansion_is_better(seed):
    """Whatever set of nodes takes over one label: the definition of what is found."""
    graph = random_graph(seed, 3)
    found = alpha_expansion(*graph)
    reached = energy(found, *graph)
    for alpha, taking in product(range(3), product((False, True), repeat=6)):
        assert reached <= energy(np.where(taking, alpha, found), *graph) + 1e-9
    assert reached <= 2 * min(energy(labels, *graph) for labels in product(range(3), repeat=6)) + 1e-9


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ((0.5, 0.2), [0, 0, 2]),  # the middle costs 0.6 + 0.2, or 0.5 + 0.5 + 0.2, or 0.7 + 0.5
        ((0.2, 0.5), [0, 2, 2]),  # 0.6 + 0.5, or 0.5 + 0.2 + 0.5, or 0.7 + 0.2
        ((0.05, 0.04), [0, 1, 2]),  # 0.6 + 0.04, or 0.5 + 0.05 + 0.04, or 0.7 + 0.05
    ],
)
def test_by_hand(weights, wanted):
    """The ends are told; the middle has an opinion, and neighbors."""
    unary = np.array([[0, 1e4, 1e4], [0.6, 0.5, 0.7], [1e4, 1e4, 0]])
    assert alpha_expansion(unary, CHAIN, np.array(weights)).tolist() == wanted


def test_without_pairs_each_node_takes_its_cheapest_label():
    unary = np.array([[2.0, 1.0], [0.0, 5.0]])
    assert alpha_expansion(unary, np.zeros((0, 2), int), np.zeros(0)).tolist() == [1, 0]


def test_pairs_weigh_by_color_and_texture():
    """exp(-d / mean d) of each: the first two of three strips look the same, so that the others are twice the mean."""
    image = np.zeros((4, 12, 3), np.uint8)
    image[:, 10:] = 200
    parts = describe(image, np.arange(3).repeat(4)[None].repeat(4, axis=0))
    np.testing.assert_allclose(pair_weights(parts), [1, np.exp(-2 - 2)])
    alike = parts._replace(textures=parts.textures[[0, 0, 0]])
    np.testing.assert_allclose(pair_weights(alike), [1, np.exp(-2)])


def strips() -> np.ndarray:
    """Four strips of ten columns each; two and two are nearly of a color, in one bin of the histograms."""
    gray = np.repeat([21, 29, 205, 213], 10)[None].repeat(30, axis=0)
    return np.stack([gray] * 3, axis=2).astype(np.uint8)


def undecided(classes: int = 3) -> np.ndarray:
    """The classes 0 and 2 are in the picture, and nobody knows where."""
    costs = np.full((classes, 30, 40), np.inf)
    costs[[0, 2]] = np.log(2)
    return costs


@pytest.fixture(autouse=True)
def four_superpixels(monkeypatch):
    strip = np.arange(4).repeat(10)[None].repeat(30, axis=0)
    monkeypatch.setattr("dsna_lib.methods.scribble_sup.superpixels", lambda image, _: describe(image, strip))


def test_strokes_spread_to_what_looks_alike():
    scribbles = np.full((30, 40), VOID, np.uint8)
    scribbles[3:6, 2:5], scribbles[10, 34] = 2, 0
    wanted = np.repeat([2, 2, 0, 0], 10)[None].repeat(30, axis=0)
    np.testing.assert_array_equal(from_scribbles(strips(), scribbles, undecided()), wanted)


def test_a_stroke_wins_over_any_opinion():
    costs = undecided()
    costs[0], costs[2] = -np.log(1e-5), 0
    scribbles = np.zeros((30, 40), np.uint8)
    assert not from_scribbles(strips(), scribbles, costs).any()
    scribbles[:] = VOID
    scribbles[0, 0] = 0
    assert from_scribbles(strips(), scribbles, costs)[0, ::10].tolist() == [0, 2, 2, 2]


def test_of_two_strokes_on_a_superpixel_the_longer_one_counts():
    scribbles = np.full((30, 40), VOID, np.uint8)
    scribbles[0, :3], scribbles[1, :4], scribbles[0, 39] = 2, 0, 2
    assert from_scribbles(strips(), scribbles, undecided())[0, ::10].tolist() == [0, 0, 2, 2]


def test_the_network_decides_far_from_strokes():
    """By the mean over a superpixel: 6 of 10 columns of the last strip speak for the background."""
    costs, scribbles = undecided(), np.full((30, 40), VOID, np.uint8)
    costs[0, :, 30:36], costs[2, :, 30:36] = 0.1, 2.5
    costs[0, :, 36:], costs[2, :, 36:] = 2.5, 0.1
    scribbles[0, 0] = 2
    assert from_scribbles(strips(), scribbles, costs)[0, ::10].tolist() == [2, 2, 0, 0]


def test_a_class_that_is_drawn_and_not_in_the_label_takes_part():
    scribbles = np.full((30, 40), VOID, np.uint8)
    scribbles[0, 0], scribbles[0, 39] = 1, 0
    assert from_scribbles(strips(), scribbles, undecided())[0, ::10].tolist() == [1, 1, 0, 0]


def test_points_are_short_strokes():
    """Two objects; the background, at which nobody points, is the network's."""
    costs = undecided()
    costs[1] = np.log(2)
    costs[0, :, 20:30] = 0.1
    found = from_points(strips(), [Point(5, 7, 1), Point(39, 29, 0)], costs)
    assert found[0, ::10].tolist() == [2, 2, 0, 1]
    assert found.dtype == np.uint8
