"""What trainings say of a claim, and how far the choice of pictures moves it."""

from __future__ import annotations

import numpy as np
import pytest

from dsna_lib.tables import verdicts
from dsna_lib.tables.verdicts import claim_verdicts


def test_verdicts():
    assert verdicts.verdict([2.0, 2.5, 3.0]) == "holds"
    assert verdicts.verdict([-2.0, -2.5, -3.0]) == "does not hold"
    assert verdicts.verdict([3.0, 2.0, -0.1]) == "within the seeds' spread"  # one seed disagrees
    assert verdicts.verdict([0.1, 0.1, 5.0]) == "within the seeds' spread"  # the mean is below the deviation
    assert verdicts.verdict([9.0]) == "one seed: no verdict"


@pytest.mark.parametrize(
    "steps, verdict",
    [
        (["holds", "holds"], "holds"),
        (["holds", "within the seeds' spread"], "within the seeds' spread"),
        (["within the seeds' spread", "does not hold", "holds"], "does not hold"),
        (["holds (one training)", "not separated (one training)"], "not separated (one training)"),
    ],
)
def test_a_claim_of_several_steps_is_judged_step_by_step(steps, verdict):
    assert verdicts._together([{"verdict": step} for step in steps]) == verdict


def counts_of(correct: list[int]) -> np.ndarray:
    """Pictures of ten pixels of one class; how many of them are found."""
    counts = np.zeros((len(correct), 2, 3), int)
    counts[:, 1, 1], counts[:, 1, 2] = correct, 10 - np.array(correct)
    return counts


def test_the_bootstrap_separates_what_the_pictures_separate():
    low, high = verdicts.bootstrap(counts_of([3, 4, 3, 4] * 5), counts_of([6, 7, 6, 7] * 5), "recall", rounds=200)
    assert low == high == 30.0  # 3 of 10 pixels more in every picture, whichever are drawn
    low, high = verdicts.bootstrap(counts_of([5, 1] * 9), counts_of([1, 5] * 9), "recall", rounds=200)
    assert low < 0 < high
    assert (low, high) == verdicts.bootstrap(counts_of([5, 1] * 9), counts_of([1, 5] * 9), "recall", rounds=200)


def test_a_claim_about_what_was_not_measured_is_not_judged():
    """Photographs have no masks of parts: the claim about the rest of an object is open, the other is judged."""
    titles = ("CAM", "DSNA, discriminative", "DSNA, expansive", "DSNA, merged")
    rows = [{"title": title, "seeds": [{"whole": 40.0 + k}, {"whole": 41.0 + k}]} for k, title in enumerate(titles)]
    assert [claim["text"] for claim in claim_verdicts("parts", rows, {})] == [
        "CAM covers less of the whole object than the merged map"
    ]
    for row in rows:
        row["seeds"] = [seed | {"rest": 2 * seed["whole"]} for seed in row["seeds"]]
    judged = claim_verdicts("parts", rows, {})
    assert [claim["differences"] for claim in judged] == [[2.0, 2.0], [3.0, 3.0]]
    assert {claim["verdict"] for claim in judged} == {"holds"}
