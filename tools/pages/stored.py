"""Files of ``results/``: reading them, finding those of a table, and saying which are older than the library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dsna_lib import paper
from dsna_lib.engine.files import read_json
from dsna_lib.tables.render import cell, markdown

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results"
MODELS = {"vgg16": "VGG-16", "lite0": "EfficientNet-lite0"}  # by the ends of their files' names
NETWORKS = {
    "vgg16": "VGG-16",
    "efficientnet_lite0": "EfficientNet-lite0",
    "resnet50_caffe": "ResNet-50",
    "resnet101": "ResNet-101",
}
USUAL_NETWORK = {"drawn": "EfficientNet-lite0", "photographs": "VGG-16"}
PICTURE_KINDS = tuple(USUAL_NETWORK)
DATA = {"drawn": "minivoc", "photographs": "voc_vgg16"}  # the files of a table with the usual network
UNMEASURED = "not measured yet"

# Files whose numbers come from trainings, not from clocks alone.
TRAINED = ("table", "sensitivity_", "overfit")
_records: list[dict[str, dict[str, Any]]] = []  # one for each `recorded` that is open


def read(name: str) -> dict[str, Any]:
    """One file of results: ``values`` and ``provenance``."""
    content = read_json(FOLDER / f"{name}.json", {"values": object, "provenance": dict})
    for record in _records:
        record[name] = content
    return content


def values(name: str) -> Any:
    """What one file of results holds."""
    return read(name)["values"]


# --- what is older than the library -----------------------------------------------------------------------------------


@contextmanager
def recorded() -> Iterator[dict[str, dict[str, Any]]]:
    """The files that are read within: name to content."""
    record: dict[str, dict[str, Any]] = {}
    _records.append(record)
    try:
        yield record
    finally:
        _records.pop()


def is_older(name: str, provenance: Mapping[str, Any]) -> bool:
    """Whether a file comes from trainings that noted no recipe, as this version of the library does."""
    return name.startswith(TRAINED) and "recipe" not in provenance


def note_of_age(files: Mapping[str, Mapping[str, Any]]) -> str:
    """A line that says which of these numbers are older than the library; empty where none is.

    Args:
        files: name to content, see :func:`recorded`.
    """
    commits: dict[str, set[str]] = {}
    for name, content in files.items():
        if is_older(name, content["provenance"]):
            where = content["provenance"]["environment"]
            commits.setdefault(where["time"][:10], set()).add(f"`{where['commit']}`")
    if not commits:
        return ""
    made = "; ".join(
        f"{day}, commit{'s' * (len(known) > 1)} {', '.join(sorted(known))}" for day, known in sorted(commits.items())
    )
    return f"*Measured with an earlier version of the library ({made}), and to be measured again.*\n"


# --- tables -----------------------------------------------------------------------------------------------------------


def by_network(table: str, pictures: str) -> dict[str, dict[str, Any]]:
    """Everything measured for a table on ``"drawn"`` pictures or ``"photographs"``: network to content of the file."""
    if pictures == "drawn":
        name = f"table_{table}_minivoc"
        return {USUAL_NETWORK["drawn"]: read(name)} if (FOLDER / f"{name}.json").is_file() else {}
    names = {path.stem.partition("_voc_")[2]: path.stem for path in sorted(FOLDER.glob(f"table_{table}_voc_*.json"))}
    return {NETWORKS.get(network, network): read(name) for network, name in names.items()}


def answers_to(claim: paper.Claim, pictures: str) -> dict[str, dict[str, Any]]:
    """Network to what was measured of a claim on a kind of pictures."""
    judged = {network: content["values"]["claims"] for network, content in by_network(claim.table, pictures).items()}
    return {network: each for network, several in judged.items() for each in several if each["text"] == claim.text}


def in_one_text(pictures: str, texts: Mapping[str, str]) -> str:
    """One text for those of all networks; the usual network of a kind of pictures, alone, is not named."""
    usual = USUAL_NETWORK[pictures]
    if list(texts) == [usual]:
        return texts[usual]
    alike: dict[str, list[str]] = {}
    for network in sorted(texts, key=lambda name: name != usual):
        alike.setdefault(texts[network], []).append(network)
    return "; ".join(f"{' and '.join(networks)}: {text}" for text, networks in alike.items())


def unmeasured(table: str, pictures: str) -> str:
    """What stands where nothing was measured: a dash where nothing can be, as photographs have no masks of parts."""
    return "-" if (table, pictures) == ("parts", "photographs") else UNMEASURED


def row_of(content: Mapping[str, Any], title: str) -> dict[str, Any] | None:
    """A row of a table's file; None where it was not measured."""
    return next((row for row in content["values"]["rows"] if row["title"] == title), None)


def spread_of(content: Mapping[str, Any], title: str, columns: Sequence[str]) -> str | None:
    """A row's means with their standard deviations; None where it was not measured."""
    row = row_of(content, title)
    if row is None:
        return None
    return " / ".join(
        cell(row["mean"][name]) + (f" ± {row['std'][name]:.1f}" if row["std"][name] is not None else "")
        for name in columns
    )


def spread_on(table: str, title: str, columns: Sequence[str], pictures: str) -> str:
    """A row's means with their standard deviations, of every network that it was measured with."""
    texts = {net: spread_of(content, title, columns) for net, content in by_network(table, pictures).items()}
    return in_one_text(pictures, {network: text for network, text in texts.items() if text}) or UNMEASURED


def text_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table of words: all columns are aligned to the left."""
    return markdown(head, rows, words=head)
