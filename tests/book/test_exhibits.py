"""The paper's figures and tables come out of the tagged cells of executed chapters."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell
from PIL import Image
from small_book import EXHIBITS

from dsna_lib.book import chapters, exhibits
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import read_json

# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("5", "figure-5"),
        ("figure-5", "figure-5"),
        ("Figure 5", "figure-5"),
        ("II", "table-II"),
        ("table-ii", "table-II"),
        ("I", "table-I"),
        ("single-stream", "table-single-stream"),
    ],
)
def test_names(name: str, wanted: str) -> None:
    assert exhibits.find(name).name == wanted


@pytest.mark.parametrize("name, where", [("1", "introduction"), ("figure-2", "chapter 03"), ("3", "chapter 04")])
def test_drawings_are_refused_with_their_place_in_the_book(name: str, where: str) -> None:
    with pytest.raises(chapters.ChapterError, match=f"drawing.*{where}"):
        exhibits.find(name)


@pytest.mark.parametrize("name", ["8", "table-5", "", "figure"])
def test_unknown_names_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(chapters.ChapterError, match="figure-4, .*table-VI"):
        exhibits.find(name)


def test_places_of_drawings_exist() -> None:
    for where in exhibits.DRAWINGS.values():
        assert (chapters.ROOT / where.partition("(")[2].rstrip(")")).is_file()


def test_tags_stand_exactly_where_the_registry_says() -> None:
    tagged = set()
    for path in chapters.NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            tags = [tag for tag in cell.metadata.get("tags", []) if tag.startswith(("figure-", "table-"))]
            tagged |= {(tag, path.stem) for tag in tags}
    assert tagged == {(exhibit.name, exhibit.chapter) for exhibit in exhibits.EXHIBITS}


# --- what the tagged cells show ---------------------------------------------------------------------------------------


def test_extract_writes_pictures_texts_and_numbers(book, ran, tmp_path) -> None:
    run = chapters.execute("06_small")
    files = exhibits.extract(EXHIBITS[0], run, tmp_path / "out")
    assert [file.name for file in files] == ["figure-5.png", "numbers.json"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    numbers = read_json(files[1])
    assert numbers["values"]["pictures"] == [{"file": "figure-5.png", "alt": "An empty pair of axes"}]
    assert numbers["provenance"]["chapter"] == "06_small"
    assert numbers["provenance"]["parameters"]["seed"] == 0
    assert numbers["provenance"]["environment"]["packages"]["torch"]

    (tmp_path / "out" / "mine.txt").write_text("mine")
    files = exhibits.extract(EXHIBITS[1], run, tmp_path / "out")
    assert [file.name for file in files] == ["table-II.md", "table-II.txt", "numbers.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*(f.name for f in files), "mine.txt"])
    values = read_json(files[-1])["values"]
    assert values["text"] == "rates [0.1, 0.2]"
    (table,) = values["tables"]
    assert table["title"].startswith("Rates of ")
    assert table["columns"] == ["rate", "IoU"]
    assert table["rows"] == [[0.5, {"mean": 3.0, "std": 0.5}]]


@pytest.mark.parametrize("name", ["table-III", "table-X"])
def test_extract_refuses_what_is_not_shown(book, ran, tmp_path, name: str) -> None:
    with pytest.raises(RunError, match=f"shows nothing in cells tagged {name}"):
        exhibits.extract(exhibits.Exhibit(name, "06_small", ""), chapters.execute("06_small"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_pictures_and_forms(tmp_path) -> None:
    output = nbformat.v4.new_output
    svg, png = "<svg></svg>", "aGVsbG8="
    cell = new_code_cell(
        outputs=[
            output("stream", text="before\n"),
            output("display_data", data={"image/svg+xml": svg, "text/plain": "<Figure>"}),
            output("execute_result", data={"image/jpeg": png}, metadata={}),
            output("execute_result", data={"text/html": "<b>x</b>", "text/plain": "x"}),
            output("display_data", data={"application/unknown": "x"}),
        ]
    )
    files, described, texts = exhibits._shown("figure-9", [cell])
    assert files == {
        "figure-9.svg": svg.encode(),
        "figure-9-2.jpg": b"hello",
        "figure-9.html": b"<b>x</b>\n",
        "figure-9.txt": b"before\n",
    }
    assert [each["file"] for each in described] == ["figure-9.svg", "figure-9-2.jpg"]
    assert texts["text/plain"] == "before"


def test_tables_in_markdown() -> None:
    text = "**One.** Of two.\n\n| a | b |\n| --- | ---: |\n| x \\| y | -1.5 |\n| 52.0 / - | - |\n"
    text += "\n*note*\n\n|c|\n|---|\n|2|\n"
    first, second = exhibits.tables_in(text)
    assert first == {
        "title": "One. Of two.",
        "columns": ["a", "b"],
        "rows": [["x \\| y", -1.5], ["52.0 / -", None]],
    }
    assert second == {"title": "One. Of two.", "columns": ["c"], "rows": [[2.0]]}
    assert exhibits.tables_in("no | table") == []


def test_figures_for_print(book, tmp_path) -> None:
    """Really run: every figure in each format that was asked for, bitmaps as fine as asked, and whole."""
    run = chapters.execute("06_small", look=chapters.Print(("png", "pdf", "svg"), dpi=200))
    files = {path.suffix: path for path in exhibits.extract(exhibits.find("5"), run, tmp_path / "out")}
    assert set(files) == {".png", ".pdf", ".svg", ".json"}
    assert Image.open(files[".png"]).size > (150, 150)  # an inch, cut to what is drawn
    assert files[".pdf"].read_bytes().startswith(b"%PDF")
    assert "<svg" in files[".svg"].read_text()
    assert [each["file"] for each in read_json(files[".json"])["values"]["pictures"]] == ["figure-5.png"]
