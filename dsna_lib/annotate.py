"""Pseudo-annotations from attention maps (Sec. III-C of the paper).

Each present class's map, scaled to 0..1, becomes foreground above 0.2; the channel sum of the features,
scaled likewise, becomes background below 0.3 (background cue after Saleh et al., ECCV 2016); where several
classes claim a pixel, the smallest region wins; what nobody claims is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from dsna_lib import maps as attention_maps
from dsna_lib.data.pictures import VOID, Pictures, Record, read_mask, write_mask
from dsna_lib.metrics import ConfusionMatrix

FOREGROUND_THRESHOLD = 0.2
BACKGROUND_THRESHOLD = 0.3


def pseudo_annotation(
    maps: Tensor,
    features: Tensor,
    labels: Sequence[int],
    size: tuple[int, int],
    foreground_threshold: float = FOREGROUND_THRESHOLD,
    background_threshold: float = BACKGROUND_THRESHOLD,
    upsample_first: bool = True,
) -> Tensor:
    """Turn the maps of one picture into hard labels.

    Args:
        maps: ``(C, h, w)`` attention maps of any kind and range.
        features: ``(D, h, w)`` the backbone's features (or their channel sum, ``(1, h, w)``).
        labels: 0-based indices of the classes present, without background.
        size: ``(height, width)`` of the annotation in pixels, the picture's own.
        foreground_threshold: a map value above it, in 0..1, is foreground.
        background_threshold: a feature sum below it, in 0..1, is background.
        upsample_first: resize bilinearly, then scale and threshold (default); False thresholds the small
            maps and resizes the result by nearest neighbor.

    Returns:
        ``(H, W)`` uint8 on the maps' device: 0 background, 1..C classes (label + 1), 255 void.

    Raises:
        ValueError: no labels, a label outside 0..C-1, or shapes that do not fit.

    Example:
        >>> pseudo_annotation(torch.rand(20, 14, 14), torch.rand(512, 14, 14), [7], (300, 451)).shape
        torch.Size([300, 451])
    """
    labels = sorted(set(labels))
    found = cues(maps, features, labels, size if upsample_first else maps.shape[-2:])
    annotation = combine(*regions(found, foreground_threshold, background_threshold), labels)
    return annotation if upsample_first else resize(annotation[None], size, "nearest")[0]


class Cues(NamedTuple):
    """What thresholds are applied to.

    Attributes:
        planes: ``(K + 1, H, W)`` the maps of the K classes present, and the channel sum of the features.
        low, high: ``(K + 1, 1, 1)`` their ranges.
        varied: ``(K + 1, 1, 1)`` bool: a constant plane says nothing; min-max would only blow up the rounding errors
            that summing and resizing left in it.
    """

    planes: Tensor
    low: Tensor
    high: Tensor
    varied: Tensor


def cues(maps: Tensor, features: Tensor, labels: Sequence[int], size: tuple[int, int]) -> Cues:
    """The maps of the classes present and the background cue, at a size; arguments as in :func:`pseudo_annotation`."""
    labels = list(labels)
    _check(maps, features, labels)
    planes = torch.cat([maps[labels], features.sum(dim=0, keepdim=True)])
    varied = _varies(planes)
    planes = resize(planes, size)
    return Cues(planes, planes.amin(dim=(-2, -1), keepdim=True), planes.amax(dim=(-2, -1), keepdim=True), varied)


def regions(found: Cues, foreground_threshold: float, background_threshold: float) -> tuple[Tensor, Tensor]:
    """What each class claims ``(K, H, W)`` and where the background is ``(H, W)``, both bool."""
    # min_max(planes) > t, without writing the scaled planes: low + t (high - low) is where t lies in a plane's range.
    planes, low, high, varied = found
    foreground = (planes[:-1] > (low + foreground_threshold * (high - low))[:-1]) & varied[:-1]
    background = (planes[-1] < (low + background_threshold * (high - low))[-1]) & varied[-1]
    return foreground, background


def combine(foreground: Tensor, background: Tensor, labels: Sequence[int]) -> Tensor:
    """Hard labels from regions: foreground beats background, the smallest region beats larger ones.

    Args:
        foreground: ``(K, H, W)`` bool, what each class claims.
        background: ``(H, W)`` bool.
        labels: the K classes, 0-based.

    Returns:
        ``(H, W)`` uint8: 0 background, label + 1, 255 where nobody claims.
    """
    annotation = torch.full_like(background, VOID, dtype=torch.uint8)
    annotation[background] = 0
    # Painted from the largest region to the smallest, the smallest stays on top.
    areas = foreground.sum(dim=(-2, -1)).tolist()
    for place in sorted(range(len(labels)), key=lambda k: -areas[k]):
        annotation[foreground[place]] = labels[place] + 1
    return annotation


def _check(maps: Tensor, features: Tensor, labels: Sequence[int]) -> None:
    if not labels:
        raise ValueError("labels is empty: a pseudo-annotation needs at least one class that is present")
    if maps.ndim != 3 or features.ndim != 3 or maps.shape[-2:] != features.shape[-2:]:
        raise ValueError(
            f"maps {tuple(maps.shape)} and features {tuple(features.shape)} must be (C, h, w) and (D, h, w)"
        )
    outside = [k for k in labels if not 0 <= k < len(maps)]
    if outside:
        raise ValueError(f"label {outside[0]} is none of the {len(maps)} classes (0 to {len(maps) - 1})")


def _varies(planes: Tensor) -> Tensor:
    """Which planes are not constant, ``(K, 1, 1)``."""
    low, high = planes.amin(dim=(-2, -1), keepdim=True), planes.amax(dim=(-2, -1), keepdim=True)
    return high - low > 100 * torch.finfo(planes.dtype).eps * torch.maximum(high.abs(), low.abs())


def resize(planes: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resize planes ``(K, h, w)`` to ``(K, *size)``; mode ``"bilinear"`` or ``"nearest"``."""
    options = {"align_corners": False} if mode == "bilinear" else {}
    return functional.interpolate(planes[None], size=size, mode=mode, **options)[0]


@dataclass
class Report:
    """What became of the pictures of a split.

    Attributes:
        written: ids annotated in this run.
        skipped: ids that were there already.
        failed: id to reason.
    """

    written: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def annotate_split(
    model: nn.Module,
    pictures: Pictures,
    folder: str | Path,
    kinds: Iterable[str] = ("merged",),
    size: int = 224,
    batch_size: int = 16,
    precision: str = "no",
    workers: int = 0,
    process: int = 0,
    processes: int = 1,
    look: attention_maps.Look = attention_maps.attend,
) -> Report:
    """Annotate a split from its image labels, one palette PNG a picture and kind: ``folder/KIND/ID.png``.

    What is there already is skipped, so a killed run goes on where it stopped. Pictures are dealt out to
    processes in whole batches, so that every process count computes the very same batches.

    Args:
        model: an attention model; it runs on the device where it is.
        pictures: with image labels; masks are not read.
        folder: where to.
        kinds: of ``expansive``, ``discriminative``, ``merged``; with another `look`, of the kinds that it makes.
        size, batch_size, precision, workers: see :func:`dsna_lib.maps.compute`.
        process, processes: this process's rank, and how many there are.
        look: see :func:`dsna_lib.maps.compute`; such as :func:`dsna_lib.cams.look` for other methods' maps.

    Returns:
        This process's share of the report.
    """
    kinds, report = tuple(kinds), Report()
    unknown = [kind for kind in kinds if kind not in attention_maps.KINDS]
    if unknown and look is attention_maps.attend:
        raise ValueError(f"unknown kind of map {unknown[0]!r}; choose from {', '.join(attention_maps.KINDS)}")
    path = {(i, k): Path(folder) / k / f"{r.id}.png" for i, r in enumerate(pictures.records) for k in kinds}
    todo = []
    for start in range(process * batch_size, len(pictures), processes * batch_size):
        batch = range(start, min(start + batch_size, len(pictures)))
        if all(path[i, k].is_file() for i in batch for k in kinds):
            report.skipped += [pictures.records[i].id for i in batch]
        else:
            todo += batch
    found = attention_maps.compute(model, pictures, todo, size, batch_size, precision, workers, report.failed, look)
    for picture in tqdm(found, total=len(todo), leave=False, disable=None, unit="picture"):
        record = pictures.records[picture.index]
        absent = [kind for kind in kinds if not path[picture.index, kind].is_file()]
        try:
            for kind in absent:
                write_mask(path[picture.index, kind], _annotate(picture, kind, record))
            (report.written if absent else report.skipped).append(record.id)
        except ValueError as error:
            report.failed[record.id] = str(error)
    return report


def _annotate(picture: attention_maps.PictureMaps, kind: str, record: Record) -> np.ndarray:
    if kind not in picture.maps:
        raise ValueError(f"this model has no {kind} map, only {', '.join(picture.maps)}")
    return pseudo_annotation(picture.maps[kind], picture.features, record.labels, picture.size).cpu().numpy()


def evaluate(folder: str | Path, pictures: Pictures, void: str = "false_negative") -> ConfusionMatrix:
    """Hold a folder of annotations against the ground truth.

    Args:
        folder: with ``ID.png`` for every picture.
        pictures: with masks.
        void: policy, see :class:`dsna_lib.metrics.ConfusionMatrix`.

    Returns:
        One confusion matrix over the whole split, background included.

    Raises:
        PictureError: an annotation or mask is missing or of another size.
        ValueError: pictures without masks.
    """
    matrix = ConfusionMatrix(pictures.num_classes + 1, void=void)
    for record in pictures.records:
        if record.mask is None:
            raise ValueError(f"{record.image} has no ground-truth mask to evaluate against")
        target, path = read_mask(record.mask), Path(folder) / f"{record.id}.png"
        prediction = read_mask(path, target.shape)
        try:
            matrix.update(prediction, target)
        except ValueError as error:
            raise ValueError(f"{path} against {record.mask}: {error}") from error
    return matrix
