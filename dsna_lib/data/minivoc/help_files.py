"""What methods may be told beside image labels, on disk: a folder ``help`` in the data set's own, made whole or not.

It is apart from the data set, because drawing it takes twice as long and few need it. What lies where and what the
files hold is said in :mod:`dsna_lib.data.help`, which reads them, as it reads those of anybody else.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dsna_lib.config.drawn import HelpConfig
from dsna_lib.data.help import CARD, PLACES, SETS
from dsna_lib.data.minivoc.animals import CLASS_NAMES
from dsna_lib.data.minivoc.files import indices_of
from dsna_lib.data.minivoc.others import OTHER_NAMES
from dsna_lib.data.minivoc.places import places_of
from dsna_lib.data.minivoc.scene import VOID, draw
from dsna_lib.data.minivoc.sets import draw_clip, draw_others, draw_web
from dsna_lib.data.pictures import DataError, write_mask
from dsna_lib.engine.files import read_json, write_json
from dsna_lib.engine.pools import Workers, over_shares
from dsna_lib.engine.runs import locked

HELP_VERSION = 1  # raise it when a pixel or a place changes
ORIGIN = "simulated: read off what was drawn, told by nobody"
_STARTS = {"saliency": 2_000_000, "other_masks": 3_000_000, "web": 4_000_000, "videos": 5_000_000}  # first numbers


def make_help(root: Path | str, workers: int = 1, **options: int) -> Path:
    """Draw what may be told about a drawn data set into its folder ``help``, whole or not at all.

    Pictures of a set do not depend on how many there are of it, nor on other sets.

    Args:
        root: the data set's folder, see :func:`~dsna_lib.data.minivoc.files.make`.
        workers: processes that draw.
        options: ``saliency``, ``web``, ``videos``, ``frames`` and ``other_masks`` of
            :class:`~dsna_lib.config.drawn.HelpConfig`.

    Returns:
        The folder; at once where the same lies there.

    Raises:
        SettingError: an option out of its range.
        DataError: there is no drawn data set, or it has other help already.

    Example:
        >>> make_help(make("minivoc", train=40, val=10, size=96), web=40)  # doctest: +SKIP
        PosixPath('minivoc/help')
    """
    root, config = Path(root), HelpConfig(**options)
    if not (root / "minivoc.json").is_file():
        raise DataError(f"{root}: no drawn data set lies here", "make it first: `dsna data make`")
    drawn = read_json(root / "minivoc.json", {"seed": int, "size": int, "train": int, "val": int})
    folder = root / "help"
    wanted = {"version": HELP_VERSION, "origin": ORIGIN, "pictures": drawn, **asdict(config)}
    with locked(folder.absolute()):
        if not folder.exists():
            _make(folder, config, wanted, Workers(workers))
        card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
        if {name: value for name, value in card.items() if name != "checksums"} != wanted:
            raise DataError(f"{folder} holds other help than was asked for", "delete it, and it is drawn again")
    return folder


def _make(folder: Path, config: HelpConfig, wanted: dict[str, Any], workers: Workers) -> None:
    """Draw everything beside ``folder``, then move it there in one step."""
    drawn, draft = wanted["pictures"], folder.absolute().with_name(".help.drawing")
    seed, size, ids = drawn["seed"], drawn["size"], list(indices_of(drawn["train"], drawn["val"]).items())

    def in_shares(count: int, write: Callable[..., Iterable[Any]], *given: Any) -> list[Any]:
        work = partial(write, draft, seed, size, *given)
        return [each for share in over_shares(count, work, workers) for each in share]

    shutil.rmtree(draft, ignore_errors=True)  # left by a killed program
    try:
        (draft / "scribbles").mkdir(parents=True)
        rows = in_shares(len(ids), _write_places, ids)
        _write_table(draft / "points.csv", "id,x,y,class", [row for points, _ in rows for row in points])
        _write_table(draft / "boxes.csv", "id,left,top,right,bottom,class", [row for _, boxes in rows for row in boxes])
        _write_lists(draft / "web", in_shares(config.web, _write_web), CLASS_NAMES)
        clips = in_shares(config.videos, _write_clips, config.frames)
        _write_lists(draft / "videos", [frame for clip in clips for frame in clip], CLASS_NAMES)
        _write_lists(draft / "saliency", in_shares(config.saliency, _write_others, "saliency", 2), ("object",))
        others = in_shares(config.other_masks, _write_others, "other_masks", 3)
        _write_lists(draft / "other_masks", others, OTHER_NAMES)
        write_json(draft / CARD, wanted | {"checksums": {kind: checksum(draft, kind) for kind in (*PLACES, *SETS)}})
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_places(folder: Path, seed: int, size: int, ids: list[tuple[str, int]], places: range) -> list[Any]:
    """Write the scribbles of some pictures, and return the rows of their points and of their boxes."""
    rows = []
    for i, index in ids[places.start : places.stop]:
        told = places_of(draw(seed, index, size), seed, index)
        write_mask(folder / "scribbles" / f"{i}.png", told.scribbles)
        rows.append([[(i, *numbers, CLASS_NAMES[c]) for *numbers, c in kind] for kind in (told.points, told.boxes)])
    return rows


def _write_web(folder: Path, seed: int, size: int, places: range) -> list[tuple[str, list[str]]]:
    listed = []
    for k in places:
        drawing = draw_web(seed, _STARTS["web"] + k, size)
        _write_image(folder / "web", f"web_{k:05d}", drawing.image)
        listed.append((f"web_{k:05d}", [CLASS_NAMES[drawing.label]]))
    return listed


def _write_clips(folder: Path, seed: int, size: int, frames: int, places: range) -> list[list[tuple[str, list[str]]]]:
    listed = []
    for k in places:
        clip = draw_clip(seed, _STARTS["videos"] + k, size, frames)
        ids = [f"clip_{k:05d}/{frame:02d}" for frame in range(frames)]
        for i, image in zip(ids, clip.frames, strict=True):
            _write_image(folder / "videos", i, image)
        listed.append([(i, [CLASS_NAMES[clip.label]]) for i in ids])
    return listed


def _write_others(
    folder: Path, seed: int, size: int, kind: str, most: int, places: range
) -> list[tuple[str, list[str]]]:
    """Write pictures of other animals, with masks: of their classes, or of any object."""
    listed = []
    for k in places:
        i, drawing = f"{kind}_{k:05d}", draw_others(seed, _STARTS[kind] + k, size, most)
        mask, names = drawing.mask, [OTHER_NAMES[label] for label in drawing.labels]
        if kind == "saliency":
            mask, names = np.where(mask == VOID, mask, np.minimum(mask, 1)), ["object"]
        _write_image(folder / kind, i, drawing.image)
        write_mask(folder / kind / "SegmentationClass" / f"{i}.png", mask)
        listed.append((i, names))
    return listed


def _write_image(folder: Path, i: str, image: np.ndarray) -> None:
    path = folder / "JPEGImages" / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=3)


def _write_lists(folder: Path, listed: Sequence[tuple[str, list[str]]], class_names: Sequence[str]) -> None:
    """The lists of a set in the VOC layout: ids, image labels and names of classes."""
    split = folder / "ImageSets" / "Segmentation" / "train.txt"
    split.parent.mkdir(parents=True)
    split.write_text("".join(f"{i}\n" for i, _ in listed))
    write_json(folder / "image_labels.json", dict(listed))
    write_json(folder / "class_names.json", list(class_names))


def _write_table(path: Path, header: str, rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header.split(","), *rows])


def checksum(folder: Path, kind: str) -> str:
    """A checksum over a kind's pixels and texts, which is the same however a PNG file packs its pixels."""
    content = hashlib.sha256()
    for path in sorted([*folder.glob(f"{kind}.csv"), *folder.glob(f"{kind}/**/*.*")]):
        content.update(path.relative_to(folder).as_posix().encode())
        if path.suffix == ".png":
            with Image.open(path) as image:
                pixels = np.asarray(image)
            content.update(repr(pixels.shape).encode() + pixels.tobytes())
        else:
            content.update(path.read_bytes())
    return content.hexdigest()[:16]


def changed_help(root: Path | str) -> dict[str, str]:
    """Kinds of a drawn data set's help whose files are not those that were drawn, and what to do about it."""
    folder = Path(root) / "help"
    if not (folder / CARD).is_file():
        return {}
    drawn = read_json(folder / CARD, {"checksums": {str: str}})["checksums"]
    said = f"its files are not those that were drawn; delete {folder}, and draw it again"
    return {kind: f"{folder / kind}: {said}" for kind in drawn if checksum(folder, kind) != drawn[kind]}
