"""Chapters run with checked parameters, and once for each set of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from small_book import edit, small_chapter

from dsna_lib.book import chapters, profiles
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError

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
    with pytest.raises(RunError) as caught:
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
    assert first.identity["parameters"]["seed"] == 1


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
    monkeypatch.setattr(runs, "code_digest", lambda *modules: "another library")
    assert folder() not in (first, second)


def test_a_changed_recipe_number_of_the_paper_or_model_makes_another_run(book, ran, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    monkeypatch.setattr(chapters, "PACKAGE", tmp_path / "dsna_lib")
    folders = [chapters.execute("06_small").folder]
    for name in ("recipes/drawn.toml", "dsna_lib/paper.yaml", "dsna_lib/checkpoints/small.pth"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for content in ("seeds = 3", "seeds = 5"):
            file.write_text(content)
            folders.append(chapters.execute("06_small").folder)
    assert len(set(folders)) == 7
    assert chapters.execute("06_small").folder == folders[-1]


def test_the_whole_library_counts() -> None:
    assert {"dsna_lib", "dsna_lib.maps", "dsna_lib.data", "dsna_lib.book.chapters"} <= set(chapters._library())


def test_profiles_are_known_without_importing_torch() -> None:
    code = "import sys; from dsna_lib.book import chapters, exhibits; print(chapters.PROFILES, 'torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "('cpu', 'colab', 'full') False\n"


def test_the_same_words_mean_another_folder_elsewhere(book, ran, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DSNA_RUNS", str(tmp_path / "runs"))
    folders = []
    for place in ("here", "there"):
        (tmp_path / place / "VOC").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        folders.append(chapters.execute("06_small", {"voc_root": "VOC"}).folder)
    assert folders[0] != folders[1]


def test_a_failed_chapter_does_not_count_as_finished(book, ran) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="bad luck"):
            chapters.execute("06_small", {"seed": 13})
    assert len(ran) == 2


def test_chapters_that_are_not_there(book) -> None:
    with pytest.raises(FileNotFoundError, match="do not come with an installed package.*repository"):
        chapters.execute("07_missing")


# --- a chapter of the book, with other parameters ---------------------------------------------------------------------


def test_chapter_runs_with_another_seed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = chapters.notebook_of("04_decoupled_structure")  # the shortest
    seconds = chapters.run(notebook, tmp_path / "out.ipynb", {"seed": 1})
    assert seconds > 0
    before, after = (nbformat.read(path, as_version=4) for path in (notebook, tmp_path / "out.ipynb"))
    injected = next(cell for cell in after.cells if "injected-parameters" in cell.metadata["tags"])
    assert "seed = 1" in injected.source
    assert len(after.cells) == len(before.cells) + 1
    assert all(cell.execution_count for cell in after.cells if cell.cell_type == "code" and cell.source.strip())
