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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from accelerate import Accelerator, PartialState, skip_first_batches
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from dsna_lib.attention import AttentionModel, classification_loss
from dsna_lib.data import Pictures, transforms
from dsna_lib.data.pictures import write_atomically


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stopped and what to do."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The defaults are the paper's schedule; :meth:`quick` is for a CPU.

    The paper gives 0.01 and 0.1 as learning rates and no momentum. An SGD step with momentum m moves about
    rate / (1 - m) in the long run, so with m = 0.9 those rates are 0.001 and 0.01.

    Attributes:
        epochs: passes over the pictures.
        drop_after: epoch after which the rates are divided by 10.
        batch_size: pictures a step, over all processes together.
        backbone_rate: learning rate of the pretrained layers.
        head_rate: learning rate of the attention layers.
        momentum, weight_decay: of SGD.
        loss_over_classes: ``"mean"`` or ``"sum"``, see :func:`dsna_lib.attention.classification_loss`.
        crop: side of the training crop in pixels.
        scales: range of the shorter side before cropping, in multiples of `crop`.
        seed: of everything random.
        precision: ``"no"`` (fp32), ``"bf16"`` or ``"fp16"`` (mixed precision), or ``"auto"``, which becomes what
            :func:`native_precision` says, so that a run records what it used.
        workers: processes that read pictures.
        checkpoint_every: steps between checkpoints; 0 means once an epoch.
        device: ``"auto"`` (a GPU if there is one) or ``"cpu"`` or ``"cuda"``.
    """

    epochs: int = 20
    drop_after: int = 10
    batch_size: int = 15
    backbone_rate: float = 0.001
    head_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    loss_over_classes: str = "mean"
    crop: int = 224
    scales: tuple[float, float] = (1.0, 1.5)
    seed: int = 0
    precision: str = "no"
    workers: int = 2
    checkpoint_every: int = 0
    device: str = "auto"
    QUICK: ClassVar[dict[str, Any]] = {"epochs": 6, "drop_after": 4, "precision": "auto"}

    def __post_init__(self) -> None:
        if self.precision == "auto":
            object.__setattr__(self, "precision", native_precision(self.device))

    @classmethod
    def quick(cls, **changes: Any) -> Self:
        """A short schedule for a laptop: 6 epochs, in bf16 where the processor has it."""
        return cls(**cls.QUICK | changes)

    def decisive(self) -> dict[str, Any]:
        """The fields that change what is learned, as plain JSON values.

        Left out is who reads the pictures, where the model runs, and how often it is saved.
        """
        free = {"workers", "device", "checkpoint_every"}
        return json.loads(json.dumps({name: value for name, value in asdict(self).items() if name not in free}))

    def rate_factor(self, epoch: float) -> float:
        """What the rates are multiplied by after this many epochs, a fraction for a step within one."""
        return 1.0 if epoch < self.drop_after else 0.1


def train_attention(model: AttentionModel, pictures: Pictures, config: TrainingConfig, folder: str | Path) -> Path:
    """Train an attention model on pictures and their image labels, and nothing else.

    Args:
        model: it is changed in place.
        pictures: their transform is replaced by the random training transform.
        config: the schedule.
        folder: for checkpoints, ``metrics.jsonl`` and ``training.json``. An unfinished run in it is resumed.

    Returns:
        The folder.

    Raises:
        TrainingError: NaN loss, no GPU where one was asked for, out of memory, another run in the folder.
    """
    augmented = pictures.with_transform(transforms.train(config.crop, config.scales), seed=config.seed)
    groups = [
        {"params": [p for p in model.backbone.parameters() if p.requires_grad], "lr": config.backbone_rate},
        {"params": list(model.head.parameters()), "lr": config.head_rate},
    ]

    def loss_of(output: Any, batch: dict[str, Tensor]) -> Tensor:
        return classification_loss(output.scores, batch["labels"], config.loss_over_classes)

    return fit(model, augmented, groups, loss_of, config, folder)


def fit(
    model: nn.Module,
    pictures: Pictures,
    groups: list[dict[str, Any]],
    loss_of: Callable[[Any, dict[str, Tensor]], Tensor],
    config: TrainingConfig,
    folder: str | Path,
) -> Path:
    """The loop.

    Args:
        model: called with ``batch["image"]``; changed in place.
        pictures: the data set, with its training transform.
        groups: parameter groups for SGD, each with ``params`` and ``lr``.
        loss_of: (model output, batch) to a scalar loss.
        config: the schedule.
        folder: where everything is written; an unfinished run in it is resumed.

    Returns:
        The folder.
    """
    folder = Path(folder)
    accelerator = make_accelerator(config)
    set_seed(config.seed)
    optimizer = torch.optim.SGD(
        [g for g in groups if g["params"]], momentum=config.momentum, weight_decay=config.weight_decay
    )
    loader = _loader(pictures, config, accelerator)
    if accelerator.is_main_process:
        _claim(folder, config)
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
            _seed_step(config.seed, step, accelerator.process_index)
            loss = _step(accelerator, prepared, optimizer, loss_of, batch, step)
            step += 1
            bar.update()
            if log:
                log.write(step=step, epoch=epoch, loss=loss, rate=optimizer.param_groups[-1]["lr"])
            if step % (config.checkpoint_every or len(loader)) == 0 or step == config.epochs * len(loader):
                _save(accelerator, prepared, folder, step)
    if accelerator.is_main_process:
        write_atomically(folder / "done", lambda file: file.write(f"{step}\n".encode()))
    bar.close()
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    model.eval()
    return folder


def native_precision(device: str = "auto") -> str:
    """The quickest precision of a processor.

    A CPU multiplies bf16 matrices quickly only with AMX. Without any bf16 instructions it emulates them, some twenty
    times slower than fp32; with those of AVX-512 alone, convolutions still take 1.6 to 1.9 times as long as in fp32
    (measured on VGG-16 and EfficientNet-lite0).

    Args:
        device: ``"auto"`` (a GPU if there is one), ``"cpu"`` or ``"cuda"``.

    Returns:
        On a GPU ``"bf16"``, or ``"fp16"`` where it has no bf16; on a CPU ``"bf16"`` with AMX, else ``"no"``, fp32.

    Example:
        >>> native_precision("cpu") in ("bf16", "no")
        True
    """
    if device != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # torch has no public question for this; where a release lacks the private one, fp32 is always right.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    return "bf16" if has_amx() else "no"


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """An Accelerator for this configuration.

    Raises:
        TrainingError: a GPU was asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device 'cuda' was asked for, but this machine shows no GPU; use --device cpu")
    # Accelerate holds a process to its first precision and device; a notebook trains under several.
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=not distributed)
    return Accelerator(
        mixed_precision=config.precision,
        cpu=config.device == "cpu",
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=config.seed),
    )


def _loader(pictures: Pictures, config: TrainingConfig, accelerator: Accelerator) -> DataLoader:
    per_process, rest = divmod(config.batch_size, accelerator.num_processes)
    if rest or not per_process:
        raise TrainingError(
            f"a batch of {config.batch_size} does not divide over {accelerator.num_processes} processes; "
            f"use a multiple of {accelerator.num_processes}"
        )
    if len(pictures) < config.batch_size:
        raise TrainingError(f"{len(pictures)} pictures do not fill one batch of {config.batch_size}; lower batch_size")
    return DataLoader(
        pictures,
        batch_size=per_process,
        shuffle=True,
        drop_last=True,
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=accelerator.device.type == "cuda",
    )


def _seed_step(seed: int, step: int, process: int) -> None:
    """Draw dropout from the position in the run: starting a data loader moves torch's own random state on."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, process]).generate_state(1)[0]))


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
            raise TrainingError(
                f"the loss became {value} at step {step + 1}; the last good checkpoint is kept: "
                "lower the learning rates, or try precision bf16 instead of fp16"
            )
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory at step {step + 1}: lower batch_size ({len(batch['image'])} a process) or crop, "
            "or use precision bf16"
        ) from error
    return value


def _claim(folder: Path, config: TrainingConfig) -> None:
    """Write the configuration, or refuse a folder that holds a run with another one."""
    path = folder / "training.json"
    config_now = config.decisive()
    if path.is_file():
        before = json.loads(path.read_text())
        differs = [k for k in config_now if before.get(k) != config_now[k]]
        if differs:
            k = differs[0]
            raise TrainingError(
                f"{folder} holds a run with {k}={before.get(k)!r}, not {config_now[k]!r}; "
                "use another folder or delete it"
            )
    write_atomically(path, lambda file: file.write(json.dumps(config_now, indent=2).encode()))


def _save(accelerator: Accelerator, model: nn.Module, folder: Path, step: int) -> None:
    """Write a checkpoint beside the last one, then make it the last one in one rename.

    The loss is checked before each update; this update's outcome is checked here, so that no checkpoint holds NaN.
    """
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        raise TrainingError(f"weights became infinite or NaN by step {step}: lower the learning rates")
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
        shutil.rmtree(target, ignore_errors=True)
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
    found = checkpoints(folder)
    if not found:
        return 0
    try:
        accelerator.load_state(str(found[-1]))
    except Exception as error:  # whatever a damaged file makes torch or safetensors raise
        raise TrainingError(f"{found[-1]}: is damaged ({type(error).__name__}); delete it to start anew") from error
    return int(found[-1].name.removeprefix("checkpoint-"))


class _Log:
    """One JSON line a step. Lines past the checkpoint that a run resumes from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        lines = path.read_text().splitlines()[:step] if path.is_file() else []
        write_atomically(path, lambda file: file.write("".join(line + "\n" for line in lines).encode()))
        self.path, self.started = path, time.monotonic()

    def write(self, **values: float) -> None:
        values = values | {"seconds": round(time.monotonic() - self.started, 3)}
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")


def is_main_process() -> bool:
    """Whether this is the one process that writes shared files."""
    return PartialState().is_main_process


def wait_for_everyone() -> None:
    """Wait until every process has come here."""
    PartialState().wait_for_everyone()


def read_log(folder: str | Path) -> list[dict[str, float]]:
    """The metrics log of a run: one dict a step, with ``step``, ``epoch``, ``loss``, ``rate``, ``seconds``."""
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
