"""The repository's address: one command writes it everywhere, and takes it out again; the workflows hang together."""

import contextlib
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import scripts
import yaml
from packaging.specifiers import SpecifierSet
from skimage.data import chelsea
from skimage.io import imsave

ROOT = Path(__file__).resolve().parents[1]
ADDRESS = "https://github.com/some-one/dsna.book"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

set_repository = scripts.load("tools/set_repository.py")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A copy of what the address is written to, three notebooks of each folder, without an address."""
    for folder in set_repository.NOTEBOOKS:
        (tmp_path / folder).mkdir(parents=True)
        for path in sorted((ROOT / folder).glob("*.ipynb"))[:3]:
            shutil.copy(path, tmp_path / folder)
    for name in ("_config.yml", "README.md", *set_repository.METADATA):
        shutil.copy(ROOT / name, tmp_path)
    set_repository.main([""], tmp_path)
    return tmp_path


def contents(book: Path) -> dict[str, str]:
    paths = (path for path in sorted(book.rglob("*")) if path.is_file())
    return {path.relative_to(book).as_posix(): path.read_text() for path in paths}


def first_code(text: str) -> dict:
    return next(cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code")


def test_all_places_agree() -> None:
    set_repository.main(["--check"])


def test_without_an_address_there_are_no_buttons(book: Path) -> None:
    config = yaml.safe_load((book / "_config.yml").read_text())
    assert config["repository"]["url"] == config["launch_buttons"]["colab_url"] == ""
    assert config["html"]["use_repository_button"] is False
    assert config["html"]["baseurl"] == ""


def test_an_address_is_written_to_all_places(book: Path) -> None:
    before = contents(book)
    set_repository.main([ADDRESS], book)
    after = contents(book)
    config = yaml.safe_load(after.pop("_config.yml"))
    assert config["repository"]["url"] == ADDRESS
    assert config["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert config["html"]["use_repository_button"] is True
    assert config["html"]["baseurl"] == "https://some-one.github.io/dsna.book/"
    notebooks = {name: text for name, text in after.items() if name.endswith(".ipynb")}
    assert len(notebooks) == 9
    for name, text in notebooks.items():
        assert f'REPOSITORY = "{ADDRESS}"' in "".join(first_code(text)["source"])
        # Nothing but this one line of a chapter changes, and the two links of exercises.
        changed = [
            pair for pair in zip(before[name].splitlines(), text.splitlines(), strict=True) if len(set(pair)) > 1
        ]
        exercises = name.startswith("exercises/")
        assert len(changed) == (3 if exercises else 1)
        chapter = f"(https://some-one.github.io/dsna.book/notebooks/{Path(name).stem}.html)"
        assert (chapter in text) == exercises


def test_an_address_is_written_to_what_others_show(book: Path) -> None:
    set_repository.main([ADDRESS], book)
    assert tomllib.loads((book / "pyproject.toml").read_text())["project"]["urls"] == {"Repository": ADDRESS}
    assert yaml.safe_load((book / "CITATION.cff").read_text())["repository-code"] == ADDRESS
    readme = (book / "README.md").read_text()
    colab = (
        "https://colab.research.google.com/github/some-one/dsna.book/blob/main/notebooks/01_labels_without_masks.ipynb"
    )
    assert f"[Read the book](https://some-one.github.io/dsna.book/) · [chapter 1 in Colab]({colab})" in readme
    assert f"({ADDRESS}/raw/main/book/_static/pipeline.png)" in readme
    assert f"[LICENSE]({ADDRESS}/blob/main/LICENSE)" in readme
    assert set(re.findall(r"\]\((?!https://)[^)]*", readme)) == set()
    assert "(https://arxiv.org/abs/1803.02563)" in readme


def test_the_readmes_python_annotates_a_picture(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    imsave(tmp_path / "cat.jpg", chelsea())
    known: dict = {}
    with contextlib.chdir(tmp_path):
        exec(code, known)
    assert set(known["found"].maps) == {"expansive", "discriminative", "merged"}
    assert set(known["mask"].unique().tolist()) <= {0, known["cat"] + 1, 255}
    assert (known["mask"] == known["cat"] + 1).float().mean() > 0.2


def test_a_site_of_an_owner_lies_at_the_root_of_its_host() -> None:
    assert set_repository.site("https://github.com/Some-One/some-one.github.io") == "https://some-one.github.io/"


def test_twice_is_once_and_an_empty_address_undoes_it(book: Path) -> None:
    before = contents(book)
    set_repository.main([ADDRESS], book)
    once = contents(book)
    set_repository.main([f"{ADDRESS}.git/"], book)
    assert contents(book) == once != before
    set_repository.main([""], book)
    assert contents(book) == before


def test_a_notebook_without_the_cell_gets_it_before_its_first_code(book: Path) -> None:
    path = sorted(book.glob("notebooks/*.ipynb"))[0]
    complete = json.loads(path.read_text())
    bare = complete | {"cells": [cell for cell in complete["cells"] if cell["id"] != "colab"]}
    path.write_text(json.dumps(bare))
    with pytest.raises(SystemExit, match=path.name):
        set_repository.main(["--check"], book)
    set_repository.main([""], book)
    cells = json.loads(path.read_text())["cells"]
    kinds = [cell["cell_type"] for cell in cells]
    assert cells[kinds.index("code")]["id"] == "colab"
    assert [cell for cell in cells if cell["id"] != "colab"] == bare["cells"]


def test_a_place_that_differs_is_named(book: Path) -> None:
    path = sorted(book.glob("notebooks/*.ipynb"))[-1]
    path.write_text(path.read_text().replace(r"REPOSITORY = \"\"", rf"REPOSITORY = \"{ADDRESS}\""))
    with pytest.raises(SystemExit, match=f"^notebooks/{path.name}: not as no address in _config.yml asks"):
        set_repository.main(["--check"], book)


@pytest.mark.parametrize(
    "wrong",
    ["github.com/a/b", "http://github.com/a/b", "https://github.com/a", "https://github.com/a/b/tree/main", "x"],
)
def test_other_addresses_are_refused(book: Path, wrong: str) -> None:
    before = contents(book)
    with pytest.raises(SystemExit, match="is no address of the form https://github.com/OWNER/NAME"):
        set_repository.main([wrong], book)
    assert contents(book) == before


def test_a_configuration_without_the_lines_is_named(book: Path) -> None:
    config = book / "_config.yml"
    config.write_text(config.read_text().replace("  colab_url:", "  binder_url:"))
    with pytest.raises(SystemExit, match="_config.yml: 0 lines `  colab_url: ...`"):
        set_repository.main([ADDRESS], book)


@pytest.mark.parametrize("arguments", [[], ["--check", ADDRESS]])
def test_an_address_or_a_check(book: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        set_repository.main(arguments, book)


def steps(workflow: Path) -> list[dict]:
    """The steps of all jobs of a workflow."""
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]


def test_there_are_workflows_for_tests_and_site() -> None:
    assert [path.stem for path in WORKFLOWS] == ["site", "tests"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_name_what_exists(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert True in content, "no `on:`"  # YAML 1.1 reads the word as true
    for job in content["jobs"].values():
        assert job["runs-on"].startswith("ubuntu-")
        assert job["timeout-minutes"] <= 120
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text()))
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]), "official actions, by major version"
        command = step.get("run", "")
        assert set(re.findall(r"\bmake ([a-z]+)", command)) <= targets
        for name in re.findall(r"(?<![\w/.])((?:\.ci|tools)/[\w./]+)", command):
            assert (ROOT / name).is_file(), f"{workflow.name} runs {name}, which does not exist"
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)


def test_tests_run_on_every_supported_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = [f"3.{minor}" for minor in range(9, 20) if f"3.{minor}.0" in SpecifierSet(project["requires-python"])]
    said = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    (job,) = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"].values()
    assert said == job["strategy"]["matrix"]["python"] == supported


def test_every_page_names_the_same_versions() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    *most, last = re.findall(r"Python :: (3\.\d+)", " ".join(content["project"]["classifiers"]))
    makefile = (ROOT / "Makefile").read_text()
    assert f"for python in {' '.join(f'python{version}' for version in (*most, last))} python3; do" in makefile
    assert f"No Python {', '.join(most)} or {last} found." in makefile
    assert f"(Python {', '.join(most)} and {last})" in (ROOT / "constraints.txt").read_text()
    for page in ("README.md", "book/running.md"):
        assert f"Python {', '.join(most)} or {last}" in (ROOT / page).read_text(), page


def test_the_site_takes_its_address_from_where_it_is_built() -> None:
    commands = [step.get("run", "") for step in steps(ROOT / ".github/workflows/site.yml")]
    address = next(
        i for i, c in enumerate(commands) if 'set_repository.py "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"' in c
    )
    build = next(i for i, c in enumerate(commands) if "make book" in c)
    assert address < build
