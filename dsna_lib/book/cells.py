"""Maps to touch: what each class scores at the location under the pointer, on a page that has no kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

import numpy as np
import torch

from dsna_lib.book import figures
from dsna_lib.book.slider import image_tag
from dsna_lib.engine.errors import SettingError
from dsna_lib.maps import min_max

# Makes every such figure on the page live that is not yet. Pointer, finger and arrow keys move the same mark.
SCRIPT = """
for (const figure of document.querySelectorAll("figure.dsna-cells:not([data-live])")) {
  figure.dataset.live = "yes";
  const known = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
  const select = figure.querySelector("select"), output = figure.querySelector("output");
  const planes = [...figure.querySelectorAll("[data-plane]")];
  const [rows, columns] = known.size;
  let at = known.start;
  const show = () => {
    const name = select.value;
    figure.querySelectorAll("img").forEach((img) => {
      img.style.display = img.dataset.of === name ? "block" : "none";
    });
    figure.querySelectorAll("[data-mark]").forEach((mark) => {
      mark.style.cssText += `;display:block;top:${100 * at[0] / rows}%;left:${100 * at[1] / columns}%`;
    });
    const said = Object.entries(known.values[name]).map(([what, plane]) => `${what} ${plane[at[0]][at[1]]}`);
    output.textContent = `${name}, row ${at[0] + 1}, column ${at[1] + 1}: ${said.join(", ")}`;
  };
  const move = (row, column) => {
    at = [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(column, 0), columns - 1)];
    show();
  };
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    move(Math.floor((event.clientY - box.top) / box.height * rows),
         Math.floor((event.clientX - box.left) / box.width * columns));
  };
  const steps = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  planes.forEach((plane) => {
    plane.addEventListener("pointermove", point);
    plane.addEventListener("pointerdown", point);
    plane.addEventListener("keydown", (event) => {
      const step = steps[event.key];
      if (step) { event.preventDefault(); move(at[0] + step[0], at[1] + step[1]); }
    });
    plane.tabIndex = 0;
  });
  select.addEventListener("change", show);
  figure.querySelectorAll("[data-control]").forEach((part) => { part.style.display = "block"; });
  show();
}
"""


@dataclass(repr=False)
class Cells:
    """A picture under its maps, with the numbers of the location that is pointed at; HTML that loads nothing.

    Until JavaScript ran, the maps of the first class are shown, without numbers.

    Args:
        image: the picture ``(H, W, 3)`` uint8.
        values: class to what is measured of it to its plane ``(h, w)``; all planes of one size, and the same measures
            of each class. The color runs from the least to the greatest value of a plane.
        decimals: how many a number is shown with.

    Raises:
        SettingError: no class, no measure, or planes and measures that do not agree.

    Example:
        >>> one, two = np.eye(4), np.ones((4, 4))
        >>> Cells(np.zeros((8, 8, 3), np.uint8), {"cat": {"a": one, "s": two}, "dog": {"a": two, "s": one}})
        Cells('cat', 'dog': 'a', 's' at 4 x 4 locations)
    """

    image: np.ndarray
    values: Mapping[str, Mapping[str, np.ndarray]]
    decimals: int = 2

    def __post_init__(self) -> None:
        measures = {tuple(planes) for planes in self.values.values()}
        if len(measures) != 1 or () in measures:
            raise SettingError(f"each class needs the same measures, at least one, and has {sorted(measures)}")
        (self._measures,) = measures
        shapes = {np.shape(plane) for planes in self.values.values() for plane in planes.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise SettingError(f"planes of one size (h, w) are needed, not of {sorted(shapes)}")
        (self._size,) = shapes

    def __repr__(self) -> str:
        classes, measures = (", ".join(map(repr, names)) for names in (self.values, self._measures))
        return f"Cells({classes}: {measures} at {self._size[0]} x {self._size[1]} locations)"

    def _repr_html_(self) -> str:
        first = next(iter(self.values))
        top = np.unravel_index(np.argmax(self.values[first][self._measures[0]]), self._size)
        numbers = {
            name: {what: np.asarray(plane, np.float64).round(self.decimals).tolist() for what, plane in planes.items()}
            for name, planes in self.values.items()
        }
        known = json.dumps({"size": self._size, "start": [int(place) for place in top], "values": numbers})
        known = known.replace("</", "<\\/")  # a class's name must not end the script
        options = "".join(f"<option>{escape(name)}</option>" for name in self.values)
        planes = "".join(self._plane(what) for what in self._measures)
        return (
            '<figure class="dsna-cells" style="margin:1em 0">'
            '<div data-control style="display:none;margin-bottom:.5em"><label>class '
            f'<select style="min-height:24px">{options}</select></label></div>'
            f'<div style="display:flex;flex-wrap:wrap;gap:.75em">{planes}</div>'
            '<output data-control aria-live="polite" style="display:none;margin-top:.5em;min-height:2.5em;'
            'font-variant-numeric:tabular-nums"></output>'
            f'<script type="application/json">{known}</script>'
            f"</figure><script>{SCRIPT}</script>"
        )

    def _plane(self, what: str) -> str:
        """The map of a measure, one picture a class, under a mark of one location."""
        images = "".join(
            image_tag(
                figures.heat(self.image, min_max(torch.from_numpy(np.array(planes[what], np.float32))).numpy()),
                f"{what} of {name} over the picture",
                f"display:{'none' if place else 'block'}",
                f'data-of="{escape(name)}"',
            )
            for place, (name, planes) in enumerate(self.values.items())
        )
        height, width = self._size
        mark = (
            f"display:none;position:absolute;width:{100 / width:.3f}%;height:{100 / height:.3f}%;box-sizing:border-box;"
            "border:2px solid #fff;outline:1px solid #000;pointer-events:none"
        )
        return (
            f'<div style="flex:1 1 14em;max-width:{self.image.shape[1]}px"><div>{escape(what)}</div>'
            f'<div data-plane role="group" aria-label="{escape(what)}: arrow keys move the location" '
            'style="position:relative;touch-action:pan-y;cursor:crosshair">'
            f'{images}<span data-mark style="{mark}"></span></div></div>'
        )
