"""What the knobs of the method do to one picture: sliders over ready frames, and a live explorer.

:func:`views` computes what a setting makes of a picture. :class:`Slider` shows a few such settings on a page that has
no kernel: the frames lie in the page, a native slider chooses between them, and without JavaScript one of them stands
there as a still picture. :func:`explorer` puts every knob on widgets in a running kernel.
"""

from __future__ import annotations

import base64
import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dsna_lib import annotate, crf, figures, photos
from dsna_lib import maps as attention_maps
from dsna_lib.annotate import BACKGROUND_THRESHOLD, FOREGROUND_THRESHOLD
from dsna_lib.attention import AttentionModel, DecoupledAttention
from dsna_lib.data import PictureError, Pictures, read_image, transforms
from dsna_lib.data.pictures import VOID
from dsna_lib.maps import PictureMaps

QUALITY = 50  # of WebP, 0..100: heat maps are smooth, and a notebook must stay small
MAX_SIDE = 336  # of a picture in the explorer, in pixels: larger ones would make the CRF lag behind the slider
GAP = 6  # between panels, in pixels
FIT = "width:100%;height:auto"  # how pictures follow the width of the page


class Views(NamedTuple):
    """What one setting makes of a picture.

    Attributes:
        panels: name to ``(H, W, 3)`` uint8: ``picture``, ``expansive``, ``discriminative``, ``merged`` (heat maps),
            ``annotation`` and, where a tau is given, ``refined``.
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
    """The maps of one picture in memory; :func:`dsna_lib.maps.compute` does it for a data set.

    Args:
        model: an attention model.
        image: ``(H, W, 3)`` uint8.
        size: the picture is resized to this square for the network, in pixels.

    Returns:
        Maps, features and scores, on the CPU.

    Example:
        >>> see(model, read_image("cat.jpg")).maps["merged"].shape  # doctest: +SKIP
        torch.Size([20, 14, 14])
    """
    device = next(model.parameters()).device
    batch = transforms.inference(size)(torch.from_numpy(image).permute(2, 0, 1))[None].to(device)
    output = model.eval()(batch)
    return _first(output.features, output.scores, attention_maps.from_output(output), image.shape[:2])


@torch.no_grad()
def drop(model: AttentionModel, found: PictureMaps, rate: float, seed: int = 0) -> PictureMaps:
    """One draw of the dropout that training applies to the expansive branch, at any rate.

    With one seed, what a rate drops is dropped by every higher rate as well.

    Args:
        model: with a decoupled head; it is not changed.
        found: the picture's features, from :func:`see` or :func:`dsna_lib.maps.compute`.
        rate: of both dropout layers, in 0..1.
        seed: of the draw; the global random state stays as it is.

    Returns:
        `found` with the maps and scores of that draw, on the CPU.

    Raises:
        ValueError: the rate lies outside 0..1, or the head has no expansive branch with dropout.

    Example:
        >>> drop(model, see(model, image), rate=0.5).maps["expansive"].shape  # doctest: +SKIP
        torch.Size([20, 14, 14])
    """
    _require_decoupled(model)
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate} must lie in 0..1")
    head = copy.deepcopy(model.head).cpu()
    for layer in (head.dropout_before, head.dropout_after):
        layer.p = rate
        layer.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = head(found.features[None].cpu())
    return _first(found.features[None], output.scores, attention_maps.from_output(output), found.size)


def views(
    image: np.ndarray,
    found: PictureMaps,
    labels: Sequence[int],
    weight: float | None = None,
    foreground_threshold: float = FOREGROUND_THRESHOLD,
    background_threshold: float = BACKGROUND_THRESHOLD,
    tau: float | None = None,
) -> Views:
    """What one setting makes of a picture: heat maps, annotation, and the annotation after the CRF.

    Args:
        image: ``(H, W, 3)`` uint8; every view has its size.
        found: its maps, with an expansive and a discriminative one.
        labels: 0-based indices of the classes present. A heat map shows the highest of their maps at each place.
        weight: of the expansive map in Eq. 11, in 0..1 and for every class; None for p-hat, the softmax of the scores.
        foreground_threshold, background_threshold: see :func:`dsna_lib.annotate.pseudo_annotation`.
        tau: see :func:`dsna_lib.crf.class_probabilities`; None for no CRF.

    Returns:
        The views, by name.

    Raises:
        ValueError: no labels, maps of a head that has no expansive map, a weight outside 0..1 or a tau outside its
            range.
        ImportError: a tau is given and pydensecrf is not installed.

    Example:
        >>> views(image, see(model, image), [7], weight=0.5).panels["annotation"].shape  # doctest: +SKIP
        (300, 451, 3)
    """
    if "expansive" not in found.maps:
        raise ValueError(f"Eq. 11 needs an expansive map; this head gives only {', '.join(found.maps)}")
    if weight is not None and not 0 <= weight <= 1:
        raise ValueError(f"weight={weight} must lie in 0..1")
    size, labels, maps = image.shape[:2], sorted(set(labels)), dict(found.maps)
    if weight is not None:
        maps["merged"] = weight * maps["expansive"] + (1 - weight) * maps["discriminative"]
    annotation = annotate.pseudo_annotation(
        maps["merged"], found.features, labels, size, foreground_threshold, background_threshold
    )
    masks = {"annotation": annotation.cpu().numpy()}
    if tau is not None:
        probabilities = crf.class_probabilities(masks["annotation"], labels, len(maps["merged"]), tau)
        masks["refined"] = crf.refine(image, probabilities)
    panels = {"picture": image}
    for kind, one in maps.items():
        # Scaled as for the threshold, so that equal colors mean equal distance from it.
        cues = attention_maps.min_max(annotate.resize(one[labels].float(), size))
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


# Makes every slider on the page live that is not yet: it finds them by their class, so that several need no ids and
# front ends may run it from wherever they put it.
SCRIPT = """
for (const figure of document.querySelectorAll("figure.dsna-slider:not([data-live])")) {
  figure.dataset.live = "yes";
  const input = figure.querySelector("input"), output = figure.querySelector("output");
  const frames = figure.querySelectorAll("img");
  const show = () => {
    frames.forEach((frame, k) => { frame.style.display = k === Number(input.value) ? "block" : "none"; });
    output.value = frames[input.value].dataset.value;
    input.setAttribute("aria-valuetext", output.value);
  };
  input.addEventListener("input", show);
  input.closest("div").style.display = "flex";
  show();
}
"""


@dataclass(repr=False)
class Slider:
    """Ready frames under a slider, as HTML that needs no kernel and loads nothing.

    Mouse, touch and the arrow keys move the slider. Until JavaScript ran, it is hidden and one frame is shown.

    Args:
        title: what the slider changes, its visible label.
        frames: the slider's value, as text, to what it shows: pictures ``(H, W, 3)`` uint8 or matplotlib figures, all
            of one size.
        alts: what each frame shows, for those who do not see it.
        columns: titles over the frame, at equal distances.
        start: the frame to begin with; None for the one in the middle.

    Raises:
        ValueError: fewer than two frames, one without a description, one of another size or kind, or no frame `start`.

    Example:
        >>> shades = {"dark": np.zeros((8, 8, 3), np.uint8), "light": np.full((8, 8, 3), 255, np.uint8)}
        >>> Slider("shade", shades, ["a black square", "a white square"])
        Slider('shade', 2 frames)
    """

    title: str
    frames: Mapping[str, np.ndarray | Figure]
    alts: Sequence[str]
    columns: Sequence[str] = ()
    start: int | None = None

    def __post_init__(self) -> None:
        count = len(self.frames)
        if count < 2:
            raise ValueError(f"{self.title!r} has {count} frames: a slider needs two")
        if len(self.alts) != count or not all(alt.strip() for alt in self.alts):
            raise ValueError(f"{self.title!r} has {count} frames and {len(self.alts)} alts: describe every frame once")
        if self.start is not None and not 0 <= self.start < count:
            raise ValueError(f"start={self.start} is none of the {count} frames (0 to {count - 1})")
        self.frames = {value: _pixels(frame) for value, frame in self.frames.items()}
        sizes = sorted({frame.shape[:2] for frame in self.frames.values()})
        if len(sizes) > 1:
            raise ValueError(f"frames of one size are needed, not of {sizes[0]} and {sizes[1]} (height, width)")

    def __repr__(self) -> str:
        return f"Slider({self.title!r}, {len(self.frames)} frames)"

    def _repr_html_(self) -> str:
        start = len(self.frames) // 2 if self.start is None else self.start
        value, width = escape(list(self.frames)[start]), next(iter(self.frames.values())).shape[1]
        images = "".join(
            _img(frame, alt, f"display:{'block' if k == start else 'none'}", f'data-value="{escape(shown)}"')
            for k, ((shown, frame), alt) in enumerate(zip(self.frames.items(), self.alts, strict=True))
        )
        titles = "".join(f'<span style="flex:1 1 0">{escape(column)}</span>' for column in self.columns)
        return (
            f'<figure class="dsna-slider" aria-label="{escape(self.title)}" style="margin:1em 0">'
            '<div style="display:none;max-width:28em;align-items:center;gap:.75em">'
            # Wide enough for a finger, and for 24 pixels, the least size of a target.
            '<label style="display:flex;flex:1 1 0;flex-wrap:wrap;align-items:center;gap:0 .75em">'
            f'<span>{escape(self.title)}</span><input type="range" min="0" max="{len(self.frames) - 1}" step="1" '
            f'value="{start}" aria-valuetext="{value}" autocomplete="off" '
            'style="flex:1 1 8em;min-width:0;height:2em;min-height:24px"></label>'
            # The slider itself speaks its value; a second announcement would only repeat it.
            f'<output aria-live="off" style="min-width:4em;font-variant-numeric:tabular-nums">{value}</output></div>'
            f'<div style="max-width:{width}px"><div style="display:flex;text-align:center">{titles}</div>{images}</div>'
            f"</figure><script>{SCRIPT}</script>"
        )


def explorer(model: AttentionModel, pictures: Pictures, size: int = 224) -> Any:
    """Every knob of the method on one picture, for a running kernel.

    The reader picks a picture of `pictures` or names a file of their own, says which classes are in it, and moves
    dropout, the weight of Eq. 11, both thresholds and tau.

    Args:
        model: with a decoupled head.
        pictures: to choose from; their masks are not read.
        size: pictures are resized to this square for the network, in pixels.

    Returns:
        An ipywidgets ``VBox``; a notebook shows it as the last value of a cell.

    Raises:
        ImportError: ipywidgets is not installed.
        ValueError: the head is not decoupled, there are no pictures, or the model was made for other classes.

    Example:
        >>> explorer(model, minivoc.load("val"))  # doctest: +SKIP
    """
    _require_decoupled(model)
    if len(pictures) == 0:
        raise ValueError("pictures is empty: give the explorer at least one to begin with")
    if model.config is not None and tuple(model.config.class_names) != pictures.class_names:
        known, there = (", ".join(names) for names in (model.config.class_names, pictures.class_names))
        raise ValueError(f"the model knows {known}; the pictures hold {there}: choose data with the model's classes")
    return _Explorer(_ipywidgets(), model, pictures, size).box


class _Explorer:
    """The widgets, and what happens when one is moved."""

    def __init__(self, widgets: ModuleType, model: AttentionModel, pictures: Pictures, size: int) -> None:
        self.model, self.pictures, self.size = model, pictures, size
        self.found: PictureMaps | None = None
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
        self.found = None  # so that setting the labels draws nothing yet
        try:
            self.image = photos.reduced(read_image(path or record.image), MAX_SIDE)
        except PictureError as error:
            self.say(error)
            return
        found = see(self.model, self.image, self.size)
        self.controls["labels"].value = photos.predicted_labels(found) if path else record.labels
        self.found = found
        self.update()

    def update(self, _change: object = None) -> None:
        """Another setting: the head alone, which takes milliseconds, and the CRF where it is asked for."""
        value = {name: control.value for name, control in self.controls.items()}
        self.controls["weight"].disabled = value["predicted"]
        self.controls["tau"].disabled = not value["refining"]
        if self.found is None:
            return
        try:
            found = drop(self.model, self.found, value["dropout"], value["seed"])
            made = views(
                self.image,
                found,
                value["labels"],
                None if value["predicted"] else value["weight"],
                value["foreground"],
                value["background"],
                value["tau"] if value["refining"] else None,
            )
        except (ValueError, ImportError) as error:
            self.say(error)
            return
        names, p_hat = self.pictures.class_names, attention_maps.score_weight(found.scores)
        said = {name: describe(mask, value["labels"], names) for name, mask in made.masks.items()}
        said["p-hat"] = ", ".join(f"{names[c]} {p_hat[c]:.2f}" for c in value["labels"])
        lines = (f"<p><b>{name}</b>: {escape(text)}</p>" for name, text in said.items())
        self.shown.value = _gallery(made.panels) + "".join(lines)

    def say(self, error: Exception) -> None:
        self.shown.value = f"<p>{escape(str(error))}</p>"


def _controls(widgets: ModuleType, pictures: Pictures) -> dict[str, Any]:
    """One widget for every knob, by name."""
    names = pictures.class_names
    choices = [(f"{r.id}: {', '.join(names[c] for c in r.labels)}", k) for k, r in enumerate(pictures.records)]
    classes = [(name, c) for c, name in enumerate(names)]
    look = {"style": {"description_width": "12em"}, "layout": {"width": "30em", "max_width": "100%"}}
    lazy = look | {"continuous_update": False}
    share = lazy | {"min": 0.0, "max": 1.0, "step": 0.05}
    rate, trust = share | {"max": 0.9}, share | {"min": 0.55, "max": 0.95}
    return {
        "picture": widgets.Dropdown(description="picture", options=choices, value=0, **look),
        "path": widgets.Text(description="or a file of yours", placeholder="cat.jpg", **lazy),
        "labels": widgets.SelectMultiple(description="classes in it", options=classes, **look),
        "dropout": widgets.FloatSlider(description="dropout", value=0.0, **rate),
        "seed": widgets.IntSlider(description="draw of dropout", value=0, min=0, max=20, **lazy),
        "predicted": widgets.Checkbox(description="weight as predicted", value=True, **look),
        "weight": widgets.FloatSlider(description="weight of expansive", value=0.5, **share),
        "foreground": widgets.FloatSlider(description="foreground above", value=FOREGROUND_THRESHOLD, **share),
        "background": widgets.FloatSlider(description="background below", value=BACKGROUND_THRESHOLD, **share),
        "refining": widgets.Checkbox(description="refine with the CRF", value=False, **look),
        "tau": widgets.FloatSlider(description="tau", value=0.7, **trust),
    }


def _gallery(panels: dict[str, np.ndarray]) -> str:
    """Panels with their names below, in rows that wrap."""
    shown = (
        f'<figure style="margin:0;flex:0 1 {image.shape[1]}px">{_img(image, name)}'
        f'<figcaption style="text-align:center">{name}</figcaption></figure>'
        for name, image in panels.items()
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(shown)}</div>'


def _img(pixels: np.ndarray, alt: str, style: str = "", attributes: str = "") -> str:
    """A picture in the page itself, at most as wide as the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=QUALITY, method=6)
    address = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    height, width = pixels.shape[:2]
    style = f"width:100%;max-width:{width}px;height:auto;{style}"
    size = f'width="{width}" height="{height}" style="{style}"'
    return f'<img src="{address}" alt="{escape(alt)}" {size} {attributes}>'


def _pixels(frame: np.ndarray | Figure) -> np.ndarray:
    """A frame as ``(H, W, 3)`` uint8."""
    if isinstance(frame, Figure):
        canvas = FigureCanvasAgg(frame)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise ValueError(f"a frame is a figure or (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
    return frame


def _first(features: torch.Tensor, scores: torch.Tensor, maps: dict, size: tuple[int, int]) -> PictureMaps:
    """The first picture of a batch, on the CPU."""
    maps = {kind: batch[0].cpu() for kind, batch in maps.items()}
    return PictureMaps(0, size, maps, features[0].float().cpu(), scores[0].float().cpu())


def _require_decoupled(model: AttentionModel) -> None:
    if not isinstance(model.head, DecoupledAttention):
        raise ValueError(f"the head is {type(model.head).__name__}: choose a model with a decoupled head")


def _ipywidgets() -> ModuleType:
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError("the explorer needs ipywidgets: pip install ipywidgets, then restart the kernel") from error
    return ipywidgets
