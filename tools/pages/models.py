"""Attention models: their learning curves, and what their maps are worth on photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dsna_lib.config.attention import ModelConfig
from dsna_lib.maps import MAP_KINDS
from dsna_lib.tables.render import cell, markdown
from pages.maps import scores
from pages.stored import FOLDER, NETWORKS, read, values

REFINED = ("expansive", "merged")
SHIPPED = "efficientnet_lite0_voc"


def _photographs() -> Iterator[dict[str, Any]]:
    """What ``dsna evaluate --record photographs_...`` wrote, one a model, way to show a picture, and split."""
    for path in sorted(FOLDER.glob("photographs_*.json")):
        yield read(path.stem)


def _words(head: str) -> str:
    return head.replace("_", " ")


def _head(known: Mapping[str, Any]) -> str:
    """The head of a model, by its provenance."""
    head, dropout = known["model"]["head"], known["model"]["dropout"]
    if head == "single_stream" and not dropout:
        return "single stream without dropout (CAM)"
    usual = dropout == ModelConfig().dropout or head == "conventional"  # which has none
    return _words(head) + ("" if usual else f", dropout {dropout:g}")


def _network(known: Mapping[str, Any]) -> str:
    """The backbone of a model, by its provenance."""
    name = known["model"]["backbone"]
    return NETWORKS.get(name, name)


def _learned(known: Mapping[str, Any]) -> str:
    """The backbone of a model, and which of its layers learned where not all of them did."""
    last = known["model"]["train_last"]
    return _network(known) + ("" if last is None else f" (last {last} stages)")


def photographs() -> str:
    """Annotations of photographs by every map of every model, before and after the CRF."""
    return _annotations(_photographs())


def shipped_attention() -> str:
    """The same of the attention model of photographs that comes with the package."""
    file = values("checkpoints")[SHIPPED]["shipped"]
    return _annotations(content for content in _photographs() if content["provenance"]["trained"]["file"] == file)


def _annotations(measured: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for content in measured:
        how, rows = content["provenance"], content["values"]["rows"]
        shown = how["protocol"].partition(", predicted void")[0].replace(" input", "")
        before = [scores(rows[kind]) for kind in MAP_KINDS]
        after = [cell(rows[f"{kind}_crf"]["iou"]) if f"{kind}_crf" in rows else None for kind in REFINED]
        lines.append([f"{_learned(how['trained'])}, {shown}", how["split"], how["pictures"], *before, *after])
    head = [
        "model, how it is shown a picture",
        "split",
        "pictures",
        *MAP_KINDS,
        *(f"{kind}, CRF: IoU" for kind in REFINED),
    ]
    return markdown(head, lines, words=head[:2])


def similarity_photographs() -> str:
    """How alike the maps of different classes are in photographs, and what it does to annotations."""
    shipped = {content["shipped"]: content for content in values("checkpoints").values()}
    lines = []
    for path in sorted(FOLDER.glob("similarity_*.json")):
        content = read(path.stem)
        how, trained = content["provenance"], content["provenance"]["trained"]
        model = _learned(shipped.get(trained["file"], trained))
        for kind, row in content["values"]["rows"].items():
            lines.append([f"{model}, {kind}", how["size"], *row.values()])
    head = ["model, map", "input, pixels", "similarity", "object pixels under another class", "IoU"]
    return markdown(head, lines, words=head[:1])


def _trained() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Title and provenance of each attention model with a learning curve: those that ship, then photographs'."""
    attention = {name: known for name, known in values("checkpoints").items() if "head" in known["model"]}
    for name, known in attention.items():
        pictures = "drawn" if "drawn" in name else "photographs"
        yield f"{_network(known)}, {pictures}, {_head(known)}", known
    shown = {known[digest] for known in attention.values() for digest in ("file", "shipped")}
    for content in _photographs():
        known = content["provenance"]["trained"]
        if known["file"] not in shown:
            shown.add(known["file"])
            yield f"{_learned(known)}, photographs, {_head(known)}", known


def curves() -> str:
    """Mean average precision on held-out training pictures, at every tenth of a training."""
    lines = []
    for title, known in _trained():
        values, steps = known["metrics"]["curve"]["mean_average_precision"], known["metrics"]["curve"]["step"]
        if values:
            lines.append([title, f"{steps[-1]:,}", *(f"{value:.2f}" for value in values)])
    head = ["model", "steps", *(f"{10 * tenth} %" for tenth in range(1, 11))]
    return markdown(head, lines)


def schedules() -> str:
    """How each of these models was trained, from its own record."""
    lines = []
    for title, known in _trained():
        how, model = known["training"], known["model"]
        held = round(how["held_out"] * known["data"]["pictures"])
        optimizer = "AdamW" if how["optimizer"] == "adamw" else f"SGD, momentum {how['momentum']:g}"
        falls = "polynomial decay" if how["schedule"] == "poly" else f"divided by 10 after epoch {how['drop_after']}"
        precision = "fp32" if how["precision"] == "no" else how["precision"]
        crops = {"rescaled": "crops", "resized": "random-resized crops", "whole": "whole pictures"}[how["crops"]]
        balance = f", drawn by class ({how['balance']:g})" if how["balance"] else ""
        colors = f", colors changed by up to {how['jitter']:.0%}" if how.get("jitter") else ""
        layers = "all layers" if model["train_last"] is None else f"the last {model['train_last']} stages"
        lines.append(
            f"- **{title}**: {layers}, {how['epochs']} epochs over {known['data']['pictures'] - held:,} pictures "
            f"({held} held out){balance}, {crops} of {how['crop']} pixels{colors} in batches of {how['batch_size']}; "
            f"{optimizer}, rates {how['backbone_rate']:g} and {how['head_rate']:g}, weight decay "
            f"{how['weight_decay']:g}, {how['warm_up']} steps of warm-up, {falls}; {precision}, seed {how['seed']}."
        )
    return "\n".join(lines) + "\n"


def recipe_search() -> str:
    """The candidates for the recipe of the drawn pictures, and the number that decided."""
    lines = []
    for trial in values("recipe_search_drawn")["trials"]:
        how, curve = trial["training"], trial["curve"]
        shown = "whole" if how["crops"] == "whole" else "rescaled, cropped"
        layers = "all" if trial["train_last"] is None else f"the last {trial['train_last']} stages"
        reached = f"{curve['mean_average_precision'][-1]:.3f}"
        which = f"{trial['pictures']:,}, version {trial['drawings']}"
        rate, steps = f"{how['backbone_rate']:g}", f"{how['warm_up']} of {curve['step'][-1]}"
        padding = trial.get("padding", "as released")
        lines.append([which, _words(trial["head"]), shown, layers, padding, rate, steps, reached])
    head = ["pictures", "attention", "shown", "layers that learn", "padding", "rate", "warm-up", "mAP"]
    return markdown(head, lines, words=head[:5])


def displacement() -> str:
    """How far the cells of each backbone lie to the right of what they show."""
    lines = [[name, f"{pixels:+.1f}"] for name, pixels in values("displacement").items()]
    return markdown(["backbone", "pixels of 224 to the right"], lines)


BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__: block
    for block in (
        *(photographs, shipped_attention, similarity_photographs),
        *(curves, schedules, recipe_search, displacement),
    )
}
