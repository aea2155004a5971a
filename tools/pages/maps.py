"""Attention maps: Table I and what depends on it, how its models were trained, and the readings of the paper."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsna_lib import paper
from dsna_lib.maps import MAP_KINDS
from dsna_lib.tables.render import cell, markdown, render_chance, render_difference
from pages import stored
from pages.stored import MODELS, read, values

TRIPLE = ("precision", "recall", "iou")


def table1_rows() -> dict[str, dict[str, Any]]:
    """Model to its rows of Table I."""
    return {title: values(f"table1_{key}")["rows"] for key, title in MODELS.items()}


def _readings(part: str) -> dict[str, Any]:
    """Model to a part of its file on readings of the paper."""
    return {title: values(f"sensitivity_{key}")[part] for key, title in MODELS.items()}


def scores(row: dict[str, Any]) -> str:
    """Precision, recall and IoU of a row, in one cell."""
    return " / ".join(cell(row[name]) for name in TRIPLE)


def table1() -> str:
    """Table I and the single stream on photographs: the paper, and two trainings of VGG-16, one of them in part."""
    titles = {"single stream": "single stream"} | {kind: kind for kind in MAP_KINDS} | {"merged_crf": "merged, CRF"}
    whole = values("table1_vgg16")["rows"]
    in_part = {row["title"]: row["mean"] for row in values("table_single-stream_voc_vgg16")["rows"]}
    printed = {"single stream": paper.SINGLE_STREAM} | paper.TABLE_I
    rows = [
        [title, *(scores(of[name]) if name in of else None for of in (printed, whole, in_part))]
        for name, title in titles.items()
    ]
    return markdown(["map", "paper, full VOC", "all layers trained", "first two blocks fixed"], rows)


def judged(claim: dict[str, Any]) -> str:
    """A claim's verdict, and by how much it holds; p is that of its table's correction."""
    p = "" if claim["corrected"] is None else f", p {render_chance(claim)}"
    return f"{claim['verdict']}: {render_difference(claim)}{p}"


def weight_by_size() -> str:
    """The weight of the expansive map in Eq. 11 by the size of the object."""
    weights = {
        title: values(f"table_I_{stored.DATA[pictures]}")["weight"]["decoupled, dropout 0.5"]
        for title, pictures in {"drawn": "drawn", "photographs, VGG-16": "photographs"}.items()
    }
    rows = []
    for title, weight in weights.items():
        for line in weight["bins"]:
            share = f"{100 * line['low']:.0f} to {100 * min(line['high'], 1):.0f} %"
            spread = f"{line['median']:.2f} ({line['lower']:.2f} to {line['upper']:.2f})"
            rows.append([title, share, line["objects"], f"{line['mean']:.2f}", spread])
    head = ["pictures", "object's share of the picture", "objects", "mean weight", "median (quartiles)"]
    correlation = "; ".join(f"{title}: {weight['spearman']:+.2f}" for title, weight in weights.items())
    return markdown(head, rows) + f"\nSpearman's correlation of size and weight: {correlation}.\n"


def recipe() -> str:
    """How the models of :func:`table1` were trained, in words made from the provenance."""
    lines = []
    for key, title in MODELS.items():
        how = read(f"table1_{key}")["provenance"]
        trained = how["trained"]
        schedule, stages = trained["training"], trained["model"]["train_last"]
        learned = "all layers" if stages is None else f"the last {stages} stages and the head"
        low, high = (round(schedule["crop"] * scale) for scale in schedule["scales"])
        rates = f"{schedule['backbone_rate']:g} / {schedule['head_rate']:g}"
        score = values(f"sensitivity_{key}")["classifier_mean_average_precision"]
        lines.append(
            f"- **{title}**: {schedule['epochs']} epochs over {trained['data']['pictures']:,} pictures, rates {rates} "
            f"with momentum {schedule['momentum']:g}, divided by 10 after epoch {schedule['drop_after']}, batches of "
            f"{schedule['batch_size']}, crops of {schedule['crop']} pixels out of pictures with a shorter side of "
            f"{low} to {high}, {schedule['precision']}, seed {schedule['seed']}; {learned} trained. "
            f"The classifier's mean average precision on {how['split']} is {score:.2f}."
        )
    return "\n".join(lines) + "\n"


def sensitivity() -> str:
    """One row a protocol, one column a model."""
    measured = {
        title: rows | {"merged, CRF": table1_rows()[title]["merged_crf"]} for title, rows in _readings("rows").items()
    }
    names = list(next(iter(measured.values())))
    rows = [[name, *(scores(rows_of[name]) for rows_of in measured.values())] for name in names]
    return markdown(["protocol", *measured], rows)


def bootstrap() -> str:
    """Differences in IoU between kinds of map, with the interval that the choice of pictures leaves."""
    measured = _readings("iou_difference_95_percent")
    rows = [
        [name, *("{1:+.1f} ({0:+.1f} to {2:+.1f})".format(*bounds[name]) for bounds in measured.values())]
        for name in next(iter(measured.values()))
    ]
    return markdown(["difference in IoU, points", *measured], rows)


def by_labels() -> str:
    """Mean IoU of pictures with one label and with several, each taken alone."""
    rows = []
    for title, numbers in _readings("by_number_of_labels").items():
        for number, row in numbers.items():
            rows.append([f"{title}, {number}", row["pictures"], *(row[kind] for kind in MAP_KINDS)])
    return markdown(["model, labels a picture", "pictures", *MAP_KINDS], rows)


def input_size() -> str:
    """Mean IoU with the network's input at 224 and at 320 pixels."""
    rows = []
    for key, title in MODELS.items():
        for size, name in ((224, f"sensitivity_{key}"), (320, f"sensitivity_{key}_320")):
            measured = values(name)["rows"]
            rows.append([f"{title}, {size}", *(measured[kind]["iou"] for kind in MAP_KINDS)])
    return markdown(["model, input in pixels", *MAP_KINDS], rows)


def weights() -> str:
    """How large p-hat is for the classes that are present."""
    measured = _readings("p_hat_of_present_classes")
    quantiles = list(next(iter(measured.values())))
    rows = [[title, *(f"{weights_of[each]:.2f}" for each in quantiles)] for title, weights_of in measured.items()]
    return markdown(["share of present classes below", *quantiles], rows)


BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__: block
    for block in (
        *(table1, weight_by_size, recipe),
        *(sensitivity, bootstrap, by_labels, input_size, weights),
    )
}
