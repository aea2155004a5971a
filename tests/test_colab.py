"""A notebook alone in a Python like Colab's: torch and all other packages are there, the library is not.

The place is a virtual environment of its own that sees this one's packages, but for the library. pip works without a
network: what the first cell would fetch from the package index is among the packages that are there.
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
import scripts

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INSTALLED = Path(sysconfig.get_path("purelib"))

set_repository = scripts.load("tools/set_repository.py")

# Where things come from after the first cells, in the same process and in a new one elsewhere.
LOOK = """
import subprocess, sys
look = '''
import json
from importlib.metadata import version
from importlib.util import find_spec
import dsna_lib
found = {name: [version(name), find_spec(name).origin] for name in ("numpy", "torch")}
print(json.dumps(found | {"dsna_lib": dsna_lib.__file__}), flush=True)
'''
exec(look)
subprocess.run([sys.executable, "-c", look], cwd="/", check=True)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a repository that holds the working tree as it is, as far as an installation takes it."""
    place = tmp_path_factory.mktemp("repository")
    for name in ("dsna_lib", "recipes", "results"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    commit = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false", "commit"]
    for arguments in (["init"], ["add", "."], [*commit, "--message", "the working tree"]):
        subprocess.run(["git", *arguments], cwd=place, check=True, capture_output=True)
    return place.as_uri()


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a virtual environment with all packages of this one but the library."""
    place = tmp_path_factory.mktemp("colab")
    preinstalled = place / "preinstalled"
    preinstalled.mkdir()
    for entry in INSTALLED.iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith(("__editable__", "dsna_book", "__pycache__")):
            (preinstalled / entry.name).symlink_to(entry)
    venv.create(place / "env", with_pip=False)
    (packages(place) / "preinstalled.pth").write_text(f"{preinstalled}\n")
    return place


def packages(colab: Path) -> Path:
    """The folder into which pip installs there."""
    environment = {"base": str(colab / "env"), "platbase": str(colab / "env")}
    return Path(sysconfig.get_path("purelib", scheme="venv", vars=environment))


def run(colab: Path, code: str, folder: Path, release: str = "") -> subprocess.CompletedProcess:
    """Run code in an empty folder there; with a release, the environment says that this is Colab."""
    hidden = ("PYTHON", "PIP_", "COLAB", "COV", "DSNA")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    # For pip, a false "no build isolation" turns the isolation off, which would need a network.
    environment |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": os.devnull}
    environment |= {"COLAB_RELEASE_TAG": release} if release else {}
    python = colab / "env" / "bin" / "python"
    return subprocess.run([python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


def first_cells(path: Path, address: str, count: int = 3) -> str:
    """The first code cells of a notebook as they are for an address: the Colab cell, the parameters, the set-up."""
    cells = set_repository.with_cell(json.loads(path.read_text()), address)["cells"]
    return "\n".join("".join(c["source"]) for c in [c for c in cells if c["cell_type"] == "code"][:count])


def records() -> dict[str, tuple[int, int]]:
    """Size and time of what says which files of torch and numpy are installed."""
    found = [*INSTALLED.glob("torch-*.dist-info/RECORD"), *INSTALLED.glob("numpy-*.dist-info/RECORD")]
    assert len(found) == 2
    return {path.parent.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_the_library_is_missing_before(colab: Path, tmp_path: Path) -> None:
    assert "No module named 'dsna_lib'" in run(colab, "import dsna_lib", tmp_path).stderr


def test_a_notebook_alone_installs_the_library_and_nothing_else(colab: Path, repository: str, tmp_path: Path) -> None:
    before = records()
    (notebook,) = (path for path in NOTEBOOKS if path.name.startswith("04"))  # its set-up needs no data
    done = run(colab, first_cells(notebook, repository) + LOOK, tmp_path, release="release-colab")
    assert done.returncode == 0, done.stderr
    here, elsewhere = (json.loads(line) for line in done.stdout.splitlines())
    assert here == elsewhere
    assert Path(here["dsna_lib"]) == tmp_path / "dsna-book" / "dsna_lib" / "__init__.py"
    assert list(tmp_path.glob("dsna-book/results/table_*.json")), "the chapters would miss their tables"
    for name in ("torch", "numpy"):
        version, file = here[name]
        assert version == importlib.metadata.version(name)
        assert Path(file).is_relative_to(colab / "preinstalled")
    assert records() == before
    new = {path.name for path in packages(colab).iterdir()} - {"preinstalled.pth", "__pycache__"}
    assert new
    assert [name for name in new if "dsna_book" not in name] == []


def test_without_an_address_it_asks_for_one_and_stops(colab: Path, tmp_path: Path) -> None:
    stopped = run(
        colab, first_cells(NOTEBOOKS[0], "", count=1) + "\nprint('went on')", tmp_path, release="release-colab"
    )
    assert stopped.returncode == 1
    assert stopped.stdout == ""
    (sentence,) = stopped.stderr.splitlines()
    assert sentence.startswith("Put the repository's address between the quotes of REPOSITORY")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["", "https://github.com/owner/name"])
def test_elsewhere_it_does_nothing(colab: Path, tmp_path: Path, address: str) -> None:
    done = run(colab, first_cells(NOTEBOOKS[0], address, count=1), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_asks_colab_for_a_gpu(path: Path) -> None:
    metadata = json.loads(path.read_text())["metadata"]
    assert metadata["accelerator"] == "GPU"
    assert metadata["colab"] == {"provenance": []}
