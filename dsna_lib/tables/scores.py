"""What a trained row of Table III or IV scored, and files in which scores outlive the machine that trained them.

A run holds a network, its masks and its annotations, and stays where it was made. Its score is a few kilobytes: with
a folder of scores a table goes on elsewhere, and a row of one's own stands beside the book's without their trainings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import plain, write_atomically
from dsna_lib.engine.pools import Unit
from dsna_lib.engine.runs import digest


@dataclass
class Score:
    """What became of a row.

    Attributes:
        counts: column to the confusion counts of each picture of val ``(N, C + 1, C + 2)``.
        wrong: pixels of each of :data:`~dsna_lib.segmentation.mistakes.KINDS` in all of val, of the masks of ``iou``.
        annotation: mean IoU of the annotations it learned from, in percent; measured, never used. None without
            annotations, or without masks to hold them against.
        learned_wrong: the share of all their pixels that is wrong in each of these ways; None likewise.
        how: where it comes from.
    """

    counts: dict[str, np.ndarray]
    wrong: np.ndarray
    annotation: float | None
    learned_wrong: np.ndarray | None = None
    how: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file, atomically."""
        arrays: dict[str, Any] = {f"counts {column}": counts for column, counts in self.counts.items()}
        arrays["wrong"] = self.wrong
        if self.learned_wrong is not None:
            arrays["learned_wrong"] = self.learned_wrong
        arrays["card"] = np.array(json.dumps(plain({"annotation": self.annotation, "how": self.how})))
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> Score:
        """Read what :meth:`save` wrote.

        Raises:
            RunError: the file is damaged; the message names it.
        """
        try:
            with np.load(path) as stored:
                arrays = dict(stored)
            card = json.loads(str(arrays["card"]))
            counts = {name.removeprefix("counts "): arrays[name] for name in arrays if name.startswith("counts ")}
            return cls(counts, arrays["wrong"], card["annotation"], arrays.get("learned_wrong"), card["how"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            said = f"{path}: holds no score that can be read ({error})"
            raise RunError(said, "delete it; its row is then trained again") from error


def place(folder: Path, unit: Unit, identity: Mapping[str, Any]) -> Path:
    """Where the score of a row and seed lies in a folder: the name tells them, and a digest of what decides it.

    Example:
        >>> place(Path("results/scores"), Unit("DSNA, merged", 0), {"epochs": 9}).name
        'DSNA_merged-0-f62f6e3bbd98.npz'
    """
    row = re.sub(r"\W+", "_", str(unit.what)).strip("_")
    return folder / f"{row}-{unit.seed}-{digest(plain(dict(identity)))}.npz"
