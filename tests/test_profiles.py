"""Profiles: the values that the chapters print, and one sentence for every parameter that does not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from IPython.core.interactiveshell import InteractiveShell

from dsna_lib import checkpoints
from dsna_lib.book import profiles
from dsna_lib.book.profiles import ProfileError
from dsna_lib.config import recipe as recipe_files
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data import minivoc, voc
from dsna_lib.engine.files import read_json
from dsna_lib.engine.runs import file_digest


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list:
    """Nothing is drawn; what was asked for is noted."""
    asked: list = []

    def load(split: str, **options: int | None) -> object:
        asked.append((split, options))
        return tiny.pictures(tmp_path / split)

    monkeypatch.setattr(minivoc, "load", load)
    return asked


def with_gpu(monkeypatch: pytest.MonkeyPatch, shown: bool, bf16: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: shown)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)


def test_cpu_is_the_recipe_of_the_tables(monkeypatch: pytest.MonkeyPatch, drawn: list) -> None:
    with_gpu(monkeypatch, False)
    setup = profiles.attention("cpu", seed=3)
    assert drawn == [("train", {"root": None, "train": 1000}), ("val", {"root": None, "train": 1000})]
    assert setup.training == replace(recipe_files.load("drawn").training, seed=3)
    assert (setup.training.epochs, setup.training.optimizer) == (4, "adamw")
    assert setup.short == replace(setup.training, epochs=2, warm_up=30)
    assert setup.training.precision == "no"
    assert (setup.model.backbone, setup.model.head, setup.model.train_last) == ("efficientnet_lite0", "decoupled", 5)
    assert setup.device == "cpu"


@pytest.mark.parametrize(("head", "dropout"), checkpoints.DRAWN)
def test_the_models_that_come_with_the_book_are_those_of_the_drawn_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: str, dropout: float
) -> None:
    with_gpu(monkeypatch, False)
    drawn = replace(tiny.pictures(tmp_path), class_names=minivoc.CLASS_NAMES)
    monkeypatch.setattr(minivoc, "load", lambda split, **_: drawn)
    monkeypatch.setattr(profiles, "train_once", lambda *_: pytest.fail("trained"))
    model = profiles.attention("cpu", head=head, dropout=dropout).converged()
    file = checkpoints.DRAWN[head, dropout]
    assert file.stat().st_size <= 8_000_000
    assert model.config == replace(
        recipe_files.load("drawn").attention, class_names=minivoc.CLASS_NAMES, head=head, dropout=dropout
    )
    recorded = read_json(Path("results/checkpoints.json"))["values"][file.stem]
    assert recorded["shipped"] == file_digest(file)
    assert recorded["training"] == recipe_files.load("drawn").training.identity()
    assert recorded["curve"]["mean_average_precision"][-1] >= 0.93


@pytest.mark.parametrize("changed", [{"seed": 1}, {"dropout": 0.4}, {"profile": "colab"}])
def test_other_models_are_trained_by_the_whole_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: dict
) -> None:
    with_gpu(monkeypatch, "profile" in changed)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    pictures, asked = tiny.pictures(tmp_path, masks=True), []
    monkeypatch.setattr(minivoc, "load", lambda split, **_: replace(pictures, class_names=minivoc.CLASS_NAMES))
    monkeypatch.setattr(profiles, "train_once", lambda *given: asked.append(given) or (tiny.model(), None))
    setup = profiles.attention(**{"profile": "cpu"} | changed)
    assert tiny.same(setup.converged().state_dict(), tiny.model().state_dict())
    ((model, shown, training),) = asked
    assert (model, training) == (setup.model, setup.training)
    assert all(record.mask is None for record in shown.records)


def test_a_chapter_and_a_table_share_one_training(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, False)
    setup = profiles.attention("cpu")
    # What the digest of a run is taken over: who reads the pictures is no part of it.
    assert setup.training.identity() == replace(recipe_files.load("drawn").training, workers=2).identity()


@pytest.mark.parametrize("bf16, precision, seen", [(True, "bf16", "bf16"), (False, "fp16", "no")])
def test_colab_takes_the_precision_of_its_gpu(
    monkeypatch: pytest.MonkeyPatch, drawn: list, bf16: bool, precision: str, seen: str
) -> None:
    with_gpu(monkeypatch, True, bf16)
    setup = profiles.attention("colab")
    assert drawn[0] == ("train", {"root": None, "train": 2000})
    assert setup.training.epochs == 6
    assert (setup.training.precision, setup.inference_precision, setup.device) == (precision, seen, "cuda")


def test_full_is_the_papers_schedule_on_voc(monkeypatch: pytest.MonkeyPatch, drawn: list, tmp_path: Path) -> None:
    with_gpu(monkeypatch, True, bf16=True)
    splits = []
    monkeypatch.setattr(voc, "load", lambda root, split: splits.append((root, split)) or tiny.pictures(tmp_path))
    setup = profiles.attention("full", seed=1, voc_root="VOCdevkit", head="conventional")
    assert splits == [(Path("VOCdevkit"), "train_aug"), (Path("VOCdevkit"), "val")]
    assert drawn == []
    assert setup.training == replace(TrainingConfig(), precision="bf16", seed=1)
    assert (setup.model.backbone, setup.model.head, setup.model.train_last) == ("vgg16", "conventional", None)


def test_fields_of_the_model_replace_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, False)
    model = profiles.attention("cpu", head="single_stream", dropout=0.0, train_last=1).model
    assert (model.head, model.dropout, model.train_last) == ("single_stream", 0.0, 1)


def test_printing_shows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpu(monkeypatch, False)
    assert str(profiles.attention("cpu", head="single_stream")) == (
        "8 pictures to learn from, 8 to look at, 3 classes\n"
        "efficientnet_lite0 with a single-stream head; 4 epochs in batches of 16 by AdamW, "
        "learning rates 0.0005 and 0.005"
    )


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"profile": "gpu"}, "unknown profile 'gpu': choose cpu, colab or full"),
        ({"profile": ""}, "unknown profile ''"),
        ({"profile": "full"}, "profile 'full' needs a GPU and this machine shows none"),
        ({"profile": "colab"}, "profile 'colab' needs a GPU and this machine shows none"),
        ({"profile": "cpu", "seed": -1}, "seed -1: choose a whole number, 0 or more"),
        ({"profile": "cpu", "seed": "x"}, "seed 'x': choose a whole number, 0 or more"),
        ({"profile": "cpu", "seed": 0.5}, "seed 0.5: choose a whole number, 0 or more"),
    ],
)
def test_wrong_parameters(monkeypatch: pytest.MonkeyPatch, drawn: list, wrong: dict, says: str) -> None:
    with_gpu(monkeypatch, False)
    with pytest.raises(ProfileError, match=says) as caught:
        profiles.attention(**wrong)
    assert "\n" not in str(caught.value)
    assert drawn == [], "refused only after pictures were drawn"


def test_full_without_voc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_gpu(monkeypatch, True)
    with pytest.raises(ProfileError, match="needs PASCAL VOC: set voc_root to the folder that holds JPEGImages"):
        profiles.attention("full")
    with pytest.raises(ProfileError, match=f"voc_root: no JPEGImages folder under {tmp_path}"):
        profiles.attention("full", voc_root=tmp_path)


def test_choose() -> None:
    assert profiles.choose("colab", {"cpu": 1, "colab": 2}) == 2
    with pytest.raises(ProfileError, match="unknown profile 'full': choose cpu or colab"):
        profiles.choose("full", {"cpu": 1, "colab": 2})


def test_stored_tables_are_found_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(profiles.results_folder().glob("table_*.json"))


def test_stored_tables_of_ones_own(tmp_path: Path) -> None:
    assert profiles.results_folder(tmp_path) == tmp_path
    assert profiles.results_folder(str(tmp_path)) == tmp_path
    with pytest.raises(ProfileError, match=f"results: there is no folder {tmp_path / 'nowhere'};"):
        profiles.results_folder(tmp_path / "nowhere")


def test_a_notebook_shows_the_sentence_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    shell = InteractiveShell()
    shell.run_cell("from dsna_lib.book import profiles\nprofiles.choose('gpu', {'cpu': 1, 'full': 2})")
    assert capsys.readouterr().out.strip() == "ProfileError: unknown profile 'gpu': choose cpu or full"
