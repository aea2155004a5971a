"""The reference of the library shows every module, and hides none of what is public."""

import ast
import importlib
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dsna_lib"
PAGES = sorted((ROOT / "book" / "api").glob("*.md"))
WITHOUT_PAGE = "cli"  # the command line explains itself with --help


def sources() -> dict[str, Path]:
    """The library's public modules and packages, at any depth: dotted name within ``dsna_lib`` to file."""
    files = {path.relative_to(PACKAGE).with_suffix("").parts: path for path in PACKAGE.rglob("*.py")}
    named = {tuple(part for part in parts if part != "__init__"): path for parts, path in files.items()}
    return {
        ".".join(parts): path
        for parts, path in named.items()
        if parts and parts[0] != WITHOUT_PAGE and not any(part.startswith("_") for part in parts)
    }


def test_modules_are_found_at_any_depth():
    assert {"attention", "data", "data.voc", "data.minivoc", "data.minivoc.files"} <= sources().keys()
    assert not {"", "cli", "cli.main"} & sources().keys()


def test_every_module_is_on_one_page():
    shown = [name for page in PAGES for name in re.findall(r"automodule:: dsna_lib\.(\S+)", page.read_text())]
    assert sorted(shown) == sorted(sources())


def test_every_page_is_in_the_table_of_contents():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
    files = {entry["file"] for part in parts for entry in part["chapters"]}
    assert {f"book/api/{page.stem}" for page in PAGES} <= files


def test_every_constant_that_is_described_exists():
    for page in PAGES:
        for part in page.read_text().split("automodule:: dsna_lib.")[1:]:
            module = importlib.import_module(f"dsna_lib.{part.split(maxsplit=1)[0]}")
            for name in re.findall(r"py:data:: (\w+)", part):
                assert hasattr(module, name), f"{page.name}: {module.__name__} has no {name}"


def test_what_is_hidden_are_fields_of_tuples_only():
    for page in PAGES:
        for name, hidden in re.findall(
            r"automodule:: dsna_lib\.(\S+)\n   :members:\n   :exclude-members: (.*)\n", page.read_text()
        ):
            tree = ast.parse(sources()[name].read_text())
            fields = {
                item.target.id
                for node in ast.walk(tree)
                if isinstance(node, ast.ClassDef) and "NamedTuple" in {ast.unparse(base) for base in node.bases}
                for item in node.body
                if isinstance(item, ast.AnnAssign)
            }
            elsewhere = set(re.findall(rf"autoclass:: dsna_lib\.{re.escape(name)}\.(\w+)", page.read_text()))
            assert set(hidden.split(", ")) <= fields | elsewhere, f"{page.name}: {name}"
            methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert not methods & set(hidden.split(", ")), f"{page.name} hides a function of {name}"
