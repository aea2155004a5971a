"""How far does each unsettled detail of the paper move Table I?

One forward pass a picture; every reading of the paper is then applied to the same maps, so the rows differ in
that reading alone. True image labels, no CRF, one scale. No threshold is chosen here: 0.2 and 0.3 throughout.

    python benchmarks/sensitivity.py --model model.pth --root VOCdevkit --split val --name sensitivity_vgg16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsna_lib import annotate, attention, maps, runs
from dsna_lib.data import read_mask, transforms, voc
from dsna_lib.metrics import VOID_POLICIES, ConfusionMatrix, average_precision

# Raw a and s (C, h, w), logits p (C,), present classes (C,) bool -> maps (C, h, w).
Reading = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

READINGS: dict[str, Reading] = {
    "expansive": lambda a, s, p, present: maps.min_max(a),
    "discriminative": lambda a, s, p, present: maps.positive_part(s),
    "discriminative, min-max of raw S": lambda a, s, p, present: maps.min_max(s),
    "merged": lambda a, s, p, present: maps.merge(a, s, p),
    "merged, min-max of raw S": lambda a, s, p, present: maps.merge(a, s, p, normalize_discriminative=maps.min_max),
    "merged, softmax over present classes": lambda a, s, p, present: maps.merge(a, s, p, present),
    "merged, sigmoid as weight": lambda a, s, p, present: _blend(a, s, p.sigmoid()),
    "merged, weight 0.5": lambda a, s, p, present: _blend(a, s, torch.full_like(p, 0.5)),
    "merged, elementwise maximum": lambda a, s, p, present: torch.maximum(maps.min_max(a), maps.positive_part(s)),
    "expansive times positive discriminative": lambda a, s, p, present: maps.min_max(a * s.clamp_min(0)),
}


def _blend(a: Tensor, s: Tensor, weight: Tensor) -> Tensor:
    weight = weight[:, None, None]
    return weight * maps.min_max(a) + (1 - weight) * maps.positive_part(s)


@torch.inference_mode()
def measure(model: attention.AttentionModel, pictures, size: int, precision: str) -> dict:
    """Every reading's precision, recall and IoU in percent, and what the classifier says."""
    matrices = {name: ConfusionMatrix(pictures.num_classes + 1) for name in [*READINGS, "merged, threshold first"]}
    to_network = transforms.inference(size)
    scores, weights = [], []
    single = {kind: [] for kind in maps.KINDS}  # one matrix a picture, for the bootstrap
    for index, record in enumerate(tqdm(pictures.records, disable=None, leave=False)):
        image = to_network(pictures[index]["image"])[None].to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = model(image)
        p, a, s, x = (t[0].float() for t in output)
        present = torch.zeros(len(p), dtype=torch.bool)
        present[list(record.labels)] = True
        scores.append(p.numpy())
        weights += maps.score_weight(p)[present].tolist()
        target = read_mask(record.mask)
        for name, matrix in matrices.items():
            found = READINGS.get(name, READINGS["merged"])(a, s, p, present)
            annotation = annotate.pseudo_annotation(
                found, x, record.labels, target.shape, upsample_first=name != "merged, threshold first"
            )
            matrix.update(annotation.numpy(), target)
            if name in single:
                alone = ConfusionMatrix(matrix.num_classes)
                alone.update(annotation.numpy(), target)
                single[name].append(alone.counts)
    labels = pictures.targets().numpy()
    rows = {name: matrix.summary() for name, matrix in matrices.items()}
    for policy in VOID_POLICIES[1:]:
        for kind in maps.KINDS:
            rows[f"{kind}, void as {policy}"] = matrices[kind].with_void(policy).summary()
    classes = {kind: np.round(100 * matrices[kind].iou, 1).tolist() for kind in maps.KINDS}
    counts = {kind: np.stack(each) for kind, each in single.items()}
    several = labels.sum(axis=1) > 1
    return {
        "rows": rows,
        "iou_difference_95_percent": bootstrap(counts),
        "by_number_of_labels": {
            name: {"pictures": int(chosen.sum())}
            | {kind: round(_mean_iou(each[chosen].sum(axis=0)), 2) for kind, each in counts.items()}
            for name, chosen in (("one", ~several), ("several", several))
        },
        "iou_per_class": {"classes": ["background", *pictures.class_names], **classes},
        "classifier_mean_average_precision": round(float(np.nanmean(average_precision(np.stack(scores), labels))), 4),
        "p_hat_of_present_classes": {
            f"{q} %": round(float(np.percentile(weights, q)), 3) for q in (10, 25, 50, 75, 90)
        },
    }


def _mean_iou(counts: np.ndarray) -> float:
    """Mean IoU in percent of counts ``(classes, classes + 1)``."""
    matrix = ConfusionMatrix(len(counts))
    matrix.counts = counts
    return 100 * matrix.mean_iou


def bootstrap(counts: dict[str, np.ndarray], rounds: int = 1000, seed: int = 0) -> dict[str, list[float]]:
    """How far the choice of pictures moves the differences in IoU between kinds of map.

    Pictures are drawn with replacement, the same ones for all kinds; training is not repeated.

    Args:
        counts: kind to ``(pictures, classes, classes + 1)``.
        rounds: how often to draw.
        seed: of the draws.

    Returns:
        For each pair of kinds, the 2.5, 50 and 97.5 percentiles of the difference, in percentage points.
    """
    random, found = np.random.default_rng(seed), {kind: [] for kind in counts}
    size = len(next(iter(counts.values())))
    for _ in range(rounds):
        drawn = np.bincount(random.integers(size, size=size), minlength=size)
        for kind, each in counts.items():
            found[kind].append(_mean_iou(np.tensordot(drawn, each, axes=1)))
    pairs = [("merged", "expansive"), ("merged", "discriminative"), ("expansive", "discriminative")]
    differences = {f"{a} - {b}": np.subtract(found[a], found[b]) for a, b in pairs}
    return {name: np.percentile(d, [2.5, 50, 97.5]).round(2).tolist() for name, d in differences.items()}


def main() -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", type=Path, required=True)
    ask.add_argument("--root", type=Path, required=True)
    ask.add_argument("--split", default="val")
    ask.add_argument("--name", required=True, help="results/NAME.json is written")
    ask.add_argument("--size", type=int, default=224, help="side of the network's input in pixels")
    ask.add_argument("--precision", default="bf16", choices=["no", "bf16"])
    ask.add_argument("--note", default="", help="limits of the data or recipe, kept in the provenance")
    args = ask.parse_args()
    pictures = voc.load(args.root, args.split)
    model = attention.load(args.model, pictures.class_names)
    values = measure(model, pictures, args.size, args.precision)
    provenance = {
        "script": "benchmarks/sensitivity.py",
        "split": args.split,
        "pictures": len(pictures),
        "data": runs.data_digest(pictures),
        "labels": "the true image labels",
        "protocol": f"{args.size} x {args.size} input, one scale, no CRF, {args.precision}",
        "note": args.note,
        "trained": runs.model_provenance(args.model),
    }
    path = runs.write_result(args.name, values, provenance)
    for name, row in values["rows"].items():
        print(f"{name:45s} {row['precision']:6.1f} {row['recall']:6.1f} {row['iou']:6.1f}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
