"""Pages state what `results/` holds: nothing typed, nothing stale."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import scripts

from dsna_lib import ledger, paper, pipelines

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "results").glob("*.json"))


TOOL = scripts.load("tools/fill_results.py")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The tool over a copy of the results in a folder of its own, and that folder."""
    tool = scripts.load("tools/fill_results.py")
    (tmp_path / "results").mkdir()
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    for path in RESULTS:
        if not path.stem.startswith(("table_III", "chapters")):
            (tmp_path / "results" / path.name).write_text(path.read_text())
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    return tool, tmp_path / "results"


def segmentation_result(*titles: str) -> dict:
    """A file of Table III with made-up numbers: each row one point above the row before."""
    rows = []
    for step, title in enumerate(titles):
        mean = {"annotation": 30.0 + step, "single": 40.0 + step, "multi": 41.0 + step, "iou": 42.0 + step}
        one = {"mean": mean, "std": dict.fromkeys(mean), "seeds": [mean]}
        rows.append({"title": title, "paper": {}, "per_class": {}} | one)
    text = next(claim.text for claim in paper.CLAIMS if claim.rows == titles)
    claim = {
        "text": text,
        "source": "paper",
        "differences": [1.0],
        "interval": [0.5, 1.5],
        "verdict": "holds (one training)",
    }
    values = {"table": "III", "title": pipelines.TITLES["III"], "columns": list(mean), "rows": rows, "claims": [claim]}
    how = {"pictures": {"mining": 3398, "train": 3398, "val": 500}, "protocol": "annotations of 224 x 224 input"}
    return {"values": values, "provenance": how | {"environment": {}}}


@pytest.mark.parametrize("page", TOOL.PAGES)
def test_pages_state_what_was_measured(page):
    text = (ROOT / page).read_text()
    assert TOOL.filled(text) == text, f"{page} and results/ differ: run python tools/fill_results.py"
    assert "<!-- result" in text


def test_no_page_with_a_marker_is_forgotten():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("book/**/*.md"), *ROOT.glob("dsna_lib/**/*.md")]
    marked = {str(page.relative_to(ROOT)) for page in pages if "<!-- result" in page.read_text()}
    assert marked == set(TOOL.PAGES)


def test_what_the_ledger_lists_stands_nowhere_else():
    listed = [name for _, name, _ in TOOL.BLOCK.findall((ROOT / "book" / "claims.md").read_text())]
    assert "claims" in listed
    others = "".join((ROOT / page).read_text() for page in TOOL.PAGES if page != "book/claims.md")
    assert [name for name in listed if f"<!-- results: {name} -->" in others] == []


@pytest.mark.parametrize("table", ["claims", "claims_again", "relations", "statements", "definitions", "origins"])
def test_tables_of_words_are_aligned_to_the_left(table):
    assert set(TOOL.RENDERERS[table]().splitlines()[1].split()) == {"|", "---"}


def test_a_changed_number_is_noticed():
    text = (ROOT / "README.md").read_text()
    row = next(line for line in TOOL.table1().splitlines() if line.startswith("| merged |"))
    assert row in text
    assert TOOL.filled(text.replace(row, row.replace("44.0", "45.0"))) == text


def test_a_number_within_a_sentence():
    marked = "an IoU of <!-- result: table_I_voc_vgg16 values/rows/merged/mean/iou -->{}<!-- / --> percent"
    assert TOOL.filled(marked.format("99.9")) == marked.format("35.5")
    count = "<!-- result: table1_vgg16 provenance/trained/data/pictures -->{}<!-- / -->"
    assert TOOL.filled(count.format(0)) == count.format("3,398")


@pytest.mark.parametrize("path", ["values/rows/nothing/mean", "values/row/merged"])
def test_a_path_that_leads_nowhere_is_refused(path):
    with pytest.raises(KeyError):
        TOOL.number("table_I_voc_vgg16", path)


# A number in quotation marks is an example.
MEASURED = re.compile(r"(?<![\"\d.])\d+\.\d+ (?:%|points|percent|ms|seconds)|IoU (?:of|is|was) \d")


@pytest.mark.parametrize("page", sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("book/*.md")))
def test_no_measured_number_is_typed(page):
    text = (ROOT / page).read_text()
    for made in (TOOL.BLOCK, TOOL.NUMBER):
        text = made.sub("", text)
    assert MEASURED.findall(text) == [], "put it between markers, see tools/fill_results.py"


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_results_say_where_they_come_from(path):
    content = json.loads(path.read_text())
    assert content["values"]
    assert content["provenance"]["environment"]["commit"]
    assert content["provenance"]["environment"]["packages"]["torch"]


# --- the ledger


def test_all_evidence_that_a_statement_names_is_measured_by_something():
    named = {name for one in ledger.STATEMENTS for name in one.evidence}
    assert named == set(TOOL.EVIDENCE)


def test_every_statement_has_its_line_and_its_answer():
    lines = TOOL.statements().splitlines()[2:]
    assert len(lines) == len(ledger.STATEMENTS)
    for line, one in zip(lines, ledger.STATEMENTS, strict=True):
        assert line.startswith(f"| {one.section} | {one.text} |")
        assert line.split(" | ")[-1].strip(" |").endswith("."), line


def test_every_claim_is_listed_whether_measured_or_not(elsewhere):
    tool, _ = elsewhere
    lines = tool.claims().splitlines()[2:]
    assert len(lines) == len(paper.CLAIMS)
    third = [line for line in lines if line.startswith("| III.")]
    assert third
    assert all(line.endswith("| not measured yet | not measured yet |") for line in third)


def test_alike_verdicts_stand_together():
    first = [claim for claim in paper.CLAIMS if claim.table == "I"][:2]
    assert TOOL._verdicts(first) == ["drawn: holds [I.1, I.2]", "photographs: holds (one training) [I.1, I.2]"]


def test_photographs_are_not_asked_for_parts():
    (claim,) = [c for c in paper.CLAIMS if c.text.startswith("CAM covers less")]
    (said,) = TOOL._verdicts([claim])
    assert said.startswith("drawn: ")


@pytest.mark.parametrize(("file", "name"), [("vgg16", ""), ("efficientnet_lite0", "EfficientNet-lite0: ")])
def test_table_iii_is_picked_up_when_it_is_there(elsewhere, file, name):
    tool, results = elsewhere
    assert tool.segmentation("photographs") == "*On photographs: not measured yet.*\n"
    assert "III.6" in tool.statements()
    found = segmentation_result("DSNA, expansive", "DSNA, merged")
    (results / f"table_III_voc_{file}.json").write_text(json.dumps(found))
    assert "| DSNA, merged | 31.0 | 41.0 | 42.0 | 43.0 |" in tool.segmentation("photographs")
    assert "3,398 pictures to mine" in tool.segmentation("photographs")
    (line,) = [line for line in tool.claims().splitlines() if line.startswith("| III.6 |")]
    assert line.endswith(f"| not measured yet | {name}holds (one training): +1.0 (+0.5 to +1.5) |")
    (line,) = [line for line in tool.tables_of_the_paper().splitlines() if "| DSNA, merged |" in line]
    assert line.endswith(f"| 55.4 | not measured yet | {name}43.0 |")
    assert f"photographs: {name}holds (one training) [III.6]" in tool.statements().replace("Photographs", "photographs")


def test_several_networks_are_all_named_and_those_that_agree_together(elsewhere):
    tool, results = elsewhere
    for file in ("vgg16", "efficientnet_lite0"):
        found = segmentation_result("DSNA, expansive", "DSNA, merged")
        (results / f"table_III_voc_{file}.json").write_text(json.dumps(found))
    assert "Photographs: VGG-16 and EfficientNet-lite0: holds (one training) [III.6]" in tool.statements()
    found["values"]["claims"][0]["verdict"] = "does not hold"
    (results / "table_III_voc_efficientnet_lite0.json").write_text(json.dumps(found))
    (line,) = [line for line in tool.claims().splitlines() if line.startswith("| III.6 |")]
    assert "| VGG-16: holds (one training): +1.0 (+0.5 to +1.5); EfficientNet-lite0: does not hold: +1.0" in line


def test_better_annotations_and_better_masks(elsewhere):
    tool, results = elsewhere
    assert tool.annotations_and_masks() is None
    titles = ("AE, step 1", "AE, step 2", "AE, step 3")
    (results / "table_III_minivoc.json").write_text(json.dumps(segmentation_result(*titles)))
    assert tool.annotations_and_masks().endswith("drawn +1.00 over 3 rows")


# --- the last run


def test_the_last_run_is_shown_once_it_was_timed(elsewhere):
    tool, results = elsewhere
    assert tool.chapter_times() == tool.machine() == tool.UNTIMED
    times = {
        "01_labels_without_masks": {"seconds": 9.6, "peak_mib": 780},
        "03_spatial_attention": {"seconds": 30.2, "peak_mib": 1900},
    }
    where = {
        "time": "2026-01-01T00:00:00+00:00",
        "commit": "abc",
        "system": "Linux",
        "device": "CPU, 2 cores",
        "python": "3.11.7",
    }
    how = {"processor": "a processor", "memory_gib": 8, "tools": {"papermill": "2.7.0"}}
    how["environment"] = where | {"packages": {"torch": "2.15.0", "pydensecrf2": None}}
    values = {"chapters": times, "seconds": 25.3}
    (results / "chapters.json").write_text(json.dumps({"values": values, "provenance": how}))
    assert tool.chapter_times().splitlines()[-1] == "| all, two at a time | 25 | 1,900 |"
    assert "| [01](../notebooks/01_labels_without_masks.ipynb) | 10 | 780 |" in tool.chapter_times()
    assert "| torch | 2.15.0 |\n| pydensecrf2 | - |\n| papermill | 2.7.0 |" in tool.machine()


def test_every_file_of_results_has_its_line():
    lines = TOOL.origins().splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == [path.name for path in RESULTS]
