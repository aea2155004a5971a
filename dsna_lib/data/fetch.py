"""Fetching one archive, and unpacking it: ordered mirrors, resumable, verified, and nothing left half done."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import stat
import tarfile
import time
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.files import move_folder

ARCHIVES_VARIABLE = "DSNA_ARCHIVES"
TIMEOUT = 30.0  # seconds without a byte, and the window over which the speed is watched
MIN_SPEED = 1024  # bytes a second; a mirror that dribbles more slowly is given up
PAUSE = 1.0  # seconds before a cut connection is taken up again
ATTEMPTS = 20  # cut connections per mirror, each of which brought something


class DownloadError(DsnaError, RuntimeError):
    """Data that cannot be fetched or unpacked; the message says what to do."""


@dataclass(frozen=True)
class Archive:
    """A file to fetch."""

    name: str  #: its file name
    urls: tuple[str, ...]  #: where it may be had, best first
    size: int  #: bytes
    checksum: str  #: ``algorithm:hex``, against damage; against malice are the checks in :func:`unpack`
    kind: str  #: what it holds, in words for messages

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}; {self.size:,} bytes, {self.checksum.replace(':', ' ')})"


def fetch(archive: Archive, folder: str | Path, local: str | Path | None = None) -> Path:
    """Find or download an archive; whatever is returned has the right size and checksum.

    Looks at `local` (the file, or a folder that may hold it), at the folder in ``DSNA_ARCHIVES`` and in `folder`; then
    tries the mirrors in order. An interrupted download stays in `folder` as ``NAME.part`` and is taken up again, from
    whichever mirror answers.

    Raises:
        DownloadError: `local` is not the archive, every mirror failed, or the disk is full or not writable.

    Example:
        >>> fetch(download.VOC2012, "data", local="/mnt/usb")  # doctest: +SKIP
        PosixPath('/mnt/usb/VOCtrainval_11-May-2012.tar')
    """
    folder, reasons = Path(folder), []
    if local is not None and not Path(local).exists():
        raise DownloadError(f"{local}: no such file or folder; {archive} was to be there")
    places = [Path(place) for place in (local, os.environ.get(ARCHIVES_VARIABLE), folder) if place]
    for path in (place / archive.name if place.is_dir() else place for place in places):
        if path.is_file():
            problem = _problem(path, archive)
            if problem is None:
                return path
            if local is not None and path == Path(local):
                raise DownloadError(f"{path} is not {archive}: {problem}")
            reasons.append(f"{path}: {problem}")
    part = folder / f"{archive.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.open("ab").close()
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    missing, free = archive.size - part.stat().st_size, shutil.disk_usage(folder).free
    if free < missing:
        raise DownloadError(f"{archive.name} needs {missing:,} more bytes in {folder}, {free:,} are free: make room")
    for url in archive.urls:
        try:
            _download(url, archive, part)
        except (OSError, http.client.HTTPException) as error:
            reasons.append(f"{url}: {str(error) or type(error).__name__}")
        else:
            return part.replace(folder / archive.name)
    if part.stat().st_size == 0:
        part.unlink()
    tried = "".join(f"\n  - {reason}" for reason in reasons)
    raise DownloadError(
        f"could not fetch {archive}.\nTried:{tried}\n"
        f"Get the file by other means and put it into {folder.absolute()} (or set {ARCHIVES_VARIABLE} to its folder), "
        "then run this again."
    )


def _problem(path: Path, archive: Archive) -> str | None:
    """What is wrong with a file that should be the archive; None where it is right."""
    size = path.stat().st_size
    if size != archive.size:
        return f"has {size:,} bytes instead of {archive.size:,}"
    algorithm, wanted = archive.checksum.split(":")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    return None if digest == wanted.lower() else f"has {algorithm} {digest} instead of {wanted}"


def _download(url: str, archive: Archive, part: Path) -> None:
    """Complete and verify `part` from one mirror, or raise why not; its bytes survive all but a wrong checksum."""
    inherited = part.stat().st_size > 0
    for _ in range(ATTEMPTS):
        before = part.stat().st_size
        try:
            if before < archive.size:
                _receive(url, archive, part, before)
        except (OSError, http.client.HTTPException):
            if part.stat().st_size == before:
                raise
            time.sleep(PAUSE)
            continue
        problem = _problem(part, archive)
        if problem is None:
            return
        part.write_bytes(b"")
        if not inherited:
            raise ConnectionError(f"what it sent {problem}")
        inherited = False  # the bytes of an earlier run or mirror may be at fault: once more, from the start
    raise ConnectionError(f"the connection broke {ATTEMPTS} times")


def _receive(url: str, archive: Archive, part: Path, offset: int) -> None:
    """Append what `part` lacks, by a Range request; a mirror that ignores it sends the beginning again: dropped."""
    headers = {"User-Agent": "dsna-book"} | ({"Range": f"bytes={offset}-"} if offset else {})
    label = f"{archive.name} from {urlsplit(url).netloc}"
    with (
        urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response,
        # Unbuffered: what was received is on disk whatever happens next, and a full disk shows at once.
        part.open("ab", buffering=0) as file,
        tqdm(total=archive.size, initial=offset, unit="B", unit_scale=True, desc=label, leave=False) as bar,
    ):
        position = _start(response, archive, offset)
        for chunk in _chunks(response):
            fresh = chunk[max(0, offset - position) :]
            position += len(chunk)
            _write(file, fresh, part)
            bar.update(len(fresh))
    if position < archive.size:
        raise ConnectionError(f"the connection closed after {position:,} of {archive.size:,} bytes")


def _start(response: Any, archive: Archive, offset: int) -> int:
    """Where the reply's body starts in the file; refuses replies that cannot be the archive (login or error pages)."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    start, total = (int(match[1]), int(match[2])) if match else (0, response.length)
    if response.headers.get_content_type() == "text/html":
        raise ConnectionError("sends a web page instead of the file")
    if total != archive.size:
        raise ConnectionError(f"offers {'an unknown number of' if total is None else f'{total:,}'} bytes")
    if start > offset:
        raise ConnectionError(f"answers with bytes from {start:,} on when asked for those from {offset:,}")
    return start


def _chunks(response: Any) -> Iterator[bytes]:
    """The body as it comes in; the socket's timeout alone would let a byte now and then hold us for days."""
    since, received = time.monotonic(), 0
    while chunk := response.read1(1 << 18):
        yield chunk
        received += len(chunk)
        elapsed = time.monotonic() - since
        if elapsed > TIMEOUT:
            if received < MIN_SPEED * elapsed:
                raise TimeoutError(f"slower than {MIN_SPEED} bytes a second")
            since, received = time.monotonic(), 0


def _write(file: BinaryIO, data: bytes, path: Path) -> None:
    """Write all; a full disk is no fault of the mirror and must not send us to the next one."""
    try:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        advice = "make room or check the disk, and run this again, what was fetched is kept"
        raise DownloadError(f"cannot write {path}: {error.strerror}; {advice}") from error


def unpack(
    archive_path: str | Path, folder: str | Path, inside: str = "", check: Callable[[Path], object] = Path.exists
) -> Path:
    """Unpack a tar or zip file, or the folder `inside` it, so that `folder` appears whole or not at all.

    Members that would land elsewhere (absolute paths, ``..``, drives) are refused, and so is every link and special
    file: the data sets here hold none. Only one program at a time may do this; see
    :func:`dsna_lib.engine.runs.locked`.

    Args:
        archive_path, folder, inside: from where to where.
        check: is shown what was unpacked before it counts, and raises where something is missing.

    Raises:
        DownloadError: a dangerous or damaged archive, a `folder` with something in it, a full disk.

    Example:
        >>> unpack("VOCtrainval_11-May-2012.tar", "VOC2012", inside="VOCdevkit/VOC2012")  # doctest: +SKIP
    """
    archive_path, folder = Path(archive_path), Path(folder)
    is_zip = zipfile.is_zipfile(archive_path)
    opener: Any = zipfile.ZipFile if is_zip else tarfile.open
    with staged(archive_path, folder, inside) as staging, opener(archive_path) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # for tars a second guard, from 3.11.4 on
        members = archive.infolist() if is_zip else archive
        for member in tqdm(members, desc=f"unpacking {archive_path.name}", unit=" files", leave=False):
            _check_member(archive_path, member)
            archive.extract(member, staging)
        if (staging / inside).is_dir():
            check(staging / inside)
    return folder


@contextmanager
def staged(archive_path: Path, folder: Path, inside: str = "") -> Iterator[Path]:
    """A temporary neighbor to fill from an archive, which becomes `folder` (or what is `inside` it) in one step."""
    refuse_filled(folder)
    staging = folder.with_name(f".{folder.name}.unpacking")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed run
        staging.mkdir(parents=True)
        yield staging
        if not (staging / inside).is_dir():
            raise DownloadError(f"{archive_path} holds no folder {inside}")
        move_folder(staging / inside, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"{archive_path} is damaged ({error}); delete it and fetch it again") from error
    except OSError as error:
        raise DownloadError(f"cannot unpack {archive_path} into {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def refuse_filled(folder: Path) -> None:
    """Raise :class:`DownloadError` where a folder to be made exists already with something in it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DownloadError(f"{folder} exists already and is not what was wanted: move it away and run this again")


def _check_member(archive: Path, member: tarfile.TarInfo | zipfile.ZipInfo) -> None:
    if isinstance(member, zipfile.ZipInfo):
        kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where a zip made on Windows does not say
        name, plain = member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR)
    else:
        name, plain = member.name, member.isfile() or member.isdir()
    path = PureWindowsPath(name)  # knows both slashes, drives and network shares
    if path.anchor or ".." in path.parts:
        raise DownloadError(f"{archive}: member {name!r} points outside the archive; nothing was unpacked")
    if not plain:
        raise DownloadError(f"{archive}: member {name!r} is a link or special file; nothing was unpacked")
