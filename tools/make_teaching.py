"""Build the pack to teach from: slides, worksheets, answers, a sample report, a course for nbgrader, photographs.

``make teaching`` calls this. It runs no chapter: figures are those that the notebooks store.

Example:
    python tools/make_teaching.py _build/teaching
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from teaching.course import write_course
from teaching.page import page, source, to_html
from teaching.photographs import write_photographs
from teaching.slides import write_slides
from teaching.worksheets import write_worksheets

TEXTS = {"answers": "Questions for discussion, answered", "report": "A sample report, and its grading"}


def make(folder: Path) -> None:
    """Write the whole pack into a folder, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    write_slides(folder / "slides")
    write_worksheets(folder / "worksheets")
    for name, title in TEXTS.items():
        (folder / f"{name}.html").write_text(page(title, to_html(source(f"{name}.md"))), encoding="utf-8")
    write_course(folder / "course")
    write_photographs(folder / "photographs")


def main() -> None:
    """Make the folder that is named, and say where it lies."""
    folder = Path((sys.argv[1:] or ["_build/teaching"])[0])
    make(folder)
    print(f"The pack is ready: {folder}. Begin with {folder / 'slides' / 'session-1.html'}")


if __name__ == "__main__":
    main()
