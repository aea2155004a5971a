"""The paper's figures and tables, taken out of executed chapters.

The cells that show one carry its name as a tag, such as ``figure-5`` or ``table-II``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsna_lib.book.chapters import ChapterError, read_notebook
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import read_json, write_atomically, write_json

if TYPE_CHECKING:
    from dsna_lib.engine.runs import Run

PICTURES = {"image/png": ".png", "image/jpeg": ".jpg", "image/svg+xml": ".svg", "application/pdf": ".pdf"}
TEXTS = {"text/markdown": ".md", "text/html": ".html", "text/plain": ".txt"}


@dataclass(frozen=True)
class Exhibit:
    """A figure or table of the paper that a chapter makes again."""

    name: str  #: the tag of the cells that show it
    chapter: str  #: the notebook that they stand in, without its ending
    title: str  #: what it shows


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
    "figure-3": "chapter 04 has it as a diagram, and in code (notebooks/04_decoupled_structure.ipynb)",
}


def find(name: str) -> Exhibit:
    """The exhibit of a name, such as ``"figure-5"`` or ``"table-II"``, or of its end alone: ``"5"``, ``"II"``.

    Raises:
        ChapterError: a drawing, or no figure or table of the paper.

    Example:
        >>> find("5").chapter
        '06_attention_maps'
    """
    word = name.casefold().replace(" ", "-")
    meant = (word, f"figure-{word}", f"table-{word}")
    for drawing, where in DRAWINGS.items():
        if drawing in meant:
            raise ChapterError(f"{drawing} of the paper is a drawing, which nothing computes; {where}")
    for exhibit in EXHIBITS:
        if exhibit.name.casefold() in meant:
            return exhibit
    there = ", ".join(exhibit.name for exhibit in EXHIBITS)
    raise ChapterError(f"unknown figure or table {name!r}; there are {there}, and all for all of them")


def extract(exhibit: Exhibit, run: Run, folder: str | Path) -> list[Path]:
    """Write what the tagged cells of an executed chapter show.

    Args:
        exhibit: which figure or table.
        run: of its chapter, from :func:`dsna_lib.book.chapters.execute`.
        folder: where to; files of an earlier extraction are replaced.

    Returns:
        Those files that there are of ``NAME.png`` (and ``.pdf``, ``.svg``, or ``.jpg``; then ``NAME-2.png`` and so on),
        ``NAME.md``, ``NAME.html`` and ``NAME.txt``; and ``numbers.json`` with ``values`` (the ``tables`` of
        :func:`tables_in`, the ``text``, the ``pictures`` with their descriptions) and ``provenance``.

    Raises:
        RunError: the chapter has no cell of this name, or these cells show nothing.
    """
    folder, notebook = Path(folder), run.folder / f"{exhibit.chapter}.ipynb"
    cells = [cell for cell in read_notebook(notebook).cells if exhibit.name in cell.metadata.get("tags", [])]
    files, described, texts = _shown(exhibit.name, cells)
    if not files:
        raise RunError(f"{notebook} shows nothing in cells tagged {exhibit.name}")
    if (folder / "numbers.json").is_file():
        for name in read_json(folder / "numbers.json", {"files": [str]})["files"]:  # there may be fewer now
            (folder / Path(name).name).unlink(missing_ok=True)
    for name, content in files.items():
        write_atomically(folder / name, methodcaller("write", content))
    made = run.read()
    values = {"tables": tables_in(texts["text/markdown"]), "text": texts["text/plain"], "pictures": described}
    provenance = {name: made["identity"][name] for name in ("chapter", "parameters")}
    provenance |= {"notebook": str(notebook.resolve()), **made["metrics"], "environment": made["environment"]}
    numbers = {"name": exhibit.name, "title": exhibit.title, "values": values, "provenance": provenance}
    write_json(folder / "numbers.json", numbers | {"files": list(files)})
    return [folder / name for name in (*files, "numbers.json")]


def _shown(name: str, cells: Sequence[Any]) -> tuple[dict[str, bytes], list[dict[str, str]], dict[str, str]]:
    """What cells show: file name to content, each picture with its description, and the text of each form."""
    files: dict[str, bytes] = {}
    described: list[dict[str, str]] = []
    texts: dict[str, list[str]] = {form: [] for form in TEXTS}
    for cell in cells:
        for output in cell.get("outputs", []):
            shown = {"text/plain": output.text} if output.output_type == "stream" else output.get("data", {})
            form = next((form for form in (*PICTURES, *TEXTS) if form in shown), None)  # others stand in for the first
            if form in PICTURES:
                stem = name + (f"-{len(described) + 1}" if described else "")
                for kept in [kept for kept in PICTURES if kept in shown]:
                    text = shown[kept]
                    files[stem + PICTURES[kept]] = text.encode() if kept == "image/svg+xml" else base64.b64decode(text)
                image = cell.metadata.get("mystnb", {}).get("image", {})
                described.append({"file": stem + PICTURES[form], "alt": image.get("alt", "")})
            elif form:
                texts[form].append(shown[form].strip("\n"))
    joined = {form: "\n\n".join(filter(None, parts)) for form, parts in texts.items()}
    files |= {name + TEXTS[form]: (text + "\n").encode() for form, text in joined.items() if text}
    return files, described, joined


def tables_in(text: str) -> list[dict[str, Any]]:
    r"""The tables in Markdown.

    Returns:
        For each its ``title`` (the last line in bold type above it), and ``columns`` and ``rows`` as a data frame takes
        them: numbers are floats, a mean with its spread a dict of ``mean`` and ``std``, an empty cell None.

    Example:
        >>> tables_in("| map | IoU |\n| --- | ---: |\n| merged | 29.7 ± 1.6 |")
        [{'title': '', 'columns': ['map', 'IoU'], 'rows': [['merged', {'mean': 29.7, 'std': 1.6}]]}]
    """
    tables = []
    for block in re.finditer(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        title = ["", *re.findall(r"^\*\*.+", text[: block.start()], re.MULTILINE)][-1].replace("**", "")
        lines = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block[0].splitlines()]
        columns, _, *rows = [[cell.strip() for cell in line] for line in lines]
        tables.append({"title": title, "columns": columns, "rows": [[_value(cell) for cell in row] for row in rows]})
    return tables


def _value(cell: str) -> Any:
    """What a cell says: a number, a mean with its spread, None where nothing stands, else its text."""
    number = r"([-+]?\d+(?:\.\d+)?)"
    if numbers := re.fullmatch(f"{number}(?: ± {number})?", cell):
        mean, std = numbers.groups()
        return float(mean) if std is None else {"mean": float(mean), "std": float(std)}
    return None if cell in ("", "-", "NaN") else cell
