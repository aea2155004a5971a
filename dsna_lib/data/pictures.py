"""Pictures with image labels, and sometimes masks: what every data set here is made of.

Reading is strict about content and lenient about form: grey, palette, 16-bit, CMYK and transparent
pictures become 8-bit RGB, the camera's rotation is applied, and a file that cannot be decoded whole is
an error that names it. Masks are palette PNGs of class indices: 0 background, 1..C classes, 255 void.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from torchvision import tv_tensors

VOID = 255


class PictureError(ValueError):
    """A picture or mask that cannot be used; the message names the file and says why."""


@dataclass(frozen=True)
class Record:
    """One picture on disk.

    Attributes:
        id: name of the picture without folder and suffix.
        image: the picture's file.
        labels: 0-based indices of the classes present, sorted, without background.
        mask: the ground-truth mask's file, if there is one. Training never reads it.
        part: the telling parts' mask (embedded data only).
    """

    id: str
    image: Path
    labels: tuple[int, ...]
    mask: Path | None = None
    part: Path | None = None


def read_image(path: str | Path) -> np.ndarray:
    """Read any picture as 8-bit RGB, upright.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        PictureError: the file is missing, truncated, too large or no picture.

    Example:
        >>> read_image("cat.jpg").shape  # doctest: +SKIP
        (300, 451, 3)
    """
    try:
        with Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I;16", "I", "F")):
                return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise PictureError(f"{path}: no such picture") from None
    except Image.DecompressionBombError:
        limit = 2 * Image.MAX_IMAGE_PIXELS  # Pillow warns at half of it
        raise PictureError(f"{path}: over {limit / 1e6:.0f} megapixels; scale it down first") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(f"{path}: cannot be read as a picture ({error}); is it truncated?") from error


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale by the range that the values seem to be of: 0..1 (floats), 0..255, 0..65535, or up to the maximum."""
    highest = float(values.max(initial=0))
    tops = [top for top in (1.0, 255.0, 65535.0) if highest <= top and (top > 1 or values.dtype.kind == "f")]
    scaled = values.astype(np.float64) * 255.0 / (tops[0] if tops else highest)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a mask of class indices.

    Args:
        path: a palette or grey PNG.
        size: the ``(height, width)`` it must have, usually its picture's.

    Returns:
        ``(H, W)`` uint8: 0 background, 1..C classes, 255 void.

    Raises:
        PictureError: missing, not single-channel, or of another size.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise PictureError(f"{path}: a mask holds class indices (palette or grey), this one is {image.mode}")
            mask = np.array(image.convert("L") if image.mode == "1" else image)
    except FileNotFoundError:
        raise PictureError(f"{path}: no such mask") from None
    except (OSError, SyntaxError) as error:
        raise PictureError(f"{path}: cannot be read as a mask ({error})") from error
    if size is not None and mask.shape != tuple(size):
        found, wanted = (f"{w} x {h}" for h, w in (mask.shape, size))
        raise PictureError(f"{path}: the mask is {found}, its picture {wanted} (width x height)")
    return mask


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask as a palette PNG in VOC's colors, atomically: a killed run leaves no half file.

    Args:
        path: where to; the folder is made if needed.
        mask: ``(H, W)`` uint8 class indices.
    """
    image = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    image.putpalette(palette().ravel().tolist())
    write_atomically(path, lambda file: image.save(file, format="PNG"))


def write_atomically(path: str | Path, write: Callable[[Any], None]) -> None:
    """Call `write` with an open binary file, then move it to `path` in one step.

    Raises:
        OSError: unwritable folder or full disk; the message names `path`, and no half file stays.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def palette() -> np.ndarray:
    """The VOC devkit's color map: ``(256, 3)`` uint8, entry 255 is void's cream white.

    The bits of the index are spread over the three channels, three at a time, from the highest bit down.
    """
    index = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for shift in range(8):
        for channel in range(3):
            bit = (index >> (3 * shift + channel)) & 1 if 3 * shift + channel < 8 else 0
            colors[:, channel] |= np.asarray(bit << (7 - shift), np.uint8)
    return colors


class Pictures(Dataset):
    """Pictures with their image labels, ready for a data loader.

    Items are dicts: ``index`` (int), ``id`` (str), ``image`` (tv_tensors.Image, uint8, ``(3, H, W)``, or what
    `transform` makes of it), ``labels`` (float32 ``(C,)``, 1 where the class is present) and, only with
    ``masks=True``, ``mask`` (tv_tensors.Mask, uint8, ``(H, W)``).

    Args:
        records: the pictures.
        class_names: names of the C classes, without background.
        transform: called with the item's image (and mask, if asked for) jointly.
        masks: read the ground truth too. Off by default: training uses image labels alone.
        seed: base of the transform's randomness. Each item is transformed under its own random state,
            drawn from (seed, epoch, index), so that neither the number of workers nor a resumed run
            changes what a picture looks like in a given epoch.

    Example:
        >>> pictures = minivoc.load("train")  # doctest: +SKIP
        >>> pictures[0]["image"].shape        # doctest: +SKIP
        torch.Size([3, 224, 168])
    """

    def __init__(
        self,
        records: Sequence[Record],
        class_names: Sequence[str],
        transform: Callable[..., Any] | None = None,
        masks: bool = False,
        seed: int = 0,
        keep: bool = False,
    ) -> None:
        self.records = list(records)
        self.class_names = tuple(class_names)
        self.transform = transform
        self.masks = masks
        self.seed = seed
        self.keep = keep
        # Shared memory, so that workers which live for several epochs see the change.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    @property
    def num_classes(self) -> int:
        """C, the number of classes without background."""
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"Pictures({len(self)} pictures, {self.num_classes} classes)"

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random transforms are drawn next."""
        self._epoch[0] = epoch

    def with_transform(self, transform: Callable[..., Any] | None, seed: int = 0, masks: bool = False) -> Pictures:
        """The same pictures under another transform."""
        return Pictures(self.records, self.class_names, transform, masks, seed, self.keep)

    def select(self, ids: Sequence[str]) -> Pictures:
        """The pictures of these ids, in this order.

        Raises:
            KeyError: an id that is not here.
        """
        by_id = {record.id: record for record in self.records}
        missing = [i for i in ids if i not in by_id]
        if missing:
            raise KeyError(f"no picture {missing[0]!r} in {self!r}")
        return self.with_records([by_id[i] for i in ids])

    def with_records(self, records: Sequence[Record]) -> Pictures:
        """Other records, such as the same ones with other masks, under the same settings."""
        return Pictures(records, self.class_names, self.transform, self.masks, self.seed, self.keep)

    def targets(self) -> torch.Tensor:
        """All image labels at once: ``(N, C)`` float32, multi-hot."""
        return torch.stack([self._multi_hot(record) for record in self.records])

    def _multi_hot(self, record: Record) -> torch.Tensor:
        labels = torch.zeros(self.num_classes)
        labels[list(record.labels)] = 1.0
        return labels

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        pixels = _kept(record.image) if self.keep else read_image(record.image)
        inputs = [tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))]
        if self.masks:
            if record.mask is None:
                raise PictureError(f"{record.image}: has no mask, and one was asked for")
            inputs.append(tv_tensors.Mask(torch.from_numpy(read_mask(record.mask, pixels.shape[:2]))))
        if self.transform is not None:
            inputs = self._transformed(index, inputs)
        item = {"index": index, "id": record.id, "image": inputs[0], "labels": self._multi_hot(record)}
        return item | ({"mask": inputs[1]} if self.masks else {})

    def _transformed(self, index: int, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        state = np.random.SeedSequence([self.seed, int(self._epoch[0]), index]).generate_state(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(state[0]))
            out = self.transform(*inputs)
        return list(out) if isinstance(out, tuple | list) else [out]


def subset(pictures: Pictures, limit: int | None) -> Pictures:
    """The first `limit` pictures (all where it is None), for quick looks; say so beside any number."""
    return pictures if limit is None else pictures.select([r.id for r in pictures.records[:limit]])


def without_masks(pictures: Pictures) -> Pictures:
    """The same pictures with the ground truth taken away: proof that a stage cannot peek."""
    return pictures.with_records([replace(r, mask=None, part=None) for r in pictures.records])


@lru_cache(maxsize=1000)
def _kept(path: Path) -> np.ndarray:
    return read_image(path)
