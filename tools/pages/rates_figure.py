"""Table II as a figure: precision, recall and IoU of merged maps by the dropout rate, beside the paper's."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from dsna_lib import paper
from pages import svg
from pages.key_figure import MARKERS
from pages.maps import TRIPLE
from pages.stored import DATA, values

# Of those that Okabe and Ito choose for eyes that see few colors.
COLORS = {"drawn": "#0072b2", "photographs": "#d55e00"}
SPAN = 30  # points, of every panel: slopes compare


def rates() -> dict[str, dict[str, list[dict[str, float]]]]:
    """Kind of pictures, and the paper, to dropout rate to its trainings."""
    printed = {f"{rate:g}": [dict(row)] for rate, row in paper.TABLE_II.items()}
    measured = {
        pictures: {
            row["title"]: [{name: each[name] for name in TRIPLE} for each in row["seeds"]]
            for row in values(f"table_II_{data}")["rows"]
        }
        for pictures, data in DATA.items()
    }
    return measured | {"the paper": printed}


def draw(of: dict[str, dict[str, list[dict[str, float]]]], ink: str) -> Figure:
    """A panel a measure, one below the other for a phone: faint dots for trainings, a line through their means."""
    figure, axes = svg.panels(TRIPLE, "dropout rate")
    for axis, measure in zip(axes, TRIPLE, strict=True):
        means = []
        for source, rows in of.items():
            points = {float(rate): [each[measure] for each in trainings] for rate, trainings in rows.items()}
            means += [np.mean(several) for several in points.values()]
            color, marker = COLORS.get(source, ink), MARKERS.get(source, "D")
            for rate, several in points.items():
                if len(several) > 1:
                    axis.plot([rate] * len(several), several, marker, color=color, markersize=3, alpha=0.6)
            line = [np.mean(several) for several in points.values()]
            face = color if source in COLORS else "none"
            axis.plot(
                list(points), line, f"{marker}-", color=color, markerfacecolor=face, markersize=5, lw=1.2, label=source
            )
        middle = (min(means) + max(means)) / 2
        axis.set_ylim(middle - SPAN / 2, middle + SPAN / 2)
    return svg.with_legend(figure)


def files() -> dict[str, str]:
    """Path to content."""
    content: dict[str, Any] = rates()
    return svg.files("rates", partial(draw, content), content)
