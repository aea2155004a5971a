"""What the published pages need and neither Jupyter Book nor its theme gives them.

A Sphinx extension, named in ``_config.yml``. Each part takes away one defect that a browser, a screen reader or a
search engine meets; ``tests/test_browser.py`` and ``tests/test_site.py`` find them again when it is missing.
"""

import json
import re
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any

from docutils import nodes
from markupsafe import Markup
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx_thebe import init_thebe_core, update_thebe_context

CELL = re.compile(r"<td.*?</td>", re.DOTALL)
NAME = re.compile(r"""(<span class="pre">)([^<]*)(</span>)""")
JOINT = re.compile(r"(?<=\w)([._/])(?=\w)")
SIGNATURE = re.compile(r'<span class="sig-(?:prename descclassname|name descname)">.*?</span></span>')
HEADING = re.compile(r"<h[1-6]>[^<]*")
HEADING_JOINT = re.compile(r"(?<=[a-z])([._])(?=[a-z])")
OPTION = re.compile(r'<span class="pre">(?=-[^<]{1,27}</span>)')
# What stands at both sides of such a space is read as one: chapter 7, Eq. 11, 5 %, 45.6 ± 1.0, 52.0 / 71.9, p 0.019.
FIRM = re.compile(
    r"(\b(?:[Cc]hapters?|[Ff]igures?|[Tt]ables?|Eq\.|p)|±) (?=[\dIVX<])|(\d) (?=[%±])|([\d-]) / (?=[\d-])"
)
APPLICATION = re.compile(r"^```\{raw\} html$.*?^```$", re.DOTALL | re.MULTILINE)
NO_APPLICATION = (
    "**This copy of the site comes without the networks and what runs them in a browser: `make book` fetches and makes "
    "them, or says what it lacks.** `dsna annotate` and `dsna segment` do the same on your own machine."
)
TO_FILL_IN = re.compile(r"\[([^][]*)\]\((\.\./exercises/release/[^)]*\.ipynb)\)")
HIDDEN_TESTS = re.compile(r"^\s*### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS\n?", re.DOTALL | re.MULTILINE)
SCRIPT = r'<script[^>]* src="[^"]*(?:{})\.js[^"]*"></script>\s*'
ICON_SCRIPT = re.compile(SCRIPT.format("fontawesome"))
SEARCH_SCRIPTS = re.compile(SCRIPT.format("searchtools|language_data|searchindex"))
ICON = re.compile(r'<(?:i|span) (?=class="[^"]*\bfa-)')
# The book's own figure, for whoever shows a link with a picture.
PICTURE = "_static/pipeline.png"
PICTURE_ALT = "Pictures, their attention maps, and the pseudo-annotations made from them"


def without_thebe(app: Sphinx) -> None:
    """Leave out thebe, which runs cells on somebody else's server.

    Jupyter Book always loads it, although no button of this book calls it: its settings come twice in every page, which
    is an error in the browser's console, and they name the only outside address of the site.

    Args:
        app: The application whose extensions are loaded.
    """
    for listeners in app.events.listeners.values():
        for listener in [*listeners]:
            if listener.handler in (init_thebe_core, update_thebe_context):
                app.disconnect(listener.id)


def mathjax_without_menu(app: Sphinx, config: Config) -> None:
    """Load MathJax in parts: the bundle for TeX has a menu in it that is a third of its size.

    Equations for screen readers (MathML) come with the menu otherwise, so they are asked for.

    Args:
        app: The application.
        config: Changed in place.
    """
    config.mathjax_path = "mathjax/startup.js"
    config.mathjax3_config = {"loader": {"load": ["input/tex", "output/chtml", "a11y/assistive-mml"]}}


def without_hidden_tests(app: Sphinx, page: str, source: list[str]) -> None:
    """Leave hidden tests out of the pages of exercises, as ``tools/make_exercises.py`` does for students.

    Args:
        app: The application.
        page: Name of the page.
        source: The text of its file; changed in place.
    """
    if page.startswith("exercises/"):
        source[0] = with_cells(source[0], lambda text: HIDDEN_TESTS.sub("", text).rstrip())


def with_downloads(app: Sphinx, page: str, source: list[str]) -> None:
    """Let chapters link the exercises that students fill in: these are no pages, so that the link gives the file.

    Args:
        app: The application.
        page: Name of the page.
        source: The text of its file; changed in place.
    """
    if page.startswith("notebooks/"):
        source[0] = with_cells(source[0], lambda text: TO_FILL_IN.sub(r"{download}`\1 <\2>`", text))


def with_cells(notebook: str, change: Callable[[str], str]) -> str:
    """A notebook's text with the text of each cell changed; what is a bracket or a quote in JSON stays out of it."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        cell["source"] = change("".join(cell["source"]))
    return json.dumps(content)


def without_application(app: Sphinx, page: str, source: list[str]) -> None:
    """Leave the interactive part out of the page *Try it* where ``tools/try_it.py`` did not make what it loads.

    Args:
        app: The application.
        page: Name of the page.
        source: The text of its file; changed in place.
    """
    if page == "book/try_it" and not Path(app.srcdir, "book/_static/try_it/parts.json").is_file():
        source[0] = APPLICATION.sub(NO_APPLICATION, source[0])


def more_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, str], str]]:
    """The page that GitHub Pages shows at addresses where nothing is.

    Args:
        app: The application.

    Yields:
        Its name, what its template is filled with, and the template.
    """
    start = f'<a href="{app.config.root_doc}.html">introduction</a>'
    text = f"There is no page at this address. The {start}, the menu and the search lead on."
    body = f"<section><h1>Page not found</h1><p>{text}</p></section>"
    yield "404", {"title": "Page not found", "body": body}, "page.html"


def with_firm_spaces(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Let no line end between a number and its unit, its spread or what it counts; code and equations stay as they are.

    Args:
        app: The application.
        doctree: The page as a tree; changed in place.
        page: Its name.
    """
    kept = (nodes.literal, nodes.FixedTextElement, nodes.math, nodes.math_block, nodes.raw, nodes.comment)
    for text in [*doctree.findall(nodes.Text)]:
        firm = FIRM.sub(lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
        if firm != text and not isinstance(text.parent, kept):
            text.parent.replace(text, nodes.Text(firm))


def described(doctree: nodes.document) -> str:
    """The first paragraph of a page, up to an equation, in at most 200 letters; empty where a page has none.

    Args:
        doctree: The page as a tree.
    """
    for paragraph in doctree.findall(nodes.paragraph):
        if isinstance(paragraph.parent, nodes.section):
            words = "".join("\0" if isinstance(node, nodes.math) else node.astext() for node in paragraph.children)
            text, equation, _ = words.partition("\0")
            return shorten(text[: text.rfind(". ") + 1] if equation else text, 200, placeholder=" ...")
    return ""


def card(title: str, text: str, picture: str, address: str = "") -> str:
    """What search engines and messengers show of a page, as lines for its head.

    Args:
        title: Of the page.
        text: A description of it.
        picture: Address of the picture.
        address: Of the page; empty where the site's address is not known.
    """
    properties = {"og:type": "article", "og:title": title, "og:description": text, "og:url": address}
    properties |= {"og:image": picture, "og:image:alt": PICTURE_ALT}
    lines = [
        f'<meta property="{name}" content="{escape(content)}" />' for name, content in properties.items() if content
    ]
    names = {"description": text, "twitter:card": "summary_large_image"}
    lines += [f'<meta name="{name}" content="{escape(content)}" />' for name, content in names.items()]
    return "\n".join(["", *lines])


def mend_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Correct the HTML of one page before it goes into its template, and say in its head what it is.

    Args:
        app: The application.
        page: Name of the page, such as ``book/intro``.
        template: Name of its template.
        context: What the template is filled with; changed in place.
        doctree: The page as a tree; None for pages that are not written by hand, such as the search.
    """
    if "body" in context:
        # `doc-biblioentry` is deprecated, and a list that has such children counts as a list without items.
        body = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')
        body = CELL.sub(lambda cell: NAME.sub(breakable, cell[0]), body)
        # On a phone names of the library would break anywhere; a name comes after the dot of its module.
        body = SIGNATURE.sub(lambda part: NAME.sub(breakable, part[0]).replace(".</span>", ".<wbr></span>"), body)
        body = HEADING.sub(lambda head: HEADING_JOINT.sub(r"\1<wbr>", head[0]), body)
        # A line would end after the hyphens of an option.
        context["body"] = OPTION.sub('<span class="pre option">', body)
    if page == "search":
        # Deferred: after the search itself, which it corrects.
        app.add_js_file("search.js", loading_method="defer")
    site = app.config.html_baseurl
    # Pages without a text of their own, such as the search, are described as the book is.
    text = (doctree and described(doctree)) or described(app.env.get_doctree(app.config.root_doc))
    picture = site + PICTURE if site else context["pathto"](PICTURE, 1)
    # The search has its title in its template.
    title = Markup(context.get("title") or app.config.html_title).striptags()
    tags = card(title, text, picture, site and f"{site}{page}.html")
    if page == "404" and site:
        # It is shown at addresses of any depth, where nothing relative leads anywhere.
        tags = f'\n<base href="{site}" />{tags}'
    context["metatags"] = context.get("metatags", "") + tags


def lighten(app: Sphinx, failure: Exception | None) -> None:
    """Take out of the pages what the theme loads with each, and they do not use.

    Its icons are in its style sheet, too, so the script of a megabyte and a half that draws them again can go, and what
    it hides from screen readers is marked. The index of the search is used by the search page alone.

    Args:
        app: The application.
        failure: Why the build failed; None where it did not.
    """
    for path in [] if failure else Path(app.outdir).rglob("*.html"):
        text = ICON_SCRIPT.sub("", path.read_text())
        if path.name != "search.html":
            text = SEARCH_SCRIPTS.sub("", text)
        path.write_text(ICON.sub(r'\g<0>aria-hidden="true" ', text))


def breakable(name: re.Match) -> str:
    """Code in a cell of a table or a signature, with places where it may break: after a dot, an underscore or a slash.

    Otherwise a column of names takes the width from all others.

    Args:
        name: what :data:`NAME` found.
    """
    return name[1] + JOINT.sub(r"\1<wbr>", name[2]) + name[3]


def write_front_door(app: Sphinx, failure: Exception | None) -> None:
    """Write the page at the root, which leads to the introduction; with a card, for it is what people link to.

    Args:
        app: The application.
        failure: Why the build failed; None where it did not.
    """
    if failure:
        return
    title, site, start = app.config.html_title, app.config.html_baseurl, f"{app.config.root_doc}.html"
    tags = card(title, described(app.env.get_doctree(app.config.root_doc)), site + PICTURE, site)
    head = f'<meta charset="utf-8" /><meta http-equiv="refresh" content="0; url={start}" /><title>{title}</title>{tags}'
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head><body><a href="{start}">{title}</a></body></html>\n'
    (Path(app.outdir) / "index.html").write_text(page)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx.

    Args:
        app: The application that loads it.

    Returns:
        That files may be read and written in parallel.
    """
    without_thebe(app)
    app.connect("config-inited", mathjax_without_menu)
    app.connect("source-read", without_hidden_tests)
    app.connect("source-read", with_downloads)
    app.connect("source-read", without_application)
    app.connect("doctree-resolved", with_firm_spaces)
    app.connect("html-collect-pages", more_pages)
    app.connect("html-page-context", mend_page)
    app.connect("build-finished", lighten)
    app.connect("build-finished", write_front_door)
    # On a first visit nothing is stored, and the theme reports the empty mode as an error. Naming the mode in the
    # HTML instead (`default_mode`) would leave readers without JavaScript with a page without colors.
    app.add_js_file(None, body='document.documentElement.dataset.mode ||= "auto"', priority=0)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
