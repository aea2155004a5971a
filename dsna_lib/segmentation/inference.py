"""Masks of pictures without any label: several scales, then a dense CRF."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as pixels
from tqdm import tqdm

from dsna_lib import crf
from dsna_lib.config.annotation import CRFParams, preset
from dsna_lib.config.segmentation import SCALES
from dsna_lib.data.pictures import PictureError, Pictures, read_image, write_mask
from dsna_lib.engine.devices import choose_device, reader_count
from dsna_lib.engine.errors import RunError, SettingError
from dsna_lib.engine.outputs import is_whole
from dsna_lib.engine.pools import Report, Workers, run_shares
from dsna_lib.engine.runs import file_digest
from dsna_lib.engine.sizes import scaled
from dsna_lib.segmentation.networks import SegmentationModel, load

MASK_KINDS = ("single", "multi", "crf")
# A class that is nowhere likelier than this takes no part in the CRF, whose time grows with the number of classes.
PLAUSIBLE = 0.05


def probabilities(
    model: SegmentationModel,
    pictures: Tensor,
    scales: Sequence[float] = SCALES,
    flip: bool = False,
    precision: str = "no",
) -> Tensor:
    """How likely each class is at each pixel, averaged over scales (and the mirror image) at full size.

    Args:
        model: in evaluation mode; it runs on the device where it is.
        pictures: ``(N, 3, H, W)`` uint8, RGB.
        scales: multiples of the pictures' own size.
        flip: show each scale mirrored, too.
        precision: ``"no"`` or ``"bf16"``.

    Returns:
        ``(N, C + 1, H, W)`` float32, sums to 1 over classes.

    Raises:
        RunError: out of memory; the message names the size.
    """
    return _mean(at_scales(model, pictures, scales, flip, precision))


@torch.no_grad()
def at_scales(
    model: SegmentationModel, pictures: Tensor, scales: Sequence[float], flip: bool = False, precision: str = "no"
) -> dict[float, Tensor]:
    """:func:`probabilities` of each scale alone."""
    device, size = next(model.parameters()).device, pictures.shape[-2:]
    pictures = pixels.to_dtype(pictures.to(device), torch.float32, scale=True)
    at = {}
    try:
        for scale in scales:
            # Sides of 8k + 1 pixels (or 16k + 1) put cells on the border, where align_corners expects them.
            sides = [model.stride * max(1, round((scaled(side, scale) - 1) / model.stride)) + 1 for side in size]
            shown = pixels.resize(pictures, sides, antialias=True).contiguous(memory_format=torch.channels_last)
            at[scale] = _shown(model, shown, size, precision)
            if flip:
                mirrored = _shown(model, shown.flip(-1), size, precision).flip(-1)
                at[scale] = (at[scale] + mirrored) / 2
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            said = f"out of memory with {len(pictures)} pictures of {size[1]} x {size[0]}"
            raise RunError(said, "lower `batch_size`, `scales` or `max_side`") from error
        raise
    return at


def _mean(at: dict[float, Tensor]) -> Tensor:
    return torch.stack(list(at.values())).mean(dim=0)


def _shown(model: SegmentationModel, pictures: Tensor, size: Sequence[int], precision: str) -> Tensor:
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(pictures).float()
    return functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=True).softmax(dim=1)


def refined(
    image: np.ndarray,
    probabilities: np.ndarray,
    params: CRFParams | str = "segmentation",
    backend: str = "auto",
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """A mask that follows the picture's edges, ``(H, W)`` uint8: the dense CRF on class probabilities.

    Args:
        image: ``(H, W, 3)`` uint8, raw RGB.
        probabilities: ``(C + 1, H, W)`` in 0..1, any float type. Classes that are nowhere plausible take no part.
        params: parameters or the name of a preset.
        backend, device: see :func:`dsna_lib.crf.choose_backend`.
    """
    likely = np.asarray(probabilities, np.float32)
    plausible = likely.max(axis=(1, 2)) >= min(PLAUSIBLE, 1 / len(likely))
    return crf.refine(image, likely * plausible[:, None, None], params, backend, device)


def segment_split(
    model: SegmentationModel,
    pictures: Pictures,
    folder: str | Path,
    kinds: Iterable[str] = ("crf",),
    scales: Sequence[float] = SCALES,
    flip: bool = False,
    params: CRFParams | str = "segmentation",
    batch_size: int = 1,
    precision: str = "no",
    workers: int = 0,
    backend: str = "auto",
) -> Report:
    """Segment pictures of any size, one palette PNG a picture and kind: ``folder/KIND/ID.png``.

    Neither masks nor labels are read. What is there already is skipped: a killed run goes on at the next picture.

    Args:
        model, pictures, folder: the model runs on the device where it is.
        kinds: of ``single`` (the middle one of `scales`), ``multi`` (all of them), ``crf`` (all, then the dense CRF).
        scales, flip, precision, params: see :func:`probabilities` and :func:`refined`.
        batch_size: pictures read at a time; those of one size share a forward pass.
        workers: processes that read pictures.
        backend: of the CRF, which runs on the model's device, see :func:`dsna_lib.crf.choose_backend`.

    Raises:
        SettingError: an unknown kind, preset or backend.
        ImportError: the CRF was asked for, of pydensecrf, and that is not installed.
    """
    kinds = tuple(kinds)
    if not kinds or not set(kinds) <= set(MASK_KINDS):
        raise SettingError(f"kinds={kinds}: choose from {', '.join(MASK_KINDS)}")
    if "crf" in kinds:
        crf.require(backend)
        params = preset(params)
    files = [{kind: Path(folder) / kind / f"{record.id}.png" for kind in kinds} for record in pictures.records]
    done = [all(is_whole(file) for file in own.values()) for own in files]
    todo = [place for place, whole in enumerate(done) if not whole]
    report = Report(skipped=[record.id for record, whole in zip(pictures.records, done, strict=True) if whole])
    middle = median_low(scales)
    shown = (middle,) if set(kinds) == {"single"} else scales
    bar = tqdm(total=len(todo), leave=False, disable=None, unit="picture")
    for images, places in _of_one_size(pictures, todo, batch_size, workers, report):
        at = at_scales(model, images, shown, flip, precision)
        likely = {"single": at[middle], "multi": _mean(at)}
        for k, place in enumerate(places):
            for kind, file in files[place].items():
                if kind == "crf":
                    raw = images[k].permute(1, 2, 0).contiguous().numpy()
                    mask = refined(raw, likely["multi"][k].cpu().numpy(), params, backend, likely["multi"].device)
                else:
                    mask = likely[kind][k].argmax(dim=0).cpu().numpy()
                write_mask(file, mask)
            report.written.append(pictures.records[place].id)
            bar.update()
    return report


def segment_shares(
    model: str | Path, pictures: Pictures, folder: str | Path, pool: Workers, device: str = "auto", **how: Any
) -> Report:
    """:func:`segment_split` by several processes or a cluster, each of which reads the model's file.

    Args:
        model: the file.
        pictures, folder, how: the other arguments of :func:`segment_split`.
        pool: who does it; each process needs the network's memory, and 0.5 GB for the CRF.
        device: see :func:`dsna_lib.engine.devices.choose_device`.
    """
    work = partial(_segment_share, Path(model), pictures, Path(folder), device, how)
    return run_shares(len(pictures), work, pool, how.get("batch_size", 1))


def _segment_share(
    model: Path, pictures: Pictures, folder: Path, device: str, how: dict[str, Any], places: range
) -> Report:
    share = pictures.with_records(pictures.records[places.start : places.stop])
    return segment_split(_loaded(model, file_digest(model), device), share, folder, **how)


@lru_cache(maxsize=1)
def _loaded(path: Path, digest: str, device: str) -> SegmentationModel:
    """Read once a process, as long as the file stays the same."""
    return load(path).to(choose_device(device))


class _Images(torch.utils.data.Dataset):
    """Pictures as they are, or why one cannot be read."""

    def __init__(self, pictures: Pictures) -> None:
        self.paths = [record.image for record in pictures.records]

    def __getitem__(self, place: int) -> tuple[int, Tensor | str]:
        try:
            return place, torch.from_numpy(read_image(self.paths[place])).permute(2, 0, 1)
        except PictureError as error:
            return place, str(error)


def _of_one_size(
    pictures: Pictures, todo: list[int], batch_size: int, workers: int, report: Report
) -> Iterator[tuple[Tensor, list[int]]]:
    """Pictures ``(n, 3, H, W)`` of one size each time, n at most `batch_size`, and their places."""

    def size_of(item: tuple[int, Tensor]) -> tuple[int, ...]:
        return tuple(item[1].shape)

    loader = torch.utils.data.DataLoader(
        _Images(pictures), sampler=todo, batch_size=batch_size, num_workers=reader_count(workers), collate_fn=list
    )
    for items in loader:
        report.failed |= {pictures.records[place].id: why for place, why in items if isinstance(why, str)}
        readable = [item for item in items if not isinstance(item[1], str)]
        for _, group in groupby(sorted(readable, key=size_of), key=size_of):
            places, images = zip(*group, strict=True)
            yield torch.stack(images), list(places)
