r"""What trainings say of a claim: one rule, for every table, page and chapter.

A claim says that a measure grows from one row to another, or along several rows, or is above 0 in one. The unit is a
*training*: another one gives another number, and so do other pictures. Both belong into the uncertainty of a difference
:math:`D`, the mean over trainings of how far the rows lie apart:

.. math:: \mathrm{SE}^2 = \sum_g s_g^2 / S + \mathrm{SE}_\text{pictures}^2

:math:`s_g` is the standard deviation, over the S trainings of one setting *g*, of what that setting adds to the
difference. Two rows of one setting are readings of the same trainings (the expansive and the merged map of one model),
are subtracted within each of them, and give one such term; two that are trained apart give two. The second part is the
jackknife's: how far the difference moves as each picture is left out, the same ones of all rows and trainings. Interval
and p-value are those of Student's *t* with the degrees of freedom of Welch and Satterthwaite.

A table makes several claims, and Holm's correction keeps the chance of any false verdict among them at 5 %. With fewer
than :data:`ENOUGH` trainings there is no verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from dsna_lib import paper

ENOUGH = 3  #: trainings of each setting; fewer give no verdict
LEVEL = 0.05  #: chance of a false verdict among the claims of a table


@dataclass(frozen=True)
class Evidence:
    """What the trainings of a row say of a measure, in percent.

    Attributes:
        setting: what was trained; rows of one setting are readings of the same trainings.
        scores: ``(S,)``, of each training.
        without: ``(S, N)``, the same with each of the N pictures left out.
    """

    setting: str
    scores: np.ndarray
    without: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """A difference between rows, in percentage points, and how sure it is."""

    difference: float  #: its mean over trainings
    low: float  #: of its interval of 95 %
    high: float
    p: float  #: chance of a difference this far from 0, in either direction, if there were none
    trainings: int  #: of each setting


def compare(rows: Sequence[Evidence], weights: Sequence[float]) -> Comparison:
    """A weighted sum of rows, such as the second minus the first with weights -1 and 1.

    Args:
        rows: with as many trainings each, measured on the same pictures.
        weights: of the rows; they sum to 0, or there is one row of weight 1.

    Returns:
        The comparison; of a single training interval and p are NaN.

    Raises:
        ValueError: rows of different numbers of trainings or pictures.

    Example:
        >>> less, more = (Evidence(name, np.array([1.0, 2, 3]) + k, np.ones((3, 9)) * k) for k, name in enumerate("ab"))
        >>> compare([less, more], [-1, 1]).difference
        1.0
    """
    if len({row.without.shape for row in rows}) > 1:
        raise ValueError("rows must have as many trainings and pictures each")
    number, pictures = rows[0].without.shape
    added: dict[str, np.ndarray] = {}  # setting to what it adds to the difference in each training
    for row, weight in zip(rows, weights, strict=True):
        added[row.setting] = added.get(row.setting, np.zeros(number)) + weight * row.scores
    difference = float(sum(each.mean() for each in added.values()))
    if number < 2:
        return Comparison(difference, np.nan, np.nan, np.nan, number)
    parts = [(float(np.var(each, ddof=1)) / number, number - 1) for each in added.values()]
    if pictures > 1:
        left_out = sum(weight * row.without.mean(axis=0) for row, weight in zip(rows, weights, strict=True))
        parts.append((float((pictures - 1) * np.var(left_out)), pictures - 1))
    total = sum(part for part, _ in parts)
    if total == 0:
        return Comparison(difference, difference, difference, float(difference == 0), number)
    error, freedom = total**0.5, total**2 / sum(part**2 / free for part, free in parts)
    reach = float(stats.t.ppf(0.975, freedom)) * error
    p = 2 * float(stats.t.sf(abs(difference) / error, freedom))
    return Comparison(difference, difference - reach, difference + reach, p, number)


def trend(rows: Sequence[Evidence]) -> list[float]:
    """The weights with which :func:`compare` gives the slope along rows, times the way from the first to the last.

    The rows lie at equal distances: what grows evenly from 1 to 5 has a trend of 4. Two rows have their difference, one
    row itself.

    Example:
        >>> trend([0, 1]), trend([0, 1, 2])
        ([-1.0, 1.0], [-1.0, 0.0, 1.0])
    """
    if len(rows) == 1:
        return [1.0]
    at = np.linspace(-0.5, 0.5, len(rows))
    return (at / (at**2).sum()).tolist()


def holm(chances: Sequence[float]) -> list[float]:
    """p-values, corrected for their number as Holm (1979) does; those that are NaN stay so and do not count.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    known = [k for k, p in enumerate(chances) if np.isfinite(p)]
    corrected, highest = [float("nan")] * len(chances), 0.0
    for rank, k in enumerate(sorted(known, key=lambda k: chances[k])):
        highest = max(highest, min(1.0, (len(known) - rank) * chances[k]))
        corrected[k] = highest
    return corrected


def verdict(compared: Comparison, p: float) -> str:
    """What is said of a claim, by its comparison and its corrected p.

    Returns:
        ``"holds"``, ``"contradicted"`` (the opposite holds), ``"not separated"``, or ``"N trainings: no verdict"``.
    """
    if compared.trainings < ENOUGH:
        number = "one training" if compared.trainings == 1 else f"{compared.trainings} trainings"
        return f"{number}: no verdict"
    if not p <= LEVEL:
        return "not separated"
    return "holds" if compared.difference > 0 else "contradicted"


def claim_verdicts(table: str, evidence: Callable[[str, str], Evidence | None]) -> list[dict[str, Any]]:
    """Every claim of :data:`dsna_lib.paper.CLAIMS` that a table has the rows for, judged together.

    Args:
        table: its name.
        evidence: of a row's title and a measure; None where the table has no such row, or the row no such measure.

    Returns:
        For each claim ``text``, ``source``, the fields of its :class:`Comparison` rounded, ``corrected`` (its p after
        :func:`holm`, within this table) and ``verdict``.
    """
    asked = []
    for claim in paper.CLAIMS:
        if claim.table == table:
            # Photographs have no masks of parts, and a table may have been made of some rows only.
            rows = [row for title in claim.rows if (row := evidence(title, claim.measure)) is not None]
            if len(rows) >= min(2, len(claim.rows)):
                asked.append((claim, compare(rows, trend(rows))))
    corrected = holm([compared.p for _, compared in asked])
    return [
        {"text": claim.text, "source": claim.source, **_rounded(compared), "corrected": _digits(p, 4)}
        | {"verdict": verdict(compared, p)}
        for (claim, compared), p in zip(asked, corrected, strict=True)
    ]


def _rounded(compared: Comparison) -> dict[str, Any]:
    return {name: _digits(value, 4 if name == "p" else 2) for name, value in asdict(compared).items()}


def _digits(value: float, digits: int) -> float | None:
    """Rounded; None for NaN, which JSON does not have."""
    return round(value, digits) if np.isfinite(value) else None
