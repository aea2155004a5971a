"""Tables as text: Markdown, LaTeX, CSV and a pandas frame."""

from __future__ import annotations

import pytest

from dsna_lib.tables import render
from dsna_lib.tables.definitions import TableError

VALUES = {
    "columns": ["precision", "iou"],
    "rows": [
        {"title": "a", "paper": {"precision": 52.0, "iou": None}, "mean": {"precision": 50.0, "iou": 40.04}}
        | {"std": {"precision": 1.0, "iou": 0.25}},
        {"title": "b", "paper": {}, "mean": {"precision": 60.0, "iou": 41.0}, "std": {"precision": None, "iou": None}},
    ],
    "claims": [
        {"text": "b beats a", "source": "paper", "difference": 2.0, "low": 1.0, "high": 3.0, "corrected": 0.0004}
        | {"verdict": "holds"},
        {"text": "a ties b", "source": "book", "difference": 0.2, "low": -1.0, "high": 1.5, "corrected": 0.61}
        | {"verdict": "not separated"},
        {"text": "c beats a", "source": "book", "difference": -4.0, "low": None, "high": None, "corrected": None}
        | {"verdict": "one training: no verdict"},
    ],
}


def test_markdown():
    assert render.render_table(VALUES).splitlines() == [
        "|  | precision | IoU | paper: precision |",
        "| --- | ---: | ---: | ---: |",
        "| a | 50.0 ± 1.0 | 40.0 ± 0.2 | 52.0 |",
        "| b | 60.0 | 41.0 | - |",
    ]
    assert render.render_claims(VALUES).splitlines()[1:] == [
        "| --- | --- | ---: | ---: | --- |",
        "| b beats a | paper | +2.0 (+1.0 to +3.0) | < 0.001 | holds |",
        "| a ties b | book | +0.2 (-1.0 to +1.5) | 0.610 | not separated |",
        "| c beats a | book | -4.0 | - | one training: no verdict |",
    ]
    assert render.render_claims({"claims": []}) == ""


def test_columns_of_words_are_aligned_to_the_left():
    rows = [["a", 1.25, None, "long"], ["b", "2.0 ± 0.1", 3, "short"]]
    assert render.markdown(["row", "IoU", "seeds", "note"], rows, words=["note"]) == (
        "| row | IoU | seeds | note |\n"
        "| --- | ---: | ---: | --- |\n"
        "| a | 1.2 | - | long |\n"
        "| b | 2.0 ± 0.1 | 3 | short |\n"
    )
    assert render.markdown(["row", "IoU"], []).splitlines()[1] == "| --- | ---: |"
    with pytest.raises(ValueError, match="no column is named 'notes'; the columns are row, note"):
        render.markdown(["row", "note"], [], words=["notes"])


def test_frame():
    frame = render.frame(VALUES)
    assert frame.index.tolist() == ["a", "b"]
    assert frame["precision", "paper"]["a"] == 52.0
    assert frame["IoU", "mean"].tolist() == [40.04, 41.0]
    assert ("IoU", "paper") not in frame.columns  # the paper prints none


def test_latex_and_csv():
    latex = render.render_table(VALUES, "latex")
    assert r"\toprule" in latex
    assert "a & 50.0 & 1.0 & 52.0 & 40.0" in latex
    assert render.render_table(VALUES, "csv").splitlines()[-1].startswith("b,60.0,")
    with pytest.raises(TableError, match="unknown form 'pdf'; choose one of markdown, latex, csv"):
        render.render_table(VALUES, "pdf")


# --- what is not known, and what to be warned of


def row(title: str, **mean: float) -> dict:
    return {"title": title, "paper": {}, "mean": mean, "std": dict.fromkeys(mean), "seeds": [mean]}


def test_a_row_without_a_measure_has_a_dash_there():
    """A method that annotates nothing has no quality of its annotations."""
    values = {"columns": ["annotation", "iou"], "rows": [row("a", iou=40.0), row("b", annotation=50.0, iou=41.0)]}
    assert render.render_table(values).splitlines()[2:] == ["| a | - | 40.0 |", "| b | 50.0 | 41.0 |"]
    frame = render.frame(values)
    assert frame["IoU of the annotations", "mean"].isna().tolist() == [True, False]
    assert frame["IoU", "mean"].tolist() == [40.0, 41.0]
    assert "a & - & 40.0" in render.render_table(values, "latex")
    assert render.render_table(values, "csv").splitlines()[-2].startswith("a,,40.0")


def test_warnings_stand_below_a_table_in_markdown():
    warnings = ["a, seed 0: the network answers background everywhere", "b, seed 1: 7 of 8 channels are silent"]
    values = VALUES | {"warnings": warnings}
    table = render.render_table(VALUES)
    assert render.render_table(values) == (
        f"{table}\n"
        "- Warning: a, seed 0: the network answers background everywhere.\n"
        "- Warning: b, seed 1: 7 of 8 channels are silent.\n"
    )
    assert render.render_table(VALUES | {"warnings": []}) == table
    for form in ("latex", "csv"):
        assert render.render_table(values, form) == render.render_table(VALUES, form)
