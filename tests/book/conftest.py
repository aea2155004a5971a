"""What the tests of the book's machinery share: a book of two small chapters, and one of them executed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from small_book import EXHIBITS, small_chapter

from dsna_lib.book import chapters, exhibits


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
    monkeypatch.setattr(exhibits, "EXHIBITS", EXHIBITS)
    for name in ("DSNA_RUNS", "DSNA_DEBUG", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
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

    def copy(notebook, output, given=None, look=None):
        ran.append(Path(notebook).name)
        if (given or {}).get("seed") in (13, "13"):
            raise RuntimeError("bad luck")
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(executed, output)
        return 1.0

    monkeypatch.setattr(chapters, "run", copy)
    return ran
