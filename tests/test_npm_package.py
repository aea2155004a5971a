"""Packages of npm: where they come from, and that another one is refused."""

import base64
import hashlib
from types import SimpleNamespace

import npm_package
import pytest
from npm_package import NotToBeHadError, Package

CONTENT = b"a package"
INTEGRITY = f"sha512-{base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()}"
PACKAGE = Package("some", "1.0", INTEGRITY)


@pytest.fixture(autouse=True)
def no_other_host(monkeypatch):
    monkeypatch.setattr(npm_package.shutil, "which", lambda _: None)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/mirror")


def test_the_registry_is_npms(monkeypatch):
    assert npm_package.registry() == "http://127.0.0.1:9/mirror/"
    monkeypatch.delenv("NPM_CONFIG_REGISTRY")
    assert npm_package.registry() == npm_package.PUBLIC
    monkeypatch.setattr(npm_package.shutil, "which", lambda name: f"/bin/{name}")
    said_and_meant = [
        ("https://mirror.example/npm\n", "https://mirror.example/npm/"),
        ("undefined\n", npm_package.PUBLIC),
    ]
    for said, meant in said_and_meant:
        monkeypatch.setattr(npm_package.subprocess, "run", lambda *_, said=said, **__: SimpleNamespace(stdout=said))
        assert npm_package.registry() == meant


def test_a_kept_package_is_taken_and_another_one_refused(tmp_path):
    kept = tmp_path / "some-1.0.tgz"
    kept.write_bytes(CONTENT)
    assert npm_package.fetch(PACKAGE, tmp_path) == CONTENT
    kept.write_bytes(b"something else")
    with pytest.raises(NotToBeHadError, match="has another checksum than some 1.0"):
        npm_package.fetch(PACKAGE, tmp_path)
    assert not kept.exists()  # the next call fetches it


def test_one_that_cannot_be_had_says_how_to_get_it(tmp_path):
    with pytest.raises(NotToBeHadError, match="put what `npm pack some@1.0` fetches into"):
        npm_package.fetch(PACKAGE, tmp_path)
