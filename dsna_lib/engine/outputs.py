"""What a folder holds of each picture: whole files, made of the picture and the labels as they are now."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.files import make_folder, plain, read_json, write_json
from dsna_lib.engine.runs import DIGITS, file_digest, locked

if TYPE_CHECKING:
    from dsna_lib.data.pictures import Pictures

NOTED = ".made-of.json"  # in a folder: id to a digest of all that its file was made of
# How many bytes from its end a whole file of a kind has which mark.
TAILS = {".png": (8, b"IEND\xaeB`\x82"), ".npz": (22, b"PK\x05\x06")}


@contextmanager
def filling(folder: str | Path) -> Iterator[None]:
    """Make a folder, and work in it while no other command does: who comes later waits.

    Raises:
        OSError: it cannot be made; the message says where.
    """
    make_folder(Path(folder))
    with locked(Path(folder) / "files"):
        yield


def is_whole(path: str | Path) -> bool:
    """Whether a PNG or NPZ file is there to its end: one that a crash has emptied or cut short is none.

    Example:
        >>> is_whole("/nowhere/cat.png")
        False
    """
    length, mark = TAILS[Path(path).suffix]
    try:
        with open(path, "rb") as file:
            file.seek(-length, os.SEEK_END)
            return file.read(len(mark)) == mark
    except OSError:  # not there, or shorter than that
        return False


def made_of(
    pictures: Pictures, *how: Mapping[str, Any], labels: bool = False, beside: Path | None = None
) -> dict[str, str]:
    """Id to a digest of all that decides what is made of a picture; without those that cannot be read.

    Args:
        pictures: whose files' content counts.
        how: plain values, the same for all of them, such as the identity of the folder's run.
        labels: whether their image labels count, too.
        beside: a folder whose ``ID.png`` count, too.
    """
    digests = {}
    for record in pictures.records:
        files = [record.image] if beside is None else [record.image, beside / f"{record.id}.png"]
        try:
            content = [file_digest(file) for file in files]
        except (OSError, DsnaError):
            continue
        known = plain([content, list(record.labels) if labels else None, *how])
        digests[record.id] = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:DIGITS]
    return digests


def discard_stale(folder: str | Path, suffix: str, digests: Mapping[str, str]) -> list[str]:
    """Delete a folder's files that were made of something else, or of who knows what; returns their ids.

    It is called before these files are made: the folder notes the digests at once, so that whatever is there of these
    pictures later is made of what they say, however often the work is stopped. What a killed program has left half
    written goes, too.

    Args:
        folder: with a file ``ID`` + `suffix` for each picture; other pictures' files stay.
        suffix: such as ``".png"``.
        digests: see :func:`made_of`.
    """
    folder, stale = Path(folder), []
    try:
        noted = read_json(folder / NOTED, {str: str})
    except (FileNotFoundError, ValueError):
        noted = {}
    for name in (name for name, digest in digests.items() if noted.get(name) != digest):
        path = folder / f"{name}{suffix}"
        if is_whole(path):
            stale.append(name)
        path.unlink(missing_ok=True)
    for left in folder.rglob(f".*{suffix}.????????"):  # see engine.files.write_atomically
        left.unlink(missing_ok=True)
    if noted | digests != noted:
        write_json(folder / NOTED, noted | digests)
    return stale
