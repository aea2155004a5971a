r"""Dense CRF on pseudo-annotations (Eq. 12-13, after Kraehenbuehl and Koltun, NIPS 2011).

The hard annotation becomes a probability for each pixel and class, the picture's own edges refine it. Only
the classes present take part, which is what the image label says, and which makes it several times faster.
The CRF wants the raw RGB picture in 0..255, not a normalized one.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dsna_lib.annotate import Report
from dsna_lib.data.pictures import VOID, Pictures, Record, read_image, read_mask, write_mask


@dataclass(frozen=True)
class CRFParams:
    """Parameters of the two Gaussian edge potentials.

    Attributes:
        smooth_xy: deviation of the smoothness kernel, in pixels.
        smooth_weight: its weight.
        bilateral_xy: deviation of the appearance kernel in space, in pixels.
        bilateral_rgb: its deviation in color, in 0..255 steps.
        bilateral_weight: its weight.
        iterations: mean-field rounds.
    """

    smooth_xy: float = 3
    smooth_weight: float = 3
    bilateral_xy: float = 80
    bilateral_rgb: float = 13
    bilateral_weight: float = 10
    iterations: int = 10


PRESETS = {
    # Kolesnikov and Lampert, ECCV 2016 (SEC); used for pseudo-annotations here.
    "sec": CRFParams(),
    # Lin and Shen's segmentation code; used for final masks here.
    "segmentation": CRFParams(
        smooth_xy=3, smooth_weight=2, bilateral_xy=55, bilateral_rgb=3, bilateral_weight=4, iterations=10
    ),
    # Chen et al., ICLR 2015 (DeepLab-LargeFOV on VGG-16).
    "deeplab": CRFParams(
        smooth_xy=3, smooth_weight=3, bilateral_xy=121, bilateral_rgb=5, bilateral_weight=4, iterations=10
    ),
}


def preset(params: CRFParams | str) -> CRFParams:
    """A preset by name, or the parameters themselves.

    Raises:
        ValueError: unknown name.
    """
    if isinstance(params, CRFParams):
        return params
    if params not in PRESETS:
        raise ValueError(f"unknown CRF preset {params!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[params]


def class_probabilities(
    annotation: np.ndarray, labels: Sequence[int], num_classes: int, tau: float = 0.7
) -> np.ndarray:
    """Eq. 12-13: how likely each class is at each pixel, given a hard annotation.

    A void pixel spreads evenly over the classes present; any other gives tau to its label and shares the
    rest. The classes present include background.

    Args:
        annotation: ``(H, W)`` uint8: 0 background, 1..C classes, 255 void.
        labels: 0-based indices of the classes present, without background.
        num_classes: C, without background.
        tau: trust in the annotation, between 0.5 and 1, both excluded.

    Returns:
        ``(num_classes + 1, H, W)`` float32, sums to 1 over classes.

    Raises:
        ValueError: tau outside its range, no labels, or the annotation holds a class that is not in `labels`.
    """
    annotation = np.asarray(annotation)
    if not 0.5 < tau < 1:
        raise ValueError(f"tau={tau} must lie between 0.5 and 1 (both excluded)")
    if len(labels) == 0 or not all(0 <= k < num_classes for k in labels):
        raise ValueError(f"labels={list(labels)} must name at least one of the {num_classes} classes (0-based)")
    present = [0, *(k + 1 for k in sorted(set(labels)))]
    strange = np.setdiff1d(np.unique(annotation), [*present, VOID])
    if strange.size:
        raise ValueError(f"the annotation holds {strange[0]}, which is neither background, void, nor one of the labels")
    z = np.zeros((num_classes + 1, *annotation.shape), np.float32)
    z[present] = np.where(annotation == VOID, 1 / len(present), (1 - tau) / (len(present) - 1))  # Eq. 12; 13, c != m
    for c in present:
        z[c][annotation == c] = tau  # Eq. 13, c = m
    return z


def refine(image: np.ndarray, probabilities: np.ndarray, params: CRFParams | str = "sec") -> np.ndarray:
    """Dense CRF: follow the picture's edges.

    Args:
        image: ``(H, W, 3)`` uint8, raw RGB.
        probabilities: ``(K, H, W)``; classes that are 0 everywhere take no part.
        params: parameters or the name of a preset.

    Returns:
        ``(H, W)`` uint8, the likeliest class of each pixel; never void.

    Raises:
        ValueError: the picture is not raw RGB, or the sizes differ.
        ImportError: pydensecrf is not installed.
    """
    present, found = _infer(image, probabilities, params)
    if len(present) == 0:
        return np.zeros(image.shape[:2], np.uint8)
    return present[found.argmax(axis=0)].astype(np.uint8)


def marginals(image: np.ndarray, probabilities: np.ndarray, params: CRFParams | str = "sec") -> np.ndarray:
    """Dense CRF: how likely each class is at each pixel once the picture's edges had their say.

    Args:
        image: ``(H, W, 3)`` uint8, raw RGB.
        probabilities: ``(K, H, W)``; classes that are 0 everywhere take no part.
        params: parameters or the name of a preset.

    Returns:
        ``(K, H, W)`` float32, sums to 1 over the classes that take part; 0 for the others.

    Raises:
        ValueError: the picture is not raw RGB, or the sizes differ.
        ImportError: pydensecrf is not installed.
    """
    present, found = _infer(image, probabilities, params)
    result = np.zeros(probabilities.shape, np.float32)
    result[present] = found
    return result


def _infer(image: np.ndarray, probabilities: np.ndarray, params: CRFParams | str) -> tuple[np.ndarray, np.ndarray]:
    """The classes that take part, and their marginals ``(len(present), H, W)``."""
    params = preset(params)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the CRF wants the raw (H, W, 3) uint8 picture, not {image.shape} {image.dtype}")
    if image.shape[:2] != probabilities.shape[1:]:
        raise ValueError(f"the picture is {image.shape[:2]} and the probabilities {probabilities.shape[1:]}")
    present = np.flatnonzero(probabilities.reshape(len(probabilities), -1).any(axis=1))
    height, width = image.shape[:2]
    if len(present) < 2:
        return present, np.ones((len(present), height, width), np.float32)
    crf = _densecrf().DenseCRF2D(width, height, len(present))
    unary = -np.log(np.clip(probabilities[present], 1e-5, 1)).reshape(len(present), -1)
    crf.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    crf.addPairwiseGaussian(sxy=params.smooth_xy, compat=params.smooth_weight)
    crf.addPairwiseBilateral(
        sxy=params.bilateral_xy,
        srgb=params.bilateral_rgb,
        rgbim=np.ascontiguousarray(image),
        compat=params.bilateral_weight,
    )
    return present, np.asarray(crf.inference(params.iterations)).reshape(len(present), height, width)


def require() -> None:
    """Find out early whether the CRF can run.

    Raises:
        ImportError: pydensecrf is not installed; the message says what to do.
    """
    _densecrf()


def _densecrf():
    try:
        import pydensecrf.densecrf
    except ImportError:
        raise ImportError(
            "the dense CRF needs pydensecrf: `pip install pydensecrf2` (Python 3.10 to 3.12; it does not build on "
            "3.13), or go on without the CRF (--no-crf)"
        ) from None
    return pydensecrf.densecrf


def refine_split(
    pictures: Pictures,
    annotations: str | Path,
    folder: str | Path,
    tau: float = 0.7,
    params: CRFParams | str = "sec",
    processes: int = 1,
) -> Report:
    """Refine a folder of annotations, on several processes; a bad picture is reported and the rest goes on.

    Args:
        pictures: whose image labels are used; masks are not read.
        annotations: folder with ``ID.png``.
        folder: where to; what is there already is skipped.
        tau: see :func:`class_probabilities`.
        params: parameters or the name of a preset.
        processes: how many processes; each needs about 0.5 GB.

    Returns:
        What was written, skipped and failed, each in the pictures' order.

    Raises:
        ImportError: pydensecrf is not installed.
    """
    _densecrf()
    annotations, folder, report = Path(annotations), Path(folder), Report()
    todo = []
    for record in pictures.records:
        if (folder / f"{record.id}.png").is_file():
            report.skipped.append(record.id)
        else:
            todo.append(record)
    jobs = [(r, annotations, folder, pictures.num_classes, tau, preset(params)) for r in todo]
    bar = tqdm(zip(todo, _in_order(jobs, processes), strict=True), total=len(todo), leave=False, disable=None)
    for record, error in bar:
        if error is None:
            report.written.append(record.id)
        else:
            report.failed[record.id] = error
    return report


def _in_order(jobs: list[tuple], processes: int):
    """Run :func:`_refine_one` on each job; yields the results in order."""
    if processes <= 1:
        yield from map(_refine_one, jobs)
        return
    # A fresh server process, not a fork of this one: forking a process that runs threads may hang.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(_refine_one, job) for job in jobs]
        for future in futures:
            try:
                yield future.result()
            except BrokenProcessPool:
                yield "a worker process died (out of memory?); run again with fewer processes to go on"


def _refine_one(job: tuple[Record, Path, Path, int, float, CRFParams]) -> str | None:
    """Refine one picture; returns what went wrong, or None."""
    record, annotations, folder, num_classes, tau, params = job
    try:
        image = read_image(record.image)
        annotation = read_mask(annotations / f"{record.id}.png", image.shape[:2])
        probabilities = class_probabilities(annotation, record.labels, num_classes, tau)
        write_mask(folder / f"{record.id}.png", refine(image, probabilities, params))
    except (OSError, ValueError, MemoryError) as error:
        return str(error) or type(error).__name__
    return None
