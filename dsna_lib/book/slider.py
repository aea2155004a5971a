"""Ready frames under a slider, on a page that has no kernel."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dsna_lib.engine.errors import SettingError

QUALITY = 50  # of WebP, 0..100: heat maps are smooth, and a notebook must stay small

# Makes every slider on the page live that is not yet: found by their class, several need no ids.
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
    """Ready frames under a native slider, as HTML that holds them and loads nothing.

    Until JavaScript ran, the slider is hidden and one frame is shown.

    Args:
        title: what the slider changes, its visible label.
        frames: the slider's value to what it shows: pictures ``(H, W, 3)`` uint8 or matplotlib figures, of one size.
        alts: what each frame shows, for those who do not see it.
        columns: titles over the frame, at equal distances.
        start: the frame to begin with; None for the one in the middle.

    Raises:
        SettingError: fewer than two frames, one without a description, of another size or kind, or no frame `start`.

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
        has = f"{self.title!r} has {count} frames"
        if count < 2:
            raise SettingError(f"{has}: a slider needs two")
        if len(self.alts) != count or not all(alt.strip() for alt in self.alts):
            raise SettingError(f"{has} and {len(self.alts)} alts: describe every frame once")
        if self.start is not None and not 0 <= self.start < count:
            raise SettingError(f"start={self.start} is none of the {count} frames (0 to {count - 1})")
        self._pixels = {value: _as_pixels(frame) for value, frame in self.frames.items()}
        sizes = sorted({pixels.shape[:2] for pixels in self._pixels.values()})
        if len(sizes) > 1:
            raise SettingError(f"frames of one size are needed, not of {sizes[0]} and {sizes[1]} (height, width)")

    def __repr__(self) -> str:
        return f"Slider({self.title!r}, {len(self.frames)} frames)"

    def _repr_html_(self) -> str:
        start = len(self.frames) // 2 if self.start is None else self.start
        value, width = escape(list(self.frames)[start]), next(iter(self._pixels.values())).shape[1]
        images = "".join(
            image_tag(pixels, alt, f"display:{'block' if k == start else 'none'}", f'data-value="{escape(shown)}"')
            for k, ((shown, pixels), alt) in enumerate(zip(self._pixels.items(), self.alts, strict=True))
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
            f'<div style="max-width:{width}px">'
            f'<div style="display:flex;text-align:center;font-size:.875em">{titles}</div>{images}</div>'
            f"</figure><script>{SCRIPT}</script>"
        )


def image_tag(pixels: np.ndarray, alt: str, style: str = "", attributes: str = "") -> str:
    """A picture in the page itself, at most as wide as the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", quality=QUALITY, method=6)
    address = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    height, width = pixels.shape[:2]
    size = f'width="{width}" height="{height}" style="width:100%;max-width:{width}px;height:auto;{style}"'
    return f'<img src="{address}" alt="{escape(alt)}" {size} {attributes}>'


def _as_pixels(frame: np.ndarray | Figure) -> np.ndarray:
    """A frame as ``(H, W, 3)`` uint8."""
    if isinstance(frame, Figure):
        canvas = FigureCanvasAgg(frame)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise SettingError(f"a frame is a figure or (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
    return frame
