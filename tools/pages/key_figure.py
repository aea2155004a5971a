"""Figures of claims: the ten that carry the paper, which open the ledger, and those of its Table I."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from textwrap import fill
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dsna_lib import paper
from dsna_lib.book import ledger
from pages import svg
from pages.claims import printed
from pages.stored import USUAL_NETWORK, answers_to

# Of those that Okabe and Ito choose for eyes that see few colors.
COLORS = {"holds": "#0072b2", "contradicted": "#d55e00", "not separated": "#808080", "no verdict": "#cc79a7"}
MARKERS = {"drawn": "o", "photographs": "s"}
LINE = 66  # characters


def key_claims() -> list[dict[str, Any]]:
    """The ten that carry the paper."""
    return measured(claim for claim in paper.CLAIMS if claim.key)


def claims_of_maps() -> list[dict[str, Any]]:
    """Those of Table I, then those about the single stream."""
    return measured(claim for table in ("I", "single-stream") for claim in paper.CLAIMS if claim.table == table)


def measured(several: Iterable[paper.Claim]) -> list[dict[str, Any]]:
    """Of each claim its number, text, the paper's difference, and what was measured on each kind of pictures."""
    numbers = ledger.claim_numbers()
    return [
        {"number": numbers[claim], "text": claim.text, "paper": printed(claim)}
        | {pictures: answers_to(claim, pictures).get(network) for pictures, network in USUAL_NETWORK.items()}
        for claim in several
    ]


def draw(rows: list[dict[str, Any]], ink: str) -> Figure:
    """Narrow enough for a phone: each claim's text stands above its line."""
    figure = Figure(figsize=(4.6, 0.68 * len(rows) + 1.5), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(rows):
        axis.vlines(0, place - 0.14, place + 0.36, color=ink, linewidth=0.8)
        said, where = fill(f"{row['number']}  {row['text']}", LINE), axis.get_yaxis_transform()
        axis.text(0, place - 0.2, said, transform=where, va="bottom", size=9).set_in_layout(False)
        if row["paper"] is not None:
            axis.plot(row["paper"], place, "D", markerfacecolor="none", markeredgecolor=ink, markersize=6)
        for step, (pictures, marker) in enumerate(MARKERS.items()):
            each = row[pictures]
            if each is not None:
                color = COLORS.get(each["verdict"], COLORS["no verdict"])
                height = place + 0.04 + 0.2 * step
                if each["low"] is not None:
                    axis.plot([each["low"], each["high"]], [height] * 2, color=color, linewidth=2)
                axis.plot(each["difference"], height, marker, color=color, markersize=5)
    axis.set_ylim(len(rows) - 0.5, -0.7)
    axis.set_yticks([])
    axis.set_xlabel("difference as claimed, in points")
    axis.spines[["left", "right", "top"]].set_visible(False)
    handles = [Line2D([], [], marker=m, linestyle="", color=ink, label=name) for name, m in MARKERS.items()]
    handles.append(Line2D([], [], marker="D", linestyle="", color=ink, markerfacecolor="none", label="the paper"))
    handles.append(Line2D([], [], linestyle="", label=" "))  # the second column begins with the verdicts
    handles += [Line2D([], [], color=color, linewidth=3, label=name) for name, color in COLORS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def files() -> dict[str, str]:
    """Path to content."""
    several = {"claims": key_claims(), "claims-maps": claims_of_maps()}
    return {
        path: text
        for name, rows in several.items()
        for path, text in svg.files(name, partial(draw, rows), rows).items()
    }
