"""How far does each unsettled detail of the paper move Table I of one trained model?

Reads every way of :data:`dsna_lib.measure.MAPS` off the same forward passes, so the rows differ in that reading
alone; then looks at where the difference between the maps comes from. True image labels, no CRF, one scale. No
threshold is chosen here: 0.2 and 0.3 throughout. (`dsna table sensitivity` trains a model, too.)

    python benchmarks/sensitivity.py --model model.pth --root VOCdevkit --split val --name sensitivity_vgg16
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dsna_lib import attention, maps, measure, runs, tables
from dsna_lib.data import Pictures, voc
from dsna_lib.measure import Measurement, Reading
from dsna_lib.metrics import VOID_POLICIES

READINGS: dict[str, Reading] = {
    "expansive": Reading("expansive"),
    "discriminative": Reading("discriminative"),
    "discriminative, min-max of raw S": Reading("discriminative, min-max"),
    "merged": Reading("merged"),
    "merged, min-max of raw S": Reading("merged, min-max"),
    "merged, softmax over present classes": Reading("merged, present"),
    "merged, sigmoid as weight": Reading("merged, sigmoid"),
    "merged, weight 0.5": Reading("mean"),
    "merged, elementwise maximum": Reading("maximum"),
    "expansive times positive discriminative": Reading("product"),
    "merged, threshold first": Reading("merged", upsample_first=False),
}
PAIRS = (("merged", "expansive"), ("merged", "discriminative"), ("expansive", "discriminative"))


def values(found: Measurement, pictures: Pictures) -> dict:
    """Every reading's precision, recall and IoU in percent, and where the differences between maps come from."""
    rows = {name: measure.matrix_of(found.counts[r].sum(axis=0)).summary() for name, r in READINGS.items()}
    for policy in VOID_POLICIES[1:]:
        for kind in maps.KINDS:
            counts = found.counts[Reading(kind)].sum(axis=0)
            rows[f"{kind}, void as {policy}"] = measure.matrix_of(counts, policy).summary()
    several = pictures.targets().numpy().sum(axis=1) > 1
    return {
        "rows": rows,
        "iou_difference_95_percent": {f"{one} - {other}": difference(found, one, other) for one, other in PAIRS},
        "by_number_of_labels": {
            name: {"pictures": int(chosen.sum())} | {kind: iou(found, kind, chosen) for kind in maps.KINDS}
            for name, chosen in (("one", ~several), ("several", several))
        },
        "classifier_mean_average_precision": round(found.mean_average_precision, 4),
        "p_hat_of_present_classes": {
            f"{q} %": round(float(np.percentile(found.weight, q)), 3) for q in (10, 25, 50, 75, 90)
        },
    }


def iou(found: Measurement, kind: str, chosen: np.ndarray) -> float:
    """Mean IoU in percent of the chosen pictures, taken alone."""
    return round(100 * measure.matrix_of(found.counts[Reading(kind)][chosen].sum(axis=0)).mean_iou, 2)


def difference(found: Measurement, one: str, other: str) -> list[float]:
    """By how much one kind's IoU exceeds another's, between the ends of the bootstrap's interval, in points."""
    everything = np.ones(len(found.counts[Reading(one)]), bool)
    low, high = tables.bootstrap(*(found.counts[Reading(kind)] for kind in (other, one)), "iou")
    return [low, round(iou(found, one, everything) - iou(found, other, everything), 2), high]


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
    found = measure.measure(model, pictures, list(READINGS.values()), args.size, precision=args.precision)
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
    content = values(found, pictures)
    path = runs.write_result(args.name, content, provenance)
    for name, row in content["rows"].items():
        print(f"{name:45s} {row['precision']:6.1f} {row['recall']:6.1f} {row['iou']:6.1f}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
