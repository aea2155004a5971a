"""The ledger leads somewhere: every function, test, chapter, decision and claim that it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from dsna_lib import paper
from dsna_lib.book import ledger

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ledger.load()
ENTRIES = (*LEDGER.definitions, *LEDGER.statements)
FUNCTIONS = sorted({name for definition in LEDGER.definitions for name in definition.functions})
TESTS = sorted({entry.test for entry in ENTRIES if entry.test})
CHAPTERS = sorted({entry.chapter for entry in ENTRIES if entry.chapter})


def test_every_equation_of_the_paper_is_there_once_and_in_order():
    names = [definition.name for definition in LEDGER.definitions if definition.name.startswith("Eq.")]
    assert names == [f"Eq. {number}" for number in range(1, 17)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_exists(name):
    module, _, function = name.rpartition(".")
    assert callable(getattr(importlib.import_module(f"dsna_lib.{module}"), function))


@pytest.mark.parametrize("name", TESTS)
def test_every_test_exists(name):
    file, _, function = name.partition("::")
    paths = list((ROOT / "tests").rglob(file))
    assert len(paths) == 1, f"{len(paths)} files are named {file}"
    assert re.search(rf"^def {function}\(", paths[0].read_text(), re.MULTILINE), f"{paths[0]} has no {function}"


@pytest.mark.parametrize("number", CHAPTERS)
def test_every_chapter_exists(number):
    assert len(list((ROOT / "notebooks").glob(f"{number}_*.ipynb"))) == 1


def test_every_reading_leads_to_a_section_of_the_decisions():
    text = (ROOT / "book" / "decisions.md").read_text()
    sections = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall("^## (.*)$", text, re.M)
    }
    for definition in LEDGER.definitions:
        assert (definition.decision is None) == (definition.section is None), definition.name
        assert definition.section is None or definition.section in sections, definition.name


def test_every_claim_that_a_statement_names_is_one():
    for statement in LEDGER.statements:
        assert len(ledger.claims_of(statement)) == len(set(statement.claims)) == len(statement.claims), statement.text


def test_every_claim_of_the_paper_belongs_to_a_statement():
    named = {text for statement in LEDGER.statements for text in statement.claims}
    assert {claim.text for claim in paper.CLAIMS if claim.source == "paper"} <= named


def test_nothing_is_left_without_an_answer():
    for statement in LEDGER.statements:
        answers = (statement.claims, statement.evidence, statement.test, statement.unmeasured)
        assert any(answers), statement.text
        assert statement.chapter or statement.unmeasured, statement.text


def test_statements_are_made_once():
    texts = [statement.text for statement in LEDGER.statements]
    assert len(set(texts)) == len(texts)


def test_claims_are_numbered_by_table():
    numbers = ledger.claim_numbers()
    assert list(numbers) == list(paper.CLAIMS)
    assert len(set(numbers.values())) == len(numbers)
    assert [number for claim, number in numbers.items() if claim.table == "II"] == ["II.1", "II.2", "II.3", "II.4"]
    assert {number[0] for claim, number in numbers.items() if claim.table == "single-stream"} == {"S"}


# --- the file


DEFINITION = """\
definitions:
  - name: Eq. 1
    text: $z = F(w^\\top x + b)$
    chapter: "03"
    functions: [attention.ConventionalAttention]
    test: test_attention.py::test_conventional_is_eq_1_to_4
"""
STATEMENT = """\
statements:
  - section: I
    text: Masks are expensive.
    unmeasured: others took the time
"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.yaml"


def test_what_the_file_leaves_out_is_empty(file):
    file.write_text(DEFINITION + STATEMENT)
    (definition,), (statement,) = ledger.load(file).definitions, ledger.load(file).statements
    assert definition.text == r"$z = F(w^\top x + b)$"
    assert definition.functions == ("attention.ConventionalAttention",)
    assert (definition.decision, statement.claims, statement.chapter) == (None, (), None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DEFINITION, "must hold definitions and statements"),
        (DEFINITION + "statements:\n", "must hold definitions and statements"),
        ("- Eq. 1", "must hold definitions and statements"),
        ("definitions: [", "cannot be read"),
        (
            DEFINITION.replace("chapter:", "chaptr:") + STATEMENT,
            "definitions, entry 1: unknown key chaptr; did you mean",
        ),
        (DEFINITION.replace('"03"', "03") + STATEMENT, "definitions, entry 1: chapter=3 must be a text"),
        (DEFINITION.replace("[attention.ConventionalAttention]", "x") + STATEMENT, "functions='x' must be a list"),
        (DEFINITION + STATEMENT.replace("    text: Masks are expensive.\n", ""), "statements, entry 1: .*'text'"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused(file, text, reason):
    file.write_text(text)
    with pytest.raises(ledger.LedgerError, match=reason):
        ledger.load(file)


def test_a_missing_file_is_named(file):
    with pytest.raises(ledger.LedgerError, match=r"ledger\.yaml.*it comes with the book's repository"):
        ledger.load(file)
