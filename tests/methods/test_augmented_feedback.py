"""AF-SS: what proposals add up to, by loops; the proposals are those of test_superpixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dsna_lib.methods.augmented_feedback import AF_SS, aggregate
from dsna_lib.methods.cam import CAM


def test_aggregation_is_its_equation() -> None:
    rng = np.random.default_rng(0)
    fine = np.repeat(np.arange(5), 4)[None].repeat(2, axis=0)
    held = np.concatenate([np.eye(5, dtype=bool), [[1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [1, 1, 1, 0, 0], [1] * 5]]) > 0
    scores = rng.normal(size=(3, *fine.shape))
    got = aggregate(torch.from_numpy(scores), fine, held)
    for c in range(3):
        own = [max(0, scores[c][row[fine]].mean()) for row in held]
        for u in np.ndindex(*fine.shape):
            want = np.mean([own[p] for p, row in enumerate(held) if row[fine[u]]])
            assert got[(c, *u)].item() == pytest.approx(want)


def test_the_whole_picture_is_asked_what_the_classifier_is_asked() -> None:
    """Of one segment, A is the picture's score everywhere, where that speaks for the class."""
    scores = torch.rand(2, 3, 4) * torch.tensor([1, -1]).view(2, 1, 1)
    got = aggregate(scores, np.zeros((3, 4), int), np.ones((1, 1), bool))
    torch.testing.assert_close(got, scores.mean(dim=(1, 2)).relu()[:, None, None].expand(2, 3, 4))


def test_its_row() -> None:
    assert (AF_SS.title, AF_SS.paper) == ("AF-SS", 52.6)
    assert AF_SS.trains == CAM.trains
