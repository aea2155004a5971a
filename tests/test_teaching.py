"""The pack to teach from: it builds, its pages ask no other host, and its solutions are the library's numbers."""

import csv
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import make_teaching
import nbformat
import npm_package
import numpy as np
import pytest
import test_browser
import torch
from playwright.sync_api import Browser
from teaching import course, page, photographs, slides, worksheets
from test_browser import served, visit

from dsna_lib.data import folder as folders
from dsna_lib.data import read_mask, voc

ROOT = Path(__file__).resolve().parents[1]
browser = test_browser.browser
# Whatever a browser would load when it opens the page; links that a reader may follow are no part of it.
LOADED = re.compile(r"""<(?:script|img|link|iframe|source)\b[^>]*?\b(?:src|href)=["'](?!data:)|url\(["']?https?:""")
NUMBER = re.compile(r"(?<![\w.\-/#])\d+\.\d+(?!\w|\.\d)")
CONSTANTS = {"0.2", "0.3", "0.5", "0.7", "0.001", "0.9", "0.4", "0.95"}  # of the method or the question, not measured


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole pack as it is built where no package can be fetched."""
    patch = pytest.MonkeyPatch()
    patch.setattr(npm_package.shutil, "which", lambda _: None)
    patch.setattr(npm_package, "CACHE", tmp_path_factory.mktemp("cache"))
    patch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/mirror")
    slides.reveal.cache_clear()
    folder = tmp_path_factory.mktemp("pack") / "teaching"
    make_teaching.make(folder)
    slides.reveal.cache_clear()
    patch.undo()
    return folder


# --- slides -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", slides.sessions())
def test_a_session_fills_its_minutes_and_can_be_shown(name: str) -> None:
    made = slides.slides_of(page.source(name))
    assert 12 <= len(made) <= 18
    assert sum(slide.minutes for slide in made) == 90
    assert all(slide.notes for slide in made)
    asked = "\n\n".join(slide.text for slide in made)
    assert all(asked.count(f"> **{word}.**") >= 2 for word in ("Predict", "Check"))
    assert len(page.FIGURE.findall(asked)) >= 4


def test_every_figure_that_a_text_names_is_shown() -> None:
    for path in page.TEXTS.glob("*.md"):
        text = path.read_text()
        named = page.FIGURE.findall(text)
        assert len(named) == text.count("!["), f"{path.name}: a reference is not of the form ![..](notebooks/04#cell)"
        for caption, number, cell in named:
            assert caption
            assert re.search("<img|<svg|<table", page.shown(number, cell)), (path.name, cell)


@pytest.mark.parametrize("number, name, said", [("04", "no-such-cell", "has no cell"), ("01", "01-02", "has no cell")])
def test_a_figure_that_is_not_there_is_named(number: str, name: str, said: str) -> None:
    with pytest.raises(page.FigureError, match=f"chapter {number} {said} '{name}'"):
        page.shown(number, name)


def test_no_measured_number_is_typed() -> None:
    for path in page.TEXTS.glob("*.md"):
        typed = re.sub(r"<!-- result: .*?<!-- / -->", "", path.read_text(), flags=re.DOTALL)
        assert set(NUMBER.findall(typed)) <= CONSTANTS | {"44.0"}, path.name  # 44.0 is a claim of the paper, quoted


def test_a_slide_without_minutes_is_named() -> None:
    with pytest.raises(ValueError, match="'## Open' needs a line 'Notes"):
        slides.slides_of("## Shut\n\nNotes (1 min): here.\n\n---\n\n## Open\n")


def test_what_follows_a_prediction_waits_for_a_key() -> None:
    assert slides.slide_html("## A\n\n> **Predict.** How many?\n\nOne.").endswith(
        '<div class="fragment">\n<p>One.</p>\n</div>\n'
    )
    assert "fragment" not in slides.slide_html("## A\n\nOne.\n\n> **Check.** How many?")


def test_with_the_package_a_session_is_shown_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides, "reveal", lambda: {"dist/reveal.css": "a{}", "dist/reveal.js": "'</script>'"})
    html = slides.slides_page("session-4.html".replace("html", "md"))
    assert '<style data-show media="not all">\na{}' in html
    assert r"'<\/script>'" in html
    assert "Reveal.initialize" in html


# --- pages ------------------------------------------------------------------------------------------------------------


def test_the_pack_is_whole(pack: Path) -> None:
    pages = {str(path.relative_to(pack)) for path in pack.rglob("*.html")}
    sheets = {f"worksheets/{name}{end}.html" for name in worksheets.SHEETS for end in ("", "-solution")}
    assert pages == sheets | {f"slides/session-{k}.html" for k in range(1, 7)} | {
        "answers.html",
        "report.html",
        "course/keys.html",
    }


def test_pages_hold_all_that_they_show(pack: Path) -> None:
    for path in pack.rglob("*.html"):
        whole = path.read_text()
        html = re.sub("<script>.*?</script>", "", whole, flags=re.DOTALL)
        assert not LOADED.search(html), path.name
        assert ("MathJax" in whole) == ('class="math' in html), path.name
        assert "<!-- result" not in html
        assert not re.search(r"\$[a-z\\]", html), path.name


def test_a_browser_sets_equations_and_asks_no_other_host(browser: Browser, pack: Path) -> None:
    with served(pack) as host, visit(browser, f"{host}/slides/session-2.html") as visited:
        assert visited.complaints == []
        assert all(address.startswith((host, "data:", "blob:")) for address in visited.requested)
        equations = visited.page.locator(".math").count()
        assert visited.page.locator(".math > mjx-container").count() == equations > 10
        for name in worksheets.SHEETS:
            for end in ("", "-solution"):
                visited.page.goto(f"{host}/worksheets/{name}{end}.html")
                visited.page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
                for paper in ("A4", "Letter"):
                    sheets = re.findall(rb"/Type\s*/Page\b(?!s)", visited.page.pdf(format=paper))
                    assert len(sheets) == 1, f"{name}{end} on {paper}"


def test_equations_and_scripts_survive() -> None:
    assert page.to_html(r"$a_1 < b$") == '<p><span class="math inline">\\(a_1 &lt; b\\)</span></p>\n'
    assert page.in_script("a</script>b") == r"a<\/script>b"


def test_each_question_of_the_page_has_an_answer() -> None:
    asked = (
        (ROOT / "book" / "teaching.md").read_text().partition("## Questions for discussion")[2].partition("\n## ")[0]
    )
    numbers = re.findall(r"^(\d)\. ", asked, re.MULTILINE)
    assert re.findall(r"^## (\d)\. ", page.source("answers.md"), re.MULTILINE) == numbers


def test_the_sample_grading_adds_up() -> None:
    rows = re.findall(r"^\| (?!\*\*)[^|]+\| (\d+) \| [^|]+\w[^|]*\| (\d+) \|", page.source("report.md"), re.MULTILINE)
    shares, points = (sum(map(int, column)) for column in zip(*rows, strict=True))
    assert (shares, points) == (100, 90)
    assert f"| **{points}** |" in page.source("report.md")


# --- worksheets -------------------------------------------------------------------------------------------------------


def printed(number: str, cell: str) -> str:
    return "".join(output.get("text", "") for output in page.cell_of(number, cell).outputs)


def test_the_grid_is_solved_as_the_chapter_prints() -> None:
    assert printed("01", "01-12").startswith(
        "TP {}, FP {}, FN {}".format(*worksheets.scores_by_policy()["false_negative"])
    )
    for policy, scores in worksheets.scores_by_policy().items():
        assert re.search(rf"{policy}\s+" + r"\s+".join(f"{value:.3f}" for value in scores[3:]), printed("01", "01-17"))
    values, counts = np.unique(worksheets.outcomes().astype(str), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {"": 17, "FN": 3, "FP": 1, "TP": 3}


def test_the_strip_is_solved_as_the_chapter_prints() -> None:
    body = worksheets.strip().flatten() == 1
    for steps in worksheets.STEPS:
        attention, p, gradient = worksheets.led(steps)
        said = rf"{steps} steps? along p +p [\d.]+, attention on the body {100 * attention[body].sum():.0f} percent"
        assert re.search(said, printed("04", "04-24"))
        torch.testing.assert_close(gradient > 0, worksheets.strip().flatten() > p)


def test_solutions_are_shown_on_their_sheets_only(pack: Path) -> None:
    for name, solution in (("grid", "0.429"), ("strip", "−"), ("table-I", "not separated")):
        solved, empty = ((pack / "worksheets" / f"{name}{end}.html").read_text() for end in ("-solution", ""))
        cell = f"<td>{solution}</td>"
        assert cell in solved
        assert cell not in empty
    assert [row[0] for row in worksheets.table_one()] == ["expansive", "discriminative", "merged"]


# --- course -----------------------------------------------------------------------------------------------------------


def test_the_course_has_every_exercise_notebook(pack: Path) -> None:
    laid_out = {path.parent.name: path for path in (pack / "course" / "source").glob("*/*.ipynb")}
    assert tuple(sorted(laid_out)) == tuple(sorted(course.ASSIGNMENTS))
    for name, path in course.notebooks().items():
        assert laid_out[name].read_bytes() == path.read_bytes()
    compile((pack / "course" / "nbgrader_config.py").read_text(), "nbgrader_config.py", "exec")


def test_every_written_question_has_a_key() -> None:
    for path in course.notebooks().values():
        cells = nbformat.read(path, as_version=4).cells
        graded = [cell for cell in cells if cell.cell_type == "markdown" and cell.metadata.get("nbgrader")]
        written = list(course.written(path))
        assert len(written) == len(graded)
        for question, answer in written:
            assert "point" in question
            assert len(answer) > 40
            assert "<details>" not in answer


def test_nbgrader_gives_references_all_points_and_open_notebooks_none(pack: Path) -> None:
    if importlib.util.find_spec("nbgrader") is None:
        pytest.skip("nbgrader is not installed; tools/try_course.py says how all assignments are graded with it")
    command = [sys.executable, ROOT / "tools" / "try_course.py", pack / "course", "annotations"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- photographs ------------------------------------------------------------------------------------------------------


def test_the_photographs_are_a_data_set(pack: Path) -> None:
    pictures = folders.load(pack / "photographs")
    assert pictures.class_names == voc.CLASS_NAMES
    assert len(pictures) == len(photographs.described()) == 12
    assert sum(bool(record.labels) for record in pictures.records) == 5
    for record in pictures.records:
        mask = read_mask(record.mask)
        assert {int(c) - 1 for c in np.unique(mask) if 0 < c < 255} == set(record.labels), record.id


def test_whose_each_photograph_is(pack: Path) -> None:
    with (pack / "photographs" / "SOURCES.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["file"] for row in rows} == {path.name for path in (pack / "photographs").glob("*.png")}
    assert all(row[key] for row in rows for key in ("title", "author", "license", "source"))


def test_an_outline_is_filled_and_has_a_rim_of_void() -> None:
    square = {"class": "cat", "points": "10,10 29,10 29,29 10,29"}
    mask = photographs.mask_of((40, 40), [square, {"class": "void", "points": "0,0 3,0 3,3 0,3"}])
    assert mask[20, 20] == voc.CLASS_NAMES.index("cat") + 1
    assert mask[0, 39] == 0
    assert mask[20, 10] == mask[1, 1] == 255
