r"""What is measured of a trained model's maps, in one pass over a split (Sec. IV-B of the paper).

A :class:`MapProtocol` is one way to get annotations out of a model: which map, how it is scaled, at which scales the
picture is shown, in which order it is enlarged and thresholded. The paper leaves some of that open; every protocol is
measured on the same pictures with the same model, so that two rows of a table differ in their protocol alone.
Annotations are made with the true image labels of the pictures, without a CRF.
"""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dsna_lib import annotate, maps
from dsna_lib.annotate import BACKGROUND_THRESHOLD, FOREGROUND_THRESHOLD
from dsna_lib.attention import AttentionModel, AttentionOutput
from dsna_lib.data.pictures import PictureError, Pictures, read_mask
from dsna_lib.engine.files import write_atomically
from dsna_lib.maps import MAP_KINDS, PictureMaps, merge, min_max, positive_part
from dsna_lib.methods.cams import CAM_METHODS, cam_maps
from dsna_lib.metrics import ConfusionMatrix, average_precision

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True)
class MapProtocol:
    """One way to read annotations off a model.

    Attributes:
        map: a key of :data:`MAP_FORMULAS`, or of :data:`dsna_lib.methods.cams.CAM_METHODS`.
        upsample_first: see :func:`dsna_lib.annotate.pseudo_annotation`.
        scales: the picture is shown at these multiples of the input size, and the maps are averaged.
    """

    map: str = "merged"
    upsample_first: bool = True
    scales: tuple[float, ...] = (1.0,)


# Of a and s (N, C, h, w), the scores p (N, C) and the classes present (N, C) bool: maps (N, C, h, w) in 0..1.
MAP_FORMULAS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "expansive": lambda a, s, p, present: min_max(a),
    "discriminative": lambda a, s, p, present: positive_part(s),
    "merged": lambda a, s, p, present: merge(a, s, p),
    "discriminative, min-max": lambda a, s, p, present: min_max(s),
    "merged, min-max": lambda a, s, p, present: merge(a, s, p, normalize_discriminative=min_max),
    "merged, present": lambda a, s, p, present: merge(a, s, p, present),
    "merged, sigmoid": lambda a, s, p, present: positive_part(s).lerp(min_max(a), p.sigmoid()[..., None, None]),
    "mean": lambda a, s, p, present: (min_max(a) + positive_part(s)) / 2,
    "maximum": lambda a, s, p, present: torch.maximum(min_max(a), positive_part(s)),
    "product": lambda a, s, p, present: min_max(a * s.relu()),
}
# Keys of these and of CAM_METHODS by head: the single stream has no a, conventional attention one for all classes.
MAPS_OF: dict[str, tuple[str, ...]] = {
    "decoupled": (*MAP_FORMULAS, "grad_cam"),
    "single_stream": ("discriminative", "discriminative, min-max", *CAM_METHODS),
    "conventional": (*MAP_KINDS, "grad_cam"),
}


PARTS = ("part", "rest", "whole")  # columns of the coverage
SMALL, LARGE = 0.05, 0.2  # an object is small below this share of its picture, and large above that
POOLED = ("precision", "recall", "iou")  # measures of all pictures' counts together
SINGLE = ("objects", "area", "weight", "mean_average_precision")  # of a measurement, as are those of each protocol
PER_PROTOCOL = ("counts", "curves", "coverage", "extent", "similarity")


@dataclass
class Measurement:
    """What :func:`measure` found on N pictures with C classes.

    Attributes:
        counts: protocol to ``(N, C + 1, C + 2)``: confusion counts of each picture, as in
            :class:`~dsna_lib.metrics.ConfusionMatrix`; all scores follow, of any pictures, under any void policy.
        curves: protocol to ``(len(THRESHOLDS), C + 1, C + 2)``: counts of all pictures at each foreground threshold;
            for the plain protocols only, those of one scale whose map is a method's own.
        coverage: likewise ``(K, 3)``: which share of a class's discriminative part, of its rest, and of the whole the
            map covers above the paper's threshold; one row for each of the K pairs of a picture and a class that it
            shows. NaN where there is none (photographs have no part masks).
        extent: likewise ``(len(THRESHOLDS), K, 3)``, at each threshold.
        similarity: likewise ``(P,)``: how alike the maps of two classes are that one picture shows, in 0..1, for all P
            such pairs; see :func:`dsna_lib.maps.similarities`.
        objects: ``(K, 2)`` the places of picture and class.
        area: ``(K,)`` the class's share of its picture, in 0..1.
        weight: ``(K,)`` p-hat of Eq. 11.
        mean_average_precision: of the classifier, in 0..1.
    """

    counts: dict[MapProtocol, np.ndarray]
    curves: dict[MapProtocol, np.ndarray]
    coverage: dict[MapProtocol, np.ndarray]
    extent: dict[MapProtocol, np.ndarray]
    similarity: dict[MapProtocol, np.ndarray]
    objects: np.ndarray
    area: np.ndarray
    weight: np.ndarray
    mean_average_precision: float

    def scores(self, protocol: MapProtocol, void: str = "false_negative") -> dict[str, float]:
        """The measures of a table's row, in percent, under a policy of :class:`~dsna_lib.metrics.ConfusionMatrix`.

        Returns:
            ``precision``, ``recall`` and ``iou``, means over classes with background; the means of what
            :meth:`of_objects` gives; ``oracle_iou`` and ``oracle_threshold`` (0..1): IoU at the threshold that is best
            for *these* pictures' ground truth. No method may choose it so; it bounds what one could gain.
            ``similarity``, the mean over pairs of classes; of pictures that show several classes ``several_iou`` and
            ``confused``, the share of object pixels that the annotation gives to another class. Oracles, similarity
            and what follows it of plain protocols only; what nothing is known of is left out.
        """
        scores = matrix_of(self.counts[protocol].sum(axis=0), void).summary()
        for name, shares in self.of_objects(protocol).items():
            if np.isfinite(shares).any():
                scores[name] = round(100 * float(np.nanmean(shares)), 2)
        if protocol in self.curves:
            if len(self.similarity[protocol]):
                scores["similarity"] = round(100 * float(self.similarity[protocol].mean()), 2)
                scores |= several_classes(self.counts[protocol], void)
            best, iou = self._best(protocol, void)
            scores |= {"oracle_iou": round(iou, 2), "oracle_threshold": THRESHOLDS[best]}
        return {name: value for name, value in scores.items() if np.isfinite(value)}

    def of_objects(self, protocol: MapProtocol) -> dict[str, np.ndarray]:
        """Measures of each pair of a picture and a class that it shows: name to ``(K,)``, in 0..1, NaN without any.

        Returns:
            ``precision_small``, ``precision_large``, ``recall_small`` and ``recall_large``, of a small or large class's
            own pixels in its picture. Of plain protocols ``part``, ``rest`` and ``whole``, the coverage;
            ``telling``, by how much more of the part is covered than of the rest, and ``telling_oracle``, the same at
            the threshold of ``oracle_iou``.
        """
        hit, own, marked = self._pixels(protocol)
        known = {}
        for size, inside in (("small", self.area < SMALL), ("large", self.area >= LARGE)):
            known[f"precision_{size}"] = np.where(inside & (marked > 0), hit / np.maximum(marked, 1), np.nan)
            known[f"recall_{size}"] = np.where(inside, hit / own, np.nan)
        if protocol in self.curves:
            part, rest, whole = self.coverage[protocol].T
            at_best = self.extent[protocol][self._best(protocol)[0]]
            known |= {"part": part, "rest": rest, "whole": whole, "telling": part - rest}
            known["telling_oracle"] = at_best[:, 0] - at_best[:, 1]
        return known

    def without(self, protocol: MapProtocol, name: str, void: str = "false_negative") -> np.ndarray:
        """One of the :meth:`scores` with each of the N pictures left out: ``(N,)``, in percent.

        Raises:
            KeyError: a measure that is no mean over pictures or objects.
        """
        counts = self.counts[protocol]
        if name in POOLED:
            return left_out(counts, lambda total: 100 * getattr(matrix_of(total, void), f"mean_{name}"))
        shares, picture = self.of_objects(protocol)[name], self.objects[:, 0]
        known = np.isfinite(shares)
        own, objects = (np.bincount(picture[known], each, len(counts)) for each in (shares[known], None))
        with np.errstate(invalid="ignore"):  # of the only picture nothing is left
            return 100 * (shares[known].sum() - own) / (known.sum() - objects)

    def by_size(self, protocol: MapProtocol, edges: Sequence[float]) -> list[dict[str, float]]:
        """Precision, recall and IoU of single objects, in percent, over their share of the picture.

        Returns:
            For each bin between two edges, with objects: ``low``, ``high``, ``objects``, and the means.
        """
        (hit, own, marked), rows = self._pixels(protocol), []
        for low, high in pairwise(edges):
            inside = (self.area >= low) & (self.area < high)
            if inside.any():
                some = inside & (marked > 0)
                means = {
                    "precision": (hit[some] / marked[some]).mean() if some.any() else 0.0,
                    "recall": (hit / own)[inside].mean(),
                    "iou": (hit / (own + marked - hit))[inside].mean(),
                }
                rounded = {name: round(100 * float(value), 2) for name, value in means.items()}
                rows.append({"low": low, "high": high, "objects": int(inside.sum())} | rounded)
        return rows

    def _pixels(self, protocol: MapProtocol) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each object ``(K,)``: pixels that are both its own and marked as its class, its own, and those marked."""
        (picture, kind), counts = self.objects.T, self.counts[protocol]
        own, marked = counts[picture, kind + 1], counts[picture, :, kind + 1]  # by what is marked; by what it is
        return counts[picture, kind + 1, kind + 1], own.sum(axis=1), marked.sum(axis=1)

    def _best(self, protocol: MapProtocol, void: str = "false_negative") -> tuple[int, float]:
        """The place of the threshold with the highest IoU, and that in percent."""
        curve = [100 * matrix_of(counts, void).mean_iou for counts in self.curves[protocol]]
        best = int(np.nanargmax(curve))
        return best, curve[best]

    def curve(self, protocol: MapProtocol) -> dict[str, list[float]]:
        """Precision, recall and IoU in percent at each of :data:`THRESHOLDS`, and the coverage of parts, if known."""
        points = [matrix_of(counts).summary() for counts in self.curves[protocol]]
        curves = {name: [point[name] for point in points] for name in points[0]}
        for name, shares in zip(PARTS, np.moveaxis(self.extent[protocol], 2, 0), strict=True):
            known = shares[:, np.isfinite(shares).all(axis=0)]
            if known.size:
                curves[name] = [round(100 * float(each.mean()), 2) for each in known]
        return {"threshold": list(THRESHOLDS)} | curves

    def save(self, path: str | Path) -> None:
        """Write everything to one ``.npz`` file, atomically."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in SINGLE}
        for what in PER_PROTOCOL:
            arrays |= {f"{what}|{astuple(p)}": array for p, array in getattr(self, what).items()}
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> Measurement:
        """Read what :meth:`save` wrote."""
        content: dict[str, Any] = {what: {} for what in PER_PROTOCOL}
        with np.load(path) as stored:
            for name, array in stored.items():
                what, _, protocol = name.partition("|")
                if protocol:
                    content[what][MapProtocol(*literal_eval(protocol))] = array
                else:
                    content[what] = array
        return cls(**content | {"mean_average_precision": float(content["mean_average_precision"])})


def matrix_of(counts: np.ndarray, void: str = "false_negative") -> ConfusionMatrix:
    """A confusion matrix of counts ``(C + 1, C + 2)``."""
    matrix = ConfusionMatrix(len(counts), void)
    matrix.counts = counts
    return matrix


def left_out(counts: np.ndarray, score: Callable[[np.ndarray], float]) -> np.ndarray:
    """A score of N pictures together, N times: each time without one of them.

    Args:
        counts: ``(N, ...)``, which add up over pictures.
        score: of a sum of counts.
    """
    whole = counts.sum(axis=0)
    return np.array([score(whole - each) for each in counts])


def several_classes(counts: np.ndarray, void: str = "false_negative") -> dict[str, float]:
    """Of pictures that show several classes: ``several_iou``, and the share of object pixels ``confused`` among them.

    Args:
        counts: ``(N, C + 1, C + 2)``, as in :class:`Measurement`; some of the pictures show several classes.
        void: see :meth:`Measurement.scores`.

    Returns:
        Both in percent.
    """
    objects = counts[:, 1:]  # (N, C, C + 2): pixels of each class
    several = counts[(objects.sum(axis=2) > 0).sum(axis=1) > 1].sum(axis=0)
    among = several[1:, 1:-1]  # (C, C): object pixels that are marked as some class
    share = 100 * (among.sum() - np.trace(among)) / several[1:].sum()
    return {"several_iou": matrix_of(several, void).summary()["iou"], "confused": round(float(share), 2)}


def counts_of(prediction: Any, truth: np.ndarray, classes: int) -> np.ndarray:
    """The counts of one picture, ``classes`` being C + 1."""
    matrix = ConfusionMatrix(classes)
    matrix.update(prediction, truth)
    return matrix.counts


def require_masks(pictures: Pictures) -> list[Path]:
    """The masks of pictures to measure on; a picture without one is a ``PictureError``."""
    masks = []
    for record in pictures.records:
        if record.mask is None:
            raise PictureError(f"{record.image} has no ground-truth mask to measure against")
        masks.append(record.mask)
    return masks


def measure(
    model: AttentionModel,
    pictures: Pictures,
    protocols: Sequence[MapProtocol],
    size: int = 224,
    batch_size: int = 16,
    precision: str = "no",
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    foreground_threshold: float = FOREGROUND_THRESHOLD,
    background_threshold: float = BACKGROUND_THRESHOLD,
) -> Measurement:
    """Measure every protocol of a model on pictures with masks.

    Args:
        model: it runs on the device where it is.
        pictures: with masks, and with part masks where there are any.
        protocols: of the model's maps.
        size, batch_size, precision, scales, flip: see :func:`dsna_lib.maps.iterate_maps`; the scales of a protocol
            multiply these.
        foreground_threshold, background_threshold: see :func:`dsna_lib.annotate.pseudo_annotation`.

    Raises:
        PictureError: a picture without a mask, or pictures none of which shows a class.
        ValueError: a protocol that this model's head does not have.
    """
    masks = require_masks(pictures)
    if not pictures.targets().any():
        raise PictureError(f"none of the {len(pictures)} pictures to measure on shows a class; choose ones that do")
    assert model.config is not None, "the model was made by attention.create"
    head = model.config.head
    for protocol in protocols:
        if protocol.map not in MAPS_OF[head]:
            raise ValueError(f"a {head} model has no map {protocol.map!r}; it has {', '.join(MAPS_OF[head])}")
    plain = [p for p in protocols if p == MapProtocol(p.map) and (p.map in MAP_KINDS or p.map in CAM_METHODS)]
    classes, thresholds = pictures.num_classes + 1, (foreground_threshold, background_threshold)
    counts: dict[MapProtocol, list[np.ndarray]] = {protocol: [] for protocol in protocols}
    curves = {protocol: np.zeros((len(THRESHOLDS), classes, classes + 1), np.int64) for protocol in plain}
    covered: dict[MapProtocol, list[np.ndarray]] = {protocol: [] for protocol in plain}
    similarity: dict[MapProtocol, list[float]] = {protocol: [] for protocol in plain}
    objects, areas, weights, scores = [], [], [], []
    how = {"batch_size": batch_size, "precision": precision, "scales": scales, "flip": flip}
    for at_scale in _passes(model, pictures, protocols, size, **how):
        usual = at_scale[1.0]
        record, truth = pictures.records[usual.index], read_mask(masks[usual.index], usual.size, classes - 1)
        part = np.zeros_like(truth) if record.part is None else read_mask(record.part, usual.size, classes - 1)
        shown = [c for c in record.labels if (truth == c + 1).any()]
        objects += [(usual.index, c) for c in shown]
        areas += [float((truth == c + 1).mean()) for c in shown]
        weights += maps.score_weight(usual.scores)[shown].tolist()
        scores.append(usual.scores.cpu())
        summed = usual.features.sum(dim=0, keepdim=True)  # all that annotating needs
        for protocol in protocols:
            planes, first = _averaged(at_scale, protocol), protocol.upsample_first
            annotation = annotate.annotate_labeled(planes, summed, record.labels, usual.size, *thresholds, first)
            counts[protocol].append(counts_of(annotation.cpu(), truth, classes))
            if protocol in plain:
                cues = annotate.cues(planes, summed, record.labels, usual.size)
                for k, threshold in enumerate(THRESHOLDS):
                    regions = annotate.regions(cues, threshold, background_threshold)
                    curves[protocol][k] += counts_of(annotate.combine(*regions, record.labels).cpu(), truth, classes)
                similarity[protocol] += maps.similarities(planes[shown]).tolist()
                at = (foreground_threshold, *THRESHOLDS)
                covered[protocol] += [_covered(planes[c], truth == c + 1, part == c + 1, at) for c in shown]
    shares = {
        protocol: np.array(each, np.float32).reshape(-1, 1 + len(THRESHOLDS), 3) for protocol, each in covered.items()
    }
    return Measurement(
        {protocol: np.stack(each).astype(np.int32) for protocol, each in counts.items()},
        curves,
        {protocol: each[:, 0] for protocol, each in shares.items()},
        {protocol: np.moveaxis(each[:, 1:], 1, 0) for protocol, each in shares.items()},
        {protocol: np.array(pairs, np.float32) for protocol, pairs in similarity.items()},
        np.array(objects, np.int64).reshape(-1, 2),
        np.array(areas, np.float32),
        np.array(weights, np.float32),
        float(np.nanmean(average_precision(torch.stack(scores), pictures.targets()))),
    )


def _passes(
    model: AttentionModel, pictures: Pictures, protocols: Sequence[MapProtocol], size: int, **how: Any
) -> Iterator[dict[float, PictureMaps]]:
    """For each picture, its maps at every scale that some protocol asks for; scale 1 is always there."""
    wanted = {protocol.map for protocol in protocols}
    rivals = [name for name in CAM_METHODS if name in wanted]

    def maker(model: Any, batch: Tensor, present: Tensor) -> tuple[AttentionOutput, dict[str, Tensor]]:
        output, made = cam_maps(model, batch, present, rivals)
        p, s = output.scores.float(), output.discriminative.float()
        a = s if output.expansive is None else output.expansive.float().expand_as(s)  # no map without a asks for it
        return output, made | {name: of(a, s, p, present) for name, of in MAP_FORMULAS.items() if name in wanted}

    scales = sorted({1.0}.union(*(protocol.scales for protocol in protocols)))
    passes = [maps.iterate_maps(model, pictures, size=round(size * scale), maker=maker, **how) for scale in scales]
    for each in tqdm(zip(*passes, strict=True), total=len(pictures), leave=False, disable=None, unit="picture"):
        yield dict(zip(scales, each, strict=True))


def _averaged(at_scale: dict[float, PictureMaps], protocol: MapProtocol) -> Tensor:
    """A protocol's maps ``(C, h, w)``, averaged over its scales on the grid of scale 1."""
    if protocol.scales == (1.0,):
        return at_scale[1.0].maps[protocol.map]
    grid = at_scale[1.0].features.shape[-2:]
    return maps.mean_on_grid([at_scale[s].maps[protocol.map][None] for s in protocol.scales], grid)[0]


def _covered(plane: Tensor, whole: np.ndarray, part: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Shares of the part, of the rest and of the whole that lie above each threshold, ``(T, 3)``; NaN of nothing."""
    values = min_max(annotate.resize(plane[None], whole.shape))[0].cpu().numpy()
    part = part & whole
    rest = whole & ~part if part.any() else np.zeros_like(whole)
    masks, nothing = (part, rest, whole), np.full(len(thresholds), np.nan)
    shares = [(values[mask] > np.array(thresholds)[:, None]).mean(axis=1) if mask.any() else nothing for mask in masks]
    return np.stack(shares, axis=1)


def weight_by_size(area: np.ndarray, weight: np.ndarray, edges: Sequence[float]) -> list[dict[str, float]]:
    """How the weight ``(K,)`` of the expansive map in Eq. 11 changes with the area ``(K,)`` of objects.

    Returns:
        For each bin between two edges, with objects: ``low``, ``high``, ``objects``, and the ``mean``, ``median`` and
        quartiles (``lower``, ``upper``) of the weight.

    Example:
        >>> weight_by_size(np.array([0.1, 0.6]), np.array([0.2, 0.9]), [0, 0.5, 1])[0]["mean"]
        0.2
    """
    rows = []
    for low, high in pairwise(edges):
        inside = weight[(area >= low) & (area < high)]
        if len(inside):
            lower, median, upper = np.percentile(inside, [25, 50, 75]).round(3).tolist()
            spread = {"mean": round(float(inside.mean()), 3), "lower": lower, "median": median, "upper": upper}
            rows.append({"low": low, "high": high, "objects": len(inside)} | spread)
    return rows
