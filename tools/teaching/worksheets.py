"""Worksheets to print, each with a solution that the library computes: the grid, the strip, the empty Table I."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pages import stored

from dsna_lib import paper
from dsna_lib.attention import shifted_softplus, spatial_normalize
from dsna_lib.data.pictures import VOID
from dsna_lib.metrics import VOID_POLICIES, ConfusionMatrix
from dsna_lib.tables.render import cell as number
from teaching.page import cell_of, page, to_html

STEPS = (1, 8, 40)  # those of chapter 4
RATE, EPSILON = 2.0, 0.1  # of its gradient steps
GRID = ("01", "01-12")
STRIP = ("04", "04-24")
MEASURES = ("precision", "recall", "iou")


def literal(place: tuple[str, str], name: str) -> Any:
    """The list of numbers that a chapter's cell assigns to a name, within whatever call; nothing is run.

    Raises:
        ValueError: the cell assigns no list to this name.
    """
    for statement in ast.parse(cell_of(*place).source).body:
        if isinstance(statement, ast.Assign) and [ast.unparse(target) for target in statement.targets] == [name]:
            for node in ast.walk(statement.value):
                if isinstance(node, ast.List):
                    return ast.literal_eval(node)
    raise ValueError(f"cell {place[1]!r} of chapter {place[0]} assigns no list to {name}")


# --- the grid of 4 x 6 pixels -----------------------------------------------------------------------------------------


def grids() -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of chapter 1, ``(4, 6)``."""
    return np.array(literal(GRID, "truth")), np.array(literal(GRID, "prediction"))


def scores_by_policy() -> dict[str, tuple[int, int, int, float, float, float]]:
    """For each void policy TP, FP, FN, precision, recall and IoU of class 1."""
    truth, prediction = grids()
    matrix = ConfusionMatrix(2)
    matrix.update(prediction, truth)
    scores = {}
    for policy in VOID_POLICIES:
        counted = matrix.with_void(policy)
        hits, claimed, true = counted.counts[1, 1], counted.counts[:, 1].sum(), counted.counts[1].sum()
        rates = (float(getattr(counted, name)[1]) for name in MEASURES)
        scores[policy] = (int(hits), int(claimed - hits), int(true - hits), *rates)
    return scores


def outcomes() -> np.ndarray:
    """What each pixel is for class 1: TP, FP, FN or nothing, ``(4, 6)``."""
    truth, prediction = grids()
    known = truth != VOID
    outcome = np.full(truth.shape, "", dtype=object)
    outcome[known & (truth == 1)] = "FN"
    outcome[known & (prediction == 1)] = "FP"
    outcome[known & (prediction == 1) & (truth == 1)] = "TP"
    return outcome


def grid(solved: bool) -> str:
    """The first worksheet: counts on paper, then three policies."""
    truth, prediction = grids()
    outcome = outcomes() if solved else np.full(truth.shape, "", dtype=object)
    shown = (("truth", truth), ("prediction", prediction), ("outcome for class 1", outcome))
    pictures = "\n".join(pixels(title, values) for title, values in shown)
    head = ("policy", "TP", "FP", "FN", "precision", "recall", "IoU")
    scores = scores_by_policy()
    rows = [
        (f"<code>{policy}</code>", *((*(map(str, s[:3])), *(f"{v:.3f}" for v in s[3:])) if solved else [""] * 6))
        for policy, s in scores.items()
    ]
    return f"""<p>0 is background, 1 an object, <em>void</em> has no class. Where the truth is void, nothing counts.</p>
<ol><li>Write TP, FP or FN into each pixel of the third grid that is one, for class 1;
a void pixel of the prediction counts as missed.</li>
<li>Count them, and compute precision, recall and IoU.</li>
<li>Do the same where predicted void becomes background, and where it is left out. Which number moves?</li></ol>
{pictures}
{table(head, rows)}
{lines("Which policy would you name in your own paper, and why?", 2, solved, GRID_ANSWER)}"""


GRID_ANSWER = """<code>ignore</code> leaves the undecided pixels out, so recall and IoU rise although nothing more was
found. For class 1 the other two agree; they differ for background. Any of the three can be defended when it is named;
this book uses <code>false_negative</code>, which rewards no silence."""


def pixels(title: str, values: np.ndarray) -> str:
    """A grid of pixels as a table."""

    def text(value: object) -> str:
        return "<em>void</em>" if value == VOID else str(value)

    rows = "".join("<tr>" + "".join(f"<td>{text(value)}</td>" for value in row) + "</tr>" for row in values)
    return f'<table class="grid"><caption>{title}</caption>{rows}</table>'


# --- the strip of twelve locations ------------------------------------------------------------------------------------


def strip() -> torch.Tensor:
    """The scores of chapter 4's strip, ``(1, 1, 1, 12)``."""
    return torch.tensor(literal(STRIP, "strip"), dtype=torch.float32).view(1, 1, 1, -1)


def led(steps: int) -> tuple[torch.Tensor, float, torch.Tensor]:
    """Attention after so many gradient steps on p from even attention, with scores held fixed.

    Args:
        steps: how many.

    Returns:
        Attention ``(12,)`` after them; before the last of them p, and the gradient of p in z ``(12,)``.
    """
    scores, logits = strip(), torch.zeros_like(strip())
    for _ in range(steps):
        logits = logits.detach().requires_grad_()
        z = shifted_softplus(logits, EPSILON)
        z.retain_grad()
        p = (scores * spatial_normalize(z)).sum()
        p.backward()
        assert logits.grad is not None
        assert z.grad is not None
        gradient, logits = z.grad.flatten(), logits + RATE * logits.grad
    return spatial_normalize(shifted_softplus(logits, EPSILON)).detach().flatten(), p.item(), gradient


def attention_strip(solved: bool) -> str:
    """The second worksheet: who gains attention, who loses it."""
    scores = strip().flatten()
    rows: list[Sequence[object]] = [("score s", *(f"{value:g}" for value in scores))]
    for steps in STEPS:
        attention, p, gradient = led(steps)
        signs = ["+" if value > 0 else "−" for value in gradient]
        rows.append((f"step {steps}, p = {p:.1f}: + or −", *(signs if solved else [""] * 12)))
        if solved:
            rows.append((f"a after step {steps}, percent", *(f"{100 * value:.0f}" for value in attention)))
    head = ("location", *range(1, 13))
    return f"""<p>Twelve locations in a row: four of background, six of an animal's body, two of its discriminative
part. Attention starts even, scores are held fixed, and attention follows the gradient of the class score:</p>
{to_html(GRADIENT)}
<ol><li>For each of the three values of p write + where a location gains attention and − where it loses it.</li>
<li>At which p does the body begin to lose?</li><li>Where would attention end after many steps?</li></ol>
{table(head, rows, "wide strip")}
{lines("The body begins to lose when ...; in the end ...", 2, solved, STRIP_ANSWER)}"""


GRADIENT = r"$$\frac{\partial p}{\partial z_{i}} = \frac{s_{i} - p}{Z}, \qquad p = \sum_i a_i s_i$$"
STRIP_ANSWER = """A location gains while its score is above p. The body begins to lose when p exceeds the body's score.
After many steps attention would lie on the discriminative part alone: nothing tells the expansive map to expand."""


# --- the empty Table I ------------------------------------------------------------------------------------------------


def table_one() -> list[tuple[str, ...]]:
    """For each map its precision, recall and IoU as measured on drawn pictures, and as the paper prints them."""
    measured = {row["title"]: row["mean"] for row in stored.values("table_I_minivoc")["rows"]}
    return [
        (name, *(number(measured[name][key]) for key in MEASURES), *(number(printed.get(key)) for key in MEASURES))
        for name, printed in paper.TABLE_I.items()
    ]


def empty_table(solved: bool) -> str:
    """The third worksheet: predict Table I, then compare."""
    head = ("map", *("precision", "recall", "IoU") * 2)
    rows = [row if solved else (row[0], *[""] * 6) for row in table_one()]
    claims = stored.values("table_I_minivoc")["claims"]
    asked = [(claim["text"], claim["verdict"] if solved else "") for claim in claims]
    titles = ("measured on drawn pictures", "printed in the paper") if solved else ("my prediction", "measured")
    above = f'<tr><th></th><th colspan="3">{titles[0]}</th><th colspan="3">{titles[1]}</th></tr>'
    return f"""<p>The three maps of one model become annotations, which are measured in percent. Fill in the left half
before you see any number: levels matter less than the order.</p>
{table(head, rows, "wide", above)}
<p>Then the claims: does each hold, is it contradicted, or do five trainings not separate it?</p>
{table(("claim", "verdict"), asked, "wide")}
{lines("What would change your mind about one of them?", 2, solved, TABLE_ANSWER)}"""


TABLE_ANSWER = """More trainings make the interval narrower; other pictures change the question.
Drawn pictures say nothing about photographs, so a verdict here neither confirms nor refutes the paper's own."""


# --- sheets -----------------------------------------------------------------------------------------------------------

SHEETS: dict[str, tuple[str, Callable[[bool], str]]] = {
    "grid": ("The grid of 4 x 6 pixels (chapter 1)", grid),
    "strip": ("The strip of twelve locations (chapter 4)", attention_strip),
    "table-I": ("Table I, before it is measured (chapter 6)", empty_table),
}


def table(head: Iterable[object], rows: Iterable[Sequence[object]], kind: str = "wide", above: str = "") -> str:
    """A table in HTML; cells may hold HTML."""
    top = "".join(f"<th>{title}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{value}</td>" for value in row) + "</tr>\n" for row in rows)
    return f'<table class="{kind}">{above}<tr>{top}</tr>\n{body}</table>'


def lines(question: str, count: int, solved: bool, answer: str) -> str:
    """A question with room for an answer, or with it."""
    return f"<p>{escape(question)}</p>" + (
        f"<blockquote>{answer}</blockquote>" if solved else '<div class="line"></div>' * count
    )


def sheet(name: str, solved: bool) -> str:
    """One worksheet, or its solution, as a page."""
    title, make = SHEETS[name]
    title += ": solution" if solved else ""
    whose = "" if solved else '<p style="text-align:right">Name: ______________________</p>\n'
    return page(title, f"{whose}<h1>{title}</h1>\n{make(solved)}")


def write_worksheets(folder: Path) -> None:
    """Write each worksheet and its solution."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHEETS:
        for solved in (False, True):
            path = folder / f"{name}{'-solution' * solved}.html"
            path.write_text(sheet(name, solved), encoding="utf-8")
