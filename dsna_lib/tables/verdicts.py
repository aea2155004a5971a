"""What several trainings, or one, say of a claim.

A relation between rows is only as firm as its spread. With several seeds a :func:`verdict` asks whether all seeds agree
and the mean difference exceeds their standard deviation; with one seed, whether the difference survives drawing the
pictures anew (:func:`bootstrap`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from dsna_lib import paper
from dsna_lib.tables.measure import matrix_of

Counts = np.ndarray  # (N, C + 1, C + 2), see dsna_lib.tables.measure.Measurement


def verdict(differences: Sequence[float]) -> str:
    """What several seeds say of a claim, by how much it holds for each: less than 0 where the opposite does.

    Returns:
        ``"holds"`` where all seeds agree and the mean exceeds the standard deviation, ``"does not hold"`` where the
        same is true of the opposite, else ``"within the seeds' spread"``; for one seed ``"one seed: no verdict"``.

    Example:
        >>> verdict([1.0, 1.2, 0.9]), verdict([1.0, -0.2, 0.1])
        ('holds', "within the seeds' spread")
    """
    if len(differences) < 2:
        return "one seed: no verdict"
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if abs(mean) <= spread or min(differences) * max(differences) <= 0:
        return "within the seeds' spread"
    return "holds" if mean > 0 else "does not hold"


def claim_verdicts(table: str, rows: Sequence[Mapping], counts: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """Every claim that a table has the rows for: by how much it holds for each seed, and the verdict.

    A claim about several steps holds if each does, and does not if one of them does not; the differences are those
    of its weakest step. With one seed the verdict is that of :func:`bootstrap`, and says so.

    Args:
        table, rows: the table's name, and its rows with ``title`` and ``seeds``, the measures of each seed.
        counts: title to the counts of each picture with seed 0.
    """
    scores = {row["title"]: row["seeds"] for row in rows}
    judged = []
    for claim in paper.CLAIMS:
        # A row may lack the measure: photographs have no masks of parts.
        chain = [title for title in claim.rows if all(claim.measure in each for each in scores.get(title, [{}]))]
        if claim.table != table or len(chain) < 2:
            continue
        steps = []
        for less, more in pairwise(chain):
            pairs = zip(scores[less], scores[more], strict=True)
            differences = [round(high[claim.measure] - low[claim.measure], 2) for low, high in pairs]
            step: dict[str, Any] = {"differences": differences, "verdict": verdict(differences)}
            if len(differences) == 1 and claim.measure in ("precision", "recall", "iou"):
                low, high = bootstrap(counts[less], counts[more], claim.measure)
                said = "holds" if low > 0 else "does not hold" if high < 0 else "not separated"
                step |= {"interval": [low, high], "verdict": f"{said} (one training)"}
            steps.append(step)
        weakest = min(steps, key=lambda step: np.mean(step["differences"]))
        judged.append({"text": claim.text, "source": claim.source} | weakest | {"verdict": _together(steps)})
    return judged


def _together(steps: Sequence[Mapping[str, Any]]) -> str:
    """The verdict on all steps: one that does not hold settles it, else one that is open leaves all open."""
    verdicts = [step["verdict"] for step in steps]
    failed = [said for said in verdicts if said.startswith("does not hold")]
    unsettled = [said for said in verdicts if not said.startswith("holds")]
    return (failed or unsettled or verdicts)[0]


def bootstrap(less: Counts, more: Counts, name: str, rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """How far the choice of pictures moves the difference between two rows that were trained once.

    Pictures are drawn with replacement, the same ones for both rows; training is not repeated.

    Args:
        less, more: counts of the same N pictures, see :class:`dsna_lib.tables.measure.Measurement`.
        name: of the measure: ``"precision"``, ``"recall"`` or ``"iou"``.
        rounds, seed: how often to draw, and with which seed.

    Returns:
        The 2.5 and 97.5 percentiles of `more` minus `less`, in percentage points.
    """
    random, number, differences = np.random.default_rng(seed), len(less), []
    for _ in range(rounds):
        drawn = np.bincount(random.integers(number, size=number), minlength=number)
        low, high = (matrix_of(np.tensordot(drawn, each, axes=1)) for each in (less, more))
        differences.append(100 * (getattr(high, f"mean_{name}") - getattr(low, f"mean_{name}")))
    low, high = np.percentile(differences, [2.5, 97.5]).round(2).tolist()
    return low, high
