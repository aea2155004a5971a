"""What the knobs of the method do to one picture: :func:`views` for a page, :func:`explorer` for a running kernel."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from html import escape
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

from dsna_lib import annotate, crf, maps
from dsna_lib.annotate import BACKGROUND_THRESHOLD, FOREGROUND_THRESHOLD
from dsna_lib.attention import AttentionModel, AttentionOutput, DecoupledAttention
from dsna_lib.book import figures, photos
from dsna_lib.book.slider import image_tag
from dsna_lib.data import transforms
from dsna_lib.data.pictures import VOID, PictureError, Pictures, read_image
from dsna_lib.engine.errors import SettingError
from dsna_lib.maps import PictureMaps

MAX_SIDE = 336  # of a picture in the explorer, in pixels: larger ones would make the CRF lag behind the slider
GAP = 6  # between panels, in pixels


class Views(NamedTuple):
    """What one setting makes of a picture.

    Attributes:
        panels: ``picture``, a heat map by kind, ``annotation`` and, with a tau, ``refined``: ``(H, W, 3)`` uint8.
        masks: ``annotation`` and ``refined`` as class indices ``(H, W)`` uint8.
    """

    panels: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]

    def frame(self, names: Sequence[str]) -> np.ndarray:
        """Some panels side by side with a white gap, as one picture ``(H, W', 3)`` uint8."""
        gap = np.full((self.panels[names[0]].shape[0], GAP, 3), 255, np.uint8)
        return np.hstack([part for name in names for part in (gap, self.panels[name])][1:])


@torch.no_grad()
def see(model: AttentionModel, image: np.ndarray, size: int = 224) -> PictureMaps:
    """The maps of one picture in memory, on the CPU; :func:`dsna_lib.maps.iterate_maps` does it for a data set.

    Args:
        model: an attention model.
        image: ``(H, W, 3)`` uint8.
        size: side in pixels of the square that it is resized to.

    Example:
        >>> see(model, read_image("cat.jpg")).maps["merged"].shape  # doctest: +SKIP
        torch.Size([20, 14, 14])
    """
    device = next(model.parameters()).device
    batch = transforms.inference(size)(torch.from_numpy(image.copy()).permute(2, 0, 1))[None].to(device)
    output = model.eval()(batch)
    return _first(output, output.features, image.shape[:2])


@torch.no_grad()
def drop(model: AttentionModel, seen: PictureMaps, rate: float, seed: int = 0) -> PictureMaps:
    """The maps and scores of one draw of the dropout that training applies to the expansive branch, at any rate.

    Args:
        model: with a decoupled head; it is not changed.
        seen: the picture's features, from :func:`see` or :func:`dsna_lib.maps.iterate_maps`.
        rate: of both dropout layers, in 0..1.
        seed: of the draw; what a rate drops is dropped by every higher rate as well.

    Raises:
        SettingError: the rate lies outside 0..1, or the head has no expansive branch with dropout.

    Example:
        >>> drop(model, see(model, image), rate=0.5).maps["expansive"].shape  # doctest: +SKIP
        torch.Size([20, 14, 14])
    """
    if not 0 <= rate <= 1:
        raise SettingError(f"rate={rate} must be from 0 to 1")
    head = copy.deepcopy(_decoupled(model)).cpu()
    for layer in (head.dropout_before, head.dropout_after):
        layer.p = rate
        layer.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = head(seen.features[None].cpu())
    return _first(output, seen.features[None], seen.size)


def views(
    image: np.ndarray,
    seen: PictureMaps,
    labels: Sequence[int],
    weight: float | None = None,
    foreground_threshold: float = FOREGROUND_THRESHOLD,
    background_threshold: float = BACKGROUND_THRESHOLD,
    tau: float | None = None,
) -> Views:
    """What one setting makes of a picture: heat maps, annotation, and the annotation after the CRF.

    Args:
        image: ``(H, W, 3)`` uint8; every view has its size.
        seen: its maps.
        labels: 0-based indices of the classes present. A heat map shows the highest of their maps at each place.
        weight: of the expansive map in Eq. 11, in 0..1 and for every class; None for p-hat.
        foreground_threshold, background_threshold: see :func:`dsna_lib.annotate.pseudo_annotation`.
        tau: see :func:`dsna_lib.crf.class_probabilities`; None for no CRF.

    Raises:
        SettingError: no labels, no expansive map, a weight outside 0..1 or a tau outside its range.

    Example:
        >>> views(image, see(model, image), [7], weight=0.5).panels["annotation"].shape  # doctest: +SKIP
        (300, 451, 3)
    """
    if "expansive" not in seen.maps:
        raise SettingError(f"Eq. 11 needs an expansive map; this head gives only {', '.join(seen.maps)}")
    if weight is not None and not 0 <= weight <= 1:
        raise SettingError(f"weight={weight} must be from 0 to 1")
    size, labels, shown = image.shape[:2], sorted(set(labels)), dict(seen.maps)
    if weight is not None:
        shown["merged"] = weight * shown["expansive"] + (1 - weight) * shown["discriminative"]
    merged, thresholds = shown["merged"], (foreground_threshold, background_threshold)
    annotation = annotate.pseudo_annotation(merged, seen.features, labels, size, *thresholds)
    masks = {"annotation": annotation.cpu().numpy()}
    if tau is not None:
        probabilities = crf.class_probabilities(masks["annotation"], labels, len(merged), tau)
        masks["refined"] = crf.refine(image, probabilities, device=seen.features.device)
    panels = {"picture": image}
    for kind, attention_map in shown.items():
        # Scaled as for the threshold, so that equal colors mean equal distance from it.
        cues = maps.min_max(annotate.resize(attention_map[labels].float(), size))
        panels[kind] = figures.heat(image, cues.amax(dim=0).cpu().numpy())
    return Views(panels | {name: figures.overlay(image, mask) for name, mask in masks.items()}, masks)


def describe(mask: np.ndarray, labels: Sequence[int], class_names: Sequence[str]) -> str:
    """Which share of the picture everything in a mask has, in words.

    Example:
        >>> describe(np.array([[0, 0, 2, 255]]), [1], ["cat", "dog"])
        'dog 25%, background 50%, void 25%'
    """
    values = {class_names[c]: c + 1 for c in labels} | {"background": 0, "void": VOID}
    return ", ".join(f"{name} {(mask == value).mean():.0%}" for name, value in values.items())


def explorer(model: AttentionModel, pictures: Pictures, size: int = 224) -> Any:
    """Every knob of the method on a picture of a data set or a file of one's own, as an ipywidgets ``VBox``.

    Args:
        model: with a decoupled head.
        pictures: to choose from; their masks are not read.
        size: see :func:`see`.

    Raises:
        ImportError: ipywidgets is not installed.
        SettingError: the head is not decoupled, there are no pictures, or the model was made for other classes.

    Example:
        >>> explorer(model, minivoc.load("val"))  # doctest: +SKIP
    """
    _decoupled(model)
    if len(pictures) == 0:
        raise SettingError("pictures is empty: give the explorer at least one to begin with")
    if model.config is not None and tuple(model.config.class_names) != pictures.class_names:
        known, there = (", ".join(names) for names in (model.config.class_names, pictures.class_names))
        raise SettingError(f"the model knows {known}; the pictures hold {there}: choose data with the model's classes")
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError("the explorer needs ipywidgets: pip install ipywidgets, then restart the kernel") from error
    return _Explorer(ipywidgets, model, pictures, size).box


class _Explorer:
    """The widgets, and what happens when one is moved."""

    def __init__(self, widgets: ModuleType, model: AttentionModel, pictures: Pictures, size: int) -> None:
        self.model, self.pictures, self.size = model, pictures, size
        self.seen: PictureMaps | None = None
        self.controls = _controls(widgets, pictures)
        self.shown = widgets.HTML()
        for name, control in self.controls.items():
            control.observe(self.open if name in ("picture", "path") else self.update, "value")
        controls = widgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        self.box = widgets.VBox([controls, self.shown])
        self.open()

    def open(self, _change: object = None) -> None:
        """Another picture: one forward pass."""
        path = self.controls["path"].value.strip()
        record = self.pictures.records[self.controls["picture"].value]
        self.seen = None  # so that setting the labels draws nothing yet
        try:
            self.image = photos.reduced(read_image(path or record.image), MAX_SIDE)
        except PictureError as error:
            self.shown.value = f"<p>{escape(str(error))}</p>"
            return
        seen = see(self.model, self.image, self.size)
        self.controls["labels"].value = photos.predicted_labels(seen) if path else record.labels
        self.seen = seen
        self.update()

    def update(self, _change: object = None) -> None:
        """Another setting: the head alone, which takes milliseconds, and the CRF where it is asked for."""
        value = {name: control.value for name, control in self.controls.items()}
        self.controls["weight"].disabled = value["predicted"]
        self.controls["tau"].disabled = not value["refining"]
        if self.seen is None:
            return
        weight = None if value["predicted"] else value["weight"]
        tau = value["tau"] if value["refining"] else None
        labels, names = value["labels"], self.pictures.class_names
        try:
            dropped = drop(self.model, self.seen, value["dropout"], value["seed"])
            made = views(self.image, dropped, labels, weight, value["foreground"], value["background"], tau)
        except (ValueError, ImportError) as error:
            self.shown.value = f"<p>{escape(str(error))}</p>"
            return
        said = {name: describe(mask, labels, names) for name, mask in made.masks.items()}
        p_hat = maps.score_weight(dropped.scores)
        said["p-hat"] = ", ".join(f"{names[c]} {p_hat[c]:.2f}" for c in labels)
        lines = (f"<p><b>{name}</b>: {escape(text)}</p>" for name, text in said.items())
        self.shown.value = _gallery(made.panels) + "".join(lines)


def _controls(widgets: ModuleType, pictures: Pictures) -> dict[str, Any]:
    """One widget for every knob, by name."""
    names = pictures.class_names
    choices = [(f"{r.id}: {', '.join(names[c] for c in r.labels)}", k) for k, r in enumerate(pictures.records)]
    classes = [(name, c) for c, name in enumerate(names)]
    look = {"style": {"description_width": "12em"}, "layout": {"width": "30em", "max_width": "100%"}}
    lazy = look | {"continuous_update": False}
    share = lazy | {"min": 0.0, "max": 1.0, "step": 0.05}
    return {
        "picture": widgets.Dropdown(description="picture", options=choices, value=0, **look),
        "path": widgets.Text(description="or a file of yours", placeholder="cat.jpg", **lazy),
        "labels": widgets.SelectMultiple(description="classes in it", options=classes, **look),
        "dropout": widgets.FloatSlider(description="dropout", value=0.0, **share | {"max": 0.9}),
        "seed": widgets.IntSlider(description="draw of dropout", value=0, min=0, max=20, **lazy),
        "predicted": widgets.Checkbox(description="weight as predicted", value=True, **look),
        "weight": widgets.FloatSlider(description="weight of expansive", value=0.5, **share),
        "foreground": widgets.FloatSlider(description="foreground above", value=FOREGROUND_THRESHOLD, **share),
        "background": widgets.FloatSlider(description="background below", value=BACKGROUND_THRESHOLD, **share),
        "refining": widgets.Checkbox(description="refine with the CRF", value=False, **look),
        "tau": widgets.FloatSlider(description="tau", value=0.7, **share | {"min": 0.55, "max": 0.95}),
    }


def _gallery(panels: dict[str, np.ndarray]) -> str:
    """Panels with their names below, in rows that wrap."""
    shown = (
        f'<figure style="margin:0;flex:0 1 {image.shape[1]}px">{image_tag(image, name)}'
        f'<figcaption style="text-align:center">{name}</figcaption></figure>'
        for name, image in panels.items()
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(shown)}</div>'


def _first(output: AttentionOutput, features: torch.Tensor, size: tuple[int, int]) -> PictureMaps:
    """The first picture of a batch, on the CPU."""
    first = {kind: batch[0].cpu() for kind, batch in maps.from_output(output).items()}
    return PictureMaps(0, size, first, features[0].float().cpu(), output.scores[0].float().cpu())


def _decoupled(model: AttentionModel) -> DecoupledAttention:
    """The head, which must be a decoupled one."""
    if not isinstance(model.head, DecoupledAttention):
        raise SettingError(f"the head is {type(model.head).__name__}: choose a model with a decoupled head")
    return model.head
