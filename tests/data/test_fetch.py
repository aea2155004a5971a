"""Fetching an archive from a server of our own on this machine, and unpacking it."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from mirror import BODY, Page, archive, tar_bytes

from dsna_lib.data import fetch as fetching
from dsna_lib.data.fetch import Archive, DownloadError, fetch, unpack


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
        (Page(status=403), "HTTP Error 403: Forbidden"),
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
        fetching.ARCHIVES_VARIABLE,
        f"{server.url('/a')}: {reason}",
        f"{server.url('/missing')}: HTTP Error 404",
    ):
        assert part in message
    assert os.listdir(tmp_path) == []


def test_a_refused_connection_is_named(server, tmp_path):
    wanted = Archive("data.tar", ("http://127.0.0.1:1/a",), 1, "md5:00", "test data")
    with pytest.raises(DownloadError, match=r"127.0.0.1:1/a: .*refused"):
        fetch(wanted, tmp_path)


def test_a_silent_mirror_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "TIMEOUT", 0.2)
    server.pages |= {"/silent": Page(wait=1.0), "/b": Page()}
    start = time.monotonic()
    assert fetch(archive(server, "/silent", "/b"), tmp_path).read_bytes() == BODY
    assert time.monotonic() - start < 0.9


def test_a_dribbling_mirror_is_given_up(monkeypatch):
    class Dribble:
        def read1(self, size):
            time.sleep(0.01)
            return b"x"

    monkeypatch.setattr(fetching, "TIMEOUT", 0.1)
    with pytest.raises(TimeoutError, match="slower than"):
        list(itertools.islice(fetching._chunks(Dribble()), 1000))


def test_a_mirror_that_keeps_breaking_is_given_up_but_its_bytes_are_kept(server, tmp_path):
    server.pages["/a"] = Page(cuts=[1] * 100)
    with pytest.raises(DownloadError, match=f"the connection broke {fetching.ATTEMPTS} times"):
        fetch(archive(server, "/a"), tmp_path)
    assert (tmp_path / "data.tar.part").read_bytes() == BODY[: fetching.ATTEMPTS]


def test_a_reply_from_the_wrong_place_is_refused(server, tmp_path, monkeypatch):
    server.pages["/a"] = Page()
    (tmp_path / "data.tar.part").write_bytes(BODY[:10])
    ask = fetching.urllib.request.Request
    monkeypatch.setattr(
        fetching.urllib.request, "Request", lambda url, headers: ask(url, headers={"Range": "bytes=20-"})
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
        monkeypatch.setenv(fetching.ARCHIVES_VARIABLE, str(place))
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
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DownloadError, match=r"needs 102,400 more bytes in .*10 are free: make room"):
        fetch(archive(server, "/a"), tmp_path)
    assert server.requests == []


def test_a_disk_that_fills_up_is_not_blamed_on_the_mirror(server, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DownloadError, match=r"cannot write big.part: No space left on device; make room .* is kept"):
        fetching._write(Full(), b"bytes", Path("big.part"))
    server.pages |= {"/a": Page(), "/b": Page()}
    monkeypatch.setattr(fetching, "_write", Mock(side_effect=DownloadError("full")))
    with pytest.raises(DownloadError, match="full"):
        fetch(archive(server, "/a", "/b"), tmp_path)
    assert [path for path, _ in server.requests] == ["/a"]


def test_an_unwritable_folder_is_named(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"cannot write to .*file.*; choose another folder"):
        fetch(archive(server, "/a"), tmp_path / "file" / "folder")


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
    monkeypatch.setattr(fetching.shutil, "rmtree", lambda *args, **kwargs: None)  # a kill -9 cleans nothing up
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
