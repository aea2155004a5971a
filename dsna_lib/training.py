"""One training loop for every model of the book, on Hugging Face Accelerate.

The same code serves one CPU, one GPU in bf16 or fp16, and many processes under ``accelerate launch``. All
randomness follows from the seed and the position in the run, so a run that was killed at any moment resumes
and ends with the weights of the uninterrupted run (for the same number of processes).
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
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
from tqdm import tqdm

from dsna_lib import attention
from dsna_lib.attention import AttentionModel, AttentionOutput, classification_loss
from dsna_lib.backbones import weights_digest
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data import transforms
from dsna_lib.data.pictures import Pictures
from dsna_lib.engine import devices, runs
from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.files import write_atomically
from dsna_lib.engine.runs import Run


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
        end with the report of :func:`examine`.

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
        return read_log(folder)[-1] | report

    identity = {
        "model": asdict(model),
        "weights": weights_digest(model.backbone, model.weights),
        "data": {"digest": runs.data_digest(pictures), "pictures": len(pictures)},
        "training": config.identity(),
    }
    run = runs.complete(runs.open_run("train", identity, __name__, folder=folder), work)
    return attention.load(run.folder / "model.pth", pictures.class_names), run


@torch.no_grad()
def examine(model: AttentionModel, pictures: Pictures, count: int = 32) -> dict[str, Any]:
    """Whether a classifier has collapsed: what it answers to some of its own training pictures.

    The model is left in evaluation mode; `count` pictures, evenly spread, are shown whole.

    Returns:
        ``examined`` (pictures), ``classes_shown`` (how many classes their labels name), ``classes_answered`` (how many
        are the first choice of any picture), and ``warnings``: sentences that name what is wrong, if anything is.
    """
    shown = spread(pictures, count).with_transform(transforms.inference(224))
    device = next(model.parameters()).device
    model.eval()
    answers = {int(model(shown[k]["image"][None].to(device)).scores.argmax()) for k in range(len(shown))}
    labels = [set(record.labels) for record in shown.records]
    wrong = sum(bool(named) and not answers & named for named in labels)
    warnings = []
    if len(answers) == 1 and wrong > len(shown) / 10:  # where nearly all pictures show one class, it may be right
        name = pictures.class_names[min(answers)]
        warnings.append(f"the classifier answers {name} to all of {len(shown)} training pictures, {wrong} without it")
    counts = {"examined": len(shown), "classes_shown": len(set().union(*labels)), "classes_answered": len(answers)}
    return counts | {"warnings": warnings}


def spread(pictures: Pictures, count: int) -> Pictures:
    """At most `count` of the pictures, evenly spread: they may lie sorted by their classes."""
    total, count = len(pictures), min(count, len(pictures))
    places = [(2 * part + 1) * total // (2 * count) for part in range(count)]  # the middles of equal parts
    return pictures.with_records([pictures.records[place] for place in places])


def train_attention(model: AttentionModel, pictures: Pictures, config: TrainingConfig, folder: str | Path) -> Path:
    """Train an attention model in place, on pictures and their image labels and nothing else; see :func:`fit`.

    The pictures' transform is replaced by the random training transform.
    """
    augmented = pictures.with_transform(transforms.train(config.crop, config.scales), seed=config.seed)
    groups = [
        {"params": [p for p in model.backbone.parameters() if p.requires_grad], "lr": config.backbone_rate},
        {"params": list(model.head.parameters()), "lr": config.head_rate},
    ]

    def loss_of(output: AttentionOutput, batch: dict[str, Tensor]) -> Tensor:
        return classification_loss(output.scores, batch["labels"], config.loss_over_classes)  # Eq. 10

    return fit(model, augmented, groups, loss_of, config, folder)


def fit(
    model: nn.Module,
    pictures: Pictures,
    groups: list[dict[str, Any]],
    loss_of: Callable[[Any, dict[str, Tensor]], Tensor],
    config: TrainingConfig,
    folder: str | Path,
) -> Path:
    """The loop; returns the folder.

    Args:
        model: called with ``batch["image"]``; changed in place.
        pictures: with their training transform.
        groups: parameter groups for SGD, each with ``params`` and ``lr``.
        loss_of: (model output, batch) to a scalar loss.
        config: the schedule.
        folder: for checkpoints and ``metrics.jsonl``; an unfinished run in it is resumed.

    Raises:
        TrainingError: NaN loss, out of memory, a batch that does not fit, a damaged checkpoint.
        RunError: no GPU where one was asked for, or another run in the folder.
    """
    folder = Path(folder)
    accelerator = _accelerator(config)
    set_seed(config.seed)
    groups = [group for group in groups if group["params"]]
    optimizer = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    loader = _loader(pictures, config, accelerator)
    if accelerator.is_main_process:
        runs.claim_folder(folder, "train", training=config.identity())
    model.to(memory_format=torch.channels_last)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    base_rates = [group["lr"] for group in optimizer.param_groups]

    step = _resume(accelerator, folder)
    log = _Log(folder / "metrics.jsonl", step) if accelerator.is_main_process else None
    bar = tqdm(total=config.epochs * len(loader), initial=step, leave=False, disable=None, unit="step")
    prepared.train()
    for epoch in range(step // len(loader), config.epochs):
        pictures.set_epoch(epoch)
        batches = skip_first_batches(loader, step % len(loader))
        batches.set_epoch(epoch)
        for batch in batches:
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * config.rate_factor(step / len(loader))
            # Dropout follows from the position in the run: starting a data loader moves torch's own random state on.
            drawn = np.random.SeedSequence([config.seed, step, accelerator.process_index]).generate_state(1)
            torch.manual_seed(int(drawn[0]))
            loss = _step(accelerator, prepared, optimizer, loss_of, batch, step)
            step += 1
            bar.update()
            if log:
                log.write(step=step, epoch=epoch, loss=loss, rate=optimizer.param_groups[-1]["lr"])
            if step % (config.checkpoint_every or len(loader)) == 0 or step == config.epochs * len(loader):
                _save(accelerator, prepared, folder, step)
    bar.close()
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    model.eval()
    return folder


def _accelerator(config: TrainingConfig) -> Accelerator:
    devices.choose_device(config.device)
    # Accelerate holds a process to its first precision and device; a notebook trains under several.
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not distributed)
    order = DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed)
    return Accelerator(mixed_precision=config.precision, cpu=config.device == "cpu", dataloader_config=order)


def _loader(pictures: Pictures, config: TrainingConfig, accelerator: Accelerator) -> DataLoader:
    size, count = config.batch_size, accelerator.num_processes
    if size % count:
        raise TrainingError(f"a batch of {size} does not divide over {count} processes", f"use a multiple of {count}")
    if len(pictures) < size:
        raise TrainingError(f"{len(pictures)} pictures do not fill one batch of {size}", "lower `batch_size`")
    return DataLoader(
        pictures,
        batch_size=size // count,
        shuffle=True,
        drop_last=True,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
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
    except (OSError, RuntimeError) as error:
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
        with self.path.open("a") as file:
            file.write(json.dumps(values | {"seconds": round(time.monotonic() - self.started, 3)}) + "\n")


def read_log(folder: str | Path) -> list[dict[str, float]]:
    """The metrics log of a run: one dict a step, with ``step``, ``epoch``, ``loss``, ``rate``, ``seconds``."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
