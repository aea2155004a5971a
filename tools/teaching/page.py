"""One page that holds everything it shows: text from Markdown, figures out of chapters, equations set by MathJax."""

from __future__ import annotations

import base64
import io
import re
from functools import cache
from html import escape
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import nbformat
from fill_results import filled
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ROOT / "book" / "teaching"
STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
FIGURE = re.compile(r"^!\[([^\]]*)\]\(notebooks/(\d\d)#([\w-]+)\)$", re.MULTILINE)
COMMENT = re.compile(r"<!--.*?-->\n?", re.DOTALL)
TALL = 1.3  # a picture with less width than that to its height stands beside a slide's text
MATHJAX = "sphinx-mathjax-offline/static/mathjax/tex-svg.js"


class FigureError(ValueError):
    """A figure that is not in its chapter; the message names both."""


def source(name: str) -> str:
    """A text of ``book/teaching``, its numbers filled in from ``results/``, without the markers."""
    return COMMENT.sub("", filled((TEXTS / name).read_text(encoding="utf-8")))


@cache
def cells_of(number: str) -> list[Any]:
    """The cells of a chapter, by its number of two digits."""
    (path,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    return nbformat.read(path, as_version=4).cells


def cell_of(number: str, name: str) -> Any:
    """A chapter's first code cell with an id, or a tag such as ``figure-5``, that shows something.

    Raises:
        FigureError: there is none.
    """
    for cell in cells_of(number):
        if cell.cell_type == "code" and name in (cell.id, *cell.metadata.get("tags", [])) and cell.outputs:
            return cell
    raise FigureError(f"chapter {number} has no cell {name!r} with an output")


def shown(number: str, name: str) -> str:
    """What a cell shows, as HTML: its pictures, its tables, its diagrams.

    Raises:
        FigureError: it shows none.
    """
    cell, parts = cell_of(number, name), []
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    for data in (output.get("data", {}) for output in cell.outputs):
        kind = next((kind for kind in ("image/png", "image/jpeg") if kind in data), None)
        if kind:
            code = "".join(data[kind].split())
            width, height = Image.open(io.BytesIO(base64.b64decode(code))).size
            shape = ' class="tall"' if width < TALL * height else ""
            parts.append(f'<img{shape} src="data:{kind};base64,{code}" alt="{escape(alt)}">')
        elif "text/html" in data:
            parts.append(data["text/html"])
        elif "text/markdown" in data:
            parts.append(MARKDOWN.render(data["text/markdown"]))
    if not parts:
        raise FigureError(f"cell {name!r} of chapter {number} shows no figure and no table")
    return "\n".join(parts)


def figure(place: re.Match[str]) -> str:
    """A figure in place of a reference: what the cell shows, and a caption that says what to see."""
    caption, number, name = place.groups()
    inner = "\n".join(filter(None, shown(number, name).split("\n")))  # an empty line would end the HTML
    said = MARKDOWN.renderInline(caption)
    return f'<figure data-cell="{name}">\n{inner}\n<figcaption>{said}</figcaption></figure>\n'


def _markdown() -> MarkdownIt:
    """CommonMark with tables and equations, which MathJax sets."""
    renderer = MarkdownIt("commonmark", {"html": True}).enable("table")
    return renderer.use(
        dollarmath_plugin,
        renderer=lambda text, options: escape(
            rf"\[{text}\]" if options["display_mode"] else rf"\({text}\)", quote=False
        ),
    )


MARKDOWN = _markdown()


def to_html(text: str) -> str:
    """Markdown as HTML, references to figures replaced by the figures."""
    return MARKDOWN.render(FIGURE.sub(figure, text))


@cache
def mathjax() -> str:
    """The script that sets equations, which the site's own build brings along, with its fonts inside."""
    script = Path(str(distribution("sphinx-mathjax-offline").locate_file(MATHJAX)))
    settings = "window.MathJax = {svg: {fontCache: 'local'}, options: {enableMenu: false}};"
    return f"<script>{settings}</script>\n<script>{in_script(script.read_text(encoding='utf-8'))}</script>"


def in_script(code: str) -> str:
    """Code as it may stand between ``<script>`` and ``</script>``."""
    return code.replace("</script", r"<\/script")


def page(title: str, body: str, head: str = "", tail: str = "") -> str:
    """A whole page.

    Args:
        title: of the window.
        body: HTML, see :func:`to_html`.
        head: more for the head: styles.
        tail: more behind the text: scripts.
    """
    equations = mathjax() if 'class="math' in body else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>\n{STYLE}</style>\n{head}</head>\n<body>\n<main>\n{body}</main>\n{tail}{equations}\n</body>\n</html>\n"
    )
