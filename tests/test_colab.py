"""A notebook alone in a Python like Colab's, see ``tools/try_colab.py``: all packages are there, the library is not."""

import importlib.metadata
import json
import subprocess
from pathlib import Path

import nbformat
import pytest
import scripts

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

set_repository = scripts.load("tools/set_repository.py")
try_colab = scripts.load("tools/try_colab.py")

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
    return try_colab.repository(tmp_path_factory.mktemp("repository"))


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a virtual environment with all packages of this one but the library."""
    place = tmp_path_factory.mktemp("colab")
    try_colab.environment(place)
    return place


def run(colab: Path, code: str, folder: Path, release: bool = False) -> subprocess.CompletedProcess:
    """Run code in an empty folder there; with a release, the environment says that this is Colab."""
    python = colab / "env" / "bin" / "python"
    env = try_colab.variables(release)
    return subprocess.run([python, "-c", code], cwd=folder, env=env, capture_output=True, text=True)


def first_cells(path: Path, address: str, count: int = 3) -> str:
    """The first code cells of a notebook as they are for an address: the Colab cell, the parameters, the set-up."""
    cells = set_repository.with_cell(json.loads(path.read_text()), address)["cells"]
    return "\n".join("".join(c["source"]) for c in [c for c in cells if c["cell_type"] == "code"][:count])


def records() -> dict[str, tuple[int, int]]:
    """Size and time of what says which files of torch and numpy are installed."""
    found = [
        *try_colab.INSTALLED.glob("torch-*.dist-info/RECORD"),
        *try_colab.INSTALLED.glob("numpy-*.dist-info/RECORD"),
    ]
    assert len(found) == 2
    return {path.parent.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_the_library_is_missing_before(colab: Path, tmp_path: Path) -> None:
    assert "No module named 'dsna_lib'" in run(colab, "import dsna_lib", tmp_path).stderr


def test_a_notebook_alone_installs_the_library_and_nothing_else(colab: Path, repository: str, tmp_path: Path) -> None:
    before = records()
    (notebook,) = (path for path in NOTEBOOKS if path.name.startswith("04"))  # its set-up needs no data
    done = run(colab, first_cells(notebook, repository) + LOOK, tmp_path, release=True)
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
    new = {path.name for path in try_colab.packages(colab).iterdir()} - {"preinstalled.pth", "__pycache__"}
    assert new
    assert [name for name in new if "dsna_book" not in name] == []


def test_without_an_address_it_asks_for_one_and_stops(colab: Path, tmp_path: Path) -> None:
    stopped = run(colab, first_cells(NOTEBOOKS[0], "", count=1) + "\nprint('went on')", tmp_path, release=True)
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


def notebook_of(folder: Path, *sources: str) -> Path:
    """A notebook of parameters and code, in a new folder."""
    code = [nbformat.v4.new_code_cell(source) for source in sources]
    code[0].metadata["tags"] = ["parameters"]
    path = folder / "cells.ipynb"
    folder.mkdir()
    python = {"language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=python), path)
    return path


def test_notebooks_are_tried_alone_and_one_that_stops_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The library comes from the shortened copy, and the profile is Colab's."""
    shortened = (
        "from dsna_lib.config import recipe\nassert (profile, recipe.load(profile).training.epochs) == ('colab', 1)"
    )
    good = notebook_of(tmp_path / "good", 'profile: str = "cpu"', shortened)
    bad = notebook_of(tmp_path / "bad", "seed: int = 0", "seed = 1", "assert not seed, 'there is a seed'")
    monkeypatch.setattr("sys.argv", ["try_colab.py", str(tmp_path / "out"), str(good), str(bad)])
    with pytest.raises(SystemExit, match="^1$"):
        try_colab.main()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{good}: ")
    assert first.endswith(" s, ok")
    assert second.startswith(f"{bad}: ")
    assert second.endswith("AssertionError: there is a seed")
    assert (tmp_path / "out" / "bad" / "cells" / "ran.ipynb").is_file()


@pytest.mark.parametrize("name", try_colab.SHORTER)
def test_what_is_shortened_is_there(name: str) -> None:
    (path,) = (path for path in (ROOT / name, ROOT / "notebooks" / name) if path.is_file())
    assert try_colab.shorter(name, path.read_text()) != path.read_text()
    with pytest.raises(SystemExit, match=f"^{name} no longer holds .* once: mend SHORTER"):
        try_colab.shorter(name, "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_asks_colab_for_a_gpu(path: Path) -> None:
    metadata = json.loads(path.read_text())["metadata"]
    assert metadata["accelerator"] == "GPU"
    assert metadata["colab"] == {"provenance": []}
