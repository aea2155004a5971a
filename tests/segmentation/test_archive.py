"""Masks for VOC's evaluation server."""

from __future__ import annotations

import os
import tarfile

import numpy as np
import pytest
from PIL import Image
from samples import MIXED

from dsna_lib.data import write_mask
from dsna_lib.segmentation.archive import server_archive
from dsna_lib.segmentation.training import AnnotationError


def test_the_servers_archive(mixed, tmp_path):
    for k, record in enumerate(mixed.records):
        write_mask(tmp_path / "crf" / f"{record.id}.png", np.full(MIXED[k], k, np.uint8))
    (tmp_path / "crf" / "stray.png").write_bytes(b"")
    path = server_archive(tmp_path / "crf", mixed, tmp_path / "results.tar.gz")
    assert path == tmp_path / "results.tar.gz"
    with tarfile.open(path, "r:gz") as archive:
        assert archive.getnames() == [f"results/VOC2012/Segmentation/comp6_test_cls/p{k}.png" for k in range(5)]
        with archive.extractfile(archive.getnames()[3]) as file:
            assert (np.asarray(Image.open(file)) == 3).all()


def test_the_archive_does_not_say_whose_files_they_were(mixed, tmp_path):
    for record in mixed.records:
        write_mask(path := tmp_path / "crf" / f"{record.id}.png", np.zeros((4, 4), np.uint8))
        if os.getuid() == 0:  # which is what is wanted: so be somebody else
            os.chown(path, 1, 1)
    with tarfile.open(server_archive(tmp_path / "crf", mixed, tmp_path / "results.tar.gz")) as archive:
        assert {(each.uid, each.gid, each.uname, each.gname) for each in archive} == {(0, 0, "", "")}


def test_masks_that_the_archive_lacks_are_named(mixed, tmp_path):
    for name in ("p0", "p3"):
        write_mask(tmp_path / "crf" / f"{name}.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "crf" / "p1.png").touch()
    with pytest.raises(AnnotationError, match="crf: 3 of 5 masks are missing: p1, p2, p4$"):
        server_archive(tmp_path / "crf", mixed, tmp_path / "results.tar.gz")
    assert not (tmp_path / "results.tar.gz").exists()


def test_the_archives_bytes_follow_from_the_masks(mixed, tmp_path):
    made = []
    for since, mode in ((1, 0o600), (10**9, 0o644)):
        for record in mixed.records:
            write_mask(path := tmp_path / "crf" / f"{record.id}.png", np.zeros((4, 4), np.uint8))
            os.utime(path, (since, since))
            path.chmod(mode)
        made.append(server_archive(tmp_path / "crf", mixed, tmp_path / f"{since}.tar.gz").read_bytes())
    assert made[0] == made[1]
    assert made[0][4:8] == bytes(4)  # since when, in gzip's header


def test_a_full_disk_keeps_the_archive_before(mixed, tmp_path, monkeypatch):
    for record in mixed.records:
        write_mask(tmp_path / "crf" / f"{record.id}.png", np.zeros((4, 4), np.uint8))
    path = server_archive(tmp_path / "crf", mixed, tmp_path / "made" / "results.tar.gz")
    before, add, count = path.read_bytes(), tarfile.TarFile.add, []

    def fill_up(self, *given, **options):
        count.append(1)
        if len(count) == 3:
            raise OSError(28, "No space left on device")
        add(self, *given, **options)

    monkeypatch.setattr(tarfile.TarFile, "add", fill_up)
    with pytest.raises(OSError, match=r"cannot write .*results.tar.gz: No space left on device"):
        server_archive(tmp_path / "crf", mixed, path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
