"""What is wrong in a mask, counted: outlines, objects that are missed, taken for others, or invented."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from dsna_lib.data.pictures import VOID

KINDS = ("outline", "missed", "confused", "invented")
WIDTH = 5  # pixels; VOC leaves a border as wide unlabeled around its objects


def count_mistakes(prediction: np.ndarray, truth: np.ndarray, width: int = WIDTH) -> np.ndarray:
    """Wrong pixels of each of :data:`KINDS`; each wrong pixel is of one kind.

    A pixel is wrong in its *outline* if what it was given is true of some pixel at most `width` away (rows and columns
    alike, as a square). Otherwise an object's pixel is *missed* if it was given background and *confused* if it was
    given another class, and background that was given a class is *invented*.

    Args:
        prediction, truth: ``(H, W)``, 0 background, 1..C classes; pixels whose truth is 255 do not count. A predicted
            255 is counted as background: nothing was said there.
        width: in pixels.

    Returns:
        ``(4,)`` int64.

    Raises:
        ValueError: differing shapes.

    Example:
        >>> truth, prediction = np.zeros((9, 30), np.uint8), np.zeros((9, 30), np.uint8)
        >>> truth[:, :10], prediction[:, :12] = 1, 1  # two columns too wide
        >>> prediction[4, 29] = 2  # and something far away that is not there
        >>> dict(zip(KINDS, count_mistakes(prediction, truth).tolist()))
        {'outline': 18, 'missed': 0, 'confused': 0, 'invented': 1}
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {prediction.shape} and truth {truth.shape} must have one shape")
    prediction = np.where(prediction == VOID, 0, prediction)
    wrong = (prediction != truth) & (truth != VOID)
    near = np.zeros_like(wrong)
    for label in np.unique(prediction[wrong]):
        near |= (prediction == label) & ndimage.maximum_filter(truth == label, 2 * width + 1)
    far, objects = wrong & ~near, truth != 0
    kinds = (wrong & near, far & (prediction == 0), far & objects & (prediction != 0), far & ~objects)
    return np.array([kind.sum() for kind in kinds])
