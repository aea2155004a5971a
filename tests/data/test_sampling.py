"""Balanced drawing: rare classes come as often as common ones, the same after a restart."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from dsna_lib.data.pictures import Pictures, Record
from dsna_lib.data.sampling import BalancedSampler, drawing_weights


def pictures(*labels: tuple[int, ...], classes: int = 3) -> Pictures:
    records = [Record(str(k), Path(f"{k}.png"), each) for k, each in enumerate(labels)]
    return Pictures(records, tuple("abc"[:classes]))


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_weights_follow_the_rarest_class_of_a_picture(balance):
    shown = [(0,)] * 8 + [(1,)] * 2 + [(0, 1), (2,)]
    frequency = np.array([9, 3, 1])
    expected = np.array([max(frequency[c] ** -balance for c in labels) for labels in shown])
    weights = drawing_weights(pictures(*shown).targets(), balance).numpy()
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-6)


def test_pictures_without_a_class_weigh_like_the_commonest():
    weights = drawing_weights(torch.tensor([[1, 0], [1, 0], [0, 1], [0, 0]]), 1.0)
    assert weights[3] == weights[0] < weights[2]


def test_a_class_that_nothing_shows_changes_nothing():
    shown = [(0,), (0,), (1,)]
    two, three = (drawing_weights(pictures(*shown, classes=c).targets(), 1.0) for c in (2, 3))
    assert torch.equal(two, three)


def test_each_class_is_drawn_as_often():
    data = pictures(*[(0,)] * 900, *[(1,)] * 90, *[(2,)] * 10)
    drawn = Counter(data.records[place].labels for place in BalancedSampler(data, 1.0, seed=0))
    assert sum(drawn.values()) == len(data) == 1000
    assert all(250 < count < 420 for count in drawn.values())


def test_what_is_drawn_follows_from_seed_and_epoch():
    data = pictures(*[(0,)] * 20, *[(1,)] * 5)
    orders = []
    for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0)):
        data.set_epoch(epoch)
        orders.append(list(BalancedSampler(data, 0.5, seed)))
    assert orders[0] == orders[1]
    assert all(one != other for one, other in pairwise(orders[1:]))
