"""Whether DeepLab-LargeFOV can learn at all: it is trained on the true masks of 8 photographs and scored on the same 8.

A network, loss, label grid or enlargement that is wrong anywhere cannot reach 90 % of mean IoU. The photographs are the
first of VOC's split `train` whose objects are large enough for the network's grid of 8 pixels; this book does not carry
them.

    python benchmarks/overfit.py --root VOCdevkit [--steps 300] [--name overfit_vgg16]
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import torch

from dsna_lib import annotate, training
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data import voc
from dsna_lib.data.pictures import Record, read_mask
from dsna_lib.engine.provenance import write_result
from dsna_lib.segmentation import networks
from dsna_lib.segmentation.inference import segment_split
from dsna_lib.segmentation.training import train_segmentation

SMALLEST = 0.05  # of the picture; what a class covers, void borders included in the picture


def all_large(record: Record) -> bool:
    """Whether every class of a picture covers enough of it: the grid alone costs a small object much of its IoU."""
    mask = read_mask(record.mask)
    return all((mask == index + 1).mean() >= SMALLEST for index in record.labels)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", required=True)
    ask.add_argument("--backbone", default="vgg16")
    ask.add_argument("--pictures", type=int, default=8)
    ask.add_argument("--batch-size", type=int, default=4)
    ask.add_argument("--crop", type=int, default=SegmentationTraining.crop)
    ask.add_argument("--steps", type=int, default=300)
    ask.add_argument("--train-last", type=int, help="stages of the backbone that learn; all by default")
    ask.add_argument("--backbone-rate", type=float, default=0.001)
    ask.add_argument("--precision", default="auto", choices=["auto", "no", "bf16"])
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    pictures = voc.load(args.root, "train")
    pictures = pictures.select([record.id for record in islice(filter(all_large, pictures.records), args.pictures)])
    config = SegmentationTraining(
        epochs=args.steps * args.batch_size // args.pictures,
        batch_size=args.batch_size,
        crop=args.crop,
        scales=(1.0, 1.3),
        backbone_rate=args.backbone_rate,
        head_rate=10 * args.backbone_rate,
        schedule="poly",
        precision=args.precision,
        workers=0,
        checkpoint_every=args.steps,
    )
    torch.manual_seed(0)
    # Dropout is there to prevent what is wanted here.
    network = SegmentationConfig(pictures.class_names, args.backbone, dropout=0.0, train_last=args.train_last)
    model = networks.create(network)
    with tempfile.TemporaryDirectory() as folder:
        train_segmentation(model, pictures, config, Path(folder) / "run")
        loss = training.read_log(Path(folder) / "run")[-1]["loss"]
        segment_split(model, pictures, folder, ("single", "multi"))
        matrices = {kind: annotate.evaluate(Path(folder) / kind, pictures) for kind in ("single", "multi")}
    iou_by_kind = {kind: matrix.summary()["iou"] for kind, matrix in matrices.items()}
    names = ("background", *pictures.class_names)
    per_class = {
        name: round(100 * float(iou), 1) for name, iou in zip(names, matrices["single"].iou, strict=True) if iou == iou
    }
    print(f"{args.pictures} pictures, {args.steps} steps, last loss {loss:.4f}; mean IoU on them: {iou_by_kind}")
    print(f"at one scale, by class: {per_class}")
    if args.name:
        values = {"mean_iou": iou_by_kind, "per_class": per_class, "last_loss": round(loss, 4)}
        asked = {name: value for name, value in vars(args).items() if name not in ("root", "name")}
        write_result(args.name, values, {"script": "benchmarks/overfit.py", "arguments": asked})


if __name__ == "__main__":
    main()
