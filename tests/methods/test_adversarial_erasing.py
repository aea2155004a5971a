"""Adversarial erasing: hand-computed unions, steps that really see erased pictures, and runs that resume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from PIL import Image

from dsna_lib import annotate, attention, maps, training
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data import pictures
from dsna_lib.data.pictures import Pictures, Record, read_image, read_mask
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.methods import adversarial_erasing, cams
from dsna_lib.methods.adversarial_erasing import ROWS, erase, mean_color, mine
from dsna_lib.methods.base import prepare
from dsna_lib.training import train_once

MODEL = ModelConfig(tiny.NAMES, head="single_stream", dropout=0.0, weights=None)
TRAINING = TrainingConfig(epochs=1, batch_size=4, crop=16, workers=0, device="cpu")
BATCH = 3


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder for runs, and the tiny backbone instead of a real one."""
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    return tmp_path


def pictures_of(folder: Path) -> Pictures:
    """Eight pictures of three classes; the last has two labels."""
    made = tiny.pictures(folder, masks=True)
    made.records[-1] = replace(made.records[-1], labels=(0, 1))
    return made


@pytest.fixture
def split(here):
    return pictures_of(here / "data")


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """The masks of two steps that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        tiny_experiments.use(patch, folder / "runs")
        run(pictures_of(folder / "data"), folder / "out", steps=2)
    return masks(folder / "out")


@pytest.fixture
def trainings(monkeypatch):
    """The pictures of each training that was called."""
    seen, train = [], training.train_attention
    monkeypatch.setattr(
        training, "train_attention", lambda model, shown, *a: seen.append(shown) or train(model, shown, *a)
    )
    return seen


def run(split: Pictures, folder: Path, steps: int = 3, **options: Any) -> list[Path]:
    return mine(MODEL, split, TRAINING, folder, steps, **{"size": 32, "batch_size": BATCH} | options)


def masks(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.glob("step-*/*.png"))}


def mined(folder: Path, step: int, record: Record) -> np.ndarray:
    with np.load(folder / f"regions-{step}" / f"{record.id}.npz") as stored:
        return stored["mined"]


def planes(*rows: list[float]) -> torch.Tensor:
    """One-row maps, one a class: (C, 1, w)."""
    return torch.tensor(rows)[:, None, :]


# --- erasing and uniting, by hand


def test_erasing_fills_the_region_and_nothing_else():
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    before = image.copy()
    got = erase(image, np.array([[False, True], [True, False]]), (200, 100, 50))
    assert got.tolist() == [[[0, 1, 2], [200, 100, 50]], [[200, 100, 50], [9, 10, 11]]]
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def test_the_mean_color_counts_every_pixel_once(here):
    """1 pixel of (255, 0, 10) and 3 of (0, 0, 20): 63.75, 0 and 17.5, which rounds to even."""
    records = []
    for name, width, color in (("a", 1, (255, 0, 10)), ("b", 3, (0, 0, 20))):
        Image.new("RGB", (width, 1), color).save(here / f"{name}.png")
        records.append(Record(name, here / f"{name}.png", (0,)))
    assert mean_color(Pictures(records, ("cat",))) == (64, 0, 18)


def test_a_step_adds_to_the_regions_and_keeps_the_first_background(here):
    """Class 1 has the highest map and is absent. Step 2 adds one place to class 0 and nothing to class 2, whose map is
    constant; its features, low on the right, would make other places background."""
    record = Record("a", here / "a.png", (0, 2))

    def add(step: int, features: list[float], *rows: list[float]) -> list[int]:
        seen = maps.PictureMaps(0, (1, 6), {"cam": planes(*rows)}, planes(features), torch.zeros(3))
        adversarial_erasing._add(seen, record, here, step, thresholds=(0.2, 0.3))
        return read_mask(here / f"step-{step}" / "a.png")[0].tolist()

    high, flat = [9.0] * 5 + [0.0], [1.0] * 6
    assert add(1, [1, 1, 1, 1, 0, 0], [0.2, 1, 0.3, 0, 0, 0], high, [0, 0, 1, 0, 0, 0]) == [255, 1, 3, 255, 0, 0]
    assert add(2, [1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0.1], high, flat) == [255, 1, 3, 255, 1, 0]
    assert mined(here, 2, record)[:, 0].astype(int).tolist() == [[0, 1, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0]]


# --- the steps


def activations(model: attention.AttentionModel, shown: Pictures) -> list[maps.PictureMaps]:
    maker = partial(cams.cam_maps, methods=["cam"])
    return list(maps.iterate_maps(model, shown, size=32, batch_size=BATCH, maker=maker))


def test_step_one_is_the_pseudo_annotation_of_cam(split, here):
    (folder,) = run(split, here / "out", steps=1)
    assert folder == here / "out" / "step-1"
    model, _ = train_once(MODEL, split, TRAINING)
    for record, seen in zip(split.records, activations(model, split), strict=True):
        want = annotate.pseudo_annotation(seen.maps["cam"], seen.features, record.labels, seen.size)
        np.testing.assert_array_equal(read_mask(folder / f"{record.id}.png"), want)


def test_step_two_written_out(split, here):
    """Its classifier looks at pictures without step 1's regions; what it finds is added, and the smallest wins."""
    out = here / "out"
    run(split, out, steps=2)
    first, _ = train_once(MODEL, split, TRAINING)
    second = attention.load(out / "classifier-2" / "model.pth")
    assert not torch.equal(first.head.discriminative.weight, second.head.discriminative.weight)

    erased = Pictures([replace(r, image=out / "erased-1" / f"{r.id}.png") for r in split.records], tiny.NAMES)
    color, grown = mean_color(split), 0
    seen = zip(split.records, erased.records, activations(first, split), activations(second, erased), strict=True)
    for record, without, before, after in seen:
        parts = []
        for activation in (before, after):
            scaled = maps.min_max(annotate.resize(activation.maps["cam"], activation.size))
            parts.append((scaled > 0.2)[list(record.labels)].numpy())
        np.testing.assert_array_equal(
            read_image(without.image), erase(read_image(record.image), parts[0].any(axis=0), color)
        )
        united = parts[0] | parts[1]
        grown += (united & ~parts[0]).sum()
        np.testing.assert_array_equal(mined(out, 2, record), united)
        summed = before.features.sum(dim=0, keepdim=True)
        background = maps.min_max(annotate.resize(summed, before.size))[0].numpy() < 0.3
        want = np.where(background, 0, 255)
        for k in sorted(range(len(united)), key=lambda k: -united[k].sum()):
            want[united[k]] = record.labels[k] + 1
        np.testing.assert_array_equal(read_mask(out / "step-2" / f"{record.id}.png"), want)
    assert grown > 0


def test_each_step_trains_on_the_pictures_that_the_step_before_erased(split, here, trainings):
    out = here / "out"
    run(split, out)
    assert len(trainings) == 3
    assert [r.image for r in trainings[0].records] == [r.image for r in split.records]
    for step, shown in enumerate(trainings[1:], start=1):
        assert [r.image for r in shown.records] == [out / f"erased-{step}" / f"{r.id}.png" for r in split.records]
        for record, without in zip(split.records, shown.records, strict=True):
            region = mined(out, step, record).any(axis=0)
            pixels = read_image(without.image)
            assert (pixels[region] == mean_color(split)).all()
            np.testing.assert_array_equal(pixels[~region], read_image(record.image)[~region])
            assert without.labels == record.labels
    assert any(mined(out, 1, r).any() for r in split.records)
    assert not (out / "erased-3").exists()


def test_regions_only_grow_and_only_classes_that_are_present_are_mined(split, here):
    folders = run(split, here / "out")
    assert [folder.name for folder in folders] == ["step-1", "step-2", "step-3"]
    for record in split.records:
        steps = [mined(here / "out", k, record) for k in (1, 2, 3)]
        assert all(len(each) == len(record.labels) for each in steps)
        assert not (steps[0] & ~steps[1]).any()
        assert not (steps[1] & ~steps[2]).any()
        for each, folder in zip(steps, folders, strict=True):
            mask = read_mask(folder / f"{record.id}.png", read_image(record.image).shape[:2])
            assert set(np.unique(mask)) <= {0, 255, *(label + 1 for label in record.labels)}
            np.testing.assert_array_equal(each.any(axis=0), (mask != 0) & (mask != 255))


def test_a_picture_without_a_label_stays_whole_and_is_background(split, here, trainings):
    """Every classifier learns from it; only the others lose what is mined."""
    bare = split.records[2] = replace(split.records[2], labels=())
    for folder in run(split, here / "out"):
        assert not read_mask(folder / "p02.png", read_image(bare.image).shape[:2]).any()
    assert mined(here / "out", 3, bare).shape == (0, *read_image(bare.image).shape[:2])
    assert len(trainings) == 3
    for shown in trainings:
        assert shown.records[2].labels == ()
        np.testing.assert_array_equal(read_image(shown.records[2].image), read_image(bare.image))
    assert mined(here / "out", 1, split.records[1]).any()


def test_masks_are_not_read(split, here, trainings, monkeypatch):
    monkeypatch.setattr(pictures, "read_mask", lambda *_: pytest.fail("read a mask"))
    for record in split.records:
        record.mask.unlink()
    run(split, here / "out", steps=2)
    assert all(record.mask is None for shown in trainings for record in shown.records)


# --- resuming


def test_what_is_finished_is_not_repeated(split, here, trainings, monkeypatch):
    run(split, here / "out", steps=1)
    before = {path: path.stat().st_mtime_ns for path in (here / "out").rglob("*.png")}
    run(split, here / "out", steps=2)
    assert len(trainings) == 2  # step 2's alone was added
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    monkeypatch.setattr(adversarial_erasing, "train_once", lambda *_: pytest.fail("asked for a classifier again"))
    for module in (pictures, adversarial_erasing):
        monkeypatch.setattr(module, "read_image", lambda path: pytest.fail("looked at a picture again"))
    assert len(run(split, here / "out", steps=2)) == 2


def test_the_first_classifier_is_cams_own(split, here, trainings):
    train_once(MODEL, split, TRAINING)
    run(split, here / "out", steps=1)
    assert len(trainings) == 1


def stop_at(call: int, function: Callable) -> Callable:
    """The function, until it is called for the n-th time."""
    count = []

    def stopping(*args: Any, **kwargs: Any) -> Any:
        count.append(1)
        if len(count) == call:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return stopping


@pytest.mark.parametrize(
    "where, name, call, begun, left",
    [
        (adversarial_erasing, "write_mask", 3, 1, 1),  # in step 1, after 2 annotations
        (adversarial_erasing, "erase", 5, 1, 1),  # after 4 erased pictures
        (training, "_step", 4, 2, 1),  # half of the second training is done
        (adversarial_erasing, "write_mask", 13, 2, 0),  # in step 2, after 4 annotations
    ],
)
def test_a_killed_call_goes_on(split, here, two_steps, trainings, monkeypatch, where, name, call, begun, left):
    function = getattr(where, name)
    monkeypatch.setattr(where, name, stop_at(call, function))
    with pytest.raises(KeyboardInterrupt):
        run(split, here / "out", steps=2)
    assert len(trainings) == begun
    monkeypatch.setattr(where, name, function)
    run(split, here / "out", steps=2)
    assert len(trainings) == begun + left
    assert masks(here / "out") == two_steps
    assert len(two_steps) == 16


def test_a_resumed_call_computes_whole_batches_and_erases_no_picture_twice(split, here, monkeypatch):
    """Pictures 0-2, 3-5 and 6-7 share a forward pass each, however many of them are done."""
    run(split, here / "out", steps=2)
    for name in ("p01", "p07"):
        (here / "out" / "step-2" / f"{name}.png").unlink()
    (here / "out" / "erased-1" / "p04.png").unlink()
    seen, compute = [], maps.iterate_maps
    monkeypatch.setattr(
        maps,
        "iterate_maps",
        lambda model, shown, todo, *a, **k: seen.append(todo) or compute(model, shown, todo, *a, **k),
    )
    monkeypatch.setattr(adversarial_erasing, "erase", lambda *a: seen.append("erased") or erase(*a))
    run(split, here / "out", steps=2)
    assert seen == ["erased", [0, 1, 2, 6, 7]]


# --- bad input


def test_a_folder_of_other_settings_is_refused(split, here):
    run(split, here / "out", steps=1)
    with pytest.raises(
        RunError, match=r"out was made with mining.thresholds \[0.2, 0.3\], not \[0.3, 0.3\]; use another folder"
    ):
        run(split, here / "out", steps=1, threshold=0.3)
    with pytest.raises(RunError, match=r"mining.thresholds \[0.2, 0.3\], not \[0.2, 0.4\]"):
        run(split, here / "out", steps=1, background_threshold=0.4)
    with pytest.raises(RunError, match=r"made with training.seed 0, not 1"):
        mine(MODEL, split, replace(TRAINING, seed=1), here / "out", 1, size=32)
    with pytest.raises(RunError, match=r"made with data.digest"):
        run(Pictures(split.records[:6], tiny.NAMES), here / "out", steps=1)
    assert run(split, here / "out", steps=1, batch_size=2)  # changes nothing


@pytest.mark.parametrize(
    "change, message",
    [
        ({"head": "conventional"}, "head 'conventional' with dropout 0 is not CAM's classifier: use head 'single_st"),
        ({"head": "decoupled", "dropout": 0.5}, "head 'decoupled' with dropout 0.5 is not CAM's classifier"),
        ({"dropout": 0.5}, "head 'single_stream' with dropout 0.5"),
    ],
)
def test_only_cams_classifier(split, here, trainings, change, message):
    with pytest.raises(ValueError, match=message):
        mine(replace(MODEL, **change), split, TRAINING, here / "out")
    assert (trainings, (here / "out").exists()) == ([], False)


@pytest.mark.parametrize("steps", [0, -1])
def test_no_step(split, here, steps):
    with pytest.raises(ValueError, match=f"steps={steps}: mining takes at least 1 step"):
        run(split, here / "out", steps=steps)


def test_an_unreadable_picture_is_named(split, here):
    split.records[5].image.write_bytes(split.records[5].image.read_bytes()[:100])
    with pytest.raises(pictures.PictureError, match="p05.png: cannot be read as a picture"):
        run(split, here / "out")


# --- as a method


@pytest.fixture
def stage(here):
    experiment = tiny_experiments.experiment(here)
    few = experiment.train.with_records(experiment.train.records[:4])
    return prepare(ROWS[0], experiment.recipe, experiment.mining, few, seed=0)


def test_its_steps_share_a_folder_with_whoever_else_mines_so(stage, trainings):
    """All pictures of mining are mined, and the annotations are those of the steps on their own, refined."""
    unrefined = replace(stage, annotation=AnnotationConfig(crf="none"))
    first, second = (method.annotate(unrefined) for method in ROWS[:2])
    assert (first.name, second.name, first.parent) == ("step-1", "step-2", second.parent)
    assert len(trainings) == 2
    assert len(list(second.glob("*.png"))) == 8
    config = replace(MODEL, class_names=tiny.NAMES)
    assert mine(config, stage.mining, stage.training, steps=2, size=24) == [first, second]
    assert len(trainings) == 2
    assert runs.Run(first.parent, "", {}).read()["metrics"] == {"steps": 2}


def test_only_the_stages_own_pictures_are_refined(stage):
    refined = ROWS[0].annotate(stage)
    assert sorted(path.stem for path in refined.glob("*.png")) == ["p00", "p01", "p02", "p03"]


@pytest.mark.parametrize("changes", [{"foreground_threshold": 0.4}, {"background_threshold": 0.6}])
def test_its_thresholds_are_the_recipes(stage, changes):
    unrefined = replace(stage, annotation=AnnotationConfig(crf="none"))
    other = replace(stage, annotation=AnnotationConfig(crf="none", **changes))
    method = ROWS[0]
    usual, changed = method.annotate(unrefined), method.annotate(other)
    assert usual.parent != changed.parent
    assert masks(usual.parent) != masks(changed.parent)
