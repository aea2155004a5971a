"""Figures as SVG files for light and dark pages. A file says what it was drawn from: versions may draw it otherwise."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INKS = {"light": "#222222", "dark": "#dddddd"}
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
DRAWN_FROM = re.compile(r"<dc:description>([0-9a-f]{12})</dc:description>")


def digest(content: Any) -> str:
    """What a figure is drawn from, in short."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def drawn_from(text: str) -> str | None:
    """The digest that stands in a file; None where it is no such figure."""
    found = DRAWN_FROM.search(text)
    return found[1] if found else None


def render(make: Callable[[str], Figure], content: Any, ground: str) -> str:
    """The file of a figure on a ``light`` or ``dark`` page; `make` draws it in the color of ink that it is given."""
    style = {"svg.fonttype": "none", "svg.hashsalt": "book", "font.size": 10, "font.family": "sans-serif"}
    with mpl.rc_context(style | dict.fromkeys(INKED, INKS[ground])):
        file = io.StringIO()
        about = {"Date": None, "Creator": None, "Description": digest(content)}
        make(INKS[ground]).savefig(file, format="svg", transparent=True, metadata=about)
    return file.getvalue()


def files(name: str, make: Callable[[str], Figure], content: Any) -> dict[str, str]:
    """Path to content, for both kinds of pages."""
    return {f"book/_static/{name}-{ground}.svg": render(make, content, ground) for ground in INKS}


def panels(measures: Sequence[str], across: str) -> tuple[Figure, Sequence[Axes]]:
    """A panel a measure, one below the other for a phone; the axis that they share says `across`."""
    figure = Figure(figsize=(4.6, 6.6), layout="constrained")
    axes: Sequence[Axes] = figure.subplots(len(measures), sharex=True)
    for axis, measure in zip(axes, measures, strict=True):
        axis.set_ylabel("IoU" if measure == "iou" else measure)
        axis.spines[["right", "top"]].set_visible(False)
    axes[-1].set_xlabel(across)
    return figure, axes


def with_legend(figure: Figure) -> Figure:
    """A figure with one legend below it, that of its first panel for all."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure
