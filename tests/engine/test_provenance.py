"""Results say where they come from, but not on whose machine."""

from __future__ import annotations

import getpass
import json
import re
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from dsna_lib.engine import provenance
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.provenance import environment, write_result


def test_results_know_where_they_come_from_but_not_on_whose_machine(tmp_path):
    path = write_result("table", {"iou": 44.0}, {"split": "val", "shortcuts": ["6 epochs"]}, tmp_path / "results")
    text = path.read_text()
    content = json.loads(text)
    assert path == tmp_path / "results" / "table.json"
    assert content["values"] == {"iou": 44.0}
    assert content["provenance"]["split"] == "val"
    assert content["provenance"]["shortcuts"] == ["6 epochs"]
    environment = content["provenance"]["environment"]
    assert set(environment) == {"time", "python", "packages", "device", "system", "commit"}
    assert set(environment["packages"]) == set(provenance.PACKAGES)
    assert environment["packages"]["numpy"]
    assert environment["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", environment["time"])
    package = Path(provenance.__file__).parents[1]
    for private in (socket.gethostname(), f'"{getpass.getuser()}"', str(tmp_path), str(package), "/home"):
        assert private not in text


def test_a_result_replaces_the_one_before(tmp_path):
    for value in (1, 2):
        path = write_result("table", {"value": value}, {}, tmp_path)
    assert json.loads(path.read_text())["values"] == {"value": 2}
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_is_plain_json(tmp_path):
    values = {"iou": float("nan"), "scales": (0.5, 1.0)}
    path = write_result("table", values, {"root": tmp_path / "data"}, tmp_path / "results")
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["values"] == {"iou": None, "scales": [0.5, 1.0]}
    assert content["provenance"]["root"] == str(tmp_path / "data")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with this package's place in it, and one commit."""
    package = tmp_path / "dsna_lib"
    (package / "engine").mkdir(parents=True)
    (package / "module.py").write_text("a = 1\n")
    (tmp_path / "notes.txt").write_text("x")
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for args in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *args], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "engine" / "provenance.py"))
    return tmp_path


def test_the_commit_says_whether_the_package_differs_from_it(checkout):
    commit = environment()["commit"]
    assert re.fullmatch("[0-9a-f]{12}", commit)
    (checkout / "notes.txt").write_text("y")
    assert environment()["commit"] == commit
    (checkout / "dsna_lib" / "module.py").write_text("a = 2\n")
    assert environment()["commit"] == f"{commit}+changes"


def test_no_commit_outside_a_checkout_or_without_git(monkeypatch, tmp_path):
    commit = environment()["commit"]
    assert commit is None or re.fullmatch(r"[0-9a-f]{12}(\+changes)?", commit)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment()["commit"] is None
    monkeypatch.undo()
    (tmp_path / "engine").mkdir()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "engine" / "provenance.py"))
    assert environment()["commit"] is None


def test_the_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert re.fullmatch(r"CPU, \d+ cores", environment()["device"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert environment()["device"] == "a card"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert environment()["device"] == "Apple's GPU"


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("numpy", "no-such-package-at-all"))
    packages = environment()["packages"]
    assert packages["numpy"]
    assert packages["no-such-package-at-all"] is None


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "..", ""])
def test_a_result_does_not_leave_its_folder(tmp_path, name):
    with pytest.raises(SettingError, match=f"a result named '{name}' would lie outside the folder .*; choose another"):
        write_result(name, {}, {}, tmp_path / "results")
    assert not list(tmp_path.iterdir())
    assert write_result("deep/er", {}, {}, tmp_path) == tmp_path / "deep" / "er.json"
