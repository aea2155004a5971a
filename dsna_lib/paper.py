"""The numbers that the paper prints, as data, in percent.

Source: Zhang et al., "Decoupled Spatial Neural Attention for Weakly Supervised Semantic Segmentation",
Sec. IV-B, measured on the 1,449 pictures of PASCAL VOC 2012 val with VGG-16. None where it prints no number.
Tables III to VI are from Sec. IV-C and IV-D: the mean IoU of segmentation models, on val and on test. :data:`LATER`
is not from the paper: what was published since, each row with its own source.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dsna_lib.data.voc import CLASS_NAMES

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
class RegionMining:
    """A row of Table III: a segmentation model trained on one method's pseudo-annotations.

    Attributes:
        group: the paper's block: ``"SEC"``, ``"AE w/o PSL"`` or ``"ours"``.
        title: the row's title, the same as in the tables that are measured here.
        miou: mean IoU on val, in percent.
        quoted: the paper took the number from another paper instead of measuring it.
    """

    group: str
    title: str
    miou: float
    quoted: bool = True


TABLE_III = (
    RegionMining("SEC", "SEC, seed", 45.4),
    RegionMining("SEC", "SEC, seed + constrain", 50.4),
    RegionMining("SEC", "SEC, seed + constrain + expand", 50.7),
    RegionMining("AE w/o PSL", "AE, step 1", 44.9),
    RegionMining("AE w/o PSL", "AE, step 2", 49.5),
    RegionMining("AE w/o PSL", "AE, step 3", 50.9),
    RegionMining("AE w/o PSL", "AE, step 4", 48.8),
    RegionMining("ours", "DSNA, expansive", 54.1, quoted=False),
    RegionMining("ours", "DSNA, discriminative", 52.2, quoted=False),
    RegionMining("ours", "DSNA, merged", 55.4, quoted=False),
)

INTERACTIVE, EXTERNAL, LABELS = SUPERVISION = ("interactive", "image labels and external source", "image labels")


@dataclass(frozen=True)
class Published:
    """A method's result on PASCAL VOC 2012: a row of Tables IV and V, or of :data:`LATER`.

    Attributes:
        method: the method's name.
        supervision: one of :data:`SUPERVISION`, the blocks of Tables IV and V, in their order.
        extra: what it learns from beside image labels, as the paper's column of comments says; None for nothing.
        val: mean IoU on val, in percent; None where none is printed (in :data:`LATER`: or none could be confirmed).
        test: the same on test.
        source: whose number it is: authors, venue, year and, in :data:`LATER`, the arXiv number where known.
        network: the segmentation model's backbone; None where the paper names none (in :data:`LATER`: or none could
            be confirmed).
        quoted: taken from another paper; False for what the DSNA paper measured itself.
    """

    method: str
    supervision: str
    extra: str | None
    val: float | None
    test: float | None
    source: str
    network: str | None = None
    quoted: bool = True


# Tables IV and V in one. Names as printed there ("Joon et al." and "Anirban et al." are first names: Oh, and Roy and
# Todorovic). Three rows have no place in Table V; "AE w/o PSL" has one, and it is empty. The paper dates
# TransferNet to CVPR 2015; it appeared in 2016.
SEGMENTATION = (
    Published("ScribbleSup", INTERACTIVE, "scribbles", 63.1, None, "Lin et al., CVPR 2016"),
    Published("ScribbleSup (point)", INTERACTIVE, "points", 51.6, None, "Lin et al., CVPR 2016"),
    Published("What's the Point", INTERACTIVE, "points", 46.1, None, "Bearman et al., ECCV 2016"),
    Published("BoxSup", INTERACTIVE, "boxes", 62.0, 64.2, "Dai et al., ICCV 2015"),
    Published("STC", EXTERNAL, "web images", 49.3, 51.2, "Wei et al., TPAMI 2016"),
    Published("Co-segmentation", EXTERNAL, "web images", 56.4, 56.9, "Shen et al., 2017"),
    Published("Webly-supervised", EXTERNAL, "web images", 53.4, 55.3, "Jin et al., CVPR 2017"),
    Published("Crawled-Video", EXTERNAL, "web videos", 58.1, 58.7, "Hong et al., 2017"),
    Published("TransferNet", EXTERNAL, "masks of MS COCO", 52.1, 51.2, "Hong et al., CVPR 2016"),
    Published("AF-MCG", EXTERNAL, "MCG proposals", 54.3, 55.5, "Qi et al., ECCV 2016"),
    Published("Joon et al.", EXTERNAL, "supervised saliency", 55.7, 56.7, "Oh et al., CVPR 2017"),
    Published("DCSP", EXTERNAL, "supervised saliency", 58.6, 59.2, "Chaudhry et al., BMVC 2017", "VGG-16"),
    Published("DCSP", EXTERNAL, "supervised saliency", 60.8, 61.9, "Chaudhry et al., BMVC 2017", "ResNet-101"),
    Published("Mining-pixels", EXTERNAL, "supervised saliency", 58.7, 59.6, "Hou et al., 2016, arXiv:1612.02101"),
    Published("AE w/o PSL", EXTERNAL, "supervised saliency", 50.9, None, "Wei et al., CVPR 2017"),
    Published("AE-PSL", EXTERNAL, "supervised saliency", 55.0, 55.7, "Wei et al., CVPR 2017"),
    Published("MIL-FCN", LABELS, None, 25.7, 24.9, "Pathak et al., ICLR Workshop 2015"),
    Published("EM-Adapt", LABELS, None, 38.2, 39.6, "Papandreou et al., ICCV 2015"),
    Published("BFBP", LABELS, None, 46.6, 48.0, "Saleh et al., ECCV 2016"),
    Published("DCSM", LABELS, None, 44.1, 45.1, "Shimoda and Yanai, ECCV 2016"),
    Published("SEC", LABELS, None, 50.7, 51.7, "Kolesnikov and Lampert, ECCV 2016"),
    Published("AF-SS", LABELS, None, 52.6, 52.7, "Qi et al., ECCV 2016"),
    Published("Two-phase", LABELS, None, 53.1, 53.8, "Kim et al., ICCV 2017"),
    Published("Anirban et al.", LABELS, None, 52.8, 53.7, "Roy and Todorovic, CVPR 2017"),
    Published("DSNA", LABELS, None, 55.4, 56.4, "Zhang et al., arXiv:1803.02563", "VGG-16", quoted=False),
    Published("DSNA", LABELS, None, 58.2, 60.1, "Zhang et al., arXiv:1803.02563", "ResNet-101", quoted=False),
)

# Landmarks since, oldest first, not a full list. Each number was found in the paper's abstract, on its authors' code
# pages or in a public list of results. Protocols differ (multi-scale, CRF, and segmentation weights pretrained on
# MS COCO in some), so a small gap between two rows says little.
LATER = (
    Published("DSRG", EXTERNAL, "saliency", 61.4, 63.2, "Huang et al., CVPR 2018", "ResNet-101"),
    Published("AffinityNet", LABELS, None, 61.7, 63.7, "Ahn and Kwak, CVPR 2018, arXiv:1803.10464", "ResNet-38"),
    Published("FickleNet", EXTERNAL, "saliency", 64.9, 65.3, "Lee et al., CVPR 2019, arXiv:1902.10421", "ResNet-101"),
    Published("IRNet", LABELS, None, 63.5, 64.8, "Ahn et al., CVPR 2019, arXiv:1904.05044", "ResNet-50"),
    Published("OAA", EXTERNAL, "saliency", 65.2, 66.4, "Jiang et al., ICCV 2019", "ResNet-101"),
    Published("SSDD", LABELS, None, 64.9, 65.5, "Shimoda and Yanai, ICCV 2019", "ResNet-38"),
    Published("1-stage", LABELS, None, 62.7, 64.3, "Araslanov and Roth, CVPR 2020, arXiv:2005.08104", "ResNet-38"),
    Published("SEAM", LABELS, None, 64.5, 65.7, "Wang et al., CVPR 2020, arXiv:2004.04581", "ResNet-38"),
    Published("SEAM + CONTA", LABELS, None, 66.1, 66.7, "Zhang et al., NeurIPS 2020, arXiv:2009.12547", "ResNet-101"),
    Published("AdvCAM", LABELS, None, 68.1, 68.0, "Lee et al., CVPR 2021, arXiv:2103.08896", "ResNet-101"),
    Published("EPS", EXTERNAL, "saliency", 70.9, 70.8, "Lee et al., CVPR 2021, arXiv:2105.08965", "ResNet-101"),
    Published("AFA", LABELS, None, 66.0, 66.3, "Ru et al., CVPR 2022, arXiv:2203.02664", "MiT-B1"),
    Published("MCTformer", LABELS, None, 71.9, 71.6, "Xu et al., CVPR 2022, arXiv:2203.02891", "ResNet-38"),
    Published("L2G", EXTERNAL, "saliency", 72.1, 71.7, "Jiang et al., CVPR 2022, arXiv:2204.03206", "ResNet-101"),
    Published("CLIP-ES", EXTERNAL, "CLIP", 73.8, 73.9, "Lin et al., CVPR 2023, arXiv:2212.09506", "ResNet-101"),
    Published("ToCo", LABELS, None, 71.1, 72.2, "Ru et al., CVPR 2023, arXiv:2303.01267", "ViT-B"),
    Published(
        "MARS",
        LABELS,
        "unsupervised features",
        77.7,
        77.2,
        "Jo et al., ICCV 2023, arXiv:2304.09913",
        "ResNet-101",
    ),
    Published("WeCLIP", EXTERNAL, "CLIP", 76.4, 77.2, "Zhang et al., CVPR 2024, arXiv:2406.11189", "ViT-B"),
    Published("ExCEL", EXTERNAL, "CLIP", 78.4, 78.5, "Yang et al., CVPR 2025, arXiv:2503.20826", "ViT-B"),
    Published("WeCLIP+", EXTERNAL, "CLIP and DINO", None, 83.9, "Zhang et al., TPAMI 2025"),
)


def published(split: str, rows: Iterable[Published] = SEGMENTATION) -> list[Published]:
    """The rows that have a number on a split, grouped by supervision in the order of the paper's blocks.

    Args:
        split: ``"val"`` for Table IV, ``"test"`` for Table V.
        rows: :data:`SEGMENTATION`, :data:`LATER` or both; within a group their order is kept.

    Returns:
        The rows; ``getattr(row, split)`` is a number in each.

    Raises:
        ValueError: another split.

    Example:
        >>> [(row.network, row.test) for row in published("test") if not row.quoted]
        [('VGG-16', 56.4), ('ResNet-101', 60.1)]
    """
    if split not in ("val", "test"):
        raise ValueError(f"unknown split {split!r}; published results are on 'val' or 'test'")
    numbered = (row for row in rows if getattr(row, split) is not None)
    return sorted(numbered, key=lambda row: SUPERVISION.index(row.supervision))


_CLASSES = ("background", *CLASS_NAMES)

# Row to class to IoU of DSNA's segmentation model; the paper's columns stand in the order of VOC's classes.
TABLE_VI: dict[str, dict[str, float]] = {
    row: dict(zip(_CLASSES, scores, strict=True))
    for row, scores in {
        "vgg16-val": (
            *(84.5, 73.3, 23.4, 66.4, 42.7, 48.7, 76.9, 61.0, 66.0, 21.8, 65.2),
            *(37.1, 70.0, 62.5, 62.0, 58.9, 41.1, 71.2, 32.4, 58.7, 39.0),
        ),
        "vgg16-test": (
            *(85.6, 71.2, 27.1, 74.2, 35.8, 51.0, 77.7, 63.4, 65.0, 21.4, 60.0),
            *(47.7, 73.9, 60.2, 71.0, 61.5, 39.2, 64.0, 39.5, 54.2, 40.0),
        ),
        "resnet-val": (
            *(84.7, 73.5, 27.1, 68.3, 43.8, 57.2, 80.9, 64.7, 65.4, 22.3, 69.7),
            *(39.2, 70.8, 73.0, 67.8, 60.0, 45.8, 72.6, 35.9, 57.7, 42.2),
        ),
        "resnet-test": (
            *(86.3, 70.4, 29.7, 78.8, 40.8, 53.9, 80.6, 67.7, 67.7, 21.0, 70.2),
            *(46.4, 74.8, 70.6, 74.8, 63.7, 45.2, 76.9, 45.0, 57.8, 39.8),
        ),
    }.items()
}

# The mean IoU that Table VI prints beside them.
TABLE_VI_MEAN = {"vgg16-val": 55.4, "vgg16-test": 56.4, "resnet-val": 58.2, "resnet-test": 60.1}


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
    Claim("III", "SEC: the constrain loss helps", "iou", ("SEC, seed", "SEC, seed + constrain")),
    Claim(
        "III",
        "SEC: the expand loss helps on top of it",
        "iou",
        ("SEC, seed + constrain", "SEC, seed + constrain + expand"),
    ),
    Claim("III", "AE: the first three steps improve on each other", "iou", ("AE, step 1", "AE, step 2", "AE, step 3")),
    Claim("III", "AE: the fourth step falls behind the third", "iou", ("AE, step 4", "AE, step 3")),
    Claim(
        "III",
        "expansive annotations beat discriminative ones in segmentation",
        "iou",
        ("DSNA, discriminative", "DSNA, expansive"),
    ),
    *(
        Claim("III", f"merged annotations beat {kind} ones in segmentation", "iou", (f"DSNA, {kind}", "DSNA, merged"))
        for kind in ("expansive", "discriminative")
    ),
    *(
        Claim("III", f"DSNA's merged annotations beat {row.title}", "iou", (row.title, "DSNA, merged"))
        for row in TABLE_III
        if row.quoted
    ),
    *(
        Claim("III", f"DSNA's {kind} annotations alone beat {rival}", "iou", (rival, f"DSNA, {kind}"))
        for kind in ("expansive", "discriminative")
        for rival in ("SEC, seed + constrain + expand", "AE, step 3")
    ),
    Claim("III", "DSNA's merged annotations beat CAM's", "iou", ("CAM", "DSNA, merged"), "book"),
    Claim(
        "III",
        "full supervision beats DSNA's merged annotations",
        "iou",
        ("DSNA, merged", "full supervision"),
        "book",
    ),
    Claim("VI", "ResNet-101 beats VGG-16", "iou", ("VGG-16", "ResNet-101")),
)
