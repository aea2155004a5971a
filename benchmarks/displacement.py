"""How far a backbone's cells lie beside the pixels that they stand for, measured with mirrored pictures.

Features of a picture, and those of its mirror image mirrored back, show the same things. Where the first lie d pixels
to the right of what they show, the second lie d pixels to the left of it: so half of the shift that makes them most
alike is d. No mask and no label is needed. Up and down it cannot be measured so: no network has learned from pictures
that stand on their heads.

    python benchmarks/displacement.py [--name displacement]     # the weights as for training, see DSNA_WEIGHTS
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dsna_lib import backbones
from dsna_lib.convolutions import recast
from dsna_lib.data import minivoc, transforms
from dsna_lib.engine.provenance import write_result

SIZE = 224
FARTHEST = 48  # pixels between the two
CHANNELS = 64  # of the features, evenly spread


@torch.inference_mode()
def displacement(features: Callable[[Tensor], Tensor], pictures: Iterable[Tensor]) -> float:
    """By how many pixels features lie to the right of what they show; pictures are ``(1, 3, H, W)``."""
    shifts = range(-FARTHEST, FARTHEST + 1, 2)
    apart = np.zeros(len(shifts))
    for picture in pictures:
        own, mirrored = features(picture), features(picture.flip(-1)).flip(-1)
        one, other = (
            interpolate(each[:, :: max(1, each.shape[1] // CHANNELS)].float(), picture.shape[-2:], mode="bilinear")
            for each in (own, mirrored)
        )
        inner = slice(FARTHEST, picture.shape[-1] - FARTHEST)  # what a shift brings in from the other side stays out
        apart += [((one - other.roll(shift, -1))[..., inner] ** 2).mean().item() for shift in shifts]
    least = min(max(int(apart.argmin()), 1), len(apart) - 2)
    before, there, after = apart[least - 1 : least + 2]  # the vertex of the parabola through these three
    vertex = (before - after) / (2 * (before - 2 * there + after))
    return round(float(shifts[least] + 2 * vertex) / 2, 1)


def moved() -> Callable[[Tensor], Tensor]:
    """EfficientNet-lite0 whose first three halvings pad the start; it was trained with padding at the end."""
    backbone = backbones.create("efficientnet_lite0")
    halving = [name for name, layer in backbone.named_modules() if getattr(layer, "stride", 1) == (2, 2)]
    for name in halving[:-1]:
        recast(backbone, name, nn.Conv2d)
    return backbone


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--pictures", type=int, default=30, help="of the drawn validation pictures")
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    shown = minivoc.load("val").with_transform(transforms.inference(SIZE))
    pictures = [shown[place]["image"][None] for place in range(args.pictures)]
    makers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "VGG-16": lambda: backbones.create("vgg16"),
        "ResNet-50": lambda: backbones.create("resnet50_caffe"),
        "EfficientNet-lite0": lambda: backbones.create("efficientnet_lite0"),
        "EfficientNet-lite0, padding moved": moved,
    }
    found = {}
    for name, make in makers.items():
        found[name] = displacement(make(), pictures)
        print(f"{name}: {found[name]:+.1f} pixels of {SIZE}", flush=True)
    if args.name:
        about = {"what": "pixels by which features lie to the right of what they show", "side": SIZE}
        print(f"written to {write_result(args.name, found, about | {'pictures': args.pictures})}")


if __name__ == "__main__":
    main()
