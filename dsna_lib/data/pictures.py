"""Pictures with image labels, and sometimes masks: what every data set here is made of."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset
from torchvision import tv_tensors

from dsna_lib.engine.errors import DsnaError, first_few
from dsna_lib.engine.files import leads_out, refuse_special, write_atomically

VOID = 255
MOST_CLASSES = VOID - 1  # that masks can hold, beside background


class DataError(DsnaError, ValueError):
    """A data set that cannot be used; the message names the file or folder, and the rows of a table."""


class PictureError(DsnaError, ValueError):
    """A picture or mask that cannot be used; the message names the file and says why."""


def checked_names(names: Any, where: object) -> tuple[str, ...]:
    """The names of classes, without background, as a tuple.

    Raises:
        DataError: about `where`: no list of different names, or more of them than masks can hold.
    """
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) and name.strip() for name in names)
    if not listed or not names or len(set(names)) < len(names):
        raise DataError(f"{where} must be a list of different names, not {reprlib.repr(names)}")
    if len(names) > MOST_CLASSES:
        said = f"{where} has {len(names)} classes, and masks hold {MOST_CLASSES} (0 is background, {VOID} void)"
        raise DataError(said, "leave some out")
    return tuple(names)


@dataclass(frozen=True)
class Record:
    """One picture on disk. What is made of it is named after its id, so that this must not lead out of a folder.

    Raises:
        DataError: an id that is absolute or empty, or goes up; the message names the file.
    """

    id: str  #: name of the picture without folder and suffix
    image: Path  #: the picture's file
    labels: tuple[int, ...]  #: 0-based indices of the classes present, sorted, without background
    mask: Path | None = None  #: the ground-truth mask's file, if there is one; training never reads it
    part: Path | None = None  #: the discriminative parts' mask (embedded data only)

    def __post_init__(self) -> None:
        if leads_out(self.id):
            said = f"{self.image}: what is named after its id {self.id!r} would lie outside its folder"
            raise DataError(said, "rename it")


def read_image(path: str | Path) -> np.ndarray:
    """Read any picture (grey, palette, 16-bit, CMYK, transparent) as 8-bit RGB ``(H, W, 3)`` uint8, upright.

    Raises:
        PictureError: the file is missing, truncated, too large or no picture.

    Example:
        >>> read_image("cat.jpg").shape  # doctest: +SKIP
        (300, 451, 3)
    """
    with _opened(path, "picture") as file:
        file.load()
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.mode.startswith(("I;16", "I", "F")):
            return np.repeat(_to_8_bit(np.asarray(image))[..., None], 3, axis=2)
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.array(image.convert("RGB"))


@contextmanager
def _opened(path: str | Path, kind: str) -> Iterator[Image.Image]:
    """An open picture or mask; what goes wrong with it, there or later, is one sentence that names the file."""
    refuse_special(path, PictureError)
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise PictureError(f"{path}: no such {kind}") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow warns at half of it
        raise PictureError(f"{path}: over {limit / 1e6:.0f} megapixels; scale it down first") from None
    except (OSError, SyntaxError, ValueError, NotImplementedError) as error:  # all of them Pillow's
        raise PictureError(f"{path}: cannot be read as a {kind} ({error}); is it truncated?") from error


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Scale by the range that the values seem to be of: 0..1 (floats), 0..255, 0..65535, or up to the maximum."""
    highest = float(values.max(initial=0))
    tops = [top for top in (1.0, 255.0, 65535.0) if highest <= top and (top > 1 or values.dtype.kind == "f")]
    scaled = values.astype(np.float64) * 255.0 / (tops[0] if tops else highest)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def read_mask(path: str | Path, size: tuple[int, int] | None = None, num_classes: int = MOST_CLASSES) -> np.ndarray:
    """Read a mask of class indices ``(H, W)`` uint8: 0 background, 1..C classes, 255 void.

    Args:
        path: a palette or grey PNG, or an RGB one in VOC's colors, see :func:`palette`.
        size: the ``(height, width)`` it must have, usually its picture's.
        num_classes: C; by default as many as a mask can hold.

    Raises:
        PictureError: missing, of another kind or size, or with a color that is no class or a class beyond the C.
    """
    with _opened(path, "mask") as image:
        # Pillow spreads the greys of a PNG of 2 or 4 bits over 0..255; the indices are what the file holds.
        stored = [tile[3] for tile in getattr(image, "tile", [])] if image.format == "PNG" else []
        step = 85 if "L;2" in stored else 17 if "L;4" in stored else 1
        mode, mask = image.mode, np.array(image)
    if mode not in ("P", "L", "1", "RGB"):
        raise PictureError(f"{path}: a mask holds class indices (palette or grey) or VOC's colors, this one is {mode}")
    mask = _class_of_colors(path, mask) if mode == "RGB" else mask.astype(np.uint8) // step
    if size is not None and mask.shape != tuple(size):
        its, wanted = (f"{w} x {h}" for h, w in (mask.shape, size))
        raise PictureError(f"{path}: the mask is {its}, its picture {wanted} (width x height)")
    strange = mask[(mask > num_classes) & (mask != VOID)]
    if strange.size:
        raise PictureError(f"{path}: holds class {strange[0]}, the data knows 0 to {num_classes}")
    return mask


def _class_of_colors(path: str | Path, colors: np.ndarray) -> np.ndarray:
    """The class indices ``(H, W)`` of a mask in VOC's colors ``(H, W, 3)``."""
    known, (found, places) = _packed(palette()), np.unique(_packed(colors), return_inverse=True)
    if len(strange := np.setdiff1d(found, known)):
        named = first_few([f"#{color:06x}" for color in strange])
        said = f"{path}: holds colors that are no class of VOC's palette, {named}"
        raise PictureError(said, "save it as class indices, or unsmoothed and uncompressed (as PNG) in VOC's colors")
    order = np.argsort(known)
    return order[np.searchsorted(known, found, sorter=order)].astype(np.uint8)[places].reshape(colors.shape[:2])


def _packed(colors: np.ndarray) -> np.ndarray:
    """Colors ``(..., 3)`` as one number each."""
    return colors @ np.array([1 << 16, 1 << 8, 1])


def write_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write a mask ``(H, W)`` of class indices as a palette PNG in VOC's colors, atomically, with its folder."""
    image = Image.fromarray(np.asarray(mask, dtype=np.uint8))
    image.putpalette(palette().ravel().tolist())
    write_atomically(path, lambda file: image.save(file, format="PNG"))


def palette() -> np.ndarray:
    """The VOC devkit's color map: ``(256, 3)`` uint8, entry 255 is void's cream white."""
    # Bits 0, 3 and 6 of an index are the highest bits of its red, bits 1, 4 and 7 of its green, 2 and 5 of its blue.
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    by_channel = np.pad(bits, ((0, 0), (0, 1))).reshape(256, 3, 3)
    return np.array([128, 64, 32], np.uint8) @ by_channel


@dataclass(eq=False, repr=False)
class Pictures(Dataset):
    """Pictures with their image labels, ready for a data loader.

    Items are dicts: ``index``, ``id``, ``image`` (tv_tensors.Image, ``(3, H, W)`` uint8, or what `transform` makes of
    it), ``labels`` (``(C,)`` float32, multi-hot) and, only with `masks`, ``mask`` (tv_tensors.Mask, ``(H, W)`` uint8).

    Args:
        records: the pictures.
        class_names: names of the C classes, without background.
        transform: called with the item's image (and mask, if asked for) jointly.
        masks: read the ground truth too. Off by default: training uses image labels alone.
        seed: of the transforms. Each item has a random state of its own, drawn from (seed, epoch, index): neither the
            number of workers nor a resumed run changes what it looks like.
        keep: hold what was read in memory; for small pictures.

    Example:
        >>> minivoc.load("train")[0]["image"].shape  # doctest: +SKIP
        torch.Size([3, 224, 168])
    """

    records: list[Record]
    class_names: tuple[str, ...]
    transform: Callable[..., Any] | None = None
    masks: bool = False
    seed: int = 0
    keep: bool = False

    def __post_init__(self) -> None:
        self.records, self.class_names = list(self.records), tuple(self.class_names)
        if self.class_names:
            checked_names(self.class_names, "`class_names`")
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

    @property
    def epoch(self) -> int:
        """The epoch whose random transforms are drawn."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose random transforms are drawn next."""
        self._epoch[0] = epoch

    def with_transform(self, transform: Callable[..., Any] | None, seed: int = 0, masks: bool = False) -> Pictures:
        """The same pictures under another transform."""
        return replace(self, transform=transform, seed=seed, masks=masks)

    def with_records(self, records: Sequence[Record]) -> Pictures:
        """Other records, such as the same ones with other masks, under the same settings."""
        return replace(self, records=list(records))

    def select(self, ids: Sequence[str]) -> Pictures:
        """The pictures of these ids, in this order; a KeyError names one that is not here."""
        by_id = {record.id: record for record in self.records}
        if missing := [i for i in ids if i not in by_id]:
            raise KeyError(f"no picture {missing[0]!r} in {self!r}")
        return self.with_records([by_id[i] for i in ids])

    def targets(self) -> torch.Tensor:
        """All image labels at once: ``(N, C)`` float32, multi-hot."""
        return torch.stack([self._multi_hot(record) for record in self.records])

    def _multi_hot(self, record: Record) -> torch.Tensor:
        labels = torch.zeros(self.num_classes)
        labels[list(record.labels)] = 1.0
        return labels

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.records[index]
        if self.keep and record.image.is_file():
            pixels = _kept(record.image, record.image.stat().st_mtime_ns)
        else:
            pixels = read_image(record.image)
        inputs = [tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1))]
        if self.masks:
            if record.mask is None:
                raise PictureError(f"{record.image}: has no mask, and one was asked for")
            mask = read_mask(record.mask, pixels.shape[:2], self.num_classes)
            inputs.append(tv_tensors.Mask(torch.from_numpy(mask)))
        if self.transform is not None:
            state = np.random.SeedSequence([self.seed, self.epoch, index]).generate_state(1)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(state[0]))
                transformed = self.transform(*inputs)
            inputs = list(transformed) if isinstance(transformed, tuple | list) else [transformed]
        item = {"index": index, "id": record.id, "image": inputs[0], "labels": self._multi_hot(record)}
        return item | ({"mask": inputs[1]} if self.masks else {})


def subset(pictures: Pictures, limit: int | None) -> Pictures:
    """The first `limit` pictures (all where it is None), for quick looks; say so beside any number."""
    return pictures if limit is None else pictures.with_records(pictures.records[:limit])


def without_masks(pictures: Pictures) -> Pictures:
    """The same pictures with the ground truth taken away: proof that a stage cannot peek."""
    return pictures.with_records([replace(r, mask=None, part=None) for r in pictures.records])


@lru_cache(maxsize=1000)
def _kept(path: Path, changed: int) -> np.ndarray:
    return read_image(path)
