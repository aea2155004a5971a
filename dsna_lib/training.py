"""One training loop for every model of the book, on Hugging Face Accelerate.

The same code serves one CPU, one GPU (CUDA's in bf16 or fp16, or Apple's), and many processes under ``accelerate
launch``. All randomness follows from the seed and the position in the run, so a run that was killed at any moment
resumes and ends with the weights of the uninterrupted run (for the same number of processes).
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from tqdm import tqdm

from dsna_lib import attention
from dsna_lib.attention import AttentionModel, AttentionOutput, classification_loss
from dsna_lib.backbones import weights_digest, weights_name
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data import transforms
from dsna_lib.data.pictures import Pictures
from dsna_lib.data.sampling import BalancedSampler
from dsna_lib.diagnostics import examine, hold_out, mean_average_precision, tells_apart
from dsna_lib.engine import devices, runs
from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.files import append_line, read_json_lines, write_atomically
from dsna_lib.engine.runs import Run

CURVE_POINTS = 10  #: of a learning curve


class TrainingError(DsnaError, RuntimeError):
    """Training cannot go on; the message says where it stopped and what to do."""


def train_once(
    model: ModelConfig, pictures: Pictures, config: TrainingConfig, folder: str | Path | None = None
) -> tuple[AttentionModel, Run]:
    """Train an attention model, resume an unfinished run, or load the finished one.

    Args:
        model, config: what to train, and how.
        pictures: with image labels; masks are not read.
        folder: where to; by default the folder that configuration, data and code determine.

    Returns:
        The model in evaluation mode on the CPU, and its run (``model.pth`` and ``metrics.jsonl`` inside), whose metrics
        are the log's last line, the report of :func:`~dsna_lib.diagnostics.examine`, and the ``curve`` of
        :func:`read_curve`.

    Raises:
        TrainingError: see :func:`fit`.
        RunError: the folder holds another run.

    Example:
        >>> model, run = train_once(ModelConfig(pictures.class_names), pictures, TrainingConfig())  # doctest: +SKIP
        >>> run.read()["metrics"]["loss"]  # doctest: +SKIP
        0.041
    """

    def work(folder: Path) -> dict[str, Any]:
        torch.manual_seed(config.seed)
        network = attention.create(model)
        train_attention(network, pictures, config, folder)
        report = examine(network, pictures)
        if devices.is_main_process():
            attention.save(network, folder / "model.pth")
        return read_log(folder)[-1] | report | {"curve": read_curve(folder)}

    identity = {
        "model": asdict(model) | {"weights": weights_name(model.weights)},
        "weights": weights_digest(model.backbone, model.weights),
        "data": {"digest": runs.data_digest(pictures), "pictures": len(pictures)},
        "training": config.identity(),
    }
    run = runs.complete(runs.open_run("train", identity, __name__, folder=folder), work)
    return attention.load(run.folder / "model.pth", pictures.class_names), run


def augmentation(config: TrainingConfig) -> v2.Compose:
    """The random training transform that a configuration asks for."""
    if config.crops == "whole":
        return transforms.whole(config.crop, config.jitter)
    if config.crops == "resized":
        return transforms.resized(config.crop, config.shares, config.jitter)
    return transforms.train(config.crop, config.scales, config.jitter)


def train_attention(
    model: AttentionModel,
    pictures: Pictures,
    config: TrainingConfig,
    folder: str | Path,
    watch: Callable[[AttentionModel], None] | None = None,
) -> Path:
    """Train an attention model in place, on pictures and their image labels and nothing else; see :func:`fit`.

    The pictures' transform is replaced by the random training transform. On those that the configuration holds out,
    the classifier's mean average precision is measured as it learns: a learning curve, see :func:`read_curve`. There is
    none where all of them show the same: their order, whatever it is, has a precision of 1.
    `watch` is shown the model, in evaluation mode, whenever the curve gets a point, such as to keep its maps.
    """
    learned, held = hold_out(pictures, config.held_out)
    augmented = learned.with_transform(augmentation(config), seed=config.seed)
    groups = [
        {"params": [p for p in model.backbone.parameters() if p.requires_grad], "lr": config.backbone_rate},
        {"params": list(model.head.parameters()), "lr": config.head_rate},
    ]

    def loss_of(output: AttentionOutput, batch: dict[str, Tensor]) -> Tensor:
        return classification_loss(output.scores, batch["labels"], config.loss_over_classes)  # Eq. 10

    def precision_of(model: AttentionModel) -> dict[str, float]:
        measured = mean_average_precision(model, held, config.held_out_size or config.crop)
        if watch:
            watch(model)
        return {"mean_average_precision": measured}

    measure = precision_of if tells_apart(held) else None
    with remembering(model, config):
        return fit(model, augmented, groups, loss_of, config, folder, measure)


def remembering(model: Any, config: TrainingConfig) -> AbstractContextManager[None]:
    """Whole pictures differ by a mirror image at most: frozen stages need not see them again each epoch."""
    alike = config.crops == "whole" and not config.jitter
    return model.backbone.remembering(config.memory) if alike else nullcontext()


def fit(
    model: nn.Module,
    pictures: Pictures,
    groups: list[dict[str, Any]],
    loss_of: Callable[[Any, dict[str, Tensor]], Tensor],
    config: TrainingConfig,
    folder: str | Path,
    measure: Callable[[Any], dict[str, float]] | None = None,
) -> Path:
    """The loop; returns the folder.

    Args:
        model: called with ``batch["image"]``; changed in place.
        pictures: with their training transform.
        groups: parameter groups for the optimizer, each with ``params`` and ``lr``.
        loss_of: (model output, batch) to a scalar loss.
        config: the schedule.
        folder: for checkpoints and ``metrics.jsonl``; an unfinished run in it is resumed.
        measure: how well a model does; asked at :data:`CURVE_POINTS` evenly spread steps, of which the last is one.

    Raises:
        TrainingError: NaN loss, out of memory, a batch that does not fit, a damaged checkpoint.
        RunError: no GPU where one was asked for, or another run in the folder.
    """
    folder = Path(folder)
    accelerator = _accelerator(config)
    set_seed(config.seed)
    groups = [group for group in groups if group["params"]]
    optimizer = _optimizer(groups, config)
    loader = _loader(pictures, config, accelerator)
    if accelerator.is_main_process:
        runs.claim_folder(folder, "train", training=config.identity())
    model.to(memory_format=torch.channels_last)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    base_rates = [group["lr"] for group in optimizer.param_groups]

    step = _resume(accelerator, folder)
    log = _Log(folder / "metrics.jsonl", step) if accelerator.is_main_process else None
    total = config.epochs * len(loader)
    looks = {total * (k + 1) // CURVE_POINTS for k in range(CURVE_POINTS)} if measure else set()
    bar = tqdm(total=total, initial=step, leave=False, disable=None, unit="step")
    prepared.train()
    for epoch in range(step // len(loader), config.epochs):
        pictures.set_epoch(epoch)
        batches = skip_first_batches(loader, step % len(loader))
        batches.set_epoch(epoch)
        for batch in batches:
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * config.rate_factor(step, len(loader))
            # Dropout follows from the position in the run: starting a data loader moves torch's own random state on.
            drawn = np.random.SeedSequence([config.seed, step, accelerator.process_index]).generate_state(1)
            torch.manual_seed(int(drawn[0]))
            loss = _step(accelerator, prepared, optimizer, loss_of, batch, step)
            step += 1
            bar.update()
            measured = {}
            if measure and step in looks:
                measured = measure(accelerator.unwrap_model(prepared))
                prepared.train()
            if log:
                log.write(step=step, epoch=epoch, loss=loss, rate=optimizer.param_groups[-1]["lr"], **measured)
            if step % (config.checkpoint_every or len(loader)) == 0 or step == total:
                _save(accelerator, prepared, folder, step)
    bar.close()
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    model.eval()
    return folder


def _accelerator(config: TrainingConfig) -> Accelerator:
    without_gpu = devices.choose_device(config.device).type == "cpu"
    # Accelerate holds a process to its first precision and device; a notebook trains under several.
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not distributed)
    order = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed)
    return Accelerator(mixed_precision=config.precision, cpu=without_gpu, dataloader_config=order)


def _optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.Optimizer:
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay)
    return torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)


def _loader(pictures: Pictures, config: TrainingConfig, accelerator: Accelerator) -> DataLoader:
    size, count = config.batch_size, accelerator.num_processes
    if size % count:
        raise TrainingError(f"a batch of {size} does not divide over {count} processes", f"use a multiple of {count}")
    if len(pictures) < size:
        raise TrainingError(f"{len(pictures)} pictures do not fill one batch of {size}", "lower `batch_size`")
    workers = devices.reader_count(config.workers)
    sampler = BalancedSampler(pictures, config.balance, config.seed) if config.balance else None
    return DataLoader(
        pictures,
        batch_size=size // count,
        sampler=sampler,
        shuffle=sampler is None,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=accelerator.device.type == "cuda",
    )


def _step(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[Any, dict[str, Tensor]], Tensor],
    batch: dict[str, Any],
    step: int,
) -> float:
    """One update; returns the loss, averaged over processes."""
    try:
        image = batch["image"].to(memory_format=torch.channels_last)
        loss = loss_of(model(image), batch)
        value = accelerator.reduce(loss.detach(), "mean").item()
        if not math.isfinite(value):
            said = f"the loss became {value} at step {step + 1}; the last good checkpoint is kept"
            raise TrainingError(said, "lower `backbone_rate` and `head_rate`, or try `precision` bf16 instead of fp16")
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    except torch.OutOfMemoryError as error:
        said = f"out of memory at step {step + 1} ({len(batch['image'])} pictures a process)"
        raise TrainingError(said, "lower `batch_size` or `crop`, or use `precision` bf16") from error
    return value


def _save(accelerator: Accelerator, model: nn.Module, folder: Path, step: int) -> None:
    """Write a checkpoint beside the last one, then make it the last one in one rename.

    The loss is checked before each update; this update's outcome is checked here, so that no checkpoint holds NaN.
    """
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise TrainingError(f"weights became infinite or NaN by step {step}", "lower `backbone_rate` and `head_rate`")
    target, partial = folder / f"checkpoint-{step:07d}", folder / "checkpoint.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    try:
        accelerator.save_state(str(partial))
    except Exception as error:  # whatever a full disk makes torch or safetensors raise
        raise TrainingError(f"cannot write the checkpoint {target} ({error}); the one before it is kept") from error
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        partial.rename(target)
        for old in checkpoints(folder)[:-1]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def checkpoints(folder: str | Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(p for p in Path(folder).glob("checkpoint-*") if p.is_dir())


def _resume(accelerator: Accelerator, folder: Path) -> int:
    """Load the last checkpoint, if any; returns the number of steps done."""
    accelerator.wait_for_everyone()
    there = checkpoints(folder)
    if not there:
        return 0
    last = there[-1]
    try:
        accelerator.load_state(str(last))
    except Exception as error:  # whatever a damaged file makes torch or safetensors raise
        raise TrainingError(f"{last}: is damaged ({type(error).__name__})", "delete it to start anew") from error
    return int(last.name.removeprefix("checkpoint-"))


class _Log:
    """One JSON line a step. Lines past the checkpoint that a run resumes from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        lines = path.read_text().splitlines()[:step] if path.is_file() else []
        write_atomically(path, lambda file: file.write("".join(line + "\n" for line in lines).encode()))
        self.path, self.started = path, time.monotonic()

    def write(self, **values: float) -> None:
        append_line(self.path, json.dumps(values | {"seconds": round(time.monotonic() - self.started, 3)}))


def read_log(folder: str | Path) -> list[dict[str, float]]:
    """The metrics log of a run: one dict a step, with ``step``, ``epoch``, ``loss``, ``rate``, ``seconds``.

    Some have what was measured, too, see :func:`fit`. A FileError names a line that is damaged.
    """
    return read_json_lines(Path(folder) / "metrics.jsonl", {"step": int})


def read_curve(folder: str | Path, measure: str = "mean_average_precision") -> dict[str, list[float]]:
    """The learning curve of a run: ``step`` and `measure`, where it was measured; both empty where it never was."""
    looks = [line for line in read_log(folder) if measure in line]
    return {name: [line[name] for line in looks] for name in ("step", measure)}
