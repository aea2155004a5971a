"""Tables name only what can be made and measured, and the claims about them hold in the paper's own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest

from dsna_lib import paper
from dsna_lib.methods import rows
from dsna_lib.methods.rows import METHODS
from dsna_lib.tables import measure, render, segmentation
from dsna_lib.tables.definitions import TABLES, Row, Table, TableError, find_table, protocols_of
from dsna_lib.tables.measure import MapProtocol


@pytest.mark.parametrize("table", TABLES.values(), ids=lambda table: table.name)
def test_every_row_can_be_made(table):
    titles = [row.title for row in table.rows]
    assert len(set(titles)) == len(titles)
    for row in table.rows:
        assert row.protocol.map in measure.MAPS_OF[row.head.head], row.title
        assert row.protocol in protocols_of(row.head)
    assert set(table.columns) <= set(render.COLUMN_TITLES)


# Measures of single objects that claims are about and tables need not show.
OF_OBJECTS = {"precision_small", "recall_large", "telling", "telling_oracle"}


def printed(table: str) -> tuple[dict[str, Mapping[str, float | None]], set[str]]:
    """What the paper prints for each row of a table, and the table's columns."""
    if table in ("III", "IV"):
        return {m.title: {} if m.paper is None else {"iou": m.paper} for m in METHODS.values()}, {*segmentation.COLUMNS}
    if table == "VI":
        means = paper.TABLE_VI_MEAN
        return {"VGG-16": {"iou": means["vgg16-val"]}, "ResNet-101": {"iou": means["resnet-val"]}}, {"iou"}
    definition = find_table(table)
    return {row.title: row.paper for row in definition.rows}, set(definition.columns)


@pytest.mark.parametrize("claim", paper.CLAIMS, ids=lambda claim: f"{claim.table}-{claim.text}")
def test_claims_are_about_rows_that_exist_and_hold_in_the_papers_own_numbers(claim):
    numbers, columns = printed(claim.table)
    assert set(claim.rows) <= set(numbers)
    assert claim.measure in columns | OF_OBJECTS
    scores = [numbers[title].get(claim.measure) for title in claim.rows]
    if claim.source == "paper" and claim.measure in columns:
        assert all(low < high for low, high in pairwise(scores))
    elif claim.source == "paper":
        assert set(scores) == {None}


def test_ten_claims_carry_the_paper():
    assert sum(claim.key for claim in paper.CLAIMS) == 10
    assert {claim.source for claim in paper.CLAIMS if claim.key} == {"paper"}


def test_the_papers_rows_are_the_papers():
    assert [row.paper["iou"] for row in TABLES["I"].rows] == [42.1, 39.4, 44.0]
    assert {row.title: row.head.dropout for row in TABLES["II"].rows}["0.7"] == 0.7
    assert TABLES["single-stream"].rows[0].paper == paper.SINGLE_STREAM


@pytest.mark.parametrize("name", ["methods", "parts"])
def test_tables_of_methods_have_a_row_a_method(name):
    table = TABLES[name]
    assert [(row.title, row.head, row.protocol) for row in table.rows] == [
        (method.title, method.head, MapProtocol(method.kind)) for method in rows.MINING
    ]
    assert [row.title for row in table.rows] == [
        "CAM",
        "Grad-CAM",
        "excitation backprop",
        "contrastive excitation backprop",
        "conventional attention",
        "DSNA, expansive",
        "DSNA, discriminative",
        "DSNA, merged",
    ]
    assert {row.title: row.paper for row in table.rows if row.paper} == {
        f"DSNA, {kind}": scores for kind, scores in paper.TABLE_I.items()
    }


def test_a_method_more_is_a_row_more():
    """A table's own rows are measured with the head's others, in one pass."""
    method = replace(rows.MINING[0], title="CAM once more", kind="grad_cam")
    own = Table("own", "Mine", (Row(method.title, method.head, MapProtocol(method.kind, upsample_first=False)),))
    usual = protocols_of(method.head)
    assert protocols_of(method.head, own) == [*usual, MapProtocol("grad_cam", upsample_first=False)]
    assert len(set(usual)) == len(usual)


def test_an_unknown_table_or_row_is_refused_with_what_there_is():
    with pytest.raises(
        TableError, match="unknown table 'VII'; did you mean 'II'.*; choose one of I, II, single-stream"
    ):
        find_table("VII")
    with pytest.raises(TableError, match=r"table II has no row '0\.2'; its rows are 0; 0\.3"):
        find_table("II").select(["0.5", "0.2"])
    assert [row.title for row in find_table("II").select(["0.5", "0"]).rows] == ["0", "0.5"]
