r"""Metrics: one confusion matrix over a data set, and what is read off it (Eq. 14-16).

.. math::
    S_{IoU} = \frac{TP}{TP + FP + FN}, \quad S_{prec} = \frac{TP}{TP + FP}, \quad S_{rec} = \frac{TP}{TP + FN}

Pixels whose ground truth is void (255) never count. A *predicted* void, which pseudo-annotations have and
segmentation models do not, is settled by a policy.
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from dsna_lib.config.annotation import VoidPolicy
from dsna_lib.data.pictures import VOID

VOID_POLICIES: tuple[str, ...] = get_args(VoidPolicy)


class ConfusionMatrix:
    """Counts of (true class, predicted class) over a whole data set.

    Args:
        num_classes: classes with background, such as 21 for VOC.
        void: what a predicted void is: ``"false_negative"`` of its true class and false positive of none
            (default), ``"background"``, or ``"ignore"`` (the pixel is left out). Another policy is a ValueError.

    Attributes:
        counts: ``(num_classes, num_classes + 1)`` int64; rows are true classes, the last column is void.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.update(np.array([0, 1, 1]), np.array([0, 0, 1]))
        >>> matrix.iou
        array([0.5, 0.5])
    """

    def __init__(self, num_classes: int, void: str = "false_negative") -> None:
        if void not in VOID_POLICIES:
            raise ValueError(f"void={void!r}: choose one of {', '.join(VOID_POLICIES)}")
        self.num_classes, self.void = num_classes, void
        self.counts = np.zeros((num_classes, num_classes + 1), np.int64)

    def update(self, prediction: Any, target: Any) -> None:
        """Add one picture, or a batch of them: class indices, NumPy arrays or tensors of one shape.

        A `prediction` of 255 is void; where the `target`, the ground truth, is 255, nothing is counted. Other numbers
        that are no class, and differing shapes, are a ValueError.
        """
        prediction, target = np.asarray(prediction), np.asarray(target)
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {prediction.shape} and target {target.shape} must have one shape")
        known = target != VOID
        prediction, target = prediction[known].astype(np.int64), target[known].astype(np.int64)
        for name, values in (("target", target), ("prediction", prediction[prediction != VOID])):
            strange = values[(values < 0) | (values >= self.num_classes)]
            if strange.size:
                said = f"{name} holds {strange[0]}, which is none of the {self.num_classes} classes nor void (255)"
                raise ValueError(said)
        prediction[prediction == VOID] = self.num_classes
        pairs = target * (self.num_classes + 1) + prediction
        self.counts += np.bincount(pairs, minlength=self.counts.size).reshape(self.counts.shape)

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add the counts of another matrix of the same classes, such as another process's; returns itself."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge matrices of {self.num_classes} and {other.num_classes} classes")
        self.counts += other.counts
        return self

    def with_void(self, void: str) -> ConfusionMatrix:
        """The same counts under another void policy."""
        other = ConfusionMatrix(self.num_classes, void)
        other.counts = self.counts.copy()
        return other

    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True positives, false positives and false negatives, each ``(num_classes,)``."""
        square, void = self.counts[:, :-1].copy(), self.counts[:, -1]
        if self.void == "background":
            square[:, 0] += void
        true_positives = np.diag(square)
        missed = square.sum(axis=1) - true_positives
        if self.void == "false_negative":
            missed = missed + void
        return true_positives, square.sum(axis=0) - true_positives, missed

    @property
    def iou(self) -> np.ndarray:
        """Eq. 14 per class, in 0..1; NaN for a class that is neither in the truth nor predicted."""
        tp, fp, fn = self._parts()
        return _ratio(tp, tp + fp + fn)

    @property
    def precision(self) -> np.ndarray:
        """Eq. 15 per class, in 0..1; NaN for a class that is never predicted."""
        tp, fp, _ = self._parts()
        return _ratio(tp, tp + fp)

    @property
    def recall(self) -> np.ndarray:
        """Eq. 16 per class, in 0..1; NaN for a class that is not in the truth."""
        tp, _, fn = self._parts()
        return _ratio(tp, tp + fn)

    @property
    def mean_iou(self) -> float:
        """mS_IoU, or mIoU: the mean over classes, background included, NaN left out."""
        return _mean(self.iou)

    @property
    def mean_precision(self) -> float:
        """mS_prec: likewise."""
        return _mean(self.precision)

    @property
    def mean_recall(self) -> float:
        """mS_rec: likewise."""
        return _mean(self.recall)

    def summary(self) -> dict[str, float]:
        """The three means in percent, rounded to two digits."""
        means = {"precision": self.mean_precision, "recall": self.mean_recall, "iou": self.mean_iou}
        return {name: round(100 * value, 2) for name, value in means.items()}


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def average_precision(scores: Any, labels: Any) -> np.ndarray:
    r"""Average precision of a multi-label classifier, per class, as scikit-learn defines it.

    .. math:: AP = \sum_t (R_t - R_{t-1}) P_t

    with precision P and recall R of the pictures that score at least t, for every score t that occurs, from the highest
    down. Pictures of equal scores come in together, so their order does not matter.

    Args:
        scores: ``(N, C)``, higher is more likely; NumPy array or tensor.
        labels: ``(N, C)``, 1 where the class is present.

    Returns:
        ``(C,)`` in 0..1; NaN for a class without a picture.

    Example:
        >>> average_precision([[0.0], [0.0]], [[1], [0]])
        array([0.5])
    """
    columns = zip(np.asarray(scores).T, np.asarray(labels).T > 0.5, strict=True)
    return np.array([_average_precision(*column) for column in columns])


def _average_precision(scores: np.ndarray, present: np.ndarray) -> float:
    if not present.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # the last place of each score
    hits = np.cumsum(present[order])[ends]
    return float(np.sum(np.diff(hits, prepend=0) * hits / (ends + 1)) / hits[-1])
