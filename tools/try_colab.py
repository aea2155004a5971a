"""Try notebooks as Colab opens them: each alone in an empty folder, where its first cell installs the library.

The place is a virtual environment that sees this one's packages, but for the library; pip works there without a
network. Chapters run in profile ``colab``, on copies that ask for no GPU, draw few pictures and train a few steps:
tried is that every cell runs, not what comes of it. Each leaves a ``ran.ipynb``, also where it stopped.

Example:
    python tools/try_colab.py runs/colab notebooks/*.ipynb exercises/source/04*.ipynb
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

from set_repository import with_cell

ROOT = Path(__file__).resolve().parents[1]
INSTALLED = Path(sysconfig.get_path("purelib"))
NEEDED = ("dsna_lib", "recipes", "results", "pyproject.toml", "README.md", "LICENSE")  # of an installation
SHORTER = {  # file: what stands there, and what takes its place
    "dsna_lib/book/profiles.py": {'if profile != "cpu" and device == "cpu":': "if False:"},
    "dsna_lib/config/drawn.py": {"option(1000, ": "option(60, ", "option(100, ": "option(40, "},
    "recipes/drawn.toml": {"drawn = 1000": "drawn = 60"},
    "recipes/colab.toml": {"drawn = 2000": "drawn = 60", "epochs = 6": "epochs = 1", "epochs = 9": "epochs = 1"},
    "01_labels_without_masks.ipynb": {r"\"colab\": 400": r"\"colab\": 40"},
    "03_spatial_attention.ipynb": {"400, 1500": "60, 1500"},
    "11_what_help_is_worth.ipynb": {r"\"colab\": 48": r"\"colab\": 12"},
    "12_then_and_now.ipynb": {r"\"colab\": 160": r"\"colab\": 16"},
}


def shorter(name: str, text: str) -> str:
    """The text of a file as :data:`SHORTER` has it."""
    for old, new in SHORTER.get(name, {}).items():
        if text.count(old) != 1:
            raise SystemExit(f"{name} no longer holds {old!r} once: mend SHORTER in tools/try_colab.py")
        text = text.replace(old, new)
    return text


def repository(place: Path, short: bool = False) -> str:
    """The address of a new repository in an empty folder: the working tree, as far as an installation takes it."""
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place)
    for name in [name for name in SHORTER if short and (place / name).is_file()]:
        (place / name).write_text(shorter(name, (place / name).read_text()))
    commit = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false", "commit"]
    for arguments in (["init"], ["add", "."], [*commit, "--message", "the working tree"]):
        subprocess.run(["git", *arguments], cwd=place, check=True, capture_output=True)
    return place.as_uri()


def environment(place: Path) -> Path:
    """A virtual environment ``env`` in a folder, with all packages of this one but the library; returns its Python."""
    preinstalled = place / "preinstalled"
    preinstalled.mkdir(parents=True)
    for entry in INSTALLED.iterdir():
        if entry.suffix != ".pth" and not entry.name.startswith(("__editable__", "dsna_book", "__pycache__")):
            (preinstalled / entry.name).symlink_to(entry)
    venv.create(place / "env", with_pip=False)
    (packages(place) / "preinstalled.pth").write_text(f"{preinstalled}\n")
    return place / "env" / "bin" / "python"


def packages(place: Path) -> Path:
    """The folder into which pip installs there."""
    base = str(place / "env")
    return Path(sysconfig.get_path("purelib", scheme="venv", vars={"base": base, "platbase": base}))


def variables(colab: bool = True) -> dict[str, str]:
    """The environment variables there: none that lead to the library here, and one that says that this is Colab."""
    hidden = ("PYTHON", "PIP_", "COLAB", "COV", "DSNA", "MPLBACKEND")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    # For pip, a false "no build isolation" turns the isolation off, which would need a network.
    kept |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": os.devnull}
    return kept | ({"COLAB_RELEASE_TAG": "release-colab"} if colab else {})


def execute(python: Path, notebook: Path, address: str, folder: Path, given: list[str]) -> subprocess.CompletedProcess:
    """Run all cells of a notebook in a new folder."""
    folder.mkdir(parents=True)
    alone = with_cell(json.loads(shorter(notebook.name, notebook.read_text())), address)
    (folder / notebook.name).write_text(json.dumps(alone))
    command = [python, "-m", "papermill", "-k", "python3", "--no-progress-bar", *given, notebook.name, "ran.ipynb"]
    return subprocess.run(command, cwd=folder, env=variables(), capture_output=True, text=True)


def main() -> None:
    """Command line: a folder that does not exist yet, and notebooks; one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to; a new one")
    parser.add_argument("notebooks", type=Path, nargs="+", help="chapters, or exercises with their solutions")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], help="of chapters: name and value")
    args = parser.parse_args()
    place = args.folder.resolve()
    python = environment(place)
    (place / "repository").mkdir()
    address, failed = repository(place / "repository", short=True), 0
    for notebook in args.notebooks:
        text, start = notebook.read_text(), time.monotonic()
        chosen = [("profile", "colab"), *args.parameter]
        given = [word for name, value in chosen if f'"{name}: ' in text for word in ("-p", name, value)]
        done = execute(python, notebook, address, place / notebook.parent.name / notebook.stem, given)
        failed += done.returncode != 0
        said = "ok" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
        print(f"{notebook}: {time.monotonic() - start:.0f} s, {said}", flush=True)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
