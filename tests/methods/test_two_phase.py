"""Two-phase: what is suppressed by hand, that the second network sees the rest alone, and that the first one rests."""

from __future__ import annotations

import pytest
import tiny
import torch

from dsna_lib.attention import AttentionModel, SingleStreamAttention
from dsna_lib.maps import positive_part
from dsna_lib.methods.cam import CAM, cam
from dsna_lib.methods.two_phase import TWO_PHASE, SecondPhase, suppressed, united_maps


def classifier(seed: int) -> AttentionModel:
    torch.manual_seed(seed)
    return AttentionModel(tiny.backbone(), SingleStreamAttention(8, 3, dropout=0)).eval()


@pytest.fixture
def second() -> SecondPhase:
    return SecondPhase(classifier(1), classifier(2)).eval()


def test_what_is_suppressed_by_hand() -> None:
    """Class 0 was found and is above 0.6 of its maximum at two places, class 1 was not. Where none was, the best is."""
    maps = torch.tensor([[[10.0, 7, 6, -9]], [[0.0, 0, 0, 5]]]).expand(2, -1, -1, -1)
    scores = torch.tensor([[1.0, -1.0], [-2.0, -1.0]])
    assert suppressed(maps, scores).tolist() == [[[True, True, False, False]], [[False, False, False, True]]]
    assert suppressed(maps, torch.ones(2, 2)).tolist() == [[[True, True, False, True]]] * 2
    assert not suppressed(-maps.abs(), scores).any()


def test_the_second_phase_sees_what_the_first_leaves(second: SecondPhase) -> None:
    pictures = torch.rand(2, 3, 32, 32)
    before = second.first(pictures)
    gone = suppressed(cam(second.first, before.features), before.scores)
    assert 0 < gone.float().mean() < 1
    output = second(pictures)
    features = second.backbone(pictures)
    torch.testing.assert_close(output.features, torch.where(gone[:, None], 0, features))
    scores = second.head.discriminative(output.features).mean(dim=(2, 3))
    torch.testing.assert_close(output.scores, scores)


def test_both_maps_are_united(second: SecondPhase) -> None:
    pictures = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        output, made = united_maps(second, pictures, torch.ones(2, 3))
        first = positive_part(cam(second.first, second.first(pictures).features))
        left = positive_part(cam(second, second(pictures).features))
        torch.testing.assert_close(output.features, second.first(pictures).features)
    want = torch.where(first > left, first, left)
    torch.testing.assert_close(made["two_phase"], want)
    assert (want > first).any()


def test_the_first_phase_rests(second: SecondPhase) -> None:
    second.train()
    assert second.head.training
    assert not second.first.training
    assert not any(p.requires_grad for p in second.first.parameters())
    assert all(p.requires_grad for name, p in second.named_parameters() if not name.startswith("first."))
    second(torch.rand(2, 3, 32, 32)).scores.sum().backward()
    assert all(p.grad is None for p in second.first.parameters())
    assert all(p.grad is not None for p in second.head.parameters())


def test_its_row() -> None:
    assert (TWO_PHASE.title, TWO_PHASE.paper) == ("Two-phase", 53.1)
    assert TWO_PHASE.trains > CAM.trains
