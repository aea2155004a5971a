"""Run every chapter once, in order, and record how long each took and how much memory: ``results/chapters.json``.

    python tools/time_chapters.py                                           # all of them; writes the file
    python tools/time_chapters.py notebooks/01_labels_without_masks.ipynb   # some of them; only prints

Models go to an empty folder, so that each chapter trains what no chapter before it has trained.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dsna_lib import runs
from dsna_lib.chapters import NOTEBOOKS, ROOT

TOOLS = ("jupyter-book", "Sphinx", "myst-nb", "jupyterlab", "papermill", "nbclient", "matplotlib", "pandas", "scipy")


def timed(notebook: Path, folder: Path) -> dict[str, float]:
    """Run a notebook in a process of its own.

    Args:
        notebook: which.
        folder: where its copy and the models go.

    Returns:
        ``seconds``, from start to exit, and ``peak_mib``, the memory of the largest of its processes.

    Raises:
        SystemExit: the chapter failed; it has said why.
    """
    command = [sys.executable, "-m", "dsna_lib.chapters", str(notebook), str(folder / notebook.name)]
    start = time.monotonic()
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"DSNA_RUNS": str(folder / "runs")})
    _, status, used = os.wait4(child.pid, 0)  # the usage covers the kernel, which the child waits for
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{notebook} failed; nothing is written")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": round(time.monotonic() - start, 1), "peak_mib": round(used.ru_maxrss * unit / 2**20)}


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main(arguments: list[str]) -> None:
    """Time the notebooks named, or all of them, and then write the file.

    Raises:
        SystemExit: no such notebook, or one that failed.
    """
    chosen = [Path(name).resolve() for name in arguments] or sorted(NOTEBOOKS.glob("*.ipynb"))
    for notebook in chosen:
        if not notebook.is_file():
            raise SystemExit(f"{notebook}: no such notebook")
    with tempfile.TemporaryDirectory() as folder:
        found = {notebook.stem: timed(notebook, Path(folder)) for notebook in chosen}
    if arguments:
        for name, one in found.items():
            print(f"{name}: {one['seconds']:.0f} s, {one['peak_mib']:,} MiB")
        return
    provenance = {
        "profile": "cpu",
        "runs": "an empty folder, chapters in order",
        "processor": processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "tools": {name: importlib.metadata.version(name) for name in TOOLS},
    }
    print(runs.write_result("chapters", {"chapters": found}, provenance, ROOT / "results"))


if __name__ == "__main__":
    main(sys.argv[1:])
