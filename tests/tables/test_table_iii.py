"""Table III from end to end on tiny pictures: what each method learns from, what it may not read, what it reuses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from tiny_experiments import NETWORK, RECIPE, quiet
from torch import Tensor

from dsna_lib import attention, crf, training
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.recipe import MapConfig, NetworkConfig
from dsna_lib.config.segmentation import InferenceConfig, SegmentationConfig
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data.pictures import PictureError, Pictures, read_image, read_mask, without_masks
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import read_json
from dsna_lib.engine.pools import PoolError, Unit, Workers
from dsna_lib.engine.runs import file_digest
from dsna_lib.methods.base import LABELS, Help, Method, MethodError, Stage, prepare
from dsna_lib.methods.rows import METHODS
from dsna_lib.methods.sec import SECLoss
from dsna_lib.segmentation import networks
from dsna_lib.segmentation import training as segmentation_training
from dsna_lib.tables import render, segmentation
from dsna_lib.tables.definitions import TableError
from dsna_lib.tables.run import Experiment, Result
from dsna_lib.tables.scores import Score
from dsna_lib.tables.segmentation import in_order, run_table_iii, summarize, train_and_score

# The folder of what is refined, or for SEC of what is not; None for the truth.
LEARNED_FROM = {
    "CAM": "cam",
    "SEC, seed": "cam",
    "SEC, seed + constrain": "cam",
    "SEC, seed + constrain + expand": "cam",
    "SEC, seed + constrain + expand, floored": "cam",
    "AE, step 1": "step-1",
    "AE, step 2": "step-2",
    "AE, step 3": "step-3",
    "AE, step 4": "step-4",
    "Grad-CAM": "grad_cam",
    "excitation backprop": "excitation_backprop",
    "contrastive excitation backprop": "contrastive_excitation_backprop",
    "conventional attention": "expansive",
    "DSNA, expansive": "expansive",
    "DSNA, discriminative": "discriminative",
    "DSNA, merged": "merged",
    "single stream": "discriminative",
    "full supervision": None,
}


class Learned(NamedTuple):
    """What a segmentation network was trained on."""

    pictures: Pictures
    config: SegmentationTraining
    loss: Any


class Made(NamedTuple):
    """Everything that the methods left."""

    experiment: Experiment
    scores: dict[Unit, Score]
    learned: dict[str, Learned]
    masks: dict[str, Path]
    runs: Path
    identities: dict[str, list[dict[str, Any]]]  # of all runs, by stage


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every method, once."""
    folder = tmp_path_factory.mktemp("made")
    experiment, scores, learned, masks = tiny_experiments.experiment(folder), {}, [], []
    once, segment = segmentation.train_once, segmentation.segmented

    def train_once(model: Any, pictures: Pictures, config: Any, loss: Any) -> Any:
        learned.append(Learned(pictures, config, loss))
        return once(model, pictures, config, loss=loss)

    def segmented(*arguments: Any) -> Path:
        masks.append(segment(*arguments))
        return masks[-1]

    with pytest.MonkeyPatch.context() as patch:
        tiny_experiments.use(patch, folder / "runs")
        patch.setattr(segmentation, "train_once", train_once)
        patch.setattr(segmentation, "segmented", segmented)
        for title in LEARNED_FROM:
            scores[Unit(METHODS[title], 0)] = train_and_score(METHODS[title], 0, experiment, NETWORK)
    of_titles = (dict(zip(LEARNED_FROM, each, strict=True)) for each in (learned, masks))
    identities: dict[str, list[dict[str, Any]]] = {}
    for card in (folder / "runs").glob("*/*/run.json"):
        identities.setdefault(card.parents[1].name, []).append(read_json(card)["identity"])
    return Made(experiment, scores, *of_titles, folder / "runs", identities)


@pytest.fixture
def there(made, monkeypatch):
    """The folder where everything is made already."""
    tiny_experiments.use(monkeypatch, made.runs)
    return made


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """A folder where nothing is made yet."""
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    return tiny_experiments.experiment(tmp_path)


@pytest.fixture
def trainings(monkeypatch):
    """What was trained, in order."""
    done, attend, segment = [], training.train_attention, segmentation_training.train_segmentation
    monkeypatch.setattr(training, "train_attention", lambda *a: done.append("attention") or attend(*a))
    monkeypatch.setattr(
        segmentation_training, "train_segmentation", lambda *a: done.append("segmentation") or segment(*a)
    )
    return done


def test_a_network_may_start_where_the_attention_model_ended(experiment, monkeypatch):
    """It has learned from what every row is told, so rows that train no such model start there, too."""
    asked, once = [], segmentation.train_once
    monkeypatch.setattr(
        segmentation, "train_once", lambda *given, **options: asked.append(given[0]) or once(*given, **options)
    )
    network = replace(NETWORK, start="attention")
    _, run, _ = segmentation.trained_network(METHODS["full supervision"], 1, experiment, network)
    (model,) = asked
    ended = attention.load(model.weights).config
    assert ended == replace(RECIPE.attention, class_names=tiny.NAMES)
    assert read_json(Path(model.weights).parent / "run.json")["identity"]["training"]["seed"] == 1
    assert run.identity["model"]["weights"] == "model.pth"  # on any machine; what it holds is told by a digest
    assert run.identity["weights"] == file_digest(Path(model.weights))
    assert networks.load(run.folder / "model.pth").config.weights == "model.pth"


def named(*titles: str) -> list[Method]:
    return [METHODS[title] for title in titles]


def table(
    methods: Sequence[Method], experiment: Experiment, network: NetworkConfig = NETWORK, **options: Any
) -> Result:
    return run_table_iii(methods, experiment, network, **{"say": quiet} | options)


def trained(provenance: dict[str, Any]) -> list[dict[str, Any]]:
    """What is known of each training of a table."""
    return [how for seeds in provenance["trained"].values() for how in seeds.values()]


def masks_of(pictures: Pictures) -> Path:
    """The folder of the masks that pictures come with."""
    (folder,) = {record.mask.parent for record in pictures.records}
    return folder


def unrefined(made: Made, title: str) -> Path | None:
    """A method's annotations without its CRF: what was refined, or what SEC's networks learn from as it is."""
    recipe = replace(RECIPE, annotation=AnnotationConfig(crf="none"))
    stage = prepare(METHODS[title], recipe, made.experiment.mining, made.experiment.train, seed=0)
    return METHODS[title].annotate(stage)


# --- methods of one's own: whatever has the parts will do


@dataclass(frozen=True)
class Brightness:
    """A loss that needs no mask: how probable the background is, against the labels."""

    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        assert "mask" not in batch
        return -torch.log_softmax(logits, dim=1)[:, 1:].amax(dim=(2, 3))[batch["labels"] > 0].mean()


@dataclass(frozen=True)
class LabelsAlone:
    """It annotates nothing."""

    title: str = "step-3 of DSNA, full supervision"  # of which nobody may conclude anything
    needs: frozenset[Help] = LABELS
    paper: float | None = 25.7
    trains: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> None:
        """Nothing."""

    def loss(self, stage: Stage) -> Brightness:
        return Brightness()


@dataclass(frozen=True)
class Failing(LabelsAlone):
    """It never annotates anything, and says why."""

    title: str = "failing"

    def annotate(self, stage: Stage) -> None:
        raise RuntimeError(f"no luck with seed {stage.training.seed}")


# --- from labels to scores


@pytest.mark.parametrize("title", LEARNED_FROM)
def test_every_method_counts_every_pixel_of_val(made, title):
    score, val = made.scores[Unit(METHODS[title], 0)], made.experiment.val
    assert list(score.counts) == ["single", "multi", "iou"]
    for counts in score.counts.values():
        assert counts.shape == (4, 4, 5)
        truth = [np.bincount(read_mask(record.mask).ravel(), minlength=4) for record in val.records]
        np.testing.assert_array_equal(counts.sum(axis=2), truth)
        assert (counts[..., -1] == 0).all()  # a network leaves no pixel void
    assert 0 <= score.annotation <= 100
    assert (score.annotation == 100) == (title == "full supervision") == (score.learned_wrong.sum() == 0)


@pytest.mark.parametrize("title", LEARNED_FROM)
def test_what_each_method_learns_from(there, title):
    pictures, config, loss = there.learned[title]
    method, kind = METHODS[title], LEARNED_FROM[title]
    assert len(pictures) == 8
    assert [r.image for r in pictures.records] == [r.image for r in there.experiment.train.records]
    sec, source = title.startswith("SEC"), unrefined(there, title)
    if kind is None:
        assert source is None
        assert [r.mask for r in pictures.records] == [r.mask for r in there.experiment.train.records]
    else:
        assert source.name == kind
        assert (masks_of(pictures) == source) == sec
    if kind is not None and not sec:
        assert masks_of(pictures).parent == there.runs / "refine"
        for record in pictures.records[:3]:
            likely = crf.class_probabilities(read_mask(source / f"{record.id}.png"), record.labels, 3, 0.7)
            np.testing.assert_array_equal(read_mask(record.mask), crf.refine(read_image(record.image), likely))
    assert config == NETWORK.training
    assert loss == (method.minimized if sec else None)
    how = there.scores[Unit(method, 0)].how
    assert (how["training"]["crops"] == "whole") == sec
    assert how["loss"] == ({"CrossEntropy": {}} if loss is None else {"SECLoss": json.loads(json.dumps(vars(loss)))})


def test_what_secs_rows_minimize(made):
    minimized = {title: learned.loss for title, learned in made.learned.items() if title.startswith("SEC")}
    steps = [("seed",), ("seed", "constrain"), ("seed", "constrain", "expand")]
    assert list(minimized.values()) == [*map(SECLoss, steps), SECLoss(steps[-1], seed_floor=True)]


def test_annotations_are_told_apart(there):
    """No two sources are the same masks, but AE's first step is CAM, and for its classifier Grad-CAM is, too."""
    digests = {}
    for title in LEARNED_FROM:
        pictures, folder = there.experiment.train, unrefined(there, title)
        records = [replace(r, mask=r.mask if folder is None else folder / f"{r.id}.png") for r in pictures.records]
        digests[title] = runs.data_digest(pictures.with_records(records), masks=True)
    assert digests.pop("AE, step 1") == digests.pop("Grad-CAM") == digests["CAM"]
    assert masks_of(there.learned["AE, step 1"].pictures) == masks_of(there.learned["CAM"].pictures)  # refined once
    assert {digests.pop(title) for title in list(digests) if title.startswith("SEC")} == {digests["CAM"]}
    del digests["AE, step 4"]  # nothing is left to be found in pictures as small as these
    assert len(set(digests.values())) == len(digests) == 11


@pytest.mark.parametrize("title", ["SEC, seed", "DSNA, merged", "full supervision"])
def test_counts_are_those_of_the_masks_on_disk(made, title):
    """Of the CRF for the last column, and of one scale and several for the others."""
    for kind, column in (("single", "single"), ("multi", "multi"), ("crf", "iou")):
        wanted = np.zeros((4, 4, 5), int)
        for k, record in enumerate(made.experiment.val.records):
            mask = read_mask(made.masks[title] / kind / f"{record.id}.png")
            np.add.at(wanted[k], (read_mask(record.mask), mask), 1)
        np.testing.assert_array_equal(made.scores[Unit(METHODS[title], 0)].counts[column], wanted)


def test_rows_share_classifiers_and_passes(made):
    """Conventional, decoupled, single stream and CAM's: four trainings; DSNA's maps are annotated in one pass."""
    heads = [identity["model"] for identity in made.identities["train"]]
    assert sorted((head["head"], head["dropout"]) for head in heads) == [
        ("conventional", 0.0),
        ("decoupled", 0.5),
        ("single_stream", 0.0),
        ("single_stream", 0.5),
    ]
    assert sorted(identity["kinds"] for identity in made.identities["annotate"]) == [
        ["cam"],
        ["contrastive_excitation_backprop"],
        ["discriminative"],
        ["discriminative", "expansive", "merged"],
        ["excitation_backprop"],
        ["expansive"],
        ["grad_cam"],
    ]
    assert len(made.identities["erase"]) == 1


def test_a_second_call_trains_and_writes_nothing(there, trainings):
    before = {path: path.stat().st_mtime_ns for path in there.runs.rglob("*.png")}
    said: list[str] = []
    methods = named(*LEARNED_FROM)
    again, provenance = table(methods, there.experiment, say=said.append)
    assert trainings == []
    assert {path: path.stat().st_mtime_ns for path in there.runs.rglob("*.png")} == before
    warnings = again.pop("warnings")
    assert again == summarize(methods, there.scores, 1, there.experiment.val)
    assert said[0] == f"1 of {len(methods)}: AE, step 4, seed 0: done"  # the longest row is begun first
    assert [row["title"] for row in again["rows"]] == list(LEARNED_FROM)
    assert provenance["pictures"] == {"mining": 8, "train": 8, "val": 4}
    shown = [label for record in there.experiment.train.records for label in record.labels]
    assert provenance["of_class"] == {name: shown.count(place) for place, name in enumerate(tiny.NAMES)}
    assert provenance["trained"]["SEC, seed"]["0"]["training"]["crops"] == "whole"
    assert provenance["network"] == "tiny"
    assert {warning.partition(", seed 0: ")[0] for warning in warnings} <= set(LEARNED_FROM)
    json.dumps([again, provenance], allow_nan=False)


def test_the_longest_row_comes_first_and_then_those_that_share_least_with_it():
    titles = ["SEC, seed", "AE, step 1", "AE, step 2", "AE, step 4", "DSNA, merged", "full supervision"]
    assert [method.title for method in in_order(named(*titles))] == [
        *("AE, step 4", "DSNA, merged", "full supervision", "SEC, seed", "AE, step 1", "AE, step 2")
    ]
    assert in_order([]) == []
    assert in_order([LabelsAlone()]) == [LabelsAlone()]


WEAK = ("SEC, seed", "AE, step 2", "DSNA, merged")


def test_weak_methods_do_not_read_the_truth(experiment, made, trainings):
    """Without masks they come to the same scores; only the quality of the annotations is not known."""
    blind = replace(experiment, train=without_masks(experiment.train), mining=without_masks(experiment.mining))
    for title in WEAK:
        score, known = train_and_score(METHODS[title], 0, blind, NETWORK), made.scores[Unit(METHODS[title], 0)]
        assert score.annotation is None
        for column, counts in known.counts.items():
            np.testing.assert_array_equal(score.counts[column], counts)
    assert trainings == ["attention", "segmentation"] * 3  # CAM's classifier, that of AE's second step, DSNA's model
    assert {path.name for path in runs.root().glob("erase/*/step-*")} >= {"step-1", "step-2"}
    assert not list(runs.root().glob("erase/*/step-3"))


def test_full_supervision_without_masks_is_refused_before_anything_is_trained(experiment, trainings):
    blind = replace(experiment, train=without_masks(experiment.train))
    message = (
        "^full supervision needs masks, which 8 of 8 pictures of the data set do not have: p00, p01, p02 and 5 more"
    )
    for call in (train_and_score, lambda method, *rest: table([*named("CAM"), method], rest[1])):
        with pytest.raises(MethodError, match=message):
            call(METHODS["full supervision"], 0, blind, NETWORK)
    assert trainings == []


def test_annotated_pictures_may_be_fewer_than_those_of_mining(experiment):
    """The attention model sees all of them all the same."""
    few = replace(experiment, train=experiment.train.select([f"p{k:02d}" for k in range(4)]))
    score = train_and_score(METHODS["DSNA, merged"], 0, few, NETWORK)
    assert score.how["data"]["pictures"] == 4
    (folder,) = runs.root().glob("refine/*/")
    assert sorted(path.stem for path in folder.glob("*.png")) == ["p00", "p01", "p02", "p03"]
    (mined,) = (read_json(path) for path in runs.root().glob("train/*/run.json"))
    assert mined["identity"]["data"]["pictures"] == 8


def test_each_seed_trains_every_stage(experiment, trainings):
    values, provenance = table(named("SEC, seed"), experiment, seeds=2)
    assert trainings == ["attention", "segmentation"] * 2
    (row,) = values["rows"]
    assert len(row["seeds"]) == 2
    assert row["seeds"][0] != row["seeds"][1]
    seeds = provenance["trained"]["SEC, seed"]
    assert [seeds[seed]["training"]["seed"] for seed in ("0", "1")] == [0, 1]


def test_a_val_picture_that_cannot_be_read_is_named(experiment, trainings):
    experiment.val.records[2].image.write_bytes(b"")
    with pytest.raises(RunError, match="could not be segmented, such as p02: .*p02.png: cannot be read"):
        train_and_score(METHODS["SEC, seed"], 0, experiment, NETWORK)
    with pytest.raises(RunError, match=r"1 of 1 failed \(SEC, seed, seed 0: 1 pictures could not"):
        table(named("SEC, seed"), experiment)
    assert trainings == ["attention", "segmentation"]  # the second call found both


def test_no_seeds_or_jobs_are_refused(experiment, trainings):
    with pytest.raises(TableError, match="seeds=0: a table needs at least one"):
        table(named("CAM"), experiment, seeds=0)
    with pytest.raises(PoolError, match="jobs=0 must be at least 1"):
        table(named("CAM"), experiment, workers=Workers(jobs=0))
    assert trainings == []


def test_pictures_to_measure_on_need_masks(experiment, trainings):
    with pytest.raises(PictureError, match=r"p00\.png has no ground-truth mask to measure against"):
        table(named("CAM"), replace(experiment, val=without_masks(experiment.val)))
    assert trainings == []


def test_a_failed_row_is_named_and_the_others_are_kept(experiment, trainings):
    rows = [*named("SEC, seed"), Failing(), LabelsAlone()]
    with pytest.raises(
        RunError, match=r"^1 of 3 failed \(failing, seed 0: no luck with seed 0\), the other 2 are kept"
    ):
        table(rows, experiment)
    assert sorted(trainings) == ["attention", "segmentation", "segmentation"]
    values, _ = table([rows[0], rows[2]], experiment)
    assert len(trainings) == 3
    assert [row["title"] for row in values["rows"]] == [str(rows[0]), str(rows[2])]


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_method_without_annotations_learns_from_labels_alone(experiment, trainings, seeds):
    """Neither pictures with masks nor anything about its title changes that; its row lacks what there is not."""
    blind = replace(experiment, train=without_masks(experiment.train), mining=without_masks(experiment.mining))
    values, provenance = table([LabelsAlone()], blind, seeds=seeds)
    (row,) = values["rows"]
    assert trainings == ["segmentation"] * seeds
    assert values["columns"] == list(row["mean"]) == ["single", "multi", "iou", "object"]
    assert row["paper"] == {"iou": 25.7}
    assert list(provenance["trained"]) == [LabelsAlone.title]
    described = provenance["trained"][LabelsAlone.title]["0"]
    assert described["training"]["crops"] == "whole"
    assert described["loss"]["Brightness"] == {}
    seeing, _ = table([LabelsAlone()], experiment, seeds=seeds)
    assert trainings == ["segmentation"] * seeds  # the same run: it has no use for the masks
    assert seeing == values
    assert not list(runs.root().glob("annotate/*"))


def test_rows_with_and_without_annotations_stand_in_one_table(there):
    methods = [LabelsAlone(), *named("DSNA, merged", "full supervision")]
    values, _ = table(methods, there.experiment)
    assert values["columns"] == ["annotation", "single", "multi", "iou", "object", "share"]
    assert ["annotation" in row["mean"] for row in values["rows"]] == [False, True, True]
    line = render.render_table(values).splitlines()[2]
    assert line.startswith(f"| {LabelsAlone.title} | - | ")
    assert line.endswith(" | 25.7 |")
    assert 0 < values["rows"][0]["mean"]["share"] <= 200


def test_without_a_crf_the_last_column_is_that_of_several_scales(there, trainings, monkeypatch):
    monkeypatch.setattr(crf, "require", lambda: pytest.fail("asked for a CRF"))
    plain = replace(NETWORK, inference=replace(NETWORK.inference, crf="none"))
    values, provenance = table(named("full supervision"), there.experiment, plain)
    mean = values["rows"][0]["mean"]
    assert mean["iou"] == mean["multi"]
    with_crf = there.scores[Unit(METHODS["full supervision"], 0)].counts
    score = train_and_score(METHODS["full supervision"], 0, there.experiment, plain)
    for column in ("single", "multi"):
        np.testing.assert_array_equal(score.counts[column], with_crf[column])
    np.testing.assert_array_equal(score.counts["iou"], with_crf["multi"])
    assert "val at scales 0.7, 1, no CRF" in provenance["protocol"]
    assert trainings == []


@pytest.mark.parametrize(
    "changes, again",
    [
        ({"inference": replace(NETWORK.inference, scales=(0.7, 1.0, 1.2))}, []),
        ({"inference": replace(NETWORK.inference, flip=True)}, []),
        ({"inference": replace(NETWORK.inference, crf="deeplab")}, []),
        ({"training": replace(NETWORK.training, head_rate=0.02)}, ["segmentation"]),
        ({"model": replace(NETWORK.model, channels=4)}, ["segmentation"]),
    ],
)
def test_what_the_networks_recipe_changes_is_made_again(there, trainings, changes, again):
    """Other inference segments anew without any training."""
    before = set(there.runs.glob("segment/*/"))
    table(named("SEC, seed"), there.experiment, replace(NETWORK, **changes))
    assert trainings == again
    assert len(set(there.runs.glob("segment/*/")) - before) == 1


@pytest.mark.parametrize(
    "changes, attends, segments",
    [
        ({"annotation": AnnotationConfig(crf="none")}, False, True),
        ({"annotation": AnnotationConfig(foreground_threshold=0.5)}, False, True),
        ({"annotation": AnnotationConfig(crf="none"), "training": replace(RECIPE.training, epochs=4)}, True, True),
        ({"title": "another"}, False, False),
    ],
)
def test_what_the_recipe_changes_is_made_again(there, trainings, changes, attends, segments):
    """Networks are told apart by the masks that they learn from, however these came about."""
    other = replace(there.experiment, recipe=replace(RECIPE, **changes))
    _, provenance = table(named("DSNA, merged"), other)
    assert trainings == ["attention"] * attends + ["segmentation"] * segments
    masks = (
        how["data"]["digest"] for how in (there.scores[Unit(METHODS["DSNA, merged"], 0)].how, *trained(provenance))
    )
    assert len(set(masks)) == 1 + segments
    without = changes.get("annotation", RECIPE.annotation).crf == "none"
    assert ("input, fp32, no CRF;" in provenance["protocol"]) == without


@pytest.mark.parametrize("wrong", ["everywhere", "silent"])
def test_a_collapsed_network_is_named_by_the_table_and_its_counts_are_kept(experiment, monkeypatch, wrong):
    train = segmentation_training.train_segmentation

    def collapsing(model, *arguments):
        folder = train(model, *arguments)
        if wrong == "everywhere":
            model.head[-1].bias.data = torch.tensor([100.0, 0.0, 0.0, 0.0])
        else:
            model.head[0].bias.data = torch.tensor([-1e6] * 6 + [1.0] * 2)
        return folder

    monkeypatch.setattr(segmentation_training, "train_segmentation", collapsing)
    values, provenance = table(named("full supervision"), experiment)
    report = provenance["trained"]["full supervision"]["0"]["metrics"]
    if wrong == "everywhere":
        said, counted = "the network answers background everywhere", report["classes_answered"] == 1
    else:
        said, counted = "6 of 8 channels of the head are silent", (report["silent"], report["channels"]) == (6, 8)
    assert counted
    named_so = [line for line in values["warnings"] if line.startswith(f"full supervision, seed 0: {said}")]
    assert len(named_so) == 1
    assert f"- Warning: {named_so[0]}." in render.render_table(values).splitlines()
    assert set(values["warnings"]) == {f"full supervision, seed 0: {warning}" for warning in report["warnings"]}


def test_two_rows_at_a_time_share_a_classifier_and_give_the_numbers_of_one(tmp_path, monkeypatch):
    """Both need CAM's classifier at once: one trains it, the other waits."""
    pictures = tiny.pictures(tmp_path / "data", 4, masks=True)
    network = NetworkConfig(  # workers know real backbones only
        model=SegmentationConfig(channels=8, dilation=1, weights=None),
        training=replace(NETWORK.training, crop=33),
        inference=InferenceConfig(scales=(1.0,)),
    )
    recipe = replace(RECIPE, training=replace(RECIPE.training, crop=32), maps=MapConfig(size=32))
    experiment = Experiment(recipe, pictures, pictures, pictures)
    threads, of_jobs = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for jobs in (1, 2):
        monkeypatch.setenv("DSNA_RUNS", str(tmp_path / f"jobs{jobs}"))
        values, provenance = table(named("SEC, seed", "AE, step 1"), experiment, network, workers=Workers(jobs))
        of_jobs.append((values, [provenance["trained"][title]["0"]["file"] for title in ("SEC, seed", "AE, step 1")]))
        (classifier,) = runs.root().glob("train/*/model.pth")
        assert attention.load(classifier).config.head == "single_stream"
    torch.set_num_threads(threads)
    assert of_jobs[0] == of_jobs[1]


# --- summarize


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
        np.array([1, 0, 1, 2]),
        annotation,
    )


SCORES = {
    Unit(METHODS["CAM"], 0): a_score(40.0, (5, 5), (6, 6)),
    Unit(METHODS["CAM"], 1): a_score(42.0, (6, 5), (6, 6)),
    Unit(METHODS["DSNA, merged"], 0): a_score(50.0, (8, 7), (8, 8)),
    Unit(METHODS["DSNA, merged"], 1): a_score(51.0, (8, 8), (8, 8)),
    Unit(METHODS["full supervision"], 0): a_score(100.0, (9, 9), (9, 9)),
    Unit(METHODS["full supervision"], 1): a_score(100.0, (9, 10), (10, 9)),
}
VAL = Pictures([], ("cat",))


def test_values_by_hand():
    methods = named("CAM", "DSNA, merged", "full supervision")
    values = summarize(methods, SCORES, 2, VAL)
    assert values["table"] == "III"
    assert values["columns"] == ["annotation", "single", "multi", "iou", "object", "share"]
    assert set(values["columns"]) <= set(render.COLUMN_TITLES)
    rows = {row["title"]: row for row in values["rows"]}
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
    for column in values["columns"]:
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
    claims = {claim["text"]: claim for claim in summarize(methods, SCORES, 2, VAL)["claims"]}
    assert list(claims) == [
        "DSNA's merged annotations beat CAM's",
        "full supervision beats DSNA's merged annotations",
    ]
    wanted = [miou(16, 15, 20) - miou(11, 11, 20), miou(16, 16, 20) - miou(12, 11, 20)]
    assert claims["DSNA's merged annotations beat CAM's"]["difference"] == pytest.approx(np.mean(wanted), abs=0.02)
    assert {claim["verdict"] for claim in claims.values()} == {"2 trainings: no verdict"}


def test_networks_of_two_rows_are_trained_apart():
    """Whatever their annotations share."""
    three = {Unit(unit.what, seed): score for unit, score in SCORES.items() for seed in (unit.seed, 2)}
    (claim,) = summarize(named("CAM", "DSNA, merged"), three, 3, VAL)["claims"]
    seeds = [[miou(*each) for each in row] for row in (((11, 11, 20), (12, 11, 20)), ((16, 15, 20), (16, 16, 20)))]
    assert claim["trainings"] == 3
    assert claim["low"] < np.mean(seeds[1]) - np.mean(seeds[0]) < claim["high"]
    assert claim["verdict"] in ("holds", "not separated")


def test_without_the_ceiling_there_is_no_share():
    alone = {unit: score for unit, score in SCORES.items() if unit.what.title == "DSNA, merged"}
    values = summarize(named("DSNA, merged"), alone, 1, VAL)
    assert values["columns"] == ["annotation", "single", "multi", "iou", "object"]
    assert values["claims"] == []
    assert values["rows"][0]["std"]["iou"] is None


def test_what_is_wrong_is_a_share_of_all_pixels():
    """Four of forty in either training."""
    method = METHODS["CAM"]
    values = summarize([method], SCORES, 2, VAL)
    shares = {"all": 10.0, "outline": 2.5, "missed": 0.0, "confused": 2.5, "invented": 5.0}
    assert values["rows"][0]["wrong"] == shares
    perfect = replace(SCORES[Unit(method, 0)], wrong=np.zeros(4, int))
    (row,) = summarize([method], {Unit(method, 0): perfect}, 1, VAL)["rows"]
    assert set(row["wrong"].values()) == {0.0}
    assert "annotation_wrong" not in row
    told = replace(perfect, learned_wrong=np.array([0.1, 0.0, 0.2, 0.05]))
    (row,) = summarize([method], {Unit(method, 0): told}, 1, VAL)["rows"]
    assert row["annotation_wrong"] == {"all": 35.0, "outline": 10.0, "missed": 0.0, "confused": 20.0, "invented": 5.0}


def test_a_class_that_is_nowhere_has_no_iou():
    """In no truth and in no mask of seed 0; seed 1 sees it where it is not."""
    seen = counts((9, 9))
    unseen = np.zeros((1, 3, 4), int)
    unseen[0, :2, :2] = seen[0, :, :2]
    wrong = unseen.copy()
    wrong[0, 0, 0], wrong[0, 0, 2] = 4, 5
    method = METHODS["DSNA, merged"]
    scores = {
        Unit(method, seed): Score({"single": each, "multi": each, "iou": each}, np.zeros(4, int), None)
        for seed, each in enumerate((unseen, wrong))
    }
    names = Pictures([], ("cat", "dog"))
    (row,) = summarize([method], scores, 1, names)["rows"]
    assert row["per_class"] == pytest.approx({"background": 900 / 11, "cat": 900 / 11, "dog": None}, abs=0.01)
    assert row["mean"]["iou"] == pytest.approx(900 / 11, abs=0.01)
    (row,) = summarize([method], scores, 2, names)["rows"]
    assert row["per_class"]["dog"] == 0
    json.dumps(row, allow_nan=False)


def test_the_table_can_be_rendered():
    values = summarize(named("CAM", "DSNA, merged", "full supervision"), SCORES, 2, VAL)
    lines = render.render_table(values).splitlines()
    assert lines[0].endswith("share of the ceiling | paper: IoU |")
    assert [line.rsplit("|", 2)[1].strip() for line in lines[2:]] == ["-", "55.4", "-"]
