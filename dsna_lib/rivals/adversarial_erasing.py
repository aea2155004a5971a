r"""Adversarial erasing (AE): mine a region, erase it, train a new classifier on what is left, and mine again.

A classifier looks at the part of an object that tells its class best. Once that part is gone it has to find the next
best one; after a few steps the parts together cover the object:

.. math::
    F^k_c = F^{k-1}_c \cup \{x : H^k_c(x) > \delta\}, \qquad
    I^{k+1}(x) = \begin{cases} \mu & x \in \bigcup_c F^k_c \\ I^1(x) & \text{elsewhere} \end{cases}

with :math:`H^k_c` the positive part of the class activation map (:func:`dsna_lib.cams.look`), scaled to 0..1, that the
classifier trained on all pictures :math:`I^k` gives for a present class c, :math:`F^0_c` empty, and :math:`\mu` the
mean color of the training pictures. A class for which nothing in the picture speaks any more adds nothing.

Source: Wei et al., "Object Region Mining with Adversarial Erasing: A Simple Classification to Semantic Segmentation
Approach", CVPR 2017, without its prohibitive segmentation learning: the rows *AE-step1* to *AE-step4* of Table III of
our paper.

Known from AE: a new classifier each step, trained on image labels alone; CAM for the maps; a hard threshold on them;
the mined regions erased with the mean color of all training pictures; the regions of all steps united. Decided here,
where AE is silent, ambiguous, or uses what nothing else in this book uses:

- *Threshold.* AE keeps the "top 20 %" of a map. We read it as "above 0.2 of the map's range", by which every method
  here turns a map into foreground, not as "a fifth of the pixels": CAM and SEC cut at 20 % of the maximum, and AE's
  first step (44.9 in Table III) then lands where SEC's seed loss on such cues does (45.4), as it should, both being
  one CAM.
- *Background.* AE takes it from a saliency detector that was trained on masks. We have no such source and use the
  background cue of Sec. III-C of our paper, from the features of step 1, since an erased picture has lost what the
  cue is about. So our numbers are those of AE's mining, without its extra supervision.
- *Classifier.* The network, schedule and logistic loss of all our CAM rows, not AE's LargeFOV with a squared loss. Each
  starts anew from the backbone's weights and the same seed, so that the steps differ in their pictures only.
- *Stopping.* AE goes on until its classifier no longer learns. We take the number of steps; Table III has 4.
- *Conflicts.* Where united regions of several classes meet, the smallest wins, as for every method here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dsna_lib import annotate, cams, maps, runs
from dsna_lib.attention import ModelConfig
from dsna_lib.data import Pictures, Record, read_image, write_mask
from dsna_lib.data.pictures import without_masks, write_atomically
from dsna_lib.training import TrainingConfig, TrainingError


def mean_color(pictures: Pictures) -> tuple[int, int, int]:
    """The mean color of all pixels of all pictures, rounded: RGB in 0..255.

    Example:
        >>> mean_color(pictures)  # doctest: +SKIP
        (116, 111, 103)
    """
    total, count = np.zeros(3), 0
    for record in pictures.records:
        pixels = read_image(record.image)
        total += pixels.sum(axis=(0, 1), dtype=np.int64)
        count += pixels.shape[0] * pixels.shape[1]
    red, green, blue = (int(value) for value in np.rint(total / count))
    return red, green, blue


def erase(image: np.ndarray, region: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """Fill a region of a picture with one color.

    Args:
        image: ``(H, W, 3)`` uint8; it is left as it is.
        region: ``(H, W)`` bool, true where to erase.
        color: RGB in 0..255.

    Returns:
        ``(H, W, 3)`` uint8.

    Example:
        >>> erase(np.zeros((1, 2, 3), np.uint8), np.array([[True, False]]), (9, 8, 7)).tolist()
        [[[9, 8, 7], [0, 0, 0]]]
    """
    return np.where(region[..., None], np.asarray(color, np.uint8), image)


def mine(
    config: ModelConfig,
    pictures: Pictures,
    training: TrainingConfig,
    folder: str | Path,
    steps: int = 4,
    threshold: float = annotate.FOREGROUND_THRESHOLD,
    size: int = 224,
    batch_size: int = 16,
    precision: str = "no",
    workers: int = 0,
) -> list[Path]:
    """Annotate pictures from their image labels by steps of mining and erasing.

    ``folder/step-k/ID.png`` are the annotations after step k: the united regions of its steps, step 1's background,
    void elsewhere. Beside them: ``regions-k/ID.npz``, the same before conflicts are settled; ``erased-k/ID.png``, the
    pictures of the next step, as large as the data set in PNG; and ``classifier-k`` from step 2 on. Step 1 has CAM's
    ordinary classifier, which :func:`dsna_lib.runs.train_once` keeps for all methods that need it.

    What is finished is not repeated, a killed call goes on where it stopped, and more steps can be asked for later.

    Args:
        config: CAM's classifier: head ``"single_stream"`` with dropout 0.
        pictures: with image labels; masks are not read.
        training: of the classifiers.
        folder: where to.
        steps: how many, from 1 on.
        threshold: a map value above it, in 0..1, is mined.
        size, batch_size, precision, workers: see :func:`dsna_lib.maps.compute`.

    Returns:
        The folders of the annotations, ``step-1`` to ``step-{steps}``.

    Raises:
        ValueError: no step, another head, or a picture without a label.
        PictureError: an unreadable picture.
        TrainingError: `folder` was mined with other settings, or training fails.

    Example:
        >>> config = ModelConfig(pictures.class_names, head="single_stream", dropout=0.0)  # doctest: +SKIP
        >>> mine(config, pictures, TrainingConfig.quick(), "runs/erasing")[-1]             # doctest: +SKIP
        PosixPath('runs/erasing/step-4')
    """
    _check(config, pictures, steps)
    pictures, folder = without_masks(pictures), Path(folder)
    settings = {"threshold": threshold, "size": size, "precision": precision}
    data = {"digest": runs.data_digest(pictures), "pictures": len(pictures)}
    _claim(folder, {"model": asdict(config), "data": data, "training": training.decisive(), "mining": settings})
    device = "cuda" if torch.cuda.is_available() and training.device != "cpu" else "cpu"
    for step in range(1, steps + 1):
        todo = _unfinished(pictures, folder, step, batch_size)
        if not todo:
            continue
        shown = pictures if step == 1 else _erased(pictures, folder, step - 1)
        # Erased pictures have the ids and labels of the whole ones: only their folder tells their classifier apart.
        own = None if step == 1 else folder / f"classifier-{step}"
        model, _ = runs.train_once(config, shown, training, own)
        look = partial(cams.look, methods=["cam"])
        found = maps.compute(model.to(device), shown, todo, size, batch_size, precision, workers, look=look)
        for picture in tqdm(found, total=len(todo), leave=False, disable=None, unit="picture"):
            _add(picture, pictures.records[picture.index], folder, step, threshold)
    return [folder / f"step-{step}" for step in range(1, steps + 1)]


def _check(config: ModelConfig, pictures: Pictures, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps}: mining takes at least 1 step")
    if config.head != "single_stream" or config.dropout != 0:
        raise ValueError(
            f"head {config.head!r} with dropout {config.dropout:g} is not CAM's classifier: "
            "use head 'single_stream' with dropout 0"
        )
    if bare := [record.id for record in pictures.records if not record.labels]:
        raise ValueError(f"{len(bare)} of {len(pictures)} pictures, first {bare[0]!r}, have no label: leave them out")


def _claim(folder: Path, settings: dict) -> None:
    """Refuse a folder that was mined otherwise: its finished pictures would pass for this call's."""
    path, asked = folder / "mining.json", json.loads(json.dumps(settings))
    if path.is_file() and (before := runs.read_json(path)) != asked:
        differs = ", ".join(key for key in asked if before.get(key) != asked[key])
        raise TrainingError(f"{folder} was mined with other settings ({differs}); use another folder or delete it")
    runs.write_json(path, asked)


def _unfinished(pictures: Pictures, folder: Path, step: int, batch_size: int) -> list[int]:
    """Pictures without an annotation, and those of their batch: a resumed call computes the very same batches."""
    there = [(folder / f"step-{step}" / f"{record.id}.png").is_file() for record in pictures.records]
    batches = [range(start, min(start + batch_size, len(there))) for start in range(0, len(there), batch_size)]
    return [index for batch in batches if not all(there[i] for i in batch) for index in batch]


def _erased(pictures: Pictures, folder: Path, step: int) -> Pictures:
    """The pictures with everything erased that was mined up to this step, written where they are not yet."""
    records = [replace(r, image=folder / f"erased-{step}" / f"{r.id}.png") for r in pictures.records]
    missing = [pair for pair in zip(pictures.records, records, strict=True) if not pair[1].image.is_file()]
    color = _color(pictures, folder) if missing else None
    for whole, record in tqdm(missing, leave=False, disable=None, unit="picture"):
        mined, _ = _read_regions(folder, step, whole)
        image = Image.fromarray(erase(read_image(whole.image), mined.any(axis=0), color))
        write_atomically(record.image, partial(image.save, format="PNG", compress_level=1))
    return Pictures(records, pictures.class_names)


def _color(pictures: Pictures, folder: Path) -> tuple[int, int, int]:
    """:func:`mean_color`, kept in the folder: it takes a pass over all pictures."""
    path = folder / "mean-color.json"
    if not path.is_file():
        runs.write_json(path, mean_color(pictures))
    return tuple(runs.read_json(path))


def _add(picture: maps.PictureMaps, record: Record, folder: Path, step: int, threshold: float) -> None:
    """Unite what this step found in a picture with the steps before, and annotate it."""
    cues = annotate.cues(picture.maps["cam"], picture.features, record.labels, picture.size)
    found, background = (r.cpu().numpy() for r in annotate.regions(cues, threshold, annotate.BACKGROUND_THRESHOLD))
    if step > 1:
        mined, background = _read_regions(folder, step - 1, record)
        found = mined | found
    path = folder / f"regions-{step}" / f"{record.id}.npz"
    write_atomically(path, lambda file: np.savez_compressed(file, mined=found, background=background))
    united = annotate.combine(torch.from_numpy(found), torch.from_numpy(background), record.labels)
    write_mask(folder / f"step-{step}" / f"{record.id}.png", united.numpy())


def _read_regions(folder: Path, step: int, record: Record) -> tuple[np.ndarray, np.ndarray]:
    """What was mined up to this step ``(K, H, W)``, one region a label, and the background ``(H, W)``: both bool."""
    with np.load(folder / f"regions-{step}" / f"{record.id}.npz") as stored:
        return stored["mined"], stored["background"]
