"""The page *Add a method*: its code runs, prints what the page shows, and is what the library has."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from dsna_lib.methods import base, mil_fcn, rows

PAGE = (Path(__file__).resolve().parents[1] / "book" / "add_a_method.md").read_text()
# Each block of code, with the block of output right behind it where there is one.
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Names after all blocks ran in one namespace, and under ``printed`` what each block printed."""
    folder = tmp_path_factory.mktemp("page")
    names: dict[str, Any] = {"__name__": "page", "folder": folder}
    names["printed"] = [run(code, folder / f"block_{number}.py", names) for number, (code, _) in enumerate(BLOCKS)]
    return names


def run(code: str, file: Path, names: dict[str, Any]) -> str:
    """Run a block of code, and return what it prints. Its runs go beside the file."""
    file.write_text(code)  # for the run's identity, which holds the source of a loss that is not the library's
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setenv("DSNA_RUNS", str(file.parent / "runs"))
        exec(compile(code, str(file), "exec"), names)
    return printed.getvalue()


def test_what_is_shown_is_what_is_printed(page: dict[str, Any]) -> None:
    assert sum(bool(shown) for _, shown in BLOCKS) == 3
    assert page["printed"] == [shown for _, shown in BLOCKS]


@pytest.mark.parametrize("present", [[0, 0, 0], [1, 0, 0], [1, 1, 1]])
def test_the_loss_is_the_librarys(page: dict[str, Any], present: list[int]) -> None:
    made = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 4, 5, 6, generator=made)
    batch = {"labels": torch.tensor([present, [0, 1, 0]])}
    torch.testing.assert_close(page["MILLoss"]()(logits, batch), mil_fcn.MILLoss()(logits, batch))


def test_the_method_is_the_librarys(page: dict[str, Any]) -> None:
    mine, theirs = page["MILFCN"](), mil_fcn.MIL_FCN
    for name in ("title", "needs", "paper", "trains"):
        assert getattr(mine, name) == getattr(theirs, name)
    assert rows.METHODS[mine.title] is theirs
    assert mine.needs == base.LABELS


def test_a_row_was_trained_without_masks(page: dict[str, Any]) -> None:
    trained = page["provenance"]["trained"]["MIL-FCN"]["0"]
    assert trained["data"]["pictures"] == len(page["experiment"].train) == 24
    assert trained["training"]["crops"] == "whole"
    assert trained["metrics"]["step"] == 4
    (described,) = [name for name in trained["loss"] if name != "code"]
    assert described == "MILLoss"
    assert "self, logits: Tensor" in trained["loss"]["code"]


def test_given_again_it_trains_nothing(page: dict[str, Any]) -> None:
    def models() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in page["folder"].rglob("model.pth")}

    before, (code, shown) = models(), BLOCKS[-1]
    assert run(code, page["folder"] / f"block_{len(BLOCKS) - 1}.py", page) == shown
    assert len(before) == 1
    assert models() == before


def test_the_page_names_files_that_are_there() -> None:
    named = set(re.findall(r"`(?:dsna_lib/)?(\w+(?:/\w+)?\.py)`", PAGE))
    assert "methods/mil_fcn.py" in named
    package = Path(base.__file__).parents[1]
    assert [name for name in named if not (package / name).is_file()] == []
