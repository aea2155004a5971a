"""Slides of a session: one page that is shown with reveal.js, and printed, with its notes, without it.

A session is a text of ``book/teaching``: slides between lines of ``---``, each ending with ``Notes (5 min): ...``. A
figure is named by chapter and cell, ``![what to see](notebooks/04#04-24)``, or by the tag of its cell, such as
``figure-5``; a number is a marker, see ``tools/fill_results.py``.
"""

from __future__ import annotations

import io
import re
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from npm_package import NotToBeHadError, Package, fetch

from teaching.page import TEXTS, in_script, page, source, to_html

REVEAL = Package(
    "reveal.js",
    "5.2.1",
    "sha512-r7//6mIM5p34hFiDMvYfXgyjXqGRta+/psd9YtytsgRlrpRzFv4RbH76TXd2qD+7ZPZEbpBDhdRhJaFgfQ7zNQ==",
)
PARTS = ("dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js")
SHOW = (Path(__file__).parent / "show.css").read_text(encoding="utf-8")
NOTES = re.compile(r"^Notes \((\d+) min\): ", re.MULTILINE)
PREDICTION = re.compile(r"^> \*\*Predict\.\*\*.*\n\n", re.MULTILINE)
# A presentation, unless the address ends with ?print.
START = """
if (location.search !== "?print") {
  document.querySelectorAll("style[data-show]").forEach((style) => { style.media = "all"; });
  document.querySelector("main").className = "reveal";
  Reveal.initialize({
    width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t", controls: false,
    transition: "none", defaultTiming: null, plugins: [RevealNotes] });
}
"""


@dataclass(frozen=True)
class Slide:
    """One slide: its text as Markdown, what its teacher says, and how many minutes it takes."""

    text: str
    notes: str
    minutes: int


def sessions() -> list[str]:
    """The names of the sessions' texts."""
    return sorted(path.name for path in TEXTS.glob("session-*.md"))


def slides_of(text: str) -> list[Slide]:
    """The slides of a session.

    Raises:
        ValueError: a slide without notes; the message names it.
    """
    slides = []
    for part in re.split(r"^---$", text, flags=re.MULTILINE):
        said = NOTES.search(part)
        if said is None:
            raise ValueError(f"the slide {part.strip().splitlines()[0]!r} needs a line 'Notes (5 min): ...' at its end")
        slides.append(Slide(part[: said.start()].strip(), part[said.end() :].strip(), int(said[1])))
    return slides


@cache
def reveal() -> dict[str, str] | None:
    """The files of reveal.js that the slides need; None where they cannot be had, and then it says why."""
    try:
        with tarfile.open(fileobj=io.BytesIO(fetch(REVEAL))) as archive:
            files = {name: archive.extractfile(f"package/{name}") for name in PARTS}
            return {name: file.read().decode() for name, file in files.items() if file}
    except NotToBeHadError as error:
        print(f"The slides are pages to print, without a presentation: {error}")
        return None


def slide_html(text: str) -> str:
    """A slide as HTML. What follows a prediction comes with the next key."""
    asked = PREDICTION.search(text)
    if asked is None:
        return to_html(text)
    return f'{to_html(text[: asked.end()])}<div class="fragment">\n{to_html(text[asked.end() :])}</div>\n'


def slides_page(name: str) -> str:
    """A session as a page."""
    slides = slides_of(source(name))
    sections = [
        f'<section class="slide" data-timing="{60 * slide.minutes}">\n{slide_html(slide.text)}'
        f'<aside class="notes"><p><strong>{slide.minutes} min.</strong></p>\n{to_html(slide.notes)}</aside>\n</section>'
        for slide in slides
    ]
    title, shown = slides[0].text.splitlines()[0].lstrip("# "), reveal()
    if shown is None:
        return page(title, "\n\n".join(sections))
    styles = [code for file, code in shown.items() if file.endswith(".css")] + [SHOW]
    scripts = [code for file, code in shown.items() if file.endswith(".js")] + [START]
    return page(
        title,
        '<div class="slides">\n' + "\n\n".join(sections) + "\n</div>",
        head="".join(f'<style data-show media="not all">\n{code}</style>\n' for code in styles),
        tail="".join(f"<script>{in_script(code)}</script>\n" for code in scripts),
    )


def write_slides(folder: Path) -> None:
    """Write all sessions."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sessions():
        (folder / name).with_suffix(".html").write_text(slides_page(name), encoding="utf-8")
