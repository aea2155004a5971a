"""The downloader, against a server of our own on this machine."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import re
import sys
import tarfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from dsna_lib.data import download, voc
from dsna_lib.data.download import Archive, DownloadError, download_voc, fetch, unpack
from dsna_lib.data.pictures import read_mask, write_mask

BODY = bytes(range(256)) * 400  # 102,400 bytes


@dataclass
class Page:
    """What the server does at one address."""

    body: bytes = BODY
    cuts: list[int] = field(default_factory=list)  # after so many bytes the connection breaks, once each
    ranges: bool = True
    status: int = 200
    content_type: str = "application/x-tar"
    length: bool = True
    wait: float = 0.0  # seconds before the body


@pytest.fixture
def server(monkeypatch):
    """A server with `pages` to fill, `requests` (path, Range header) to look at, and `url(path)`."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv(download.ARCHIVES_VARIABLE, raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            self.server.requests.append((self.path, wanted))
            page = self.server.pages.get(self.path)
            if page is None or page.status != 200:
                self.send_error(page.status if page else 404)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and page.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(page.body) - 1}/{len(page.body)}")
            if page.length:
                self.send_header("Content-Length", str(len(page.body) - start))
            self.send_header("Content-Type", page.content_type)
            self.end_headers()
            time.sleep(page.wait)
            body = page.body[start:]
            self.wfile.write(body[: page.cuts.pop(0)] if page.cuts else body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.pages, server.requests = {}, []
    server.url = lambda path: f"http://127.0.0.1:{server.server_port}{path}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def archive(server, *paths: str, body: bytes = BODY, name: str = "data.tar") -> Archive:
    checksum = f"md5:{hashlib.md5(body).hexdigest()}"
    return Archive(name, tuple(server.url(path) for path in paths), len(body), checksum, "test data")


def test_fetch_downloads_and_leaves_nothing_else(server, tmp_path):
    server.pages["/a"] = Page()
    path = fetch(archive(server, "/a"), tmp_path / "new" / "folder")
    assert path.read_bytes() == BODY
    assert os.listdir(path.parent) == ["data.tar"]


def test_a_cut_connection_is_resumed_where_it_broke(server, tmp_path):
    server.pages["/a"] = Page(cuts=[30_000, 20_000])
    assert fetch(archive(server, "/a"), tmp_path).read_bytes() == BODY
    assert [wanted for _, wanted in server.requests] == [None, "bytes=30000-", "bytes=50000-"]


def test_a_later_run_resumes_the_part_of_an_earlier_one(server, tmp_path):
    server.pages["/a"] = Page()
    (tmp_path / "data.tar.part").write_bytes(BODY[:1000])
    assert fetch(archive(server, "/a"), tmp_path).read_bytes() == BODY
    assert server.requests == [("/a", "bytes=1000-")]


def test_a_finished_part_needs_no_request(server, tmp_path):
    (tmp_path / "data.tar.part").write_bytes(BODY)
    assert fetch(archive(server, "/a"), tmp_path).read_bytes() == BODY
    assert server.requests == []


def test_another_mirror_goes_on_where_the_first_died(server, tmp_path):
    server.pages |= {"/a": Page(cuts=[40_000, 0]), "/b": Page()}
    assert fetch(archive(server, "/a", "/b"), tmp_path).read_bytes() == BODY
    assert server.requests[-1] == ("/b", "bytes=40000-")


def test_a_mirror_without_ranges_still_completes_a_part(server, tmp_path):
    server.pages["/a"] = Page(ranges=False)
    (tmp_path / "data.tar.part").write_bytes(BODY[:5000])
    assert fetch(archive(server, "/a"), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("size", [5000, len(BODY), len(BODY) + 1])
def test_a_spoiled_part_is_fetched_anew_from_the_same_mirror(server, tmp_path, size):
    server.pages["/a"] = Page()
    (tmp_path / "data.tar.part").write_bytes(b"x" * size)
    assert fetch(archive(server, "/a"), tmp_path).read_bytes() == BODY
    assert server.requests[-1] == ("/a", None)


def test_wrong_bytes_send_us_to_the_next_mirror(server, tmp_path):
    server.pages |= {"/bad": Page(body=BODY[::-1]), "/good": Page()}
    assert fetch(archive(server, "/bad", "/good"), tmp_path).read_bytes() == BODY
    assert [path for path, _ in server.requests] == ["/bad", "/good"]
    assert server.requests[1] == ("/good", None)  # nothing of the wrong bytes is kept


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (Page(body=BODY[::-1]), "what it sent has md5 "),
        (Page(body=BODY[:-1]), "offers 102,399 bytes"),
        (Page(length=False), "offers an unknown number of bytes"),
        (Page(content_type="text/html"), "sends a web page instead of the file"),
        (Page(status=403), "HTTP 403 Forbidden"),
        (Page(cuts=[0]), "the connection closed after 0 of 102,400 bytes"),
    ],
)
def test_when_all_fail_the_error_says_what_to_do(server, tmp_path, page, reason):
    server.pages["/a"] = page
    wanted = archive(server, "/a", "/missing")
    with pytest.raises(DownloadError) as error:
        fetch(wanted, tmp_path)
    message = str(error.value)
    for part in (
        "data.tar",
        "102,400 bytes",
        f"md5 {hashlib.md5(BODY).hexdigest()}",
        str(tmp_path),
        download.ARCHIVES_VARIABLE,
        f"{server.url('/a')}: {reason}",
        f"{server.url('/missing')}: HTTP 404",
    ):
        assert part in message
    assert os.listdir(tmp_path) == []


def test_a_refused_connection_is_named(server, tmp_path):
    wanted = Archive("data.tar", ("http://127.0.0.1:1/a",), 1, "md5:00", "test data")
    with pytest.raises(DownloadError, match=r"127.0.0.1:1/a: .*refused"):
        fetch(wanted, tmp_path)


def test_a_silent_mirror_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.pages |= {"/silent": Page(wait=1.0), "/b": Page()}
    start = time.monotonic()
    assert fetch(archive(server, "/silent", "/b"), tmp_path).read_bytes() == BODY
    assert time.monotonic() - start < 0.9


def test_a_dribbling_mirror_is_given_up(monkeypatch):
    class Dribble:
        def read1(self, size):
            time.sleep(0.01)
            return b"x"

    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with pytest.raises(TimeoutError, match="slower than"):
        list(itertools.islice(download._chunks(Dribble()), 1000))


def test_a_mirror_that_keeps_breaking_is_given_up_but_its_bytes_are_kept(server, tmp_path):
    server.pages["/a"] = Page(cuts=[1] * 100)
    with pytest.raises(DownloadError, match=f"the connection broke {download.ATTEMPTS} times"):
        fetch(archive(server, "/a"), tmp_path)
    assert (tmp_path / "data.tar.part").read_bytes() == BODY[: download.ATTEMPTS]


def test_a_reply_from_the_wrong_place_is_refused(server, tmp_path, monkeypatch):
    server.pages["/a"] = Page()
    (tmp_path / "data.tar.part").write_bytes(BODY[:10])
    ask = download.urllib.request.Request
    monkeypatch.setattr(
        download.urllib.request, "Request", lambda url, headers: ask(url, headers={"Range": "bytes=20-"})
    )
    with pytest.raises(DownloadError, match="answers with bytes from 20 on when asked for those from 10"):
        fetch(archive(server, "/a"), tmp_path)


@pytest.mark.parametrize("how", ["target", "file", "folder", "environment"])
def test_a_local_file_comes_first(server, tmp_path, monkeypatch, how):
    server.pages["/a"] = Page()
    place = tmp_path / "here"
    place.mkdir()
    (place / "data.tar").write_bytes(BODY)
    target, local = (place if how == "target" else tmp_path / "target"), None
    if how == "environment":
        monkeypatch.setenv(download.ARCHIVES_VARIABLE, str(place))
    elif how != "target":
        local = place / "data.tar" if how == "file" else place
    assert fetch(archive(server, "/a"), target, local) == place / "data.tar"
    assert server.requests == []


def test_a_wrong_file_in_the_folder_is_replaced_by_the_right_one(server, tmp_path):
    server.pages["/a"] = Page()
    (tmp_path / "data.tar").write_bytes(b"half")
    assert fetch(archive(server, "/a"), tmp_path).read_bytes() == BODY
    (tmp_path / "data.tar").write_bytes(b"half")
    server.pages.clear()
    with pytest.raises(DownloadError, match=r"data.tar: has 4 bytes instead of 102,400"):
        fetch(archive(server, "/a"), tmp_path)
    assert (tmp_path / "data.tar").read_bytes() == b"half"


def test_a_local_path_that_is_wrong_is_an_error_at_once(server, tmp_path):
    server.pages["/a"] = Page()
    with pytest.raises(DownloadError, match="nowhere: no such file or folder"):
        fetch(archive(server, "/a"), tmp_path, tmp_path / "nowhere")
    (tmp_path / "other.tar").write_bytes(BODY[::-1])
    with pytest.raises(DownloadError, match=r"other.tar is not data.tar .*has md5"):
        fetch(archive(server, "/a"), tmp_path / "target", tmp_path / "other.tar")
    assert server.requests == []


def test_a_disk_without_room_is_refused_before_the_download(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DownloadError, match=r"needs 102,400 more bytes in .*10 are free: make room"):
        fetch(archive(server, "/a"), tmp_path)
    assert server.requests == []


def test_a_disk_that_fills_up_is_not_blamed_on_the_mirror(server, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DownloadError, match=r"cannot write big.part: No space left on device; make room .* is kept"):
        download._write(Full(), b"bytes", Path("big.part"))
    server.pages |= {"/a": Page(), "/b": Page()}
    monkeypatch.setattr(download, "_write", Mock(side_effect=DownloadError("full")))
    with pytest.raises(DownloadError, match="full"):
        fetch(archive(server, "/a", "/b"), tmp_path)
    assert [path for path, _ in server.requests] == ["/a"]


def test_an_unwritable_folder_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot write to .*file.*; choose another folder"):
        fetch(archive(server, "/a"), tmp_path / "file" / "folder")


def tar_bytes(members: dict[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content) if isinstance(content, bytes) else 0
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.filename = name  # ZipInfo tidies the name up; an attacker's tool would not
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [tar_bytes, zip_bytes])
def test_unpack_makes_the_folder_or_a_part_of_it(tmp_path, make):
    path = tmp_path / "data"
    path.write_bytes(make({"top/inner/a.txt": b"a", "top/b.txt": b"b"}))
    assert (unpack(path, tmp_path / "all") / "top/inner/a.txt").read_bytes() == b"a"
    assert os.listdir(unpack(path, tmp_path / "deep" / "part", inside="top/inner")) == ["a.txt"]
    assert sorted(os.listdir(tmp_path)) == ["all", "data", "deep"]
    assert os.listdir(tmp_path / "deep") == ["part"]


EVIL = ["../evil.txt", "fine/../../evil.txt", "/evil.txt", "C:\\evil.txt", "..\\evil.txt", "\\\\host\\share\\evil.txt"]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("make", [tar_bytes, zip_bytes])
def test_members_that_would_land_elsewhere_are_refused(tmp_path, make, name):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    path = tmp_path / "data"
    path.write_bytes(make({"fine/good.txt": b"good", name: b"evil"}))
    with pytest.raises(DownloadError, match="points outside the archive"):
        unpack(path, place / "out")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["a", "a/b", "data"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_special_files_in_tars_are_refused(tmp_path, kind):
    link = tarfile.TarInfo("top/link")
    link.type, link.linkname = kind, "../.."
    path = tmp_path / "data"
    path.write_bytes(tar_bytes({"top/good.txt": b"good", "top/link": link, "top/link/evil.txt": b"evil"}))
    with pytest.raises(DownloadError, match="'top/link' is a link or special file"):
        unpack(path, tmp_path / "out")
    assert os.listdir(tmp_path) == ["data"]


def test_links_in_zips_are_refused(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(zip_bytes({"link": b"../.."}, mode=0o120777))
    with pytest.raises(DownloadError, match="'link' is a link or special file"):
        unpack(path, tmp_path / "out")
    path.write_bytes(zip_bytes({"plain": b"x"}, mode=0o100644))
    assert (unpack(path, tmp_path / "out") / "plain").read_bytes() == b"x"


def test_a_damaged_archive_leaves_nothing(tmp_path):
    path = tmp_path / "data.tar"
    whole = tar_bytes({"top/a.bin": BODY, "top/b.bin": BODY})
    for content in (whole[: len(whole) // 2], b"no archive at all", tar_bytes({"a": BODY}, "w:gz")[:-300]):
        path.write_bytes(content)
        with pytest.raises(DownloadError, match="is damaged"):
            unpack(path, tmp_path / "out")
        assert os.listdir(tmp_path) == ["data.tar"]


def test_a_killed_unpack_leaves_nothing_half_and_the_next_one_succeeds(tmp_path, monkeypatch):
    path = tmp_path / "data.tar"
    path.write_bytes(tar_bytes({"top/a.bin": b"a", "top/b.bin": b"b"}))
    extract = tarfile.TarFile.extract

    def killed(self, member, *args, **kwargs):
        extract(self, member, *args, **kwargs)
        assert (tmp_path / ".out.unpacking" / "top" / "a.bin").is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "extract", killed)
    monkeypatch.setattr(download.shutil, "rmtree", lambda *args, **kwargs: None)  # a kill -9 cleans nothing up
    with pytest.raises(KeyboardInterrupt):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.unpacking").is_dir()
    monkeypatch.undo()
    (tmp_path / ".out.unpacking" / "stale.txt").touch()
    assert sorted(os.listdir(unpack(path, tmp_path / "out") / "top")) == ["a.bin", "b.bin"]
    assert sorted(os.listdir(tmp_path)) == ["data.tar", "out"]
    assert not (tmp_path / "out" / "stale.txt").exists()


def test_unpack_overwrites_nothing(tmp_path):
    path = tmp_path / "data.tar"
    path.write_bytes(tar_bytes({"top/a.bin": b"a"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(DownloadError, match="out exists already"):
        unpack(path, tmp_path / "out")
    with pytest.raises(DownloadError, match="holds no folder VOCdevkit"):
        unpack(path, tmp_path / "other", inside="VOCdevkit")
    assert os.listdir(tmp_path / "out") == ["mine.txt"]


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "data.tar"
    path.write_bytes(tar_bytes({"top/a.bin": b"a"}))
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(tarfile.TarFile, "extract", Mock(side_effect=full))
    with pytest.raises(DownloadError, match=r"cannot unpack .*data.tar into .*out: No space left on device"):
        unpack(path, tmp_path / "out")
    assert os.listdir(tmp_path) == ["data.tar"]


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


def test_download_voc_names_both_files_when_nothing_answers(tiny, tmp_path):
    tiny.pages.clear()
    with pytest.raises(DownloadError) as error:
        download_voc(tmp_path)
    for part in (
        *(str(a) for a in (download.VOC2012, download.SBD)),
        str(tmp_path),
        "/voc: HTTP 404",
        "/sbd: HTTP 404",
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


def test_scipy_is_asked_for_before_the_download(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DownloadError, match="pip install scipy"):
        download_voc(tmp_path)
    assert tiny.requests == []


@pytest.mark.parametrize("wanted", [download.VOC2012, download.SBD], ids=lambda a: a.name)
def test_the_real_archives_are_well_formed(wanted):
    algorithm, digest = wanted.checksum.split(":")
    assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
    assert wanted.size > 1_000_000_000
    assert len(set(wanted.urls)) == len(wanted.urls) >= 2
    assert all(re.fullmatch(rf"https?://\S+/{re.escape(wanted.name)}", url) for url in wanted.urls)
