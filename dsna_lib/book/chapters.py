"""Chapters as programs: each is a notebook, whose cell tagged ``parameters`` holds literals to replace.

A fresh copy of one: ``python -m dsna_lib.book.chapters notebooks/05_training.ipynb runs/05.ipynb -p seed 1``
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dsna_lib.engine.errors import DsnaError, RunError

if TYPE_CHECKING:
    from dsna_lib.engine.runs import Run

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
NOTEBOOKS = ROOT / "notebooks"
PROFILES = ("cpu", "colab", "full")  # those of dsna_lib.book.profiles, whose import takes seconds
PARAMETER_TYPES = ("str", "int", "float", "bool", "list")
# What chapters read beside the code: recipes, the printed numbers, the networks that ship.
FILES = ("recipes/*.toml", "dsna_lib/*.yaml", "dsna_lib/checkpoints/*.pth")
FORMATS = ("png", "pdf", "svg")  #: a chapter's figures can be kept in
CELL_TIMEOUT = 900  # seconds; no cell with the committed parameters comes near it


class ChapterError(DsnaError, ValueError):
    """No such figure, table or parameter, or a value of another type; the message lists what there is."""


@dataclass(frozen=True)
class Print:
    """How a chapter's figures are kept, for those who print them; without one, as the chapter says."""

    formats: tuple[str, ...] = ("png",)  #: of FORMATS
    dpi: int = 300  #: pixels an inch, of bitmaps

    def __post_init__(self) -> None:
        if unknown := [form for form in self.formats if form not in FORMATS]:
            raise ChapterError(f"unknown format {unknown[0]!r}: choose among {', '.join(FORMATS)}")
        if not 20 <= self.dpi <= 2400:
            raise ChapterError(f"dpi={self.dpi} must lie in 20..2400")

    def to_kernel(self) -> list[str]:
        """The options of a kernel that keeps every figure in these formats."""
        formats = [f"--InlineBackend.figure_formats={form}" for form in self.formats]
        return [*formats, f"--InlineBackend.print_figure_kwargs={{'dpi': {self.dpi}, 'bbox_inches': 'tight'}}"]


def run(
    notebook: str | Path, output: str | Path, given: Mapping[str, Any] | None = None, look: Print | None = None
) -> float:
    """Execute a notebook in the working folder, write the executed copy, and return how many seconds it took.

    Args:
        notebook: it stays as it is.
        output: where the copy goes. It appears only once every cell has run; a failed run leaves
            ``NAME.failed.ipynb`` beside it, with the error marked.
        given: see :func:`parameters`.
        look: how figures are kept; None as the chapter says.

    Raises:
        FileNotFoundError, ChapterError: see :func:`parameters`.
        RunError: a cell failed.
        ImportError: no papermill.

    Example:
        >>> run("notebooks/04_decoupled_structure.ipynb", "runs/04.ipynb", {"seed": 1})  # doctest: +SKIP
        9.3
    """
    papermill = _papermill()
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    notebook, output, given = Path(notebook), Path(output), given or {}
    values = parameters(notebook, given)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".failed.ipynb")
    start = time.monotonic()
    backend = os.environ.pop("MPLBACKEND", None)  # one for scripts would keep figures out of the notebook
    try:
        papermill.execute_notebook(
            notebook,
            partial,
            {name: values[name] for name in given},
            kernel_name="python3",
            cwd=".",
            execution_timeout=None if given else CELL_TIMEOUT,  # longer profiles train for hours in one cell
            progress_bar={"desc": notebook.stem, "disable": None, "leave": False},  # on a terminal
            # No warning that the kernel talks to this machine.
            extra_arguments=["--IPKernelApp.log_level=40", *(look.to_kernel() if look else [])],
        )
    except (papermill.PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
        why = f": {str(error).strip().splitlines()[0]}"
        if isinstance(error, papermill.PapermillExecutionError):
            why = f" in cell [{error.exec_count}]: {error.ename}: {error.evalue}"
        raise RunError(f"{notebook.name} stopped{why} (the copy up to there: {partial})") from error
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    partial.replace(output)
    return time.monotonic() - start


def parameters(notebook: str | Path, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every parameter of a notebook and its value, some replaced.

    Args:
        notebook: with a cell tagged ``parameters`` that holds lines like ``seed: int = 0``.
        given: new values. A text for a parameter that is not one is read as a Python literal.

    Raises:
        FileNotFoundError: no such notebook.
        ChapterError: a name that the notebook does not have, an unknown profile, or a value of another type.

    Example:
        >>> parameters("notebooks/03_spatial_attention.ipynb", {"seed": "1"})  # doctest: +SKIP
        {'profile': 'cpu', 'seed': 1}
    """
    notebook, given = Path(notebook), given or {}
    if not notebook.is_file():
        raise FileNotFoundError(f"{notebook}: no such notebook")
    known = _papermill().inspect_notebook(str(notebook))
    if unknown := sorted(set(given) - set(known)):
        there = ", ".join(f"{name} ({each['inferred_type_name']})" for name, each in known.items()) or "none"
        raise ChapterError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has: {there}")
    values = {name: ast.literal_eval(each["default"]) for name, each in known.items()}
    values |= {name: _typed(name, value, known[name]["inferred_type_name"]) for name, value in given.items()}
    if "profile" in given and values["profile"] not in PROFILES:
        raise ChapterError(f"unknown profile {values['profile']!r}: choose cpu, colab or full")
    return values


def _typed(name: str, value: Any, kind: str) -> Any:
    """A value of the type that the notebook declares; any value where it declares none."""
    if kind not in PARAMETER_TYPES or (kind == "str" and isinstance(value, str)):
        return value
    try:
        literal = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        literal = value
    if kind == "float" and type(literal) is int:
        return float(literal)
    if type(literal).__name__ != kind:
        raise ChapterError(f"the parameter {name} is of type {kind}, and {value!r} is not")
    return literal


def _papermill() -> ModuleType:
    try:
        import papermill
    except ImportError as error:
        raise ImportError("running a chapter needs papermill: `pip install papermill ipykernel`") from error
    return papermill


def notebook_of(chapter: str) -> Path:
    """The notebook of a chapter, by its name without ending, such as ``"06_attention_maps"``.

    Raises:
        FileNotFoundError: it is not there, as in an installation without the book.
    """
    path = NOTEBOOKS / f"{chapter}.ipynb"
    if not path.is_file():
        hint = "get the book's repository, and install it with `pip install -e .` from its folder"
        raise FileNotFoundError(f"{path}: no such notebook. The chapters do not come with an installed package: {hint}")
    return path


def execute(
    chapter: str,
    given: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = lambda text: None,
    look: Print | None = None,
) -> Run:
    """Run a chapter, or find its finished run: the same code cells, parameters, library, recipes and stored results.

    Args:
        chapter: see :func:`notebook_of`.
        given: see :func:`parameters`.
        say: is told what happens.
        look: how figures are kept; None as the chapter says.

    Returns:
        Its run, with the executed notebook ``CHAPTER.ipynb`` in ``run.folder``.

    Raises:
        FileNotFoundError: no such chapter.
        ChapterError, RunError, ImportError: see :func:`run`.
    """
    from dsna_lib.engine import runs

    def work(folder: Path) -> dict[str, float]:
        say(f"{chapter}: running ...")
        return {"seconds": round(run(notebook, folder / notebook.name, given, look), 1)}

    notebook = notebook_of(chapter)
    values = parameters(notebook, given)
    texts = {name: value for name, value in values.items() if value and isinstance(value, str)}
    # The same words from another working folder may mean another folder.
    places = {name: str(Path(text).resolve()) for name, text in texts.items() if Path(text).is_dir()}
    # What the notebook does; its prose may change.
    code = [[c.source, c.metadata.get("tags", [])] for c in read_notebook(notebook).cells if c.cell_type == "code"]
    files = [file for pattern in FILES for file in ROOT.glob(pattern)]
    if "results" in values:
        from dsna_lib.book.profiles import results_folder

        files += results_folder(values["results"]).glob("*.json")
    identity = {
        "chapter": chapter,
        "parameters": values | places,
        "cells": hashlib.sha256(repr(code).encode()).hexdigest()[:12],
        "files": {file.name: runs.file_digest(file) for file in files},
    }
    if look:
        identity["print"] = asdict(look)
    opened = runs.open_run("chapters", identity, *_library())
    if opened.finished:
        say(f"{chapter}: has run before, {opened.folder}")
    return runs.complete(opened, work)


def _library() -> list[str]:
    """All modules: a chapter may use any of them."""
    files = (path.relative_to(ROOT).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    return [".".join(file.parts).removesuffix(".__init__") for file in files]


def read_notebook(notebook: Path) -> Any:
    """A notebook of any version, as a node of nbformat; an ImportError says that papermill is missing."""
    return _papermill().iorw.load_notebook_node(str(notebook))


def main(argv: Sequence[str] | None = None) -> None:
    """Run one notebook into a fresh copy: notebook, output, and any number of ``-p NAME VALUE``."""
    parser = argparse.ArgumentParser(prog="dsna_lib.book.chapters", description="Run one notebook into a fresh copy.")
    parser.add_argument("notebook", type=Path, help="the notebook to run; it stays as it is")
    parser.add_argument("output", type=Path, help="where the executed copy goes")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="replace a parameter"
    )
    args = parser.parse_args(argv)
    try:
        seconds = run(args.notebook, args.output, dict(args.parameter))
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise SystemExit(f"{parser.prog}: error: {error}") from None
    print(f"{args.notebook}: {seconds:.0f} s{_note_memory(args.output)}")


def _note_memory(copy: Path) -> str:
    """Write the memory of the largest process so far beside the times that papermill keeps in the copy; and say it."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**20)
    notebook = read_notebook(copy)
    notebook.metadata.papermill["peak_mib"] = peak
    _papermill().iorw.write_ipynb(notebook, str(copy))
    return f", {peak:,} MiB"


if __name__ == "__main__":
    main()
