"""Tables IV to VI print what was published, and beside it what Table III measured here."""

from __future__ import annotations

import pytest

from dsna_lib import paper
from dsna_lib.engine.errors import FileError
from dsna_lib.engine.files import write_json
from dsna_lib.tables.definitions import TableError
from dsna_lib.tables.published import TITLES, render_published


def row(title: str, iou: float, **per_class: float | None) -> dict:
    return {"title": title, "mean": {"iou": iou}, "per_class": per_class}


@pytest.fixture
def results(tmp_path):
    """Table III on photographs and on drawn pictures."""
    photographs = [row("AE, step 3", 40.0), row("DSNA, merged", 44.44, background=80.0, cat=50.0, sheep=None)]
    drawn = [
        row("DSNA, merged", 60.0, background=90.0, cat=55.0),
        row("full supervision", 70.0, background=95.0, fox=1.0),
    ]
    write_json(tmp_path / "table_III_voc_vgg16.json", {"values": {"rows": photographs}})
    write_json(tmp_path / "table_III_minivoc.json", {"values": {"rows": drawn}})
    return tmp_path


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


@pytest.mark.parametrize("name, split", [("IV", "val"), ("V", "test")])
def test_published_rows_alone(tmp_path, name, split):
    head, _, *rows = cells(render_published(name, tmp_path))
    assert head == ["method", "learns from", "and from", f"mIoU, {split}", "source"]
    published = [*paper.published(split), *paper.published(split, paper.LATER)]
    assert [float(cell[3]) for cell in rows] == [getattr(row, split) for row in published]
    assert [cell[4] for cell in rows] == [row.source for row in published]
    later = len(paper.published(split, paper.LATER))
    assert [cell[1].startswith("later, ") for cell in rows] == [False] * (len(rows) - later) + [True] * later
    assert sum(cell[0].endswith(", the paper") for cell in rows) == 2
    assert ["SEC", "image labels", "nothing"] in [cell[:3] for cell in rows]


def test_table_iv_shows_the_merged_map_on_photographs(results, tmp_path_factory):
    alone = render_published("IV", tmp_path_factory.mktemp("empty"))
    added = render_published("IV", results).removeprefix(alone)
    assert added == "| DSNA, merged, here | image labels | nothing | 44.4 | table_III_voc_vgg16.json |\n"


def test_table_v_is_of_a_split_that_nobody_can_measure_here(results, tmp_path_factory):
    assert render_published("V", results) == render_published("V", tmp_path_factory.mktemp("empty"))


def test_table_vi_shows_every_class_of_either_data_set(results):
    head, _, *rows = cells(render_published("VI", results))
    assert head == [
        "class",
        *(f"paper, {name}" for name in paper.TABLE_VI),
        "DSNA, merged, minivoc",
        "full supervision, minivoc",
        "DSNA, merged, voc_vgg16",
    ]
    by_class = {name: values for name, *values in rows}
    assert list(by_class) == [*paper.TABLE_VI["vgg16-val"], "fox", "mean"]
    assert by_class["background"][-3:] == ["90.0", "95.0", "80.0"]
    assert by_class["cat"][-3:] == ["55.0", "-", "50.0"]
    assert by_class["sheep"][-3:] == ["-", "-", "-"]  # in no picture and no mask
    assert by_class["fox"] == ["-"] * 4 + ["-", "1.0", "-"]
    assert by_class["mean"] == ["55.4", "56.4", "58.2", "60.1", "60.0", "70.0", "44.4"]


@pytest.mark.parametrize("content", ["", '{"values": ', "[]", '{"values": {"rows": [{"title": "DSNA, merged"}]}}'])
def test_a_damaged_result_is_named(results, content):
    (results / "table_III_minivoc.json").write_text(content)
    with pytest.raises(FileError, match="table_III_minivoc.json: "):
        render_published("VI", results)


def test_another_table_is_refused():
    assert list(TITLES) == ["IV", "V", "VI"]
    with pytest.raises(TableError, match="table 'III' was not published so; choose one of IV, V, VI"):
        render_published("III")
