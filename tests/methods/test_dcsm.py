"""DCSM: its difference by hand, its slopes against autograd written out, guided back-propagation, its candidates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from dsna_lib.attention import AttentionModel, SingleStreamAttention
from dsna_lib.backbones import Backbone
from dsna_lib.engine.errors import SettingError
from dsna_lib.methods import dcsm
from dsna_lib.methods.dcsm import DCSM, candidates, dcsm_maps, distinct, guided


def network(classes: int = 6, seed: int = 0) -> AttentionModel:
    """Four convolutions of which the upper two are looked at: inputs of 8 x 8 and 4 x 4 places for 16 pixels."""
    torch.manual_seed(seed)
    layers = [
        nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(6, 7, 3, padding=1), nn.ReLU(inplace=True)),
    ]
    backbone = Backbone("own", nn.Sequential(*layers), 7, 4)
    return AttentionModel(backbone, SingleStreamAttention(7, classes, dropout=0)).eval()


def test_what_another_class_shares_is_taken_away_by_hand() -> None:
    own, other = torch.tensor([[[4.0, 2.0, 1.0]]]), torch.tensor([[[0.0, 1.0, 3.0]]])
    want = torch.tensor([[[math.tanh(3), math.tanh(3 / 4), 0.0]]])
    torch.testing.assert_close(distinct(own, other), want)
    assert not distinct(other / 4, own).any()  # nowhere above it


def test_present_classes_come_first_then_the_likeliest() -> None:
    scores = torch.tensor([[0.0, 5, 4, 3, 2, 1], [0, 1, 2, 3, 4, 5]])
    present = torch.tensor([[True, False, False, False, False, True], [True, True, True, True, True, False]])
    classes, compared = candidates(scores, present)
    assert classes.tolist() == [[0, 5, 1, 2, 3], [0, 1, 2, 3, 4]]
    assert compared.tolist() == [[True, True, True, True, False], [True] * 5]


def written_out(model: AttentionModel, picture: torch.Tensor, classes: list[int]) -> list[list[torch.Tensor]]:
    """Guided slopes of each class at both inputs, with the rule for ReLU spelled out layer by layer."""
    first, second, third, fourth = ([*stage] for stage in model.backbone.stages)
    x = (picture - model.backbone.mean) / model.backbone.std
    low = second[0](first[0](x).relu()).relu()
    z3 = third[0](low)
    z4 = fourth[0](z3.relu())
    maps = []
    for c in classes:
        slope = model.head.discriminative.weight[c].expand_as(z4[0])[None] / z4[0, 0].numel()
        slope = slope.clamp_min(0) * (z4 > 0)
        at4 = functional.conv_transpose2d(slope, fourth[0].weight, padding=1)
        slope = at4.clamp_min(0) * (z3 > 0)
        at3 = functional.conv_transpose2d(slope, third[0].weight, stride=2, padding=1, output_padding=1)
        steepest = [at.abs().amax(dim=1, keepdim=True) for at in (at3, at4)]
        maps.append([functional.interpolate(m, (8, 8), mode="bilinear")[0, 0].detach() for m in steepest])
    return maps


def test_slopes_are_guided_and_of_either_sign() -> None:
    """A slope counts as it arrives, also where it is negative and goes no further down."""
    model, picture = network(), torch.rand(1, 3, 16, 16)
    want = written_out(model, picture, [*range(6)])
    with guided(model) as inputs:
        scores = model(picture).scores[0]
        for c in range(6):
            for mine, theirs in zip(dcsm._slopes(scores[c], inputs), want[c], strict=True):
                torch.testing.assert_close(mine[0], theirs, atol=1e-7, rtol=1e-4)


def test_against_the_equation_written_out() -> None:
    model, picture = network(), torch.rand(1, 3, 16, 16)
    scores = model(picture).scores[0]
    absent = [c for c in scores.argsort(descending=True).tolist() if c not in (1, 4)][:2]
    classes = [1, 4, *absent]
    slopes = written_out(model, picture, classes)
    present = torch.zeros(1, 6, dtype=torch.bool)
    present[0, [1, 4]] = True
    output, made = dcsm_maps(model, picture, present)
    for own in (0, 1):
        total = torch.zeros(8, 8)
        for other in {0, 1, 2, 3} - {own}:
            for mine, theirs in zip(slopes[own], slopes[other], strict=True):
                difference = mine - theirs
                if difference.max() > 0:
                    total += torch.tanh(3 * difference / difference.max()).clamp_min(0)
        torch.testing.assert_close(made["dcsm"][0, classes[own]], total / total.max(), atol=1e-5, rtol=1e-4)
    assert not made["dcsm"][0, [0, 2, 3, 5]].any()
    torch.testing.assert_close(output.scores[0], scores)
    assert output.features.shape == (1, 7, 8, 8)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    """Also where the others have more classes."""
    model, batch = network(), torch.rand(2, 3, 16, 16)
    present = torch.tensor([[True, False, False, False, False, False], [True] * 5 + [False]])
    with torch.no_grad():
        _, both = dcsm_maps(model, batch, present)
        _, alone = dcsm_maps(model, batch[:1], present[:1])
    torch.testing.assert_close(both["dcsm"][:1], alone["dcsm"])
    assert (both["dcsm"][1, :5].amax(dim=(1, 2)) > 0.99).all()


def test_the_model_is_left_as_it_was() -> None:
    model = network()
    with pytest.raises(SettingError, match="there is one"):
        dcsm_maps(network(1), torch.rand(1, 3, 16, 16), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"wanted \(1, 2\)"):
        dcsm_maps(model, torch.rand(1, 3, 16, 16), torch.ones(1, 2))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_of_vgg_nine_convolutions_are_looked_at() -> None:
    """Their inputs: of conv3 at a quarter of the picture's side, of conv4 at an eighth, of conv5 at a sixteenth."""
    layers: list[nn.Module] = []
    for count, width in ((2, 1), (2, 1), (3, 1), (3, 2), (3, 2)):
        for _ in range(count):
            layers += [nn.LazyConv2d(width, 3, padding=1), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2))
    model = AttentionModel(
        Backbone("vgg16", nn.Sequential(*layers[:30]), 2, 16), SingleStreamAttention(2, 3, dropout=0)
    )
    with guided(model) as inputs:
        model(torch.rand(1, 3, 32, 32))
    assert [z.shape[-1] for z in inputs] == [8, 8, 8, 4, 4, 4, 2, 2, 2]
    assert [z.shape[1] for z in inputs] == [1, 1, 1, 1, 2, 2, 2, 2, 2]


def test_its_row() -> None:
    assert (DCSM.title, DCSM.paper) == ("DCSM", 44.1)
