"""Single photographs: everything that one picture's maps say, as files that a person can look at.

Into the folder of a picture go, for each class, ``CLASS_expansive.png``, ``CLASS_discriminative.png`` and
``CLASS_merged.png`` (heat maps over the picture), ``annotation.png`` (palette, void 255), ``annotation_crf.png``
(after the dense CRF) and ``overlay.png`` (the better of the two over the picture).

Annotations have the picture's own size. Heat maps, overlay and CRF use a copy whose longer side is at most
`max_side` pixels: the CRF's parameters were chosen for pictures of about 500 pixels, and it would need minutes
and gigabytes for a photograph of 20 megapixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dsna_lib import crf, figures, segmentation
from dsna_lib.annotate import FOREGROUND_THRESHOLD, pseudo_annotation
from dsna_lib.data.pictures import VOID, read_image, read_mask, write_atomically, write_mask
from dsna_lib.maps import KINDS, PictureMaps
from dsna_lib.segmentation import SegmentationModel

OWN_FILES = re.compile(rf"(annotation|annotation_crf|overlay|.+_({'|'.join(KINDS)}))\.png")
MAX_SIDE = 1024
# Chosen by eye on three photographs with the model that ships: its maps fade slowly, and at the paper's 0.2 they
# spill over. Nothing that is measured uses it.
SHOWN_THRESHOLD = 0.4
# A segmentation network knows objects at the size at which VOC's pictures, 500 pixels wide, showed them.
SEGMENTED_SIDE = 500
# And the one that ships learned them at about half of that: from crops of 225 pixels, to be quick on a CPU.
SHIPPED_SCALES = (0.45, 0.6, 0.75)


def predicted_labels(found: PictureMaps) -> tuple[int, ...]:
    """The classes that the model thinks likelier than not, else its first choice; 0-based indices."""
    likely = (found.scores > 0).nonzero().flatten().tolist()
    return tuple(likely) or (int(found.scores.argmax()),)


def write_maps(
    picture: str | Path,
    found: PictureMaps,
    labels: Sequence[int],
    class_names: Sequence[str],
    folder: str | Path,
    max_side: int = MAX_SIDE,
    foreground_threshold: float = FOREGROUND_THRESHOLD,
) -> dict[str, Any]:
    """Write everything that needs no CRF: heat maps, annotation and its overlay.

    Args:
        picture: the photograph's file.
        found: its maps, from :func:`dsna_lib.maps.compute`.
        labels: 0-based indices of the classes present.
        class_names: names of the C classes.
        folder: where to; files of an earlier call with other labels are removed from it.
        max_side: longer side of heat maps and overlay at most, in pixels; 0 for the picture's own size.
        foreground_threshold: see :func:`dsna_lib.annotate.pseudo_annotation`.

    Returns:
        ``picture``, ``folder``, ``labels`` (names), ``probability`` (class to 0..1, from the class scores) and
        ``share`` (of the picture, in 0..1: background, every class, void).

    Raises:
        PictureError: the picture cannot be read.
        ValueError: no labels.
        OSError: unwritable folder or full disk.
    """
    folder = Path(folder)
    image = reduced(read_image(picture), max_side)
    used = found.maps.get("merged", found.maps["discriminative"])
    annotation = pseudo_annotation(used, found.features, labels, found.size, foreground_threshold).cpu().numpy()
    views = {
        f"{_file_name(class_names[c])}_{kind}.png": figures.heat(image, one[c].cpu().numpy())
        for c in labels
        for kind, one in found.maps.items()
    }
    views["overlay.png"] = figures.overlay(image, resized(annotation, image.shape[:2]))
    for name, view in views.items():
        _write_view(folder / name, view)
    write_mask(folder / "annotation.png", annotation)
    written = {*views, "annotation.png"}
    # What another call left would pass for a result of this one.
    for path in folder.iterdir():
        if OWN_FILES.fullmatch(path.name) and path.name not in written:
            path.unlink()
    probability = found.scores.sigmoid().tolist()
    return {
        "picture": str(picture),
        "folder": str(folder),
        "labels": [class_names[c] for c in labels],
        "probability": {class_names[c]: round(probability[c], 4) for c in labels},
        "share": _shares(annotation, labels, class_names),
    }


def write_refined(
    picture: str | Path,
    labels: Sequence[int],
    class_names: Sequence[str],
    folder: str | Path,
    tau: float = 0.7,
    params: crf.CRFParams | str = "sec",
    max_side: int = MAX_SIDE,
) -> dict[str, Any]:
    """Refine the ``annotation.png`` that :func:`write_maps` left, and renew the overlay.

    Args:
        picture, labels, class_names, folder, max_side: as in :func:`write_maps`; the CRF runs at `max_side`.
        tau: see :func:`dsna_lib.crf.class_probabilities`.
        params: parameters of the CRF, or the name of a preset.

    Returns:
        ``share_crf``, and the ``crf_size`` (width, height) in pixels at which the CRF ran.

    Raises:
        ImportError: pydensecrf is not installed.
    """
    folder, image = Path(folder), read_image(picture)
    own_size, image = image.shape[:2], reduced(image, max_side)
    annotation = resized(read_mask(folder / "annotation.png", own_size), image.shape[:2])
    probabilities = crf.class_probabilities(annotation, labels, len(class_names), tau)
    refined = crf.refine(image, probabilities, params)
    write_mask(folder / "annotation_crf.png", resized(refined, own_size))
    _write_view(folder / "overlay.png", figures.overlay(image, refined))
    return {"share_crf": _shares(refined, labels, class_names), "crf_size": image.shape[1::-1]}


def write_segmentation(
    picture: str | Path,
    model: SegmentationModel,
    folder: str | Path,
    scales: Sequence[float] = segmentation.SCALES,
    flip: bool = False,
    params: crf.CRFParams | str | None = "segmentation",
    max_side: int = SEGMENTED_SIDE,
    precision: str = "no",
) -> dict[str, Any]:
    """Segment one photograph, without any label: ``segmentation.png`` (palette, its own size) and ``overlay.png``.

    Args:
        picture: the photograph's file.
        model: a segmentation network.
        folder: where to.
        scales, flip, precision: see :func:`dsna_lib.segmentation.probabilities`.
        params: of the CRF, or the name of a preset; None for no CRF.
        max_side: longer side at which the network and the CRF see it at most, in pixels; 0 for its own size.

    Returns:
        ``picture``, ``folder``, ``size`` (width, height) at which it was segmented, and ``share`` (of the picture, in
        0..1: background and every class that was found).

    Raises:
        PictureError: the picture cannot be read.
        RuntimeError: out of memory.
        ImportError: pydensecrf is not installed.
    """
    folder, image = Path(folder), read_image(picture)
    own_size, image = image.shape[:2], reduced(image, max_side)
    shown = torch.from_numpy(image).permute(2, 0, 1)[None]
    found = segmentation.probabilities(model, shown, scales, flip, precision)[0].cpu().numpy()
    mask = found.argmax(axis=0).astype(np.uint8) if params is None else segmentation.refined(image, found, params)
    write_mask(folder / "segmentation.png", resized(mask, own_size))
    _write_view(folder / "overlay.png", figures.overlay(image, mask))
    names = model.config.class_names
    shares = _shares(mask, [int(c) - 1 for c in np.unique(mask) if c], names)
    shares.pop("void")
    return {"picture": str(picture), "folder": str(folder), "size": image.shape[1::-1], "share": shares}


def summary(shown: dict[str, Any]) -> str:
    """What :func:`write_maps` and :func:`write_refined`, or :func:`write_segmentation`, returned, for people."""
    lines = [f"{shown['picture']} -> {shown['folder']}"]
    for name, share in shown["share"].items():
        line = f"  {name:<14}{share:6.1%} of the picture"
        if "share_crf" in shown:
            line += f", {shown['share_crf'][name]:6.1%} after the CRF"
        if name in shown.get("probability", ()):
            probability = shown["probability"][name]
            line += f"; the model is {probability:.0%} sure" + (": is it there?" if probability < 0.1 else "")
        lines.append(line)
    return "\n".join(lines)


def reduced(image: np.ndarray, max_side: int) -> np.ndarray:
    """The picture ``(H, W, 3)``, scaled down where its longer side exceeds `max_side` pixels (0: never)."""
    scale = max_side / max(image.shape[:2])
    if not 0 < scale < 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def resized(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask ``(H, W)`` at another (height, width), by nearest neighbor."""
    return np.array(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _file_name(class_name: str) -> str:
    return re.sub(r"[^\w.-]", "_", class_name)


def _write_view(path: Path, pixels: np.ndarray) -> None:
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def _shares(mask: np.ndarray, labels: Sequence[int], class_names: Sequence[str]) -> dict[str, float]:
    """Which share of a mask each class has, in 0..1."""
    counts = np.bincount(mask.ravel(), minlength=VOID + 1) / mask.size
    indices = {"background": 0, **{class_names[c]: c + 1 for c in labels}, "void": VOID}
    return {name: round(float(counts[k]), 4) for name, k in indices.items()}
