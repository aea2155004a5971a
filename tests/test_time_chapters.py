"""The times of the last run of all chapters: what the executed copies say, and what is refused."""

import os

import nbformat
import pytest
import scripts

from dsna_lib.book import chapters
from dsna_lib.engine.files import read_json

CELL = "import time\nx = b'1' * 2**26\ntime.sleep(0.5)"  # 64 MiB for half a second


@pytest.fixture(scope="module")
def tool():
    return scripts.load("tools/time_chapters.py")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder with a notebook of one cell, `00_tiny.ipynb`, and its executed copy in ``out``."""
    folder = tmp_path_factory.mktemp("ran")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbformat.write(notebook, folder / "00_tiny.ipynb")
    chapters.main([str(folder / "00_tiny.ipynb"), str(folder / "out" / "00_tiny.ipynb")])
    return folder


@pytest.fixture
def book(tool, monkeypatch, ran, tmp_path):
    """A book of that one chapter, with an empty folder of models."""
    monkeypatch.setattr(tool, "NOTEBOOKS", ran)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setenv("DSNA_RUNS", str(tmp_path / "runs"))
    return ran / "out"


def test_seconds_and_memory_of_a_chapter(tool, book):
    times = tool.read_times(book)
    (chapter,) = times["chapters"].values()
    assert chapter["seconds"] == times["seconds"] > 0.5
    assert 64 < chapter["peak_mib"] < 4096


def test_the_file_says_what_the_chapters_ran_on(tool, book, tmp_path):
    tool.main(book)
    content = read_json(tmp_path / "results" / "chapters.json")
    assert list(content["values"]["chapters"]) == ["00_tiny"]
    assert set(content["provenance"]) == {"profile", "runs", "processor", "memory_gib", "tools", "environment"}
    assert content["provenance"]["tools"]["jupyter-book"].startswith("1.")


def test_chapters_that_have_not_run(tool, book, tmp_path):
    with pytest.raises(SystemExit, match=r"00_tiny\.ipynb is not there: run `make book` first"):
        tool.main(tmp_path)


def test_models_of_an_earlier_run_shorten_the_times(tool, book, tmp_path):
    old = tmp_path / "runs" / "train" / "abc" / "run.json"
    old.parent.mkdir(parents=True)
    old.touch()
    tool.read_times(book)  # made while the chapters ran, or after
    os.utime(old, (0, 0))
    with pytest.raises(SystemExit, match="was there before the chapters ran"):
        tool.read_times(book)
