"""Figures as SVG files for light and dark pages. A file says what it was drawn from: versions may draw it otherwise."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
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
