"""Table III on drawn pictures as a figure: the IoU of each row's annotations and masks, beside the paper's."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pages import svg
from pages.stored import values

SCORES = {"annotation": "annotations", "iou": "masks of val"}
# Of those that Okabe and Ito choose for eyes that see few colors.
COLORS = {"annotation": "#e69f00", "iou": "#0072b2"}
MARKERS = {"annotation": "^", "iou": "o"}
CEILING = "full supervision"  # learns from the truth: its annotations have no score of their own


def rows() -> list[dict[str, Any]]:
    """Of each row its title, the paper's IoU, and those of annotations and of masks in each training."""
    return [
        {"title": row["title"], "paper": row["paper"].get("iou")}
        | {
            name: [each[name] for each in row["seeds"]]
            for name in SCORES
            if (name, row["title"]) != ("annotation", CEILING)
        }
        for row in values("table_III_minivoc")["rows"]
    ]


def draw(of: list[dict[str, Any]], ink: str) -> Figure:
    """Narrow enough for a phone: a row's title stands above its line. Of several trainings each has a faint mark."""
    figure = Figure(figsize=(4.6, 0.44 * len(of) + 1.2), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(of):
        axis.axhline(place, color=ink, linewidth=0.4, alpha=0.4, zorder=0)
        where = axis.get_yaxis_transform()
        axis.text(0, place - 0.16, row["title"], transform=where, va="bottom", size=9).set_in_layout(False)
        if row["paper"] is not None:
            axis.plot(row["paper"], place, "D", markerfacecolor="none", markeredgecolor=ink, markersize=6)
        for name in (name for name in SCORES if name in row):
            trainings, look = row[name], {"color": COLORS[name], "marker": MARKERS[name], "linestyle": ""}
            if len(trainings) > 1:
                axis.plot(trainings, [place] * len(trainings), markersize=3, alpha=0.6, **look)
            axis.plot(np.mean(trainings), place, markersize=6, **look)
    axis.set_ylim(len(of) - 0.6, -0.8)
    axis.set_yticks([])
    axis.set_xlabel("IoU in percent")
    axis.spines[["left", "right", "top"]].set_visible(False)
    handles = [
        Line2D([], [], marker=MARKERS[name], linestyle="", color=COLORS[name], label=said)
        for name, said in SCORES.items()
    ]
    handles.append(
        Line2D([], [], marker="D", linestyle="", color=ink, markerfacecolor="none", label="masks, the paper")
    )
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, frameon=False, handletextpad=0.2, columnspacing=1
    )
    return figure


def files() -> dict[str, str]:
    """Path to content."""
    content = rows()
    return svg.files("table-iii", partial(draw, content), content)
