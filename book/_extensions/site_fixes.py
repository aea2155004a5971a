"""What the published pages need and neither Jupyter Book nor its theme gives them.

A Sphinx extension, named in ``_config.yml``. Each part takes away one defect that a browser or a screen reader meets;
``tests/test_browser.py`` finds them again when it is missing.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx_thebe import init_thebe_core, update_thebe_context

CELL = re.compile(r"<td.*?</td>", re.DOTALL)
NAME = re.compile(r"""(<span class="pre">)([^<]*)(</span>)""")
JOINT = re.compile(r"(?<=\w)([._/])(?=\w)")


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


def mend_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Correct the HTML of one page before it goes into its template.

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
        context["body"] = CELL.sub(lambda cell: NAME.sub(breakable, cell[0]), body)


def breakable(name: re.Match) -> str:
    """Code in a cell of a table, with places where it may break: after a dot, an underscore or a slash in a name.

    Otherwise a column of names takes the width from all others.

    Args:
        name: what :data:`NAME` found.
    """
    return name[1] + JOINT.sub(r"\1<wbr>", name[2]) + name[3]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension with Sphinx.

    Args:
        app: The application that loads it.

    Returns:
        That files may be read and written in parallel.
    """
    without_thebe(app)
    app.connect("html-page-context", mend_page)
    # On a first visit nothing is stored, and the theme reports the empty mode as an error. Naming the mode in the
    # HTML instead (`default_mode`) would leave readers without JavaScript with a page without colors.
    app.add_js_file(None, body='document.documentElement.dataset.mode ||= "auto"', priority=0)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
