"""What the training loop, reading pictures and the CRF cost, side by side in one run.

- The book's loop (:func:`dsna_lib.training.fit`: checkpoints, logs, exact resumption) and a bare PyTorch
  loop around the same network, the same pictures and the same loss take turns, a few steps each; the ratio of the
  median steps is reported. What the checkpoint at the end of an epoch takes is not a step's and is left out.
- Reading pictures: the share of the bare loop's step that it waits for its loader.
- The CRF: seconds a picture with one process and with two, once all processes run (starting them takes seconds).

    python benchmarks/segmentation_speed.py --backbone vgg16 --precision bf16 [--name segmentation_speed]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from dsna_lib import crf, training
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data import Pictures, minivoc, transforms
from dsna_lib.data.pictures import without_masks
from dsna_lib.engine import pools
from dsna_lib.engine.pools import Workers
from dsna_lib.engine.provenance import write_result
from dsna_lib.segmentation import networks
from dsna_lib.segmentation.training import train_segmentation

SKIPPED = 2  # steps that warm up, of each turn


def own_loop(model: nn.Module, pictures: Pictures, config: SegmentationTraining) -> list[float]:
    """Seconds of each step of one epoch of the book's loop."""
    with tempfile.TemporaryDirectory() as folder:
        train_segmentation(model, pictures, config, folder)
        ends = [line["seconds"] for line in training.read_log(folder)]
    return [after - before for before, after in pairwise(ends)][SKIPPED:]


def bare_loop(model: nn.Module, pictures: Pictures, config: SegmentationTraining) -> tuple[list[float], float]:
    """The same, written as in PyTorch's tutorials; and the share of it that it waits for pictures."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shown = pictures.with_transform(transforms.train(config.crop, config.scales), masks=True)
    loader = DataLoader(shown, config.batch_size, shuffle=True, drop_last=True, num_workers=config.workers)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, config.backbone_rate, config.momentum, weight_decay=config.weight_decay)
    model.train().to(device, memory_format=torch.channels_last)
    ends, waited, start = [time.perf_counter()], [], time.perf_counter()
    for batch in loader:
        waited.append(time.perf_counter() - start)
        image = batch["image"].to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            logits = model(image)
        rows = torch.linspace(0, config.crop - 1, logits.shape[-1]).round().long()
        target = batch["mask"][:, rows][:, :, rows].long().to(device)
        loss = functional.cross_entropy(logits.float(), target, ignore_index=255)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        ends.append(time.perf_counter())
        start = time.perf_counter()
    steps = [after - before for before, after in pairwise(ends)]
    return steps[SKIPPED:], sum(waited[SKIPPED:]) / sum(steps[SKIPPED:])


def steps(args: argparse.Namespace) -> dict[str, float]:
    """Both loops in turns."""
    pictures = minivoc.load("train")
    pictures = pictures.select([r.id for r in pictures.records[: args.batch_size * args.steps]])
    config = SegmentationTraining(
        epochs=1, batch_size=args.batch_size, crop=args.crop, precision=args.precision, workers=args.workers
    )
    torch.manual_seed(0)
    # The time does not depend on the weights' values.
    network = SegmentationConfig(pictures.class_names, args.backbone, train_last=args.train_last, weights=None)
    model = networks.create(network)
    own, bare, waits = [], [], []
    for _ in range(args.rounds):
        own += own_loop(model, pictures, config)
        seconds, waited = bare_loop(model, pictures, config)
        bare += seconds
        waits.append(waited)
    own_step, bare_step = statistics.median(own), statistics.median(bare)
    return {
        "own_milliseconds": round(1e3 * own_step, 1),
        "bare_milliseconds": round(1e3 * bare_step, 1),
        "ratio": round(own_step / bare_step, 3),
        "waiting_for_pictures": round(statistics.median(waits), 3),
        "steps": len(own),
    }


def crf_processes(args: argparse.Namespace) -> dict[str, float]:
    """Seconds a picture with one and with two processes, from the difference between a longer and a shorter list.

    Both lists give each of two processes whole shares, the longer one twice as many.
    """
    count = 4 * pools.SHARE
    with tempfile.TemporaryDirectory() as folder:
        root = minivoc.make(Path(folder) / "data", train=1, val=count, size=args.size, workers=2)
        pictures = minivoc.load("val", root)
        truth = root / "SegmentationClass"
        half = pictures.select([record.id for record in pictures.records[: count // 2]])
        each = {}
        for jobs in (1, 2):
            seconds = []
            for some in (half, pictures):
                out = Path(folder) / f"{jobs}-{len(some)}"
                start = time.perf_counter()
                report = crf.refine_split(without_masks(some), truth, out, workers=Workers(jobs))
                seconds.append(time.perf_counter() - start)
                report.raise_failures("refined")
            each[jobs] = (seconds[1] - seconds[0]) / (len(pictures) - len(half))
    return {
        "one_process_seconds": round(each[1], 3),
        "two_processes_seconds": round(each[2], 3),
        "ratio": round(each[1] / each[2], 2),
        "pictures": count,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--backbone", default="vgg16")
    ask.add_argument("--train-last", type=int)
    ask.add_argument("--batch-size", type=int, default=5)
    ask.add_argument("--crop", type=int, default=321)
    ask.add_argument("--steps", type=int, default=8, help="of a turn")
    ask.add_argument("--rounds", type=int, default=4)
    ask.add_argument("--precision", default="no", choices=["no", "bf16"])
    ask.add_argument("--workers", type=int, default=0)
    ask.add_argument("--size", type=int, default=500, help="longer side of the CRF's pictures in pixels")
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    values = {"step": steps(args), "crf": crf_processes(args)}
    for name, measures in values.items():
        print(name, ", ".join(f"{key} {value}" for key, value in measures.items()))
    if args.name:
        write_result(args.name, values, {"script": "benchmarks/segmentation_speed.py", "arguments": vars(args)})


if __name__ == "__main__":
    main()
