"""DCSP: the harmonic mean of attention and saliency, and its loss, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dsna_lib.data.pictures import VOID
from dsna_lib.methods.dcsp import DCSP_METHOD, DCSPLoss, class_specific, harmonic_mean


def test_harmonic_mean():
    attention = np.array([[[1.0, 0.5, 0.2, 0.0, 0.0, 1.0]]])
    salient = np.array([[1.0, 0.25, 0.8, 0.0, 1.0, 0.0]])
    np.testing.assert_allclose(harmonic_mean(attention, salient)[0, 0], [1, 2 / (2 + 4), 2 / (5 + 1.25), 0, 0, 0])


def test_either_of_them_may_veto_and_the_class_attended_to_most_wins():
    """Harmonic means of labels 3 and 5 with saliency: 1 and 0; 0.18 both; 0.32 and 0.47; 0.02 and 0; 0 and 0."""
    attention = np.array([[[1.0, 0.1, 0.2, 1.0, 0.0]], [[0.0, 0.1, 0.333, 0.0, 0.0]]])
    salient = np.array([[1.0, 1.0, 0.8, 0.01, 1.0]])
    assert class_specific(attention, salient, [3, 5], 0.2).tolist() == [[4, 0, 6, 0, 0]]
    assert class_specific(attention, salient, [3, 5], 0.1).tolist() == [[4, 4, 6, 0, 0]]


def test_the_loss_asks_for_each_class_at_its_best_place():
    """Two places, three classes; the first place is labeled background, class 2 is present and is nowhere."""
    chances = torch.tensor([[[0.6, 0.3], [0.1, 0.2], [0.3, 0.5]]]).view(1, 3, 1, 2)
    batch = {"mask": torch.tensor([[[0, VOID]]], dtype=torch.uint8), "labels": torch.tensor([[0.0, 1.0]])}
    wanted = -np.log(0.6) - (np.log(0.6) + np.log(0.5)) / 2
    assert DCSPLoss()(chances.log(), batch).item() == pytest.approx(wanted, rel=1e-6)
    assert isinstance(DCSP_METHOD.loss(None), DCSPLoss)
