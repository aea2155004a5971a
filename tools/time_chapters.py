"""Record how long each chapter took in the last `make book`, and how much memory: ``results/chapters.json``.

Run it after ``rm -rf runs _build && make book``: every chapter then trains what no chapter before it has trained.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

from dsna_lib.book.chapters import NOTEBOOKS, ROOT
from dsna_lib.engine import runs
from dsna_lib.engine.provenance import write_result

TOOLS = ("jupyter-book", "Sphinx", "myst-nb", "jupyterlab", "papermill", "nbclient", "matplotlib", "pandas", "scipy")


def read_times(folder: Path) -> dict[str, Any]:
    """What the copies of a run of all chapters say of it.

    Args:
        folder: of the executed copies.

    Returns:
        ``chapters``: name to ``seconds`` and ``peak_mib`` (memory of the largest process), and ``seconds`` from the
        first one's start to the last one's end: several run at a time.

    Raises:
        SystemExit: a copy is missing, or models were there before the run began.
    """
    chapters, starts, ends = {}, [], []
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        copy = folder / notebook.name
        if not copy.is_file():
            raise SystemExit(f"{copy} is not there: run `make book` first")
        ran = nbformat.read(copy, 4).metadata.papermill
        chapters[notebook.stem] = {"seconds": round(ran.duration, 1), "peak_mib": ran.peak_mib}
        starts.append(datetime.fromisoformat(ran.start_time))
        ends.append(datetime.fromisoformat(ran.end_time))
    earlier = [path for path in runs.root().glob("*/*/run.json") if path.stat().st_mtime < min(starts).timestamp()]
    if earlier:
        raise SystemExit(f"{earlier[0].parent} was there before the chapters ran: `rm -rf {runs.root()} _build` first")
    return {"chapters": chapters, "seconds": round((max(ends) - min(starts)).total_seconds(), 1)}


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main(folder: Path = ROOT / "_build" / "source" / "notebooks") -> None:
    """Write the file.

    Args:
        folder: of the executed copies.

    Raises:
        SystemExit: see :func:`read_times`.
    """
    provenance = {
        "profile": "cpu",
        "runs": "an empty folder; two chapters at a time, each with half the cores",
        "processor": processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "tools": {name: importlib.metadata.version(name) for name in TOOLS},
    }
    print(write_result("chapters", read_times(folder), provenance, ROOT / "results"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
