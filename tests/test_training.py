"""The training loop: it learns, survives a kill to the bit, stops at nonsense, and is the same on two processes."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from safetensors import SafetensorError
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score
from torch import nn

from dsna_lib import backbones, training
from dsna_lib.attention import ModelConfig
from dsna_lib.data import pictures as pictures_module
from dsna_lib.data import transforms
from dsna_lib.diagnostics import examine, hold_out
from dsna_lib.engine import devices
from dsna_lib.engine.devices import is_main_process, native_precision, wait_for_everyone
from dsna_lib.engine.errors import RunError, SettingError
from dsna_lib.engine.files import read_json
from dsna_lib.training import (
    TrainingConfig,
    TrainingError,
    checkpoints,
    read_log,
    train_attention,
    train_once,
)

# Eight pictures in batches of two: four steps an epoch, a checkpoint in the middle of each.
CONFIG = TrainingConfig(
    epochs=3, drop_after=2, batch_size=2, backbone_rate=0.01, head_rate=0.1, crop=16, workers=0, checkpoint_every=2,
    device="cpu", seed=3,
)  # fmt: skip


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def split(tmp_path):
    return tiny.pictures(tmp_path / "data")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run without interruption: its final state, its log and its folder."""
    folder = tmp_path_factory.mktemp("reference")
    model = tiny.model()
    train_attention(model, tiny.pictures(folder / "data"), CONFIG, folder / "run")
    return model.state_dict(), without_time(read_log(folder / "run")), folder / "run"


def without_time(log):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in log]


def test_a_run_leaves_its_log_its_configuration_and_one_checkpoint(reference):
    state, log, folder = reference
    assert [line["step"] for line in log] == list(range(1, 13))
    assert [line["epoch"] for line in log] == [0] * 4 + [1] * 4 + [2] * 4
    assert [line["rate"] for line in log] == pytest.approx([0.1] * 8 + [0.01] * 4)
    assert all(math.isfinite(line["loss"]) for line in log)
    assert [p.name for p in checkpoints(folder)] == ["checkpoint-0000012"]
    assert read_json(folder / "run.json")["identity"]["training"]["head_rate"] == 0.1
    assert not (folder / "checkpoint.partial").exists()
    assert not tiny.same(state, tiny.model().state_dict())


def test_the_model_comes_back_in_evaluation_mode(tmp_path, split):
    model = tiny.model().train()
    assert train_attention(model, split, replace(CONFIG, epochs=1), tmp_path / "run") == tmp_path / "run"
    assert not model.training


def test_the_loss_falls(tmp_path, split):
    config = replace(CONFIG, epochs=15, drop_after=12, batch_size=4, backbone_rate=0.1, head_rate=0.3)
    config = replace(config, crop=24, scales=(1.0, 1.1), checkpoint_every=0)
    train_attention(tiny.model(dropout=0.0), split, config, tmp_path / "run")
    losses = [line["loss"] for line in read_log(tmp_path / "run")]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path, split, reference):
    again, other = tiny.model(), tiny.model()
    train_attention(again, split, CONFIG, tmp_path / "again")
    train_attention(other, split, replace(CONFIG, seed=4), tmp_path / "other")
    assert tiny.same(again.state_dict(), reference[0])
    assert not tiny.same(other.state_dict(), reference[0])


def test_reading_in_other_processes_changes_nothing(tmp_path, split, reference):
    model = tiny.model()
    train_attention(model, split, replace(CONFIG, workers=1), tmp_path / "run")
    assert tiny.same(model.state_dict(), reference[0])


def train_until_killed(data: Path, folder: Path, last_step: int) -> None:
    """A real kill, without warning, before step `last_step` + 1."""
    training._step = tiny.stopping(training._step, last_step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    train_attention(tiny.model(), tiny.pictures(data), CONFIG, folder)


@pytest.mark.parametrize("last_step, resumed_from", [(7, 6), (5, 4), (3, 2), (1, 0)])
def test_a_killed_run_ends_with_the_weights_of_the_uninterrupted_one(
    tmp_path, split, reference, last_step, resumed_from
):
    """Resumed in the middle of an epoch, at its start, and before the first checkpoint."""
    folder = tmp_path / "run"
    assert tiny.in_processes(train_until_killed, tmp_path / "data", folder, last_step) == [-signal.SIGKILL]
    assert len(read_log(folder)) == last_step
    assert [p.name for p in checkpoints(folder)] == ([f"checkpoint-{resumed_from:07d}"] if resumed_from else [])
    (folder / "checkpoint.partial").mkdir()  # as if killed while writing the next one
    (folder / "checkpoint.partial" / "model.safetensors").write_bytes(b"half")

    model = tiny.model(seed=99)
    model.load_state_dict(tiny.model().state_dict())
    train_attention(model, split, CONFIG, folder)
    assert tiny.same(model.state_dict(), reference[0])
    assert without_time(read_log(folder)) == reference[1]  # one line a step, each the same


def test_a_finished_run_is_not_trained_again(tmp_path, split, reference, monkeypatch):
    folder = tmp_path / "run"
    train_attention(tiny.model(), split, CONFIG, folder)
    monkeypatch.setattr(training, "_step", lambda *_: pytest.fail("trained again"))
    model = tiny.model(seed=99)
    train_attention(model, split, CONFIG, folder)
    assert tiny.same(model.state_dict(), reference[0])
    assert len(read_log(folder)) == 12


def test_the_last_step_is_kept_however_checkpoints_fall(tmp_path, split, reference):
    model = tiny.model()
    train_attention(model, split, replace(CONFIG, checkpoint_every=5), tmp_path / "run")
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["checkpoint-0000012"]
    assert tiny.same(model.state_dict(), reference[0])


def test_more_workers_or_checkpoints_may_resume_a_run_but_other_rates_may_not(tmp_path, split):
    folder = tmp_path / "run"
    train_attention(tiny.model(), split, replace(CONFIG, epochs=1), folder)
    train_attention(tiny.model(), split, replace(CONFIG, epochs=1, checkpoint_every=0), folder)
    with pytest.raises(RunError, match="was made with training.head_rate 0.1, not 0.2; use another folder"):
        train_attention(tiny.model(), split, replace(CONFIG, epochs=1, head_rate=0.2), folder)


def poison(monkeypatch, at: int, value: float) -> None:
    """Make the loss of the step after `at` steps `value`."""
    loss_before, count = training.classification_loss, []

    def loss(*arguments):
        count.append(1)
        return loss_before(*arguments) * (value if len(count) == at + 1 else 1.0)

    monkeypatch.setattr(training, "classification_loss", loss)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, split, reference, monkeypatch, value):
    poison(monkeypatch, at=5, value=value)
    model = tiny.model()
    with pytest.raises(TrainingError, match=f"the loss became {value} at step 6; the last good checkpoint is kept"):
        train_attention(model, split, CONFIG, tmp_path / "run")
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["checkpoint-0000004"]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    monkeypatch.undo()
    train_attention(model, split, CONFIG, tmp_path / "run")
    assert tiny.same(model.state_dict(), reference[0])


def test_no_checkpoint_holds_weights_that_are_no_numbers(tmp_path, split):
    """The loss was fine, the update after it was not."""
    huge = replace(CONFIG, head_rate=1e38, weight_decay=1e38, checkpoint_every=1)
    message = "weights became infinite or NaN by step 1; lower `backbone_rate` and `head_rate`"
    with pytest.raises(TrainingError, match=message):
        train_attention(tiny.model(), split, huge, tmp_path / "run")
    assert checkpoints(tmp_path / "run") == []


def test_a_damaged_checkpoint_is_named(tmp_path, split):
    folder = tmp_path / "run"
    train_attention(tiny.model(), split, replace(CONFIG, epochs=1), folder)
    weights = checkpoints(folder)[-1] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TrainingError, match=r"checkpoint-0000004: is damaged \(.*\); delete it to start anew"):
        train_attention(tiny.model(), split, replace(CONFIG, epochs=1), folder)


def test_a_checkpoint_of_another_model_is_refused(tmp_path, split):
    folder = tmp_path / "run"
    train_attention(tiny.model(), split, replace(CONFIG, epochs=1), folder)
    other = tiny.model()
    other.head.expansive = torch.nn.Conv2d(8, 5, 1)
    with pytest.raises(TrainingError, match="checkpoint-0000004: is damaged"):
        train_attention(other, split, replace(CONFIG, epochs=1), folder)


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, split, reference, monkeypatch, kind):
    save_state, count = training.Accelerator.save_state, []

    def fill_up(self, folder):
        count.append(1)
        if len(count) == 3:
            Path(folder).mkdir()
            Path(folder, "model.safetensors").write_bytes(b"half")
            raise kind(28, "No space left on device")
        return save_state(self, folder)

    monkeypatch.setattr(training.Accelerator, "save_state", fill_up)
    message = "cannot write the checkpoint .*checkpoint-0000006 .*No space left on device.*the one before it is kept"
    with pytest.raises(TrainingError, match=message):
        train_attention(tiny.model(), split, CONFIG, tmp_path / "run")
    assert [p.name for p in checkpoints(tmp_path / "run")] == ["checkpoint-0000004"]
    monkeypatch.undo()
    model = tiny.model()
    train_attention(model, split, CONFIG, tmp_path / "run")
    assert tiny.same(model.state_dict(), reference[0])


def test_a_folder_that_cannot_be_made(tmp_path, split):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write into the folder .*run: Not a directory"):
        train_attention(tiny.model(), split, CONFIG, tmp_path / "file" / "run")


def test_out_of_memory_says_what_to_lower(tmp_path, split, monkeypatch):
    def loss(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training, "classification_loss", loss)
    message = r"out of memory at step 1 \(2 pictures a process\); lower `batch_size` or `crop`, or use `precision` bf16"
    with pytest.raises(TrainingError, match=message):
        train_attention(tiny.model(), split, CONFIG, tmp_path / "run")


@pytest.mark.parametrize("device", ["auto", "mps", "cpu"])
def test_accelerate_takes_the_device_that_we_take(monkeypatch, split, device):
    """As on a Mac; nothing is computed there."""
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")  # Accelerate sets it
    for asked in ("is_available", "is_built"):
        monkeypatch.setattr(torch.backends.mps, asked, lambda: True)
    accelerator = training._accelerator(replace(CONFIG, device=device))
    assert accelerator.device == devices.choose_device(device)
    assert accelerator.device.type == ("cpu" if device == "cpu" else "mps")
    assert not training._loader(split, CONFIG, accelerator).pin_memory  # torch would warn
    AcceleratorState._reset_state(reset_partial_state=True)


def test_no_more_readers_than_cores(monkeypatch, split):
    """torch would warn."""
    monkeypatch.setattr(devices, "core_count", lambda: 1)
    config = replace(CONFIG, workers=8)
    assert training._loader(split, config, training._accelerator(config)).num_workers == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(tmp_path, split):
    with pytest.raises(RunError, match="a GPU was asked for, but this machine shows no GPU; use `device` cpu"):
        train_attention(tiny.model(), split, replace(CONFIG, device="cuda"), tmp_path / "run")


def test_batches_that_do_not_fit(tmp_path, split):
    with pytest.raises(TrainingError, match="8 pictures do not fill one batch of 9; lower `batch_size`"):
        train_attention(tiny.model(), split, replace(CONFIG, batch_size=9), tmp_path / "run")

    class Three:
        num_processes = 3

    for size in (4, 2):
        with pytest.raises(TrainingError, match=f"a batch of {size} does not divide over 3 processes; use a multiple"):
            training._loader(split, replace(CONFIG, batch_size=size), Three())
    with pytest.raises(SettingError, match="batch_size=0 must be at least 1"):
        replace(CONFIG, batch_size=0)


def test_an_unreadable_picture_is_named(tmp_path, split):
    split.records[3].image.write_bytes(b"")
    with pytest.raises(pictures_module.PictureError, match="p03.png"):
        train_attention(tiny.model(), split, CONFIG, tmp_path / "run")


def test_training_never_reads_a_mask(tmp_path, monkeypatch, reference):
    monkeypatch.setattr(pictures_module, "read_mask", lambda *_: pytest.fail("read a mask"))
    model, split = tiny.model(), tiny.pictures(tmp_path / "data", masks=True)
    split.masks = True  # even when the data set was asked for them
    train_attention(model, split, CONFIG, tmp_path / "run")
    assert tiny.same(model.state_dict(), reference[0])


def test_frozen_stages_stay_as_they_are(tmp_path, split):
    model = tiny.model()
    model.backbone.train_last(1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train_attention(model, split, replace(CONFIG, epochs=1), tmp_path / "some")
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert {k.split(".")[2] for k in changed if k.startswith("backbone")} == {"1"}
    assert any(k.startswith("head") for k in changed)
    model.backbone.train_last(0)
    before = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    train_attention(model, split, replace(CONFIG, epochs=1), tmp_path / "none")
    assert tiny.same(model.backbone.state_dict(), before)


def test_the_sum_over_classes_trains_with_more_force(tmp_path, split, reference):
    train_attention(tiny.model(), split, replace(CONFIG, loss_over_classes="sum"), tmp_path / "run")
    assert read_log(tmp_path / "run")[0]["loss"] == pytest.approx(3 * reference[1][0]["loss"], rel=1e-4)


def test_one_process_may_train_under_several_precisions(tmp_path, split, reference):
    """As a notebook does."""
    half = tiny.model()
    train_attention(half, split, replace(CONFIG, precision="bf16"), tmp_path / "half")
    again = tiny.model()
    train_attention(again, split, CONFIG, tmp_path / "full")
    assert tiny.same(again.state_dict(), reference[0])
    assert not tiny.same(half.state_dict(), reference[0])
    losses = [line["loss"] for line in read_log(tmp_path / "half")]
    assert losses == pytest.approx([line["loss"] for line in reference[1]], abs=0.1)


def train_a_share(data: Path, folder: Path, out: Path) -> None:
    config = replace(CONFIG, batch_size=4, checkpoint_every=1, epochs=2)
    model = tiny.model(dropout=0.0)
    rank = int(os.environ["RANK"])
    train_attention(model, tiny.pictures(data / str(rank)), config, folder)
    assert PartialState().num_processes == 2
    assert is_main_process() == (rank == 0)
    wait_for_everyone()
    torch.save(model.state_dict(), out / f"{rank}.pth")
    PartialState().destroy_process_group()


def test_two_gloo_processes_train_what_one_trains(tmp_path, split):
    """The same pictures in each step, half of them in each process, so the same weights but for rounding."""
    assert tiny.in_processes(train_a_share, tmp_path / "data", tmp_path / "two", tmp_path, count=2) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    assert tiny.same(first, second)
    alone = tiny.model(dropout=0.0)
    train_attention(alone, split, replace(CONFIG, batch_size=4, checkpoint_every=1, epochs=2), tmp_path / "one")
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)
    logs = [read_log(tmp_path / folder) for folder in ("one", "two")]
    assert [len(log) for log in logs] == [4, 4]
    assert [line["loss"] for line in logs[1]] == pytest.approx([line["loss"] for line in logs[0]], rel=1e-4)
    assert [p.name for p in checkpoints(tmp_path / "two")] == ["checkpoint-0000004"]


def test_the_rates_rise_over_the_first_steps():
    config = TrainingConfig(epochs=2, warm_up=4, schedule="poly")
    factors = [config.rate_factor(step, 50) for step in (0, 1, 3, 4, 50, 99)]
    falling = [(1 - step / 100) ** 0.9 for step in (0, 1, 3, 4, 50, 99)]
    assert factors == pytest.approx([f * w for f, w in zip(falling, (0.2, 0.4, 0.8, 1, 1, 1), strict=True)])
    assert [TrainingConfig(warm_up=1).rate_factor(step, 700) for step in (0, 1, 7000)] == [0.5, 1, 0.1]


def adamw(parameter, gradients, rates, decay):
    """Loshchilov and Hutter (2019), Algorithm 2, in plain numbers."""
    first = second = 0.0
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        corrected = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
        parameter -= rate * decay * parameter + rate * corrected
    return parameter


def test_adamw_with_its_schedule_equals_plain_numbers(tmp_path, split):
    """A model of one number whose loss is k times it in step k."""

    class Number(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.tensor(2.0))
            self.calls = 0

        def forward(self, image):
            self.calls += 1
            return self.calls * self.value

    config = replace(CONFIG, epochs=2, optimizer="adamw", weight_decay=0.1, schedule="poly", warm_up=2)
    model = Number()
    shown = split.with_transform(training.augmentation(config))
    groups = [{"params": [model.value], "lr": 0.05}]
    training.fit(model, shown, groups, lambda output, batch: output, config, tmp_path / "run")
    rates = [0.05 * config.rate_factor(step, 4) for step in range(8)]
    assert model.value.item() == pytest.approx(adamw(2.0, range(1, 9), rates, 0.1), rel=1e-5)
    assert [line["rate"] for line in read_log(tmp_path / "run")] == pytest.approx(rates)


def test_frozen_stages_see_whole_pictures_once_and_the_same_is_learned(tmp_path, split, monkeypatch):
    config = replace(CONFIG, epochs=3, crops="whole")
    learned, shown = tiny.learned_and_shown(
        tiny.model, lambda model, name: train_attention(model, split, config, tmp_path / name), monkeypatch
    )
    for name, weight in learned[0].items():
        torch.testing.assert_close(weight, learned[1][name])
    assert shown[0] <= 2 * len(split) < shown[1] == 3 * len(split)


def test_pictures_whose_colors_change_are_seen_each_time(tmp_path, split, monkeypatch):
    config = replace(CONFIG, epochs=3, crops="whole", jitter=0.2)
    _, shown = tiny.learned_and_shown(
        tiny.model, lambda model, name: train_attention(model, split, config, tmp_path / name), monkeypatch
    )
    assert shown == [3 * len(split)] * 2


def test_a_training_that_diverges_with_adamw_is_told_in_a_sentence_and_keeps_its_checkpoint(tmp_path, split):
    config = replace(CONFIG, optimizer="adamw", backbone_rate=1e19, head_rate=1e19, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"(loss became nan|weights became infinite or NaN).*lower `backbone_rate`"):
        train_attention(tiny.model(), split, config, tmp_path / "run")
    for folder in checkpoints(tmp_path / "run"):
        state = load_file(folder / "model.safetensors")
        assert all(torch.isfinite(tensor).all() for tensor in state.values())


HOLDING = replace(CONFIG, held_out=0.25, optimizer="adamw", backbone_rate=0.001, head_rate=0.01)


def test_pictures_that_are_held_out_are_not_learned_from(tmp_path, split, monkeypatch):
    learned, held = hold_out(split, 0.25)
    assert len(held) == 2
    assert not {r.id for r in learned.records} & {r.id for r in held.records}
    assert len(learned) + len(held) == len(split)
    shown, step = set(), training._step
    monkeypatch.setattr(training, "_step", lambda *given: shown.update(given[4]["id"]) or step(*given))
    train_attention(tiny.model(), split, HOLDING, tmp_path / "run")
    assert shown == {record.id for record in learned.records}


def test_a_learning_curve_is_measured_on_what_is_held_out(tmp_path, split):
    """Against scikit-learn, on the model as it is at the end; measuring changes nothing that is learned."""
    model, blind = tiny.model(), tiny.model()
    split = tiny.pictures(tmp_path / "more", 24)
    train_attention(model, split, HOLDING, tmp_path / "run")
    learned, held = hold_out(split, HOLDING.held_out)
    train_attention(blind, learned, replace(HOLDING, held_out=0.0), tmp_path / "blind")
    assert tiny.same(model.state_dict(), blind.state_dict())
    curve = training.read_curve(tmp_path / "run")
    steps = len(read_log(tmp_path / "run"))
    assert curve["step"] == sorted({steps * (k + 1) // 10 for k in range(10)})
    assert training.read_curve(tmp_path / "blind") == {"step": [], "mean_average_precision": []}
    whole = held.with_transform(transforms.inference(HOLDING.crop))
    scores = torch.stack([model(whole[k]["image"][None]).scores[0] for k in range(len(whole))]).detach()
    expected = [average_precision_score(held.targets()[:, c], scores[:, c]) for c in range(3)]
    assert curve["mean_average_precision"][-1] == pytest.approx(np.mean(expected), abs=1e-4)


@pytest.mark.parametrize("negatives, points", [(0, 0), (4, 10)])
def test_one_class_alone_has_a_curve_where_some_pictures_do_not_show_it(tmp_path, negatives, points):
    split = tiny.pictures(tmp_path / "data", 24)
    labels = [()] * negatives + [(0,)] * (24 - negatives)
    records = [replace(record, labels=each) for record, each in zip(split.records, labels, strict=True)]
    train_attention(tiny.model(), split.with_records(records), HOLDING, tmp_path / "run")
    assert len(training.read_curve(tmp_path / "run")["step"]) == points


def test_a_killed_run_with_a_curve_and_balanced_drawing_goes_on(tmp_path, split, monkeypatch):
    config = replace(HOLDING, balance=1.0, held_out=0.25, checkpoint_every=1)
    whole, broken = tiny.model(), tiny.model()
    train_attention(whole, split, config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "_step", tiny.stopping(training._step, 4, lambda: signal.raise_signal(signal.SIGINT)))
        train_attention(broken, split, config, tmp_path / "run")
    train_attention(broken, split, config, tmp_path / "run")
    assert tiny.same(whole.state_dict(), broken.state_dict())
    assert without_time(read_log(tmp_path / "run")) == without_time(read_log(tmp_path / "whole"))


def test_the_three_ways_to_crop():
    kinds = {way: str(training.augmentation(replace(CONFIG, crops=way))) for way in ("rescaled", "resized", "whole")}
    assert "RandomRescale" in kinds["rescaled"]
    assert "RandomResizedCrop" in kinds["resized"]
    assert "Crop" not in kinds["whole"]
    for way in kinds:
        assert "ColorJitter" in str(training.augmentation(replace(CONFIG, crops=way, jitter=0.3)))
    for bad, said in (("cut", "crops='cut': choose rescaled, resized or whole"),):
        with pytest.raises(SettingError, match=said):
            TrainingConfig(crops=bad)
    with pytest.raises(SettingError, match=r"shares=\[0.9, 0.2\] must be two numbers, the smaller first"):
        TrainingConfig(shares=(0.9, 0.2))


def test_rates_and_schedules():
    paper, quick = TrainingConfig(), TrainingConfig.quick(seed=5)
    assert (paper.epochs, paper.drop_after, paper.batch_size) == (20, 10, 15)
    effective = [rate / (1 - paper.momentum) for rate in (paper.backbone_rate, paper.head_rate)]
    assert effective == pytest.approx([0.01, 0.1])
    assert [paper.rate_factor(e * 700, 700) for e in (0, 9, 10, 19)] == [1, 1, 0.1, 0.1]
    assert (quick.epochs, quick.precision, quick.seed) == (6, native_precision(), 5)


@pytest.mark.parametrize(("amx", "expected"), [(False, "no"), (True, "bf16")])
def test_bf16_only_where_a_processor_is_quicker_with_it(monkeypatch, amx, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # slower than fp32 all the same
    assert native_precision("cpu") == TrainingConfig(precision="auto", device="cpu").precision == expected
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")  # an older torch
    assert native_precision("cpu") == "no"


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_precision_of_a_gpu(monkeypatch, bf16, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert native_precision() == native_precision("cuda") == expected


# --- runs


@pytest.fixture
def runs_folder(tmp_path, monkeypatch):
    """Runs go here, and models have the tiny backbone instead of a real one."""
    monkeypatch.setenv("DSNA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(backbones, "create", lambda name, stride, weights: tiny.backbone())
    return tmp_path / "runs"


MODEL = ModelConfig(tiny.NAMES, weights=None)


def test_a_run_ends_with_the_report_of_its_own_training(runs_folder, split):
    model, run = train_once(MODEL, split, CONFIG)
    assert run.folder.parent == runs_folder / "train"
    assert run.finished
    metrics = run.read()["metrics"]
    assert {"step": 12, "epoch": 2, "loss": read_log(run.folder)[-1]["loss"]}.items() <= metrics.items()
    assert {"examined": 8, "classes_shown": 3}.items() <= metrics.items()
    report = examine(model, split)
    assert report == {name: metrics[name] for name in report}


def test_a_collapsed_training_is_named_in_its_run(runs_folder, split, monkeypatch):

    def collapse(model, *_):
        nn.init.zeros_(model.head.discriminative.weight)
        model.head.discriminative.bias.data = torch.tensor([0.0, 5.0, 0.0])

    train = training.train_attention
    monkeypatch.setattr(training, "train_attention", lambda *given: (train(*given), collapse(*given)))
    metrics = train_once(MODEL, split, CONFIG)[1].read()["metrics"]
    assert metrics["warnings"] == ["the classifier answers green to all of 8 training pictures, 5 without it"]
    assert (metrics["examined"], metrics["classes_shown"], metrics["classes_answered"]) == (8, 3, 1)


def test_a_run_that_stopped_is_not_finished_and_goes_on(runs_folder, split, monkeypatch):
    expected = train_once(MODEL, split, CONFIG, runs_folder / "whole")[0].state_dict()
    poison(monkeypatch, at=5, value=math.nan)
    with pytest.raises(TrainingError, match="the loss became nan at step 6"):
        train_once(MODEL, split, CONFIG, runs_folder / "run")
    assert read_json(runs_folder / "run" / "run.json")["state"] == "running"
    monkeypatch.setattr(training, "classification_loss", training.attention.classification_loss)
    model, run = train_once(MODEL, split, CONFIG, runs_folder / "run")
    assert run.finished
    assert tiny.same(model.state_dict(), expected)
    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained again"))
    assert tiny.same(train_once(MODEL, split, CONFIG, runs_folder / "run")[0].state_dict(), expected)


def test_a_weight_file_of_other_content_makes_another_run(runs_folder, split, tmp_path):
    config, folders = replace(CONFIG, epochs=1), set()
    for content in (b"one", b"two"):
        (tmp_path / "weights.pth").write_bytes(content)
        folders.add(train_once(replace(MODEL, weights=str(tmp_path / "weights.pth")), split, config)[1].folder)
    assert len(folders) == 2


def test_masks_make_no_other_run(runs_folder, tmp_path):
    """Nothing reads them."""
    config = replace(CONFIG, epochs=1)
    folders = {
        train_once(MODEL, tiny.pictures(tmp_path / "data", masks=masks), config)[1].folder for masks in (False, True)
    }
    assert len(folders) == 1
