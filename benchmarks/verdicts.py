"""How often the rule for verdicts calls a difference firm, in made-up trainings whose true difference is known.

A score is that of its setting, plus the luck of a training, plus that of a picture, plus what is left between both, all
drawn from normal distributions. Settings are trained apart, as in a table of dropout rates, or read off the same
trainings, as the maps of one model. A difference of 0 shows how often the rule is wrong, others what it can see.

    python benchmarks/verdicts.py [--name verdict_simulation]
"""

from __future__ import annotations

import argparse

import numpy as np

from dsna_lib.engine.provenance import write_result
from dsna_lib.tables.verdicts import ENOUGH, LEVEL, Evidence, compare

TRAININGS = (ENOUGH, 5)
DIFFERENCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # points
SPREADS = {"training": 1.0, "picture": 10.0, "rest": 5.0}  # standard deviations in points
PICTURES = 500


def evidence(setting: str, scores: np.ndarray) -> Evidence:
    """Of a mean over pictures; scores are ``(S, N)``."""
    without = (scores.sum(axis=1, keepdims=True) - scores) / (scores.shape[1] - 1)
    return Evidence(setting, scores.mean(axis=1), without)


def firm_share(trainings: int, difference: float, apart: bool, rounds: int, seed: int = 0) -> float:
    """Of made-up comparisons, the share that is called firm.

    Args:
        trainings: of each setting.
        difference: the true one, in points.
        apart: whether the two settings are trained apart; else their trainings' luck is the same but for a half of it.
        rounds: how many comparisons.
        seed: of the luck.
    """
    random, firm = np.random.default_rng(seed), 0
    for _ in range(rounds):
        luck = random.normal(0, SPREADS["training"], (2, trainings, 1))
        if not apart:
            luck = luck[:1] + luck / 2
        pictures = random.normal(0, SPREADS["picture"], (2, 1, PICTURES))
        scores = luck + pictures + random.normal(0, SPREADS["rest"], (2, trainings, PICTURES))
        scores[1] += difference
        rows = [evidence(str(place) if apart else "one", each) for place, each in enumerate(scores)]
        firm += compare(rows, [-1, 1]).p <= LEVEL
    return firm / rounds


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rounds", type=int, default=2000, help="comparisons of each kind")
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    found = []
    for apart in (True, False):
        for trainings in TRAININGS:
            shares = [firm_share(trainings, difference, apart, args.rounds) for difference in DIFFERENCES]
            found.append({"apart": apart, "trainings": trainings, "firm": shares})
            said = ", ".join(f"{d:g}: {share:.1%}" for d, share in zip(DIFFERENCES, shares, strict=True))
            print(f"{trainings} trainings {'apart' if apart else 'shared'}; firm at a difference of {said}", flush=True)
    if args.name:
        about = {"rounds": args.rounds, "spreads": SPREADS, "pictures": PICTURES}
        values = {"differences": DIFFERENCES, "simulated": found}
        print(f"written to {write_result(args.name, values, about)}")


if __name__ == "__main__":
    main()
