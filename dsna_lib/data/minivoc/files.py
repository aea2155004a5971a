"""The data set on disk: made whole or not at all, in the VOC layout, and found again on the next call."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

from PIL import Image

from dsna_lib.config.drawn import DrawnConfig
from dsna_lib.data import voc
from dsna_lib.data.minivoc.animals import CLASS_NAMES
from dsna_lib.data.minivoc.canvas import VERSION
from dsna_lib.data.minivoc.scene import draw
from dsna_lib.data.pictures import DataError, Pictures, write_mask
from dsna_lib.engine.files import move_folder, read_json
from dsna_lib.engine.pools import Workers, over_shares
from dsna_lib.engine.runs import locked

SPLITS = ("train", "val")
PNG_END = b"IEND\xaeB`\x82"  # the last bytes of a whole file
_VAL_START = 1_000_000  # validation pictures are numbered from here, whatever the size of the training split


def make(root: Path | str, **options: int) -> Path:
    """Write the data set in the VOC layout, whole or not at all.

    Beside VOC's ``JPEGImages`` (PNG files here), ``SegmentationClass`` and ``ImageSets/Segmentation`` there are
    ``SegmentationPart``, ``image_labels.json``, ``class_names.json`` and ``minivoc.json`` with the parameters.
    Validation pictures do not depend on ``train``, nor training pictures on ``val``.

    Args:
        root: the folder to make.
        options: ``seed``, ``train``, ``val``, ``size`` and ``workers`` of :class:`~dsna_lib.config.drawn.DrawnConfig`.
            Above 1, each worker starts a fresh Python, so a script that calls this needs the usual
            ``if __name__ == "__main__":``.

    Returns:
        ``root``; at once where the same data set already lies there.

    Raises:
        SettingError: an option out of its range.
        DataError: ``root`` holds a data set with other parameters, an incomplete one, or something else.
        OSError: it cannot be written; the message names ``root``.

    Example:
        >>> make("minivoc", train=40, val=10, size=96)  # doctest: +SKIP
        PosixPath('minivoc')
    """
    root, config = Path(root), DrawnConfig(**options)
    wanted = {"version": VERSION} | {name: value for name, value in asdict(config).items() if name != "workers"}
    if _holds(root, wanted):
        return root
    try:
        with locked(root.absolute()):
            if not _holds(root, wanted):  # who waited finds it done
                _make(root, config, wanted)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise OSError(error.errno, f"cannot write {root}: {reason}") from error
    return root


def _make(root: Path, config: DrawnConfig, wanted: dict[str, int]) -> None:
    """Draw all pictures beside ``root``, then move them there in one step."""
    ids = indices_of(config.train, config.val)
    folder = root.absolute().with_name(f".{root.absolute().name}.drawing")
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed program
    try:
        for name in ("JPEGImages", "SegmentationClass", "SegmentationPart", "ImageSets/Segmentation"):
            (folder / name).mkdir(parents=True)
        work = partial(_write, folder, config.seed, config.size, list(ids.items()))
        labels = [names for share in over_shares(len(ids), work, Workers(config.workers)) for names in share]
        for split in SPLITS:
            listed = "".join(f"{i}\n" for i in ids if i.startswith(split))
            (folder / "ImageSets/Segmentation" / f"{split}.txt").write_text(listed)
        tables = {"image_labels": dict(zip(ids, labels, strict=True)), "class_names": CLASS_NAMES, "minivoc": wanted}
        for name, table in tables.items():
            (folder / f"{name}.json").write_text(json.dumps(table, indent=1) + "\n")
        move_folder(folder, root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def indices_of(train: int, val: int) -> dict[str, int]:
    """The ids of so many pictures of the two splits, each with the number that it is drawn by."""
    numbers = {"train": range(train), "val": range(_VAL_START, _VAL_START + val)}
    return {f"{split}_{k:05d}": index for split in SPLITS for k, index in enumerate(numbers[split])}


def _write(folder: Path, seed: int, size: int, ids: list[tuple[str, int]], places: range) -> list[list[str]]:
    """Draw the pictures at some places into ``folder`` and return the names of their classes."""
    labels = []
    for name, index in ids[places.start : places.stop]:
        drawing = draw(seed, index, size)
        Image.fromarray(drawing.image).save(folder / "JPEGImages" / f"{name}.png", compress_level=3)
        write_mask(folder / "SegmentationClass" / f"{name}.png", drawing.mask)
        write_mask(folder / "SegmentationPart" / f"{name}.png", drawing.part)
        labels.append([CLASS_NAMES[label] for label in drawing.labels])
    return labels


def _holds(root: Path, wanted: dict[str, int]) -> bool:
    """Whether ``root`` holds the data set ``wanted``, and not nothing; anything else there is a DataError."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    card = root / "minivoc.json"
    if not card.is_file():
        raise DataError(f"{root} exists and is no embedded data set", "choose another folder")
    held = read_json(card)
    if held != wanted:
        raise DataError(f"{root} holds the data set {held}, not {wanted}", "delete it or choose another folder")
    again = f"delete {root}, and it is drawn again"
    for name in ("JPEGImages", "SegmentationClass", "SegmentationPart"):
        if sum(1 for _ in root.glob(f"{name}/*.png")) != wanted["train"] + wanted["val"]:
            raise DataError(f"{root / name} lacks pictures", again)
    try:
        splits = {split: voc.load(root, split) for split in SPLITS}
    except (FileNotFoundError, ValueError) as error:
        raise DataError(str(error), again) from error
    for split, pictures in splits.items():
        if len(pictures) != wanted[split] or pictures.class_names != CLASS_NAMES:
            raise DataError(f"{root}: its split {split} has other pictures or classes than were drawn", again)
        for record in pictures.records:
            for path in (record.image, record.mask, record.part):
                if path is None or not path.is_file() or not path.read_bytes().endswith(PNG_END):
                    raise DataError(f"{path or f'{root}: a mask of {record.id}'} is missing or cut short", again)
    return True


def cache_folder() -> Path:
    """Where data sets made on first use are kept: the environment variable ``DSNA_CACHE``, else the user's cache."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("DSNA_CACHE") or user_cache_dir("dsna-book"))


def load(split: str, root: Path | str | None = None, **options: int) -> Pictures:
    """Load a split, ``"train"`` or ``"val"``, of the data set, which is drawn on first use; with class and part masks.

    Args:
        split: which.
        root: its folder; by default one in :func:`cache_folder` for each choice of options. A data set that lies in
            ``root`` is taken as it is unless options are given.
        options: see :func:`make`.

    Raises:
        DataError: unknown split, or ``root`` holds something else.

    Example:
        >>> load("val").num_classes  # doctest: +SKIP
        10
    """
    if split not in SPLITS:
        raise DataError(f"the embedded data set has no split {split!r}", f"choose one of {', '.join(SPLITS)}")
    config = DrawnConfig(**options)
    tag = "-".join(f"{name}{getattr(config, name)}" for name in ("seed", "train", "val", "size"))
    folder = Path(root) if root is not None else cache_folder() / f"minivoc-v{VERSION}-{tag}"
    if options or not (folder / "minivoc.json").is_file():
        make(folder, **options)
    pictures = voc.load(folder, split)
    pictures.keep = root is None  # they are small and few
    return pictures
