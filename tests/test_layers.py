"""Data flows down the house and never back up: no module imports one above it, and none grows out of sight."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dsna_lib

PACKAGE = Path(dsna_lib.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# From low to high; modules of one line may import each other. A folder stands for all that is in it.
LAYERS = (
    ("engine",),
    ("config",),
    ("data", "paper", "metrics"),
    ("convolutions",),
    ("backbones",),
    ("model_files",),
    ("attention",),
    ("diagnostics",),
    ("training",),
    ("maps",),
    ("annotate",),
    ("mean_field",),
    ("crf",),
    ("segmentation",),
    ("export",),
    ("methods",),
    ("tables",),
    ("book",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FREE = {"checkpoints"}  # paths of files: anyone may ask for them
MOST_LINES = 420


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in SOURCES}


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs: not what a type checker alone reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            children: list[ast.AST] = list(child.orelse)
        else:
            children = [child]
        for inner in children:
            yield inner
            yield from executed(inner)


def imports(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Lines and names of this package's modules that a source imports, within functions, too."""
    package = module if is_package else module.rpartition(".")[0]
    for node in executed(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
            start = ".".join(filter(None, (above if node.level else "", node.module)))
            names = [name if (name := f"{start}.{alias.name}") in MODULES else start for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in dict.fromkeys(names) if name.split(".")[0] == "dsna_lib")


def part(module: str) -> str:
    """The part of the house that a module belongs to; empty for the house itself."""
    return module.partition(".")[2].split(".")[0]


def upward(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports of higher parts, each as a sentence."""
    own, wrong = part(module), []
    for line, name in imports(source, module, is_package):
        other = part(name)
        if other in FREE or other == own or not other:
            continue
        if own in FREE or LEVEL[other] > LEVEL[own]:
            wrong.append(f"{module}, line {line}, imports {name}")
    return wrong


def test_every_part_has_a_place_and_every_place_a_part():
    parts = {part(module) for module in MODULES} - {""}
    assert parts == set(LEVEL) | FREE


def test_no_import_runs_upward():
    wrong = []
    for path in SOURCES:
        wrong += upward(path.read_text(encoding="utf-8"), module_of(path), path.name == "__init__.py")
    assert not wrong, "\n".join(wrong)


def test_the_engine_knows_nothing_of_the_paper():
    wrong = []
    for path in sorted((PACKAGE / "engine").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        wrong += [
            f"{path.name}, line {line}, imports {name}"
            for line, name in imports(source, module_of(path), path.name == "__init__.py")
            if part(name) != "engine"
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source, wrong",
    [
        ("import dsna_lib.training", True),
        ("import os, dsna_lib.training as training", True),
        ("from dsna_lib import training", True),
        ("from dsna_lib.methods.sec import SECLoss", True),
        ("from .. import training", True),
        ("from ..methods import sec", True),
        ("def late():\n    from dsna_lib.cli import main", True),
        ("if True:\n    from dsna_lib import maps", True),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dsna_lib import maps", False),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    from dsna_lib import maps", True),
        ("from dsna_lib.engine import runs", False),
        ("from dsna_lib import checkpoints, __version__", False),
        ("from . import voc", False),
        ("import torch.nn", False),
        ("from dsna_lib import metrics", False),
        ("text = 'import dsna_lib.training'", False),
    ],
)
def test_an_import_upward_is_seen_however_it_is_written(source, wrong):
    assert bool(upward(source, "dsna_lib.data.example")) is wrong


def test_no_file_is_too_long_to_be_read():
    lengths = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def test_names_of_test_files_are_unique():
    """Pytest imports them by their names alone."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
