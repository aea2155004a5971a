"""Try the course of the teaching pack as nbgrader grades it: reference answers get all points, open notebooks none.

It needs nbgrader, which the library does not: ``python -m pip install nbgrader`` in the environment that runs this.

Example:
    python tools/try_course.py _build/teaching/course               # all assignments: some minutes
    python tools/try_course.py _build/teaching/course annotations
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

REFERENCE, OPEN = "reference", "open"  # two students: one hands in the solutions, one the notebook as it was handed out


class Grade(NamedTuple):
    """What nbgrader gave one student for one assignment."""

    assignment: str
    student: str
    points: float  # by the tests
    of: float
    written_of: float  # by hand
    feedback: bool  # there is a page of it

    @property
    def right(self) -> bool:
        """Whether it is what that student must get."""
        return self.feedback and self.of > 0 and self.points == (self.of if self.student == REFERENCE else 0)


def nbgrader(course: Path, *words: str) -> None:
    """Run nbgrader in a course; what it prints is shown where it fails.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run([sys.executable, "-m", "nbgrader", *words], cwd=course, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nbgrader {' '.join(words)} failed:\n{(done.stdout + done.stderr)[-4000:]}")


def graded(course: Path, assignment: str) -> list[Grade]:
    """Hand out an assignment, hand it in for both students, grade it, and give feedback."""
    from nbgrader.api import Gradebook

    nbgrader(course, "generate_assignment", assignment, "--force")
    for student, handed_in in ((REFERENCE, "source"), (OPEN, "release")):
        submitted = course / "submitted" / student / assignment
        shutil.copytree(course / handed_in / assignment, submitted, dirs_exist_ok=True)
    nbgrader(course, "autograde", assignment, "--force")
    nbgrader(course, "generate_feedback", assignment, "--force")
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        return [
            Grade(
                assignment,
                submission.student_id,
                submission.code_score,
                submission.max_code_score,
                submission.max_written_score,
                any((course / "feedback" / submission.student_id / assignment).glob("*.html")),
            )
            for submission in book.assignment_submissions(assignment)
        ]


def table(grades: Sequence[Grade]) -> str:
    """The grades as Markdown."""
    lines = [
        "| assignment | student | by tests | of | by hand, of | feedback | as it must be |",
        "|---|---|---:|---:|---:|---|---|",
    ]
    for grade in grades:
        said = ["yes" if yes else "NO" for yes in (grade.feedback, grade.right)]
        numbers = [f"{value:g}" for value in (grade.points, grade.of, grade.written_of)]
        lines.append("| " + " | ".join([grade.assignment, grade.student, *numbers, *said]) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Grade reference answers and open notebooks with nbgrader.")
    parser.add_argument("course", type=Path, help="a folder that `make teaching` laid out; it stays as it is")
    parser.add_argument("assignments", nargs="*", help="default: all")
    args = parser.parse_args()
    if importlib.util.find_spec("nbgrader") is None:
        print("nbgrader is not installed here: python -m pip install nbgrader", file=sys.stderr)
        return 2
    grades: list[Grade] = []
    with tempfile.TemporaryDirectory() as folder:
        course = Path(shutil.copytree(args.course, Path(folder) / "course")).resolve()
        for assignment in args.assignments or sorted(path.name for path in (course / "source").iterdir()):
            grades += graded(course, assignment)
            print(f"{assignment}: graded", flush=True)
    print(table(grades))
    return int(not all(grade.right for grade in grades))


if __name__ == "__main__":
    sys.exit(main())
