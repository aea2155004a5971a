"""Masks for VOC's evaluation server."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

from dsna_lib.data.pictures import Pictures
from dsna_lib.engine.errors import first_few
from dsna_lib.engine.files import write_atomically
from dsna_lib.engine.outputs import is_whole
from dsna_lib.segmentation.training import AnnotationError


def server_archive(folder: str | Path, pictures: Pictures, path: str | Path) -> Path:
    """Pack a folder's ``ID.png`` as VOC's evaluation server takes them, for the test set, whose masks are not public.

    The networks start from ImageNet's weights, so this is competition 6 (training data of one's own choice). The
    archive, a ``.tar.gz``, holds ``results/VOC2012/Segmentation/comp6_test_cls/ID.png``; its
    bytes follow from those of the masks.

    Raises:
        AnnotationError: masks that are missing; the message counts and names them.
        OSError: it cannot be written; the one before it stays.
    """
    masks = [Path(folder) / f"{record.id}.png" for record in pictures.records]
    if missing := [mask.stem for mask in masks if not is_whole(mask)]:
        raise AnnotationError(f"{folder}: {len(missing)} of {len(masks)} masks are missing: {first_few(missing)}")
    write_atomically(path, partial(_pack, masks))
    return Path(path)


def _pack(masks: Sequence[Path], file: IO[bytes]) -> None:
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for mask in masks:
            archive.add(mask, f"results/VOC2012/Segmentation/comp6_test_cls/{mask.name}", filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member without whose file it is here, and since when: the server need not know."""
    member.uid = member.gid = member.mtime = 0
    member.mode = 0o644
    member.uname = member.gname = ""
    return member
