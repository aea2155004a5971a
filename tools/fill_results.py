"""Write the measured numbers into the pages that state them, from ``results/*.json``.

A page marks a place with ``<!-- results: NAME -->`` and ``<!-- end -->``; what stands between them is made here, by the
function of that name in ``tools/pages/``, or from the file of that name where it begins with ``table_``. Within a
sentence, ``<!-- result: FILE PATH -->`` and ``<!-- / -->`` enclose one number of ``results/FILE.json``: PATH leads to
it through keys, and through the titles of a table's rows and the texts of its claims, as in
``values/rows/merged/mean/iou``.

Beside the pages, it writes the ledger's table as a file, and the figures of ``tools/pages/figures.py``.

    python tools/fill_results.py            # write
    python tools/fill_results.py --check    # exit 1 where a page and the results differ
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from pages import claims, costs, families, figures, last_run, maps, models, segmentation, stored, svg

from dsna_lib.tables.render import cell, render_table

PAGES = (
    "README.md",
    "book/intro.md",
    "book/results.md",
    "book/appendix.md",
    "book/claims.md",
    "book/decisions.md",
    "book/status.md",
    "book/kinds_of_help.md",
    *(f"book/families/{name}.md" for name in ("interactive", "external", "labels_alone")),
    "dsna_lib/checkpoints/MODEL_CARD.md",
    "book/teaching/answers.md",
    "book/teaching/report.md",
    *(f"book/teaching/session-{number}.md" for number in (1, 3, 4, 5, 6)),
)
BLOCKS: dict[str, Callable[[], str]] = (
    maps.BLOCKS | models.BLOCKS | segmentation.BLOCKS | claims.BLOCKS | costs.BLOCKS | last_run.BLOCKS | families.BLOCKS
)
BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NUMBER = re.compile(r"(<!-- result: ([\w-]+) ([^>]+?) -->).*?(<!-- / -->)", re.DOTALL)


def block(name: str) -> str:
    """What stands at a place, and a line below it where numbers are older than the library."""
    with stored.recorded() as files:
        text = render_table(stored.values(name)) if name.startswith("table_") else BLOCKS[name]()
    return "\n".join(filter(None, (text, stored.note_of_age(files))))


def number(file: str, path: str) -> str:
    """One number of a file of results, as it stands within a sentence.

    Raises:
        KeyError: the path leads nowhere.
    """
    value: Any = stored.read(file)
    for key in path.split("/"):
        if isinstance(value, list):
            value = {row.get("title", row.get("text")): row for row in value}
        value = value[key]
    return f"{value:,}" if isinstance(value, int) else cell(value)


def filled(text: str) -> str:
    """A page's text with every block and number made anew."""
    text = BLOCK.sub(lambda place: f"{place[1]}\n{block(place[2])}\n{place[3]}", text)
    return NUMBER.sub(lambda place: place[1] + number(place[2], place[3]) + place[4], text)


def same(path: str, old: str, new: str) -> bool:
    """Whether a file states what is stored. A figure says what it was drawn from; versions may draw it otherwise."""
    return svg.drawn_from(old) == svg.drawn_from(new) if path.endswith(".svg") else old == new


def main() -> int:
    """Run from the command line; returns the exit code."""
    check = "--check" in sys.argv
    made = {page: filled((stored.ROOT / page).read_text(encoding="utf-8")) for page in PAGES}
    made |= {"book/claims.csv": claims.claims_csv()} | figures.files()
    stale = []
    for name, text in made.items():
        path = stored.ROOT / name
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not same(name, old, text):
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    for name in stale:
        print(f"{name}: {'differs from results/' if check else 'filled'}")
    return int(bool(stale) and check)


if __name__ == "__main__":
    sys.exit(main())
