"""Learning to segment: rates, a loss that leaves void out, annotations that are checked, exact resuming, reports."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from samples import CONFIG, TINY
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import annotate, diagnostics, training
from dsna_lib.backbones import Backbone
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data import Pictures, read_image, read_mask, transforms, write_mask
from dsna_lib.data.pictures import without_masks
from dsna_lib.engine.devices import native_precision
from dsna_lib.engine.errors import RunError, SettingError
from dsna_lib.engine.files import read_json
from dsna_lib.segmentation import networks
from dsna_lib.segmentation import training as training_module
from dsna_lib.segmentation.inference import segment_split
from dsna_lib.segmentation.networks import SegmentationModel, create
from dsna_lib.segmentation.training import (
    AnnotationError,
    CrossEntropy,
    Loss,
    examine,
    labels_at_cell_centers,
    segmentation_loss,
    train_once,
    train_segmentation,
)
from dsna_lib.training import checkpoints, read_log

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# --- what learns, and how fast


@pytest.fixture
def optimizers(monkeypatch):
    """Every optimizer that training makes."""
    made = []

    class Kept(torch.optim.SGD):
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(torch.optim, "SGD", Kept)
    return made


def groups_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """Parameter names of each group."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


def test_the_four_groups_of_deeplab(tmp_path, split, optimizers):
    """New layers learn ten times as fast, biases twice as fast and without decay."""
    model = tiny.segmentation()
    config = SegmentationTraining(epochs=1, batch_size=4, crop=17, workers=0, device="cpu")
    train_segmentation(model, split, config, tmp_path / "run")
    (optimizer,) = optimizers
    assert groups_of(model, optimizer) == [
        ["backbone.stages.0.0.weight", "backbone.stages.1.0.weight"],
        ["backbone.stages.0.0.bias", "backbone.stages.1.0.bias"],
        ["head.1.weight"],
        ["head.1.bias"],
    ]
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.002, 0.01, 0.02])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0, 5e-4, 0]
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}


@pytest.mark.parametrize("count", [0, 2, None])
def test_what_learns_is_in_one_group_and_frozen_stages_are_in_none(tmp_path, split, optimizers, count):
    model = create(SegmentationConfig(tiny.NAMES, channels=8, train_last=count, weights=None))
    train_segmentation(model, split, replace(CONFIG, epochs=1, batch_size=8), tmp_path / "run")
    stages = model.backbone.stages
    learning = {f"head.{name}" for name, _ in model.head.named_parameters()}
    for place in range(0 if count is None else len(stages) - count, len(stages)):
        for name, module in stages[place].named_modules():
            if isinstance(module, nn.Conv2d):
                learning.add(f"backbone.stages.{place}.{name}.weight")
    in_groups = Counter(name for group in groups_of(model, optimizers[0]) for name in group)
    assert in_groups == dict.fromkeys(learning, 1)


def test_schedules():
    paper = SegmentationTraining()
    assert (paper.epochs, paper.drop_after, paper.batch_size, paper.crop) == (12, 8, 15, 321)
    assert [paper.rate_factor(step, 100) for step in (0, 799, 800, 1190)] == [1, 1, 0.1, 0.1]
    poly = replace(paper, schedule="poly")
    assert [poly.rate_factor(step, 100) for step in (0, 600, 1200, 1300)] == pytest.approx([1, 0.5**0.9, 0, 0])
    quick = SegmentationTraining.quick(seed=5, schedule="poly")
    assert (quick.epochs, quick.precision, quick.seed, quick.schedule, quick.crop) == (
        6,
        native_precision(),
        5,
        "poly",
        321,
    )
    with pytest.raises(ValueError, match="schedule='cosine': choose step or poly"):
        SegmentationTraining(schedule="cosine")


def test_the_poly_schedule_falls_at_every_step(tmp_path, split):
    """The log has the rate of the head's biases, twice that of its weights."""
    config = replace(CONFIG, schedule="poly", epochs=2)
    train_segmentation(tiny.segmentation(), split, config, tmp_path / "run")
    rates = [line["rate"] for line in read_log(tmp_path / "run")]
    assert rates == pytest.approx([0.2 * (1 - step / 8) ** 0.9 for step in range(8)])
    assert rates == sorted(set(rates), reverse=True)


def test_a_pretrained_head_learns_as_slowly_as_the_backbone(tmp_path, vgg_file, split, optimizers):
    config = SegmentationConfig(
        tiny.NAMES, "vgg16", channels=8, train_last=0, weights=str(vgg_file), pretrained_head=True
    )
    model = create(config)
    train_segmentation(model, split, replace(CONFIG, epochs=1, batch_size=8), tmp_path / "run")
    assert groups_of(model, optimizers[0]) == [
        ["head.0.weight", "head.3.weight"],
        ["head.0.bias", "head.3.bias"],
        ["head.6.weight"],
        ["head.6.bias"],
    ]
    networks.save(model, tmp_path / "model.pth")
    loaded = networks.load(tmp_path / "model.pth")
    assert loaded.config == replace(config, weights="vgg16.pth")
    assert tiny.same(model.state_dict(), loaded.state_dict())


@pytest.mark.parametrize("name", ["efficientnet_lite0", "test_resnet"])
def test_batch_norm_is_frozen(tmp_path, split, name):
    """Its statistics, scale and shift stay; everything else learns."""
    torch.manual_seed(0)
    model = create(SegmentationConfig(tiny.NAMES, name, channels=8, dilation=1, weights=None))
    norms = {place for place, module in model.named_modules() if isinstance(module, BATCH_NORM)}
    before = state_of(model)
    train_segmentation(model, split, replace(CONFIG, epochs=1, batch_size=4, crop=33), tmp_path / "run")
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    frozen = {key for key in before if key.rpartition(".")[0] in norms}
    assert len(frozen) == 5 * len(norms) > 0
    assert changed == before.keys() - frozen
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == changed


# --- training


def test_it_learns(trained, tmp_path):
    model, pictures, log = trained
    losses = [line["loss"] for line in log]
    assert np.mean(losses[-8:]) < 0.3 * np.mean(losses[:2])
    segment_split(model, pictures, tmp_path, ("single",))
    assert annotate.evaluate(tmp_path / "single", pictures).mean_iou > 0.7
    assert not model.training


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run without interruption: its final state and its log."""
    folder = tmp_path_factory.mktemp("reference")
    model = tiny.segmentation()
    train_segmentation(model, tiny.pictures(folder / "data", masks=True), CONFIG, folder / "run")
    return model.state_dict(), without_time(read_log(folder / "run"))


def without_time(log: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in log]


def train_until_killed(data: Path, folder: Path, last_step: int) -> None:
    """A real kill, without warning, before step `last_step` + 1."""
    training._step = tiny.stopping(training._step, last_step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    train_segmentation(tiny.segmentation(), tiny.pictures(data, masks=True), CONFIG, folder)


def test_a_killed_run_ends_with_the_weights_of_the_uninterrupted_one(tmp_path, split, reference):
    folder = tmp_path / "run"
    assert tiny.in_processes(train_until_killed, tmp_path / "data", folder, 7) == [-signal.SIGKILL]
    assert [p.name for p in checkpoints(folder)] == ["checkpoint-0000006"]
    model = tiny.segmentation(seed=99)
    model.load_state_dict(tiny.segmentation().state_dict())
    train_segmentation(model, split, CONFIG, folder)
    assert tiny.same(model.state_dict(), reference[0])
    assert without_time(read_log(folder)) == reference[1]


def test_image_labels_are_not_learned_from(tmp_path, split, reference):
    split.records = [replace(record, labels=()) for record in split.records]
    model = tiny.segmentation()
    train_segmentation(model, split, CONFIG, tmp_path / "run")
    assert tiny.same(model.state_dict(), reference[0])


@dataclass(frozen=True)
class Seen:
    """A loss of its own that keeps the batches it is asked about."""

    batches: list[dict] = field(default_factory=list)
    whole_pictures: ClassVar[bool] = False
    needs_masks: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: dict) -> Tensor:
        self.batches.append(batch | {"logits": logits.detach()})
        return segmentation_loss(logits, batch["mask"]) + batch["labels"].sum()


class SeenWhole(Seen):
    """The same of whole pictures."""

    whole_pictures = True


def test_another_loss(tmp_path, split, reference):
    seen, model = Seen(), tiny.segmentation()
    train_segmentation(model, split, CONFIG, tmp_path / "run", seen)
    assert len(seen.batches) == 12
    batch = seen.batches[0]
    assert batch["image"].shape == (2, 3, 17, 17)
    assert 0 <= batch["image"].min() < batch["image"].max() <= 1
    assert (batch["mask"].shape, batch["mask"].dtype) == ((2, 17, 17), torch.uint8)
    assert batch["labels"].sum(dim=1).tolist() == [1, 1]
    assert batch["logits"].shape == (2, 4, 5, 5)
    logged = [line["loss"] for line in read_log(tmp_path / "run")]
    assert logged == pytest.approx([line["loss"] + 2 for line in reference[1]], rel=1e-5)  # one label a picture
    assert tiny.same(model.state_dict(), reference[0])  # a constant has no gradient


@pytest.mark.parametrize(
    "kind, asked, shown", [(Seen, "whole", "whole"), (Seen, "rescaled", "rescaled"), (SeenWhole, "rescaled", "whole")]
)
def test_whole_pictures_are_squeezed_and_crops_are_not(tmp_path, split, kind, asked, shown):
    """A loss that needs whole pictures gets them, asked for or not; the folder says what was shown."""
    seen = kind()
    train_segmentation(tiny.segmentation(), split, replace(CONFIG, epochs=1, crops=asked), tmp_path / "run", seen)
    assert read_json(tmp_path / "run" / "run.json")["identity"]["training"]["crops"] == shown
    squeezed = []
    for batch in seen.batches:
        for name, image, mask in zip(batch["id"], batch["image"], batch["mask"], strict=True):
            record = next(r for r in split.records if r.id == name)
            pixels = Image.fromarray(read_image(record.image)).resize((17, 17), Image.Resampling.BILINEAR)
            labels = Image.fromarray(read_mask(record.mask)).resize((17, 17), Image.Resampling.NEAREST)
            both = np.dstack([255 * image.permute(1, 2, 0), mask])
            away = [np.abs(both - np.dstack([pixels, labels])[:, ::turn]) for turn in (1, -1)]
            squeezed.append(any(d[..., :3].mean() < 1 and (d[..., 3] > 0).mean() < 0.15 for d in away))
    assert len(squeezed) == 8
    assert all(squeezed) if shown == "whole" else not any(squeezed)


def test_remembered_frozen_stages_change_nothing_in_what_is_learned(tmp_path, split, monkeypatch):
    """Whole pictures are remembered, which saves time; the weights are the same without."""
    config = replace(CONFIG, epochs=3, crops="whole")
    learned, shown = tiny.learned_and_shown(
        tiny.segmentation, lambda model, name: train_segmentation(model, split, config, tmp_path / name), monkeypatch
    )
    for name, weight in learned[0].items():
        torch.testing.assert_close(weight, learned[1][name])
    assert shown[0] <= 2 * len(split) < shown[1] == 3 * len(split)


# --- runs


@dataclass(frozen=True)
class FromLabels:
    """A loss without masks: the highest score of a class answers for the picture."""

    sharpness: float = 1.0
    whole_pictures: ClassVar[bool] = True
    needs_masks: ClassVar[bool] = False

    def __call__(self, logits: Tensor, batch: dict) -> Tensor:
        assert "mask" not in batch
        highest = self.sharpness * logits[:, 1:].amax(dim=(2, 3))
        return functional.binary_cross_entropy_with_logits(highest, batch["labels"])


@pytest.fixture
def runs_folder(tmp_path, monkeypatch, tiny_backbones):
    monkeypatch.setenv("DSNA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_a_loss_without_masks_needs_none(runs_folder, tmp_path):
    config = replace(CONFIG, epochs=20, drop_after=20, batch_size=4)
    _, run = train_once(TINY, tiny.pictures(tmp_path / "data"), config, loss=FromLabels())
    losses = [line["loss"] for line in read_log(run.folder)]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    assert run.finished


def test_a_loss_without_masks_reads_none(runs_folder, split):
    """Nor does the report: whether masks are there or not is the same run."""
    bare = without_masks(split)
    for record in split.records:
        record.mask.write_bytes(b"no mask")
    folders = {train_once(TINY, pictures, CONFIG, loss=FromLabels())[1].folder for pictures in (split, bare)}
    assert len(folders) == 1


def test_pictures_without_masks_are_named_where_the_loss_needs_them(runs_folder, split):
    split.records[1:3] = without_masks(split).records[1:3]
    with pytest.raises(AnnotationError, match="^2 of 8 pictures have no mask to learn from: p01, p02$"):
        train_once(TINY, split, CONFIG)
    assert not runs_folder.exists()


def loss_of_my_own(code: int) -> Loss:
    """Losses of one name and one field, which compute different things."""

    @dataclass(frozen=True)
    class Mine:
        weight: float = 1.0
        whole_pictures: ClassVar[bool] = False
        needs_masks: ClassVar[bool] = True

        if code == 1:

            def __call__(self, logits: Tensor, batch: dict) -> Tensor:
                return self.weight * segmentation_loss(logits, batch["mask"])
        else:

            def __call__(self, logits: Tensor, batch: dict) -> Tensor:
                return self.weight * segmentation_loss(logits, batch["mask"]) ** 2

    return Mine()


def test_what_differs_in_the_loss_is_another_run(runs_folder, split):
    config = replace(CONFIG, epochs=1)
    losses = [None, FromLabels(), FromLabels(sharpness=2.0), loss_of_my_own(1), loss_of_my_own(2)]
    runs = [train_once(TINY, split, config, loss=loss)[1] for loss in losses]
    assert len({run.folder for run in runs}) == len(losses)
    assert runs[0].folder.parent == runs_folder / "segmentation"
    assert train_once(TINY, split, config, loss=CrossEntropy())[1].folder == runs[0].folder


def test_a_loss_whose_source_cannot_be_read_is_refused(runs_folder, split):
    """Nothing would tell its run from that of another version of it."""
    place = {"__name__": "typed", "FromLabels": FromLabels}
    exec("class Typed(FromLabels):\n    def __call__(self, logits, batch): return logits.sum()", place)
    with pytest.raises(SettingError, match="the source of the loss Typed cannot be read"):
        train_once(TINY, split, CONFIG, loss=place["Typed"]())
    assert not runs_folder.exists()


def test_a_training_with_another_loss_does_not_go_on_in_the_same_folder(tmp_path, split):
    config = replace(CONFIG, epochs=1)
    train_segmentation(tiny.segmentation(), split, config, tmp_path / "run")
    train_segmentation(tiny.segmentation(), split, config, tmp_path / "run", CrossEntropy())
    with pytest.raises(RunError, match="run was made with loss.CrossEntropy {}, not None; use another folder"):
        train_segmentation(tiny.segmentation(), split, config, tmp_path / "run", Seen())


def test_whole_pictures_are_part_of_what_a_run_is(runs_folder, split):
    """Where the loss wants them anyway, asking for them changes nothing."""
    config, whole = (replace(CONFIG, epochs=1, crops=crops) for crops in ("rescaled", "whole"))
    runs = [train_once(TINY, split, asked, loss=FromLabels())[1] for asked in (config, whole)]
    assert runs[0].identity["training"]["crops"] == "whole"
    assert runs[0].folder == runs[1].folder
    assert train_once(TINY, split, config)[1].folder != train_once(TINY, split, whole)[1].folder


def test_a_changed_mask_or_weight_file_is_another_run(runs_folder, split, tmp_path):
    config, folders = replace(CONFIG, epochs=1), []
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    for _ in range(2):
        folders.append(train_once(replace(TINY, weights=str(weights)), split, config)[1].folder)
    weights.write_bytes(b"two")
    folders.append(train_once(replace(TINY, weights=str(weights)), split, config)[1].folder)
    mask = read_mask(split.records[3].mask)
    mask[0, 0] = 255
    write_mask(split.records[3].mask, mask)
    folders.append(train_once(replace(TINY, weights=str(weights)), split, config)[1].folder)
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3


def test_a_run_ends_with_the_report_of_its_own_training(runs_folder, split):
    model, run = train_once(TINY, split, CONFIG)
    metrics = run.read()["metrics"]
    assert {"step": 12, "epoch": 2, "loss": read_log(run.folder)[-1]["loss"]}.items() <= metrics.items()
    assert {"examined": 8, "classes_shown": 4, "channels": 8}.items() <= metrics.items()
    report = examine(model, split, CONFIG.crop)
    assert report == {name: metrics[name] for name in report}


def test_a_collapsed_training_is_named_in_its_run(runs_folder, split, monkeypatch):
    train = training_module.train_segmentation
    monkeypatch.setattr(
        training_module, "train_segmentation", lambda model, *given: (train(model, *given), silence(model, 8))
    )
    metrics = train_once(TINY, split, CONFIG)[1].read()["metrics"]
    assert metrics["warnings"] == [
        "the network answers background everywhere in 8 of its training pictures",
        "8 of 8 channels of the head are silent in 8 training pictures",
    ]
    assert [metrics[name] for name in ("classes_answered", "channels", "silent")] == [1, 8, 8]


# --- collapsed networks


def by_hand(classes: int = 3) -> SegmentationModel:
    """A backbone that passes the picture on, 8 hidden channels, and one class for each color, else background."""
    hidden, classifier = nn.Conv2d(3, 8, 1), nn.Conv2d(8, classes + 1, 1)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    nn.init.zeros_(hidden.bias)
    hidden.weight.data = torch.eye(3).repeat(3, 1)[:8, :, None, None]
    classifier.weight.data[1:, :3, 0, 0] = torch.eye(3)[:classes]
    classifier.bias.data[0] = 0.8  # a colored square is brighter than that, grey noise is not
    head = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(), classifier)
    backbone = Backbone("none", nn.Sequential(nn.Identity()), 3, 1, (0.0,) * 3, (1.0,) * 3)
    return SegmentationModel(backbone, head)


def silence(model: SegmentationModel, count: int) -> None:
    """Let channels of the first layer never be heard; without any, background is the answer."""
    model.head[0].bias.data[:count] = -100.0
    if count == len(model.head[0].bias):
        model.head[-1].bias.data = torch.eye(len(model.head[-1].bias))[0]


def test_a_healthy_network_is_not_warned_of(split):
    model = by_hand().train()
    report = examine(model, split, 17)
    assert report["warnings"] == []
    counts = {"examined": 8, "classes_shown": 4, "classes_answered": 4, "channels": 8, "silent": 0}
    assert counts.items() <= report.items()
    assert not model.training


@pytest.mark.parametrize("answer, name", [(0, "background"), (2, "green")])
def test_one_answer_everywhere_is_warned_of(split, answer, name):
    model = by_hand()
    model.head[-1].bias.data[answer] = 50.0
    for pictures in (split, without_masks(split)):  # what is asked for is read off image labels, then
        report = examine(model, pictures, 17)
        assert report["warnings"] == [f"the network answers {name} everywhere in 8 of its training pictures"]
        assert (report["classes_shown"], report["classes_answered"]) == (4, 1)


def test_one_answer_may_be_the_right_one(split):
    model = by_hand()
    model.head[-1].bias.data[2] = 50.0
    for record in split.records:
        write_mask(record.mask, np.where(read_mask(record.mask) == 0, 255, 2))
    report = examine(model, split, 17)
    assert (report["classes_shown"], report["classes_answered"], report["warnings"]) == (1, 1, [])
    unlabeled = Pictures([replace(record, labels=(), mask=None) for record in split.records], ())
    assert examine(by_hand(classes=0), unlabeled, 17)["warnings"] == []


@pytest.mark.parametrize("count, warned", [(4, False), (5, True)])
def test_a_head_most_of_whose_channels_are_silent_is_warned_of(split, count, warned):
    model = by_hand()
    model.head[0].bias.data[8 - count :] = -100.0
    report = examine(model, split, 17)
    assert (report["channels"], report["silent"]) == (8, count)
    said = [f"{count} of 8 channels of the head are silent in 8 training pictures"]
    assert report["warnings"] == (said if warned else [])


def test_a_silent_layer_is_seen_behind_one_that_speaks(split):
    """The biases of the second layer speak whatever the first one says."""
    model, second = by_hand(), nn.Conv2d(8, 4, 1)
    nn.init.ones_(second.bias)
    model.head = nn.Sequential(*model.head[:2], second, nn.ReLU(), nn.Conv2d(4, 4, 1))
    silence(model, 7)
    report = examine(model, split, 17)
    assert (report["channels"], report["silent"]) == (8, 7)


def test_a_channel_that_speaks_in_one_picture_is_not_silent(split):
    """The square of a color is in some pictures only."""
    model = by_hand()
    model.head[0].bias.data[:] = -0.85
    assert examine(model, split, 17)["silent"] == 0
    greens = split.with_records([record for record in split.records if record.labels == (1,)])
    assert examine(model, greens, 17)["silent"] == 5


def test_a_head_without_hidden_layer_has_no_channels(split):
    report = examine(tiny.segmentation(), split, 17)
    assert (report["channels"], report["silent"]) == (None, None)


def test_pictures_that_lie_sorted_by_class_are_examined_here_and_there(split):
    by_class = sorted(split.records, key=lambda record: record.labels)
    report = examine(by_hand(), split.with_records(by_class), 17, count=3)
    assert (report["examined"], report["classes_shown"]) == (3, 4)


def test_a_learning_curve_is_measured_on_what_is_held_out(tmp_path, split):
    """Mean IoU on the network's own grid, counted by hand; a loss without masks has none."""
    config, network = replace(CONFIG, epochs=2, held_out=0.25), tiny.segmentation()
    train_segmentation(network, split, config, tmp_path / "run")
    curve = training.read_curve(tmp_path / "run", "mean_iou")
    _, held = diagnostics.hold_out(split, 0.25)
    shown = held.with_transform(transforms.inference(config.crop), masks=True)
    pairs = []
    for item in (shown[k] for k in range(len(shown))):
        answer = network(item["image"][None]).argmax(dim=1)[0]
        truth = labels_at_cell_centers(torch.as_tensor(item["mask"]), answer.shape)
        pairs.append(torch.stack([answer, truth]).flatten(1))
    answer, truth = torch.cat(pairs, dim=1)
    answer, truth = answer[truth != 255], truth[truth != 255]
    iou = [((answer == c) & (truth == c)).sum() / max(1, ((answer == c) | (truth == c)).sum()) for c in range(4)]
    known = [value for c, value in enumerate(iou) if ((answer == c) | (truth == c)).any()]
    assert curve["mean_iou"][-1] == pytest.approx(float(sum(known) / len(known)), abs=1e-4)
    train_segmentation(tiny.segmentation(), split, config, tmp_path / "without", FromLabels())
    assert training.read_curve(tmp_path / "without", "mean_iou") == {"step": [], "mean_iou": []}
