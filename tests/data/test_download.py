"""PASCAL VOC and SBD in place, from tiny archives on a server of our own on this machine."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import tarfile
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
from mirror import Page, archive, tar_bytes
from PIL import Image

from dsna_lib.data import download, voc
from dsna_lib.data.download import download_voc
from dsna_lib.data.fetch import DownloadError
from dsna_lib.data.pictures import read_mask, write_mask


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 4), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def sbd_mat(mask: np.ndarray) -> bytes:
    """A .mat file as SBD has them: a struct GTcls with the mask in its field Segmentation."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, {"GTcls": {"Segmentation": mask, "Boundaries": np.zeros(1), "CategoriesPresent": [[1]]}})
    return buffer.getvalue()


XML = b"<annotation><object><name>cat</name></object></annotation>"
TRAIN, VAL = ["2007_000001", "2007_000002"], ["2007_000003"]
# SBD shares a picture with VOC's train and one with its val, and has two of its own.
SBD_TRAIN, SBD_VAL = ["2007_000001", "2008_000004"], ["2007_000003", "2008_000005"]
SBD_MASK = np.array([[0, 8, 8], [15, 0, 0]], np.uint8)


@pytest.fixture
def tiny(server, monkeypatch):
    """Tiny archives in the form of VOC's and SBD's, at the server."""
    base = "VOCdevkit/VOC2012"
    everything = sorted({*TRAIN, *VAL, *SBD_TRAIN, *SBD_VAL})
    members = {f"{base}/ImageSets/Segmentation/train.txt": "\n".join(TRAIN).encode()}
    members[f"{base}/ImageSets/Segmentation/val.txt"] = "\n".join(VAL).encode()
    members |= {f"{base}/JPEGImages/{i}.jpg": b"jpeg" for i in everything}
    members |= {f"{base}/Annotations/{i}.xml": XML for i in everything}
    members |= {f"{base}/SegmentationClass/{i}.png": png(8) for i in TRAIN + VAL}
    voc_tar = tar_bytes(members)
    base = "benchmark_RELEASE/dataset"
    members = {f"{base}/cls/{i}.mat": sbd_mat(SBD_MASK) for i in SBD_TRAIN + SBD_VAL}
    members["benchmark_RELEASE/benchmark_code_RELEASE/demo/datadir/cls/2008_000099.mat"] = b"a decoy"
    members[f"{base}/train.txt"] = "\n".join(SBD_TRAIN).encode()
    members[f"{base}/val.txt"] = "\n".join(SBD_VAL).encode()
    sbd_tar = tar_bytes(members, "w:gz")
    server.pages |= {"/voc": Page(voc_tar), "/sbd": Page(sbd_tar)}
    monkeypatch.setattr(download, "VOC2012", archive(server, "/voc", body=voc_tar, name="voc.tar"))
    monkeypatch.setattr(download, "SBD", archive(server, "/sbd", body=sbd_tar, name="benchmark.tgz"))
    monkeypatch.setitem(voc.SPLIT_SIZES, "train_aug", 4)
    return server


def test_download_voc_puts_everything_in_place(tiny, tmp_path):
    folder = download_voc(tmp_path)
    assert folder == tmp_path / "VOCdevkit" / "VOC2012"
    assert voc.split_ids(folder, "train_aug") == [*TRAIN, "2008_000004", "2008_000005"]
    masks = folder / "SegmentationClassAug"
    assert sorted(os.listdir(masks)) == ["2008_000004.png", "2008_000005.png"]  # VOC's own masks stay VOC's
    np.testing.assert_array_equal(read_mask(masks / "2008_000004.png"), SBD_MASK)
    assert [record.mask is not None for record in voc.load(folder, "train_aug").records] == [True] * 4
    assert sorted(os.listdir(tmp_path)) == ["VOCdevkit", "benchmark.tgz", "voc.tar"]
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_download_voc_fetches_only_what_is_missing(tiny, tmp_path):
    folder = download_voc(tmp_path, sbd=False)
    assert [path for path, _ in tiny.requests] == ["/voc"]
    assert not (folder / "SegmentationClassAug").exists()
    (tmp_path / "voc.tar").unlink()
    download_voc(tmp_path)
    assert [path for path, _ in tiny.requests] == ["/voc", "/sbd"]
    (tmp_path / "benchmark.tgz").unlink()
    assert download_voc(tmp_path) == download_voc(folder) == folder
    assert len(tiny.requests) == 2


def test_download_voc_takes_archives_that_are_here(tiny, tmp_path):
    download_voc(tmp_path / "first")
    before = len(tiny.requests)
    folder = download_voc(tmp_path / "second", archives=tmp_path / "first")
    assert (folder / "ImageSets/Segmentation/train_aug.txt").is_file()
    assert os.listdir(tmp_path / "second") == ["VOCdevkit"]
    assert len(tiny.requests) == before


def test_download_voc_reads_the_list_off_masks_made_elsewhere(tiny, tmp_path):
    folder = download_voc(tmp_path, sbd=False)
    masks = folder / "SegmentationClassAug"
    masks.mkdir()
    for i in {*TRAIN, *VAL, *SBD_TRAIN, *SBD_VAL}:
        (masks / f"{i}.png").write_bytes(png(1))
    download_voc(tmp_path)
    assert voc.split_ids(folder, "train_aug") == [*TRAIN, "2008_000004", "2008_000005"]
    assert [path for path, _ in tiny.requests] == ["/voc"]


@pytest.mark.parametrize("place", ["benchmark_RELEASE/dataset", "VOCdevkit/VOCaug/dataset", "VOCdevkit/VOC2012/SBD"])
def test_sbds_own_folder_is_found_and_converted(tiny, tmp_path, place):
    folder = download_voc(tmp_path, sbd=False)
    assert download.train_aug_source(tmp_path) is None
    with pytest.raises(DownloadError, match="neither SegmentationClassAug nor SBD's folder"):
        download.add_train_aug(tmp_path)
    (tmp_path / place / "cls").mkdir(parents=True)
    for name, ids in {"train": SBD_TRAIN, "val": SBD_VAL}.items():
        (tmp_path / place / f"{name}.txt").write_text("\n".join(ids))
        for i in ids:
            (tmp_path / place / f"cls/{i}.mat").write_bytes(sbd_mat(SBD_MASK))
    assert download.train_aug_source(tmp_path) == tmp_path / place
    download_voc(tmp_path)
    assert [path for path, _ in tiny.requests] == ["/voc"]
    assert voc.split_ids(folder, "train_aug") == [*TRAIN, "2008_000004", "2008_000005"]
    np.testing.assert_array_equal(read_mask(folder / "SegmentationClassAug/2008_000005.png"), SBD_MASK)
    assert download.train_aug_source(tmp_path) is None
    assert download.add_train_aug(tmp_path) == folder / download.TRAIN_AUG


def test_a_damaged_mask_of_sbd_is_named(tiny, tmp_path):
    folder, sbd = download_voc(tmp_path, sbd=False), tmp_path / "benchmark_RELEASE/dataset"
    (sbd / "cls").mkdir(parents=True)
    for name in ("train.txt", "val.txt"):
        (sbd / name).write_text("2008_000004")
    (sbd / "cls/2008_000004.mat").write_bytes(sbd_mat(SBD_MASK)[:99])
    with pytest.raises(DownloadError, match=r"dataset, 2008_000004.mat: is damaged"):
        download.add_train_aug(tmp_path)
    assert not (folder / "SegmentationClassAug").exists()


def test_a_wrong_count_is_said_and_nothing_is_written(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(voc.SPLIT_SIZES, "train_aug", 10582)
    with pytest.raises(DownloadError, match="train_aug comes out with 4 pictures instead of 10,582"):
        download_voc(tmp_path)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    assert not (folder / "SegmentationClassAug").exists()
    assert not (folder / "ImageSets/Segmentation/train_aug.txt").exists()
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "into .*SegmentationClassAug: No space left on device"),
        (EOFError("cut"), "benchmark.tgz is damaged"),
    ],
)
def test_masks_that_cannot_be_converted_leave_nothing_half(tiny, tmp_path, monkeypatch, fault, message):
    monkeypatch.setattr(download, "write_mask", Mock(side_effect=fault))
    with pytest.raises(DownloadError, match=message):
        download_voc(tmp_path)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    assert not [name for name in os.listdir(folder) if "SegmentationClassAug" in name]
    monkeypatch.setattr(download, "write_mask", write_mask)
    download_voc(tmp_path)
    assert len(os.listdir(folder / "SegmentationClassAug")) == 2


def test_a_picture_of_train_aug_without_mask_is_named(tiny, tmp_path):
    folder = download_voc(tmp_path, sbd=False)
    (folder / "SegmentationClass" / "2007_000002.png").unlink()
    with pytest.raises(DownloadError, match="1 pictures of train_aug have no mask, 2007_000002"):
        download_voc(tmp_path)


def test_two_programs_put_it_in_place_once(tiny, tmp_path, monkeypatch):
    """Each would go on with the other's unfinished file, and empty the folder into which the other unpacks."""
    for page in tiny.pages.values():
        page.wait = 0.2
    unpacked, unpack = [], download.unpack
    monkeypatch.setattr(download, "unpack", lambda *given, **how: unpacked.append(1) or unpack(*given, **how))
    with ThreadPoolExecutor(2) as programs:
        done = [programs.submit(download_voc, tmp_path) for _ in range(2)]
    assert [each.result() for each in done] == [tmp_path / "VOCdevkit" / "VOC2012"] * 2
    assert [path for path, _ in tiny.requests] == ["/voc", "/sbd"]
    assert unpacked == [1]


@pytest.mark.parametrize(
    "name, said",
    [
        ("JPEGImages/2007_000002.jpg", "1 of 2 pictures of train have no file, 2007_000002 for one"),
        ("SegmentationClass/2007_000003.png", "1 of 1 pictures of val have no mask, 2007_000003 for one"),
        ("Annotations/2007_000001.xml", "1 of 2 pictures of train have no usable image labels, 2007_000001 for one"),
    ],
)
def test_what_lacks_something_on_its_lists_does_not_count(tiny, tmp_path, monkeypatch, name, said):
    """Neither what was just unpacked, nor what has been there."""
    extract = tarfile.TarFile.extract

    def lossy(self, member, *given, **how):
        if not member.name.endswith(name):
            extract(self, member, *given, **how)

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "extract", lossy)
        with pytest.raises(DownloadError, match=f"^voc.tar: {said}; move it away and run this again"):
            download_voc(tmp_path, sbd=False)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    assert not folder.exists()
    download_voc(tmp_path, sbd=False)
    (folder / name).unlink()
    with pytest.raises(DownloadError, match=f"VOC2012: {said}"):
        download_voc(tmp_path, sbd=False)


def test_an_empty_picture_of_train_aug_is_none(tiny, tmp_path):
    folder = download_voc(tmp_path)
    (folder / "JPEGImages/2008_000004.jpg").write_bytes(b"")
    with pytest.raises(DownloadError, match="1 of 4 pictures of train_aug have no file, 2008_000004 for one"):
        download_voc(tmp_path)


def test_download_voc_names_both_files_when_nothing_answers(tiny, tmp_path):
    tiny.pages.clear()
    with pytest.raises(DownloadError) as error:
        download_voc(tmp_path)
    for part in (
        *(str(a) for a in (download.VOC2012, download.SBD)),
        str(tmp_path),
        "/voc: HTTP Error 404",
        "/sbd: HTTP Error 404",
    ):
        assert part in str(error.value)


def test_an_empty_folder_is_no_data_set(tiny, tmp_path):
    (tmp_path / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    assert len(os.listdir(download_voc(tmp_path) / "JPEGImages")) == 5


def test_download_voc_touches_no_folder_it_does_not_know(tiny, tmp_path):
    (tmp_path / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    (tmp_path / "VOCdevkit" / "VOC2012" / "mine.txt").touch()
    with pytest.raises(DownloadError, match="VOC2012 exists already"):
        download_voc(tmp_path)
    assert tiny.requests == []


@pytest.mark.parametrize("wanted", [download.VOC2012, download.SBD], ids=lambda a: a.name)
def test_the_real_archives_are_well_formed(wanted):
    algorithm, digest = wanted.checksum.split(":")
    assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
    assert wanted.size > 1_000_000_000
    assert len(set(wanted.urls)) == len(wanted.urls) >= 2
    assert all(re.fullmatch(rf"https?://\S+/{re.escape(wanted.name)}", url) for url in wanted.urls)
