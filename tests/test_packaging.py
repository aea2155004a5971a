"""pyproject.toml, constraints.txt, environment.yml and their neighbours say the same things."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import dsna_lib

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
]
PINS = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in CONSTRAINTS)}


def requirements(*groups: str) -> dict[str, Requirement]:
    """The core requirements and those of the named extras, by name; references to the package itself left out."""
    lines = [*PROJECT["dependencies"], *(line for group in groups for line in PROJECT["optional-dependencies"][group])]
    parsed = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): r for r in parsed if r.name != PROJECT["name"]}


def test_constraints_are_plain_pins_in_order() -> None:
    for line in CONSTRAINTS:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", line), f"not a pin of a published release: {line}"
    assert len(PINS) == len(CONSTRAINTS), "a package is pinned twice"
    assert sorted(CONSTRAINTS, key=str.lower) == CONSTRAINTS
    assert PROJECT["name"] not in PINS


@pytest.mark.parametrize("name, requirement", requirements("book", "cluster", "export", "test", "bench", "dev").items())
def test_every_requirement_is_pinned_within_its_range(name: str, requirement: Requirement) -> None:
    assert name in PINS, f"{name} is in pyproject.toml but not in constraints.txt"
    assert requirement.specifier.contains(PINS[name]), f"{name}=={PINS[name]} is outside {requirement.specifier}"


def test_core_ranges_admit_other_installations() -> None:
    core = requirements()
    for name, version in {"torch": "2.6.0", "torchvision": "0.21.0", "numpy": "2.0.2"}.items():
        assert core[name].specifier.contains(version), f"{name} {version}, as hosted notebooks have it, is refused"
    for name, requirement in core.items():
        assert not any(s.operator in {"==", "<", "<=", "~="} for s in requirement.specifier), f"{name} is pinned"


def test_crf_is_left_out_where_it_does_not_build() -> None:
    marker = requirements()["pydensecrf2"].marker
    assert marker is not None
    left_out = [("3.13", "linux"), ("3.13", "win32"), ("3.12", "win32")]
    for version, system in [("3.12", "linux"), ("3.12", "darwin"), *left_out]:
        there = marker.evaluate({"python_version": version, "sys_platform": system})
        assert there == ((version, system) not in left_out)


def test_environment_file_installs_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (python,) = [d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python")]
    assert "cxx-compiler" in environment["dependencies"], "pydensecrf2 is compiled there"
    (pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    assert environment["name"] == PROJECT["name"]
    said = "versions belong in constraints.txt, packages in pyproject"
    assert pip == ["-c constraints.txt", "-e .[book,export,test]"], said
    # Conda makes the environments in which pydensecrf can be had, too.
    accepted = SpecifierSet(python.removeprefix("python"))
    declared = SpecifierSet(PROJECT["requires-python"])
    crf = requirements()["pydensecrf2"].marker
    for minor in range(9, 16):
        there = {"python_version": f"3.{minor}", "sys_platform": "linux"}
        complete = f"3.{minor}.0" in declared and crf.evaluate(there)
        assert (f"3.{minor}.0" in accepted) == complete, f"environment.yml: Python 3.{minor}"


def test_makefile_installs_the_same() -> None:
    assert '-c constraints.txt -e ".[book,export,test]"' in (ROOT / "Makefile").read_text()


def test_hooks_use_the_pinned_tools() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    for hook in hooks:
        for dependency in hook.get("additional_dependencies", []):
            assert dependency in CONSTRAINTS, f"{hook['id']}: {dependency} differs from constraints.txt"


def test_versions_and_licence_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == dsna_lib.__version__ == citation["version"]
    assert PROJECT["license"] == citation["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")


def test_command_exists_and_answers() -> None:
    module, _, function = PROJECT["scripts"]["dsna"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    answer = subprocess.run([Path(sys.executable).with_name("dsna"), "--help"], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert "usage" in answer.stdout.lower()


def test_every_data_file_ships() -> None:
    setuptools = PYPROJECT["tool"]["setuptools"]
    folders = {
        name: Path(setuptools["package-dir"].get(name, name.replace(".", "/"))) for name in setuptools["packages"]
    }
    patterns = {folders[name]: several for name, several in setuptools["package-data"].items()}
    for top in ("dsna_lib", "recipes"):
        for file in (ROOT / top).rglob("*"):
            folder = file.relative_to(ROOT).parent
            if file.is_dir() or "__pycache__" in file.parts:
                continue
            assert folder in folders.values(), f"{folder} is no package in pyproject.toml"
            shipped = file.suffix == ".py" or any(fnmatch(file.name, pattern) for pattern in patterns.get(folder, []))
            assert shipped, f"{file.relative_to(ROOT)} is not covered by package-data in pyproject.toml"


def imported(file: Path, inside_functions: bool) -> set[str]:
    """Top-level names of the modules that a file imports on its own import, or only inside its functions."""
    tree = ast.parse(file.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    late = {id(inner) for node in functions for inner in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if (id(node) in late) != inside_functions:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


# A plain installation does without the book's tools; what needs one imports it when called, and says what is missing.
@pytest.mark.parametrize("inside_functions, groups", [(False, ()), (True, ("book", "cluster", "export"))])
def test_library_imports_only_what_it_declares(inside_functions: bool, groups: tuple[str, ...]) -> None:
    owners = packages_distributions() | {"pydensecrf": ["pydensecrf2"]}  # not installed everywhere
    for file in (ROOT / "dsna_lib").rglob("*.py"):
        # The way to a cluster is imported where a scheduler is named, and not before.
        declared = set(requirements(*groups, *(["cluster"] if file.name == "cluster.py" else [])))
        for name in imported(file, inside_functions) - set(sys.stdlib_module_names) - {"dsna_lib"}:
            packages = {canonicalize_name(p) for p in owners.get(name, [name])}
            assert packages & declared, f"{file.relative_to(ROOT)} imports {name}, which pyproject.toml does not name"
