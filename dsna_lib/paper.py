"""The numbers that the paper prints, as data, in percent.

Source: Zhang et al., "Decoupled Spatial Neural Attention for Weakly Supervised Semantic Segmentation",
Sec. IV-B, measured on the 1,449 pictures of PASCAL VOC 2012 val with VGG-16. None where it prints no number.
"""

from __future__ import annotations

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


def table_i_relations(rows: dict[str, dict[str, float]]) -> dict[str, bool]:
    """What Sec. IV-B concludes from Table I, asked of other measurements.

    Args:
        rows: like :data:`TABLE_I`.

    Returns:
        Each relation, and whether it holds in these rows.

    Example:
        >>> all(table_i_relations(TABLE_I).values())
        True
    """
    expansive, discriminative, merged = rows["expansive"], rows["discriminative"], rows["merged"]
    return {
        "the expansive map has the higher recall": expansive["recall"] > discriminative["recall"],
        "the discriminative map has the higher precision": discriminative["precision"] > expansive["precision"],
        "the expansive map has the higher IoU": expansive["iou"] > discriminative["iou"],
        "the merged map has the highest IoU": merged["iou"] > max(expansive["iou"], discriminative["iou"]),
    }
