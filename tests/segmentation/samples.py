"""Small pictures and settings that the tests of segmentation share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tiny
import torch
from PIL import Image
from torch import Tensor

from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data import Pictures, Record

# Eight pictures in batches of two: four steps an epoch, a checkpoint in the middle of each.
CONFIG = SegmentationTraining(
    epochs=3, drop_after=2, batch_size=2, backbone_rate=0.01, head_rate=0.1, crop=17, workers=0, checkpoint_every=2,
    device="cpu", seed=3,
)  # fmt: skip
TINY = SegmentationConfig(tiny.NAMES, "tiny", channels=8, dilation=1, weights=None)
MIXED = ((20, 26), (24, 20), (20, 26), (24, 20), (20, 26))


def batch_of(*sizes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    """Pictures (1, 3, H, W) uint8 with a few large patches of color."""
    rng, made = np.random.default_rng(seed), []
    for height, width in sizes:
        patches = np.kron(rng.integers(0, 2, (4, 5, 3)) * 220, np.ones((16, 16, 1)))[:height, :width]
        made.append(torch.from_numpy(patches.astype(np.uint8)).permute(2, 0, 1)[None])
    return made


def photos(folder: Path, *sizes: tuple[int, int]) -> Pictures:
    """Pictures of these sizes with image labels and no masks."""
    records = []
    for k, (height, width) in enumerate(sizes):
        path = folder / f"p{k}.png"
        folder.mkdir(parents=True, exist_ok=True)
        (picture,) = batch_of((height, width), seed=k)
        Image.fromarray(picture[0].permute(1, 2, 0).numpy()).save(path)
        records.append(Record(path.stem, path, (k % 3,)))
    return Pictures(records, tiny.NAMES)
