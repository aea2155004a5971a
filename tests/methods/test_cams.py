"""CAM and Grad-CAM against torchcam and NumPy; Excitation Backprop against NumPy, by hand and by what it conserves."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import numpy_reference as reference
import pytest
import tiny
import torch
from torch import Tensor, nn
from torchcam.methods import CAM, GradCAM

from dsna_lib import backbones, maps
from dsna_lib.attention import AttentionModel, ConventionalAttention, DecoupledAttention, SingleStreamAttention
from dsna_lib.backbones import Backbone
from dsna_lib.engine.errors import SettingError
from dsna_lib.methods import cams, explain

CLOSE = {"atol": 1e-6, "rtol": 1e-4}


def classifier(backbone: nn.Module | None = None, seed: int = 0, classes: int = 3) -> AttentionModel:
    torch.manual_seed(seed)
    backbone = backbone or tiny.backbone()
    return AttentionModel(backbone, SingleStreamAttention(backbone.out_channels, classes, dropout=0)).eval()


def plain(*layers: nn.Module, channels: int) -> Backbone:
    """A backbone that takes pictures as they are, so that its first layer sees no negative values either."""
    return Backbone("plain", nn.Sequential(*layers), channels, 1, (0.0,) * 3, (1.0,) * 3)


def deep(bias: bool = True) -> AttentionModel:
    """Every kind of layer that Excitation Backprop passes, some of them nested; 16 pixels to 2."""
    torch.manual_seed(0)
    layers = [
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=bias),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(2),
    ]
    return classifier(plain(*layers, channels=6))


@pytest.fixture(scope="module")
def vgg() -> AttentionModel:
    return classifier(backbones.create("vgg16", weights=None))


@pytest.fixture(params=["tiny", "vgg16"])
def network(request) -> AttentionModel:
    return classifier() if request.param == "tiny" else request.getfixturevalue("vgg")


def pictures(count: int = 2, size: int = 64) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def head_weights(model: AttentionModel) -> np.ndarray:
    return model.head.discriminative.weight.detach().double().flatten(1).numpy()


def test_cam_is_that_of_torchcam(network):
    with CAM(network, network.backbone, network.head.discriminative) as extract:
        features = network(pictures()).features
        for c in range(3):
            torch.testing.assert_close(cams.cam(network, features)[:, c], extract(c, normalized=False)[0], **CLOSE)


def test_grad_cam_is_that_of_torchcam(network):
    for c in range(3):
        with GradCAM(network, network.backbone) as extract:
            output = network(pictures())
            (want,) = extract(c, output.scores, normalized=False)
        torch.testing.assert_close(cams.grad_cam(network, output.features)[:, c], want, **CLOSE)


def test_grad_cam_of_the_decoupled_head_is_that_of_torchcam():
    model = tiny.model()
    with GradCAM(model, model.backbone) as extract:
        output = model(pictures())
        (want,) = extract(1, output.scores, normalized=False)
    assert want.max() > 0
    torch.testing.assert_close(cams.grad_cam(model, output.features)[:, 1], want, **CLOSE)


def test_cam_is_its_equation_and_adds_up_to_the_score():
    model = classifier()
    output = model(pictures())
    got = cams.cam(model, output.features)
    want = reference.class_activation_maps(output.features[0].detach().double().numpy()[:, :3, :4], head_weights(model))
    np.testing.assert_allclose(got[0, :, :3, :4], want, atol=1e-6)
    torch.testing.assert_close(got.mean(dim=(-2, -1)) + model.head.discriminative.bias, output.scores, **CLOSE)
    assert not got.requires_grad


def test_grad_cam_of_a_pooled_linear_classifier_is_the_positive_part_of_cam():
    model = classifier()
    features = model(pictures()).features
    want = cams.cam(model, features).relu() / features[0, 0].numel()
    torch.testing.assert_close(cams.grad_cam(model, features), want, **CLOSE)


@pytest.mark.parametrize("head", [DecoupledAttention, ConventionalAttention])
def test_grad_cam_of_attention_is_its_equation(head):
    torch.manual_seed(3)
    model = AttentionModel(tiny.backbone(), head(4, 2)).eval()
    x = torch.rand(1, 4, 3, 3) * 2
    weights = [p.detach().double().flatten(1).numpy() if p.dim() > 1 else p.detach().double().numpy()
               for p in model.head.parameters()]  # fmt: skip
    forward = reference.decoupled if head is DecoupledAttention else reference.conventional
    for c in range(2):
        want = reference.grad_cam(x[0].double().numpy(), lambda x, c=c: forward(x, *weights)[0][c])
        np.testing.assert_allclose(cams.grad_cam(model, x)[0, c], want, atol=1e-5)


def test_grad_cam_makes_only_what_is_wanted_one_backward_pass_a_class(monkeypatch):
    model, calls, grad = tiny.model(), [], torch.autograd.grad
    features = model(pictures()).features
    every = cams.grad_cam(model, features)
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: calls.append(1) or grad(*a, **k))
    wanted = torch.tensor([[True, False, True], [True, False, False]])
    got = cams.grad_cam(model, features, wanted)
    assert len(calls) == 2
    torch.testing.assert_close(got, every * wanted[..., None, None])
    assert (every[1, 2] > 0).any()
    assert not got[1, 2].any()


def excitation_in_numpy(model: AttentionModel, picture: Tensor, weight: np.ndarray) -> list[np.ndarray]:
    """P at the input of each layer of `deep`, from X down."""
    conv1, _, pool, conv2, relu, average = (layer for layer in explain._flat(model.backbone.stages))
    a0 = picture
    a1 = conv1(a0).relu()
    a2 = pool(a1)
    a3 = relu(conv2(a2).clone())
    a0, a1, a2, a3, x = (a[0].detach().double().numpy() for a in (a0, a1, a2, a3, average(a3)))
    steps = [reference.excitation_at_features(x, weight)]
    # Average pooling is a convolution of each channel by itself.
    each = np.eye(len(x))[:, :, None, None] * np.ones((2, 2))
    steps.append(reference.excitation_convolution(steps[-1], a3, each, 2, 0))
    steps.append(reference.excitation_convolution(steps[-1], a2, conv2.weight.detach().double().numpy(), 2, 1))
    steps.append(reference.excitation_max_pool(steps[-1], a1, 2))
    steps.append(reference.excitation_convolution(steps[-1], a0, conv1.weight.detach().double().numpy(), 1, 1))
    return steps


STAGES_OF_DEEP = (5, 4, 2, 1, 0)  # X, the inputs of average pooling, second convolution, max pooling, first convolution


def test_excitation_backprop_is_its_rule_at_every_layer():
    model, picture = deep(), pictures(1, 16)
    for c, weight in enumerate(head_weights(model)):
        want, dual = (excitation_in_numpy(model, picture, sign * weight) for sign in (1, -1))
        for stage, p, q in zip(STAGES_OF_DEEP, want, dual, strict=True):
            got = cams.excitation_backprop(model, picture, stage=stage)[0, c]
            np.testing.assert_allclose(got, p.sum(axis=0), atol=1e-6)
            contrast = cams.excitation_backprop(model, picture, contrastive=True, stage=stage)[0, c]
            np.testing.assert_allclose(contrast, np.maximum(p.sum(axis=0) - q.sum(axis=0), 0), atol=1e-6)


@pytest.mark.parametrize("stage", range(6))
def test_excitation_backprop_conserves_probability(stage):
    model = deep(bias=False)
    assert head_weights(model).max(axis=1).min() > 0
    maps = cams.excitation_backprop(model, pictures(2, 16), stage=stage)
    assert maps.min() >= 0
    torch.testing.assert_close(maps.sum(dim=(-2, -1)), torch.ones(2, 3))


def by_hand() -> tuple[AttentionModel, Tensor]:
    """Two units u, v with kernels of 1x2 on two channels a, b (the third is empty), and two classes on top.

    a = 3 2 1    u = 1 a(left) - a(right) + 2 b(right), v = a(right) - b(left) + b(right)
    b = 2 0 1    u = 1 3, v = 0 2
    """
    convolution = nn.Conv2d(3, 2, (1, 2), bias=False)
    convolution.weight.data = torch.tensor([[[1.0, -1], [0, 2], [0, 0]], [[0, 1], [-1, 1], [0, 0]]])[:, :, None]
    model = classifier(plain(convolution, nn.ReLU(), channels=2), classes=2)
    model.head.discriminative.weight.data = torch.tensor([[1.0, -1], [-1, -2]])[:, :, None, None]
    return model, torch.tensor([[[3.0, 2, 1]], [[2, 0, 1]], [[0, 0, 0]]])[None]


def test_excitation_backprop_by_hand():
    model, picture = by_hand()
    assert model(picture).features.tolist() == [[[[1, 3]], [[0, 2]]]]
    # Class 0 is excited by u alone: 1/4 and 3/4 of its P.
    assert cams.excitation_backprop(model, picture)[0, 0].tolist() == [[1 / 4, 3 / 4]]
    # The left u: a(0) = 3, 2 b(1) = 0, so all to place 0. The right u: a(1) = 2, 2 b(2) = 2, half to 1, half to 2.
    assert cams.excitation_backprop(model, picture, stage=0)[0, 0].tolist() == [[1 / 4, 3 / 8, 3 / 8]]


def test_contrastive_excitation_backprop_by_hand():
    model, picture = by_hand()
    # The dual of class 0 is excited by v alone, all of it on the right: a(2) = 1, b(2) = 1, both at place 2.
    at_x = cams.excitation_backprop(model, picture, contrastive=True)
    assert at_x[0, 0].tolist() == [[1 / 4, 0]]  # 3/4 - 1 is cut off
    below = cams.excitation_backprop(model, picture, contrastive=True, stage=0)
    assert below[0, 0].tolist() == [[1 / 4, 3 / 8, 0]]  # 3/8 - 1 is cut off


@pytest.mark.parametrize("contrastive", [False, True])
def test_a_class_that_nothing_excites_gives_zeros(contrastive):
    model, picture = by_hand()
    for stage in (0, 2):
        assert not cams.excitation_backprop(model, picture, contrastive=contrastive, stage=stage)[0, 1].any()


def test_a_unit_excited_by_its_bias_alone_passes_nothing_on():
    model, picture = by_hand()
    with torch.no_grad():
        model.backbone.stages[0] = nn.Conv2d(3, 2, (1, 2))
        model.backbone.stages[0].weight.fill_(-1)
        model.backbone.stages[0].bias.fill_(20)
    assert cams.excitation_backprop(model, picture)[0, 0].sum() == 1
    assert not cams.excitation_backprop(model, picture, stage=0).any()


def test_max_pooling_passes_all_to_the_winner():
    model = classifier(plain(nn.MaxPool2d(2), channels=3), classes=1)
    model.head.discriminative.weight.data = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    picture = torch.zeros(1, 3, 2, 4)
    picture[0, 0] = torch.tensor([[1.0, 2, 5, 6], [3, 0, 4, 1]])
    want = [[0, 0, 0, 6 / 9], [3 / 9, 0, 0, 0]]
    torch.testing.assert_close(cams.excitation_backprop(model, picture, stage=0)[0, 0], torch.tensor(want))


def test_vgg16_is_walked_down_to_pool4(vgg):
    stages, start = vgg.backbone.stages, explain.DEFAULT_STAGES["vgg16"]
    assert isinstance(stages[start - 1], nn.MaxPool2d)
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in stages[:start]) == 4
    assert isinstance(stages[start], nn.Conv2d)
    seen = []
    hook = stages[start].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    got = cams.excitation_backprop(vgg, pictures())
    hook.remove()
    assert got.shape[-2:] == seen[0].shape[-2:] == (4, 4)
    assert 0 < got.sum(dim=(-2, -1)).min() <= got.sum(dim=(-2, -1)).max() <= 1 + 1e-5
    # Where pool4 is silent nobody can win.
    silent = torch.nn.functional.conv2d(seen[0], torch.ones(1, 512, 1, 1))[:, 0] == 0
    assert not got.permute(0, 2, 3, 1)[silent].any()
    torch.testing.assert_close(got, cams.excitation_backprop(vgg, pictures(), stage=start))
    assert not torch.allclose(got, cams.excitation_backprop(vgg, pictures(), stage=len(stages)))


def test_other_backbones_are_walked_down_to_their_features():
    model = classifier()
    x = model(pictures()).features
    excitation = x[:, None] * model.head.discriminative.weight.flatten(1).clamp_min(0)[None, :, :, None, None]
    want = excitation.sum(dim=2) / excitation.sum(dim=(2, 3, 4))[..., None, None]
    torch.testing.assert_close(cams.excitation_backprop(model, pictures()), want.detach(), **CLOSE)


def test_efficientnet_lite0_takes_every_method():
    model = classifier(backbones.create("efficientnet_lite0", weights=None))
    _, made = cams.cam_maps(model, pictures(1), torch.tensor([[False, True, False]]))
    assert list(made) == list(cams.CAM_METHODS)
    assert all(m.shape == (1, 3, 4, 4) for m in made.values())
    with pytest.raises(ValueError, match="no rule for a layer of type BatchNormAct2d; choose a later stage"):
        cams.excitation_backprop(model, pictures(1), stage=len(model.backbone.stages) - 1)


def test_a_layer_without_a_rule_is_named():
    model = classifier(plain(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3), nn.ReLU(), channels=4))
    assert cams.excitation_backprop(model, pictures(1, 8), stage=2).shape == (1, 3, 6, 6)
    with pytest.raises(ValueError, match="no rule for a layer of type Sigmoid; choose a later stage"):
        cams.excitation_backprop(model, pictures(1, 8), stage=1)


def test_negative_activations_are_refused():
    with pytest.raises(ValueError, match=r"the input of a Conv2d has -\d.*; choose a later stage"):
        cams.excitation_backprop(classifier(), pictures(), stage=0)  # pictures minus their mean
    linear = classifier(plain(nn.Conv2d(3, 4, 3), channels=4))
    with pytest.raises(ValueError, match=r"the backbone's output has -\d.*; choose a backbone that ends in a ReLU"):
        cams.excitation_backprop(linear, pictures())


@pytest.mark.parametrize("stage", [-1, 3])
def test_a_stage_that_is_not_there_is_refused(stage):
    with pytest.raises(ValueError, match=rf"tiny has no stage {stage}; choose 0\.\.2"):
        cams.excitation_backprop(classifier(), pictures(), stage=stage)


@pytest.mark.parametrize("method", ["cam", "excitation_backprop", "contrastive_excitation_backprop"])
def test_a_head_that_is_no_linear_classifier_is_refused(method):
    with pytest.raises(ValueError, match=r"use the head SingleStreamAttention\(dropout=0\), not DecoupledAttention"):
        cams.cam_maps(tiny.model(), pictures(), torch.ones(2, 3), [method])


def test_wanted_of_another_shape_is_refused():
    model, wanted = classifier(), torch.ones(2, 4)
    for call in (cams.cam_maps, cams.excitation_backprop):
        with pytest.raises(ValueError, match=r"wanted \(2, 4\) must have the shape \(N, C\) = \(2, 3\)"):
            call(model, pictures(), wanted)
    with pytest.raises(ValueError, match=r"wanted \(2, 4\)"):
        cams.grad_cam(model, model(pictures()).features, wanted)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="unknown method 'gradcam'; choose from cam, grad_cam, excitation"):
        cams.cam_maps(classifier(), pictures(), torch.ones(2, 3), ["cam", "gradcam"])


WANTED = torch.tensor([[True, False, True], [False, True, False]])


@pytest.mark.parametrize("around", [nullcontext, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("half", [False, True])
def test_cam_maps_are_the_single_functions_from_one_forward_pass(around, half, network):
    count, before = [], [p.grad for p in network.parameters()]
    hook = network.backbone.register_forward_hook(lambda *_: count.append(1))
    with around(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        output, made = cams.cam_maps(network, pictures(), WANTED)
        hook.remove()
        single = {
            "cam": cams.cam(network, output.features),
            "grad_cam": cams.grad_cam(network, output.features, WANTED),
            "excitation_backprop": cams.excitation_backprop(network, pictures(), WANTED),
            "contrastive_excitation_backprop": cams.excitation_backprop(network, pictures(), WANTED, contrastive=True),
        }
    assert len(count) == 1
    assert not output.scores.requires_grad
    assert list(made) == list(cams.CAM_METHODS) == list(single)
    for name, m in made.items():
        assert m.dtype == torch.float32
        assert not m.requires_grad
        assert not single[name].requires_grad
        assert not m[~WANTED].any()
        torch.testing.assert_close(m, maps.positive_part(single[name] * WANTED[..., None, None]))
        assert m.amax(dim=(-2, -1))[WANTED].tolist() == pytest.approx([1] * 3)
    assert all(p.grad is g for p, g in zip(network.parameters(), before, strict=True))
    assert all(p.requires_grad for p in network.parameters())


def test_cam_maps_in_half_precision_is_close():
    model = classifier()
    _, full = cams.cam_maps(model, pictures(), WANTED)
    with torch.autocast("cpu", torch.bfloat16):
        _, half = cams.cam_maps(model, pictures(), WANTED)
    for name in cams.CAM_METHODS:
        torch.testing.assert_close(half[name], full[name], atol=0.05, rtol=0)


@pytest.mark.parametrize("name", cams.CAM_METHODS)
def test_methods_compute_in_full_precision_whatever_the_forward_pass_did(name):
    model = deep()
    with torch.autocast("cpu", torch.bfloat16):
        _, features, passed = explain.forward_keeping_inputs(model, pictures(2, 16), stage=0)
        got = cams.CAM_METHODS[name](model, features, passed, WANTED)
    assert features.dtype == torch.bfloat16
    torch.testing.assert_close(got, cams.CAM_METHODS[name](model, features, passed, WANTED), atol=0, rtol=0)


def test_cam_maps_keep_the_methods_asked_for_and_take_pictures_without_classes():
    _, made = cams.cam_maps(
        classifier(), pictures(), torch.zeros(2, 3), iter(["grad_cam", "excitation_backprop", "cam"])
    )
    assert list(made) == ["grad_cam", "excitation_backprop", "cam"]
    assert not any(m.any() for m in made.values())


def test_the_model_is_left_without_hooks(vgg):
    cams.cam_maps(vgg, pictures(), WANTED)
    assert not any(m._forward_pre_hooks for m in vgg.modules())
    with pytest.raises(SettingError):
        cams.cam_maps(vgg, torch.rand(1, 5, 64, 64), WANTED[:1])
    assert not any(m._forward_pre_hooks for m in vgg.modules())
