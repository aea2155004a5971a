"""Pages state what `results/` holds: nothing typed, nothing stale."""

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOL = runpy.run_path(str(ROOT / "tools" / "fill_results.py"))
RESULTS = sorted((ROOT / "results").glob("*.json"))


@pytest.mark.parametrize("page", TOOL["PAGES"])
def test_pages_state_what_was_measured(page):
    text = (ROOT / page).read_text()
    assert TOOL["filled"](text) == text, f"{page} and results/ differ: run python tools/fill_results.py"
    assert "<!-- results:" in text


def test_a_changed_number_is_noticed():
    text = (ROOT / "README.md").read_text()
    row = next(line for line in TOOL["table1"]().splitlines() if line.startswith("| merged |"))
    assert row in text
    assert TOOL["filled"](text.replace(row, row.replace("44.0", "45.0"))) == text


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_results_say_where_they_come_from(path):
    content = json.loads(path.read_text())
    assert content["values"]
    assert content["provenance"]["environment"]["commit"]
    assert content["provenance"]["environment"]["packages"]["torch"]
