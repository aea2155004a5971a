"""Two pictures of three classes in a known layout, and what may be told about them."""

from pathlib import Path

import numpy as np
from PIL import Image

from dsna_lib.data import Pictures, Record, write_mask

NAMES = ("cat", "dog", "cow")


def image(path: Path, height: int = 12, width: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(path)
    return path


def data_set(root: Path) -> Pictures:
    """``a`` shows a cat and a dog, ``b`` a cow; both are 16 wide and 12 high, and have masks."""
    records = []
    for i, labels in (("a", (0, 1)), ("b", (2,))):
        mask = root / f"SegmentationClass/{i}.png"
        write_mask(mask, np.full((12, 16), 1, np.uint8))
        records.append(Record(i, image(root / f"JPEGImages/{i}.png"), labels, mask))
    return Pictures(records, NAMES)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
