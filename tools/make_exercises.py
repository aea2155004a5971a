"""Make the exercise notebooks that students get from those that hold the solutions.

``exercises/source`` is written by hand, with nbgrader's markers and cell metadata; ``exercises/release`` is made from
it the way ``nbgrader generate_assignment`` does: solutions become stubs, hidden tests go, outputs are cleared.

Example:
    python tools/make_exercises.py            # write exercises/release
    python tools/make_exercises.py --check    # only say whether it is up to date; exit status 1 where it is not
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

EXERCISES = Path(__file__).resolve().parents[1] / "exercises"
CODE_STUB = ("# YOUR CODE HERE", "raise NotImplementedError()")
TEXT_STUB = "YOUR ANSWER HERE"
# How the site shows a solution: folded, under a prompt of its own.
SITE_TAG, SITE_METADATA = "hide-input", "mystnb"


class ExerciseError(ValueError):
    """A source notebook whose markers or metadata are wrong; the message names file and cell."""


def without_region(text: str, kind: str, stub: tuple[str, ...] = ()) -> tuple[str, bool]:
    r"""Replace every region between ``### BEGIN kind`` and ``### END kind``, markers included.

    Args:
        text: of a cell.
        kind: ``"SOLUTION"`` or ``"HIDDEN TESTS"``.
        stub: lines that take a region's place, indented as its first marker is.

    Returns:
        The text, and whether there was a region.

    Raises:
        ExerciseError: a region inside another one, or a marker without its partner.

    Example:
        >>> without_region("def f():\n  # BEGIN SOLUTION\n  return 1\n  # END SOLUTION", "SOLUTION", ("...",))
        ('def f():\n  ...', True)
    """
    kept, inside, replaced = [], False, False
    for line in text.split("\n"):
        if f"BEGIN {kind}" in line or f"END {kind}" in line:
            begins = f"BEGIN {kind}" in line
            if begins == inside:
                raise ExerciseError(f"{line.strip()!r} without its partner")
            inside, replaced = begins, True
            if begins:
                indent = line[: len(line) - len(line.lstrip())]
                kept += [indent + each for each in stub]
        elif not inside:
            kept.append(line)
    if inside:
        raise ExerciseError(f"'### BEGIN {kind}' without its partner")
    return "\n".join(kept), replaced


def student_cell(cell: NotebookNode) -> NotebookNode:
    """A cell as students get it.

    Args:
        cell: of a source notebook; it is left as it is.

    Returns:
        A new cell.

    Raises:
        ExerciseError: wrong markers, or markers in a cell whose metadata does not announce them.
    """
    cell = nbformat.from_dict(cell)
    grading = cell.metadata.get("nbgrader", {})
    cell.source, solved = without_region(cell.source, "SOLUTION", CODE_STUB)
    cell.source, hidden = without_region(cell.source, "HIDDEN TESTS")
    if solved and not grading.get("solution"):
        raise ExerciseError("a solution in a cell that is no solution cell")
    if hidden and not grading.get("grade"):
        raise ExerciseError("hidden tests in a cell that is not graded")
    if grading.get("solution") and not solved:  # the whole cell is the solution
        cell.source = TEXT_STUB if cell.cell_type == "markdown" else "\n".join(CODE_STUB)
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = [], None
    cell.metadata.pop(SITE_METADATA, None)
    tags = [tag for tag in cell.metadata.pop("tags", []) if tag != SITE_TAG]
    if tags:
        cell.metadata["tags"] = tags
    return cell


def student_version(path: Path) -> str:
    """The student's notebook, as the text of its file.

    Args:
        path: of a source notebook.

    Raises:
        ExerciseError: see :func:`student_cell`; the message names the file and the cell.
    """
    notebook = nbformat.read(path, as_version=4)
    cells = []
    for cell in notebook.cells:
        try:
            cells.append(student_cell(cell))
        except ExerciseError as error:
            raise ExerciseError(f"{path}, cell {cell.id!r}: {error}") from None
    notebook.cells = cells
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1) + "\n"


def stale(exercises: Path = EXERCISES, write: bool = False) -> list[Path]:
    """Which student notebooks differ from what their sources give.

    Args:
        exercises: the folder of ``source`` and ``release``.
        write: bring them up to date, too: write what differs, delete what has no source.

    Returns:
        The files that differ, are missing, or have no source.

    Raises:
        ExerciseError: a source with wrong markers, or no source at all.
    """
    sources = sorted((exercises / "source").glob("*.ipynb"))
    if not sources:
        raise ExerciseError(f"{exercises / 'source'} holds no notebook")
    release = exercises / "release"
    wanted = {release / path.name: student_version(path) for path in sources}
    present = {path: path.read_text(encoding="utf-8") for path in release.glob("*.ipynb")}
    differing = sorted(path for path in wanted.keys() | present.keys() if wanted.get(path) != present.get(path))
    if write:
        release.mkdir(exist_ok=True)
        for path in differing:
            if path in wanted:
                path.write_text(wanted[path], encoding="utf-8")
            else:
                path.unlink()
    return differing


def main() -> None:
    """Command line: write, or only ``--check``."""
    parser = argparse.ArgumentParser(description="Make exercises/release from exercises/source.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 where a file is stale")
    check = parser.parse_args().check
    try:
        differing = stale(write=not check)
    except ExerciseError as error:
        sys.exit(str(error))
    for path in differing:
        print(path.relative_to(EXERCISES.parent), "is stale" if check else "brought up to date")
    if check and differing:
        sys.exit("run python tools/make_exercises.py, and commit what it writes")


if __name__ == "__main__":
    main()
