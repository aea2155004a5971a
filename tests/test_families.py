"""The pages of the families: every method is on one of them, and what its table says is read where it stands."""

import re
from pathlib import Path
from typing import get_args

import fill_results
import pytest
from pages import families

from dsna_lib.methods import rows
from dsna_lib.methods.base import Help
from dsna_lib.methods.rows import METHODS

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "interactive": "interactive",
    "external": "external",
    "labels_alone": "labels_alone",
    "later": "labels_alone",
}
ENTRIES = [entry for entries in families.FAMILIES.values() for entry in entries]


def test_every_row_of_table_iv_and_every_later_method_has_its_place() -> None:
    titles = [entry.title for entry in ENTRIES]
    wanted = {method.title for method in (*rows.TABLE_IV, *rows.LATER)} - {"full supervision"}
    assert set(titles) == wanted | {"AE, step 3"}
    assert len(titles) == len(set(titles))
    assert [entry.title for entry in families.INTERACTIVE] == [method.title for method in rows.INTERACTIVE]
    assert [entry.title for entry in families.LATER] == [method.title for method in rows.LATER]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.title)
def test_what_is_printed_is_what_the_library_quotes(entry: families.Entry) -> None:
    assert families.printed(entry).val == METHODS[entry.title].paper
    assert entry.cite in families.years()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.title)
def test_an_idea_is_one_sentence_that_only_one_method_has(entry: families.Entry) -> None:
    assert not re.search(r"\.\s|[.|\n]$", entry.idea)
    assert entry.idea[0].islower()
    assert [each.title for each in ENTRIES if each.idea == entry.idea] == [entry.title]


def test_what_a_method_is_told() -> None:
    told = {entry.title: families.told(entry) for entry in ENTRIES}
    assert told["BoxSup"] == "`boxes`"
    assert told["STC"] == "web images; here `saliency`"
    assert told["AF-MCG"] == "MCG proposals; here nothing"
    assert told["SEAM"] == "-"


def test_whose_score_is_meant() -> None:
    scores = {entry.title: families.score(entry) for entry in ENTRIES}
    assert scores["DCSP"] == "58.6 (VGG-16)"
    assert scores["AE, step 3"] == "50.9"
    with pytest.raises(ValueError, match="too many values"):
        families.printed(families.Entry("DCSP", "dcsp", "chaudhry2017dcsp", "both networks"))


def test_lines_are_those_of_the_file() -> None:
    by_hand = (ROOT / "dsna_lib" / "methods" / "mil_fcn.py").read_text().count("\n")
    assert families.lines(families.LABELS_ALONE[0]) == by_hand
    assert f" | {by_hand} | 25.7 |" in families.family(families.LABELS_ALONE)


def test_kinds_of_help_lists_who_is_told_something() -> None:
    lines = families.who_is_told_what().splitlines()[2:]
    helped = [method for method in (*rows.TABLE_IV, *rows.LATER) if method.needs > rows.MIL_FCN.needs]
    assert len(lines) == len(helped)
    assert all(set(re.findall(r"`(\w+)`", line.split("|")[2])) <= set(get_args(Help)) for line in lines)
    assert lines[-1].endswith("| `masks` | the network learns from the true masks |")


@pytest.mark.parametrize(("family", "page"), PAGES.items())
def test_every_method_has_a_paragraph_and_its_citation(family: str, page: str) -> None:
    text = (ROOT / "book" / "families" / f"{page}.md").read_text()
    assert f"<!-- results: family_{family} -->" in text
    parts = dict(re.findall(r"(?ms)^##+ (.+?)\n\n(.*?)(?=^##|\Z)", fill_results.BLOCK.sub("", text)))
    for entry in families.FAMILIES[family]:
        part = parts[entry.name or entry.title]
        assert f"{{cite}}`{entry.cite}`" in part
        assert f"<dsna_lib.methods.{entry.file}>`" in part
        assert 60 <= len(part.split("\n\n")[0].split()) <= 120, entry.title
