"""Table III from end to end on tiny pictures: what each method learns from, what it may not read, what it reuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tiny
import torch

from dsna_lib import attention, backbones, crf, pipelines, runs, segmentation, tables, training
from dsna_lib.attention import ModelConfig
from dsna_lib.data import PictureError, Pictures, read_image, read_mask
from dsna_lib.data.pictures import without_masks
from dsna_lib.pipelines import METHODS, Recipe, Score, annotations, score, select, values
from dsna_lib.rivals.sec import SECLoss
from dsna_lib.segmentation import AnnotationError, SegmentationConfig, SegmentationTraining
from dsna_lib.tables import TableError
from dsna_lib.training import TrainingConfig

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="pydensecrf2 does not build on Python 3.13 and later"
)

MODEL = ModelConfig(tiny.NAMES, weights=None)
TRAINING = TrainingConfig(epochs=1, batch_size=4, crop=16, workers=0, device="cpu")
NETWORK = SegmentationConfig(tiny.NAMES, "tiny", channels=8, dilation=1, weights=None)
LEARNING = SegmentationTraining(epochs=1, batch_size=4, crop=17, workers=0, device="cpu")
LEARNED_FROM = {
    "CAM": "cam-crf-0.7",
    "SEC, seed": "cam",
    "SEC, seed + constrain": "cam",
    "SEC, seed + constrain + expand": "cam",
    "AE, step 1": "step-1-crf-0.7",
    "AE, step 2": "step-2-crf-0.7",
    "AE, step 3": "step-3-crf-0.7",
    "AE, step 4": "step-4-crf-0.7",
    "DSNA, expansive": "expansive-crf-0.7",
    "DSNA, discriminative": "discriminative-crf-0.7",
    "DSNA, merged": "merged-crf-0.7",
    "full supervision": "data",
}


class Learned(NamedTuple):
    """What a segmentation network was trained on."""

    pictures: Pictures
    config: SegmentationTraining
    loss: Any


class Made(NamedTuple):
    """Everything that the methods left."""

    recipe: Recipe
    found: dict[tuple[pipelines.Method, int], Score]
    learned: dict[str, Learned]
    masks: dict[str, Path]
    runs: Path


def tiny_backbones(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """A folder for runs, and the tiny backbone instead of a real one."""
    patch.setenv("DSNA_RUNS", str(folder))
    patch.setattr(backbones, "create", lambda name, stride, weights: tiny.backbone())


def recipe_of(folder: Path) -> Recipe:
    train, val = tiny.pictures(folder / "data", masks=True), tiny.pictures(folder / "val", 4, masks=True)
    return Recipe(tables.Recipe(train, val, MODEL, TRAINING, size=24), train, NETWORK, LEARNING, scales=(0.7, 1.0))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every method, once."""
    folder = tmp_path_factory.mktemp("made")
    recipe, found, learned, masks = recipe_of(folder), {}, [], []
    once, segment = runs.train_once, segmentation.segment_split

    def train_once(model: Any, pictures: Pictures, config: Any, own: Any = None, loss: Any = None) -> Any:
        learned.append(Learned(pictures, config, loss))
        return once(model, pictures, config, own, loss)

    def segment_split(model: Any, pictures: Pictures, folder: Path, *arguments: Any, **options: Any) -> Any:
        masks.append(folder)
        return segment(model, pictures, folder, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        tiny_backbones(patch, folder / "runs")
        patch.setattr(runs, "train_once", train_once)
        patch.setattr(segmentation, "segment_split", segment_split)
        for method in METHODS.values():
            found[method, 0] = score((method, 0), recipe)
    learned = [each for each in learned if isinstance(each.config, SegmentationTraining)]
    return Made(
        recipe, found, dict(zip(METHODS, learned, strict=True)), dict(zip(METHODS, masks, strict=True)), folder / "runs"
    )


@pytest.fixture
def there(made, monkeypatch):
    """The folder where everything is made already."""
    tiny_backbones(monkeypatch, made.runs)
    return made


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A folder where nothing is made yet."""
    tiny_backbones(monkeypatch, tmp_path / "runs")
    return recipe_of(tmp_path)


@pytest.fixture
def trainings(monkeypatch):
    """What was trained, in order."""
    done, attend, segment = [], training.train_attention, segmentation.train_segmentation
    monkeypatch.setattr(training, "train_attention", lambda *a: done.append("attention") or attend(*a))
    monkeypatch.setattr(
        segmentation, "train_segmentation", lambda *a, **k: done.append("segmentation") or segment(*a, **k)
    )
    return done


def quiet(text: str) -> None:
    pass


def named(*titles: str) -> list[pipelines.Method]:
    return [METHODS[title] for title in titles]


# --- the rows


def test_the_rows_are_the_papers_and_two_of_our_own():
    assert list(METHODS) == list(LEARNED_FROM)
    printed = {title: method.paper for title, method in METHODS.items() if method.paper is not None}
    assert list(printed.values()) == [45.4, 50.4, 50.7, 44.9, 49.5, 50.9, 48.8, 54.1, 52.2, 55.4]
    assert METHODS.keys() - printed.keys() == {"CAM", "full supervision"}


def test_select():
    assert [method.title for method in select(["DSNA, merged", "CAM"])] == ["CAM", "DSNA, merged"]
    assert [method.title for method in select(None)] == [title for title in METHODS if title != "CAM"]
    with pytest.raises(TableError, match=r"table III has no row 'DSNA'; its rows are CAM; SEC, seed; .*supervision$"):
        select(["CAM", "DSNA"])


# --- from labels to scores


@pytest.mark.parametrize("title", METHODS)
def test_every_method_counts_every_pixel_of_val(made, title):
    found, val = made.found[METHODS[title], 0], made.recipe.mining.val
    assert list(found.counts) == ["single", "multi", "iou"]
    for counts in found.counts.values():
        assert counts.shape == (4, 4, 5)
        truth = [np.bincount(read_mask(record.mask).ravel(), minlength=4) for record in val.records]
        np.testing.assert_array_equal(counts.sum(axis=2), truth)
        assert (counts[..., -1] == 0).all()  # a network leaves no pixel void
    assert 0 <= found.annotation <= 100
    assert (found.annotation == 100) == (title == "full supervision")


@pytest.mark.parametrize("title", METHODS)
def test_what_each_method_learns_from(made, title):
    pictures, config, loss = made.learned[title]
    method, learned = METHODS[title], LEARNED_FROM[title]
    assert [r.mask.parent.name for r in pictures.records] == [learned] * 8
    assert [r.image for r in pictures.records] == [r.image for r in made.recipe.train.records]
    assert config == replace(LEARNING, whole=title.startswith("SEC"))
    assert loss == (SECLoss(method.losses) if title.startswith("SEC") else None)
    described = made.found[method, 0].how["loss"]
    assert described == ("cross-entropy" if loss is None else {"SECLoss": json.loads(json.dumps(vars(loss)))})


def test_annotations_are_told_apart(made):
    """No two sources are the same masks, but AE's first step is CAM."""
    digests = {title: segmentation.annotations_digest(learned.pictures) for title, learned in made.learned.items()}
    assert digests.pop("AE, step 1") == digests["CAM"]
    assert digests.pop("SEC, seed + constrain") == digests.pop("SEC, seed + constrain + expand") == digests["SEC, seed"]
    del digests["AE, step 4"]  # nothing is left to be found in pictures as small as these
    assert len(set(digests.values())) == len(digests) == 8


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_erasing_refines_the_regions_of_its_own_step(there, step):
    folder = annotations(METHODS[f"AE, step {step}"], 0, there.recipe)
    assert folder.name == f"step-{step}-crf-0.7"
    for record in there.recipe.train.records[:3]:
        mined = read_mask(folder.parent / f"step-{step}" / f"{record.id}.png")
        found = crf.class_probabilities(mined, record.labels, 3, 0.7)
        np.testing.assert_array_equal(
            read_mask(folder / f"{record.id}.png"), crf.refine(read_image(record.image), found)
        )


@pytest.mark.parametrize("title", ["SEC, seed", "DSNA, merged", "full supervision"])
def test_counts_are_those_of_the_masks_on_disk(made, title):
    """Of the CRF for the last column, and of one scale and several for the others."""
    for kind, column in (("single", "single"), ("multi", "multi"), ("crf", "iou")):
        wanted = np.zeros((4, 4, 5), int)
        for k, record in enumerate(made.recipe.mining.val.records):
            mask = read_mask(made.masks[title] / kind / f"{record.id}.png")
            np.add.at(wanted[k], (read_mask(record.mask), mask), 1)
        np.testing.assert_array_equal(made.found[METHODS[title], 0].counts[column], wanted)


def test_a_second_call_trains_and_writes_nothing(there, trainings):
    before = {path: path.stat().st_mtime_ns for path in there.runs.rglob("*.png")}
    said: list[str] = []
    again, provenance = pipelines.run(list(METHODS.values()), there.recipe, say=said.append)
    assert trainings == []
    assert {path: path.stat().st_mtime_ns for path in there.runs.rglob("*.png")} == before
    names = ("background", *tiny.NAMES)
    assert again == values(list(METHODS.values()), there.found, 1, names)
    assert said[0] == "1 of 12: AE, step 4, seed 0: done"  # the longest row is begun first
    assert [row["title"] for row in again["rows"]] == list(METHODS)
    assert provenance["pictures"] == {"mining": 8, "train": 8, "val": 4}
    assert provenance["trained"]["SEC, seed"]["0"]["training"]["whole"] is True
    json.dumps([again, provenance], allow_nan=False)


WEAK = ("SEC, seed", "AE, step 2", "DSNA, merged")


def test_weak_methods_do_not_read_the_truth(recipe, made, trainings):
    """Without masks they come to the same scores; only the quality of the annotations is not known."""
    blind = replace(
        recipe, train=without_masks(recipe.train), mining=replace(recipe.mining, train=without_masks(recipe.train))
    )
    for title in WEAK:
        found, known = score((METHODS[title], 0), blind), made.found[METHODS[title], 0]
        assert found.annotation is None
        for column, counts in known.counts.items():
            np.testing.assert_array_equal(found.counts[column], counts)
    assert trainings == ["attention", "segmentation"] * 3  # CAM's classifier, that of AE's second step, DSNA's model
    assert {path.name for path in runs.root().glob("erase/*/step-*")} >= {"step-1", "step-2"}
    assert not list(runs.root().glob("erase/*/step-3"))


def test_full_supervision_without_masks_is_refused(recipe, trainings):
    blind = replace(recipe, train=without_masks(recipe.train))
    with pytest.raises(AnnotationError, match="8 of 8 pictures have no mask to learn from: p00, p01, p02 and 5 more"):
        score((METHODS["full supervision"], 0), blind)
    assert trainings == []


def test_annotated_pictures_may_be_fewer_than_those_of_mining(recipe):
    """The attention model sees all of them all the same."""
    few = replace(recipe, train=recipe.train.select([f"p{k:02d}" for k in range(4)]))
    found = score((METHODS["DSNA, merged"], 0), few)
    assert found.how["data"]["pictures"] == 4
    folder = annotations(METHODS["DSNA, merged"], 0, few)
    assert sorted(path.stem for path in folder.glob("*.png")) == ["p00", "p01", "p02", "p03"]
    (mined,) = (runs.read_json(path) for path in runs.root().glob("train/*/run.json"))
    assert mined["config"]["data"]["pictures"] == 8


def test_each_seed_trains_every_stage(recipe, trainings):
    found, provenance = pipelines.run(named("SEC, seed"), recipe, seeds=2, say=quiet)
    assert trainings == ["attention", "segmentation"] * 2
    (row,) = found["rows"]
    assert len(row["seeds"]) == 2
    assert row["seeds"][0] != row["seeds"][1]
    seeds = provenance["trained"]["SEC, seed"]
    assert [seeds[seed]["training"]["seed"] for seed in ("0", "1")] == [0, 1]


def test_a_val_picture_that_cannot_be_read_is_named(recipe, trainings):
    recipe.mining.val.records[2].image.write_bytes(b"")
    with pytest.raises(PictureError, match="could not be segmented, such as p02: .*p02.png: cannot be read"):
        score((METHODS["SEC, seed"], 0), recipe)
    with pytest.raises(RuntimeError, match=r"1 of 1 settings failed \(SEC, seed, seed 0: 1 pictures could not"):
        pipelines.run(named("SEC, seed"), recipe, say=quiet)
    assert trainings == ["attention", "segmentation"]  # the second call found both


def test_no_seeds_or_jobs_are_refused(recipe):
    for wrong in ({"seeds": 0}, {"jobs": 0}):
        with pytest.raises(TableError, match="at least one of each"):
            pipelines.run(named("CAM"), recipe, **wrong, say=quiet)


def test_two_rows_at_a_time_share_a_classifier_and_give_the_numbers_of_one(tmp_path, monkeypatch):
    """Both need CAM's classifier at once: one trains it, the other waits."""
    pictures = tiny.pictures(tmp_path / "data", 4, masks=True)
    network = SegmentationConfig(tiny.NAMES, channels=8, dilation=1, weights=None)  # workers know real backbones only
    mining = tables.Recipe(pictures, pictures, MODEL, replace(TRAINING, crop=32), size=32)
    recipe = Recipe(mining, pictures, network, replace(LEARNING, crop=33), scales=(1.0,))
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for jobs in (1, 2):
        monkeypatch.setenv("DSNA_RUNS", str(tmp_path / f"jobs{jobs}"))
        made, provenance = pipelines.run(named("SEC, seed", "AE, step 1"), recipe, jobs=jobs, say=quiet)
        found.append((made, [provenance["trained"][title]["0"]["file"] for title in ("SEC, seed", "AE, step 1")]))
        (classifier,) = runs.root().glob("train/*/model.pth")
        assert attention.load(classifier).config.head == "single_stream"
    torch.set_num_threads(threads)
    assert found[0] == found[1]


# --- values


def counts(*pictures: Sequence[int]) -> np.ndarray:
    """Pictures of ten pixels of background and ten of the class: (found background, found class)."""
    return np.array([[[b, 10 - b, 0], [10 - c, c, 0]] for b, c in pictures])


def miou(background: int, cat: int, total: int) -> float:
    """By hand, for `total` pixels each, of which so many are found."""
    wrong = 2 * total - background - cat
    return 50 * (background / (background + wrong) + cat / (cat + wrong))


def a_score(annotation: float, *pictures: Sequence[int]) -> Score:
    """At one scale all background is missed; several scales find one pixel of it less than the CRF, in each picture."""
    return Score(
        {
            "single": counts(*((0, c) for _, c in pictures)),
            "multi": counts(*((b - 1, c) for b, c in pictures)),
            "iou": counts(*pictures),
        },
        annotation,
    )


FOUND = {
    (METHODS["CAM"], 0): a_score(40.0, (5, 5), (6, 6)),
    (METHODS["CAM"], 1): a_score(42.0, (6, 5), (6, 6)),
    (METHODS["DSNA, merged"], 0): a_score(50.0, (8, 7), (8, 8)),
    (METHODS["DSNA, merged"], 1): a_score(51.0, (8, 8), (8, 8)),
    (METHODS["full supervision"], 0): a_score(100.0, (9, 9), (9, 9)),
    (METHODS["full supervision"], 1): a_score(100.0, (9, 10), (10, 9)),
}
NAMES = ("background", "cat")


def test_values_by_hand():
    methods = named("CAM", "DSNA, merged", "full supervision")
    found = values(methods, FOUND, 2, NAMES)
    assert found["table"] == "III"
    assert found["columns"] == ["annotation", "single", "multi", "iou", "object", "share"]
    assert set(found["columns"]) <= set(tables.HEADS)
    rows = {row["title"]: row for row in found["rows"]}
    assert [row["paper"] for row in rows.values()] == [{}, {"iou": 55.4}, {}]

    first = {
        "annotation": 50.0,
        "single": miou(0, 15, 20),
        "multi": miou(14, 15, 20),
        "iou": miou(16, 15, 20),
        "object": 100 * 15 / (20 + 4),
        "share": 100 * miou(16, 15, 20) / miou(18, 18, 20),
    }
    second = {
        "annotation": 51.0,
        "single": miou(0, 16, 20),
        "multi": miou(14, 16, 20),
        "iou": miou(16, 16, 20),
        "object": 100 * 16 / (20 + 4),
        "share": 100 * miou(16, 16, 20) / miou(19, 19, 20),
    }
    merged = rows["DSNA, merged"]
    for got, wanted in zip(merged["seeds"], (first, second), strict=True):
        assert got == pytest.approx(wanted, abs=0.02)
    for column in found["columns"]:
        both = [each[column] for each in merged["seeds"]]
        assert merged["mean"][column] == pytest.approx(np.mean(both), abs=0.006)
        assert merged["std"][column] == pytest.approx(np.std(both, ddof=1), abs=0.006)
    assert {each["share"] for each in rows["full supervision"]["seeds"]} == {100.0}

    background = (16 / (16 + 9) + 16 / (16 + 8)) / 2
    cat = (15 / (15 + 9) + 16 / (16 + 8)) / 2
    assert merged["per_class"] == pytest.approx({"background": 100 * background, "cat": 100 * cat}, abs=0.01)
    assert np.mean(list(merged["per_class"].values())) == pytest.approx(merged["mean"]["iou"], abs=0.02)


def test_claims_are_judged_on_the_last_column():
    methods = named("CAM", "DSNA, merged", "full supervision")
    claims = {claim["text"]: claim for claim in values(methods, FOUND, 2, NAMES)["claims"]}
    assert list(claims) == [
        "DSNA's merged annotations beat CAM's",
        "full supervision beats DSNA's merged annotations",
    ]
    wanted = [miou(16, 15, 20) - miou(11, 11, 20), miou(16, 16, 20) - miou(12, 11, 20)]
    assert claims["DSNA's merged annotations beat CAM's"]["differences"] == pytest.approx(wanted, abs=0.02)
    assert {claim["verdict"] for claim in claims.values()} == {"holds"}


def test_one_seed_is_judged_by_the_bootstrap_over_pictures():
    claims = values(named("CAM", "DSNA, merged"), FOUND, 1, NAMES)["claims"]
    assert [claim["verdict"] for claim in claims] == ["holds (one training)"]
    low, high = claims[0]["interval"]
    assert 0 < low <= claims[0]["differences"][0] <= high


def test_without_the_ceiling_there_is_no_share():
    alone = {unit: one for unit, one in FOUND.items() if unit[0].title == "DSNA, merged"}
    found = values(named("DSNA, merged"), alone, 1, NAMES)
    assert found["columns"] == ["annotation", "single", "multi", "iou", "object"]
    assert found["claims"] == []
    assert found["rows"][0]["std"]["iou"] is None


def test_the_table_can_be_rendered():
    found = values(named("CAM", "DSNA, merged", "full supervision"), FOUND, 2, NAMES)
    lines = tables.render(found).splitlines()
    assert lines[0].endswith("share of the ceiling | paper: IoU |")
    assert [line.rsplit("|", 2)[1].strip() for line in lines[2:]] == ["-", "55.4", "-"]
