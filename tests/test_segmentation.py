"""Segmentation networks: layers as published, a loss that leaves void out, exact resuming, and folders of masks."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import annotate, attention, backbones, crf, segmentation, training
from dsna_lib.attention import ModelConfig
from dsna_lib.backbones import IMAGENET_MEAN, IMAGENET_STD, CheckpointError
from dsna_lib.data import Pictures, Record, read_image, read_mask, write_mask
from dsna_lib.segmentation import (
    AnnotationError,
    SegmentationConfig,
    SegmentationModel,
    SegmentationTraining,
    annotated,
    at_scales,
    create,
    probabilities,
    refined,
    segment_split,
    segmentation_loss,
    server_archive,
    shrink,
    train_segmentation,
)
from dsna_lib.training import checkpoints, native_precision, read_log

needs_crf = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="pydensecrf2 does not build on Python 3.13 and later"
)

# Eight pictures in batches of two: four steps an epoch, a checkpoint in the middle of each.
CONFIG = SegmentationTraining(
    epochs=3, drop_after=2, batch_size=2, backbone_rate=0.01, head_rate=0.1, crop=17, workers=0, checkpoint_every=2,
    device="cpu", seed=3,
)  # fmt: skip
TINY = SegmentationConfig(tiny.NAMES, "tiny", channels=8, dilation=1, weights=None)
BATCH_NORM = nn.modules.batchnorm._BatchNorm


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def split(tmp_path):
    return tiny.pictures(tmp_path / "data", masks=True)


@pytest.fixture
def tiny_backbones(monkeypatch):
    """Networks of the tiny backbone instead of a real one."""
    monkeypatch.setattr(backbones, "create", lambda name, stride, weights: tiny.backbone())


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- networks


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


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    return tiny.vgg16_file(tmp_path_factory.mktemp("weights") / "vgg16.pth")


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


def test_a_pretrained_head_learns_as_slowly_as_the_backbone(tmp_path, vgg_file, split, optimizers):
    config = SegmentationConfig(
        tiny.NAMES, "vgg16", channels=8, train_last=0, weights=str(vgg_file), pretrained_head=True
    )
    model = create(config)
    train_segmentation(model, split, replace(CONFIG, epochs=1, batch_size=8), tmp_path / "run")
    assert groups_of(model, optimizers[0]) == [
        ["head.0.weight", "head.3.weight"],
        ["head.0.bias", "head.3.bias"],
        ["head.6.weight"],
        ["head.6.bias"],
    ]
    segmentation.save(model, tmp_path / "model.pth")
    loaded = segmentation.load(tmp_path / "model.pth")
    assert loaded.config == config
    assert tiny.same(model.state_dict(), loaded.state_dict())


def test_a_stored_model_needs_no_pretrained_head(tmp_path, monkeypatch, vgg_file):
    """Frozen stages are fetched from ImageNet's weights, where the file with the head may be gone by then."""
    whole = torch.load(vgg_file, weights_only=True)
    convolutions = tmp_path / backbones.VGG16_FILE
    torch.save(whole, convolutions)
    monkeypatch.setenv(backbones.WEIGHTS_FOLDER, str(tmp_path))
    model = create(SegmentationConfig(tiny.NAMES, "vgg16", channels=8, train_last=1, pretrained_head=True))
    segmentation.save(model, tmp_path / "model.pth")
    torch.save({name: tensor for name, tensor in whole.items() if name.startswith("features")}, convolutions)
    assert tiny.same(model.state_dict(), segmentation.load(tmp_path / "model.pth").state_dict())


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"backbone": "resnet50"}, "only VGG-16's weights hold a head to start from, not backbone='resnet50'"),
        ({"weights": None}, "not backbone='vgg16' with weights=None"),
        ({"channels": 5000}, "VGG-16 has 4096 channels to choose from, not 5000"),
    ],
)
def test_heads_that_cannot_be_pretrained(vgg_file, changed, said):
    config = SegmentationConfig(tiny.NAMES, "vgg16", weights=str(vgg_file), pretrained_head=True)
    with pytest.raises(ValueError, match=said):
        create(replace(config, **changed))


def field_of_view(layers: Iterable[nn.Module]) -> tuple[int, int]:
    """Pixels that a cell sees along a side, and pixels between cells: each layer widens the one by what it adds."""

    def one(value: int | tuple[int, int]) -> int:
        return value if isinstance(value, int) else value[0]

    field, stride = 1, 1
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            field += (one(layer.kernel_size) - 1) * one(getattr(layer, "dilation", 1)) * stride
            stride *= one(layer.stride)
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
    with pytest.raises(ValueError, match="timm cannot make a feature backbone 'lenet' of stride 8"):
        create(SegmentationConfig(("cat",), "lenet", weights=None))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "test_resnet"])
def test_batch_norm_is_frozen(tmp_path, split, name):
    """Its statistics, scale and shift stay; everything else learns."""
    torch.manual_seed(0)
    model = create(SegmentationConfig(tiny.NAMES, name, channels=8, dilation=1, weights=None))
    norms = {place for place, module in model.named_modules() if isinstance(module, BATCH_NORM)}
    before = state_of(model)
    train_segmentation(model, split, replace(CONFIG, epochs=1, batch_size=4, crop=33), tmp_path / "run")
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    frozen = {key for key in before if key.rpartition(".")[0] in norms}
    assert len(frozen) == 5 * len(norms) > 0
    assert changed == before.keys() - frozen
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == changed


# --- rates


@pytest.fixture
def optimizers(monkeypatch):
    """Every optimizer that training makes."""
    made = []

    class Kept(torch.optim.SGD):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(torch.optim, "SGD", Kept)
    return made


def groups_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """Parameter names of each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def test_the_four_groups_of_deeplab(tmp_path, split, optimizers):
    """New layers learn ten times as fast, biases twice as fast and without decay."""
    model = tiny.segmentation()
    config = SegmentationTraining(epochs=1, batch_size=4, crop=17, workers=0, device="cpu")
    train_segmentation(model, split, config, tmp_path / "run")
    (optimizer,) = optimizers
    assert groups_of(model, optimizer) == [
        ["backbone.stages.0.0.weight", "backbone.stages.1.0.weight"],
        ["backbone.stages.0.0.bias", "backbone.stages.1.0.bias"],
        ["head.1.weight"],
        ["head.1.bias"],
    ]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.002, 0.01, 0.02])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0, 5e-4, 0]
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


@pytest.mark.parametrize("count", [0, 2, None])
def test_what_learns_is_in_one_group_and_frozen_stages_are_in_none(tmp_path, split, optimizers, count):
    model = create(SegmentationConfig(tiny.NAMES, channels=8, train_last=count, weights=None))
    train_segmentation(model, split, replace(CONFIG, epochs=1, batch_size=8), tmp_path / "run")
    stages = model.backbone.stages
    learning = {f"head.{name}" for name, _ in model.head.named_parameters()}
    for place in range(0 if count is None else len(stages) - count, len(stages)):
        for name, module in stages[place].named_modules():
            if isinstance(module, nn.Conv2d):
                learning.add(f"backbone.stages.{place}.{name}.weight")
    found = Counter(name for group in groups_of(model, optimizers[0]) for name in group)
    assert found == dict.fromkeys(learning, 1)


def test_schedules():
    paper = SegmentationTraining()
    assert (paper.epochs, paper.drop_after, paper.batch_size, paper.crop) == (12, 8, 15, 321)
    assert [paper.rate_factor(epoch) for epoch in (0, 7.99, 8, 11.9)] == [1, 1, 0.1, 0.1]
    poly = replace(paper, schedule="poly")
    assert [poly.rate_factor(epoch) for epoch in (0, 6, 12, 13)] == pytest.approx([1, 0.5**0.9, 0, 0])
    quick = SegmentationTraining.quick(seed=5, schedule="poly")
    assert (quick.epochs, quick.precision, quick.seed, quick.schedule, quick.crop) == (
        6,
        native_precision(),
        5,
        "poly",
        321,
    )
    with pytest.raises(ValueError, match="schedule='cosine': choose 'step' or 'poly'"):
        SegmentationTraining(schedule="cosine")


def test_the_poly_schedule_falls_at_every_step(tmp_path, split):
    """The log has the rate of the head's biases, twice that of its weights."""
    config = replace(CONFIG, schedule="poly", epochs=2)
    train_segmentation(tiny.segmentation(), split, config, tmp_path / "run")
    rates = [line["rate"] for line in read_log(tmp_path / "run")]
    assert rates == pytest.approx([0.2 * (1 - step / 8) ** 0.9 for step in range(8)])
    assert rates == sorted(set(rates), reverse=True)


# --- the loss


@pytest.mark.parametrize(
    "full, cells", [((321, 321), (41, 41)), ((9, 17), (2, 3)), ((23, 27), (4, 6)), ((3, 4), (6, 4))]
)
def test_shrink_takes_the_pixel_at_the_center_of_each_cell(full, cells):
    masks = np.random.default_rng(0).integers(0, 256, (2, *full), dtype=np.uint8)
    rows, columns = (np.rint(np.linspace(0, side - 1, n)).astype(int) for side, n in zip(full, cells, strict=True))
    got = shrink(torch.from_numpy(masks), cells)
    assert got.dtype == torch.uint8
    np.testing.assert_array_equal(got, masks[:, rows][:, :, columns])


def test_shrink_takes_every_8th_pixel_of_a_crop():
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 321, 321), dtype=np.uint8))
    assert torch.equal(shrink(masks, (41, 41)), masks[:, ::8, ::8])


def examples(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (2, 4, 3, 5) and masks (2, 17, 33) with a third of the pixels void, not evenly over the two."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (2, 4, 3, 5)))
    masks = rng.integers(0, 4, (2, 17, 33)).astype(np.uint8)
    masks[rng.random(masks.shape) < np.array([0.1, 0.6])[:, None, None]] = 255
    return logits, torch.from_numpy(masks)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_mean_cross_entropy_of_labeled_cells(seed):
    logits, masks = examples(seed)
    terms = []
    for n, row, column in np.ndindex(2, 3, 5):
        label = int(masks[n, 8 * row, 8 * column])
        if label != 255:
            scores = logits[n, :, row, column].numpy()
            terms.append(np.log(np.exp(scores).sum()) - scores[label])
    assert 0 < len(terms) < 30
    assert segmentation_loss(logits, masks).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_void_cells_take_no_part():
    logits, masks = examples()
    void = (masks[:, ::8, ::8] == 255)[:, None].expand_as(logits)
    assert 0 < void.sum() < void.numel()
    logits.requires_grad_()
    loss = segmentation_loss(logits, masks)
    loss.backward()
    assert (logits.grad[void] == 0).all()
    assert (logits.grad[~void] != 0).all()
    moved = torch.where(void, 50.0, logits.detach())
    assert torch.equal(segmentation_loss(moved, masks), loss)
    assert not torch.equal(segmentation_loss(torch.where(~void, logits.detach() * 2, logits), masks), loss)


def test_labels_between_the_centers_take_no_part():
    logits, masks = examples()
    other = torch.full_like(masks, 99)
    other[:, ::8, ::8] = masks[:, ::8, ::8]
    assert torch.equal(segmentation_loss(logits, other), segmentation_loss(logits, masks))


def test_nothing_but_void_gives_zero():
    logits = examples()[0].requires_grad_()
    loss = segmentation_loss(logits, torch.full((2, 17, 33), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_half_precision_logits_are_not_summed_in_half_precision():
    logits, masks = examples()
    loss = segmentation_loss(logits.bfloat16(), masks)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, segmentation_loss(logits.bfloat16().float(), masks))


@pytest.mark.parametrize("label", [4, 254])
def test_a_class_that_the_network_does_not_know_is_refused(label):
    logits, masks = examples()
    masks[1, 16, 32] = label
    with pytest.raises(ValueError, match=f"a mask holds class {label}, and the network knows 0 to 3"):
        segmentation_loss(logits, masks)


@pytest.mark.parametrize("shape", [(17, 33), (2, 1, 17, 33), (3, 17, 33)])
def test_masks_of_another_shape_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"logits \(2, 4, 3, 5\) and masks .* must be \(N, C \+ 1, h, w\), \(N, H, W\)"
    ):
        segmentation_loss(examples()[0], torch.zeros(shape, dtype=torch.uint8))


# --- annotations to learn from


@pytest.fixture
def folder(tmp_path, split):
    """Annotations of all pictures: their true masks, mirrored, so that they can be told from them."""
    for record in split.records:
        write_mask(tmp_path / "made" / f"{record.id}.png", read_mask(record.mask)[:, ::-1])
    return tmp_path / "made"


def test_annotations_take_the_place_of_the_masks(split, folder):
    split.records[1] = replace(split.records[1], part=Path("part.png"))
    found = annotated(split, folder)
    assert [(r.id, r.image, r.labels) for r in found.records] == [(r.id, r.image, r.labels) for r in split.records]
    assert [r.mask for r in found.records] == [folder / f"{r.id}.png" for r in split.records]
    assert {r.part for r in found.records} == {None}
    assert found.class_names == split.class_names
    for record in split.records:
        record.mask.unlink()
    item = found.with_transform(None, masks=True)[0]
    np.testing.assert_array_equal(item["mask"], read_mask(folder / "p00.png"))


def test_missing_annotations_are_counted_and_named(split, folder):
    for name in ("p01", "p02", "p04", "p05", "p07"):
        (folder / f"{name}.png").unlink()
    message = (
        f"{folder}: 5 of 8 pictures have no annotation to learn from: p01, p02, p04 and 2 more; "
        "annotate them, or leave them out (--skip-missing)"
    )
    with pytest.raises(AnnotationError) as error:
        annotated(split, folder)
    assert str(error.value) == message
    assert [r.id for r in annotated(split, folder, skip=True).records] == ["p00", "p03", "p06"]


def test_void_annotations_are_named_like_missing_ones(split, folder):
    write_mask(folder / "p03.png", np.full_like(read_mask(folder / "p03.png"), 255))
    (folder / "p06.png").unlink()
    with pytest.raises(AnnotationError, match=r"2 of 8 .*: p03 \(void everywhere\), p06; annotate them"):
        annotated(split, folder)
    assert [r.id for r in annotated(split, folder, skip=True).records] == ["p00", "p01", "p02", "p04", "p05", "p07"]


@pytest.mark.parametrize("skip", [False, True])
def test_a_folder_without_any_annotation_is_refused(split, tmp_path, skip):
    with pytest.raises(AnnotationError, match=r"8 of 8 .*: p00, p01, p02 and 5 more; is this the right folder\?"):
        annotated(split, tmp_path / "elsewhere", skip)


def spoil(path: Path, how: str) -> None:
    mask = read_mask(path)
    if how == "class":
        mask[2, 3] = 4
        write_mask(path, mask)
    elif how == "size":
        write_mask(path, mask[:-1])
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "text":
        path.write_text("no picture")
    else:
        Image.fromarray(mask).convert("RGB").save(path)


@pytest.mark.parametrize(
    "how, words",
    [
        ("class", "p02.png: holds class 4, the data knows 0 to 3"),
        ("size", "p02.png: the mask is 26 x 21, its picture 26 x 22"),
        ("truncated", "p02.png: cannot be read as a mask"),
        ("text", "p02.png: cannot be read as a mask"),
        ("color", r"p02.png: a mask holds class indices \(palette or grey\), this one is RGB"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_annotations_that_cannot_be_used_are_refused(split, folder, how, words, skip):
    """Even where others may be missing: something went wrong with them."""
    spoil(folder / "p02.png", how)
    (folder / "p05.png").unlink()
    with pytest.raises(AnnotationError, match=f"^1 of 8 annotations cannot be used: .*{words}"):
        annotated(split, folder, skip)


def test_several_bad_annotations_are_counted(split, folder):
    for record in split.records[:5]:
        spoil(folder / f"{record.id}.png", "class")
    with pytest.raises(AnnotationError, match=r"5 of 8 .*p00.*p01.*p02.png: holds class 4.* and 2 more$"):
        annotated(split, folder)


def test_an_unreadable_picture_is_named(split, folder):
    split.records[4].image.write_bytes(b"")
    with pytest.raises(AnnotationError, match="1 of 8 .*p04.png: cannot be read as a picture"):
        annotated(split, folder)


@pytest.mark.parametrize("orientation, turned", [(1, False), (3, False), (5, True), (6, True), (8, True)])
def test_an_annotation_has_the_size_of_the_upright_picture(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    pictures = Pictures([Record("a", tmp_path / "a.jpg", (0,))], ("cat",))
    height, width = read_image(tmp_path / "a.jpg").shape[:2]
    assert (height, width) == ((12, 8) if turned else (8, 12))
    write_mask(tmp_path / "a.png", np.zeros((height, width), np.uint8))
    assert len(annotated(pictures, tmp_path)) == 1
    write_mask(tmp_path / "a.png", np.zeros((width, height), np.uint8))
    with pytest.raises(AnnotationError, match="a.png: the mask is"):
        annotated(pictures, tmp_path)


def test_the_digest_is_over_the_masks_content(split, folder):
    first = segmentation.annotations_digest(annotated(split, folder))
    shutil.copytree(folder, folder.with_name("copy"))
    assert segmentation.annotations_digest(annotated(split, folder.with_name("copy"))) == first
    mask = read_mask(folder / "p07.png")
    mask[0, 0] = 3
    write_mask(folder / "p07.png", mask)
    assert segmentation.annotations_digest(annotated(split, folder)) != first


def test_the_digest_of_pictures_without_masks_is_refused(tmp_path):
    with pytest.raises(AnnotationError, match="no mask to learn from"):
        segmentation.annotations_digest(tiny.pictures(tmp_path, 2))


# --- training


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that has learned eight pictures, the pictures, and its log."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    pictures = tiny.pictures(folder / "data", masks=True)
    config = SegmentationTraining(
        epochs=60, drop_after=50, batch_size=4, backbone_rate=0.05, head_rate=0.2, crop=25, scales=(1.0, 1.2),
        workers=0, device="cpu", checkpoint_every=1000,
    )  # fmt: skip
    model = tiny.segmentation(dropout=0.0)
    train_segmentation(model, pictures, config, folder / "run")
    return model, pictures, read_log(folder / "run")


def test_it_learns(trained, tmp_path):
    model, pictures, log = trained
    losses = [line["loss"] for line in log]
    assert np.mean(losses[-8:]) < 0.3 * np.mean(losses[:2])
    segment_split(model, pictures, tmp_path, ("single",))
    assert annotate.evaluate(tmp_path / "single", pictures).mean_iou > 0.7
    assert not model.training


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run without interruption: its final state and its log."""
    folder = tmp_path_factory.mktemp("reference")
    model = tiny.segmentation()
    train_segmentation(model, tiny.pictures(folder / "data", masks=True), CONFIG, folder / "run")
    return model.state_dict(), without_time(read_log(folder / "run"))


def without_time(log: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in log]


def train_until_killed(data: Path, folder: Path, last_step: int) -> None:
    """A real kill, without warning, before step `last_step` + 1."""
    step_before = training._step

    def step_or_die(*arguments):
        if arguments[-1] == last_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return step_before(*arguments)

    training._step = step_or_die
    train_segmentation(tiny.segmentation(), tiny.pictures(data, masks=True), CONFIG, folder)


def test_a_killed_run_ends_with_the_weights_of_the_uninterrupted_one(tmp_path, split, reference):
    folder = tmp_path / "run"
    assert tiny.in_processes(train_until_killed, tmp_path / "data", folder, 7) == [-signal.SIGKILL]
    assert [p.name for p in checkpoints(folder)] == ["checkpoint-0000006"]
    model = tiny.segmentation(seed=99)
    model.load_state_dict(tiny.segmentation().state_dict())
    train_segmentation(model, split, CONFIG, folder)
    assert tiny.same(model.state_dict(), reference[0])
    assert without_time(read_log(folder)) == reference[1]


def test_image_labels_are_not_learned_from(tmp_path, split, reference):
    split.records = [replace(record, labels=()) for record in split.records]
    model = tiny.segmentation()
    train_segmentation(model, split, CONFIG, tmp_path / "run")
    assert tiny.same(model.state_dict(), reference[0])


class Seen:
    """A loss of its own that keeps the batches it is asked about."""

    def __init__(self) -> None:
        self.batches: list[dict] = []

    def __call__(self, logits: Tensor, batch: dict) -> Tensor:
        self.batches.append(batch | {"logits": logits.detach()})
        return segmentation_loss(logits, batch["mask"]) + batch["labels"].sum()


def test_another_loss(tmp_path, split, reference):
    seen, model = Seen(), tiny.segmentation()
    train_segmentation(model, split, CONFIG, tmp_path / "run", seen)
    assert len(seen.batches) == 12
    batch = seen.batches[0]
    assert batch["image"].shape == (2, 3, 17, 17)
    assert 0 <= batch["image"].min() < batch["image"].max() <= 1
    assert (batch["mask"].shape, batch["mask"].dtype) == ((2, 17, 17), torch.uint8)
    assert batch["labels"].sum(dim=1).tolist() == [1, 1]
    assert batch["logits"].shape == (2, 4, 5, 5)
    logged = [line["loss"] for line in read_log(tmp_path / "run")]
    assert logged == pytest.approx([line["loss"] + 2 for line in reference[1]], rel=1e-5)  # one label a picture
    assert tiny.same(model.state_dict(), reference[0])  # a constant has no gradient


@pytest.mark.parametrize("whole", [True, False])
def test_whole_pictures_are_squeezed_and_crops_are_not(tmp_path, split, whole):
    seen = Seen()
    train_segmentation(tiny.segmentation(), split, replace(CONFIG, epochs=1, whole=whole), tmp_path / "run", seen)
    squeezed = []
    for batch in seen.batches:
        for name, image, mask in zip(batch["id"], batch["image"], batch["mask"], strict=True):
            record = next(r for r in split.records if r.id == name)
            pixels = Image.fromarray(read_image(record.image)).resize((17, 17), Image.Resampling.BILINEAR)
            labels = Image.fromarray(read_mask(record.mask)).resize((17, 17), Image.Resampling.NEAREST)
            found = np.dstack([255 * image.permute(1, 2, 0), mask])
            away = [np.abs(found - np.dstack([pixels, labels])[:, ::turn]) for turn in (1, -1)]
            squeezed.append(any(d[..., :3].mean() < 1 and (d[..., 3] > 0).mean() < 0.15 for d in away))
    assert len(squeezed) == 8
    assert all(squeezed) if whole else not any(squeezed)


def test_remembered_frozen_stages_change_nothing_in_what_is_learned(tmp_path, split, monkeypatch):
    """Whole pictures are remembered, which saves time; the weights are the same without."""
    config, learned, shown = replace(CONFIG, epochs=3, whole=True), [], []
    for k in range(2):
        model = tiny.segmentation()
        model.backbone.train_last(1)
        seen = []
        model.backbone.stages[0].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        train_segmentation(model, split, config, tmp_path / str(k))
        learned.append(model.state_dict())
        shown.append(sum(seen))
        monkeypatch.setattr(type(model.backbone), "remembering", lambda self: nullcontext())
    for name, weight in learned[0].items():
        torch.testing.assert_close(weight, learned[1][name])
    assert shown[0] <= 2 * len(split) < shown[1] == 3 * len(split)


# --- inference


def batch_of(*sizes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    """Pictures (1, 3, H, W) uint8 with a few large patches of color."""
    rng, made = np.random.default_rng(seed), []
    for height, width in sizes:
        patches = np.kron(rng.integers(0, 2, (4, 5, 3)) * 220, np.ones((16, 16, 1)))[:height, :width]
        made.append(torch.from_numpy(patches.astype(np.uint8)).permute(2, 0, 1)[None])
    return made


def enlarge(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corners on corners."""
    rows, columns = (np.linspace(0, n - 1, side) for n, side in zip(plane.shape, size, strict=True))
    wide = np.stack([np.interp(columns, np.arange(plane.shape[1]), line) for line in plane])
    return np.stack([np.interp(rows, np.arange(plane.shape[0]), line) for line in wide.T], axis=1)


def test_at_its_own_scale_a_picture_of_8k_plus_1_pixels_is_shown_as_it_is(trained):
    model, (picture,) = trained[0], batch_of((33, 41))
    with torch.inference_mode():
        logits = model(picture / 255)[0].numpy()
    scores = np.exp(np.stack([enlarge(plane, (33, 41)) for plane in logits]))
    got = probabilities(model, picture, (1.0,))
    np.testing.assert_allclose(got[0], scores / scores.sum(axis=0), atol=1e-5)
    assert len(got[0].argmax(dim=0).unique()) > 1


@pytest.mark.parametrize("size", [(33, 41), (20, 27), (3, 50), (1, 1)])
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_sum_to_one_at_full_size(trained, size, flip):
    got = probabilities(trained[0], torch.cat(batch_of(size, size)), flip=flip)
    assert (got.shape, got.dtype) == ((2, 4, *size), torch.float32)
    assert (got >= 0).all()
    torch.testing.assert_close(got.sum(dim=1), torch.ones(2, *size))


def test_every_scale_is_shown_with_8k_plus_1_pixels(trained):
    """0.7 x 20 = 14 is nearest to 17, 0.7 x 26 = 18.2 too; 26 is nearest to 25, 1.3 x 26 = 33.8 to 33."""
    with looking(trained[0]) as shown:
        probabilities(trained[0], batch_of((20, 26))[0], (0.7, 1.0, 1.3))
        probabilities(trained[0], batch_of((2, 5))[0], (0.5,))
    assert [shape[-2:] for shape in shown] == [(17, 17), (17, 25), (25, 33), (9, 9)]


@contextmanager
def looking(model: nn.Module, stop_at: int | None = None) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of what a model is shown; the n-th call may be interrupted, as by a kill."""
    shapes = []

    def look(model: nn.Module, inputs: tuple[Tensor]) -> None:
        shapes.append(tuple(inputs[0].shape))
        if len(shapes) == stop_at:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(look)
    try:
        yield shapes
    finally:
        hook.remove()


def test_several_scales_are_averaged(trained):
    model, (picture,) = trained[0], batch_of((40, 52))
    each = at_scales(model, picture, (0.7, 1.3))
    assert not torch.allclose(each[0.7], each[1.3], atol=1e-2)
    assert torch.equal(each[0.7], probabilities(model, picture, (0.7,)))
    torch.testing.assert_close(probabilities(model, picture, (0.7, 1.3)), (each[0.7] + each[1.3]) / 2)


def test_a_mirrored_picture_gives_the_mirrored_result_with_flip(trained):
    model, (picture,) = trained[0], batch_of((33, 42))
    plain, both = (probabilities(model, picture, flip=flip) for flip in (False, True))
    mirrored, mirrored_both = (probabilities(model, picture.flip(-1), flip=flip).flip(-1) for flip in (False, True))
    torch.testing.assert_close(mirrored_both, both)
    torch.testing.assert_close((plain + mirrored) / 2, both)
    assert not torch.allclose(plain, mirrored, atol=1e-3)


def test_inference_is_deterministic_and_leaves_no_graph():
    model, (picture,) = tiny.segmentation(dropout=0.5), batch_of((33, 41))
    first = probabilities(model, picture)
    assert torch.equal(first, probabilities(model, picture))
    assert not first.requires_grad


def test_half_precision_is_close(trained):
    model, (picture,) = trained[0], batch_of((33, 41))
    full, half = (probabilities(model, picture, precision=precision) for precision in ("no", "bf16"))
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_says_what_to_lower(monkeypatch, error):
    def full(*_):
        raise error

    model = tiny.segmentation()
    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(RuntimeError, match="of memory with 2 pictures of 26 x 20: lower --batch-size or --max-side"):
        probabilities(model, torch.cat(batch_of((20, 26), (20, 26))))


def test_other_errors_pass_as_they_are(monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes cannot be multiplied")

    model = tiny.segmentation()
    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(RuntimeError, match="^shapes cannot be multiplied$"):
        probabilities(model, batch_of((20, 26))[0])


# --- the CRF


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two colors that meet at column 24, a smooth belief of class 1 that is 4 columns off, and the truth."""
    rng, truth = np.random.default_rng(0), np.zeros((40, 48), np.uint8)
    truth[:, 24:] = 1
    image = np.where(truth[..., None] == 1, (200, 120, 50), (40, 60, 90)) + rng.integers(-1, 2, (40, 48, 3))
    belief = 1 / (1 + np.exp(-(np.arange(48) - 28) / 4)) * np.ones((40, 1))
    return image.astype(np.uint8), np.stack([1 - belief, belief]).astype(np.float32), truth


@needs_crf
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_refining_follows_the_edge(kind):
    image, found, truth = scene()
    assert (found.argmax(axis=0) == truth).mean() < 0.95
    mask = refined(image, found.astype(kind))
    assert mask.dtype == np.uint8
    assert (mask == truth).mean() > 0.99
    np.testing.assert_array_equal(mask, crf.refine(image, found.astype(kind).astype(np.float32), "segmentation"))
    assert (refined(image, found, crf.CRFParams(iterations=0)) != mask).any()


def test_classes_that_are_nowhere_plausible_take_no_part(monkeypatch):
    seen = []
    monkeypatch.setattr(crf, "refine", lambda image, found, params: seen.append((found, params)))
    found = np.zeros((4, 2, 3), np.float32)
    found[0], found[1, 0, 0], found[2], found[3, 1, 2] = 0.5, 0.06, 0.04, 0.9
    refined(np.zeros((2, 3, 3), np.uint8), found.astype(np.float16), "deeplab")
    ((kept, params),) = seen
    assert params == "deeplab"
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept[[0, 1, 3]], found[[0, 1, 3]], atol=1e-3)
    assert (kept[2] == 0).all()


# --- whole splits


def photos(folder: Path, *sizes: tuple[int, int]) -> Pictures:
    """Pictures of these sizes with image labels and no masks."""
    records = []
    for k, (height, width) in enumerate(sizes):
        path = folder / f"p{k}.png"
        folder.mkdir(parents=True, exist_ok=True)
        (picture,) = batch_of((height, width), seed=k)
        Image.fromarray(picture[0].permute(1, 2, 0).numpy()).save(path)
        records.append(Record(path.stem, path, (k % 3,)))
    return Pictures(records, tiny.NAMES)


MIXED = ((20, 26), (24, 20), (20, 26), (24, 20), (20, 26))
ALL = ("single", "multi", "crf")


@pytest.fixture
def mixed(tmp_path):
    return photos(tmp_path / "photos", *MIXED)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def as_batch(record: Record) -> Tensor:
    return torch.from_numpy(read_image(record.image)).permute(2, 0, 1)[None]


@needs_crf
def test_kinds(trained, mixed, tmp_path):
    """`single` is at the middle one of the scales."""
    model, scales = trained[0], (1.3, 0.7, 1.0)
    report = segment_split(model, mixed, tmp_path / "out", ALL, scales)
    assert report.written == [f"p{k}" for k in range(5)]
    assert (report.skipped, report.failed) == ([], {})
    differ = set()
    for record in mixed.records:
        one, several = (probabilities(model, as_batch(record), wanted)[0] for wanted in ((1.0,), scales))
        wanted = {
            "single": one.argmax(dim=0).numpy(),
            "multi": several.argmax(dim=0).numpy(),
            "crf": refined(read_image(record.image), several.half().numpy()),
        }
        for kind, mask in wanted.items():
            np.testing.assert_array_equal(read_mask(tmp_path / "out" / kind / f"{record.id}.png"), mask)
        differ |= {(a, b) for a in ALL for b in ALL if (wanted[a] != wanted[b]).any()}
    assert len(differ) == 6  # so no kind can pass for another
    assert len(contents(tmp_path / "out")) == 15
    assert Image.open(tmp_path / "out" / "single" / "p0.png").getpalette()[3:6] == [128, 0, 0]


def test_pictures_of_one_size_share_a_forward_pass_and_sizes_may_mix(trained, mixed, tmp_path):
    with looking(trained[0]) as shown:
        report = segment_split(trained[0], mixed, tmp_path / "together", ("single",), batch_size=4)
    assert sorted(shown) == [(1, 3, 17, 25), (2, 3, 17, 25), (2, 3, 25, 17)]
    assert sorted(report.written) == [f"p{k}" for k in range(5)]
    segment_split(trained[0], mixed, tmp_path / "alone", ("single",))
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    assert read_mask(tmp_path / "alone" / "single" / "p1.png").shape == (24, 20)


@needs_crf
def test_a_killed_run_goes_on_at_the_next_picture(trained, mixed, tmp_path):
    segment_split(trained[0], mixed, tmp_path / "whole", ALL)
    with pytest.raises(KeyboardInterrupt), looking(trained[0], stop_at=3 * 2 + 2):  # within the third picture
        segment_split(trained[0], mixed, tmp_path / "out", ALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert len(before) == 6
    with looking(trained[0]) as shown:
        report = segment_split(trained[0], mixed, tmp_path / "out", ALL)
    assert (report.skipped, report.written) == (["p0", "p1"], ["p2", "p3", "p4"])
    assert len(shown) == 3 * 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_is_there_is_skipped_and_a_picture_that_lacks_a_kind_is_not(trained, mixed, tmp_path):
    segment_split(trained[0], mixed, tmp_path, ("single", "multi"))
    (tmp_path / "multi" / "p3.png").unlink()
    report = segment_split(trained[0], mixed, tmp_path, ("single", "multi"))
    assert (report.skipped, report.written) == (["p0", "p1", "p2", "p4"], ["p3"])
    assert len(contents(tmp_path / "multi")) == 5


def test_an_unreadable_picture_is_reported_and_the_others_are_done(trained, mixed, tmp_path):
    mixed.records[1].image.write_bytes(mixed.records[1].image.read_bytes()[:60])
    mixed.records[4].image.unlink()
    report = segment_split(trained[0], mixed, tmp_path / "out", ("single",), batch_size=3)
    assert sorted(report.written) == ["p0", "p2", "p3"]
    assert "p1.png: cannot be read as a picture" in report.failed["p1"]
    assert "p4.png: no such picture" in report.failed["p4"]
    assert sorted(contents(tmp_path / "out")) == [f"single/p{k}.png" for k in (0, 2, 3)]


@needs_crf
def test_image_labels_and_masks_are_not_read(trained, mixed, tmp_path):
    segment_split(trained[0], mixed, tmp_path / "right", ALL)
    for name, labels in (("none", ()), ("wrong", (1, 2))):
        records = [replace(record, labels=labels, mask=tmp_path / "gone.png") for record in mixed.records]
        segment_split(trained[0], mixed.with_records(records), tmp_path / name, ALL)
        assert contents(tmp_path / name) == contents(tmp_path / "right")


@needs_crf
def test_two_processes_write_what_one_writes(trained, mixed, tmp_path):
    tiny.in_processes(print)  # start the server with torch loaded
    reports = [
        segment_split(trained[0], mixed, tmp_path / f"out{n}", ("crf",), batch_size=2, processes=n) for n in (1, 2)
    ]
    assert reports[0] == reports[1]
    assert len(contents(tmp_path / "out1")) == 5
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")


@pytest.mark.parametrize("kinds", [("soft",), ("crf", "hard"), (), "crf"])
def test_unknown_kinds_are_refused(trained, mixed, tmp_path, kinds):
    with pytest.raises(ValueError, match=r"kinds=\(.*\): choose from single, multi, crf"):
        segment_split(trained[0], mixed, tmp_path / "out", kinds)
    assert not (tmp_path / "out").exists()


def test_without_pydensecrf_nothing_is_begun_that_needs_it(trained, mixed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with looking(trained[0]) as shown, pytest.raises(ImportError, match="needs pydensecrf"):
        segment_split(trained[0], mixed, tmp_path / "out", ALL)
    assert (shown, (tmp_path / "out").exists()) == ([], False)
    assert len(segment_split(trained[0], mixed, tmp_path / "out", ("single", "multi")).written) == 5


def test_an_unknown_crf_preset_is_refused(trained, mixed, tmp_path):
    with pytest.raises(ValueError, match="unknown CRF preset 'best'"):
        segment_split(trained[0], mixed, tmp_path / "out", ("crf",), params="best")


# --- model files


@pytest.fixture
def model_file(tmp_path, tiny_backbones) -> Iterator[tuple[SegmentationModel, Path]]:
    torch.manual_seed(0)
    model = create(TINY)
    segmentation.save(model, tmp_path / "deep" / "model.pth")
    return model, tmp_path / "deep" / "model.pth"


def test_save_and_load(model_file):
    model, path = model_file
    loaded = segmentation.load(path, list(tiny.NAMES))
    assert loaded.config == TINY
    assert tiny.same(model.state_dict(), loaded.state_dict())
    assert not any(module.training for module in loaded.modules())


def test_half_precision_is_half_as_large_and_loads_as_float(model_file, tmp_path):
    model, _ = model_file
    segmentation.save(model, tmp_path / "half.pth", half=True)
    stored = torch.load(tmp_path / "half.pth", weights_only=True)["state"]
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    loaded, (picture,) = segmentation.load(tmp_path / "half.pth"), batch_of((33, 41))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    torch.testing.assert_close(probabilities(loaded, picture), probabilities(model, picture), atol=1e-2, rtol=0)


def test_frozen_imagenet_stages_are_not_stored_again(tmp_path, lite0):
    segmentation.save(lite0, tmp_path / "model.pth")
    stored = torch.load(tmp_path / "model.pth", weights_only=True)["state"]
    last = len(lite0.backbone.stages) - 1
    assert {key.split(".")[2] for key in stored if key.startswith("backbone")} == {str(last - 1), str(last)}
    loaded = segmentation.load(tmp_path / "model.pth")
    assert tiny.same(lite0.state_dict(), loaded.state_dict())
    assert loaded.backbone.trained_stages == 2
    learning = [{name for name, p in model.named_parameters() if p.requires_grad} for model in (lite0, loaded)]
    assert learning[0] == learning[1]


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.0])
def test_a_truncated_model_file_is_refused(model_file, keep):
    path = model_file[1]
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="model.pth: is no PyTorch checkpoint, or a truncated one"):
        segmentation.load(path)


def test_a_model_file_of_the_other_kind_is_refused_and_both_are_named(model_file, tmp_path):
    attention.save(attention.create(ModelConfig(tiny.NAMES, weights=None)), tmp_path / "attention.pth")
    with pytest.raises(CheckpointError, match="attention.pth: is a dsna-attention-1 file, and dsna-segmentation-1 was"):
        segmentation.load(tmp_path / "attention.pth")
    with pytest.raises(CheckpointError, match="model.pth: is a dsna-segmentation-1 file, and dsna-attention-1 was"):
        attention.load(model_file[1])
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match="other.pth: is a checkpoint, but no model file of this book, and dsna-seg"
    ):
        segmentation.load(tmp_path / "other.pth")


def test_a_model_file_for_other_classes_is_refused(model_file):
    with pytest.raises(CheckpointError, match=r"model.pth: knows 3 classes \(red, green.*the data has 2 \(cat, dog"):
        segmentation.load(model_file[1], ("cat", "dog"))


# --- the evaluation server


def test_the_servers_archive(mixed, tmp_path):
    for k, record in enumerate(mixed.records):
        write_mask(tmp_path / "crf" / f"{record.id}.png", np.full(MIXED[k], k, np.uint8))
    (tmp_path / "crf" / "stray.png").write_bytes(b"")
    path = server_archive(tmp_path / "crf", mixed, tmp_path / "results.tar.gz")
    assert path == tmp_path / "results.tar.gz"
    with tarfile.open(path, "r:gz") as archive:
        assert archive.getnames() == [f"results/VOC2012/Segmentation/comp6_test_cls/p{k}.png" for k in range(5)]
        with archive.extractfile(archive.getnames()[3]) as file:
            assert (np.asarray(Image.open(file)) == 3).all()


def test_masks_that_the_archive_lacks_are_named(mixed, tmp_path):
    for name in ("p0", "p3"):
        write_mask(tmp_path / "crf" / f"{name}.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(AnnotationError, match="crf: 3 of 5 masks are missing: p1, p2, p4$"):
        server_archive(tmp_path / "crf", mixed, tmp_path / "results.tar.gz")
    assert not (tmp_path / "results.tar.gz").exists()
