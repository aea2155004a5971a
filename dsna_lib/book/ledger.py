"""The ledger: what the paper defines and what it says, and where this book makes it or puts it to the test.

Its entries stand in ``book/ledger.yaml``; the page *Claims ledger* is made from them and from ``results/``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from dsna_lib import paper
from dsna_lib.engine import fields
from dsna_lib.engine.errors import DsnaError, SettingError
from dsna_lib.paper import Claim

PATH = Path(__file__).resolve().parents[2] / "book" / "ledger.yaml"


class LedgerError(DsnaError, ValueError):
    """A file that is no ledger; the message names the file, the entry and the key."""


@dataclass(frozen=True)
class Definition:
    """An equation of the paper, or a step that it gives in words."""

    name: str  #: its number, or its section
    text: str  #: what it defines, as Markdown
    chapter: str  #: its number, as in the notebook's name
    functions: tuple[str, ...]  #: what computes it, within ``dsna_lib``
    test: str  #: what holds the code against it: ``FILE::FUNCTION``, the file by its name alone, anywhere in ``tests/``
    decision: str | None = None  #: how it is read where it leaves something open; None where it is taken as printed
    section: str | None = None  #: of the page on decisions that gives the reason, as its anchor


@dataclass(frozen=True)
class Statement:
    """Something that the paper says about the world, and what answers it."""

    section: str  #: of the paper
    text: str  #: what it says, in our words
    chapter: str | None = None  #: its number, as in the notebook's name; None where no chapter takes it up
    claims: tuple[str, ...] = ()  #: texts of :data:`dsna_lib.paper.CLAIMS` that it comes down to
    evidence: tuple[str, ...] = ()  #: names of further measurements, each a function of ``tools/pages/evidence.py``
    test: str | None = None  #: what shows it, where it is true by construction: ``FILE::FUNCTION``
    unmeasured: str | None = None  #: why nothing here answers it, or what of it stays open


@dataclass(frozen=True)
class Ledger:
    """Both lists, in the order of the paper."""

    definitions: tuple[Definition, ...]
    statements: tuple[Statement, ...]


def load(path: str | Path = PATH) -> Ledger:
    """Read the ledger: a YAML file with a list of ``definitions`` and one of ``statements``.

    Raises:
        LedgerError: a file that cannot be read, an unknown or missing key, or a value that is no text.
    """
    lists = {"definitions": Definition, "statements": Statement}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise LedgerError(f"the ledger cannot be read: {error}", "it comes with the book's repository") from None
    if not isinstance(content, dict) or set(content) != set(lists) or not all(content.values()):
        raise LedgerError(f"{path} must hold {' and '.join(lists)}")
    entries = {
        name: tuple(_entry(kind, entry, f"{path}: {name}, entry {k}") for k, entry in enumerate(content[name], start=1))
        for name, kind in lists.items()
    }
    return Ledger(**entries)


def _entry(kind: Any, content: dict[str, Any], where: str) -> Any:
    types = fields.types_of(kind)
    try:
        if unknown := [name for name in content if name not in types]:
            raise SettingError(f"unknown key {unknown[0]}{fields.nearest(str(unknown[0]), types)}")
        return kind(**{name: fields.checked(value, types[name], {}, name) for name, value in content.items()})
    except (SettingError, TypeError) as error:  # a TypeError names the key that is missing
        raise LedgerError(f"{where}: {error}") from None


def claim_numbers() -> dict[Claim, str]:
    """Each of :data:`dsna_lib.paper.CLAIMS` to its number in the ledger: its table and its place there.

    S is the single stream; M, P and R are the book's own tables of methods, of parts and of readings (sensitivity).

    Example:
        >>> list(claim_numbers().values())[:2]
        ['I.1', 'I.2']
    """
    short = {"single-stream": "S", "methods": "M", "parts": "P", "sensitivity": "R"}
    places: defaultdict[str, count[int]] = defaultdict(lambda: count(1))
    return {claim: f"{short.get(claim.table, claim.table)}.{next(places[claim.table])}" for claim in paper.CLAIMS}


def claims_of(statement: Statement) -> list[Claim]:
    """The claims that a statement comes down to, in the order of :data:`dsna_lib.paper.CLAIMS`.

    Example:
        >>> [claim.table for claim in claims_of(load().statements[2])]  # doctest: +SKIP
        ['parts']
    """
    return [claim for claim in paper.CLAIMS if claim.text in statement.claims]
