"""Segmentation networks: layers as published, what is frozen, and model files."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from samples import TINY, batch_of
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import attention, backbones
from dsna_lib.attention import ModelConfig
from dsna_lib.backbones import IMAGENET_MEAN, IMAGENET_STD, CheckpointError
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.engine.errors import SettingError
from dsna_lib.segmentation import networks
from dsna_lib.segmentation.inference import probabilities
from dsna_lib.segmentation.networks import SegmentationModel, create


@pytest.fixture(scope="module")
def vgg():
    """DeepLab-LargeFOV with random weights, biases included, so that each of them shows in the output."""
    torch.manual_seed(0)
    model = create(SegmentationConfig(tiny.NAMES, "vgg16", weights=None))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def lite0():
    return create(SegmentationConfig(tiny.NAMES, train_last=2))


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "resnet101", "efficientnet_lite0"])
def test_a_crop_of_8k_plus_1_pixels_has_k_plus_1_cells(name):
    with torch.device("meta"):  # shapes without numbers
        model = create(SegmentationConfig(tiny.NAMES, name, weights=None))
        assert model(torch.empty(2, 3, 321, 321)).shape == (2, 4, 41, 41)
        for k in (1, 2, 7, 20):
            assert model(torch.empty(1, 3, 8 * k + 1, 57)).shape == (1, 4, k + 1, 8)


@pytest.mark.parametrize(
    "name, wide", [("vgg16", (512, 1024)), ("resnet101", (2048, 512)), ("efficientnet_lite0", (320, 128))]
)
def test_heads_have_one_convolution_dilated_by_12(name, wide):
    with torch.device("meta"):
        head = create(SegmentationConfig(tiny.NAMES, name, weights=None)).head
        narrow = create(SegmentationConfig(tiny.NAMES, name, channels=16, dilation=6, dropout=0.2, weights=None)).head
    first, *others = [layer for layer in head if isinstance(layer, nn.Conv2d)]
    assert (first.in_channels, first.out_channels) == wide
    assert (first.kernel_size, first.dilation) == ((3, 3), (12, 12))
    assert {layer.kernel_size for layer in others} == {(1, 1)}
    assert others[-1].out_channels == 4
    assert (narrow[0].out_channels, narrow[0].dilation) == (16, (6, 6))
    assert {layer.p for layer in narrow if isinstance(layer, nn.Dropout)} == {0.2}


def test_the_head_of_large_fov_is_the_papers(vgg):
    """fc6 and fc7 with 1024 channels, dropout 0.5 after each."""
    shapes = [tuple(layer.weight.shape) for layer in vgg.head if isinstance(layer, nn.Conv2d)]
    assert shapes == [(1024, 512, 3, 3), (1024, 1024, 1, 1), (4, 1024, 1, 1)]
    assert [layer.p for layer in vgg.head if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    assert not any(layer.training for layer in vgg.modules())


def test_new_layers_of_large_fov_start_small(vgg):
    """Features of VGG-16 are some units large; its untrained network has to be undecided all the same."""
    weights = [layer.weight for layer in vgg.head if isinstance(layer, nn.Conv2d)]
    assert [weight.std().item() for weight in weights] == [pytest.approx(0.01, rel=0.05)] * 3


def test_a_pretrained_head_is_vgg16s_thinned_out(vgg_file):
    """What fc6 of VGG-16 makes of 7 x 7 cells 32 pixels apart, looking at nine of them, ours makes of cells 8 apart."""
    whole = torch.load(vgg_file, weights_only=True)
    head = create(SegmentationConfig(tiny.NAMES, "vgg16", weights=str(vgg_file), pretrained_head=True)).head
    fc6, fc7 = head[0], head[3]
    fine = torch.rand(1, 512, 25, 25)
    channel = 4 * 5
    weight = whole["classifier.0.weight"][channel].reshape(512, 7, 7).numpy()
    coarse = fine[0, :, ::4, ::4].numpy()
    places = [(row, column) for row in (0, 3, 6) for column in (0, 3, 6)]
    wanted = sum(float(weight[:, r, c] @ coarse[:, r, c]) for r, c in places) + whole["classifier.0.bias"][channel]
    assert fc6(fine)[0, 5, 12, 12].item() == pytest.approx(wanted.item(), rel=1e-4)
    assert fc7.weight[7, 9].item() == whole["classifier.3.weight"][28, 36]
    assert fc7.bias[7] == whole["classifier.3.bias"][28]


def test_a_stored_model_needs_no_pretrained_head(tmp_path, monkeypatch, vgg_file):
    """Frozen stages are fetched from ImageNet's weights, where the file with the head may be gone by then."""
    whole = torch.load(vgg_file, weights_only=True)
    convolutions = tmp_path / backbones.WEIGHT_FILES["vgg16"]
    torch.save(whole, convolutions)
    monkeypatch.setenv(backbones.WEIGHTS_FOLDER, str(tmp_path))
    model = create(SegmentationConfig(tiny.NAMES, "vgg16", channels=8, train_last=1, pretrained_head=True))
    networks.save(model, tmp_path / "model.pth")
    torch.save({name: tensor for name, tensor in whole.items() if name.startswith("features")}, convolutions)
    assert tiny.same(model.state_dict(), networks.load(tmp_path / "model.pth").state_dict())


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"backbone": "resnet50"}, "only VGG-16's weights hold a head to start from, not backbone='resnet50'"),
        ({"weights": None}, "not backbone='vgg16' with weights=None"),
        ({"channels": 5000}, "VGG-16 has 4096 channels to choose from, not 5000"),
        ({"decoder": True}, "and decoder=True"),
    ],
)
def test_heads_that_cannot_be_pretrained(vgg_file, changed, said):
    config = SegmentationConfig(tiny.NAMES, "vgg16", weights=str(vgg_file), pretrained_head=True)
    with pytest.raises(SettingError, match=said):
        create(replace(config, **changed))


def field_of_view(layers: Iterable[nn.Module]) -> tuple[int, int]:
    """Pixels that a cell sees along a side, and pixels between cells: each layer widens the one by what it adds."""

    def along(value: int | tuple[int, int]) -> int:
        return value if isinstance(value, int) else value[0]

    field, stride = 1, 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            field += (along(layer.kernel_size) - 1) * along(getattr(layer, "dilation", 1)) * stride
            stride *= along(layer.stride)
    return field, stride


def test_large_fov_sees_435_pixels_every_8(vgg):
    """By hand, from 1: conv1 adds 2 + 2, pool1 2; conv2 4 + 4, pool2 4; conv3 3 x 8, pool3 8; conv4 3 x 16, pool4 16;
    conv5 3 x 32, pool5 16, its mean 16; fc6 2 x 12 x 8 = 192."""
    backbone, whole = 1 + 6 + 12 + 32 + 64 + 128, 435
    assert field_of_view(vgg.backbone.modules()) == (backbone, 8)
    assert field_of_view(vgg.modules()) == (whole, 8)


def test_large_fov_reacts_to_435_pixels_and_no_more(vgg):
    """With positive weights and no biases a single bright column reaches every cell whose field it lies in."""
    model = copy.deepcopy(vgg).double()
    for parameter in model.parameters():
        parameter.data = parameter.data.abs() * (parameter.ndim > 1)
    center = 224  # of the 28th cell

    def reaches(column: int) -> bool:
        picture = model.backbone.mean.repeat(1, 1, 9, 449)  # which is 0 to the first layer
        picture[..., column] = 1
        with torch.inference_mode():
            return bool((model(picture)[..., center // 8] > 0).any())

    assert [reaches(center + shift) for shift in (-218, -217, 217, 218)] == [False, True, True, False]


DECODER = SegmentationConfig(tiny.NAMES, decoder=True, channels=8, dilation=2, dropout=0.0, weights=None)


@pytest.mark.parametrize("name", ["vgg16", "resnet50_caffe", "efficientnet_lite0"])
def test_a_decoder_scores_every_fourth_pixel_of_16k_plus_1(name):
    with torch.device("meta"):
        model = create(replace(DECODER, backbone=name))
        assert (model.stride, model.backbone.output_stride) == (16, 16)
        assert model(torch.empty(2, 3, 65, 129)).shape == (2, 4, *((17, 33) if name != "vgg16" else (16, 32)))


@pytest.mark.parametrize("name", ["vgg16", "resnet50_caffe", "efficientnet_lite0"])
def test_cells_of_16_pixels_without_a_decoder(name):
    with torch.device("meta"):
        model = create(SegmentationConfig(tiny.NAMES, name, stride=16, weights=None))
        assert (model.stride, model.backbone.output_stride) == (16, 16)
        assert model(torch.empty(2, 3, 65, 129)).shape == (2, 4, *((5, 9) if name != "vgg16" else (4, 8)))
    with pytest.raises(SettingError, match="stride=12 must be 8 or 16"):
        SegmentationConfig(tiny.NAMES, stride=12)


def test_a_decoder_needs_finer_features():
    with torch.device("meta"), pytest.raises(SettingError, match="resnet50 gives no features finer than its last; the"):
        create(replace(DECODER, backbone="resnet50"))


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return create(DECODER)


def test_a_pyramid_ends_with_the_features(decoder):
    pictures = torch.rand(1, 3, 65, 65)
    with torch.inference_mode():
        levels = decoder.backbone.pyramid(pictures)
        assert torch.equal(levels[-1], decoder.backbone(pictures))
    assert [tuple(level.shape[1:]) for level in levels] == [(16, 33, 33), (24, 17, 17), (40, 9, 9), (320, 5, 5)]


def test_a_decoder_written_out(decoder):
    """Context, then two steps up: each layer a convolution with ReLU, outlines scaled with their corners aligned."""
    torch.manual_seed(1)
    levels = [torch.rand(2, width, side, side) for width, side in ((24, 17), (40, 9), (320, 5))]
    tensors = iter(decoder.head.state_dict().values())

    def layer(x: Tensor, dilation: int = 1) -> Tensor:
        weight, bias = next(tensors), next(tensors)
        return functional.conv2d(x, weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)

    parts = [layer(levels[2], dilation).relu() for dilation in (1, 2, 4)]
    mean = layer(levels[2].mean(dim=(2, 3), keepdim=True)).relu()
    x = layer(torch.cat([*parts, mean.repeat(1, 1, 5, 5)], dim=1)).relu()
    narrow = [layer(level).relu() for level in (levels[1], levels[0])]
    for level in narrow:
        x = functional.interpolate(x, level.shape[-2:], mode="bilinear", align_corners=True)
        x = layer(torch.cat([x, level], dim=1)).relu()
    with torch.inference_mode():
        torch.testing.assert_close(decoder.head(levels), layer(x))
    assert next(tensors, None) is None


def test_a_decoder_sees_fine_detail(decoder):
    """A cell of stride 4 of the finest level changes the scores there and nowhere far away."""
    levels = [torch.rand(1, width, side, side) for width, side in ((24, 17), (40, 9), (320, 5))]
    with torch.inference_mode():
        before = decoder.head(levels)
        levels[0][..., 8, 8] += 1
        changed = (decoder.head(levels) - before).abs().sum(1)[0] > 1e-6
    assert changed.nonzero().min() >= 7
    assert changed.nonzero().max() <= 9
    assert changed.any()


def test_the_surgery_changes_no_weight():
    torch.manual_seed(0)
    plain = backbones.create("vgg16", weights=None)
    torch.manual_seed(0)
    model = create(SegmentationConfig(tiny.NAMES, "vgg16", weights=None))
    before, after = plain.state_dict(), model.backbone.state_dict()
    assert tiny.same(before, after)
    assert model.backbone.output_stride == 8


def large_fov(state: dict[str, Tensor], pictures: Tensor) -> Tensor:
    """DeepLab-LargeFOV written out; weights and biases are taken in their order."""
    tensors = iter(state.values())

    def convolved(x: Tensor, dilation: int = 1) -> Tensor:
        weight, bias = next(tensors), next(tensors)
        return functional.conv2d(x, weight, bias, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)

    mean, std = (torch.tensor(values).view(3, 1, 1).double() for values in (IMAGENET_MEAN, IMAGENET_STD))
    x = (pictures - mean) / std
    for convolutions, dilation, stride in ((2, 1, 2), (2, 1, 2), (3, 1, 2), (3, 1, 1), (3, 2, 1)):
        for _ in range(convolutions):
            x = convolved(x, dilation).clamp_min(0)
        x = functional.max_pool2d(x, 3, stride, padding=1)
    x = functional.avg_pool2d(x, 3, 1, padding=1)
    x = convolved(x, 12).clamp_min(0)  # fc6
    x = convolved(x).clamp_min(0)  # fc7
    x = convolved(x)
    assert next(tensors, None) is None
    return x


def test_the_logits_are_those_of_large_fov_written_out(vgg):
    """The picture is so wide that fc6's outer weights meet more than padding."""
    model = copy.deepcopy(vgg).double()
    pictures = torch.rand(1, 3, 33, 129, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        got = model(pictures)
        wanted = large_fov(model.state_dict(), pictures)
    assert got.shape == (1, 4, 5, 17)
    assert (got.std(dim=(2, 3)) > 1e-4).all()
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_efficientnet_ends_before_its_1280_channels(lite0):
    """Its features are those of the attention model's backbone, one stage earlier."""
    whole = backbones.create("efficientnet_lite0", output_stride=8)
    picture = torch.rand(1, 3, 33, 41)
    with torch.inference_mode():
        features = lite0.backbone(picture)
        torch.testing.assert_close(whole.stages[-1](features), whole(picture))
    assert features.shape == (1, lite0.backbone.out_channels, 5, 6)


def test_unknown_backbones_are_refused():
    with pytest.raises(SettingError, match="timm cannot make a feature backbone 'lenet' of stride 8"):
        create(SegmentationConfig(("cat",), "lenet", weights=None))


# --- model files


@pytest.fixture
def model_file(tmp_path, tiny_backbones) -> Iterator[tuple[SegmentationModel, Path]]:
    torch.manual_seed(0)
    model = create(TINY)
    networks.save(model, tmp_path / "deep" / "model.pth")
    return model, tmp_path / "deep" / "model.pth"


def test_save_and_load(model_file):
    model, path = model_file
    loaded = networks.load(path, list(tiny.NAMES))
    assert loaded.config == TINY
    assert tiny.same(model.state_dict(), loaded.state_dict())
    assert not any(module.training for module in loaded.modules())


def test_half_precision_is_half_as_large_and_loads_as_float(model_file, tmp_path):
    model, _ = model_file
    networks.save(model, tmp_path / "half.pth", half=True)
    stored = torch.load(tmp_path / "half.pth", weights_only=True)["state"]
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded, (picture,) = networks.load(tmp_path / "half.pth"), batch_of((33, 41))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(probabilities(loaded, picture), probabilities(model, picture), atol=1e-2, rtol=0)


def test_frozen_imagenet_stages_are_not_stored_again(tmp_path, lite0):
    networks.save(lite0, tmp_path / "model.pth")
    stored = torch.load(tmp_path / "model.pth", weights_only=True)["state"]
    last = len(lite0.backbone.stages) - 1
    assert {key.split(".")[2] for key in stored if key.startswith("backbone")} == {str(last - 1), str(last)}
    loaded = networks.load(tmp_path / "model.pth")
    assert tiny.same(lite0.state_dict(), loaded.state_dict())
    assert loaded.backbone.trained_stages == 2
    learning = [{name for name, p in model.named_parameters() if p.requires_grad} for model in (lite0, loaded)]
    assert learning[0] == learning[1]


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.0])
def test_a_truncated_model_file_is_refused(model_file, keep):
    path = model_file[1]
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="model.pth: is no PyTorch checkpoint, or a truncated one"):
        networks.load(path)


def test_a_model_file_of_the_other_kind_is_refused_and_both_are_named(model_file, tmp_path):
    attention.save(attention.create(ModelConfig(tiny.NAMES, weights=None)), tmp_path / "attention.pth")
    with pytest.raises(CheckpointError, match="attention.pth: is a dsna-attention-1 file, and dsna-segmentation-1 was"):
        networks.load(tmp_path / "attention.pth")
    with pytest.raises(CheckpointError, match="model.pth: is a dsna-segmentation-1 file, and dsna-attention-1 was"):
        attention.load(model_file[1])
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match="other.pth: is a checkpoint, but no model file of this book, and dsna-seg"
    ):
        networks.load(tmp_path / "other.pth")


def test_a_model_file_for_other_classes_is_refused(model_file):
    with pytest.raises(CheckpointError, match=r"model.pth: knows 3 classes \(red, green.*the data has 2 \(cat, dog"):
        networks.load(model_file[1], ("cat", "dog"))
