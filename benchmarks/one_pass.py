"""What maps of a picture's present classes cost: one forward pass beside what a user would take instead.

Every contender runs one VGG-16 up to relu5_3 on the same pictures, with two classes present:

- ``backbone``: its bare forward pass, the unit (as a contender of its own it shows the noise of the ratios).
- ``dsna``: all three maps of all classes, from one forward pass of the attention model.
- ``torch-cam``, ``grad-cam``: Grad-CAM as the documentation of each package shows it, asked for each class.
- ``multi-scale cam``: CAM at four scales with mirrored pictures, ReLU, resized to the picture and summed, as the
  IRN pipeline makes its maps (Ahn, Cho and Kwak, CVPR 2019). The rescaled pictures are made beforehand, as its
  data loader does; its second set of maps, at a quarter of the size, is left out.
- ``dsna_lib.methods.cams``: this library's Grad-CAM of the wanted classes.

All but ``dsna`` explain the pooled linear classifier. Maps come in the size that each gives: the features' or the
picture's. Each time is divided by that of a bare pass right before or after it, so that a machine that slows down
slows both.

    python benchmarks/one_pass.py [--batch-sizes 1 8] [--rounds 20] [--precision bf16] [--name one_pass_bf16]
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import backbones, maps
from dsna_lib.attention import AttentionModel, DecoupledAttention, SingleStreamAttention
from dsna_lib.data import voc
from dsna_lib.engine.provenance import write_result
from dsna_lib.methods import cams

PRESENT = [7, 14]  # cat and person
SCALES = (1.0, 0.5, 1.5, 2.0)  # of the IRN pipeline
UNIT = "backbone"


class Classifier(nn.Module):
    """A model as the packages expect it: pictures in, scores out."""

    def __init__(self, model: AttentionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)`` to scores ``(N, C)``."""
        return self.model(pictures).scores


def contenders(backbone: backbones.Backbone, batch: Tensor) -> dict[str, Callable[[], Tensor]]:
    """What is timed, on pictures `batch` ``(N, 3, H, W)`` in 0..1.

    Returns:
        Name to a function that gives the maps ``(N, 2, h, w)`` of the present classes; the bare pass, its features.
    """
    count, channels = len(voc.CLASS_NAMES), backbone.out_channels
    decoupled = AttentionModel(backbone, DecoupledAttention(channels, count)).eval().to(batch.device)
    # A 1x1 convolution and its spatial mean: global average pooling and a linear layer.
    pooled = AttentionModel(backbone, SingleStreamAttention(channels, count, dropout=0)).eval().to(batch.device)
    classifier, layer = Classifier(pooled), backbone.stages[-1]
    wanted = torch.zeros(len(batch), count, dtype=torch.bool, device=batch.device)
    wanted[:, PRESENT] = True
    rescaled = [functional.interpolate(batch, scale_factor=s, mode="bicubic") for s in SCALES]

    @torch.no_grad()
    def bare() -> Tensor:
        return backbone(batch)

    @torch.no_grad()
    def dsna() -> Tensor:
        return maps.from_output(decoupled(batch))["merged"][:, PRESENT]

    # Both packages hook into the network while their object lives. It is made anew in each call, which takes next
    # to nothing, so that nobody else runs through its hooks.
    def torch_cam() -> Tensor:
        from torchcam.methods import GradCAM

        with GradCAM(classifier, target_layer=layer) as extractor:
            scores = classifier(batch)
            own = [extractor(c, scores, retain_graph=c != PRESENT[-1])[0] for c in PRESENT]
        return torch.stack(own, dim=1)

    def grad_cam() -> Tensor:
        from pytorch_grad_cam import GradCAM
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        with GradCAM(model=classifier, target_layers=[layer]) as cam:
            own = [cam(input_tensor=batch, targets=[ClassifierOutputTarget(c)] * len(batch)) for c in PRESENT]
        return torch.from_numpy(np.stack(own, axis=1))

    @torch.no_grad()
    def multi_scale_cam() -> Tensor:
        if len(batch) > 1:
            raise ValueError("its pipeline takes one picture at a time")
        total = torch.zeros((), device=batch.device)
        for picture in rescaled:
            features = backbone(torch.cat([picture, picture.flip(-1)]))
            evidence = functional.conv2d(features, pooled.head.discriminative.weight).relu()
            evidence = evidence[:1] + evidence[1:].flip(-1)
            total = total + functional.interpolate(evidence, batch.shape[-2:], mode="bilinear")
        chosen = total[:, PRESENT]
        return chosen / (chosen.amax(dim=(-2, -1), keepdim=True) + 1e-5)

    @torch.no_grad()
    def own_grad_cam() -> Tensor:
        return cams.cam_maps(pooled, batch, wanted, ["grad_cam"])[1]["grad_cam"][:, PRESENT]

    ours = {UNIT: bare, "dsna": dsna, "dsna_lib.methods.cams": own_grad_cam}
    return ours | {"torch-cam": torch_cam, "grad-cam": grad_cam, "multi-scale cam": multi_scale_cam}


def measure(backbone: backbones.Backbone, batch: Tensor, rounds: int, bf16: bool = False) -> dict[str, dict[str, Any]]:
    """Time the contenders in turns, each beside a bare pass.

    Returns:
        Per contender ``milliseconds_a_picture`` and ``ratio`` (medians), and the ratio's ``quartiles``; or ``skipped``,
        the reason.
    """
    works, rows, times, chance = contenders(backbone, batch), {}, {}, random.Random(0)

    def seconds(name: str) -> float:
        start = time.perf_counter()
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=bf16):
            works[name]()
        if batch.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for name in works:
        try:
            seconds(name), seconds(name)  # warms up
            times[name] = np.empty((rounds, 2))
        except ImportError as error:
            rows[name] = {"skipped": f"{error.name} is not installed: pip install -e .[bench]"}
        except (TypeError, ValueError, RuntimeError) as error:  # what a rival cannot do is a finding
            if name in (UNIT, "dsna", "dsna_lib.methods.cams"):
                raise
            rows[name] = {"skipped": f"does not run: {error}"}
    gc.collect(), gc.freeze()  # a later collection need not look through all that was imported
    for step in range(rounds):
        for name in chance.sample(list(times), len(times)):  # no contender always comes after the same one
            for column, which in chance.sample([(0, name), (1, UNIT)], 2):
                gc.collect()  # what one leaves behind is not charged to the next
                times[name][step, column] = seconds(which)
    gc.unfreeze()
    for name, pairs in times.items():
        low, middle, high = np.percentile(pairs[:, 0] / pairs[:, 1], [25, 50, 75]).round(3).tolist()
        milliseconds = round(1e3 * float(np.median(pairs[:, 0])) / len(batch), 2)
        rows[name] = {"milliseconds_a_picture": milliseconds, "ratio": middle, "quartiles": [low, high]}
    return {name: rows[name] for name in works}


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    ask.add_argument("--rounds", type=int, default=20)
    ask.add_argument("--size", type=int, default=224, help="side of the pictures in pixels")
    ask.add_argument("--precision", default="no", choices=["no", "bf16"])
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    if min(args.rounds, *args.batch_sizes) < 1:
        ask.error("--rounds and --batch-sizes must be at least 1")
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    backbone = backbones.create("vgg16", weights=None).to(device)  # the time does not depend on the weights' values
    values = {}
    for count in args.batch_sizes:
        batch = torch.rand(count, 3, args.size, args.size, device=device).to(memory_format=torch.channels_last)
        rows = values[f"batch of {count}"] = measure(backbone, batch, args.rounds, args.precision == "bf16")
        print(f"vgg16, batch of {count}, precision {args.precision}, {torch.get_num_threads()} threads")
        for name, row in rows.items():
            text = row.get("skipped") or "{milliseconds_a_picture:8.1f} ms  x {ratio:.3f} {quartiles}".format(**row)
            print(f"  {name:16s} {text}")
    if args.name:
        provenance = {"script": "benchmarks/one_pass.py", "arguments": vars(args), "threads": torch.get_num_threads()}
        rivals = {each.name: each.version for each in metadata.distributions() if each.name in ("torchcam", "grad-cam")}
        write_result(args.name, values, provenance | {"rivals": rivals})


if __name__ == "__main__":
    main()
