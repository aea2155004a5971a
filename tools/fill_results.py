"""Write the measured numbers into the pages that state them, from ``results/*.json``.

A page marks a place with ``<!-- results: NAME -->`` and ``<!-- end -->``; what stands between them is made here.

    python tools/fill_results.py            # write
    python tools/fill_results.py --check    # exit 1 where a page and the results differ
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from dsna_lib import paper
from dsna_lib.tables import cell, markdown, render, render_difference

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "book/results.md", "dsna_lib/checkpoints/MODEL_CARD.md")
MODELS = {"vgg16": "VGG-16", "lite0": "EfficientNet-lite0"}
BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> dict:
    """One file of results."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def _scores(row: dict) -> str:
    return " / ".join(cell(row[name]) for name in ("precision", "recall", "iou"))


def table1() -> str:
    """Table I of the paper beside what was measured here."""
    kinds = {
        "expansive": "expansive",
        "discriminative": "discriminative",
        "merged": "merged",
        "merged_crf": "merged, CRF",
    }
    found = {title: read(f"table1_{key}")["values"]["rows"] for key, title in MODELS.items()}
    rows = []
    for kind, title in kinds.items():
        printed = paper.TABLE_I.get(kind)
        rows.append(
            [title, _scores(printed) if printed else None, *(_scores(rows_of[kind]) for rows_of in found.values())]
        )
    return markdown(["map", "paper, VGG-16, full VOC", *(f"here, {title}" for title in found)], rows)


def relations() -> str:
    """The relations that the paper reads off Table I, and whether they hold here."""
    found = {title: read(f"table1_{key}")["values"]["rows"] for key, title in MODELS.items()}
    rows = []
    for claim in (claim for claim in paper.CLAIMS if claim.table == "I"):
        less, more = claim.rows
        held = [scores[more][claim.measure] > scores[less][claim.measure] for scores in found.values()]
        rows.append([claim.text, *("holds" if one else "does not hold" for one in held)])
    return markdown(["the paper says", *found], rows)


def claims() -> str:
    """Every claim that was put to the test: by how much it holds, and the verdict, on each kind of pictures."""
    kinds = {"drawn": "minivoc", "photographs": "voc_vgg16"}
    found = {title: _claims(data) for title, data in kinds.items()}
    rows = [
        [
            claim.table,
            claim.text,
            claim.source,
            *(answers.get((claim.table, claim.text), "-") for answers in found.values()),
        ]
        for claim in paper.CLAIMS
        if any((claim.table, claim.text) in answers for answers in found.values())
    ]
    return markdown(["table", "claim", "whose", *found], rows)


def _claims(data: str) -> dict[tuple[str, str], str]:
    """(table, text) to the answer of all tables measured on a kind of pictures."""
    answers = {}
    for path in sorted((ROOT / "results").glob(f"table_*_{data}.json")):
        values = json.loads(path.read_text())["values"]
        for claim in values["claims"]:
            answers[values["table"], claim["text"]] = f"{claim['verdict']}: {render_difference(claim)}"
    return answers


def claims_again() -> str:
    """Claims on drawn pictures from two sets of three trainings that differ in their random numbers alone."""
    first, second = _claims("minivoc"), _claims("minivoc_again")
    rows = [[table, text, first[table, text], answer] for (table, text), answer in second.items()]
    return markdown(["table", "claim", "three trainings", "three others"], rows)


def weight_by_size() -> str:
    """The weight of the expansive map in Eq. 11 by the size of the object."""
    found = {
        title: read(f"table_I_{data}")["values"]["weight"]["decoupled, dropout 0.5"]
        for title, data in {"drawn": "minivoc", "photographs, VGG-16": "voc_vgg16"}.items()
    }
    rows = []
    for title, weight in found.items():
        for line in weight["bins"]:
            share = f"{100 * line['low']:.0f} to {100 * min(line['high'], 1):.0f} %"
            spread = f"{line['median']:.2f} ({line['lower']:.2f} to {line['upper']:.2f})"
            rows.append([title, share, line["objects"], f"{line['mean']:.2f}", spread])
    head = ["pictures", "object's share of the picture", "objects", "mean weight", "median (quartiles)"]
    correlation = "; ".join(f"{title}: {weight['spearman']:+.2f}" for title, weight in found.items())
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
        score = read(f"sensitivity_{key}")["values"]["classifier_mean_average_precision"]
        lines.append(
            f"- **{title}**: {schedule['epochs']} epochs over {trained['data']['pictures']:,} pictures, rates {rates} "
            f"with momentum {schedule['momentum']:g}, divided by 10 after epoch {schedule['drop_after']}, batches of "
            f"{schedule['batch_size']}, crops of {schedule['crop']} pixels out of pictures with a shorter side of "
            f"{low} to {high}, {schedule['precision']}, seed {schedule['seed']}; {learned} trained. "
            f"The classifier's mean average precision on {how['split']} is {score:.2f}."
        )
    return "\n".join(lines) + "\n"


def sensitivity() -> str:
    """One row a reading of the paper, one column a model."""
    found = {title: read(f"sensitivity_{key}")["values"]["rows"] for key, title in MODELS.items()}
    names = list(next(iter(found.values())))
    return markdown(["reading", *found], [[name, *(_scores(rows[name]) for rows in found.values())] for name in names])


def bootstrap() -> str:
    """Differences in IoU between kinds of map, with the interval that the choice of pictures leaves."""
    found = {t: read(f"sensitivity_{key}")["values"]["iou_difference_95_percent"] for key, t in MODELS.items()}
    rows = [
        [name, *("{1:+.1f} ({0:+.1f} to {2:+.1f})".format(*values[name]) for values in found.values())]
        for name in next(iter(found.values()))
    ]
    return markdown(["difference in IoU, points", *found], rows)


def by_labels() -> str:
    """Mean IoU of pictures with one label and with several, each taken alone."""
    rows = []
    for key, title in MODELS.items():
        for number, row in read(f"sensitivity_{key}")["values"]["by_number_of_labels"].items():
            rows.append([f"{title}, {number}", row["pictures"], row["expansive"], row["discriminative"], row["merged"]])
    return markdown(["model, labels a picture", "pictures", "expansive", "discriminative", "merged"], rows)


def input_size() -> str:
    """Mean IoU with the network's input at 224 and at 320 pixels."""
    rows = []
    for key, title in MODELS.items():
        for size, name in ((224, f"sensitivity_{key}"), (320, f"sensitivity_{key}_320")):
            found = read(name)["values"]["rows"]
            rows.append([f"{title}, {size}", *(found[k]["iou"] for k in ("expansive", "discriminative", "merged"))])
    return markdown(["model, input in pixels", "expansive", "discriminative", "merged"], rows)


def weights() -> str:
    """How large p-hat is for the classes that are present."""
    found = {title: read(f"sensitivity_{key}")["values"]["p_hat_of_present_classes"] for key, title in MODELS.items()}
    quantiles = list(next(iter(found.values())))
    rows = [[title, *(f"{values[q]:.2f}" for q in quantiles)] for title, values in found.items()]
    return markdown(["share of present classes below", *quantiles], rows)


def cost() -> str:
    """What annotating costs beside looking."""
    rows = []
    for precision in ("fp32", "bf16"):
        values = read(f"annotation_cost_{precision}")["values"]
        times = values["milliseconds_a_picture"]
        rows.append([precision, times["backbone"], times["annotated"], f"{values['ratio']:.3f}"])
    return markdown(["precision", "backbone, ms a picture", "with maps and annotation, ms", "ratio"], rows)


ONE_PASS = {
    "backbone": "the bare forward pass, against itself",
    "dsna": "both maps and their merger, of all classes",
    "dsna_lib.cams": "Grad-CAM, this library",
    "torch-cam": "Grad-CAM, torch-cam",
    "grad-cam": "Grad-CAM, grad-cam",
    "multi-scale cam": "CAM at four scales, mirrored",
}


def one_pass() -> str:
    """One forward pass beside what a user would take instead."""
    rows = []
    for precision in ("fp32", "bf16"):
        for batch, found in read(f"one_pass_{precision}")["values"].items():
            rows += [[f"{precision}, {batch}: {ONE_PASS[name]}", *_times(row)] for name, row in found.items()]
    return markdown(["precision, pictures: maps", "ms a picture", "times the bare pass (quartiles)"], rows)


def _times(row: dict) -> list[object]:
    if "skipped" in row:
        return [None, row["skipped"]]
    low, high = row["quartiles"]
    return [row["milliseconds_a_picture"], f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"]


RENDERERS: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (
        *(table1, relations, claims, claims_again, bootstrap, by_labels, weight_by_size),
        *(input_size, recipe, sensitivity, weights, cost, one_pass),
    )
}


def block(name: str) -> str:
    """What stands at a place: a renderer's text, or a table of ``dsna table`` by the name of its file."""
    return render(read(name)["values"]) if name.startswith("table_") else RENDERERS[name]()


def filled(text: str) -> str:
    """A page's text with every block made anew."""
    return BLOCK.sub(lambda found: found[1] + "\n" + block(found[2]) + "\n" + found[3], text)


def main() -> int:
    """Run from the command line; returns the exit code."""
    stale = []
    for page in map(ROOT.joinpath, PAGES):
        text = page.read_text()
        if filled(text) != text:
            stale.append(page.relative_to(ROOT))
            if "--check" not in sys.argv:
                page.write_text(filled(text))
    for page in stale:
        print(f"{page}: {'differs from results/' if '--check' in sys.argv else 'filled'}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
