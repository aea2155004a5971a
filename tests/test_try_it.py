"""The page *Try it*: what it loads, and in a browser that it says what the library says."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import npm_package
import numpy as np
import pytest
import scripts
import test_browser
import torch
from playwright.sync_api import Browser, Page
from test_browser import DESK, PHONE, STICKS_OUT, Visit, barriers_of_color, barriers_of_structure, served, visit
from tiny import needs_onnx
from torch.nn import functional
from torchvision.transforms.v2 import functional as pixels

from dsna_lib import attention, checkpoints, maps
from dsna_lib.annotate import annotate_labeled
from dsna_lib.config.photos import SHIPPED_SCALES, SHOWN
from dsna_lib.data import Pictures, Record, read_image, voc
from dsna_lib.segmentation import networks
from dsna_lib.segmentation.inference import probabilities

ROOT = Path(__file__).resolve().parents[1]
browser = test_browser.browser

# --- what is fetched and made -----------------------------------------------------------------------------------------


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """No other host is asked, and nothing is in the cache."""
    monkeypatch.setattr(npm_package.shutil, "which", lambda _: None)
    monkeypatch.setattr(npm_package, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/mirror")
    return scripts.load("tools/try_it.py")


def test_without_the_package_the_page_is_left_out_in_one_line(tool, tmp_path, capsys):
    folder = tmp_path / "try_it"
    folder.mkdir()
    (folder / "old").touch()
    tool.main([str(folder)])
    assert not folder.exists()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(
        "Try it is left out of the site: http://127.0.0.1:9/mirror/onnxruntime-web/-/onnxruntime-web-"
    )
    assert line.endswith(
        f"; put what `npm pack onnxruntime-web@{tool.RUNTIME.version}` fetches into {tmp_path / 'cache'}"
    )


def test_without_its_parts_the_page_says_so(tmp_path):
    fixes, text = scripts.load("book/_extensions/site_fixes.py"), (ROOT / "book/try_it.md").read_text()
    app = SimpleNamespace(srcdir=tmp_path)
    source, other = [text], [text]
    fixes.without_application(app, "book/try_it", source)
    assert "<script" not in source[0]
    assert "`make book` fetches" in source[0]
    assert "## What you see" in source[0]
    fixes.without_application(app, "book/intro", other)
    parts = tmp_path / "book/_static/try_it/parts.json"
    parts.parent.mkdir(parents=True)
    parts.touch()
    fixes.without_application(app, "book/try_it", other)
    assert other == [text]


# --- the rule, in JavaScript ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts_page(browser: Browser) -> Iterator[Page]:
    """A page that can import the book's scripts."""
    with served(ROOT / "book" / "_static") as host, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{host}/favicon.svg")
        yield page


def plane(values: torch.Tensor) -> dict:
    return {"data": values.flatten().tolist(), "height": values.shape[0], "width": values.shape[1]}


def call(page: Page, name: str, *arguments) -> object:
    """What a function of try_it_maps.js gives; planes are those of numbers of 32 bits."""
    code = """async ([name, given]) => {
      const module = await import("/try_it_maps.js");
      const typed = (value) => Array.isArray(value) ? value.map(typed)
        : value?.data ? { ...value, data: Float32Array.from(value.data) } : value;
      const made = module[name](...given.map(typed));
      return Array.from(made.data ?? made);
    }"""
    return page.evaluate(code, [name, arguments])


@pytest.mark.parametrize("seed", range(4))
def test_annotations_are_the_librarys(scripts_page, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(1, 9, 7, generator=generator) * 600
    made = functional.avg_pool2d(torch.rand(5, 9, 7, generator=generator), 3, 1, 1) ** 3
    made[4] = 0.25  # says nothing
    labels, size, thresholds = (
        ([0, 2, 4], [1], [], [3, 4])[seed],
        (61, 43),
        ((0.2, 0.3), (0.5, 0.1), (0, 0), (1, 1))[seed],
    )
    wanted = annotate_labeled(made, features, labels, size, *thresholds)
    got = call(
        scripts_page, "annotate", [plane(made[c]) for c in labels], plane(features[0]), labels, *size, *thresholds
    )
    assert got == wanted.flatten().tolist()


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(31, 5), (4, 40), (1, 1)])
def test_resizing_is_torchs(scripts_page, corners, size):
    small = torch.rand(6, 9)
    wanted = functional.interpolate(small[None, None], size, mode="bilinear", align_corners=corners)
    got = call(scripts_page, "resize", plane(small), *size, corners)
    np.testing.assert_allclose(got, wanted.flatten(), atol=1e-6)


@pytest.mark.parametrize("size", [(20, 13), (37, 90), (64, 64)])
def test_shrinking_is_torchvisions(scripts_page, size):
    picture = torch.randint(0, 256, (1, 53, 71), dtype=torch.uint8)
    got = call(scripts_page, "shrink", plane(picture[0]), *size, False)
    np.testing.assert_allclose(got, pixels.resize(picture.float(), size, antialias=True).flatten(), atol=0.01)
    got = call(scripts_page, "shrink", plane(picture[0]), *size, True)
    np.testing.assert_allclose(got, pixels.resize(picture, size, antialias=True).flatten(), atol=1)


def test_weights_are_the_librarys(scripts_page):
    for scores in (torch.randn(20) * 5, torch.tensor([0.3])):
        np.testing.assert_allclose(
            call(scripts_page, "scoreWeight", scores.tolist()), maps.score_weight(scores), atol=1e-6
        )


def test_sides_are_those_of_inference(scripts_page):
    sides, stride = range(1, 600, 7), 16
    code = """async ([sides, scale, stride]) => {
      const { cellSide } = await import("/try_it_maps.js");
      return sides.map((side) => cellSide(side, scale, stride));
    }"""
    for scale in (*SHIPPED_SCALES, 1.0):
        wanted = [stride * max(1, round((scale * side - 1) / stride)) + 1 for side in sides]
        assert scripts_page.evaluate(code, [list(sides), scale, stride]) == wanted


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A site of this one page, with its parts."""
    root = tmp_path_factory.mktemp("book")
    shutil.copytree(ROOT / "book", root / "book")
    shutil.copy(ROOT / "_config.yml", root)
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/try_it\n")
    said = subprocess.run(
        [sys.executable, ROOT / "tools/try_it.py", root / "book/_static/try_it"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    if said.stdout:
        pytest.skip(said.stdout.strip())
    # Its links lead to pages that are not here, so this build is not strict.
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    subprocess.run([*command, "build", root, "--path-output", root], check=True, capture_output=True)
    return root / "_build" / "html"


@pytest.fixture(scope="module")
def opened(browser: Browser, site: Path) -> Iterator[Visit]:
    """The page after its answer for the cat."""
    with served(site.parent) as host, visit(browser, f"{host}/html/book/try_it.html") as visited:
        page = visited.page
        page.locator("#try-it-application[data-state=ready]").wait_for()
        before = cpu_seconds(browser)
        page.get_by_role("button", name="Cat").click()
        page.locator("#try-it-application:is([data-state=maps], [data-state=done], [data-state=failed])").wait_for()
        visited.seconds = cpu_seconds(browser) - before
        page.locator("#try-it-application:is([data-state=done], [data-state=failed])").wait_for()
        yield visited


def cpu_seconds(browser: Browser) -> float:
    """What all processes of the browser have computed: it does not depend on what else the machine does."""
    said = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")
    return sum(process["cpuTime"] for process in said["processInfo"])


@pytest.fixture(scope="module")
def cat(site: Path) -> Pictures:
    path = site / "_static" / "try_it" / "cat.jpg"
    return Pictures([Record("cat", path, (voc.CLASS_NAMES.index("cat"),))], voc.CLASS_NAMES)


def answer(page: Page, code: str) -> Any:
    """Something of what the page has computed."""
    return page.locator("#try-it-application").evaluate(f"({{ answer: {{ maps, annotation, mask }} }}) => {code}")


@needs_onnx
def test_the_first_answer_is_quick_and_nothing_else_is_asked(opened: Visit, site: Path):
    assert opened.page.locator(".try-it-said").inner_text().startswith("Cat: all after")
    # Of all threads together: they also compile the runtime, at the same time. A laptop answers within 5 seconds.
    assert opened.seconds < 8
    assert opened.complaints == []
    host = opened.page.url.rpartition("/book/")[0]
    assert [url for url in opened.requested if not url.startswith((f"{host}/", "data:", "blob:"))] == []


@needs_onnx
def test_maps_and_annotation_are_those_of_dsna_annotate(opened: Visit, cat: Pictures):
    (wanted,) = maps.iterate_maps(
        attention.load(checkpoints.ATTENTION), cat, size=SHOWN.size, scales=SHOWN.scales, flip=SHOWN.flip
    )
    scores = answer(opened.page, "maps.scores")
    np.testing.assert_allclose(scores, wanted.scores, atol=0.05)
    for kind in maps.MAP_KINDS:
        got = answer(opened.page, f"maps.{kind}.map((plane) => [...plane.data])")
        np.testing.assert_allclose(got, wanted.maps[kind].flatten(1), atol=0.02, err_msg=kind)
    annotation = annotate_labeled(wanted.maps["merged"], wanted.features, cat.records[0].labels, wanted.size)
    same = np.equal(answer(opened.page, "[...annotation]"), annotation.flatten().numpy())
    assert same.mean() > 0.995


@needs_onnx
def test_the_mask_is_that_of_dsna_segment(opened: Visit, cat: Pictures):
    image = torch.from_numpy(read_image(cat.records[0].image)).permute(2, 0, 1)[None]
    wanted = probabilities(networks.load(checkpoints.SEGMENTATION), image, SHIPPED_SCALES).argmax(dim=1)
    same = np.equal(answer(opened.page, "[...mask]"), wanted.flatten().numpy())
    assert same.mean() > 0.99


@needs_onnx
def test_numbers_change_the_annotation_at_once(opened: Visit):
    page = opened.page
    caption = page.locator("[data-panel=annotation] figcaption")
    first = caption.inner_text()
    assert "cat" in first
    slider = page.get_by_label("object above")
    assert slider.input_value() == "0.2"
    for _ in range(4):
        slider.press("ArrowRight")
    assert caption.inner_text() != first
    assert page.locator(".try-it-numbers label", has_text="object above").locator("output").inner_text() == "0.40"
    for _ in range(4):
        slider.press("ArrowLeft")
    assert caption.inner_text() == first
    page.get_by_label("what neither claims is").select_option("background")
    assert "void" not in caption.inner_text()
    page.get_by_label("what neither claims is").select_option("void")
    page.get_by_label("p̂, the weight of A").uncheck()
    page.get_by_label("p̂ of your own").fill("0")
    assert "p̂ 0.00 for cat" in page.locator("[data-panel=merged] figcaption").inner_text()
    assert caption.inner_text() != first
    page.get_by_label("p̂, the weight of A").check()
    page.get_by_role("checkbox", name="dog").check()
    assert "dog" in caption.inner_text()
    assert "dog" in page.locator(".try-it-legend").inner_text()
    page.get_by_role("checkbox", name="dog").uncheck()
    assert caption.inner_text() == first


@needs_onnx
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_it_is_readable_and_without_barriers(opened: Visit, viewport):
    page = opened.seen(viewport)
    assert page.evaluate(STICKS_OUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert barriers_of_structure(page) + barriers_of_color(page) == []
    assert barriers_of_color(opened.seen(viewport, scheme="dark")) == []


@needs_onnx
def test_a_file_of_ones_own(opened: Visit, tmp_path):
    page, said = opened.page, opened.page.locator(".try-it-said")
    (tmp_path / "notes.txt").write_text("no picture")
    page.locator("input[type=file]").set_input_files(tmp_path / "notes.txt")
    page.locator("#try-it-application[data-state=failed]").wait_for()
    assert said.inner_text() == "notes.txt is no picture that this browser can read; choose another one."
    page.locator("input[type=file]").set_input_files(ROOT / "book/_static/pipeline.png")
    page.locator("#try-it-application[data-state=done]").wait_for()
    assert said.inner_text().startswith("pipeline.png: all after")
    assert page.get_by_role("button", pressed=True).count() == 0
