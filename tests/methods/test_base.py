"""The seam: what a method is handed, what it is not, and which folder its annotations lie in."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from tiny_experiments import NETWORK, RECIPE

from dsna_lib import annotate, checkpoints, crf, maps, training
from dsna_lib.attention import AttentionModel, SingleStreamAttention
from dsna_lib.backbones import CheckpointError
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.attention import HeadConfig
from dsna_lib.config.recipe import MapConfig, Recipe
from dsna_lib.data import minivoc
from dsna_lib.data.pictures import Pictures, read_image, read_mask, without_masks, write_mask
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.maps import attention_maps
from dsna_lib.methods import base, cams
from dsna_lib.methods.base import LABELS, Help, MapMethod, MethodError, Stage, lessons, prepare
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.dsna import DSNA
from dsna_lib.methods.explain import CLASSIFIER
from dsna_lib.methods.full_supervision import FULL_SUPERVISION
from dsna_lib.methods.rows import METHODS, MINING
from dsna_lib.segmentation.training import AnnotationError, train_once

UNREFINED = replace(RECIPE, annotation=AnnotationConfig(crf="none"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Pictures:
    """With masks, and with masks of parts."""
    pictures = tiny.pictures(tmp_path_factory.mktemp("data"), masks=True)
    return pictures.with_records([replace(record, part=record.mask) for record in pictures.records])


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Where nothing is made yet."""
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    return tmp_path


@pytest.fixture
def trainings(monkeypatch) -> list[HeadConfig]:
    """The heads that were trained, in order."""
    done, train = [], training.train_attention
    monkeypatch.setattr(training, "train_attention", lambda model, *a: done.append(model.config) or train(model, *a))
    return done


@dataclass(frozen=True)
class Told:
    """A method that needs something, and keeps nothing."""

    needs: frozenset[Help]
    title: str = "told"
    paper: float | None = None
    trains: frozenset[str] = frozenset()

    def annotate(self, stage: Stage) -> None:
        """Nothing is annotated."""

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


@dataclass(frozen=True)
class Labels:
    """A loss of image labels alone."""

    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False

    def __call__(self, logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        assert set(batch) == {"index", "id", "image", "labels"}
        return torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 1:].amax(dim=(2, 3)), batch["labels"])


@dataclass(frozen=True)
class FromLabels(Told):
    """A method of such a loss."""

    needs: frozenset[Help] = LABELS

    def loss(self, stage: Stage) -> Labels:
        return Labels()


def stage_of(data: Pictures, recipe: Recipe = UNREFINED, seed: int = 0) -> Stage:
    return prepare(CAM, recipe, data, data, seed)


# --- what a method is handed


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> Pictures:
    """With masks, and with help of all kinds."""
    return tiny.helped_pictures(tmp_path_factory.mktemp("told"))


@pytest.mark.parametrize("method", METHODS.values(), ids=str)
def test_a_stage_has_no_masks_and_the_help_that_was_asked_for(told, method):
    stage = prepare(method, RECIPE, told, told, seed=3)
    for pictures in (stage.mining, stage.pictures):
        assert [(record.id, record.labels) for record in pictures.records] == [(r.id, r.labels) for r in told.records]
        assert all(record.mask is None and record.part is None for record in pictures.records)
    assert set(stage.help) == method.needs - LABELS
    if "masks" in method.needs:
        assert [record.mask for record in stage.help["masks"].records] == [record.mask for record in told.records]
    assert (stage.training.seed, stage.model.class_names) == (3, tiny.NAMES)
    assert (stage.maps, stage.annotation) == (RECIPE.maps, RECIPE.annotation)
    assert stage.network == RECIPE.network()


def test_masks_are_handed_to_those_alone_who_say_that_they_need_them(data):
    assert prepare(Told(LABELS), RECIPE, data, data, 0).help == {}
    masks = prepare(Told(LABELS | {"masks"}), RECIPE, data, data, 0).help["masks"]
    assert [record.mask for record in masks.records] == [record.mask for record in data.records]


NEEDS = ("points", "scribbles", "boxes", "saliency", "web", "videos", "other_masks")


@pytest.mark.parametrize("need", NEEDS)
def test_help_that_the_data_set_lacks_is_named(data, need):
    words = need.replace("_", " ")
    with pytest.raises(
        MethodError, match=f"^told needs {words}, which 8 of 8 pictures of the data set do not have: p00, "
    ):
        prepare(Told(LABELS | {need}), RECIPE, data, data, 0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Pictures:
    root = minivoc.make(tmp_path_factory.mktemp("drawn") / "set", train=2, val=0, size=48)
    minivoc.make_help(root, saliency=1, web=1, videos=1, frames=2, other_masks=1)
    return minivoc.load("train", root)


def test_help_is_handed_over_without_the_pictures_masks(drawn):
    stage = prepare(Told(LABELS | {*NEEDS}), RECIPE, drawn, drawn, 0)
    assert set(stage.help) == {*NEEDS}
    first = drawn.records[0]
    assert [point.label for point in stage.help["points"][first.id]] == [
        box.label for box in stage.help["boxes"][first.id]
    ]
    assert {*np.unique(stage.help["scribbles"][first.id])} == {0, 255, *(label + 1 for label in first.labels)}
    assert stage.help["web"].class_names == stage.help["videos"].class_names == drawn.class_names
    own = {record.mask for record in drawn.records} | {record.part for record in drawn.records}
    for kind in ("saliency", "web", "videos", "other_masks"):
        assert not own & {record.mask for record in stage.help[kind].records if record.mask}
    assert all(record.mask is None for kind in ("web", "videos") for record in stage.help[kind].records)
    assert not any(str(path) in repr(vars(stage.help[kind])) for kind in NEEDS[:3] for path in own)


def test_a_missing_set_of_a_known_layout_is_named_with_its_place(tmp_path):
    root = minivoc.make(tmp_path / "set", train=1, val=0, size=48)
    pictures = minivoc.load("train", root)
    said = f"told needs web, which the data set does not have in {root}/help/web; "
    with pytest.raises(MethodError) as refused:
        prepare(Told(LABELS | {"web"}), RECIPE, pictures, pictures, 0)
    assert str(refused.value) == said + "`dsna data make --with-help` draws it"
    with pytest.raises(MethodError, match="needs points, which 1 of 1 .*: train_00000; `dsna data make --with-help`"):
        prepare(Told(LABELS | {"points"}), RECIPE, pictures, pictures, 0)
    (root / "minivoc.json").unlink()
    with pytest.raises(MethodError, match="needs points, which 1 of 1 .*: train_00000$"):
        prepare(Told(LABELS | {"points"}), RECIPE, pictures, pictures, 0)
    with pytest.raises(MethodError) as refused:
        prepare(Told(LABELS | {"web"}), RECIPE, pictures, pictures, 0)
    assert str(refused.value) == said + "put it there"


def test_pictures_about_which_nothing_is_told_are_named(drawn, tmp_path):
    """Those that show nothing need nothing."""
    root = minivoc.make(tmp_path / "set", train=3, val=0, size=48)
    pictures = minivoc.load("train", root)
    first, second, third = pictures.records
    (root / "help").mkdir()
    (root / "help/points.csv").write_text(f"id,x,y,class\ntrain_00000,1,1,{drawn.class_names[0]}\n")
    with pytest.raises(
        MethodError, match="told needs points, which 2 of 3 pictures .* have: train_00001, train_00002$"
    ):
        prepare(Told(LABELS | {"points"}), RECIPE, pictures, pictures, 0)
    empty = pictures.with_records([first, *(replace(record, labels=()) for record in (second, third))])
    assert list(prepare(Told(LABELS | {"points"}), RECIPE, empty, empty, 0).help["points"]) == ["train_00000"]


def test_masks_that_are_missing_are_named(data):
    records = [replace(record, mask=None) if k in (2, 5) else record for k, record in enumerate(data.records)]
    some = data.with_records(records)
    with pytest.raises(MethodError) as refused:
        prepare(FULL_SUPERVISION, RECIPE, data, some, 0)
    assert str(refused.value) == (
        "full supervision needs masks, which 2 of 8 pictures of the data set do not have: p02, p05"
    )
    # Who needs none does not care, and those of mining are nobody's business.
    assert prepare(CAM, RECIPE, some, some, 0).help == {}
    assert prepare(FULL_SUPERVISION, RECIPE, some, data, 0).help["masks"] is data


def test_the_first_need_in_the_alphabet_is_named(data):
    with pytest.raises(MethodError, match="told needs boxes"):
        prepare(Told(frozenset({"videos", "boxes", "masks"})), RECIPE, data, data, 0)


# --- what a network learns from


def test_lessons_are_the_annotations(data, here):
    stage = stage_of(data)
    pictures, loss = lessons(replace(CAM, refined=False), stage)
    folder = replace(CAM, refined=False).annotate(stage)
    assert [record.mask for record in pictures.records] == [folder / f"{record.id}.png" for record in data.records]
    assert all(record.part is None for record in pictures.records)
    assert loss is None


def test_lessons_of_full_supervision_are_the_truth(data):
    pictures, loss = lessons(FULL_SUPERVISION, prepare(FULL_SUPERVISION, RECIPE, data, data, 0))
    assert [record.mask for record in pictures.records] == [record.mask for record in data.records]
    assert loss is None


@pytest.mark.parametrize("blind", [False, True])
def test_a_method_of_labels_alone_trains_with_pictures_that_have_no_masks(data, here, blind):
    given = without_masks(data) if blind else data
    pictures, loss = lessons(FromLabels(), prepare(FromLabels(), RECIPE, given, given, 0))
    assert all(record.mask is None for record in pictures.records)
    config = replace(NETWORK.model, class_names=tiny.NAMES)
    _, run = train_once(config, pictures, NETWORK.training, loss=loss)
    assert run.finished
    assert run.read()["metrics"]["step"] == 2


def test_a_method_that_has_nothing_to_learn_from_is_refused(data, here):
    """No annotation, and yet the cross-entropy."""
    pictures, loss = lessons(Told(LABELS), prepare(Told(LABELS), RECIPE, data, data, 0))
    with pytest.raises(AnnotationError, match="8 of 8 pictures have no mask to learn from: p00, p01, p02 and 5 more"):
        train_once(replace(NETWORK.model, class_names=tiny.NAMES), pictures, NETWORK.training, loss=loss)


# --- annotations


def test_annotations_are_those_of_the_maps_at_the_recipes_thresholds(data, here):
    recipe = replace(
        UNREFINED, annotation=replace(UNREFINED.annotation, foreground_threshold=0.35, background_threshold=0.5)
    )
    stage = stage_of(data, recipe)
    folder = CAM.annotate(stage)
    model, _ = stage.train(CLASSIFIER)
    for picture in stage.iterate_maps(model, CAM.maker):
        record = data.records[picture.index]
        wanted = annotate.pseudo_annotation(
            picture.maps["cam"], picture.features, record.labels, picture.size, 0.35, 0.5
        )
        np.testing.assert_array_equal(read_mask(folder / f"{record.id}.png"), wanted)
    assert len(list(folder.glob("*.png"))) == len(data)


def test_the_classifier_learns_from_the_pictures_of_mining(data, here, monkeypatch):
    shown, train = [], training.train_attention
    monkeypatch.setattr(training, "train_attention", lambda model, p, *a: shown.append(p) or train(model, p, *a))
    few = data.with_records(data.records[:3])
    folder = CAM.annotate(prepare(CAM, UNREFINED, data, few, 0))
    assert [len(pictures) for pictures in shown] == [8]
    assert all(record.mask is None for record in shown[0].records)
    assert sorted(path.stem for path in folder.glob("*.png")) == ["p00", "p01", "p02"]


def test_dsnas_kinds_share_a_training_and_a_pass(data, here, trainings, monkeypatch):
    passes, annotate_split = [], base.annotate_split
    monkeypatch.setattr(base, "annotate_split", lambda *a, **k: passes.append(a[3]) or annotate_split(*a, **k))
    stage = stage_of(data)
    folders = [DSNA[kind].annotate(stage) for kind in ("merged", "expansive", "discriminative")]
    assert [folder.name for folder in folders] == ["merged", "expansive", "discriminative"]
    assert len({folder.parent for folder in folders}) == 1
    assert passes == [["discriminative", "expansive", "merged"]]
    assert [model.head for model in trainings] == ["decoupled"]


def test_a_finished_model_is_not_trained_again(data, here, trainings):
    """With any seed; a head that it does not have is trained."""
    _, file = stage_of(data).train(HeadConfig())
    recipe = replace(UNREFINED, finished=str(file))
    trainings.clear()
    merged = {DSNA["merged"].annotate(stage_of(data, recipe, seed)) for seed in (0, 1)}
    assert len(merged) == 1
    assert DSNA["merged"].annotate(stage_of(data)) in merged
    assert trainings == []
    assert stage_of(data, recipe).train()[1] == file
    CAM.annotate(stage_of(data, recipe))
    assert [model.head for model in trainings] == ["single_stream"]


def test_a_finished_model_must_be_the_recipes_own(data, here):
    _, file = stage_of(data).train(HeadConfig())
    attention = replace(UNREFINED.attention, output_stride=8)
    with pytest.raises(MethodError, match=r"model.pth: holds .*output_stride=16.*, and the recipe asks for .*=8"):
        stage_of(data, replace(UNREFINED, attention=attention, finished=str(file))).train()
    with pytest.raises(CheckpointError, match="knows 3 classes"):
        other = replace(data, class_names=("a", "b", "c"))
        stage_of(other, replace(UNREFINED, finished=str(file))).train()


def test_a_model_that_ships_goes_by_its_name():
    named = prepare(
        CAM, replace(RECIPE, finished="efficientnet_lite0_voc"), Pictures([], ("a",)), Pictures([], ("a",)), 0
    )
    assert named.finished == checkpoints.ATTENTION


def test_methods_of_one_classifier_share_its_training_alone(data, here, trainings):
    stage = stage_of(data)
    folders = {method.annotate(stage).parent for method in MINING if method.head == CLASSIFIER}
    assert len(folders) == 4
    assert len(trainings) == 1


@pytest.mark.parametrize("method", [method for method in MINING if method.head == CLASSIFIER], ids=str)
def test_a_methods_maps_are_those_of_all_methods_together(method):
    torch.manual_seed(0)
    model = AttentionModel(tiny.backbone(), SingleStreamAttention(8, 3, dropout=0.0)).eval()
    batch, present = torch.rand(2, 3, 32, 32), torch.tensor([[True, False, True], [False, True, False]])
    output, made = method.maker(model, batch, present)
    _, together = cams.cam_maps(model, batch, present)
    assert list(made) == [method.kind]
    torch.testing.assert_close(made[method.kind], together[method.kind], rtol=0, atol=0)
    assert output.scores.shape == (2, 3)


# --- which folder


CHANGES: dict[str, Callable[[Recipe], Recipe]] = {
    "foreground": lambda r: replace(r, annotation=replace(r.annotation, foreground_threshold=0.23)),
    "background": lambda r: replace(r, annotation=replace(r.annotation, background_threshold=0.31)),
    "size": lambda r: replace(r, maps=replace(r.maps, size=32)),
    "model": lambda r: replace(r, attention=replace(r.attention, train_last=1)),
    "training": lambda r: replace(r, training=replace(r.training, head_rate=0.02)),
}


@pytest.mark.parametrize("title", ["CAM", "DSNA, merged", "AE, step 1"])
def test_other_settings_have_another_folder(data, here, title):
    method = METHODS[title]
    usual = method.annotate(stage_of(data))
    folders = {"usual": usual, "seed": method.annotate(stage_of(data, seed=1))}
    folders |= {name: method.annotate(stage_of(data, change(UNREFINED))) for name, change in CHANGES.items()}
    few = data.with_records(data.records[:4])
    folders["pictures"] = method.annotate(prepare(method, UNREFINED, few, few, 0))
    assert len(set(folders.values())) == len(folders)
    assert method.annotate(stage_of(data)) == usual
    assert method.annotate(stage_of(data, replace(UNREFINED, title="of no consequence", seeds=2))) == usual


def test_another_crf_has_another_folder(data, here, trainings):
    recipes = [
        RECIPE,
        replace(RECIPE, annotation=AnnotationConfig(tau=0.8)),
        replace(RECIPE, annotation=AnnotationConfig(crf="deeplab")),
        UNREFINED,
    ]
    folders = [CAM.annotate(stage_of(data, recipe)) for recipe in recipes]
    assert len(set(folders)) == 4
    assert len(trainings) == 1
    assert [folder.parent.name == "refine" for folder in folders] == [True, True, True, False]
    assert folders[-1].name == "cam"  # without a CRF the annotations are what they are
    assert replace(CAM, refined=False).annotate(stage_of(data, RECIPE)) == folders[-1]
    for record in data.records[:3]:
        likely = crf.class_probabilities(read_mask(folders[-1] / f"{record.id}.png"), record.labels, 3, 0.8)
        wanted = crf.refine(read_image(record.image), likely, "sec")
        np.testing.assert_array_equal(read_mask(folders[1] / f"{record.id}.png"), wanted)


def test_what_is_refined_goes_by_its_content(data, here):
    """The same annotations in another folder are refined once; one pixel makes the difference."""
    stage = stage_of(data, RECIPE)
    for name in ("a", "b"):
        for record in data.records:
            write_mask(here / name / f"{record.id}.png", read_mask(record.mask))
    refined = stage.refine(here / "a")
    assert stage.refine(here / "b") == refined
    changed = read_mask(here / "b" / "p03.png").copy()
    changed[0, 0] = 255
    write_mask(here / "b" / "p03.png", changed)
    assert stage.refine(here / "b") != refined
    (here / "b" / "p05.png").unlink()
    with pytest.raises(RunError, match=r"1 pictures could not be refined, such as p05: .*p05\.png: no such mask"):
        stage.refine(here / "b")


def test_the_code_of_a_maps_maker_counts(data, here, monkeypatch):
    """That of all functions that a maker is made of: CAM's lies in a module of its own."""
    modules, open_run = {}, runs.open_run
    monkeypatch.setattr(runs, "open_run", lambda *a, **k: modules.setdefault(a[0], a[2:]) and open_run(*a, **k))
    stage = stage_of(data)
    for method, own in ((CAM, "dsna_lib.methods.cam"), (METHODS["Grad-CAM"], "dsna_lib.methods.grad_cam")):
        modules.clear()
        method.annotate(stage)
        assert {"dsna_lib.methods.base", "dsna_lib.annotate", "dsna_lib.methods.explain", own} == {*modules["annotate"]}
    modules.clear()
    METHODS["contrastive excitation backprop"].annotate(stage)
    assert "dsna_lib.methods.excitation_backprop" in modules["annotate"]
    modules.clear()
    DSNA["merged"].annotate(stage)
    assert {*modules["annotate"]} == {"dsna_lib.methods.base", "dsna_lib.annotate", "dsna_lib.maps"}


def sharpened(model: Any, batch: torch.Tensor, present: torch.Tensor, power: float = 1.0) -> Any:
    """A map maker of one's own."""
    output, made = attention_maps(model, batch, present)
    return output, {"discriminative": made["discriminative"] ** power}


def test_a_maker_of_ones_own_is_told_apart_by_its_code_and_its_arguments(data, here):
    stage = stage_of(data)
    single = HeadConfig("single_stream")
    method = MapMethod("mine", single, "discriminative", sharpened)
    folders = [method.annotate(stage), METHODS["single stream"].annotate(stage)]
    folders += [replace(method, maker=partial(sharpened, power=power)).annotate(stage) for power in (2.0, 3.0)]
    assert len(set(folders)) == 4
    assert replace(method, title="another", maker=partial(sharpened, power=3.0)).annotate(stage) == folders[-1]
    described = [runs.Run(folder.parent, "", {}).read()["identity"]["maker"] for folder in folders]
    code = inspect.getsource(sharpened)
    assert described == [[code], ["attention_maps"], [code, "power", 2.0], [code, "power", 3.0]]
    masks = [[(folder / f"{record.id}.png").read_bytes() for record in data.records] for folder in folders]
    assert masks[0] == masks[1]
    assert masks[0] != masks[2] != masks[3]


# --- what was told


def card_of(folder: Path) -> dict[str, Any]:
    return runs.Run(folder, "", {}).read()


def test_what_is_made_of_help_goes_by_its_content(here):
    """Another point is another run, the same one in another folder is not; the origin is on record."""
    sets = [tiny.told_pictures(here / name) for name in ("a", "b")]
    points, table = METHODS["What's the Point"], here / "b/help/points.csv"

    def folder(pictures: Pictures, method: Any = points) -> Path:
        return method.annotate(prepare(method, UNREFINED, pictures, pictures, 0))

    usual = folder(sets[0])
    assert folder(sets[1]) == usual
    assert card_of(usual)["metrics"] == {"origin": "given"}
    before = table.read_text()
    table.write_text(before.replace("p03,", "p03,1"))
    (here / "b/help/drawn.json").write_text('{"origin": "simulated from masks"}')
    moved = folder(sets[1])
    assert moved != usual
    assert card_of(moved)["metrics"] == {"origin": "simulated from masks"}
    assert card_of(moved)["identity"]["help"].keys() == {"points"}
    # Boxes and scribbles are nobody's business here, and points not that of others.
    boxes = [folder(pictures, METHODS["BoxSup"]) for pictures in sets]
    assert boxes[0] == boxes[1]
    table.write_text(before)
    assert folder(sets[1]) == usual


@pytest.mark.parametrize("kind", ["web", "videos", "saliency", "other_masks"])
def test_sets_go_by_their_content_too(drawn, here, kind):
    stage = prepare(Told(LABELS | {kind}), RECIPE, drawn, drawn, 0)
    known = stage.help[kind]
    relabeled = known.with_records([replace(record, labels=()) for record in known.records])
    folders = [each.folder("x", lambda _: None, {}) for each in (stage, replace(stage, help={kind: relabeled}))]
    assert len({*folders}) == 2
    if known.records[0].mask:
        unmasked = replace(stage, help={kind: without_masks(known)})
        assert unmasked.folder("x", lambda _: None, {}) not in folders


def test_a_training_goes_by_the_points_that_it_learned_from(here):
    """Their content: another file with the same points is the same training."""
    method, config = METHODS["What's the Point"], replace(NETWORK.model, class_names=tiny.NAMES)

    def trained(pictures: Pictures) -> Path:
        learned, loss = lessons(method, prepare(method, RECIPE, pictures, pictures, 0))
        return train_once(config, learned, NETWORK.training, loss=loss)[1].folder

    pictures, table = tiny.told_pictures(here / "a"), here / "a/help/points.csv"
    usual = trained(pictures)
    before = table.read_text()
    table.write_text(before.replace(",", ";"))
    assert trained(pictures) == usual
    table.write_text(before.replace("p03,", "p03,1"))
    assert trained(pictures) != usual


def test_runs_of_labels_alone_know_nothing_of_help(told, here, trainings):
    """They are identified as they always were, and shared with methods that are told more."""
    folder = CAM.annotate(stage_of(told, RECIPE))
    assert card_of(folder)["identity"].keys() == {"annotations", "code", "crf", "data", "maps", "tau"}
    assert card_of(folder)["metrics"] == {}
    (annotated,) = (runs.root() / "annotate").glob("*/run.json")
    known = {"code", "data", "kinds", "maker", "maps", "model", "thresholds"}
    assert card_of(annotated.parent)["identity"].keys() == known
    method = METHODS["BoxSup"]
    method.annotate(prepare(method, RECIPE, told, told, 0))
    assert len([*(runs.root() / "annotate").glob("*/cam")]) == 1
    assert len(trainings) == 1


# --- resuming


def test_a_killed_annotation_goes_on(data, here, trainings, monkeypatch):
    stage, written, write = stage_of(data), [], annotate.write_mask

    def stopping(path, mask):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(path)
        write(path, mask)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(annotate, "write_mask", stopping)
        CAM.annotate(stage)
    folder = written[0].parent
    assert runs.Run(folder.parent, "", {}).read()["state"] == "running"
    before = {path: path.stat().st_mtime_ns for path in written}
    assert CAM.annotate(stage) == folder
    assert {path: path.stat().st_mtime_ns for path in written} == before
    assert runs.Run(folder.parent, "", {}).read()["state"] == "finished"
    assert len(list(folder.glob("*.png"))) == 8
    assert len(trainings) == 1


def test_annotations_picture_by_picture_go_on(data, here):
    stage, asked = stage_of(data), []

    def label(record: Any) -> np.ndarray:
        asked.append(record.id)
        if asked == ["p00", "p01", "p02"]:
            raise KeyboardInterrupt
        if record.id == "p05" and len(asked) < 10:
            raise ValueError("no idea")
        return read_mask(data.select([record.id]).records[0].mask)

    with pytest.raises(KeyboardInterrupt):
        stage.annotate_each("annotate", label, {"of": "truth"})
    with pytest.raises(RunError, match="^1 pictures could not be annotated, such as p05: no idea$"):
        stage.annotate_each("annotate", label, {"of": "truth"})
    assert asked[3:] == ["p02", "p03", "p04", "p05", "p06", "p07"]
    folder = stage.annotate_each("annotate", label, {"of": "truth"})
    assert asked[9:] == ["p05"]
    assert stage.annotate_each("annotate", label, {"of": "truth"}) == folder
    assert len(asked) == 10
    for record in data.records:
        np.testing.assert_array_equal(read_mask(folder / f"{record.id}.png"), read_mask(record.mask))


def test_a_finished_annotation_is_not_looked_at_again(data, here, monkeypatch):
    stage = stage_of(data)
    folder = CAM.annotate(stage)
    monkeypatch.setattr(maps, "_Reader", lambda *_: pytest.fail("read a picture again"))
    assert CAM.annotate(stage) == folder


def test_a_stages_own_folder_is_worked_in_once(data, here):
    """What a method makes beside annotations: found again under the same identity, resumed after a failure."""
    stage, calls = stage_of(data), []

    def work(folder: Path) -> None:
        calls.append(sorted(path.name for path in folder.glob("*.txt")))
        (folder / f"{len(calls)}.txt").write_text("made")
        if len(calls) == 1:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        stage.folder("superpixels", work, {"size": 10})
    folder = stage.folder("superpixels", work, {"size": 10})
    assert stage.folder("superpixels", work, {"size": 10}) == folder
    assert calls == [[], ["1.txt"]]
    assert stage.folder("superpixels", work, {"size": 11}) != folder
    assert folder.parent == runs.root() / "superpixels"


def test_a_picture_that_cannot_be_annotated_is_named(data, here):
    broken = here / "p02.png"
    broken.write_bytes(data.records[2].image.read_bytes()[:100])
    records = [replace(record, image=broken) if record.id == "p02" else record for record in data.records]
    with pytest.raises(RunError, match=r"1 pictures could not be annotated, such as p02: .*p02\.png: cannot be read"):
        CAM.annotate(prepare(CAM, UNREFINED, data, data.with_records(records), 0))


def test_map_config_reaches_the_maps(data):
    model = tiny.model()
    stage = prepare(CAM, replace(RECIPE, maps=MapConfig(size=40, batch_size=3)), data, data, 0)
    sizes = {picture.features.shape[-2:] for picture in stage.iterate_maps(model)}
    assert sizes == {(10, 10)}
