"""Runs and provenance: a finished stage is reused, and a number knows where it comes from.

A run is a folder ``runs/STAGE/DIGEST`` whose digest is taken over the configuration and the code of the modules
that the stage depends on. The same configuration and code find the same folder; any change makes a new one.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from dsna_lib import attention, segmentation, training
from dsna_lib.attention import ModelConfig
from dsna_lib.data import Pictures
from dsna_lib.data.pictures import write_atomically
from dsna_lib.segmentation import SegmentationConfig
from dsna_lib.training import TrainingConfig, TrainingError

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "pydensecrf2")
TRAINING_CODE = ("attention", "backbones", "training", "data/pictures", "data/transforms")
SEGMENTATION_CODE = ("segmentation", "backbones", "training", "data/pictures", "data/transforms")


def root() -> Path:
    """The folder for runs: environment variable ``DSNA_RUNS``, else ``runs`` in the working folder."""
    return Path(os.environ.get("DSNA_RUNS", "runs"))


@dataclass(frozen=True)
class Run:
    """A stage's folder.

    Attributes:
        folder: where its outputs go.
        stage: its name.
        config: its configuration.
    """

    folder: Path
    stage: str
    config: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether this very stage has run to its end before."""
        return (self.folder / "run.json").is_file()

    def finish(self, **metrics: Any) -> None:
        """Mark the run as finished, with what it measured and where it ran."""
        content = {"stage": self.stage, "config": self.config, "metrics": metrics, "environment": environment()}
        write_json(self.folder / "run.json", content)

    def read(self) -> dict[str, Any]:
        """What :meth:`finish` wrote."""
        return read_json(self.folder / "run.json")


def open_run(stage: str, config: Any, code: tuple[str, ...], folder: str | Path | None = None) -> Run:
    """The run of a stage under a configuration and the present code.

    Args:
        stage: its name, such as ``"train"``.
        config: a dict or dataclass of plain values.
        code: modules that the stage depends on, such as ``"attention"`` or ``"data/voc"``.
        folder: a folder of your own instead of the one named by the digest.

    Returns:
        The run; its folder may not exist yet.
    """
    config = json.loads(json.dumps(asdict(config) if is_dataclass(config) else config, default=str))
    digest = hashlib.sha256(json.dumps([config, code_digest(code)], sort_keys=True).encode()).hexdigest()
    return Run(Path(folder) if folder else root() / stage / digest[:12], stage, config)


def code_digest(modules: tuple[str, ...]) -> str:
    """A digest over the source of modules of this package.

    Raises:
        FileNotFoundError: no such module.
    """
    package = Path(__file__).parent
    return hashlib.sha256(b"\0".join((package / f"{m}.py").read_bytes() for m in sorted(modules))).hexdigest()


def data_digest(pictures: Pictures) -> str:
    """A digest over the ids and image labels of a data set."""
    listed = [[record.id, list(record.labels)] for record in pictures.records]
    return hashlib.sha256(json.dumps([listed, pictures.class_names]).encode()).hexdigest()[:12]


def file_digest(path: str | Path) -> str:
    """A digest over the content of a file, such as a model."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


def train_once(
    model: ModelConfig | SegmentationConfig,
    pictures: Pictures,
    config: TrainingConfig,
    folder: str | Path | None = None,
    loss: segmentation.Loss | None = None,
) -> tuple[Any, Run]:
    """Train a model, resume an unfinished run, or load the finished one.

    Args:
        model: what to train: an attention model or a segmentation network.
        pictures: with image labels; for a segmentation network with the masks to learn from.
        config: how to train; a :class:`~dsna_lib.segmentation.SegmentationTraining` for a segmentation network.
        folder: where to; by default the folder that configuration, data and code determine.
        loss: of a segmentation network; a dataclass, so that the run can be told from others. None: cross-entropy.

    Returns:
        The model in evaluation mode on the CPU, and its run (``model.pth`` and ``metrics.jsonl`` inside).
    """
    kind, stage, code, train = _stage(model, loss)
    data = {"digest": data_digest(pictures), "pictures": len(pictures)}
    described = {"model": asdict(model), "data": data, "training": config.decisive()}
    if kind is segmentation:
        described["data"]["annotations"] = segmentation.annotations_digest(pictures)
        described["loss"] = "cross-entropy" if loss is None else {type(loss).__name__: asdict(loss)}
    run = open_run(stage, described, code, folder)
    path = run.folder / "model.pth"
    with alone(run.folder):
        if not (run.finished and run.read()["config"] == run.config):
            _claim(run)
            torch.manual_seed(config.seed)
            network = kind.create(model)
            train(network, pictures, config, run.folder)
            if training.is_main_process():
                kind.save(network, path)
                run.finish(**training.read_log(run.folder)[-1])
            training.wait_for_everyone()
    return kind.load(path, pictures.class_names), run


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Work in a folder while no other program does: whoever needs the same run waits, and then finds it finished.

    The processes of one ``accelerate launch`` work together and do not wait for each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        yield


def _stage(model: ModelConfig | SegmentationConfig, loss: Any) -> tuple[Any, str, tuple[str, ...], Callable[..., Any]]:
    """The module of a configuration, its stage, the code that the stage depends on, and what trains it."""
    if isinstance(model, ModelConfig):
        return attention, "train", TRAINING_CODE, training.train_attention
    own_loss = ("rivals/sec",) if loss is not None else ()
    train = partial(segmentation.train_segmentation, loss_of=loss)
    return segmentation, "segmentation", (*SEGMENTATION_CODE, *own_loss), train


def _claim(run: Run) -> None:
    """Refuse a folder that holds a run of another model or other data: it would be resumed as if it were this one."""
    path, mine = run.folder / "what.json", {key: run.config[key] for key in run.config if key != "training"}
    if path.is_file() and read_json(path) != mine:
        raise TrainingError(f"{run.folder} holds a run of another model or other data; use another folder or delete it")
    write_json(path, mine)


def model_provenance(path: str | Path) -> dict[str, Any]:
    """Where a model file comes from: its digest and, where :func:`train_once` wrote it, how it was trained.

    Returns:
        ``file`` (digest), and ``model``, ``data``, ``training`` and ``environment`` where known.
    """
    known = {"file": file_digest(path)}
    run = Path(path).parent / "run.json"
    if run.is_file():
        content = read_json(run)
        known |= content["config"] | {"environment": content["environment"]}
        known["model"] = {k: v for k, v in known["model"].items() if k not in ("class_names", "weights")}
    return known


def environment() -> dict[str, Any]:
    """Versions, device, commit and time: what a number needs to be explained later."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the code, with ``+changes`` where the working tree differs; None outside a checkout."""
    here = Path(__file__).parent
    try:
        out = [
            subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for args in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", "."])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return out[0] + ("+changes" if out[1] else "")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, indented, with a final newline."""
    write_atomically(path, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))


def write_result(name: str, values: dict[str, Any], provenance: dict[str, Any], folder: str | Path = "results") -> Path:
    """Write a result that the book states: ``results/NAME.json``.

    Args:
        name: of the result.
        values: what was measured, in plain numbers.
        provenance: how: data, split, recipe, shortcuts. The environment is added.
        folder: where to.

    Returns:
        The file.
    """
    path = Path(folder) / f"{name}.json"
    write_json(path, {"values": values, "provenance": provenance | {"environment": environment()}})
    return path
