r"""Adversarial erasing (AE): mine a region, erase it, train a new classifier on what is left, and mine again.

A classifier looks at the part of an object that tells its class best. Once that part is gone it has to find the next
best one; after a few steps the parts together cover the object:

.. math::
    F^k_c = F^{k-1}_c \cup \{x : H^k_c(x) > \delta\}, \qquad
    I^{k+1}(x) = \begin{cases} \mu & x \in \bigcup_c F^k_c \\ I^1(x) & \text{elsewhere} \end{cases}

with :math:`H^k_c` the positive part of the class activation map (:mod:`dsna_lib.methods.cam`), scaled to 0..1, that the
classifier trained on all pictures :math:`I^k` gives for a present class c, :math:`F^0_c` empty, and :math:`\mu` the
mean color of the training pictures. A class for which nothing in the picture speaks any more adds nothing.

Source: Wei et al., "Object Region Mining with Adversarial Erasing: A Simple Classification to Semantic Segmentation
Approach", CVPR 2017, without its prohibitive segmentation learning: the rows *AE-step1* to *AE-step4* of Table III of
our paper.

Known from AE: a new classifier each step, trained on image labels alone; CAM for the maps; a hard threshold on them;
the mined regions erased with the mean color of all training pictures; the regions of all steps united. Decided here,
where AE is silent, ambiguous, or uses what nothing else in this book uses (*decisions*, a page of the book, has more):

- *Threshold.* AE keeps the "top 20 %" of a map: for us what lies above 0.2 of its range, not a fifth of the pixels. Its
  first step (44.9 in Table III) then lands where SEC's seed loss on CAM's cues does (45.4), both being one CAM.
- *Background.* Our own cue (Sec. III-C), of the features of step 1, since an erased picture has lost what it is about,
  and not AE's saliency detector, which was trained on masks.
- *Classifier.* The network, schedule and logistic loss of all our CAM rows, not AE's LargeFOV with a squared loss. Each
  starts anew from the backbone's weights and the same seed, so that the steps differ in their pictures only.
- *Stopping.* AE goes on until its classifier no longer learns. We take the number of steps; Table III has 4.
- *Conflicts.* Where united regions of several classes meet, the smallest wins, as for every method here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dsna_lib import annotate, maps
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data.pictures import Pictures, Record, read_image, without_masks, write_mask
from dsna_lib.engine import runs
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.files import write_atomically
from dsna_lib.engine.outputs import is_whole
from dsna_lib.methods.base import MapMethod, Stage
from dsna_lib.methods.cam import cam_maker
from dsna_lib.methods.explain import CLASSIFIER
from dsna_lib.paper import MIOU
from dsna_lib.training import train_once


def mean_color(pictures: Pictures) -> tuple[int, int, int]:
    """The mean color of all pixels of all pictures, rounded: RGB in 0..255."""
    total, count = np.zeros(3), 0
    for record in pictures.records:
        pixels = read_image(record.image).reshape(-1, 3)
        total += pixels.sum(axis=0, dtype=np.int64)
        count += len(pixels)
    red, green, blue = np.rint(total / count).astype(int).tolist()
    return red, green, blue


def erase(image: np.ndarray, region: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """A copy of a picture ``(H, W, 3)`` uint8 with a region ``(H, W)`` bool filled with one color, RGB in 0..255.

    Example:
        >>> erase(np.zeros((1, 2, 3), np.uint8), np.array([[True, False]]), (9, 8, 7)).tolist()
        [[[9, 8, 7], [0, 0, 0]]]
    """
    return np.where(region[..., None], np.asarray(color, np.uint8), image)


def mine(
    config: ModelConfig,
    pictures: Pictures,
    training: TrainingConfig,
    folder: str | Path | None = None,
    steps: int = 4,
    threshold: float = annotate.FOREGROUND_THRESHOLD,
    size: int = 224,
    batch_size: int = 16,
    precision: str = "no",
    workers: int = 0,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    background_threshold: float = annotate.BACKGROUND_THRESHOLD,
) -> list[Path]:
    """Annotate pictures from their image labels by steps of mining and erasing.

    ``folder/step-k/ID.png`` are the annotations after step k: the united regions of its steps, step 1's background,
    void elsewhere. Beside them: ``regions-k/ID.npz``, the same before conflicts are settled; ``erased-k/ID.png``, the
    pictures of the next step, as large as the data set in PNG; and ``classifier-k`` from step 2 on. Step 1 has CAM's
    ordinary classifier, which :func:`dsna_lib.training.train_once` keeps for all methods that need it.

    What is finished is not repeated, a killed call goes on where it stopped, and more steps can be asked for later.

    Args:
        config: CAM's classifier: head ``"single_stream"`` with dropout 0.
        pictures: with image labels; masks are not read. In one without any label nothing is mined or erased: all
            classifiers learn from it as it is, and it is annotated as background.
        training: of the classifiers.
        folder: where to; by default the folder that configuration, data and code determine.
        steps: how many, from 1 on.
        threshold, background_threshold: a map above the one is mined, a feature sum below the other is background.
        size, batch_size, precision, workers, scales, flip: see :func:`dsna_lib.maps.iterate_maps`.

    Returns:
        The folders of the annotations, ``step-1`` to ``step-{steps}``.

    Raises:
        ValueError: no step, or another head.
        PictureError, TrainingError: an unreadable picture, or a training that fails.
        RunError: `folder` was mined with other settings.
    """
    _check(config, steps)
    pictures, thresholds = without_masks(pictures), (threshold, background_threshold)
    views: dict[str, Any] = {"scales": tuple(scales), "flip": flip}
    identity = {
        "model": asdict(config),
        "data": {"digest": runs.data_digest(pictures), "pictures": len(pictures)},
        "training": training.identity(),
        "mining": {"thresholds": thresholds, "size": size, "precision": precision, **views},
    }
    run = runs.open_run("erase", identity, __name__, folder=folder)
    for step in range(1, steps + 1):
        # Locked step by step: who wants an early one need not wait for the last.
        with runs.locked(run.folder):
            runs.claim_folder(run.folder, run.stage, **run.identity)
            todo = _unfinished(pictures, run.folder / f"step-{step}", batch_size)
            if not todo:
                continue
            shown = pictures if step == 1 else _erased(pictures, run.folder, step - 1)
            # What belongs to the erasing stays in its folder; step 1 has CAM's ordinary classifier.
            model, _ = train_once(config, shown, training, None if step == 1 else run.folder / f"classifier-{step}")
            how = size, batch_size, precision, workers
            model = model.to(choose_device(training.device))
            made = maps.iterate_maps(model, shown, todo, *how, maker=cam_maker, **views)
            for picture in tqdm(made, total=len(todo), leave=False, disable=None, unit="picture"):
                _add(picture, pictures.records[picture.index], run.folder, step, thresholds)
            run.finish(steps=step)
    return [run.folder / f"step-{step}" for step in range(1, steps + 1)]


def _check(config: ModelConfig, steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps={steps}: mining takes at least 1 step")
    if config.head != "single_stream" or config.dropout != 0:
        raise ValueError(
            f"head {config.head!r} with dropout {config.dropout:g} is not CAM's classifier: "
            "use head 'single_stream' with dropout 0"
        )


def _unfinished(pictures: Pictures, folder: Path, batch_size: int) -> list[int]:
    """Pictures without an annotation, and those of their batch: a resumed call computes the very same batches."""
    missing = [k for k, record in enumerate(pictures.records) if not is_whole(folder / f"{record.id}.png")]
    batches = {k // batch_size for k in missing}
    return [k for k in range(len(pictures)) if k // batch_size in batches]


def _erased(pictures: Pictures, folder: Path, step: int) -> Pictures:
    """The pictures with everything erased that was mined up to this step, written where they are not yet."""
    records = [replace(r, image=folder / f"erased-{step}" / f"{r.id}.png") for r in pictures.records]
    missing = [pair for pair in zip(pictures.records, records, strict=True) if not is_whole(pair[1].image)]
    color = mean_color(pictures) if missing else ()
    for whole, record in tqdm(missing, leave=False, disable=None, unit="picture"):
        mined, _ = _read_regions(folder, step, whole)
        image = Image.fromarray(erase(read_image(whole.image), np.any(mined, axis=0), color))
        write_atomically(record.image, partial(image.save, format="PNG", compress_level=1))
    return Pictures(records, pictures.class_names)


def _add(picture: maps.PictureMaps, record: Record, folder: Path, step: int, thresholds: tuple[float, float]) -> None:
    """Unite what this step found in a picture with the steps before, and annotate it."""
    cues = annotate.cues(picture.maps["cam"], picture.features, record.labels, picture.size)
    mined, background = (region.cpu().numpy() for region in annotate.regions(cues, *thresholds))
    if step > 1:
        before, background = _read_regions(folder, step - 1, record)
        mined = before | mined
    path = folder / f"regions-{step}" / f"{record.id}.npz"
    write_atomically(path, lambda file: np.savez_compressed(file, mined=mined, background=background))
    united = annotate.combine(torch.from_numpy(mined), torch.from_numpy(background), record.labels)
    write_mask(folder / f"step-{step}" / f"{record.id}.png", united.numpy())


def _read_regions(folder: Path, step: int, record: Record) -> tuple[np.ndarray, np.ndarray]:
    """What was mined up to this step ``(K, H, W)``, one region a label, and the background ``(H, W)``: both bool."""
    with np.load(folder / f"regions-{step}" / f"{record.id}.npz") as stored:
        return stored["mined"], stored["background"]


@dataclass(frozen=True)
class AdversarialErasing(MapMethod):
    """The annotations after some steps. Those before are made on the way, and shared with the rows that show them."""

    steps: int = 1

    @property
    def trains(self) -> frozenset[str]:
        """CAM's classifier, and one for the erased pictures of each step before the last."""
        return super().trains | {f"erased {step} times" for step in range(1, self.steps)}

    def annotate(self, stage: Stage) -> Path:
        """Mine all pictures that classifiers learn from, and refine what belongs to the stage's own."""
        config, limits = replace(stage.model, **asdict(self.head)), stage.annotation
        how = asdict(stage.maps) | {"background_threshold": limits.background_threshold}
        steps = mine(config, stage.mining, stage.training, None, self.steps, limits.foreground_threshold, **how)
        return stage.refine(steps[-1])


ROWS = tuple(
    AdversarialErasing(f"AE, step {steps}", CLASSIFIER, "cam", cam_maker, paper=MIOU[f"AE, step {steps}"], steps=steps)
    for steps in (1, 2, 3, 4)
)
