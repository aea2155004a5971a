"""What things cost: annotating, one forward pass, a training step; and what it costs to be stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsna_lib.tables.render import markdown
from pages.stored import values

PRECISIONS = ("fp32", "bf16")
ONE_PASS = {
    "backbone": "the bare forward pass, against itself",
    "dsna": "both maps and their merger, of all classes",
    "cams": "Grad-CAM, this library",
    "torch-cam": "Grad-CAM, torch-cam",
    "grad-cam": "Grad-CAM, grad-cam",
    "multi-scale cam": "CAM at four scales, mirrored",
}


def cost() -> str:
    """What annotating costs beside looking."""
    rows = []
    for precision in PRECISIONS:
        measured = values(f"annotation_cost_{precision}")
        times = measured["milliseconds_a_picture"]
        rows.append([precision, times["backbone"], times["annotated"], f"{measured['ratio']:.3f}"])
    return markdown(["precision", "backbone, ms a picture", "with maps and annotation, ms", "ratio"], rows)


def one_pass() -> str:
    """One forward pass beside what a user would take instead."""
    rows = []
    for precision in PRECISIONS:
        for batch, measured in values(f"one_pass_{precision}").items():
            # A module of this library goes by its last name: files outlive the folders that modules lie in.
            titles = {name: ONE_PASS[name.rpartition(".")[2]] for name in measured}
            rows += [[f"{precision}, {batch}: {titles[name]}", *pass_times(row)] for name, row in measured.items()]
    return markdown(["precision, pictures: maps", "ms a picture", "times the bare pass (quartiles)"], rows)


def pass_times(row: dict[str, Any]) -> list[Any]:
    """Milliseconds a picture, and how many bare forward passes that is; or why it was skipped."""
    if "skipped" in row:
        return [None, row["skipped"]]
    low, high = row["quartiles"]
    return [row["milliseconds_a_picture"], f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"]


def segmentation_speed() -> str:
    """What the book's loop, reading pictures and a second process for the CRF cost or gain."""
    measured = values("segmentation_speed_lite0")
    step, crf = measured["step"], measured["crf"]
    return (
        f"A step of the book's loop takes {step['ratio']:.2f} times a bare PyTorch loop's, "
        f"which waits for pictures {100 * step['waiting_for_pictures']:.1f} % of its time; two processes of the CRF "
        f"refine {crf['ratio']:.2f} times as many pictures as one.\n"
    )


def stopped() -> str:
    """How commands came out that were stopped at random moments and started again."""
    counted = {
        "files that differ": "differing",
        "processes left": "orphans",
        "more said than a sentence": "talkative",
        "temporary files left": "leftovers",
        "refused to go on": "refused",
    }
    rows = []
    for stage, count in values("kills").items():
        found = [count[key] if key == "orphans" else len(count[key]) for key in counted.values()]
        rows.append([f"`dsna {stage}`", str(count["hits"]), *map(str, found)])
    return markdown(["command", "stopped", *counted], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__: block for block in (cost, one_pass, segmentation_speed, stopped)
}
