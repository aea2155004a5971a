"""The site in a real browser: no error, readable on a phone, in the dark and on paper, usable by keyboard, no barriers.

It is served by a plain file server, from a folder below its root, and no other host can be reached.
"""

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect, sync_playwright
from test_site import PAGES

from dsna_lib.book.cells import Cells

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
DESK: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 360, "height": 740}
TABLET: ViewportSize = {"width": 768, "height": 1024}
# A4 at 96 pixels an inch, inside the browser's own margins of 1 cm.
PAPER: ViewportSize = {"width": 718, "height": 1047}
LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
CONTRAST = ["color-contrast", "link-in-text-block"]
AXE = Axe()
SLIDER = 'input[type="range"]'
PLANE = "figure.dsna-cells [data-plane]"

# What cannot be reached by scrolling: parts that stick out of the page with no ancestor that scrolls sideways. An
# equation counts as a whole: within, MathJax clips what only screen readers get, and parts of its braces.
STICKS_OUT = """() => {
  const scrolls = (e) => e && (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
  const out = (e) => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1;
  return [...document.querySelectorAll("article *")]
    .filter((e) => out(e) && (e.matches("mjx-math") || !e.closest("mjx-container")) && !scrolls(e.parentElement))
    .map((e) => e.outerHTML.slice(0, 120));
}"""

# What paper cuts off: contents that are wider than the box they would scroll in, or than the sheet, and pictures
# higher than it.
CUT_ON_PAPER = """(sheet) => {
  const visible = [...document.querySelectorAll("main *")].filter(
    (e) => e.checkVisibility() && (e.matches("mjx-math") || !e.closest("mjx-container")));
  const content = (e) => e.matches(".math") ? e.querySelector("mjx-math").getBoundingClientRect().width : e.scrollWidth;
  const cut = (e) => getComputedStyle(e).overflowX !== "visible" && e.clientWidth && content(e) > e.clientWidth + 5;
  const large = (e) => {
    const box = e.getBoundingClientRect();
    return box.right > sheet.width + 1 || (e.matches("img, svg, canvas") && box.height > sheet.height);
  };
  return visible.filter((e) => cut(e) || large(e)).map((e) => e.outerHTML.slice(0, 120));
}"""

# Runs axe-core; a line for each element that it finds at fault.
BARRIERS = """async ([context, options]) => {
  const { violations } = await axe.run(context ?? document, options);
  return violations.flatMap((rule) => rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 120)}`));
}"""

# The contrast of every word takes minutes a site, and its words have a dozen colors: one word of each is enough. What
# holds neither such a word nor a link is put aside: axe-core measures the place of everything that is shown.
SAMPLE_COLORS = """() => {
  const ground = (e) => {
    const color = e ? getComputedStyle(e).backgroundColor : "none";
    return color === "rgba(0, 0, 0, 0)" ? ground(e.parentElement) : color;
  };
  const seen = new Set();
  for (const e of document.querySelectorAll("body *:not(mjx-container *)")) {
    delete e.dataset.sample;
    const hasText = [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!hasText || !e.checkVisibility() || e.getBoundingClientRect().width < 2) continue;
    const { color, fontSize, fontWeight, opacity } = getComputedStyle(e);
    const kind = [color, ground(e), fontSize, fontWeight, opacity].join();
    if (!seen.has(kind)) e.dataset.sample = "";
    seen.add(kind);
  }
  for (const e of document.querySelectorAll("article :is(pre, p, li, tr, dt, dd, figure, .math)"))
    e.toggleAttribute("data-aside", !e.matches("[data-sample]") && !e.querySelector("[data-sample], a[href]"));
  document.head.append(Object.assign(document.createElement("style"), {
    id: "aside", textContent: "[data-aside] { display: none !important }" }));
}"""
COLORED = {"include": ["[data-sample]", "a[href]"]}

# The theme makes what scrolls reachable by keyboard, a moment after the window's size changed.
SCROLLS_BY_KEYBOARD = """() => [...document.querySelectorAll("article pre, .pst-scrollable-table-container")].every(
  (e) => e.tabIndex === 0 || e.scrollWidth <= e.clientWidth)"""


class Visit:
    """A page that is open, and what the browser had to say while opening it.

    Args:
        page: The page of the browser.
        address: Where it leads to, on the local server.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requested: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        page.on("request", lambda request: self.requested.append(request.url))
        page.goto(address)
        # Until equations are set and fonts are there, nothing has its final size.
        page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready; }")

    def seen(self, viewport: ViewportSize = DESK, media: str = "screen", scheme: str = "light") -> Page:
        """The page under the given conditions, whatever they were before.

        Args:
            viewport: Size of the window in pixels.
            media: ``screen`` or ``print``.
            scheme: ``light`` or ``dark``, as the system of the reader asks for.
        """
        # The size comes last: when it changes, the theme looks what scrolls, and must find the layout that stays.
        self.page.emulate_media(media=media, color_scheme=scheme)
        self.page.set_viewport_size(viewport)
        # Both take a moment: the window its size, the theme the color of the system. The examples below have no theme.
        follows = """([width, scheme]) =>
          innerWidth === width && [scheme, undefined].includes(document.documentElement.dataset.theme)"""
        self.page.wait_for_function(follows, arg=[viewport["width"], scheme], polling=50)
        return self.page


class Quiet(SimpleHTTPRequestHandler):
    """The standard library's file server, without its log."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on a local file server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        reason = "no browser: Chromium is not on the PATH (Debian: apt-get install chromium)"
        # Whoever installs the browser wants to hear that it is missing.
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def home(browser: Browser, html: Path) -> Iterator[str]:
    """The address of the site, one folder below the root of its host, as project pages are published."""
    with served(html.parent) as host:
        yield f"{host}/{html.name}"


@contextmanager
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """A page in a fresh profile: nothing is stored from one visit to the next."""
    # Without motion: a color halfway between light and dark has a contrast that no reader meets.
    with browser.new_context(viewport=DESK, color_scheme="light", reduced_motion="reduce") as context:
        context.set_default_timeout(120_000)
        yield Visit(context.new_page(), address)


# pytest sorts the tests by this fixture: all that looks at one page does so during one visit.
@pytest.fixture(scope="module", params=[*PAGES, "search"])
def opened(request: pytest.FixtureRequest, browser: Browser, home: str) -> Iterator[Visit]:
    with visit(browser, f"{home}/{request.param}.html") as visited:
        yield visited


@pytest.fixture
def example(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A page with the text of the test's parameter, to show that a check finds what it looks for."""
    page = (
        f'<!doctype html><html lang="en"><title>Example</title><main><article>{request.param}</article></main></html>'
    )
    (tmp_path / "example.html").write_text(page)
    with served(tmp_path) as host, visit(browser, f"{host}/example.html") as visited:
        yield visited


def barriers(page: Page, context: dict[str, Any] | None = None, **options: Any) -> list[str]:
    """What axe-core finds wrong, a line each."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.axe_script)
    return page.evaluate(BARRIERS, [context, {"resultTypes": ["violations"], "preload": False, **options}])


def barriers_of_structure(page: Page, but: Sequence[str] = CONTRAST) -> list[str]:
    """Violations of levels A and AA, but for some rules."""
    options = {"runOnly": LEVELS, "rules": {rule: {"enabled": False} for rule in but}}
    page.wait_for_function(SCROLLS_BY_KEYBOARD, polling=50)
    found = barriers(page, **options)
    if found:  # the theme may have looked once more in between; what is at fault stays so
        page.wait_for_timeout(1000)
        found = barriers(page, **options)
    return found


def barriers_of_color(page: Page) -> list[str]:
    """Violations of contrast: one word of each kind on the page, and every link."""
    page.evaluate(SAMPLE_COLORS)
    found = barriers(page, COLORED, runOnly=CONTRAST)
    page.evaluate("document.getElementById('aside').remove()")
    return found


def pictures(slider: Locator) -> list[str]:
    """The pictures that a slider's figure shows now."""
    shown = "e => [...e.closest('figure').querySelectorAll('img')].filter(i => i.checkVisibility()).map(i => i.src)"
    return slider.evaluate(shown)


def answers_to_keys(slider: Locator) -> bool:
    """Whether the arrow key changes what a slider shows, and the other arrow brings it back."""
    slider.press("Home")
    first = pictures(slider)
    slider.press("ArrowRight")
    second = pictures(slider)
    slider.press("ArrowLeft")
    return len(first) == len(second) == 1 and first != second and pictures(slider) == first


def numbers_follow(plane: Locator) -> bool:
    """Whether pointer, arrow key and choice of class change what a map to touch says."""
    figure = plane.locator("xpath=ancestor::figure")
    says, box = figure.locator("output").inner_text, plane.bounding_box()
    plane.hover(position={"x": 5, "y": 5})
    said = [says()]
    plane.hover(position={"x": box["width"] - 5, "y": box["height"] - 5})
    said.append(says())
    plane.press("ArrowLeft")
    said.append(says())
    classes = figure.locator("option").all_inner_texts()
    figure.locator("select").select_option(classes[-1])
    said.append(says())
    figure.locator("select").select_option(classes[0])
    return len(set(said)) == 3 + (len(classes) > 1) and all(text.startswith(tuple(classes)) for text in said)


def test_the_browser_has_nothing_to_complain_about(opened: Visit) -> None:
    opened.seen(PHONE)
    assert opened.complaints == []


def test_only_the_own_host_is_asked(opened: Visit, home: str) -> None:
    assert [url for url in opened.requested if not url.startswith((f"{home}/", "data:", "blob:"))] == []


def test_equations_are_set(opened: Visit) -> None:
    page = opened.seen()
    assert page.locator("article mjx-container").count() == page.locator("article .math").count()
    assert page.locator("mjx-merror").count() == 0
    prose = page.locator("main").evaluate(
        "e => { e = e.cloneNode(true); e.querySelectorAll('pre, code, mjx-container').forEach(n => n.remove());"
        "return e.textContent }"
    )
    assert [mark for mark in (r"\(", r"\[", "$$") if mark in prose] == [], "raw TeX is left on the page"


def test_sliders_work_by_keyboard(opened: Visit) -> None:
    for slider in opened.seen().locator(SLIDER).all():
        assert answers_to_keys(slider), slider.evaluate("e => e.closest('figure').outerHTML.slice(0, 300)")


def test_maps_to_touch_say_their_numbers(opened: Visit) -> None:
    for plane in opened.seen().locator(PLANE).all():
        assert numbers_follow(plane), plane.get_attribute("aria-label")


@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_nothing_sticks_out(opened: Visit, viewport: ViewportSize) -> None:
    page = opened.seen(viewport)
    assert page.evaluate(STICKS_OUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_code_fits_beside_the_menu_and_prose_stays_narrow(opened: Visit) -> None:
    page = opened.seen(DESK)
    cut = "es => es.filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
    assert page.locator("article .cell_input pre").evaluate_all(cut) == []
    # 43 times the size of the letters are some 90 of them.
    assert page.locator("article p").evaluate_all("es => es.filter(e => e.clientWidth > 43 * 16).length") == 0


def test_pictures_keep_their_colors_in_the_dark(opened: Visit) -> None:
    images = opened.seen(scheme="dark").locator("article img")
    assert images.evaluate_all("es => es.filter(e => getComputedStyle(e).filter !== 'none').map(e => e.src)") == []


def test_icons_come_from_the_small_font(opened: Visit) -> None:
    opened.seen(DESK)
    fonts = {url.rpartition("/")[2].partition("?")[0] for url in opened.requested if "mathjax" not in url}
    assert "icons.woff" in fonts
    assert [name for name in fonts if name.startswith(("fa-", "fontawesome"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_on_paper(opened: Visit, scheme: str) -> None:
    page = opened.seen(PAPER, "print", scheme)
    assert page.evaluate(CUT_ON_PAPER, PAPER) == []
    # Backgrounds are not printed: letters must be dark.
    color = page.locator("main").evaluate("e => getComputedStyle(e).color.match(/[0-9.]+/g).slice(0, 3)")
    assert max(map(float, color)) < 100, f"the text is printed in rgb({', '.join(color)})"


def test_there_are_no_barriers(opened: Visit) -> None:
    desk = opened.seen(DESK)
    assert barriers_of_structure(desk) + barriers_of_color(desk) == []
    assert barriers_of_structure(opened.seen(PHONE), but=["color-contrast"]) == []
    assert barriers_of_color(opened.seen(DESK, scheme="dark")) == []


@pytest.mark.parametrize("viewport", [PHONE, TABLET, DESK], ids=["phone", "tablet", "desk"])
def test_menu_and_contents_open_by_touch(browser: Browser, home: str, viewport: ViewportSize) -> None:
    with browser.new_context(viewport=viewport, has_touch=True, reduced_motion="reduce") as context:
        page = Visit(context.new_page(), f"{home}/{PAGES[1]}.html").page
        menu, contents = page.locator(".bd-docs-nav"), page.locator("#pst-page-toc-nav")
        button = page.locator(".bd-header-article .primary-toggle")
        if viewport == DESK:  # the menu stands beside the text, and the button puts it away
            expect(menu).to_be_visible()
            button.tap()
        expect(menu).to_be_hidden()
        button.tap()
        expect(menu).to_be_in_viewport()
        page.keyboard.press("Escape")

        expect(contents).to_be_hidden()
        page.locator(".bd-header-article .secondary-toggle").tap()
        expect(contents).to_be_in_viewport()
        contents.locator("a").last.tap()
        expect(contents).to_be_hidden()
        expect(page.locator("article h2").last).to_be_in_viewport()


def test_search_finds_a_chapter(browser: Browser, home: str) -> None:
    with visit(browser, f"{home}/search.html?q=attention") as found:
        found.page.locator("#search-results li a").first.wait_for()
        assert found.complaints == []


@pytest.mark.parametrize("word", ["attention", "softplus"])
def test_search_shows_what_pages_say(browser: Browser, home: str, word: str) -> None:
    with visit(browser, f"{home}/search.html?q={word}") as found:
        found.page.locator("#search-results .context").nth(4).wait_for()
        found.page.wait_for_load_state("networkidle")
        for excerpt in found.page.locator("#search-results .context").all_text_contents():
            # TeX, code, and what stands on the buttons above the text.
            noise = [mark for mark in ("\\", "\n", "import ", "Contents") if mark in excerpt]
            assert noise == [], excerpt


def test_without_javascript_a_page_can_be_read(browser: Browser, home: str) -> None:
    # Not a Visit, which waits for scripts.
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{home}/{PAGES[0]}.html")
        assert page.locator("article h1").is_visible()
        assert page.locator("article img").first.is_visible()


PICTURE = "<svg xmlns='http://www.w3.org/2000/svg' width='20' height='20'><title>{}</title></svg>"
FIGURE = (
    '<figure><label>shade <input type="range" min="0" max="1"></label>'
    + "".join(f'<img alt="{name}" src="data:image/svg+xml,{PICTURE.format(name)}">' for name in ("dark", "light"))
    + "</figure><script>const [input] = document.getElementsByTagName('input');"
    "const show = () => [...document.images].forEach((image, k) => { image.hidden = k != input.value; }); show();"
)


@pytest.mark.parametrize(
    "example, works",
    [(FIGURE + "input.addEventListener('input', show)</script>", True), (FIGURE + "</script>", False)],
    indirect=["example"],
    ids=["live", "dead"],
)
def test_a_dead_slider_is_noticed(example: Visit, works: bool) -> None:
    assert answers_to_keys(example.page.locator(SLIDER)) is works


TOUCHED = Cells(np.full((60, 60, 3), 99, np.uint8), {"cat": {"a": np.eye(4)}, "dog": {"a": np.eye(4)[::-1]}})


@pytest.mark.parametrize(
    "example, works",
    [(TOUCHED._repr_html_(), True), (TOUCHED._repr_html_().rpartition("<script>")[0], False)],
    indirect=["example"],
    ids=["live", "dead"],
)
def test_a_dead_map_to_touch_is_noticed(example: Visit, works: bool) -> None:
    plane = example.page.locator(PLANE).first
    if works:
        assert numbers_follow(plane)
    else:
        assert not plane.locator("xpath=ancestor::figure").locator("output").is_visible()


@pytest.mark.parametrize(
    "example",
    [
        '<div style="width: 900px">wide</div><p style="color: #bbb; background: #fff">pale</p><img src="data:,">'
        '<p style="color: #000">plain as <a href="#" style="color: #222; text-decoration: none">a link</a></p>'
        "<script>nowhere.defined</script>"
    ],
    indirect=True,
)
def test_defects_are_noticed(example: Visit) -> None:
    assert "nowhere is not defined" in example.complaints
    assert example.seen(PHONE).evaluate(STICKS_OUT) != []
    assert example.seen(PAPER, "print").evaluate(CUT_ON_PAPER, PAPER) != []
    assert [line.partition(":")[0] for line in barriers_of_color(example.page)] == CONTRAST
    assert [line.partition(":")[0] for line in barriers_of_structure(example.page)] == ["image-alt"]


@pytest.mark.parametrize("example", ["<p>alone</p><img alt='far' src='http://example.org/picture.png'>"], indirect=True)
def test_other_hosts_are_cut_off(example: Visit) -> None:
    assert "failed: http://example.org/picture.png" in example.complaints
