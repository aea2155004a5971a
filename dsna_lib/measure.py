r"""What is measured of a trained model's maps, in one pass over a split (Sec. IV-B of the paper).

A :class:`Reading` is one way to get annotations out of a model: which map, how it is scaled, at which scales the
picture is shown, in which order it is enlarged and thresholded. The paper leaves some of that open; every reading
of one model is measured on the same pictures, so that two rows of a table differ in that reading alone.

For each reading: a confusion matrix of every picture (from which precision, recall and IoU follow under any void
policy, for any subset of pictures); the same summed over pictures for many foreground thresholds; and, for each
object class in each picture, how much of it the thresholded map covers. Annotations are made with the true image
labels of the pictures, without a CRF.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsna_lib import annotate, cams, maps
from dsna_lib.attention import AttentionModel, AttentionOutput
from dsna_lib.data import Pictures, Record, read_mask
from dsna_lib.data.pictures import write_atomically
from dsna_lib.metrics import ConfusionMatrix, average_precision

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))

# An output and the classes present (N, C) bool -> maps (N, C, h, w).
MapOf = Callable[[AttentionOutput, Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """One way to read annotations off a model.

    Attributes:
        map: a key of :data:`MAPS`, or of :data:`dsna_lib.cams.METHODS`.
        upsample_first: see :func:`dsna_lib.annotate.pseudo_annotation`.
        scales: the picture is shown at these multiples of the input size, and the maps are averaged.
    """

    map: str = "merged"
    upsample_first: bool = True
    scales: tuple[float, ...] = (1.0,)


def _kind(name: str) -> MapOf:
    return lambda output, present: maps.from_output(output)[name]


def _weighted(weight_of: Callable[[Tensor], Tensor]) -> MapOf:
    """Eq. 11 with another weight than the softmax of the scores."""

    def blend(output: AttentionOutput, present: Tensor) -> Tensor:
        weight = weight_of(output.scores.float())[..., None, None]
        kinds = maps.from_output(output)
        return weight * kinds["expansive"] + (1 - weight) * kinds["discriminative"]

    return blend


def _raw(output: AttentionOutput) -> tuple[Tensor, Tensor, Tensor]:
    return output.expansive.float(), output.discriminative.float(), output.scores.float()


def _maximum(output: AttentionOutput, present: Tensor) -> Tensor:
    kinds = maps.from_output(output)
    return torch.maximum(kinds["expansive"], kinds["discriminative"])


MAPS: dict[str, MapOf] = {
    **{kind: _kind(kind) for kind in maps.KINDS},
    "discriminative, min-max": lambda output, present: maps.min_max(output.discriminative.float()),
    "merged, min-max": lambda output, present: maps.merge(*_raw(output), normalize_discriminative=maps.min_max),
    "merged, present": lambda output, present: maps.merge(*_raw(output), present),
    "merged, sigmoid": _weighted(torch.sigmoid),
    "mean": _weighted(lambda scores: torch.full_like(scores, 0.5)),
    "maximum": _maximum,
    "product": lambda output, present: maps.min_max(output.expansive.float() * output.discriminative.float().relu()),
}


@dataclass
class Measurement:
    """What :func:`measure` found on N pictures with C classes.

    Attributes:
        counts: reading to ``(N, C + 1, C + 2)``: confusion counts of each picture, as in
            :class:`~dsna_lib.metrics.ConfusionMatrix`.
        curves: reading to ``(len(THRESHOLDS), C + 1, C + 2)``: counts of all pictures at each foreground threshold;
            for the plain readings only, those of one scale whose map is a method's own.
        coverage: likewise ``(K, 3)``: which share of a class's telling part, of the rest of it, and of the whole the
            map covers above the paper's threshold; one row for each of the K pairs of a picture and a class that it
            shows. NaN where there is none (photographs have no part masks).
        area: ``(K,)`` the class's share of its picture, in 0..1.
        weight: ``(K,)`` p-hat of Eq. 11.
        mean_average_precision: of the classifier, in 0..1.
    """

    counts: dict[Reading, np.ndarray]
    curves: dict[Reading, np.ndarray]
    coverage: dict[Reading, np.ndarray]
    area: np.ndarray
    weight: np.ndarray
    mean_average_precision: float

    def scores(self, reading: Reading, void: str = "false_negative") -> dict[str, float]:
        """The measures of a table's row, in percent.

        Args:
            reading: one that was measured.
            void: policy, see :class:`~dsna_lib.metrics.ConfusionMatrix`.

        Returns:
            ``precision``, ``recall`` and ``iou``, means over classes with background; ``part``, ``rest`` and
            ``whole``, the mean coverage; ``oracle_iou`` and ``oracle_threshold`` (0..1): IoU at the threshold that
            is best for *these* pictures' ground truth. No method may choose it so; it bounds what one could gain.
            The last five of plain readings only.
        """
        scores = matrix_of(self.counts[reading].sum(axis=0), void).summary()
        if reading not in self.curves:
            return scores
        means = [_mean(column) for column in self.coverage[reading].T]
        curve = [100 * matrix_of(counts, void).mean_iou for counts in self.curves[reading]]
        best = int(np.nanargmax(curve))
        return {
            **scores,
            **{name: round(100 * value, 2) for name, value in zip(("part", "rest", "whole"), means, strict=True)},
            "oracle_iou": round(curve[best], 2),
            "oracle_threshold": THRESHOLDS[best],
        }

    def curve(self, reading: Reading) -> dict[str, list[float]]:
        """Precision, recall and IoU in percent at each of :data:`THRESHOLDS`."""
        points = [matrix_of(counts).summary() for counts in self.curves[reading]]
        return {"threshold": list(THRESHOLDS)} | {name: [point[name] for point in points] for name in points[0]}

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file, atomically."""
        names = {r: f"{r.map}|{int(r.upsample_first)}|{' '.join(map(str, r.scales))}" for r in self.counts}
        arrays = {f"{what}|{names[r]}": a for what in _BY_READING for r, a in getattr(self, what).items()}
        single = {name: np.asarray(getattr(self, name)) for name in ("area", "weight", "mean_average_precision")}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays, **single))

    @classmethod
    def load(cls, path: str | Path) -> Measurement:
        """Read what :meth:`save` wrote."""
        found: dict[str, Any] = {what: {} for what in _BY_READING}
        with np.load(path) as stored:
            for name in stored.files:
                what, *reading = name.split("|")
                if reading:
                    kind, first, scales = reading
                    found[what][Reading(kind, first == "1", tuple(map(float, scales.split())))] = stored[name]
                else:
                    found[what] = stored[name]
        return cls(**found | {"mean_average_precision": float(found["mean_average_precision"])})


_BY_READING = ("counts", "curves", "coverage")


def matrix_of(counts: np.ndarray, void: str = "false_negative") -> ConfusionMatrix:
    """A confusion matrix of counts ``(C + 1, C + 2)``."""
    matrix = ConfusionMatrix(len(counts), void)
    matrix.counts = counts
    return matrix


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def measure(
    model: AttentionModel,
    pictures: Pictures,
    readings: Sequence[Reading],
    size: int = 224,
    batch_size: int = 16,
    precision: str = "no",
) -> Measurement:
    """Measure every reading of a model on pictures with masks.

    Args:
        model: it runs on the device where it is.
        pictures: with masks, and with part masks where there are any.
        readings: which.
        size, batch_size, precision: see :func:`dsna_lib.maps.compute`.

    Returns:
        The measurement.

    Raises:
        ValueError: pictures without masks, or a reading that this model's head does not have.
    """
    _check(model, pictures, readings)
    classes = pictures.num_classes + 1
    plain = [r for r in readings if r == Reading(r.map) and (r.map in maps.KINDS or r.map in cams.METHODS)]
    counts: dict[Reading, list[np.ndarray]] = {r: [] for r in readings}
    curves = {r: np.zeros((len(THRESHOLDS), classes, classes + 1), np.int64) for r in plain}
    coverage: dict[Reading, list[list[float]]] = {r: [] for r in plain}
    areas, weights, scores = [], [], []
    for found in _passes(model, pictures, readings, size, batch_size, precision):
        record = pictures.records[found[1.0].index]
        once = found[1.0]._replace(features=found[1.0].features.sum(dim=0, keepdim=True))  # all that annotating needs
        truth = read_mask(record.mask, once.size)
        shown = [c for c in record.labels if (truth == c + 1).any()]
        areas += [float((truth == c + 1).mean()) for c in shown]
        weights += maps.score_weight(once.scores)[shown].tolist()
        scores.append(once.scores.cpu())
        for reading in readings:
            averaged = _averaged(found, reading)
            if reading not in plain:
                options = {"upsample_first": reading.upsample_first}
                annotation = annotate.pseudo_annotation(averaged, once.features, record.labels, once.size, **options)
                counts[reading].append(_counts(annotation, truth, classes))
                continue
            cues = annotate.cues(averaged, once.features, record.labels, once.size)
            for k, threshold in enumerate(THRESHOLDS):
                regions = annotate.regions(cues, threshold, annotate.BACKGROUND_THRESHOLD)
                each = _counts(annotate.combine(*regions, record.labels), truth, classes)
                curves[reading][k] += each
                if threshold == annotate.FOREGROUND_THRESHOLD:
                    counts[reading].append(each)
            coverage[reading] += [_covered(averaged[c], truth == c + 1, _part(record, truth, c)) for c in shown]
    return Measurement(
        {r: np.stack(each).astype(np.int32) for r, each in counts.items()},
        curves,
        {r: np.array(rows, np.float32).reshape(-1, 3) for r, rows in coverage.items()},
        np.array(areas, np.float32),
        np.array(weights, np.float32),
        float(np.nanmean(average_precision(torch.stack(scores), pictures.targets()))),
    )


def _check(model: AttentionModel, pictures: Pictures, readings: Sequence[Reading]) -> None:
    for record in pictures.records:
        if record.mask is None:
            raise ValueError(f"{record.image} has no ground-truth mask to measure against")
    head = model.config.head
    there = readings_of(head)
    for reading in readings:
        if reading.map not in there:
            raise ValueError(f"a {head} model has no map {reading.map!r}; it has {', '.join(there)}")


def readings_of(head: str) -> tuple[str, ...]:
    """The maps that a model with this head can be read by: keys of :data:`MAPS` and :data:`dsna_lib.cams.METHODS`."""
    if head == "single_stream":
        return ("discriminative", "discriminative, min-max", *cams.METHODS)
    return (*maps.KINDS, "grad_cam") if head == "conventional" else (*MAPS, "grad_cam")


def _passes(
    model: AttentionModel, pictures: Pictures, readings: Sequence[Reading], size: int, batch_size: int, precision: str
) -> Iterator[dict[float, maps.PictureMaps]]:
    """For each picture, its maps at every scale that some reading asks for; scale 1 is always there."""
    wanted = {r.map for r in readings}
    rivals = [name for name in cams.METHODS if name in wanted]

    def look(model: AttentionModel, batch: Tensor, present: Tensor) -> tuple[AttentionOutput, dict[str, Tensor]]:
        output, found = cams.look(model, batch, present, rivals) if rivals else (model(batch), {})
        return output, found | {name: of(output, present) for name, of in MAPS.items() if name in wanted}

    scales = sorted({1.0}.union(*(r.scales for r in readings)))
    passes = [
        maps.compute(model, pictures, None, round(size * scale), batch_size, precision, look=look) for scale in scales
    ]
    for found in tqdm(zip(*passes, strict=True), total=len(pictures), leave=False, disable=None, unit="picture"):
        yield dict(zip(scales, found, strict=True))


def _averaged(found: dict[float, maps.PictureMaps], reading: Reading) -> Tensor:
    """A reading's maps ``(C, h, w)``, averaged over its scales on the grid of scale 1."""
    if reading.scales == (1.0,):
        return found[1.0].maps[reading.map]
    grid = tuple(found[1.0].features.shape[-2:])
    return torch.stack([annotate.resize(found[scale].maps[reading.map], grid) for scale in reading.scales]).mean(dim=0)


def _counts(annotation: Tensor, truth: np.ndarray, classes: int) -> np.ndarray:
    matrix = ConfusionMatrix(classes)
    matrix.update(annotation.cpu(), truth)
    return matrix.counts


def _part(record: Record, truth: np.ndarray, c: int) -> np.ndarray:
    """The class's telling part ``(H, W)`` bool; empty without part masks."""
    return np.zeros_like(truth, bool) if record.part is None else read_mask(record.part, truth.shape) == c + 1


def _covered(plane: Tensor, whole: np.ndarray, part: np.ndarray) -> list[float]:
    """Shares of the part, of the rest and of the whole that lie above the paper's threshold; NaN of nothing."""
    region = maps.min_max(annotate.resize(plane[None], whole.shape))[0].cpu().numpy() > annotate.FOREGROUND_THRESHOLD
    part = part & whole
    rest = whole & ~part if part.any() else np.zeros_like(whole)
    return [float(region[mask].mean()) if mask.any() else float("nan") for mask in (part, rest, whole)]


def weight_by_size(area: np.ndarray, weight: np.ndarray, edges: Sequence[float]) -> list[dict[str, float]]:
    """How the weight of the expansive map in Eq. 11 changes from tiny to large objects.

    Args:
        area: ``(K,)`` share of the picture, in 0..1.
        weight: ``(K,)`` p-hat, in 0..1.
        edges: of the bins, in 0..1, ascending.

    Returns:
        For each bin with objects: ``low``, ``high``, ``objects``, and the ``mean``, ``median`` and quartiles
        (``lower``, ``upper``) of the weight.

    Example:
        >>> weight_by_size(np.array([0.1, 0.6]), np.array([0.2, 0.9]), [0, 0.5, 1])[0]["mean"]
        0.2
    """
    rows = []
    for low, high in pairwise(edges):
        inside = weight[(area >= low) & (area < high)]
        if len(inside):
            lower, median, upper = np.percentile(inside, [25, 50, 75]).round(3).tolist()
            mean = round(float(inside.mean()), 3)
            rows.append(
                {"low": low, "high": high, "objects": len(inside), "mean": mean}
                | {"lower": lower, "median": median, "upper": upper}
            )
    return rows
