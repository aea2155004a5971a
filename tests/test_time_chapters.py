"""Timing chapters: what a run takes, and what is refused."""

from pathlib import Path

import nbformat
import pytest
import scripts

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool():
    return scripts.load("tools/time_chapters.py")


@pytest.fixture
def notebook(tmp_path):
    """A notebook of one cell that holds 64 MiB and waits."""
    cell = nbformat.v4.new_code_cell("import os, time\nx = b'1' * 2**26\ntime.sleep(0.5)\nos.environ['DSNA_RUNS']")
    path = tmp_path / "00_tiny.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


def test_seconds_and_memory_of_a_chapter(tool, notebook, tmp_path):
    found = tool.timed(notebook, tmp_path / "out")
    assert found["seconds"] > 0.5
    assert 64 < found["peak_mib"] < 4096
    (cell,) = nbformat.read(tmp_path / "out" / notebook.name, 4).cells
    assert cell.outputs[0]["data"]["text/plain"] == repr(str(tmp_path / "out" / "runs"))


def test_naming_chapters_writes_nothing(tool, monkeypatch, capsys, notebook):
    monkeypatch.setattr(tool, "timed", lambda *_: {"seconds": 2.0, "peak_mib": 1500})
    monkeypatch.setattr(tool.runs, "write_result", lambda *_: pytest.fail("written"))
    tool.main([str(notebook)])
    assert capsys.readouterr().out == "00_tiny: 2 s, 1,500 MiB\n"


def test_all_chapters_are_written_with_what_they_ran_on(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "timed", lambda *_: {"seconds": 2.0, "peak_mib": 1500})
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    tool.main([])
    content = tool.runs.read_json(tmp_path / "results" / "chapters.json")
    assert list(content["values"]["chapters"]) == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert set(content["provenance"]) == {"profile", "runs", "processor", "memory_gib", "tools", "environment"}
    assert content["provenance"]["tools"]["jupyter-book"].startswith("1.")


def test_no_such_notebook(tool):
    with pytest.raises(SystemExit, match=r"nope\.ipynb: no such notebook"):
        tool.main(["nope.ipynb"])


def test_a_chapter_that_fails_stops_it(tool, tmp_path):
    path = tmp_path / "00_bad.ipynb"
    path.write_text("not a notebook")
    with pytest.raises(SystemExit, match=r"00_bad\.ipynb failed; nothing is written"):
        tool.timed(path, tmp_path / "out")
