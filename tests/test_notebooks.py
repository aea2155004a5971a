"""The committed notebooks: executed, small, documented, without traces of one machine.

That their outputs are what the code gives today is checked by replaying them (`make test` runs nbval).
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 500_000
# Home folders, temporary folders, mounted disks and Windows drives.
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|work|mnt|opt|usr|var|content)/|\b[A-Z]:\\")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def notebook(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Code cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """All outputs, in order."""
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def output_text(output: nbformat.NotebookNode) -> str:
    """What a reader sees of an output as text: streams, plain text, HTML; pictures left out."""
    shown = {mime: data for mime, data in output.get("data", {}).items() if not mime.startswith("image/")}
    return "\n".join([output.get("text", ""), *map(str, shown.values())])


def test_every_chapter_is_in_the_table_of_contents() -> None:
    contents = (ROOT / "_toc.yml").read_text()
    chapters = {entry["file"] for part in yaml.safe_load(contents)["parts"] for entry in part["chapters"]}
    assert {f"notebooks/{path.stem}" for path in NOTEBOOKS} == {c for c in chapters if c.startswith("notebooks/")}


def test_is_valid(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)


def test_every_cell_ran_in_order_without_error(notebook: nbformat.NotebookNode) -> None:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert [o.ename for o in outputs(notebook) if o.output_type == "error"] == []


def test_nothing_went_to_the_error_stream(notebook: nbformat.NotebookNode) -> None:
    assert [o.text for o in outputs(notebook) if o.get("name") == "stderr"] == [], "warnings or progress bars"


def test_is_small(path: Path) -> None:
    assert path.stat().st_size <= MAX_BYTES


def test_parameters_are_literals(notebook: nbformat.NotebookNode) -> None:
    cells = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1, "exactly one cell carries the tag `parameters`"
    for statement in ast.parse(cells[0].source).body:
        assert isinstance(statement, ast.Assign | ast.AnnAssign), f"line {statement.lineno}: only `name = literal`"
        ast.literal_eval(statement.value)  # raises where a value is computed: papermill would not recompute it


def test_kernel_is_any_python3(notebook: nbformat.NotebookNode) -> None:
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.language == "python"


def test_metadata_holds_no_traces_of_a_run(notebook: nbformat.NotebookNode) -> None:
    assert not {"papermill", "widgets"} & set(notebook.metadata)
    for cell in notebook.cells:
        assert not {"papermill", "execution", "ExecuteTime"} & set(cell.metadata)


def test_no_machine_paths(notebook: nbformat.NotebookNode) -> None:
    texts = [cell.source for cell in notebook.cells] + [output_text(o) for o in outputs(notebook)]
    assert [match.group() for text in texts for match in MACHINE_PATH.finditer(text)] == []


def test_every_figure_has_alt_text(notebook: nbformat.NotebookNode) -> None:
    for cell in code_cells(notebook):
        shows_image = any(mime.startswith("image/") for o in cell.outputs for mime in o.get("data", {}))
        # The cell metadata that the site's builder turns into <img alt>; it reads no other place.
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if shows_image:
            assert len(alt.split()) >= 3, f"describe the figure of cell [{cell.execution_count}] in mystnb.image.alt"


def test_html_outputs_describe_their_pictures(notebook: nbformat.NotebookNode) -> None:
    for output in outputs(notebook):
        for tag in re.findall(r"<img\b[^>]*>", output.get("data", {}).get("text/html", "")):
            assert re.search(r"""\balt=(["'])\s*\S.*?\1""", tag), "an <img> of an HTML output has no alt text"


def test_markdown_pictures_have_alt_text(notebook: nbformat.NotebookNode) -> None:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            assert "![](" not in cell.source
