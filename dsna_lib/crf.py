r"""Dense CRF on pseudo-annotations (Eq. 12-13, after Kraehenbuehl and Koltun, NIPS 2011).

The hard annotation becomes a probability for each pixel and class, the picture's own edges refine it. Only
the classes present take part, which is what the image label says, and which makes it several times faster.
The CRF wants the raw RGB picture in 0..255, not a normalized one.

Two backends compute it: pydensecrf, the authors' own code, on one core of a CPU; and :mod:`dsna_lib.mean_field`, which
needs nothing but PyTorch. Their marginals differ by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from tqdm import tqdm

from dsna_lib import mean_field
from dsna_lib.config.annotation import PRESETS, CRFParams, preset
from dsna_lib.config.crf import Backend
from dsna_lib.data.pictures import VOID, PictureError, Pictures, read_image, read_mask, write_mask
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.fields import checked
from dsna_lib.engine.outputs import is_whole
from dsna_lib.engine.pools import ALONE, Report, Workers, run_shares

__all__ = [
    "PRESETS",
    "CRFParams",
    "choose_backend",
    "class_probabilities",
    "marginals",
    "preset",
    "refine",
    "refine_split",
    "require",
]


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
    if not 0.5 < tau < 1:
        raise ValueError(f"tau={tau} must lie between 0.5 and 1 (both excluded)")
    if len(labels) == 0 or not all(0 <= k < num_classes for k in labels):
        raise ValueError(f"labels={list(labels)} must name at least one of the {num_classes} classes (0-based)")
    annotation, present = np.asarray(annotation), [0, *(k + 1 for k in sorted(set(labels)))]
    strange = np.setdiff1d(annotation, [*present, VOID])
    if strange.size:
        raise ValueError(f"the annotation holds {strange[0]}, which is neither background, void, nor one of the labels")
    z = np.zeros((num_classes + 1, *annotation.shape), np.float32)
    z[present] = np.where(annotation == VOID, 1 / len(present), (1 - tau) / (len(present) - 1))  # Eq. 12; 13, c != m
    for c in present:
        z[c][annotation == c] = tau  # Eq. 13, c = m
    return z


def refine(
    image: np.ndarray,
    probabilities: np.ndarray,
    params: CRFParams | str = "sec",
    backend: str = "auto",
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Dense CRF: the likeliest class of each pixel, ``(H, W)`` uint8, never void; see :func:`marginals`."""
    return marginals(image, probabilities, params, backend, device).argmax(axis=0).astype(np.uint8)


def marginals(
    image: np.ndarray,
    probabilities: np.ndarray,
    params: CRFParams | str = "sec",
    backend: str = "auto",
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Dense CRF: how likely each class is at each pixel once the picture's edges had their say.

    Args:
        image: ``(H, W, 3)`` uint8, raw RGB.
        probabilities: ``(K, H, W)``; classes that are 0 everywhere take no part.
        params: parameters or the name of a preset.
        backend, device: who computes it, and where; see :func:`choose_backend`.

    Returns:
        ``(K, H, W)`` float32, sums to 1 over the classes that take part; 0 for the others.

    Raises:
        ValueError: the picture is not raw RGB, or the sizes differ.
        ImportError: see :func:`choose_backend`.
    """
    params, backend = preset(params), choose_backend(backend, device)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the CRF wants the raw (H, W, 3) uint8 picture, not {image.shape} {image.dtype}")
    if image.shape[:2] != probabilities.shape[1:]:
        raise ValueError(f"the picture is {image.shape[:2]} and the probabilities {probabilities.shape[1:]}")
    present = np.flatnonzero(probabilities.any(axis=(1, 2)))
    result = np.zeros(probabilities.shape, np.float32)
    if len(present) < 2:  # nothing to choose from
        result[present] = 1
        return result
    unary = -np.log(np.clip(probabilities[present], 1e-5, 1)).astype(np.float32)
    if backend == "pydensecrf":
        result[present] = _by_pydensecrf(image, unary, params)
    else:
        # Not every torch that serves here has what the lattice takes (`embedding_bag`) for Apple's GPUs.
        result[present] = mean_field.marginals(image, unary, params, device if _on_cuda(device) else "cpu")
    return result


def choose_backend(name: str = "auto", device: torch.device | str = "cpu") -> str:
    """Who computes the CRF: ``"pydensecrf"`` or ``"torch"``.

    Args:
        name: one of them, or ``"auto"``: pydensecrf on a CPU, where it is installed, as it is the quicker one there;
            else torch.
        device: where the work is done; with Apple's GPU that is the CPU. pydensecrf works there whatever the device.

    Raises:
        SettingError: an unknown name.
        ImportError: pydensecrf is named, and not installed.
    """
    name = checked(name, Backend, {}, "backend")
    if name == "pydensecrf":
        _densecrf()
    if name != "auto":
        return name
    return "pydensecrf" if not _on_cuda(device) and _is_installed() else "torch"


def require(backend: str = "auto") -> None:
    """Find out early whether the CRF can run; where pydensecrf is named and missing, an ImportError says what to do."""
    choose_backend(backend)


def _on_cuda(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"


def _densecrf() -> ModuleType:
    try:
        import pydensecrf.densecrf
    except ImportError:
        raise ImportError(
            "pydensecrf is not installed: `pip install pydensecrf2` (up to Python 3.12; it does not build on 3.13), "
            "or let PyTorch compute the dense CRF (`crf_backend` torch)"
        ) from None
    return pydensecrf.densecrf


def _is_installed() -> bool:
    try:
        _densecrf()
    except ImportError:
        return False
    return True


def _by_pydensecrf(image: np.ndarray, unary: np.ndarray, params: CRFParams) -> np.ndarray:
    """The marginals ``(K, H, W)`` for unary energies ``(K, H, W)``."""
    crf = _densecrf().DenseCRF2D(image.shape[1], image.shape[0], len(unary))
    crf.setUnaryEnergy(np.ascontiguousarray(unary.reshape(len(unary), -1)))
    crf.addPairwiseGaussian(sxy=params.smooth_xy, compat=params.smooth_weight)
    appearance = {"sxy": params.bilateral_xy, "srgb": params.bilateral_rgb, "compat": params.bilateral_weight}
    crf.addPairwiseBilateral(rgbim=np.array(image, order="C"), **appearance)  # it wants one that it may write to
    return np.asarray(crf.inference(params.iterations)).reshape(unary.shape)


def refine_split(
    pictures: Pictures,
    annotations: str | Path,
    folder: str | Path,
    tau: float = 0.7,
    params: CRFParams | str = "sec",
    workers: Workers = ALONE,
    backend: str = "auto",
    device: str = "cpu",
) -> Report:
    """Refine a folder of annotations; a bad picture is reported, in the pictures' order, and the rest goes on.

    Args:
        pictures: whose image labels are used; masks are not read. One without any label stays background.
        annotations: folder with ``ID.png``.
        folder: where to; what is there already is skipped.
        tau: see :func:`class_probabilities`.
        params: parameters or the name of a preset.
        workers: who does it; each process needs about 0.5 GB.
        backend: see :func:`choose_backend`.
        device: see :func:`dsna_lib.engine.devices.choose_device`.

    Raises:
        SettingError: an unknown preset or backend.
        ImportError: see :func:`choose_backend`.
    """
    require(backend)
    how = tau, preset(params), backend, device
    work = partial(_refine_share, pictures, Path(annotations), Path(folder), *how)
    return run_shares(len(pictures), work, workers)


def _refine_share(
    pictures: Pictures,
    annotations: Path,
    folder: Path,
    tau: float,
    params: CRFParams,
    backend: str,
    device: str,
    places: range,
) -> Report:
    report, where = Report(), choose_device(device)
    for record in tqdm(pictures.records[places.start : places.stop], leave=False, disable=None, unit="picture"):
        path = folder / f"{record.id}.png"
        if is_whole(path):
            report.skipped.append(record.id)
            continue
        try:
            image = read_image(record.image)
            annotation = read_mask(annotations / path.name, image.shape[:2])
            mask = np.zeros_like(annotation)
            if record.labels:
                try:
                    probabilities = class_probabilities(annotation, record.labels, pictures.num_classes, tau)
                except ValueError as error:
                    raise PictureError(f"{annotations / path.name}: {error}") from error
                mask = refine(image, probabilities, params, backend, where)
            write_mask(path, mask)
            report.written.append(record.id)
        except (OSError, ValueError, MemoryError) as error:
            report.failed[record.id] = str(error) or type(error).__name__
    return report
