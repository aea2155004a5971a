"""The numbers that the paper prints, as data, in percent.

Source: Zhang et al., "Decoupled Spatial Neural Attention for Weakly Supervised Semantic Segmentation",
Sec. IV-B, measured on the 1,449 pictures of PASCAL VOC 2012 val with VGG-16. None where it prints no number.
"""

from __future__ import annotations

from dataclasses import dataclass

TABLE_I: dict[str, dict[str, float | None]] = {
    "expansive": {"precision": 52.0, "recall": 71.9, "iou": 42.1},
    "discriminative": {"precision": 61.2, "recall": 54.4, "iou": 39.4},
    "merged": {"precision": None, "recall": None, "iou": 44.0},
}

SINGLE_STREAM = {"precision": 48.3, "recall": 49.7, "iou": 31.5}

# Dropout rate to the merged map's scores.
TABLE_II = {
    0.0: {"precision": 57.3, "recall": 64.5, "iou": 42.6},
    0.3: {"precision": 57.1, "recall": 65.7, "iou": 43.1},
    0.4: {"precision": 56.7, "recall": 67.6, "iou": 43.7},
    0.5: {"precision": 56.2, "recall": 69.6, "iou": 44.0},
    0.6: {"precision": 55.1, "recall": 71.6, "iou": 44.2},
    0.7: {"precision": 51.8, "recall": 74.1, "iou": 42.8},
}


@dataclass(frozen=True)
class Claim:
    """A relation between rows of a table of :mod:`dsna_lib.tables`.

    Attributes:
        table: name of the table.
        text: what is claimed.
        measure: the column that it is about.
        rows: titles of rows along which the measure is claimed to grow at every step.
        source: ``"paper"``, or ``"book"`` for a question that the paper raises but gives no numbers for.
    """

    table: str
    text: str
    measure: str
    rows: tuple[str, ...]
    source: str = "paper"


_RATES = tuple(f"{rate:g}" for rate in TABLE_II)

CLAIMS = (
    Claim("I", "the expansive map has the higher recall", "recall", ("discriminative", "expansive")),
    Claim("I", "the discriminative map has the higher precision", "precision", ("expansive", "discriminative")),
    Claim("I", "the expansive map has the higher IoU", "iou", ("discriminative", "expansive")),
    Claim("I", "the merged map beats the expansive map in IoU", "iou", ("expansive", "merged")),
    Claim("I", "the merged map beats the discriminative map in IoU", "iou", ("discriminative", "merged")),
    Claim("II", "recall grows with the dropout rate, at every step", "recall", _RATES),
    Claim("II", "precision falls with the dropout rate, at every step", "precision", _RATES[::-1]),
    Claim("II", "recall at rate 0.7 is above that without dropout", "recall", ("0", "0.7")),
    Claim("II", "precision at rate 0.7 is below that without dropout", "precision", ("0.7", "0")),
    Claim("II", "rate 0.5 beats no dropout in IoU", "iou", ("0", "0.5")),
    Claim("II", "rate 0.5 beats rate 0.7 in IoU", "iou", ("0.7", "0.5")),
    Claim(
        "single-stream", "the expansive map beats the single stream in recall", "recall", ("single stream", "expansive")
    ),
    Claim("single-stream", "the expansive map beats the single stream in IoU", "iou", ("single stream", "expansive")),
    Claim(
        "single-stream",
        "the discriminative map beats the single stream in precision",
        "precision",
        ("single stream", "discriminative"),
    ),
    Claim(
        "single-stream",
        "the discriminative map beats the single stream in IoU",
        "iou",
        ("single stream", "discriminative"),
    ),
    Claim("single-stream", "the merged map beats the single stream in IoU", "iou", ("single stream", "merged")),
    *(
        Claim("methods", f"DSNA's merged map beats {rival} in IoU", "iou", (rival, "DSNA, merged"), "book")
        for rival in ("CAM", "Grad-CAM", "excitation backprop", "contrastive excitation backprop")
    ),
    Claim(
        "methods",
        "decoupled attention (merged) beats conventional attention in IoU",
        "iou",
        ("conventional attention", "DSNA, merged"),
        "book",
    ),
    Claim(
        "parts",
        "the expansive map covers more of an object beside its telling part",
        "rest",
        ("DSNA, discriminative", "DSNA, expansive"),
        "book",
    ),
    Claim("parts", "CAM covers less of the whole object than the merged map", "whole", ("CAM", "DSNA, merged"), "book"),
)
