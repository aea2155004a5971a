"""Segmentation networks: Table III, and what they can learn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dsna_lib.segmentation.mistakes import KINDS
from dsna_lib.tables.render import markdown, render_table
from pages.stored import UNMEASURED, by_network, read, values


def segmentation(pictures: str) -> str:
    """Table III as measured on a kind of pictures, with how; or that it was not."""
    parts = []
    for network, content in by_network("III", pictures).items():
        how = content["provenance"]
        count = how["pictures"]
        seeds = len(content["values"]["rows"][0]["seeds"])
        protocol = how["protocol"].replace("; no;", "; fp32;")  # accelerate's word for it
        protocol = protocol[0].upper() + protocol[1:]
        parts.append(
            f"{network}; {count['mining']:,} pictures to mine, {count['train']:,} to segment, {count['val']:,} to "
            f"measure on; {seeds} training{'s' * (seeds > 1)} a row. {protocol}.\n"
        )
        parts.append(render_table(content["values"]))
        if how.get("note"):
            parts.append(f"*{how['note']}*\n")
    return "\n".join(parts) or f"*On {'drawn pictures' if pictures == 'drawn' else pictures}: {UNMEASURED}.*\n"


def curves(pictures: str) -> str:
    """Mean IoU of Table III's networks on held-out training pictures, at every tenth of a training."""
    lines = []
    for content in by_network("III", pictures).values():
        for title, trainings in content["provenance"]["trained"].items():
            for seed, known in trainings.items():
                curve = known.get("metrics", {}).get("curve", {"mean_iou": []})
                if curve["mean_iou"]:
                    shown = (f"{100 * value:.0f}" for value in curve["mean_iou"])
                    lines.append([title, seed, f"{curve['step'][-1]:,}", *shown])
    head = ["row", "seed", "steps", *(f"{10 * tenth} %" for tenth in range(1, 11))]
    return markdown(head, lines, words=head[:1]) if lines else f"*{UNMEASURED}*\n"


def wrong(pictures: str) -> str:
    """What is wrong in each row's masks of val, and in its annotations, counted by kind, in percent of all pixels."""
    lines = []
    for network, content in by_network("III", pictures).items():
        for row in content["values"]["rows"]:
            if "wrong" in row:
                masks = [row["wrong"][kind] for kind in ("all", *KINDS)]
                learned = [row.get("annotation_wrong", {}).get(kind) for kind in ("missed", "invented")]
                lines.append([f"{network}: {row['title']}", *masks, *learned])
    of_annotations = ["annotations: missed", "annotations: invented"]
    head = ["network and row: percent of all pixels", "wrong", *KINDS, *of_annotations]
    return markdown(head, lines, words=head[:1]) if lines else f"*{UNMEASURED}*\n"


def by_class(pictures: str, often: int = 250) -> str:
    """IoU of each class in each row, the classes with most pictures first, and means over those with many and few."""
    parts = []
    for network, content in by_network("III", pictures).items():
        rows = {row["title"]: row["per_class"] for row in content["values"]["rows"]}
        shown = dict(sorted(content["provenance"].get("of_class", {}).items(), key=lambda item: -item[1]))
        many = [name for name, count in shown.items() if count > often]
        groups = {
            f"the {len(many)} with more than {often} pictures": many,
            f"the other {len(shown) - len(many)}": [name for name in shown if name not in many],
            "all, with background": ["background", *shown],
        }
        lines = [[name, count, *(row[name] for row in rows.values())] for name, count in shown.items()]
        for title, names in groups.items():
            known = [[row[name] for name in names if row[name] is not None] for row in rows.values()]
            lines.append([f"**{title}**", None, *(sum(each) / len(each) if each else None for each in known)])
        if shown:
            parts.append(f"{network}:\n\n" + markdown(["IoU in percent", "pictures", *rows], lines))
    return "\n".join(parts) or f"*{UNMEASURED}*\n"


def network_ablation() -> str:
    """What each part of the light network and of its recipe is worth."""
    head = ["variant", "steps", "seconds", "one scale", "several scales", "with a CRF"]
    rows = values("network_ablation")["rows"]
    columns = ("steps", "seconds", "single", "multi", "iou")
    return markdown(head, [[title, *(row[column] for column in columns)] for title, row in rows.items()])


def overfit() -> str:
    """Whether DeepLab-LargeFOV can learn a few photographs by heart."""
    content = read("overfit_vgg16")
    asked, score = content["provenance"]["arguments"], content["values"]["mean_iou"]
    return (
        f"Taught by the true masks of {asked['pictures']} photographs in {asked['steps']} steps, DeepLab-LargeFOV on "
        f"VGG-16 has a mean IoU of {score['single']:.1f} % on these {asked['pictures']} at one scale and of "
        f"{score['multi']:.1f} % at three.\n"
    )


def four_photographs() -> str:
    """What two networks mark of the book's four photographs, and beside their objects, in regions named by hand."""
    networks = {"this network": "four_photographs", "taught by true masks": "four_photographs_full_supervision"}
    rows = {said: values(name)["rows"] for said, name in networks.items()}
    columns = [f"{said}: {what}" for said in networks for what in ("of the object, its class", "beside it, any class")]
    shown = [
        [name.replace("_", " "), *(rows[said][name][place] for said in networks for place in ("object", "outside"))]
        for name in rows["this network"]
    ]
    return markdown(["percent of these regions", *columns], shown)


def shipped_segmentation() -> str:
    """What the segmentation network that ships scores on photographs, beside its ceiling."""
    means = {row["title"]: row["mean"] for row in values("table_III_voc_efficientnet_lite0")["rows"]}
    columns = {"single": "one scale", "multi": "three scales", "iou": "three scales, CRF"}
    names = {"DSNA, merged": "this network", "full supervision": "the same, taught by true masks"}
    return markdown(
        ["mean IoU in percent", *columns.values()],
        [[said, *(means[title][column] for column in columns)] for title, said in names.items()],
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "segmentation_drawn": partial(segmentation, "drawn"),
    "segmentation_photographs": partial(segmentation, "photographs"),
    "segmentation_curves": partial(curves, "drawn"),
    "segmentation_wrong": partial(wrong, "drawn"),
    "segmentation_curves_photographs": partial(curves, "photographs"),
    "segmentation_wrong_photographs": partial(wrong, "photographs"),
    "segmentation_by_class": partial(by_class, "photographs"),
    "network_ablation": network_ablation,
    "overfit": overfit,
    "shipped_segmentation": shipped_segmentation,
    "four_photographs": four_photographs,
}
