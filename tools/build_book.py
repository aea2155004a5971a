"""Build the book as ``make book`` does, which calls this: run every notebook, and make the site of the copies just run.

A copy in ``_build/source/notebooks`` stays as long as it is younger than its notebook and the library.

Example:
    python tools/build_book.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from dsna_lib.engine.devices import core_count

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("book", "dsna_lib", "exercises", "results")  # what the site reads beside the notebooks
FIRST = ("05", "02", "10", "08", "09")  # the long ones, so that none of them is left alone at the end
LAST = ("06", "07")  # they need what 05 trains, and would wait long for it
AT_ONCE = 2  # small networks gain little from a second thread: two chapters at a time, each with half the cores


def in_turn(notebooks: Iterable[Path]) -> list[Path]:
    """Notebooks in the order in which they are run."""

    def place(notebook: Path) -> tuple[int, str]:
        number = notebook.name[:2]
        return FIRST.index(number) if number in FIRST else len(FIRST) + (number in LAST), notebook.name

    return sorted(notebooks, key=place)


def run_chapters(root: Path, copies: Path) -> None:
    """Run the notebooks that changed, or whose library did, into copies.

    Raises:
        subprocess.CalledProcessError: a chapter stopped; those under way are finished, and no other is begun.
    """
    threads = str(max(1, core_count() // AT_ONCE))
    environment = {"DSNA_RUNS": str(root / "runs")} | os.environ
    environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "JUPYTER_PREFER_ENV_PATH": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # its tools before others
    changed = max(path.stat().st_mtime for path in (root / "dsna_lib").rglob("*") if path.suffix != ".pyc")
    stopped = Event()

    def run(notebook: Path) -> None:
        copy = copies / notebook.name
        if stopped.is_set() or (copy.exists() and copy.stat().st_mtime >= max(changed, notebook.stat().st_mtime)):
            return
        command = [sys.executable, "-m", "dsna_lib.book.chapters", notebook, copy]
        try:
            subprocess.run(command, cwd=root, env=environment, check=True)
        except BaseException:
            stopped.set()  # here, as whoever waits for the results hears of it only after the chapters before this one
            raise

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            list(pool.map(run, in_turn((root / "notebooks").glob("*.ipynb"))))
        except BaseException:  # also Ctrl-C, which reaches this thread alone
            stopped.set()
            raise


def build_site(root: Path, source: Path) -> None:
    """Make the site anew from a copy of the sources in which the notebooks are the ones just run.

    Raises:
        subprocess.CalledProcessError: a warning or an error, which Jupyter Book has printed.
    """
    for old in (root / "_build" / "html", root / "_build" / ".doctrees", *(source / name for name in BESIDE)):
        shutil.rmtree(old, ignore_errors=True)
    for name in BESIDE:
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(root / name, source)
    subprocess.run([sys.executable, root / "tools" / "try_it.py", source / "book/_static/try_it"], check=True)
    jupyter_book = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    subprocess.run([*jupyter_book, "build", source, "--path-output", root, "-n", "-W", "--keep-going"], check=True)


def main() -> None:
    """Build the book, and say where it lies."""
    source = ROOT / "_build" / "source"
    try:
        run_chapters(ROOT, source / "notebooks")
        build_site(ROOT, source)
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
    html = (ROOT / "_build" / "html").relative_to(ROOT)
    print(f"\nThe book is ready. Open {html / 'index.html'}, or serve it:")
    print(f"  {sys.executable} -m http.server 8000 --directory {html}    (then http://localhost:8000)")


if __name__ == "__main__":
    main()
