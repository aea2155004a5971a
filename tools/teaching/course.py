"""A course for nbgrader, and the keys of its written answers, from the notebooks of ``exercises/source``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import nbformat

from teaching.page import ROOT, page, to_html

SOURCE = ROOT / "exercises" / "source"
# The name of each chapter's assignment, in the order of the chapters.
ASSIGNMENTS = (
    "labels",
    "classifier",
    "attention",
    "decoupled",
    "training",
    "maps",
    "annotations",
    "ablations",
    "rivals",
    "segmentation",
    "help",
    "outlook",
)
CONFIG = '''"""The course's settings. nbgrader reads them where it is started in this folder."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "dsna"
c.CourseDirectory.db_url = "sqlite:///gradebook.db"  # nbgrader makes it with the first assignment
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__"]
c.ExecutePreprocessor.timeout = 600  # seconds a cell; on a busy machine, the first import takes one of these minutes
'''


def notebooks() -> dict[str, Path]:
    """The notebook of each assignment.

    Raises:
        ValueError: there are more or fewer notebooks than names.
    """
    return dict(zip(ASSIGNMENTS, sorted(SOURCE.glob("*.ipynb")), strict=True))


def write_course(folder: Path) -> None:
    """Lay out the course: nbgrader's configuration, the assignments, and the keys to grade by."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    for name, notebook in notebooks().items():
        place = folder / "source" / name
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(notebook, place)
    (folder / "keys.html").write_text(page("Keys of the written answers", to_html(keys())), encoding="utf-8")


def keys() -> str:
    """Every written question with the answer that gets its point, as Markdown."""
    parts = [
        "# Keys of the written answers",
        "An answer gets the point when it says what the first sentences of the key say, in any words, and gives the "
        "reason; a bare yes or no gets none. Where the key names a number, its order of magnitude and direction count.",
    ]
    for name, path in notebooks().items():
        parts.append(f"## {name.capitalize()} (`{path.name}`)")
        parts += [f"{question}\n\n> {answer}" for question, answer in written(path)]
    return "\n\n".join(parts)


def written(path: Path) -> Iterator[tuple[str, str]]:
    """The written questions of a notebook, each with its points, and their reference answers, quoted."""
    cells = nbformat.read(path, as_version=4).cells
    for task, cell in pairwise(cells):
        grading = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown" and grading.get("grade"):
            answer = cell.source.partition("</summary>")[2].rpartition("</details>")[0].strip() or cell.source
            points = f"{grading['points']} point{'s' * (grading['points'] != 1)}"
            yield f"{task.source} *({points})*", answer.replace("\n", "\n> ")
