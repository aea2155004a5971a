"""The site builds from what is committed, without a warning, and holds together."""

import json
import re
from copy import copy
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import scripts
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
Site = dict[Path, BeautifulSoup]
Places = dict[Path, set[str]]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def site(html: Path) -> Site:
    """Every page of the table of contents, parsed."""
    return {html / f"{page}.html": BeautifulSoup((html / f"{page}.html").read_text(), "html.parser") for page in PAGES}


@pytest.fixture(scope="module")
def places(site: Site) -> Places:
    """What a link can point to within each page, found once for all links."""
    return {page: {element["id"] for element in soup.find_all(id=True)} for page, soup in site.items()}


def is_local(address: str) -> bool:
    """Whether an address stays within the site."""
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc


def broken(page: Path, soup: BeautifulSoup, places: Places, html: Path, tag: str, attribute: str) -> list[str]:
    """Local addresses on a page that lead to no file, or to no place within a page."""
    found = []
    for element in soup.find_all(tag, **{attribute: True}):
        address = element[attribute]
        if not address or not is_local(address):
            continue
        parts = urlsplit(address)
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        anchor = unquote(parts.fragment)
        if not target.is_file() or (anchor and target in places and anchor not in places[target]):
            found.append(f"{page.relative_to(html)}: {address}")
    return found


def test_the_front_page_leads_to_the_book(html: Path) -> None:
    assert f"{PAGES[0]}.html" in (html / "index.html").read_text()


def test_every_page_has_a_title_and_text(site: Site) -> None:
    for page, soup in site.items():
        article = soup.find("article")
        assert article.find("h1"), f"{page.name} has no title"
        assert len(article.get_text().split()) > 30, f"{page.name} is empty"


def test_every_picture_exists_and_is_described(site: Site, places: Places, html: Path) -> None:
    for page, soup in site.items():
        assert broken(page, soup, places, html, "img", "src") == []
        for image in soup.find_all("img"):
            # Where nobody wrote a description, Sphinx puts the file's name in its place.
            alt = image.get("alt", "").strip()
            assert alt, f"{page.name}: {image['src']} has no alt text"
            assert Path(image["src"]).name not in alt, f"{page.name}: the alt text of {image['src']} is its file name"


def test_where_its_parts_were_not_made_try_it_has_one_line_in_their_place(site: Site, html: Path) -> None:
    article = site[html / "book/try_it.html"].find("article")
    assert "make book" in article.get_text()
    assert article.find_all(["script", "canvas", "fieldset"]) == []


def test_internal_links_resolve(site: Site, places: Places, html: Path) -> None:
    assert [link for page, soup in site.items() for link in broken(page, soup, places, html, "a", "href")] == []


def test_pages_load_nothing_from_other_hosts(site: Site, places: Places, html: Path) -> None:
    for page, soup in site.items():
        assert broken(page, soup, places, html, "script", "src") == []
        assert broken(page, soup, places, html, "link", "href") == []
        loaded = [e["src"] for e in soup.find_all(["script", "img", "iframe"], src=True)]
        loaded += [e["href"] for e in soup.find_all("link", rel="stylesheet")]
        assert [address for address in loaded if not is_local(address) and not address.startswith("data:")] == []


def test_equations_need_no_network(site: Site, html: Path) -> None:
    with_math = [soup for soup in site.values() if soup.find(class_="math")]
    assert with_math, "no page has an equation"
    for soup in with_math:
        scripts = [s["src"] for s in soup.find_all("script", src=re.compile("mathjax", re.IGNORECASE))]
        assert scripts, "a page with equations does not load MathJax"
        parts = json.loads(re.search(r'"load": (\[[^]]*\])', str(soup.head))[1])
        assert [part for part in parts if not (html / "_static" / "mathjax" / f"{part}.js").is_file()] == []


def test_no_output_of_a_notebook_is_an_error(site: Site) -> None:
    for page, soup in site.items():
        assert not soup.find(class_="traceback"), f"{page.name} shows an error"


def test_tables_are_not_left_as_markdown(site: Site) -> None:
    for page, soup in site.items():
        article = copy(soup.find("article"))
        for code in article.find_all(["pre", "code"]):
            code.extract()
        # The line under a table's head; the dashes may have been made long.
        assert not re.search(r"\|\s*:?[-–—]+:?\s*\|", article.get_text()), f"{page.name} shows a table as raw text"


def test_fields_of_named_tuples_are_described_once(site: Site) -> None:
    """By their class; Python's own words on them say nothing."""
    assert [str(page) for page, soup in site.items() if "Alias for field number" in soup.get_text()] == []


# What MyST reads as a comment is text in Jupyter and was meant as text: "90", a line's end, "% cat".
def test_no_line_is_taken_for_a_comment() -> None:
    pages = {path.name: path.read_text() for path in ROOT.glob("book/**/*.md")}
    for path in (*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("exercises/source/*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        pages[path.name] = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    for name, text in pages.items():
        lines = FENCED.sub("", text).splitlines()
        assert [line for line in lines if line.startswith("%")] == [], f"{name}: nobody sees these lines"
        # And a sentence whose last line begins with "1." ends in a list.
        lists = [two for line, two in pairwise(lines) if re.match(r"1[.)] ", two) and re.match(r"\w", line)]
        assert lists == [], f"{name}: no list was meant"


def test_long_names_in_tables_may_break(site: Site) -> None:
    names = [code for soup in site.values() for code in soup.select("td code .pre") if len(code.text) > 25]
    assert names, "the tables have no long name"
    for name in names:
        assert name.find("wbr") or not re.search(r"\w[._/]\w", name.text), name


def test_names_of_the_library_break_at_their_joints(site: Site) -> None:
    parts = [part for soup in site.values() for part in soup.select(".sig-prename, .sig-name") if "." in part.text]
    assert parts, "no page describes the library"
    assert [part.text for part in parts if not part.find("wbr")] == []
    heads = [head for soup in site.values() for head in soup.select("h2") if head.text.startswith("methods.")]
    assert heads, "no page has the library's modules as headings"
    assert [head.text for head in heads if not head.find("wbr")] == []


def test_no_line_ends_between_a_number_and_what_it_counts(site: Site) -> None:
    text = "".join(soup.find("article").get_text() for page, soup in site.items() if page.name == "claims.html")
    firm = "\N{NO-BREAK SPACE}"
    assert f"95{firm}%" in text
    assert re.search(rf"\d{firm}±{firm}\d", text)
    assert re.search(rf"\bp{firm}[\d<]", text)
    assert re.search(rf"\d{firm}/{firm}\d", text)
    code = "".join(code.text for soup in site.values() for code in soup.select("article code, article pre"))
    assert not re.search(rf"\d{firm}[%/]{firm}?", code), "what is copied from the page has to run"


def test_options_keep_their_hyphens(site: Site) -> None:
    options = [code for soup in site.values() for code in soup.select("p code .pre") if code.text.startswith("--")]
    assert options, "no page names an option"
    assert [code.text for code in options if len(code.text) < 28 and "option" not in code["class"]] == []


def meta(soup: BeautifulSoup) -> dict[str, str]:
    """What the head of a page says of it."""
    return {tag.get("property") or tag["name"]: tag["content"] for tag in soup.select("meta[property], meta[name]")}


def test_every_page_says_what_it_is(site: Site, html: Path) -> None:
    others = {
        html / name: BeautifulSoup((html / name).read_text(), "html.parser") for name in ("search.html", "404.html")
    }
    for page, soup in (site | others).items():
        said = meta(soup)
        assert 30 < len(said["description"]) <= 200, page.name
        assert said["og:description"] == said["description"]
        assert said["og:title"] in soup.title.text
        assert (page.parent / said["og:image"]).resolve().is_file()
        # Nobody told this build where the site will lie.
        assert "og:url" not in said
        assert not soup.find("link", rel="canonical")
    descriptions = [meta(soup)["description"] for soup in site.values()]
    assert len(set(descriptions)) > 0.9 * len(descriptions), "pages are described alike"


def test_the_front_page_has_a_card(html: Path) -> None:
    front = BeautifulSoup((html / "index.html").read_text(), "html.parser")
    assert meta(front)["og:title"] == front.title.text == yaml.safe_load((ROOT / "_config.yml").read_text())["title"]
    assert (html / meta(front)["og:image"]).is_file()


def test_a_card_names_the_address_where_it_is_known() -> None:
    card = scripts.load("book/_extensions/site_fixes.py").card
    site = "https://some-one.github.io/book/"
    said = meta(BeautifulSoup(card('A "title"', "a < b", f"{site}p.png", f"{site}page.html"), "html.parser"))
    assert (said["og:title"], said["description"]) == ('A "title"', "a < b")
    assert (said["og:image"], said["og:url"]) == (f"{site}p.png", f"{site}page.html")


def test_an_address_without_a_page_leads_back(html: Path) -> None:
    lost = BeautifulSoup((html / "404.html").read_text(), "html.parser")
    assert lost.select_one(f'article a[href="{PAGES[0]}.html"]')
    assert broken(html / "404.html", lost, {}, html, "a", "href") == []


def test_hidden_tests_stay_hidden(site: Site, html: Path) -> None:
    hidden = re.compile(r"### BEGIN HIDDEN TESTS\n(.*?)\n### END HIDDEN TESTS", re.DOTALL)
    regions = 0
    for page, soup in site.items():
        source = (ROOT / page.relative_to(html)).with_suffix(".ipynb")
        text = soup.find("article").get_text()
        assert "HIDDEN TESTS" not in text, page.name
        if source.parent.name == "source":
            cells = ["".join(cell["source"]) for cell in json.loads(source.read_text())["cells"]]
            for region in hidden.findall("\n".join(cells)):
                regions += 1
                assert region.splitlines()[-1] not in text, f"{page.name} shows a hidden test"
    assert regions > 5


def test_chapters_hand_out_the_exercises_without_solutions(site: Site) -> None:
    for page, soup in site.items():
        if page.parent.name == "notebooks":
            links = [link["href"] for link in soup.select("article a[href*=_downloads]")]
            (href,) = [href for href in links if href.endswith(f"{page.stem}.ipynb")]
            given = (page.parent / href).read_text()
            assert given == (ROOT / "exercises" / "release" / f"{page.stem}.ipynb").read_text()


def test_pages_load_no_more_than_they_use(site: Site, html: Path) -> None:
    def loaded(soup: BeautifulSoup) -> set[str]:
        return {Path(urlsplit(script["src"]).path).name for script in soup.find_all("script", src=True)}

    search = {"searchtools.js", "language_data.js", "searchindex.js"}
    assert search <= loaded(BeautifulSoup((html / "search.html").read_text(), "html.parser"))
    for page, soup in site.items():
        assert loaded(soup) & (search | {"fontawesome.js", "search.js"}) == set(), page.name
        # Without that script, nobody else tells screen readers that an icon is no text.
        assert [icon for icon in soup.select('[class*=" fa-"], [class^="fa-"]') if not icon.get("aria-hidden")] == []
