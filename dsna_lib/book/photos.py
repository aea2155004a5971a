"""Single photographs: everything that one picture's maps say, as files that a person can look at.

Annotations and masks (palette PNGs, void 255) have the picture's own size. Heat maps, overlays and the CRF use a copy
whose longer side is at most `max_side` pixels (0: its own size): the CRF's parameters were chosen for pictures of about
500 pixels, and it would need minutes and gigabytes for a photograph of 20 megapixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dsna_lib import crf
from dsna_lib.annotate import pseudo_annotation
from dsna_lib.book import figures
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.segmentation import InferenceConfig
from dsna_lib.data import voc
from dsna_lib.data.pictures import VOID, Pictures, Record, read_image, read_mask, write_mask
from dsna_lib.engine.files import write_atomically
from dsna_lib.maps import MAP_KINDS, PictureMaps
from dsna_lib.segmentation.inference import probabilities, refined
from dsna_lib.segmentation.networks import SegmentationModel

UNSAFE = re.compile(r"[^\w.-]")  # in the name of a file
OWN_FILES = re.compile(rf"(annotation|annotation_crf|overlay|.+_({'|'.join(MAP_KINDS)}))\.png")


def free(folder: str | Path) -> Pictures:
    """Four photographs that anyone may show, under VOC's classes; nobody has outlined what is in them.

    scikit-image's cat (chelsea, CC0), astronaut (NASA, public domain) and motorcycle (of the Middlebury stereo
    benchmark of 2014), and matplotlib's Grace Hopper (US Navy, public domain).

    Args:
        folder: where they are written as ``ID.png``.
    """
    from matplotlib.cbook import get_sample_data
    from skimage import data  # of the book, not of the library: it need not be there

    shown = {
        "cat": (data.chelsea(), "cat"),
        "astronaut": (data.astronaut(), "person"),
        "motorcycle": (data.stereo_motorcycle()[0], "motorbike"),
        "grace_hopper": (read_image(Path(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))), "person"),
    }
    records = []
    for name, (image, label) in shown.items():
        path = Path(folder) / f"{name}.png"
        write_atomically(path, partial(Image.fromarray(image).save, format="PNG"))
        records.append(Record(name, path, (voc.CLASS_NAMES.index(label),)))
    return Pictures(records, voc.CLASS_NAMES)


def predicted_labels(picture_maps: PictureMaps) -> tuple[int, ...]:
    """The classes that the model thinks likelier than not, else its first choice; 0-based indices."""
    likely = (picture_maps.scores > 0).nonzero().flatten().tolist()
    return tuple(likely) or (int(picture_maps.scores.argmax()),)


def write_maps(
    record: Record, maps: PictureMaps, class_names: Sequence[str], folder: Path, config: AnnotationConfig, max_side: int
) -> dict[str, Any]:
    """Write what needs no CRF: heat maps ``CLASS_KIND.png``, ``annotation.png``, and ``overlay.png`` with it.

    Args:
        record: the photograph and the classes present.
        maps: its maps, from :func:`dsna_lib.maps.iterate_maps`.
        class_names: names of the C classes.
        folder: where to; files of an earlier call with other labels are removed from it.
        config: its thresholds.
        max_side: of heat maps and overlay, in pixels.

    Returns:
        ``picture``, ``folder``, ``labels`` (names), ``probability`` (class to 0..1, from the class scores) and
        ``share`` (of the picture, in 0..1: background, every class, void).

    Raises:
        PictureError: the picture cannot be read.
        ValueError: no labels.
        OSError: unwritable folder or full disk.
    """
    image, used = reduced(read_image(record.image), max_side), maps.maps.get("merged", maps.maps["discriminative"])
    thresholds = config.foreground_threshold, config.background_threshold
    annotation = pseudo_annotation(used, maps.features, record.labels, maps.size, *thresholds).cpu().numpy()
    views = {
        f"{UNSAFE.sub('_', class_names[c])}_{kind}.png": figures.heat(image, planes[c].cpu().numpy())
        for c in record.labels
        for kind, planes in maps.maps.items()
    }
    views["overlay.png"] = figures.overlay(image, _resized(annotation, image.shape[:2]))
    for name, view in views.items():
        _write_view(folder / name, view)
    write_mask(folder / "annotation.png", annotation)
    # What another call left would pass for a result of this one.
    for path in folder.iterdir():
        if OWN_FILES.fullmatch(path.name) and path.name not in {*views, "annotation.png"}:
            path.unlink()
    probability = maps.scores.sigmoid().tolist()
    return {
        "picture": str(record.image),
        "folder": str(folder),
        "labels": [class_names[c] for c in record.labels],
        "probability": {class_names[c]: round(probability[c], 4) for c in record.labels},
        "share": _shares(annotation, record.labels, class_names),
    }


def write_refined(
    record: Record,
    class_names: Sequence[str],
    folder: Path,
    config: AnnotationConfig,
    max_side: int,
    backend: str = "auto",
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Refine the ``annotation.png`` that :func:`write_maps` left into ``annotation_crf.png``, and renew the overlay.

    Args:
        record, class_names, folder: as there.
        config: its CRF.
        max_side: of what the CRF sees, in pixels.
        backend, device: see :func:`dsna_lib.crf.choose_backend`.

    Returns:
        ``share_crf``, and the ``crf_size`` (width, height) in pixels at which the CRF ran.

    Raises:
        ImportError: see :func:`dsna_lib.crf.choose_backend`.
    """
    image = read_image(record.image)
    own_size, image = image.shape[:2], reduced(image, max_side)
    annotation = _resized(read_mask(folder / "annotation.png", own_size), image.shape[:2])
    likely = crf.class_probabilities(annotation, record.labels, len(class_names), config.tau)
    mask = crf.refine(image, likely, config.crf, backend, device)
    write_mask(folder / "annotation_crf.png", _resized(mask, own_size))
    _write_view(folder / "overlay.png", figures.overlay(image, mask))
    return {"share_crf": _shares(mask, record.labels, class_names), "crf_size": image.shape[1::-1]}


def write_segmentation(
    picture: Path,
    model: SegmentationModel,
    folder: Path,
    config: InferenceConfig,
    max_side: int,
    backend: str = "auto",
) -> dict[str, Any]:
    """Segment one photograph, without any label: ``segmentation.png`` and ``overlay.png``.

    Args:
        picture: the photograph's file.
        model: a segmentation network.
        folder: where to.
        config: how the network is run.
        max_side: of what the network and the CRF see, in pixels.
        backend: of the CRF, which runs on the model's device, see :func:`dsna_lib.crf.choose_backend`.

    Returns:
        ``picture``, ``folder``, ``size`` (width, height) at which it was segmented, and ``share`` (of the picture, in
        0..1: background and every class that it shows).

    Raises:
        PictureError: the picture cannot be read.
        RuntimeError: out of memory.
        ImportError: see :func:`dsna_lib.crf.choose_backend`.
    """
    image = read_image(picture)
    own_size, image = image.shape[:2], reduced(image, max_side)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    made = probabilities(model, batch, config.scales, config.flip, config.precision)[0]
    likely = made.cpu().numpy()
    if config.crf == "none":
        mask = likely.argmax(axis=0).astype(np.uint8)
    else:
        mask = refined(image, likely, config.crf, backend, made.device)
    write_mask(folder / "segmentation.png", _resized(mask, own_size))
    _write_view(folder / "overlay.png", figures.overlay(image, mask))
    assert model.config is not None, "it comes from a file"
    shares = _shares(mask, [int(c) - 1 for c in np.unique(mask) if c], model.config.class_names)
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


def _resized(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A mask ``(H, W)`` at another (height, width), by nearest neighbor."""
    return np.array(Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST))


def _write_view(path: Path, pixels: np.ndarray) -> None:
    write_atomically(path, lambda file: Image.fromarray(pixels).save(file, format="PNG"))


def _shares(mask: np.ndarray, labels: Sequence[int], class_names: Sequence[str]) -> dict[str, float]:
    """Which share of a mask each class has, in 0..1."""
    counts = np.bincount(mask.ravel(), minlength=VOID + 1) / mask.size
    indices = {"background": 0, **{class_names[c]: c + 1 for c in labels}, "void": VOID}
    return {name: round(float(counts[k]), 4) for name, k in indices.items()}
