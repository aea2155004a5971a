"""Measurements beside the claims that answer a statement of the paper: each gives one sentence, or None."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from scipy.stats import spearmanr

from dsna_lib import paper
from pages.costs import PRECISIONS, pass_times
from pages.maps import table1_rows
from pages.stored import DATA, PICTURE_KINDS, by_network, in_one_text, read, row_of, spread_of, spread_on, values

ENOUGH_ROWS = 8  # of a table, for a rank correlation over them


def annotations_and_masks() -> str | None:
    """Do better annotations make better masks? Over the rows of Table III."""
    parts = []
    for pictures in PICTURE_KINDS:
        correlations = {}
        for network, content in by_network("III", pictures).items():
            means = [row["mean"] for row in content["values"]["rows"] if row["title"] != "full supervision"]
            pairs = [(mean["annotation"], mean["iou"]) for mean in means if "annotation" in mean]
            if len(pairs) >= ENOUGH_ROWS:
                rank = spearmanr(*zip(*pairs, strict=True)).statistic
                correlations[network] = f"{rank:+.2f} over {len(pairs)} rows"
        if correlations:
            parts.append(f"{pictures} {in_one_text(pictures, correlations)}")
    return f"rank correlation of the IoU of annotations and of masks, {', '.join(parts)}" if parts else None


def on_parts(method: str) -> str:
    """How much of the discriminative part and of the rest a method covers, on drawn pictures."""
    part, rest = (spread_of(read("table_parts_minivoc"), method, (column,)) for column in ("part", "rest"))
    return f"drawn: it covers {part} % of the discriminative part and {rest} % of the rest"


def grad_cam_and_cam() -> str:
    """How far CAM and Grad-CAM lie apart."""
    apart = map(abs, _differences("table_methods_minivoc", "CAM", "Grad-CAM"))
    return f"drawn: their IoU differs by {max(apart):.1f} points at most"


def _differences(name: str, more: str, less: str) -> list[float]:
    """By how much one row of a file lies above another one in IoU, with each seed; both must be there."""
    first, second = (row_of(read(name), title) for title in (more, less))
    if first is None or second is None:
        raise KeyError(f"results/{name}.json lacks the row {more if first is None else less!r}")
    pairs = zip(first["seeds"], second["seeds"], strict=True)
    return [round(high["iou"] - low["iou"], 2) for high, low in pairs]


def weight_and_size() -> str:
    """Does the weight of Eq. 11 follow the size of the object?"""
    weights = {pictures: values(f"table_I_{data}")["weight"] for pictures, data in DATA.items()}
    said = [f"{kind} {weight['decoupled, dropout 0.5']['spearman']:+.2f}" for kind, weight in weights.items()]
    return f"rank correlation of the weight and the object's size: {', '.join(said)}"


def refined() -> str:
    """What the CRF adds to merged annotations."""
    said = [
        f"{rows['merged']['iou']:.1f} to {rows['merged_crf']['iou']:.1f} with {title}"
        for title, rows in table1_rows().items()
    ]
    return f"IoU on photographs rises from {', from '.join(said)}"


def merged_iou() -> str:
    """How close merged annotations come to the truth."""
    ours = [f"{pictures} {spread_on('I', 'merged', ('iou',), pictures)}" for pictures in PICTURE_KINDS]
    return f"IoU: {', '.join(ours)}; the paper {paper.TABLE_I['merged']['iou']:.1f}"


def forward_pass() -> str:
    """What both maps cost beside the bare forward pass."""
    ratios = {p: pass_times(values(f"one_pass_{p}")["batch of 1"]["dsna"])[1] for p in PRECISIONS}
    said = " and ".join(f"{ratio} times the bare pass in {precision}" for precision, ratio in ratios.items())
    return f"both maps and their merger take {said}"


def lead(network: str) -> str:
    """How far ahead the paper's own tables see it, and what was measured here."""
    own = next(row for row in paper.SEGMENTATION if not row.quoted and row.network == network)
    others = [row for row in paper.SEGMENTATION if row.quoted and row.supervision == own.supervision]
    ahead = [f"{getattr(own, s) - max(getattr(row, s) for row in others):.1f} points on {s}" for s in ("val", "test")]
    here = by_network("III", "photographs").get(network)
    ours = spread_of(here, "DSNA, merged", ("iou",)) if here else None
    return f"in its own tables by {' and '.join(ahead)}" + (f". Here, on the subset: {ours}" if ours else "")


def overtaken() -> str:
    """How long the state of the art lasted."""
    best = max(row.val for row in paper.SEGMENTATION if not row.quoted)
    later = [row for row in paper.LATER if row.supervision == paper.LABELS and row.val is not None]
    ahead = sum(row.val > best for row in later)
    return f"holds in its own tables; {ahead} of {len(later)} later methods in our list are ahead of it on val"


EVIDENCE: dict[str, Callable[[], str | None]] = {
    "annotations_and_masks": annotations_and_masks,
    "cam_on_parts": partial(on_parts, "CAM"),
    "discriminative_on_parts": partial(on_parts, "DSNA, discriminative"),
    "grad_cam_and_cam": grad_cam_and_cam,
    "weight_and_size": weight_and_size,
    "refined": refined,
    "merged_iou": merged_iou,
    "forward_pass": forward_pass,
    "lead_vgg16": partial(lead, "VGG-16"),
    "lead_resnet101": partial(lead, "ResNet-101"),
    "overtaken": overtaken,
}
