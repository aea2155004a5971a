"""What tests of commands have at hand besides their fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KINDS = ("expansive", "discriminative", "merged")
SIZE = ["--size", "64", "--device", "cpu"]


def picture(path: Path, size: tuple[int, int] = (56, 40), mode: str = "RGB", **options: Any) -> Path:
    """A file of noise."""
    pixels = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def sentences(err: str) -> list[str]:
    """What stands on stderr, without progress bars."""
    return [line for line in err.replace("\r", "\n").splitlines() if line.startswith("dsna")]
