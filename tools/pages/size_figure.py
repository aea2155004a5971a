"""How well each map marks objects, by the object's share of its picture, on drawn pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dsna_lib.maps import MAP_KINDS
from pages import svg
from pages.maps import TRIPLE
from pages.stored import values

# Of those that Okabe and Ito choose for eyes that see few colors.
COLORS = dict(zip(MAP_KINDS, ("#e69f00", "#56b4e9", "#009e73"), strict=True))


def sizes() -> dict[str, list[list[dict[str, float]]]]:
    """Kind of map to its bins of size in each training."""
    stored = values("table_I_minivoc")["sizes"]
    return {kind: stored[kind] for kind in MAP_KINDS}


def draw(of: Mapping[str, list[list[dict[str, float]]]], ink: str) -> Figure:
    """A panel a measure, one below the other for a phone: thin lines for trainings, a thick one for their mean."""
    figure, axes = svg.panels(TRIPLE, "object's share of its picture, in percent")
    for axis, measure in zip(axes, TRIPLE, strict=True):
        for kind, trainings in of.items():
            middles = [50 * (each["low"] + min(each["high"], 0.6)) for each in trainings[0]]
            lines = np.array([[each[measure] for each in bins] for bins in trainings])
            for line in lines:
                axis.plot(middles, line, color=COLORS[kind], linewidth=0.6, alpha=0.5)
            axis.plot(middles, lines.mean(axis=0), "o-", color=COLORS[kind], markersize=3, label=kind)
        axis.set_xscale("log")
        axis.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        axis.minorticks_off()
        axis.set_ylim(0, 100)
    return svg.with_legend(figure)


def files() -> dict[str, str]:
    """Path to content."""
    content: dict[str, Any] = sizes()
    return svg.files("sizes", partial(draw, content), content)
