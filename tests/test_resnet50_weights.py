"""ResNet-50's weights under torchvision's names: they compute what they did under Keras's, on made-up numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import resnet50_weights
import timm
import torch
from torch.nn import functional

from dsna_lib import backbones
from dsna_lib.backbones import IMAGENET_MEAN, IMAGENET_STD, CheckpointError


@pytest.fixture(scope="module")
def arrays():
    """As Keras has them: kernels (height, width, in, out), biases, BatchNorm's four."""
    rng, made = np.random.default_rng(0), {}

    def layer(convolution, norm, size, before, after):
        made[f"{convolution}/kernel"] = rng.normal(size=(size, size, before, after)).astype("f4") / (size * before**0.5)
        made[f"{convolution}/bias"] = rng.normal(size=after).astype("f4")
        for name in ("gamma", "beta", "moving_mean"):
            made[f"{norm}/{name}"] = rng.normal(size=after).astype("f4")
        made[f"{norm}/moving_variance"] = rng.random(after).astype("f4") + 0.5

    layer("conv1", "bn_conv1", 7, 3, 64)
    channels = 64
    for stage, blocks in enumerate(resnet50_weights.BLOCKS, 2):
        width = 32 * 2**stage // 2
        for block in "abcdef"[:blocks]:
            for branch, size, before, after in (
                *(("2a", 1, channels, width), ("2b", 3, width, width), ("2c", 1, width, 4 * width)),
                *([("1", 1, channels, 4 * width)] if block == "a" else []),
            ):
                layer(f"res{stage}{block}_branch{branch}", f"bn{stage}{block}_branch{branch}", size, before, after)
            channels = 4 * width
    made |= {"fc1000/kernel": rng.normal(size=(2048, 1000)).astype("f4"), "fc1000/bias": np.zeros(1000, "f4")}
    return made


def kerass(arrays, convolution, norm, values, stride=1, padding=0):
    """A convolution and its BatchNorm (N, C, h, w), straight from Keras's arrays."""
    kernel = torch.tensor(arrays[f"{convolution}/kernel"].transpose(3, 2, 0, 1).copy())
    values = functional.conv2d(values, kernel, torch.tensor(arrays[f"{convolution}/bias"]), stride, padding)
    four = (torch.tensor(arrays[f"{norm}/{name}"]) for name in ("moving_mean", "moving_variance", "gamma", "beta"))
    return functional.batch_norm(values, *four, eps=1e-3)


def test_the_first_layer_takes_rgb_and_a_block_has_its_stride_in_front(arrays, tmp_path):
    state = resnet50_weights.convert(arrays)
    torch.save(state, tmp_path / "weights.pth")
    assert set(state) == set(timm.create_model("resnet50").state_dict())
    stem, _, second, *_ = backbones.create("resnet50_caffe", weights=tmp_path / "weights.pth").stages
    picture = torch.rand(1, 3, 40, 40)
    column = (1, 3, 1, 1)
    shown = (picture - torch.tensor(IMAGENET_MEAN).view(column)) / torch.tensor(IMAGENET_STD).view(column)
    caffes = (255 * picture - torch.tensor(resnet50_weights.CAFFE_MEAN).view(column)).flip(1)
    expected = kerass(arrays, "conv1", "bn_conv1", caffes, 2, 3)
    # At the border they differ: zeros mean another color here and there.
    torch.testing.assert_close(
        stem[1](stem[0](shown))[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=2e-3, rtol=1e-4
    )

    x = torch.rand(1, 256, 12, 12)
    inner = kerass(arrays, "res3a_branch2a", "bn3a_branch2a", x, 2).relu()
    inner = kerass(arrays, "res3a_branch2b", "bn3a_branch2b", inner, 1, 1).relu()
    inner = kerass(arrays, "res3a_branch2c", "bn3a_branch2c", inner)
    expected = (inner + kerass(arrays, "res3a_branch1", "bn3a_branch1", x, 2)).relu()
    torch.testing.assert_close(second[0](x), expected, atol=1e-4, rtol=1e-4)


def test_a_package_is_read_over_several_files(tmp_path):
    first, second = np.arange(6, dtype="<f4"), np.arange(6, 10, dtype="<f4")
    (tmp_path / "one.bin").write_bytes(first.tobytes()[:10])
    (tmp_path / "two.bin").write_bytes(first.tobytes()[10:] + second.tobytes())
    entries = [{"name": "a/kernel", "shape": [2, 3]}, {"name": "b/bias", "shape": [4]}]
    manifest = {"weightsManifest": [{"paths": ["one.bin", "two.bin"], "weights": entries}]}
    (tmp_path / "model.json").write_text(json.dumps(manifest))
    made = resnet50_weights.read(tmp_path)
    np.testing.assert_array_equal(made["a/kernel"], first.reshape(2, 3))
    np.testing.assert_array_equal(made["b/bias"], second)


def test_without_its_weights_it_says_how_to_get_them(monkeypatch):
    monkeypatch.delenv("DSNA_WEIGHTS", raising=False)
    with pytest.raises(
        CheckpointError, match=r"weights of resnet50_caffe are not here; tools/resnet50_weights.py makes"
    ):
        backbones.create("resnet50_caffe")
