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

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "book/results.md", "dsna_lib/checkpoints/MODEL_CARD.md")
MODELS = {"vgg16": "VGG-16", "lite0": "EfficientNet-lite0"}
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read(name: str) -> dict:
    """One file of results."""
    return json.loads((ROOT / "results" / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; numbers with one digit, None as a dash."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def _scores(row: dict) -> str:
    return " / ".join(_cell(row[name]) for name in ("precision", "recall", "iou"))


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
    return table(["map", "paper, VGG-16, full VOC", *(f"here, {title}" for title in found)], rows)


def relations() -> str:
    """The relations that the paper reads off Table I, and whether they hold here."""
    verdicts = {
        title: paper.table_i_relations(read(f"table1_{key}")["values"]["rows"]) for key, title in MODELS.items()
    }
    rows = [
        [claim, *("holds" if verdict[claim] else "does not hold" for verdict in verdicts.values())]
        for claim in next(iter(verdicts.values()))
    ]
    return table(["the paper says", *verdicts], rows)


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
    return table(["reading", *found], [[name, *(_scores(rows[name]) for rows in found.values())] for name in names])


def bootstrap() -> str:
    """Differences in IoU between kinds of map, with the interval that the choice of pictures leaves."""
    found = {t: read(f"sensitivity_{key}")["values"]["iou_difference_95_percent"] for key, t in MODELS.items()}
    rows = [
        [name, *("{1:+.1f} ({0:+.1f} to {2:+.1f})".format(*values[name]) for values in found.values())]
        for name in next(iter(found.values()))
    ]
    return table(["difference in IoU, points", *found], rows)


def by_labels() -> str:
    """Mean IoU of pictures with one label and with several, each taken alone."""
    rows = []
    for key, title in MODELS.items():
        for number, row in read(f"sensitivity_{key}")["values"]["by_number_of_labels"].items():
            rows.append([f"{title}, {number}", row["pictures"], row["expansive"], row["discriminative"], row["merged"]])
    return table(["model, labels a picture", "pictures", "expansive", "discriminative", "merged"], rows)


def input_size() -> str:
    """Mean IoU with the network's input at 224 and at 320 pixels."""
    rows = []
    for key, title in MODELS.items():
        for size, name in ((224, f"sensitivity_{key}"), (320, f"sensitivity_{key}_320")):
            found = read(name)["values"]["rows"]
            rows.append([f"{title}, {size}", *(found[k]["iou"] for k in ("expansive", "discriminative", "merged"))])
    return table(["model, input in pixels", "expansive", "discriminative", "merged"], rows)


def weights() -> str:
    """How large p-hat is for the classes that are present."""
    found = {title: read(f"sensitivity_{key}")["values"]["p_hat_of_present_classes"] for key, title in MODELS.items()}
    quantiles = list(next(iter(found.values())))
    rows = [[title, *(f"{values[q]:.2f}" for q in quantiles)] for title, values in found.items()]
    return table(["share of present classes below", *quantiles], rows)


def cost() -> str:
    """What annotating costs beside looking."""
    rows = []
    for precision in ("fp32", "bf16"):
        values = read(f"annotation_cost_{precision}")["values"]
        times = values["milliseconds_a_picture"]
        rows.append([precision, times["backbone"], times["annotated"], f"{values['ratio']:.3f}"])
    return table(["precision", "backbone, ms a picture", "with maps and annotation, ms", "ratio"], rows)


RENDERERS: dict[str, Callable[[], str]] = {
    f.__name__: f for f in (table1, relations, bootstrap, by_labels, input_size, recipe, sensitivity, weights, cost)
}


def filled(text: str) -> str:
    """A page's text with every block made anew."""
    return BLOCK.sub(lambda block: block[1] + "\n" + RENDERERS[block[2]]() + "\n" + block[3], text)


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
