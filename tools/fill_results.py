"""Write the measured numbers into the pages that state them, from ``results/*.json``.

A page marks a place with ``<!-- results: NAME -->`` and ``<!-- end -->``; what stands between them is made here.
Within a sentence, ``<!-- result: FILE PATH -->`` and ``<!-- / -->`` enclose one number of ``results/FILE.json``: PATH
leads to it through keys, and through the titles of a table's rows, as in ``values/rows/merged/mean/iou``.

    python tools/fill_results.py            # write
    python tools/fill_results.py --check    # exit 1 where a page and the results differ
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from dsna_lib import chapters, ledger, paper
from dsna_lib.tables import cell, markdown, render, render_difference, verdict

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "book/results.md",
    "book/claims.md",
    "book/status.md",
    "dsna_lib/checkpoints/MODEL_CARD.md",
)
MODELS = {"vgg16": "VGG-16", "lite0": "EfficientNet-lite0"}
NETWORKS = {"vgg16": "VGG-16", "efficientnet_lite0": "EfficientNet-lite0", "resnet101": "ResNet-101"}
DRAWN = "EfficientNet-lite0"  # on drawn pictures
USUAL = {"drawn": DRAWN, "photographs": "VGG-16"}
KINDS = tuple(USUAL)
UNMEASURED = "not measured yet"
BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NUMBER = re.compile(r"(<!-- result: ([\w-]+) (\S+) -->).*?(<!-- / -->)", re.DOTALL)


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
    return text_table(["the paper says", *found], rows)


def measured(table: str, kind: str) -> dict[str, dict]:
    """Everything measured for a table on ``"drawn"`` pictures or ``"photographs"``: network to content of the file."""
    if kind == "drawn":
        path = ROOT / "results" / f"table_{table}_minivoc.json"
        return {DRAWN: read(path.stem)} if path.is_file() else {}
    paths = sorted((ROOT / "results").glob(f"table_{table}_voc_*.json"))
    names = [path.stem.partition("_voc_")[2] for path in paths]
    return {NETWORKS.get(name, name): read(path.stem) for name, path in zip(names, paths, strict=True)}


def _answers(claim: paper.Claim, kind: str) -> dict[str, dict]:
    """Network to what was found of a claim on a kind of pictures."""
    found = {network: content["values"]["claims"] for network, content in measured(claim.table, kind).items()}
    return {network: one for network, several in found.items() for one in several if one["text"] == claim.text}


def _said(kind: str, answers: dict[str, str]) -> str:
    """One text for the answers of all networks; the usual network of a kind of pictures, alone, is not named."""
    usual = USUAL[kind]
    if list(answers) == [usual]:
        return answers[usual]
    alike: dict[str, list[str]] = {}
    for network in sorted(answers, key=lambda name: name != usual):
        alike.setdefault(answers[network], []).append(network)
    return "; ".join(f"{' and '.join(networks)}: {text}" for text, networks in alike.items())


def _unmeasured(table: str, kind: str) -> str:
    return "-" if (table, kind) == ("parts", "photographs") else UNMEASURED  # photographs have no masks of parts


def _judged(claim: dict) -> str:
    return f"{claim['verdict']}: {render_difference(claim)}"


def claims() -> str:
    """Every claim: by how much it holds, and the verdict, on each kind of pictures."""
    rows = []
    for claim, number in ledger.claim_numbers().items():
        said = [_said(kind, {n: _judged(one) for n, one in _answers(claim, kind).items()}) for kind in KINDS]
        said = [text or _unmeasured(claim.table, kind) for kind, text in zip(KINDS, said, strict=True)]
        rows.append([number, claim.text, claim.source, *said])
    return text_table(["number", "claim", "whose", *KINDS], rows)


def text_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table of words: all columns are aligned to the left."""
    return markdown(head, rows, words=head)


def claims_again() -> str:
    """Claims on drawn pictures from two sets of three trainings that differ in their random numbers alone."""
    rows = []
    for table in ("I", "II", "single-stream"):
        pairs = [read(f"table_{table}_minivoc{again}")["values"]["claims"] for again in ("", "_again")]
        rows += [[table, one["text"], _judged(one), _judged(two)] for one, two in zip(*pairs, strict=True)]
    return text_table(["table", "claim", "three trainings", "three others"], rows)


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


# --- Table III --------------------------------------------------------------------------------------------------------


def segmentation(kind: str) -> str:
    """Table III as measured on a kind of pictures, with how; or that it was not."""
    parts = []
    for network, content in measured("III", kind).items():
        how = content["provenance"]
        count = how["pictures"]
        seeds = len(content["values"]["rows"][0]["seeds"])
        protocol = how["protocol"].replace("; no;", "; fp32;")  # accelerate's word for it
        protocol = protocol[0].upper() + protocol[1:]
        parts.append(
            f"{network}; {count['mining']:,} pictures to mine, {count['train']:,} to segment, {count['val']:,} to "
            f"measure on; {seeds} training{'s' * (seeds > 1)} a row. {protocol}.\n"
        )
        parts.append(render(content["values"]))
        if how.get("note"):
            parts.append(f"*{how['note']}*\n")
    return "\n".join(parts) or f"*On {kind if kind == 'photographs' else 'drawn pictures'}: {UNMEASURED}.*\n"


def segmentation_speed() -> str:
    """What the book's loop, reading pictures and a second process for the CRF cost or gain."""
    values = read("segmentation_speed_lite0")["values"]
    step, crf = values["step"], values["crf"]
    return (
        f"A step of the book's loop takes {step['ratio']:.2f} times a bare PyTorch loop's, "
        f"which waits for pictures {step['waiting_for_pictures']:.1%} of its time; two processes of the CRF refine "
        f"{crf['ratio']:.2f} times as many pictures as one.\n"
    )


def overfit() -> str:
    """Whether DeepLab-LargeFOV can learn a few photographs by heart."""
    found = read("overfit_vgg16")
    asked, score = found["provenance"]["arguments"], found["values"]["mean_iou"]
    return (
        f"Taught by the true masks of {asked['pictures']} photographs in {asked['steps']} steps, DeepLab-LargeFOV on "
        f"VGG-16 has a mean IoU of {score['single']:.1f}% on these {asked['pictures']} at one scale and of "
        f"{score['multi']:.1f}% at three.\n"
    )


def shipped_segmentation() -> str:
    """What the segmentation network that ships scores on photographs, beside its ceiling."""
    rows = {row["title"]: row["mean"] for row in measured("III", "photographs")["EfficientNet-lite0"]["values"]["rows"]}
    columns = {"single": "one scale", "multi": "three scales", "iou": "three scales, CRF"}
    names = {"DSNA, merged": "this network", "full supervision": "the same, taught by true masks"}
    return markdown(
        ["mean IoU in percent", *columns.values()],
        [[said, *(rows[title][column] for column in columns)] for title, said in names.items()],
    )


# --- the ledger -------------------------------------------------------------------------------------------------------


def _chapter(number: str | None) -> str | None:
    """A link to a chapter, by its number or name."""
    if number is None:
        return None
    (path,) = (ROOT / "notebooks").glob(f"{number[:2]}_*.ipynb")
    return f"[{number[:2]}](../notebooks/{path.name})"


def _function(name: str) -> str:
    """A link to the reference."""
    return f"{{py:obj}}`{name} <dsna_lib.{name}>`"


def _test(name: str) -> str:
    """A test's file; its own name is too long for a table and stands in :mod:`dsna_lib.ledger`."""
    return f"`{name.partition('::')[0]}`"


def definitions() -> str:
    """Equations and steps: chapter, function, how they are read, and the test that holds the code against them."""
    rows = []
    for one in ledger.DEFINITIONS:
        read_as = f"[{one.decision}](decisions.md#{one.section})" if one.decision else "as printed"
        functions = ", ".join(map(_function, one.functions))
        rows.append([one.name, one.text, _chapter(one.chapter), functions, read_as, _test(one.test)])
    return text_table(["where", "what", "chapter", "function", "read here", "test"], rows)


def figures_of_the_paper() -> str:
    """The paper's figures: chapter and command, or what the book has instead."""
    rows = [[name.replace("-", " "), None, "a drawing", where] for name, where in chapters.DRAWINGS.items()]
    for one in chapters.EXHIBITS:
        kind, _, number = one.name.partition("-")
        if kind == "figure":
            rows.append([f"figure {number}", _chapter(one.chapter), one.title, f"`dsna figure {number}`"])
    return text_table(["figure", "chapter", "what it shows", "here"], rows)


def tables_of_the_paper() -> str:
    """Every row that the paper measured itself: its numbers, and ours with their spread."""
    triple = ("precision", "recall", "iou")
    printed = {
        "I": (triple, paper.TABLE_I),
        "II": (triple, {f"{rate:g}": row for rate, row in paper.TABLE_II.items()}),
        "single-stream": (triple, {"single stream": paper.SINGLE_STREAM}),
        "III": (("iou",), {row.title: {"iou": row.miou} for row in paper.TABLE_III}),
    }
    rows = []
    for table, (columns, lines) in printed.items():
        for title, numbers in lines.items():
            ours = [_ours(table, title, columns, kind) for kind in KINDS]
            rows.append([table, title, " / ".join(cell(numbers[c]) for c in columns), *ours])
    for name, mean in paper.TABLE_VI_MEAN.items():
        network, split = ("VGG-16" if name.startswith("vgg16") else "ResNet-101"), name.partition("-")[2]
        here = measured("III", "photographs").get(network)
        ours = _spread_of(here, "DSNA, merged", ("iou",)) if here and split == "val" else None
        why = "the test server was not asked" if split == "test" else UNMEASURED
        rows.append(
            ["V and VI" if split == "test" else "IV and VI", f"{network}, {split}", cell(mean), "-", ours or why]
        )
    rows = [[row[0], _chapter(chapters.find(row[0].partition(" ")[0]).chapter), *row[1:]] for row in rows]
    return text_table(["table", "chapter", "row", "paper", *KINDS], rows)


def _ours(table: str, title: str, columns: Sequence[str], kind: str) -> str:
    found = {n: _spread_of(content, title, columns) for n, content in measured(table, kind).items()}
    return _said(kind, {network: text for network, text in found.items() if text}) or UNMEASURED


def _row(content: dict, title: str) -> dict | None:
    return next((row for row in content["values"]["rows"] if row["title"] == title), None)


def _spread_of(content: dict, title: str, columns: Sequence[str]) -> str | None:
    """A row's means with their standard deviations; None where it was not measured."""
    row = _row(content, title)
    if row is None:
        return None
    return " / ".join(
        cell(row["mean"][c]) + (f" ± {row['std'][c]:.1f}" if row["std"][c] is not None else "") for c in columns
    )


def statements() -> str:
    """What the paper says in words, and what became of it."""
    rows = [[one.section, one.text, _chapter(one.chapter), _answer(one)] for one in ledger.STATEMENTS]
    return text_table(["section", "the paper says", "chapter", "here"], rows)


def _answer(statement: ledger.Statement) -> str:
    """Everything that answers a statement, in one cell."""
    parts = _verdicts(ledger.claims_of(statement))
    parts += [EVIDENCE[name]() or UNMEASURED for name in statement.evidence]
    if statement.test:
        parts.append(f"by construction: {_test(statement.test)}")
    if statement.unmeasured:
        parts.append(f"{'open' if parts else 'not measured'}: {statement.unmeasured}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _verdicts(several: Sequence[paper.Claim]) -> list[str]:
    """The verdicts on several claims, those that are alike together, for each kind of pictures."""
    numbers, parts = ledger.claim_numbers(), []
    for kind in KINDS:
        alike: dict[str, list[str]] = {}
        for claim in several:
            said = _said(kind, {network: one["verdict"] for network, one in _answers(claim, kind).items()})
            alike.setdefault(said or _unmeasured(claim.table, kind), []).append(numbers[claim])
        alike.pop("-", None)
        if set(alike) - {UNMEASURED}:
            answered_first = sorted(alike.items(), key=lambda item: item[0] == UNMEASURED)
            parts.append(f"{kind}: " + "; ".join(f"{said} [{', '.join(which)}]" for said, which in answered_first))
    if several and not parts:
        parts.append(f"{UNMEASURED} [{', '.join(numbers[claim] for claim in several)}]")
    return parts


def annotations_and_masks() -> str | None:
    """Do better annotations make better masks? Over the rows of Table III."""
    parts = []
    for kind in KINDS:
        found = {}
        for network, content in measured("III", kind).items():
            rows = [row["mean"] for row in content["values"]["rows"] if row["title"] != "full supervision"]
            pairs = [(row["annotation"], row["iou"]) for row in rows if "annotation" in row]
            if len(pairs) > 2:
                found[network] = f"{spearmanr(*zip(*pairs, strict=True)).statistic:+.2f} over {len(pairs)} rows"
        if found:
            parts.append(f"{kind} {_said(kind, found)}")
    return f"rank correlation of the IoU of annotations and of masks, {', '.join(parts)}" if parts else None


def on_parts(method: str) -> str:
    """How much of the telling part and of the rest a method covers, on drawn pictures."""
    part, rest = (_spread_of(read("table_parts_minivoc"), method, (column,)) for column in ("part", "rest"))
    return f"drawn: it covers {part} % of the telling part and {rest} % of the rest"


def grad_cam_and_cam() -> str:
    """How far CAM and Grad-CAM lie apart."""
    one, two = (_row(read("table_methods_minivoc"), title)["seeds"] for title in ("CAM", "Grad-CAM"))
    apart = max(abs(a["iou"] - b["iou"]) for a, b in zip(one, two, strict=True))
    return f"drawn: their IoU differs by {apart:.1f} points at most"


def forward_pass() -> str:
    """What both maps cost beside the bare forward pass."""
    times = [(p, _times(read(f"one_pass_{p}")["values"]["batch of 1"]["dsna"])[1]) for p in ("fp32", "bf16")]
    return "both maps and their merger take " + " and ".join(f"{t} times the bare pass in {p}" for p, t in times)


def weight_and_size() -> str:
    """Does the weight of Eq. 11 follow the size of the object?"""
    found = [(kind, read(f"table_I_{data}")["values"]["weight"]) for kind, data in zip(KINDS, DATA, strict=True)]
    said = [f"{kind} {weight['decoupled, dropout 0.5']['spearman']:+.2f}" for kind, weight in found]
    return f"rank correlation of the weight and the object's size: {', '.join(said)}"


def score_or_equal_weights() -> str:
    """Eq. 11 against the plain mean of the maps."""
    said = []
    for kind, data in zip(KINDS, DATA, strict=True):
        content = read(f"table_sensitivity_{data}")
        score, equal = (_row(content, title)["seeds"] for title in ("merged, all defaults", "plain mean of A and S"))
        differences = [round(a["iou"] - b["iou"], 2) for a, b in zip(score, equal, strict=True)]
        judged = {"differences": differences, "verdict": verdict(differences)}
        several = len(differences) > 1
        said.append(f"{kind}, " + (_judged(judged) if several else f"{judged['verdict']}, {differences[0]:+.1f}"))
    return f"IoU of Eq. 11 above that of the plain mean, points: {'; '.join(said)}"


def refined() -> str:
    """What the CRF adds to merged annotations."""
    found = {title: read(f"table1_{key}")["values"]["rows"] for key, title in MODELS.items()}
    said = [f"{r['merged']['iou']:.1f} to {r['merged_crf']['iou']:.1f} with {title}" for title, r in found.items()]
    return f"IoU on photographs rises from {', from '.join(said)}"


def merged_iou() -> str:
    """How close merged annotations come to the truth."""
    ours = [f"{kind} {_ours('I', 'merged', ('iou',), kind)}" for kind in KINDS]
    return f"IoU: {', '.join(ours)}; the paper {paper.TABLE_I['merged']['iou']:.1f}"


def lead(network: str) -> str:
    """How far ahead the paper's own tables see it, and what was measured here."""
    own = next(row for row in paper.SEGMENTATION if not row.quoted and row.network == network)
    others = [row for row in paper.SEGMENTATION if row.quoted and row.supervision == own.supervision]
    ahead = [f"{getattr(own, s) - max(getattr(row, s) for row in others):.1f} points on {s}" for s in ("val", "test")]
    here = measured("III", "photographs").get(network)
    ours = _spread_of(here, "DSNA, merged", ("iou",)) if here else None
    return f"in its own tables by {' and '.join(ahead)}" + (f". Here, on the subset: {ours}" if ours else "")


def overtaken() -> str:
    """How long the state of the art lasted."""
    best = max(row.val for row in paper.SEGMENTATION if not row.quoted)
    later = [row for row in paper.LATER if row.supervision == paper.LABELS and row.val is not None]
    ahead = sum(row.val > best for row in later)
    return f"holds in its own tables; {ahead} of {len(later)} later methods in our list are ahead of it on val"


DATA = ("minivoc", "voc_vgg16")  # of KINDS, where both were measured
EVIDENCE: dict[str, Callable[[], str | None]] = {
    **{
        f.__name__: f
        for f in (
            *(annotations_and_masks, grad_cam_and_cam, forward_pass, weight_and_size, score_or_equal_weights),
            *(refined, merged_iou, overtaken),
        )
    },
    "cam_on_parts": partial(on_parts, "CAM"),
    "discriminative_on_parts": partial(on_parts, "DSNA, discriminative"),
    "lead_vgg16": partial(lead, "VGG-16"),
    "lead_resnet101": partial(lead, "ResNet-101"),
}


# --- the last run -----------------------------------------------------------------------------------------------------

UNTIMED = "*Not timed yet: `python tools/time_chapters.py` does it.*\n"


def chapter_times() -> str:
    """Seconds and memory of every chapter in its CPU profile."""
    if not (ROOT / "results" / "chapters.json").is_file():
        return UNTIMED
    values = read("chapters")["values"]
    found = values["chapters"]
    rows = [[_chapter(name), f"{one['seconds']:.0f}", f"{one['peak_mib']:,.0f}"] for name, one in found.items()]
    largest = max(one["peak_mib"] for one in found.values())
    rows.append(["all, two at a time", f"{values['seconds']:.0f}", f"{largest:,.0f}"])
    return markdown(["chapter", "seconds", "memory of the largest process, MiB"], rows)


def machine() -> str:
    """Where the chapters ran, and with what."""
    if not (ROOT / "results" / "chapters.json").is_file():
        return UNTIMED
    how = read("chapters")["provenance"]
    where = how["environment"]
    rows = [
        ["time", where["time"]],
        ["commit", f"`{where['commit']}`"],
        ["system", f"{where['system']}, {where['device']}, {how['processor']}, {how['memory_gib']} GiB of memory"],
        ["Python", where["python"]],
        *([name, version or "-"] for name, version in (where["packages"] | how["tools"]).items()),
    ]
    return text_table(["what", "last run"], rows)


def origins() -> str:
    """Every file of results: when, where, and with which commit it was measured."""
    rows = []
    for path in sorted((ROOT / "results").glob("*.json")):
        where = read(path.stem)["provenance"]["environment"]
        packages = where["packages"]
        rows.append([f"`{path.name}`", where["time"][:10], f"`{where['commit']}`", where["device"], packages["torch"]])
    return text_table(["file", "day", "commit", "device", "torch"], rows)


RENDERERS: dict[str, Callable[[], str]] = {
    **{
        f.__name__: f
        for f in (
            *(table1, relations, claims, claims_again, bootstrap, by_labels, weight_by_size),
            *(input_size, recipe, sensitivity, weights, cost, one_pass),
            *(definitions, figures_of_the_paper, tables_of_the_paper, statements),
            *(chapter_times, machine, origins, shipped_segmentation, segmentation_speed, overfit),
        )
    },
    "segmentation_drawn": partial(segmentation, "drawn"),
    "segmentation_photographs": partial(segmentation, "photographs"),
}


def block(name: str) -> str:
    """What stands at a place: a renderer's text, or a table of ``dsna table`` by the name of its file."""
    return render(read(name)["values"]) if name.startswith("table_") else RENDERERS[name]()


def number(file: str, path: str) -> str:
    """One number of a file of results, as it stands within a sentence.

    Raises:
        KeyError: the path leads nowhere.
    """
    value: Any = read(file)
    for key in path.split("/"):
        if isinstance(value, list):
            value = {row["title"]: row for row in value}
        value = value[key]
    return f"{value:,}" if isinstance(value, int) else cell(value)


def filled(text: str) -> str:
    """A page's text with every block and number made anew."""
    text = BLOCK.sub(lambda found: found[1] + "\n" + block(found[2]) + "\n" + found[3], text)
    return NUMBER.sub(lambda found: found[1] + number(found[2], found[3]) + found[4], text)


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
