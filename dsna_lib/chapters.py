"""Chapters as programs: run one with other parameters, and take the paper's figures and tables out of it.

A chapter of the book is a notebook in ``notebooks/``. Its cell tagged ``parameters`` holds literals, which
papermill replaces (:func:`run`). The cells that show a figure or table of the paper carry its name as a tag, such
as ``figure-5`` or ``table-II``; :data:`EXHIBITS` says which chapter they stand in. :func:`execute` runs a chapter
once for each set of parameters, and :func:`extract` writes what its tagged cells show into a folder.

A fresh copy of one chapter, from the command line::

    python -m dsna_lib.chapters notebooks/05_training.ipynb runs/05_training.ipynb -p seed 1
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import zip_longest
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsna_lib.runs import Run

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
PROFILES = ("cpu", "colab", "full")  # those of dsna_lib.profiles, whose import takes seconds
KINDS = {kind.__name__: kind for kind in (str, int, float, bool, list)}
CELL_TIMEOUT = 900  # seconds; no cell with the committed parameters comes near it


class ChapterError(ValueError):
    """No such figure, table or parameter, or a value of another type; the message lists what there is."""


@dataclass(frozen=True)
class Exhibit:
    """A figure or table of the paper that a chapter makes again.

    Attributes:
        name: the tag of the cells that show it.
        chapter: the notebook that they stand in, without its ending.
        title: what it shows.
    """

    name: str
    chapter: str
    title: str


EXHIBITS = (
    Exhibit("figure-4", "06_attention_maps", "expansive and discriminative maps of large and small objects"),
    Exhibit("figure-5", "06_attention_maps", "from the picture over its three maps to the annotation"),
    Exhibit("figure-6", "08_ablations", "maps by dropout rate"),
    Exhibit("figure-7", "10_segmentation", "masks of validation pictures"),
    Exhibit("table-I", "08_ablations", "the three maps of one model"),
    Exhibit("table-II", "08_ablations", "the merged map by dropout rate"),
    Exhibit("table-single-stream", "08_ablations", "without the expansive branch (Sec. IV-B, in the text)"),
    Exhibit("table-III", "10_segmentation", "segmentation, by the method that made the annotations"),
    Exhibit("table-IV", "10_segmentation", "what was published on VOC val"),
    Exhibit("table-V", "10_segmentation", "what was published on VOC test"),
    Exhibit("table-VI", "10_segmentation", "segmentation, class by class"),
)

# Figures of the paper that are drawings: nothing computes them.
DRAWINGS = {
    "figure-1": "the book's introduction shows its idea on maps of a trained model (book/_static/pipeline.png)",
    "figure-2": "chapter 03 builds what it shows, in code (notebooks/03_spatial_attention.ipynb)",
    "figure-3": "chapter 04 has it as a diagram in text, and in code (notebooks/04_decoupled_structure.ipynb)",
}


def find(name: str) -> Exhibit:
    """The exhibit of a name.

    Args:
        name: such as ``"figure-5"`` or ``"table-II"``, or its end alone: ``"5"``, ``"II"``.

    Raises:
        ChapterError: a drawing, or no figure or table of the paper.

    Example:
        >>> find("5").chapter
        '06_attention_maps'
    """
    word = name.casefold().replace(" ", "-")
    for drawing, where in DRAWINGS.items():
        if word in _names(drawing):
            raise ChapterError(f"{drawing} of the paper is a drawing, which nothing computes; {where}")
    for exhibit in EXHIBITS:
        if word in _names(exhibit.name):
            return exhibit
    there = ", ".join(exhibit.name for exhibit in EXHIBITS)
    raise ChapterError(f"unknown figure or table {name!r}; there are {there}, and all for all of them")


def _names(name: str) -> tuple[str, str]:
    """A name in full and without what kind it is."""
    return name.casefold(), name.casefold().partition("-")[2]


# --- running a chapter ------------------------------------------------------------------------------------------------


def run(notebook: str | Path, output: str | Path, given: Mapping[str, Any] | None = None) -> float:
    """Execute a notebook in the working folder and write the executed copy.

    Args:
        notebook: it stays as it is.
        output: where the copy goes. It appears only once every cell has run; a failed run leaves
            ``NAME.failed.ipynb`` beside it, with the error marked.
        given: values that replace those of the cell of parameters; see :func:`parameters`.

    Returns:
        The seconds it took.

    Raises:
        FileNotFoundError: no such notebook.
        ChapterError: a parameter that it does not have, or a value of another type.
        RuntimeError: a cell failed.
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
    try:
        with _figures_inline():
            papermill.execute_notebook(
                notebook,
                partial,
                {name: values[name] for name in given},
                kernel_name="python3",
                cwd=".",
                # Longer profiles train for hours in one cell.
                execution_timeout=None if given else CELL_TIMEOUT,
                progress_bar=False,
                extra_arguments=["--IPKernelApp.log_level=40"],  # no warning that the kernel talks to this machine
            )
    except papermill.PapermillExecutionError as error:
        text = f"{notebook.name} stopped in cell [{error.exec_count}]: {error.ename}: {error.evalue}"
        raise RuntimeError(f"{text} (the copy up to there: {partial})") from error
    except (CellTimeoutError, DeadKernelError) as error:
        text = str(error).strip().splitlines()[0]
        raise RuntimeError(f"{notebook.name} stopped: {text} (the copy up to there: {partial})") from error
    partial.replace(output)
    return time.monotonic() - start


def parameters(notebook: str | Path, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters of a notebook, with some replaced.

    Args:
        notebook: with a cell tagged ``parameters`` that holds lines like ``seed: int = 0``.
        given: new values. A text for a parameter that is not one is read as a Python literal.

    Returns:
        Every parameter and its value.

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
    if kind not in KINDS or (kind == "str" and isinstance(value, str)):
        return value
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        found = value
    if kind == "float" and type(found) is int:
        return float(found)
    if type(found) is not KINDS[kind]:
        raise ChapterError(f"the parameter {name} is of type {kind}, and {value!r} is not")
    return found


def _papermill() -> ModuleType:
    try:
        import papermill
    except ImportError as error:
        raise ImportError("running a chapter needs papermill: `pip install papermill ipykernel`") from error
    return papermill


@contextmanager
def _figures_inline() -> Iterator[None]:
    """Kernels started here draw into their notebook, even where MPLBACKEND names a backend for scripts."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


# --- a chapter once for each set of parameters ------------------------------------------------------------------------


def notebook_of(chapter: str) -> Path:
    """The notebook of a chapter.

    Args:
        chapter: its name without ending, such as ``"06_attention_maps"``.

    Raises:
        FileNotFoundError: it is not there, as in an installation without the book.
    """
    path = NOTEBOOKS / f"{chapter}.ipynb"
    if not path.is_file():
        text = f"{path}: no such notebook. The chapters do not come with an installed package: get the book's "
        raise FileNotFoundError(text + "repository, and install it with `pip install -e .` from its folder")
    return path


def execute(
    chapter: str, given: Mapping[str, Any] | None = None, say: Callable[[str], None] = lambda text: None
) -> Run:
    """Run a chapter, or find its finished run: the same code cells, parameters, library and stored results.

    Args:
        chapter: its name without ending.
        given: values that replace parameters; see :func:`parameters`.
        say: is told what happens.

    Returns:
        Its run, with the executed notebook ``CHAPTER.ipynb`` in ``run.folder``.

    Raises:
        FileNotFoundError: no such chapter.
        ChapterError: a parameter that it does not have, or a value of another type.
        RuntimeError: a cell failed.
        ImportError: no papermill.
    """
    from dsna_lib import runs

    notebook = notebook_of(chapter)
    values = parameters(notebook, given)
    config = {"chapter": chapter, "parameters": _places(values), "cells": _code(notebook), "results": _results(values)}
    library = tuple(path.relative_to(ROOT / "dsna_lib").with_suffix("").as_posix() for path in _library())
    found = runs.open_run("chapters", config, library)
    with runs.alone(found.folder):
        if found.finished:
            say(f"{chapter}: has run before, {found.folder}")
        else:
            say(f"{chapter}: running ...")
            found.finish(seconds=round(run(notebook, found.folder / notebook.name, given), 1))
    return found


def _library() -> list[Path]:
    return sorted((ROOT / "dsna_lib").rglob("*.py"))


def _places(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that tell folders apart: the same words from another working folder may mean another one."""
    return {
        name: str(Path(value).resolve()) if isinstance(value, str) and value and Path(value).is_dir() else value
        for name, value in values.items()
    }


def _code(notebook: Path) -> str:
    """A digest over what a notebook does: its code cells and their tags. Its prose may change."""
    cells = [[cell.source, cell.metadata.get("tags", [])] for cell in _read(notebook).cells if cell.cell_type == "code"]
    return hashlib.sha256(repr(cells).encode()).hexdigest()[:12]


def _results(values: Mapping[str, Any]) -> str | None:
    """A digest over the stored tables that a chapter may show; None for one that shows none."""
    from dsna_lib.profiles import results_folder

    if "results" not in values:
        return None
    stored = [[path.name, path.read_bytes()] for path in sorted(results_folder(values["results"]).glob("*.json"))]
    return hashlib.sha256(repr(stored).encode()).hexdigest()[:12]


def _read(notebook: Path) -> Any:
    _papermill()  # says what is missing
    from papermill.iorw import load_notebook_node

    return load_notebook_node(str(notebook))


# --- what the tagged cells show ---------------------------------------------------------------------------------------

PICTURES = {"image/png": ".png", "image/jpeg": ".jpg", "image/svg+xml": ".svg"}
TEXTS = {"text/markdown": ".md", "text/html": ".html", "text/plain": ".txt"}


def extract(exhibit: Exhibit, run: Run, folder: str | Path) -> list[Path]:
    """Write what the tagged cells of an executed chapter show.

    Args:
        exhibit: which figure or table.
        run: of its chapter, from :func:`execute`.
        folder: where to; files of an earlier extraction are replaced.

    Returns:
        The files: pictures ``NAME.png`` (or ``.jpg``; from the second on ``NAME-2.png``), texts ``NAME.md``,
        ``NAME.html`` and ``NAME.txt``, those that there are, and ``numbers.json``: under ``values`` the ``tables``
        (see :func:`tables_in`), the ``text`` and the ``pictures`` with their descriptions, under ``provenance``
        the chapter, its parameters and the environment that it ran in.

    Raises:
        RuntimeError: the chapter has no cell of this name, or these cells show nothing.
    """
    from dsna_lib import runs
    from dsna_lib.data.pictures import write_atomically

    folder, notebook = Path(folder), run.folder / f"{exhibit.chapter}.ipynb"
    cells = [cell for cell in _read(notebook).cells if exhibit.name in cell.metadata.get("tags", [])]
    files, described, texts = _shown(exhibit.name, cells)
    if not files:
        raise RuntimeError(f"{notebook} shows nothing in cells tagged {exhibit.name}")
    _clear(folder)
    for name, content in files.items():
        write_atomically(folder / name, lambda file, content=content: file.write(content))
    made = run.read()
    values = {"tables": tables_in(texts), "text": texts["text/plain"], "pictures": described}
    provenance = {name: made["config"][name] for name in ("chapter", "parameters")}
    provenance |= {"notebook": str(notebook.resolve()), **made["metrics"], "environment": made["environment"]}
    numbers = {"name": exhibit.name, "title": exhibit.title, "values": values, "provenance": provenance}
    runs.write_json(folder / "numbers.json", numbers | {"files": list(files)})
    return [folder / name for name in (*files, "numbers.json")]


def _clear(folder: Path) -> None:
    """Remove the files of an earlier extraction: there may be fewer now."""
    from dsna_lib import runs

    if (folder / "numbers.json").is_file():
        for name in runs.read_json(folder / "numbers.json").get("files", []):
            (folder / Path(name).name).unlink(missing_ok=True)


def _shown(name: str, cells: Sequence[Any]) -> tuple[dict[str, bytes], list[dict[str, str]], dict[str, str]]:
    """What cells show: file name to content, each picture with its description, and the text of each form."""
    files, described, texts = {}, [], {form: [] for form in TEXTS}
    for cell in cells:
        for output in cell.get("outputs", []):
            shown = {"text/plain": output.text} if output.output_type == "stream" else output.get("data", {})
            form = next((form for form in (*PICTURES, *TEXTS) if form in shown), None)  # others stand in for the first
            if form in PICTURES:
                file = name + (f"-{len(described) + 1}" if described else "") + PICTURES[form]
                files[file] = _bytes(form, shown[form])
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                described.append({"file": file, "alt": alt})
            elif form:
                texts[form].append(shown[form].strip("\n"))
    joined = {form: "\n\n".join(filter(None, parts)) for form, parts in texts.items()}
    files |= {name + TEXTS[form]: (text + "\n").encode() for form, text in joined.items() if text}
    return files, described, joined


def _bytes(form: str, content: str) -> bytes:
    return content.encode() if form == "image/svg+xml" else base64.b64decode(content)


def tables_in(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    r"""The tables in Markdown and HTML.

    Args:
        texts: by form, ``"text/markdown"`` and ``"text/html"``.

    Returns:
        For each table its ``title`` (the last line in bold type above it), and its ``columns`` and ``rows``, as
        ``pandas.DataFrame(rows, columns=columns)`` takes them. Numbers are floats, a mean with its spread is a dict
        of ``mean`` and ``std``, and an empty cell is None.

    Example:
        >>> tables_in({"text/markdown": "| map | IoU |\n| --- | ---: |\n| merged | 29.7 ± 1.6 |"})
        [{'title': '', 'columns': ['map', 'IoU'], 'rows': [['merged', {'mean': 29.7, 'std': 1.6}]]}]
    """
    tables, text = [], texts.get("text/markdown", "")
    for block in re.finditer(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        titles = re.findall(r"^\*\*.+", text[: block.start()], re.MULTILINE)
        head, _, *rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block[0].splitlines()]
        tables.append((titles[-1].replace("**", "") if titles else "", [cell.strip() for cell in head], rows))
    parser = _HTMLTables()
    parser.feed(texts.get("text/html", ""))
    for head, rows in parser.tables:  # the lines of a head are joined column by column
        tables.append(("", [" ".join(filter(None, column)) for column in zip_longest(*head, fillvalue="")], rows))
    return [
        {"title": title, "columns": head, "rows": [[_value(cell.strip()) for cell in row] for row in rows]}
        for title, head, rows in tables
    ]


class _HTMLTables(HTMLParser):
    """Collects the lines of each table's head and body; a cell that spans columns stands in each."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[list[list[str]], list[list[str]]]] = []
        self.part, self.text, self.span = 1, None, 1

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append(([], []))
        elif tag in ("thead", "tbody"):
            self.part = int(tag == "tbody")
        elif tag == "tr":
            self.tables[-1][self.part].append([])
        elif tag in ("td", "th"):
            self.text, self.span = "", int(dict(attrs).get("colspan") or 1)

    def handle_data(self, data: str) -> None:
        if self.text is not None:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.tables[-1][self.part][-1] += [self.text.strip()] * self.span
            self.text = None


def _value(cell: str) -> Any:
    """What a cell says: a number, a mean with its spread, None where nothing stands, else its text."""
    number = r"([-+]?\d+(?:\.\d+)?)"
    if found := re.fullmatch(f"{number}(?: ± {number})?", cell):
        mean, std = found.groups()
        return float(mean) if std is None else {"mean": float(mean), "std": float(std)}
    return None if cell in ("", "-", "NaN") else cell


# --- command line -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Run one notebook into a fresh copy: notebook, output, and any number of ``-p NAME VALUE``."""
    parser = argparse.ArgumentParser(prog="dsna_lib.chapters", description="Run one notebook into a fresh copy.")
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
    from papermill.iorw import write_ipynb

    unit = 1 if sys.platform == "darwin" else 1024
    peak = round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 2**20)
    notebook = _read(copy)
    notebook.metadata.papermill["peak_mib"] = peak
    write_ipynb(notebook, str(copy))
    return f", {peak:,} MiB"


if __name__ == "__main__":
    main()
