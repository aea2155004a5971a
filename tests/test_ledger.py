"""The ledger leads somewhere: every function, test, chapter, decision and claim that it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from dsna_lib import ledger, paper

ROOT = Path(__file__).resolve().parents[1]
FUNCTIONS = sorted({name for one in ledger.DEFINITIONS for name in one.functions})
TESTS = sorted({one.test for one in (*ledger.DEFINITIONS, *ledger.STATEMENTS) if one.test})
CHAPTERS = sorted({one.chapter for one in (*ledger.DEFINITIONS, *ledger.STATEMENTS) if one.chapter})


def test_every_equation_of_the_paper_is_there_once_and_in_order():
    names = [one.name for one in ledger.DEFINITIONS if one.name.startswith("Eq.")]
    assert names == [f"Eq. {number}" for number in range(1, 17)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_exists(name):
    module, _, function = name.rpartition(".")
    assert callable(getattr(importlib.import_module(f"dsna_lib.{module}"), function))


@pytest.mark.parametrize("name", TESTS)
def test_every_test_exists(name):
    file, _, function = name.partition("::")
    assert f"def {function}(" in (ROOT / "tests" / file).read_text()


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_chapter_exists(number):
    assert len(list((ROOT / "notebooks").glob(f"{number}_*.ipynb"))) == 1


def test_every_reading_leads_to_a_section_of_the_decisions():
    text = (ROOT / "book" / "decisions.md").read_text()
    sections = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall("^## (.*)$", text, re.M)
    }
    for one in ledger.DEFINITIONS:
        assert (one.decision is None) == (one.section is None), one.name
        assert one.section is None or one.section in sections, one.name


def test_every_claim_that_a_statement_names_is_one():
    for one in ledger.STATEMENTS:
        assert len(ledger.claims_of(one)) == len(set(one.claims)) == len(one.claims), one.text


def test_every_claim_of_the_paper_belongs_to_a_statement():
    named = {text for one in ledger.STATEMENTS for text in one.claims}
    assert {claim.text for claim in paper.CLAIMS if claim.source == "paper"} <= named


def test_nothing_is_left_without_an_answer():
    for one in ledger.STATEMENTS:
        assert one.claims or one.evidence or one.test or one.unmeasured, one.text
        assert one.chapter or one.unmeasured, one.text


def test_statements_are_made_once():
    texts = [one.text for one in ledger.STATEMENTS]
    assert len(set(texts)) == len(texts)


def test_claims_are_numbered_by_table():
    numbers = ledger.claim_numbers()
    assert list(numbers) == list(paper.CLAIMS)
    assert len(set(numbers.values())) == len(numbers)
    assert [number for claim, number in numbers.items() if claim.table == "II"] == [f"II.{k}" for k in range(1, 7)]
    assert {number[0] for claim, number in numbers.items() if claim.table == "single-stream"} == {"S"}
