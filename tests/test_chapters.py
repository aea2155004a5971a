"""Chapters run with checked parameters, and the paper's figures and tables come out of their tagged cells."""

import json
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from dsna_lib import chapters, cli, profiles, runs

PARAMETERS = """\
profile: str = "cpu"  # cpu, colab or full
seed: int = 0
rate: float = 0.5
flip: bool = False
rates: list = []
voc_root: str = ""  # a folder
results: str = ""
"""
PLOT = """\
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(1, 1))
"""
TABLE = """\
from pathlib import Path

from IPython.display import Markdown, display

lines = [f"**Rates of {Path.cwd().name}.**", "", "| rate | IoU |", "| --- | ---: |", f"| {rate} | {seed} ± 0.5 |"]
display(Markdown("\\n".join(lines)))
print("rates", rates)
"""


def tagged(source: str, *tags: str, **metadata: object) -> nbformat.NotebookNode:
    return new_code_cell(source, metadata={"tags": list(tags), **metadata})


def small_chapter() -> nbformat.NotebookNode:
    """A chapter with a figure, a table and a cell that fails on request."""
    cells = [
        new_markdown_cell("# A chapter"),
        tagged(PARAMETERS, "parameters"),
        new_code_cell('if seed == 13:\n    raise ValueError("seed 13 brings bad luck: choose another one")'),
        tagged(PLOT, "figure-5", mystnb={"image": {"alt": "An empty pair of axes"}}),
        tagged(TABLE, "table-II", "table-IV", "nbval-ignore-output"),
        tagged("quiet = 1", "table-III"),
    ]
    return new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )


EXHIBITS = (
    chapters.Exhibit("figure-5", "06_small", "axes"),
    chapters.Exhibit("table-II", "06_small", "rates"),
    chapters.Exhibit("table-III", "06_small", "nothing"),
    chapters.Exhibit("table-IV", "08_other", "rates once more"),
)


@pytest.fixture
def book(tmp_path, monkeypatch) -> Path:
    """A folder of two small chapters that is the book's; the working folder is another one."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    one = small_chapter()
    nbformat.write(one, folder / "06_small.ipynb")
    one.cells[1].source = 'profile: str = "cpu"'
    nbformat.write(one, folder / "08_other.ipynb")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(chapters, "NOTEBOOKS", folder)
    monkeypatch.setattr(chapters, "EXHIBITS", EXHIBITS)
    for name in ("DSNA_RUNS", "DSNA_DEBUG", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Path:
    """The small chapter, really run with other parameters, while a backend for scripts is set."""
    folder = tmp_path_factory.mktemp("executed")
    source = folder / "source.ipynb"
    nbformat.write(small_chapter(), source)
    before = source.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MPLBACKEND", "Agg")
        chapters.run("source.ipynb", "out/06_small.ipynb", {"seed": 3, "rates": "[0.1, 0.2]"})
        assert os.environ["MPLBACKEND"] == "Agg"
    assert source.read_bytes() == before
    return folder / "out" / "06_small.ipynb"


@pytest.fixture
def ran(executed, monkeypatch) -> list[str]:
    """Running is replaced by copying the executed chapter; lists the notebooks that were run."""
    ran: list[str] = []

    def copy(notebook, output, given=None):
        ran.append(Path(notebook).name)
        if (given or {}).get("seed") in (13, "13"):
            raise RuntimeError("bad luck")
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(executed, output)
        return 1.0

    monkeypatch.setattr(chapters, "run", copy)
    return ran


def edit(notebook: Path, cell: int, source: str) -> None:
    content = nbformat.read(notebook, as_version=4)
    content.cells[cell].source = source
    nbformat.write(content, notebook)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, found",
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
def test_names(name: str, found: str) -> None:
    assert chapters.find(name).name == found


@pytest.mark.parametrize("name, where", [("1", "introduction"), ("figure-2", "chapter 03"), ("3", "chapter 04")])
def test_drawings_are_refused_with_their_place_in_the_book(name: str, where: str) -> None:
    with pytest.raises(chapters.ChapterError, match=f"drawing.*{where}"):
        chapters.find(name)


@pytest.mark.parametrize("name", ["8", "table-5", "", "figure"])
def test_unknown_names_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(chapters.ChapterError, match="figure-4, .*table-VI"):
        chapters.find(name)


def test_places_of_drawings_exist() -> None:
    for where in chapters.DRAWINGS.values():
        assert (chapters.ROOT / where.partition("(")[2].rstrip(")")).is_file()


def test_tags_stand_exactly_where_the_registry_says() -> None:
    tagged = set()
    for path in chapters.NOTEBOOKS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            tags = [tag for tag in cell.metadata.get("tags", []) if tag.startswith(("figure-", "table-"))]
            tagged |= {(tag, path.stem) for tag in tags}
    assert tagged == {(exhibit.name, exhibit.chapter) for exhibit in chapters.EXHIBITS}


# --- parameters -------------------------------------------------------------------------------------------------------


def test_parameters_are_the_notebooks_with_those_given_put_in(book) -> None:
    defaults = chapters.parameters(book / "06_small.ipynb")
    assert list(defaults.items()) == [
        ("profile", "cpu"),
        ("seed", 0),
        ("rate", 0.5),
        ("flip", False),
        ("rates", []),
        ("voc_root", ""),
        ("results", ""),
    ]
    texts = {"seed": "3", "rate": "1", "flip": "True", "rates": "[0.5, 1]", "voc_root": "7"}
    values = {"seed": 3, "rate": 1.0, "flip": True, "rates": [0.5, 1], "voc_root": "7"}
    assert chapters.parameters(book / "06_small.ipynb", texts) == defaults | values
    assert chapters.parameters(book / "06_small.ipynb", values) == defaults | values
    assert type(chapters.parameters(book / "06_small.ipynb", {"rate": 1})["rate"]) is float


@pytest.mark.parametrize(
    "given, reason",
    [
        ({"epochs": 3}, r"no parameter epochs; it has: profile \(str\), seed \(int\), "),
        ({"seed": "1.5"}, "seed is of type int, and '1.5'"),
        ({"seed": "one"}, "seed is of type int, and 'one'"),
        ({"seed": True}, "seed is of type int, and True"),
        ({"rate": "high"}, "rate is of type float"),
        ({"flip": "1"}, "flip is of type bool"),
        ({"rates": "0.5"}, "rates is of type list"),
        ({"voc_root": 3}, "voc_root is of type str"),
        ({"profile": "gpu"}, "unknown profile 'gpu': choose cpu, colab or full"),
    ],
)
def test_bad_parameters_are_refused(book, given: dict, reason: str) -> None:
    with pytest.raises(chapters.ChapterError, match=reason):
        chapters.parameters(book / "06_small.ipynb", given)


def test_profiles_are_those_of_the_chapters() -> None:
    assert chapters.PROFILES == profiles.PROFILES


def test_a_notebook_without_parameters_takes_none(tmp_path) -> None:
    nbformat.write(new_notebook(cells=[new_code_cell("1")], metadata=small_chapter().metadata), tmp_path / "n.ipynb")
    assert chapters.parameters(tmp_path / "n.ipynb") == {}
    with pytest.raises(chapters.ChapterError, match="it has: none"):
        chapters.parameters(tmp_path / "n.ipynb", {"seed": 1})


def test_missing_papermill_is_said(book, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "papermill", None)
    with pytest.raises(ImportError, match="needs papermill.*pip install"):
        chapters.parameters(book / "06_small.ipynb")


# --- running ----------------------------------------------------------------------------------------------------------


def test_run_writes_an_executed_copy(executed) -> None:
    assert [path.name for path in executed.parent.iterdir()] == ["06_small.ipynb"]
    copy = nbformat.read(executed, as_version=4)
    table = next(cell for cell in copy.cells if "table-II" in cell.metadata["tags"])
    assert "| 0.5 | 3 ± 0.5 |" in table.outputs[0].data["text/markdown"]
    assert f"Rates of {executed.parents[1].name}" in table.outputs[0].data["text/markdown"]  # the working folder
    assert table.outputs[1].text == "rates [0.1, 0.2]\n"


def test_a_failing_cell_is_one_sentence_and_leaves_no_output(book) -> None:
    with pytest.raises(RuntimeError) as caught:
        chapters.run(book / "06_small.ipynb", "out.ipynb", {"seed": 13})
    text = "06_small.ipynb stopped in cell [3]: ValueError: seed 13 brings bad luck: choose another one"
    assert str(caught.value) == f"{text} (the copy up to there: out.failed.ipynb)"
    assert Path("out.failed.ipynb").is_file()
    assert not Path("out.ipynb").exists()


def test_command_line_of_the_module(book, monkeypatch, capsys) -> None:
    given = {}
    monkeypatch.setattr(chapters, "run", lambda notebook, output, values: given.update(values) or 2.0)
    monkeypatch.setattr(chapters, "_note_memory", lambda copy: ", 900 MiB")
    chapters.main(["n.ipynb", "out.ipynb", "-p", "seed", "1", "-p", "rate", "2"])
    assert given == {"seed": "1", "rate": "2"}
    assert capsys.readouterr().out == "n.ipynb: 2 s, 900 MiB\n"


def test_command_line_of_the_module_refuses_in_one_sentence(book) -> None:
    with pytest.raises(SystemExit, match=r"error: missing.ipynb: no such notebook$"):
        chapters.main(["missing.ipynb", "out.ipynb"])
    with pytest.raises(SystemExit, match="has no parameter epochs"):
        chapters.main([str(book / "06_small.ipynb"), "out.ipynb", "-p", "epochs", "1"])


# --- a chapter once for each set of parameters ------------------------------------------------------------------------


def test_a_finished_chapter_is_not_run_again(book, ran) -> None:
    said: list[str] = []
    first = chapters.execute("06_small", {"seed": "1"}, said.append)
    again = chapters.execute("06_small", {"seed": 1, "rate": 0.5}, said.append)
    assert (first.folder / "06_small.ipynb").is_file()
    assert first == again
    assert ran == ["06_small.ipynb"]
    assert said == ["06_small: running ...", f"06_small: has run before, {first.folder}"]
    assert first.folder.parent == Path("runs/chapters")
    assert first.read()["config"]["parameters"]["seed"] == 1


def test_prose_may_change_but_code_tags_parameters_library_and_results_may_not(
    book, ran, monkeypatch, tmp_path
) -> None:
    def folder(**given):
        return chapters.execute("06_small", given).folder

    first, notebook = folder(), book / "06_small.ipynb"
    edit(notebook, 0, "# Another title")
    assert folder() == first
    assert folder(seed=2) != first
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.json").write_text("{}")
    stored = {"results": str(tmp_path / "results")}
    before = folder(**stored)
    (tmp_path / "results" / "table.json").write_text('{"new": 1}')
    assert len({folder(**stored), before, first}) == 3
    edit(notebook, 5, "quiet = 2")
    second = folder()
    assert second != first
    monkeypatch.setattr(runs, "code_digest", lambda modules: "another library")
    assert folder() not in (first, second)


def test_the_same_words_mean_another_folder_elsewhere(book, ran, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DSNA_RUNS", str(tmp_path / "runs"))
    found = []
    for place in ("here", "there"):
        (tmp_path / place / "VOC").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        found.append(chapters.execute("06_small", {"voc_root": "VOC"}).folder)
    assert found[0] != found[1]


def test_a_failed_chapter_does_not_count_as_finished(book, ran) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="bad luck"):
            chapters.execute("06_small", {"seed": 13})
    assert len(ran) == 2


def test_chapters_that_are_not_there(book) -> None:
    with pytest.raises(FileNotFoundError, match="do not come with an installed package.*repository"):
        chapters.execute("07_missing")


# --- what the tagged cells show ---------------------------------------------------------------------------------------


def test_extract_writes_pictures_texts_and_numbers(book, ran, tmp_path) -> None:
    run = chapters.execute("06_small")
    files = chapters.extract(EXHIBITS[0], run, tmp_path / "out")
    assert [file.name for file in files] == ["figure-5.png", "numbers.json"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    numbers = runs.read_json(files[1])
    assert numbers["values"]["pictures"] == [{"file": "figure-5.png", "alt": "An empty pair of axes"}]
    assert numbers["provenance"]["chapter"] == "06_small"
    assert numbers["provenance"]["parameters"]["seed"] == 0
    assert numbers["provenance"]["environment"]["packages"]["torch"]

    (tmp_path / "out" / "mine.txt").write_text("mine")
    files = chapters.extract(EXHIBITS[1], run, tmp_path / "out")
    assert [file.name for file in files] == ["table-II.md", "table-II.txt", "numbers.json"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*(f.name for f in files), "mine.txt"])
    values = runs.read_json(files[-1])["values"]
    assert values["text"] == "rates [0.1, 0.2]"
    (table,) = values["tables"]
    assert table["title"].startswith("Rates of ")
    assert table["columns"] == ["rate", "IoU"]
    assert table["rows"] == [[0.5, {"mean": 3.0, "std": 0.5}]]


@pytest.mark.parametrize("name", ["table-III", "table-X"])
def test_extract_refuses_what_is_not_shown(book, ran, tmp_path, name: str) -> None:
    with pytest.raises(RuntimeError, match=f"shows nothing in cells tagged {name}"):
        chapters.extract(chapters.Exhibit(name, "06_small", ""), chapters.execute("06_small"), tmp_path / "out")
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
    files, described, texts = chapters._shown("figure-9", [cell])
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
    one, two = chapters.tables_in({"text/markdown": text})
    assert one == {
        "title": "One. Of two.",
        "columns": ["a", "b"],
        "rows": [["x \\| y", -1.5], ["52.0 / -", None]],
    }
    assert two == {"title": "One. Of two.", "columns": ["c"], "rows": [[2.0]]}
    assert chapters.tables_in({"text/markdown": "no | table"}) == []


def test_tables_in_html_are_those_of_pandas() -> None:
    columns = pd.MultiIndex.from_product([["IoU", "recall"], ["mean", "paper"]])
    frame = pd.DataFrame([[1.5, 2, float("nan"), 4], [5, 6, 7, 8]], ["a < b", "c"], columns).rename_axis("row")
    (table,) = chapters.tables_in({"text/html": frame._repr_html_()})
    assert table["columns"] == ["row", "IoU mean", "IoU paper", "recall mean", "recall paper"]
    assert table["rows"] == [["a < b", 1.5, 2, None, 4], ["c", 5, 6, 7, 8]]


# --- dsna figure ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dsna(capsys):
    def call(*words: str) -> tuple[int, str, str]:
        code = cli.main(["figure", *words])
        return code, *capsys.readouterr()

    return call


def test_figure_command(book, ran, dsna) -> None:
    code, out, err = dsna("5", "table-II", "IV", "II", "--json")
    assert (code, ran) == (0, ["06_small.ipynb", "08_other.ipynb"])
    result = json.loads(out)
    assert list(result["figures"]) == ["figure-5", "table-II", "table-IV"]
    assert result["done"] == 3
    for name in ("figure-5/figure-5.png", "figure-5/numbers.json", "table-II/table-II.md"):
        assert Path("runs/figures", name).is_file()
    assert result["figures"]["figure-5"] == ["runs/figures/figure-5/figure-5.png", "runs/figures/figure-5/numbers.json"]
    assert "08_other: running ..." in err


def test_figure_command_takes_parameters_and_a_folder(book, ran, dsna) -> None:
    code, out, _ = dsna("5", "-p", "seed", "4", "--profile", "colab", "--out", "mine")
    assert code == 0
    assert "mine/figure-5: figure-5.png, numbers.json" in out
    parameters = runs.read_json("mine/figure-5/numbers.json")["provenance"]["parameters"]
    assert (parameters["seed"], parameters["profile"]) == (4, "colab")


def test_figure_command_lists(book, ran, dsna) -> None:
    code, out, _ = dsna("--list")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [[each.name, each.chapter] for each in EXHIBITS]
    assert ran == []


def test_what_fails_does_not_keep_others_from_being_made(book, ran, dsna, monkeypatch) -> None:
    monkeypatch.setattr(chapters, "EXHIBITS", (*EXHIBITS, chapters.Exhibit("table-V", "09_missing", "")))
    assert dsna("all")[0] == 3, "a chapter is missing: nothing is run"
    assert ran == []
    monkeypatch.setattr(chapters, "EXHIBITS", EXHIBITS)
    code, _, err = dsna("all")
    assert code == 1
    assert "table-III: " in err
    assert "shows nothing in cells tagged table-III" in err
    assert sorted(path.name for path in Path("runs/figures").iterdir()) == ["figure-5", "table-II", "table-IV"]
    assert ran == ["06_small.ipynb", "08_other.ipynb"]
    edit(book / "08_other.ipynb", 1, PARAMETERS)
    assert dsna("all", "-p", "seed", "13")[0] == 3


@pytest.mark.parametrize(
    "words, reason",
    [
        (["5", "-p", "epochs", "3"], "06_small.ipynb has no parameter epochs"),
        (["5", "-p", "seed", "x"], "seed is of type int"),
        (["all", "-p", "seed", "1"], "08_other.ipynb has no parameter seed"),
        (["5", "-p", "profile", "gpu"], "unknown profile 'gpu'"),
        (["5", "--profile", "gpu"], "invalid choice"),
        (["9"], "unknown figure or table '9'"),
        (["5", "all"], "unknown figure or table 'all'"),
        (["1"], "is a drawing"),
        ([], "name a figure or table"),
    ],
)
def test_figure_command_refuses(book, ran, dsna, words: list[str], reason: str) -> None:
    code, _, err = dsna(*words)
    assert code == 2
    assert reason in err
    assert ran == []


def test_figure_command_says_why_a_chapter_failed(book, ran, dsna) -> None:
    code, _, err = dsna("5", "-p", "seed", "13")
    assert code == 3
    assert err.endswith("dsna figure: 06_small: bad luck\n")


# --- two chapters of the book, with other parameters ------------------------------------------------------------------


@pytest.mark.parametrize("chapter", ["03_spatial_attention", "04_decoupled_structure"])
def test_chapter_runs_with_another_seed(chapter: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = chapters.notebook_of(chapter)
    seconds = chapters.run(notebook, tmp_path / "out.ipynb", {"seed": 1})
    assert seconds > 0
    before, after = (nbformat.read(path, as_version=4) for path in (notebook, tmp_path / "out.ipynb"))
    injected = next(cell for cell in after.cells if "injected-parameters" in cell.metadata["tags"])
    assert "seed = 1" in injected.source
    assert len(after.cells) == len(before.cells) + 1
    assert all(cell.execution_count for cell in after.cells if cell.cell_type == "code" and cell.source.strip())
