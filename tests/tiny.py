"""A model and a data set that fit in milliseconds, for tests of everything around them."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models.vgg import cfgs, make_layers

from dsna_lib.attention import AttentionModel, DecoupledAttention
from dsna_lib.backbones import Backbone
from dsna_lib.data import Pictures, Record, read_mask, write_mask
from dsna_lib.segmentation.networks import SegmentationModel

NAMES = ("red", "green", "blue")
BOXES = "id,left,top,right,bottom,class"
needs_onnx = pytest.mark.skipif(
    not (find_spec("onnx") and find_spec("onnxruntime")),
    reason='onnx and onnxruntime are not installed: pip install "dsna-book[export]"',
)
needs_pydensecrf = pytest.mark.skipif(find_spec("pydensecrf") is None, reason="pydensecrf is not installed")


def backbone() -> Backbone:
    """Two small convolutions, stride 4, 8 channels, in two stages."""
    first = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
    second = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU())
    return Backbone("tiny", nn.Sequential(first, second), 8, 4)


def model(seed: int = 0, dropout: float = 0.5) -> AttentionModel:
    torch.manual_seed(seed)
    return AttentionModel(backbone(), DecoupledAttention(8, len(NAMES), dropout)).eval()


def segmentation(seed: int = 0, dropout: float = 0.5) -> SegmentationModel:
    """The same backbone with a score for each cell and class."""
    torch.manual_seed(seed)
    head = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(8, len(NAMES) + 1, 1))
    return SegmentationModel(backbone(), head).eval()


def pictures(folder: Path, count: int = 8, masks: bool = False) -> Pictures:
    """Grey noise with one colored square; the square's color is the class."""
    records = []
    for k in range(count):
        rng, label = np.random.default_rng(k), k % len(NAMES)
        height, width = 20 + k, 26
        image = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
        top, left = rng.integers(0, 9, 2)
        image[top : top + 10, left : left + 10] = np.eye(3, dtype=np.uint8)[label] * 230
        path = Path(folder) / f"p{k:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        mask = None
        if masks:
            truth = np.zeros((height, width), np.uint8)
            truth[top : top + 10, left : left + 10] = label + 1
            mask = path.with_name(f"{path.stem}-mask.png")
            write_mask(mask, truth)
        records.append(Record(path.stem, path, (label,), mask))
    return Pictures(records, NAMES)


def told_pictures(folder: Path) -> Pictures:
    """The same in a known layout, with masks, and with points, boxes and scribbles that tell of the squares."""
    made, lines = pictures(folder / "JPEGImages", masks=True), {"points": ["id,x,y,class"], "boxes": [BOXES]}
    for record in made.records:
        assert record.mask is not None
        (label,), mask = record.labels, read_mask(record.mask)
        (top, left), (bottom, right) = (np.argwhere(mask)[end] for end in (0, -1))
        lines["points"].append(f"{record.id},{(left + right) // 2},{(top + bottom) // 2},{NAMES[label]}")
        lines["boxes"].append(f"{record.id},{left},{top},{right + 1},{bottom + 1},{NAMES[label]}")
        scribble = np.full_like(mask, 255)
        scribble[top + 4 : top + 7, left + 2 : right - 1], scribble[-1, 3:-3] = label + 1, 0
        write_mask(folder / "help/scribbles" / f"{record.id}.png", scribble)
    for kind, rows in lines.items():
        (folder / "help" / f"{kind}.csv").write_text("\n".join(rows) + "\n")
    return made


def _set(folder: Path, made: list[tuple[str, np.ndarray, np.ndarray | None, str]], names: tuple[str, ...]) -> None:
    """Write a set in the VOC layout: ids, pictures, masks where there are any, and the class of each."""
    for i, image, mask, _ in made:
        path = folder / "JPEGImages" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        if mask is not None:
            write_mask(folder / "SegmentationClass" / f"{i}.png", mask)
    split = folder / "ImageSets/Segmentation/train.txt"
    split.parent.mkdir(parents=True)
    split.write_text("".join(f"{i}\n" for i, *_ in made))
    (folder / "image_labels.json").write_text(json.dumps({i: [name] for i, *_, name in made}))
    (folder / "class_names.json").write_text(json.dumps(list(names)))


def helped_pictures(folder: Path) -> Pictures:
    """The same as :func:`told_pictures`, with sets of others: saliency and other masks, web, and videos.

    All show one square: on noise in colors of no class, on even ground, and moving by 2 pixels a frame.
    """
    made, others, web, frames = told_pictures(folder), [], [], []
    for k in range(8):
        rng, top = np.random.default_rng([k, 1]), 2 + k % 5
        image, mask = rng.integers(90, 160, (24, 24, 3), dtype=np.uint8), np.zeros((24, 24), np.uint8)
        place = slice(top, top + 10), slice(top + 3, top + 13)
        image[place], mask[place] = (1 - np.eye(3, dtype=np.uint8)[k % 3]) * 200, 1
        others.append((f"o{k}", image, mask, k))
        found = np.full((24, 24, 3), 230, np.uint8)
        found[place] = np.eye(3, dtype=np.uint8)[k % 3] * 230
        web.append((f"w{k}", found, None, NAMES[k % 3]))
        for t in range(2):
            frame = np.random.default_rng([k, 2]).integers(90, 160, (24, 24, 3), dtype=np.uint8)
            frame[top : top + 10, 2 + 2 * t : 12 + 2 * t] = np.eye(3, dtype=np.uint8)[k % 3] * 230
            frames.append((f"c{k}/{t}", frame, None, NAMES[k % 3]))
    second = ("cyan", "pink")
    _set(folder / "help/saliency", [(i, image, mask, "object") for i, image, mask, _ in others], ("object",))
    named = [(i, image, mask * (1 + k % 2), second[k % 2]) for i, image, mask, k in others]
    _set(folder / "help/other_masks", named, second)
    _set(folder / "help/web", web, NAMES)
    _set(folder / "help/videos", frames, NAMES)
    return made


def vgg16_file(path: Path) -> Path:
    """A weight file of all VGG-16 with torchvision's names and shapes, and random numbers.

    The rows of its fully connected layers overlap in memory, each a place further, so that the file stays small.
    """
    made = torch.Generator().manual_seed(0)
    layers = make_layers(cfgs["D"], batch_norm=False)[:30]
    state = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    for place, inputs in ((0, 512 * 7 * 7), (3, 4096)):
        numbers = torch.randn(4096 + inputs, generator=made)
        state[f"classifier.{place}.weight"] = numbers.as_strided((4096, inputs), (1, 1))
        state[f"classifier.{place}.bias"] = torch.randn(4096, generator=made)
    torch.save(state, path)
    return path


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class NoFloat64(TorchDispatchMode):
    """The device "meta", which has no values, stands in for Apple's GPU: no tensor there may be of float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, torch.Tensor) and (each.device.type, each.dtype) == ("meta", torch.float64):
                raise TypeError(f"{func} makes a float64")
        return made


# One server imports torch once and hands out fresh processes in milliseconds.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["dsna_lib.annotate", "dsna_lib.crf", "dsna_lib.segmentation.training"])


def stopping(step: Callable[..., float], last: int, stop: Callable[[], object]) -> Callable[..., float]:
    """The training loop's step, before which `stop` is called once `last` steps are done."""

    def stopped(*arguments: Any) -> float:
        if arguments[-1] == last:
            stop()
        return step(*arguments)

    return stopped


def in_processes(work: Callable[..., None], *arguments: Any, count: int = 1) -> list[int]:
    """Run `work` in new processes, with a rank each if there are several; returns their exit codes.

    A process that ran into an exception gives 1; one that was killed gives minus the signal.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [SERVER.Process(target=_ranked, args=(work, arguments, rank, count, port)) for rank in range(count)]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
    finally:
        for process in processes:
            process.kill()
    return [process.exitcode for process in processes]


def _ranked(work: Callable[..., None], arguments: tuple, rank: int, count: int, port: int) -> None:
    torch.set_num_threads(1)
    if count > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
        }
    work(*arguments)


def learned_and_shown(make, train, monkeypatch) -> tuple[list, list[int]]:
    """Weights of a model that `train` has taught in its last stage, and how many pictures its first stage saw.

    Twice: with a backbone that remembers what its frozen stages made of a picture, and with one that does not.
    """
    learned, shown = [], []
    for k in range(2):
        model, seen = make(), []
        model.backbone.train_last(1)
        model.backbone.stages[0].register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        train(model, str(k))
        learned.append(model.state_dict())
        shown.append(sum(seen))
        monkeypatch.setattr(type(model.backbone), "remembering", lambda self, memory: nullcontext())
    return learned, shown
