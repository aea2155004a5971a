"""``dsna figure``: the paper's figures and tables from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_book import EXHIBITS, PARAMETERS, edit

from dsna_lib.book import exhibits
from dsna_lib.cli import main
from dsna_lib.engine.files import read_json


@pytest.fixture
def dsna(capsys):
    def call(*words: str) -> tuple[int, str, str]:
        code = main(["figure", *words])
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
    parameters = read_json("mine/figure-5/numbers.json")["provenance"]["parameters"]
    assert (parameters["seed"], parameters["profile"]) == (4, "colab")


def test_figures_for_print_are_another_run(book, ran, dsna) -> None:
    assert dsna("5")[0] == dsna("5", "--format", "png,pdf")[0] == dsna("5", "--dpi", "600")[0] == 0
    assert dsna("5", "--format", "png,pdf")[0] == 0
    assert ran == ["06_small.ipynb"] * 3


def test_figure_command_lists(book, ran, dsna) -> None:
    code, out, _ = dsna("--list")
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [[each.name, each.chapter] for each in EXHIBITS]
    assert ran == []


def test_what_fails_does_not_keep_others_from_being_made(book, ran, dsna, monkeypatch) -> None:
    monkeypatch.setattr(exhibits, "EXHIBITS", (*EXHIBITS, exhibits.Exhibit("table-V", "09_missing", "")))
    assert dsna("all")[0] == 3, "a chapter is missing: nothing is run"
    assert ran == []
    monkeypatch.setattr(exhibits, "EXHIBITS", EXHIBITS)
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
        (["5", "--format", "pdf,gif"], "unknown format 'gif': choose among png, pdf, svg"),
        (["5", "--dpi", "0"], "dpi=0 must lie in 20..2400"),
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
