"""The ledger's page: what the paper defines, shows, measures and says, and what became of it here."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

import numpy as np

from dsna_lib import paper
from dsna_lib.book import exhibits, ledger
from dsna_lib.tables.definitions import TABLES
from dsna_lib.tables.render import cell
from dsna_lib.tables.verdicts import trend
from pages.evidence import EVIDENCE
from pages.maps import TRIPLE, judged
from pages.stored import (
    PICTURE_KINDS,
    ROOT,
    UNMEASURED,
    USUAL_NETWORK,
    answers_to,
    by_network,
    in_one_text,
    spread_of,
    spread_on,
    text_table,
    unmeasured,
)

IN_WORDS = {"drawn": "drawn pictures", "photographs": "photographs"}
FINDINGS = (
    "decoupled attention (merged) beats conventional attention in IoU",
    "the merged map beats the single stream in IoU",
    "recall grows with the dropout rate",
)
WORDS = {  # what several, and what one of them does
    "holds": ("hold", "holds"),
    "contradicted": ("are contradicted", "is contradicted"),
    "not separated": ("are not separated", "is not separated"),
    "no verdict": ("have no verdict", "has no verdict"),
}


def chapter_link(number: str | None) -> str | None:
    """A link to a chapter, by its number or name."""
    if number is None:
        return None
    (path,) = (ROOT / "notebooks").glob(f"{number[:2]}_*.ipynb")
    return f"[{number[:2]}](../notebooks/{path.name})"


def _function(name: str) -> str:
    """A link to the reference."""
    return f"{{py:obj}}`{name} <dsna_lib.{name}>`"


def _test(name: str) -> str:
    """A test's file; its own name is too long for a table and stands in ``book/ledger.yaml``."""
    return f"`{name.partition('::')[0]}`"


def definitions() -> str:
    """Equations and steps: chapter, function, how they are read, and the test that holds the code against them."""
    rows = []
    for each in ledger.load().definitions:
        read_as = f"[{each.decision}](decisions.md#{each.section})" if each.decision else "as printed"
        functions = ", ".join(map(_function, each.functions))
        rows.append([each.name, each.text, chapter_link(each.chapter), functions, read_as, _test(each.test)])
    return text_table(["where", "what", "chapter", "function", "read here", "test"], rows)


def figures_of_the_paper() -> str:
    """The paper's figures: chapter and command, or what the book has instead."""
    rows = [[name.replace("-", " "), None, "a drawing", where] for name, where in exhibits.DRAWINGS.items()]
    for exhibit in exhibits.EXHIBITS:
        kind, _, number = exhibit.name.partition("-")
        if kind == "figure":
            rows.append([f"figure {number}", chapter_link(exhibit.chapter), exhibit.title, f"`dsna figure {number}`"])
    return text_table(["figure", "chapter", "what it shows", "here"], rows)


def tables_of_the_paper() -> str:
    """Every row that the paper measured itself: its numbers, and ours with their spread."""
    printed = {
        "I": (TRIPLE, paper.TABLE_I),
        "II": (TRIPLE, {f"{rate:g}": row for rate, row in paper.TABLE_II.items()}),
        "single-stream": (TRIPLE, {"single stream": paper.SINGLE_STREAM}),
        "III": (("iou",), {row.title: {"iou": row.miou} for row in paper.TABLE_III}),
    }
    rows = []
    for table, (columns, lines) in printed.items():
        for title, numbers in lines.items():
            ours = [spread_on(table, title, columns, pictures) for pictures in PICTURE_KINDS]
            rows.append([table, title, " / ".join(cell(numbers[name]) for name in columns), *ours])
    for name, mean in paper.TABLE_VI_MEAN.items():
        network, split = ("VGG-16" if name.startswith("vgg16") else "ResNet-101"), name.partition("-")[2]
        here = by_network("III", "photographs").get(network)
        spread = spread_of(here, "DSNA, merged", ("iou",)) if here and split == "val" else None
        why = "the test server was not asked" if split == "test" else UNMEASURED
        rows.append(
            ["V and VI" if split == "test" else "IV and VI", f"{network}, {split}", cell(mean), "-", spread or why]
        )
    rows = [[row[0], chapter_link(exhibits.find(row[0].partition(" ")[0]).chapter), *row[1:]] for row in rows]
    return text_table(["table", "chapter", "row", "paper", *PICTURE_KINDS], rows)


def printed(claim: paper.Claim) -> float | None:
    """The difference that the paper's own numbers have, in points; None where it prints none."""
    if claim.table == "III":
        scores = {title: {"iou": miou} for title, miou in paper.MIOU.items()}
    else:
        table = TABLES.get(claim.table)
        scores = {row.title: dict(row.paper) for row in table.rows} if table else {}
    numbers = [scores.get(title, {}).get(claim.measure) for title in claim.rows]
    if claim.source != "paper" or None in numbers:
        return None
    return float(np.dot(trend(numbers), numbers))


def claims() -> str:
    """Every claim: by how much it holds in the paper's numbers and here, and the verdict, on each kind of pictures."""
    rows = []
    for claim, number in ledger.claim_numbers().items():
        answers = [
            in_one_text(pictures, {network: judged(each) for network, each in answers_to(claim, pictures).items()})
            or unmeasured(claim.table, pictures)
            for pictures in PICTURE_KINDS
        ]
        theirs = printed(claim)
        rows.append([number, claim.text, claim.source, "-" if theirs is None else f"{theirs:+.1f}", *answers])
    return text_table(["number", "claim", "whose", "the paper's difference", *PICTURE_KINDS], rows)


def claims_csv() -> str:
    """The same as a file, a line for each claim, kind of pictures and network that measured it."""
    file = io.StringIO()
    names = ("difference", "low", "high", "p", "corrected", "trainings", "verdict")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["number", "claim", "source", "paper", "pictures", "network", *names])
    for claim, number in ledger.claim_numbers().items():
        theirs = printed(claim)
        for pictures in PICTURE_KINDS:
            for network, each in answers_to(claim, pictures).items():
                said = ["" if each[name] is None else each[name] for name in names]
                known = "" if theirs is None else round(theirs, 2)
                writer.writerow([number, claim.text, claim.source, known, pictures, network, *said])
    return file.getvalue()


def summary() -> str:
    """How the paper's own claims fared, in a sentence for each kind of pictures."""
    sentences = []
    for pictures in PICTURE_KINDS:
        given = [
            each["verdict"]
            for claim in paper.CLAIMS
            if claim.source == "paper" and (each := answers_to(claim, pictures).get(USUAL_NETWORK[pictures]))
        ]
        known = {said: given.count(said) for said in ("holds", "contradicted", "not separated")}
        counts = [f"{number} {WORDS[said][number == 1]}" for said, number in known.items() if number]
        if rest := len(given) - sum(known.values()):
            counts.append(f"{rest} {WORDS['no verdict'][rest == 1]}, for want of trainings")
        sentences.append(
            f"Of the {len(given)} claims of the paper measured on {IN_WORDS[pictures]}, {_listed(counts)}."
        )
    return " ".join(sentences) + "\n"


def findings() -> str:
    """The claims that matter most, each with its difference, interval and verdict on drawn pictures."""
    lines = []
    for text in FINDINGS:
        claim = next(claim for claim in paper.CLAIMS if claim.text == text)
        each, theirs = answers_to(claim, "drawn")[USUAL_NETWORK["drawn"]], printed(claim)
        known = "" if theirs is None else f"; the paper's numbers: {theirs:+.1f}"
        lines.append(f"- *{text[0].upper() + text[1:]}*: {judged(each)}{known}.")
    return "\n".join(lines) + "\n"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def statements() -> str:
    """What the paper says in words, and what became of it."""
    rows = [[each.section, each.text, chapter_link(each.chapter), _answer(each)] for each in ledger.load().statements]
    return text_table(["section", "the paper says", "chapter", "here"], rows)


def _answer(statement: ledger.Statement) -> str:
    """Everything that answers a statement, in one cell."""
    parts = verdicts(ledger.claims_of(statement))
    parts += [EVIDENCE[name]() or UNMEASURED for name in statement.evidence]
    if statement.test:
        parts.append(f"by construction: {_test(statement.test)}")
    if statement.unmeasured:
        parts.append(f"{'open' if parts else 'not measured'}: {statement.unmeasured}")
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def verdicts(several: Sequence[paper.Claim]) -> list[str]:
    """The verdicts on several claims, those that are alike together, for each kind of pictures."""
    numbers, parts = ledger.claim_numbers(), []
    for pictures in PICTURE_KINDS:
        alike: dict[str, list[str]] = {}
        for claim in several:
            given = {network: each["verdict"] for network, each in answers_to(claim, pictures).items()}
            text = in_one_text(pictures, given) or unmeasured(claim.table, pictures)
            alike.setdefault(text, []).append(numbers[claim])
        alike.pop("-", None)
        if set(alike) - {UNMEASURED}:
            answered_first = sorted(alike.items(), key=lambda item: item[0] == UNMEASURED)
            parts.append(f"{pictures}: " + "; ".join(f"{text} [{', '.join(which)}]" for text, which in answered_first))
    if several and not parts:
        parts.append(f"{UNMEASURED} [{', '.join(numbers[claim] for claim in several)}]")
    return parts


BLOCKS: dict[str, Callable[[], str]] = {
    block.__name__: block
    for block in (definitions, figures_of_the_paper, tables_of_the_paper, claims, summary, findings, statements)
}
