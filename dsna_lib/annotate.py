"""Pseudo-annotations from attention maps (Sec. III-C of the paper).

Each present class's map, scaled to 0..1, becomes foreground above 0.2; the channel sum of the features,
scaled likewise, becomes background below 0.3 (background cue after Saleh et al., ECCV 2016); where several
classes claim a pixel, the smallest region wins; what nobody claims is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.data.pictures import VOID, PictureError, Pictures, Record, read_mask, write_mask
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.outputs import is_whole
from dsna_lib.engine.pools import ALONE, Report, Workers, over_shares
from dsna_lib.maps import MAP_KINDS, MapMaker, attention_maps, iterate_maps
from dsna_lib.metrics import ConfusionMatrix

FOREGROUND_THRESHOLD = AnnotationConfig.foreground_threshold
BACKGROUND_THRESHOLD = AnnotationConfig.background_threshold


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
    if not labels:
        raise ValueError("labels is empty: a pseudo-annotation needs at least one class that is present")
    return annotate_labeled(maps, features, labels, size, foreground_threshold, background_threshold, upsample_first)


def annotate_labeled(
    maps: Tensor,
    features: Tensor,
    labels: Sequence[int],
    size: tuple[int, int],
    foreground_threshold: float = FOREGROUND_THRESHOLD,
    background_threshold: float = BACKGROUND_THRESHOLD,
    upsample_first: bool = True,
) -> Tensor:
    """As :func:`pseudo_annotation`, for pictures of a data set: one without any label is background everywhere."""
    labels = sorted(set(labels))
    planes = cues(maps, features, labels, size if upsample_first else maps.shape[-2:])
    annotation = combine(*regions(planes, foreground_threshold, background_threshold), labels)
    return annotation if upsample_first else resize(annotation[None], size, "nearest")[0]


class Cues(NamedTuple):
    """What thresholds are applied to: the maps of the K classes present and the background cue, with their ranges."""

    planes: Tensor  #: ``(K + 1, H, W)``, the last one the channel sum of the features
    low: Tensor  #: ``(K + 1, 1, 1)`` lowest values
    high: Tensor  #: ``(K + 1, 1, 1)`` highest values
    #: ``(K + 1, 1, 1)`` bool; a constant plane says nothing: min-max would only blow up the rounding errors left in it
    varied: Tensor


def cues(maps: Tensor, features: Tensor, labels: Sequence[int], size: Sequence[int]) -> Cues:
    """The maps of the classes present and the background cue, at a size; arguments as in :func:`pseudo_annotation`."""
    if maps.ndim != 3 or features.ndim != 3 or maps.shape[-2:] != features.shape[-2:]:
        given = f"maps {tuple(maps.shape)} and features {tuple(features.shape)}"
        raise ValueError(f"{given} must be (C, h, w) and (D, h, w)")
    if outside := [label for label in labels if not 0 <= label < len(maps)]:
        raise ValueError(f"label {outside[0]} is none of the {len(maps)} classes (0 to {len(maps) - 1})")
    small = torch.cat([maps[list(labels)], features.sum(dim=0, keepdim=True)])
    low, high = _range(small)
    varied = high - low > 100 * torch.finfo(small.dtype).eps * torch.maximum(high.abs(), low.abs())
    planes = resize(small, size)
    return Cues(planes, *_range(planes), varied)


def _range(planes: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value of each plane, ``(K, 1, 1)``."""
    return planes.amin(dim=(-2, -1), keepdim=True), planes.amax(dim=(-2, -1), keepdim=True)


def regions(cues: Cues, foreground_threshold: float, background_threshold: float) -> tuple[Tensor, Tensor]:
    """What each of the K classes claims ``(K, H, W)`` and where the background is ``(H, W)``, both bool."""
    # min_max(planes) > t, without writing the scaled planes: low + t (high - low) is where t lies in a plane's range.
    planes, low, high, varied = cues
    foreground = (planes[:-1] > (low + foreground_threshold * (high - low))[:-1]) & varied[:-1]
    background = (planes[-1] < (low + background_threshold * (high - low))[-1]) & varied[-1]
    return foreground, background


def combine(foreground: Tensor, background: Tensor, labels: Sequence[int]) -> Tensor:
    """Hard labels from :func:`regions`: foreground beats background, the smallest region beats larger ones.

    Returns:
        ``(H, W)`` uint8: 0 background, label + 1 for the K 0-based `labels`, 255 where nobody claims. Without any
        label all is background.
    """
    annotation = torch.full_like(background, VOID if labels else 0, dtype=torch.uint8)
    annotation[background] = 0
    # Painted from the largest region to the smallest, the smallest stays on top.
    areas = foreground.sum(dim=(-2, -1)).tolist()
    for place in sorted(range(len(labels)), key=lambda k: -areas[k]):
        annotation[foreground[place]] = labels[place] + 1
    return annotation


def resize(planes: Tensor, size: Sequence[int], mode: str = "bilinear") -> Tensor:
    """Resize planes ``(K, h, w)`` to ``(K, *size)``; mode ``"bilinear"`` or ``"nearest"``."""
    return functional.interpolate(planes[None], size=tuple(size), mode=mode)[0]


def annotate_split(
    model: nn.Module,
    pictures: Pictures,
    folder: str | Path,
    kinds: Iterable[str] = ("merged",),
    size: int = 224,
    batch_size: int = 16,
    precision: str = "no",
    workers: int = 0,
    maker: MapMaker = attention_maps,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    foreground_threshold: float = FOREGROUND_THRESHOLD,
    background_threshold: float = BACKGROUND_THRESHOLD,
) -> Report:
    """Annotate pictures from their image labels, one palette PNG a picture and kind: ``folder/KIND/ID.png``.

    What is there already is skipped, so a killed run goes on where it stopped, with the very same batches.

    Args:
        model: an attention model; it runs on the device where it is.
        pictures: with image labels; masks are not read. One without any label is background everywhere.
        kinds: of ``expansive``, ``discriminative``, ``merged``; with another `maker`, of the kinds that it makes.
        size, batch_size, precision, workers, maker, scales, flip: see :func:`dsna_lib.maps.iterate_maps`; for the
            thresholds, see :func:`pseudo_annotation`.

    Raises:
        SettingError: an unknown kind.
    """
    kinds, report, thresholds = tuple(kinds), Report(), (foreground_threshold, background_threshold)
    unknown = [kind for kind in kinds if kind not in MAP_KINDS]
    if unknown and maker is attention_maps:
        raise SettingError(f"unknown kind of map {unknown[0]!r}; choose from {', '.join(MAP_KINDS)}")
    files = [{kind: Path(folder) / kind / f"{record.id}.png" for kind in kinds} for record in pictures.records]
    todo: list[int] = []
    for start in range(0, len(pictures), batch_size):
        batch = range(start, min(start + batch_size, len(pictures)))
        if all(is_whole(file) for place in batch for file in files[place].values()):
            report.skipped += [pictures.records[place].id for place in batch]
        else:
            todo += batch
    views: dict[str, Any] = {"scales": scales, "flip": flip}
    made = iterate_maps(model, pictures, todo, size, batch_size, precision, workers, report.failed, maker, **views)
    for picture in tqdm(made, total=len(todo), leave=False, disable=None, unit="picture"):
        record = pictures.records[picture.index]
        absent = {kind: file for kind, file in files[picture.index].items() if not is_whole(file)}
        try:
            for kind, file in absent.items():
                planes = picture.maps.get(kind)
                if planes is None:
                    raise ValueError(f"this model has no {kind} map, only {', '.join(picture.maps)}")
                given = planes, picture.features, record.labels, picture.size
                write_mask(file, annotate_labeled(*given, *thresholds).cpu().numpy())
            (report.written if absent else report.skipped).append(record.id)
        except ValueError as error:
            report.failed[record.id] = str(error)
    return report


def evaluate(
    folder: str | Path, pictures: Pictures, void: str = "false_negative", workers: Workers = ALONE
) -> ConfusionMatrix:
    """Hold annotations against the ground truth: one confusion matrix over the whole split, background included.

    Args:
        folder: with ``ID.png`` for every picture.
        pictures: with masks.
        void, workers: policy, see :class:`dsna_lib.metrics.ConfusionMatrix`, and who counts.

    Raises:
        PictureError: a mask or an annotation is missing, of another size, or holds an unknown class.
    """
    matrix = ConfusionMatrix(pictures.num_classes + 1, void)
    count = partial(_count_share, pictures.records, matrix.num_classes, Path(folder))
    for counts in over_shares(len(pictures), count, workers):
        matrix.merge(counts)
    return matrix


def _count_share(records: Sequence[Record], num_classes: int, folder: Path, places: range) -> ConfusionMatrix:
    matrix = ConfusionMatrix(num_classes)
    for record in records[places.start : places.stop]:
        if record.mask is None:
            raise PictureError(f"{record.image} has no ground-truth mask to evaluate against")
        target, path = read_mask(record.mask), folder / f"{record.id}.png"
        prediction = read_mask(path, target.shape)
        try:
            matrix.update(prediction, target)
        except ValueError as error:
            raise PictureError(f"{path} against {record.mask}: {error}") from error
    return matrix
