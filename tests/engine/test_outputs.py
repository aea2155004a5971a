"""What lies in a folder counts where it is whole, and was made of the pictures and labels as they are now."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from dsna_lib.data import Pictures, write_mask
from dsna_lib.engine import outputs


@pytest.fixture
def split(tmp_path) -> Pictures:
    return tiny.pictures(tmp_path / "data", 3)


def test_a_file_counts_where_it_is_there_to_its_end(tmp_path):
    png, npz = tmp_path / "a.png", tmp_path / "a.npz"
    write_mask(png, np.zeros((9, 9), np.uint8))
    np.savez_compressed(npz, scores=np.zeros(9))
    for path in (png, npz):
        content = path.read_bytes()
        assert outputs.is_whole(path)
        for cut in (0, 3, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:cut])
            assert not outputs.is_whole(path)
        path.unlink()
        assert not outputs.is_whole(path)


def another_picture(pictures: Pictures) -> Pictures:
    Image.fromarray(np.zeros((20, 26, 3), np.uint8)).save(pictures.records[1].image)
    return pictures


def another_label(pictures: Pictures) -> Pictures:
    changed = replace(pictures.records[1], labels=(0,))
    return pictures.with_records([pictures.records[0], changed, pictures.records[2]])


def fill(folder: Path, digests: dict[str, str]) -> None:
    for name in digests:
        if not outputs.is_whole(folder / f"{name}.png"):
            write_mask(folder / f"{name}.png", np.zeros((4, 4), np.uint8))


@pytest.mark.parametrize("change, labels, stale", [
    (another_picture, False, ["p01"]),
    (another_picture, True, ["p01"]),
    (another_label, True, ["p01"]),
    (another_label, False, []),
])  # fmt: skip
def test_files_of_other_data_are_deleted(
    tmp_path, split, change: Callable[[Pictures], Pictures], labels: bool, stale: list[str]
):
    folder, how = tmp_path / "out", {"size": 32}
    digests = outputs.made_of(split, how, labels=labels)
    assert outputs.discard_stale(folder, ".png", digests) == []
    fill(folder, digests)
    assert outputs.discard_stale(folder, ".png", digests) == []
    assert len(list(folder.glob("*.png"))) == 3
    digests = outputs.made_of(change(split), how, labels=labels)
    assert outputs.discard_stale(folder, ".png", digests) == stale
    assert {path.stem for path in folder.glob("*.png")} == {"p00", "p01", "p02"} - set(stale)
    fill(folder, digests)
    assert outputs.discard_stale(folder, ".png", digests) == []


def test_a_stop_before_the_files_are_made_changes_nothing(tmp_path, split):
    """What is noted is about to be made; what is not there by then, is made later."""
    folder = tmp_path / "out"
    outputs.discard_stale(folder, ".png", outputs.made_of(split))
    fill(folder, outputs.made_of(split))
    digests = outputs.made_of(another_picture(split))
    assert outputs.discard_stale(folder, ".png", digests) == ["p01"]
    assert outputs.discard_stale(folder, ".png", digests) == []
    assert not (folder / "p01.png").exists()


def test_files_of_who_knows_what_and_of_another_model_are_deleted(tmp_path, split):
    folder = tmp_path / "out"
    for how, noted in (({"model": "a"}, None), ({"model": "b"}, None), ({"model": "b"}, "{")):
        fill(folder, dict.fromkeys(("p00", "p01", "p02", "other"), ""))
        if noted is not None:
            (folder / outputs.NOTED).write_text(noted)
        assert outputs.discard_stale(folder, ".png", outputs.made_of(split, how)) == ["p00", "p01", "p02"]
    assert (folder / "other.png").exists()  # of another split


def test_two_splits_share_a_folder(tmp_path, split):
    folder = tmp_path / "out"
    halves = [outputs.made_of(split.with_records(some)) for some in (split.records[:2], split.records[2:])]
    for digests in halves:
        outputs.discard_stale(folder, ".png", digests)
        fill(folder, digests)
    assert [outputs.discard_stale(folder, ".png", digests) for digests in halves] == [[], []]


def test_what_lies_beside_counts_where_it_is_asked_for(tmp_path, split):
    folder = tmp_path / "annotations"
    fill(folder, outputs.made_of(split))
    before = outputs.made_of(split, beside=folder)
    write_mask(folder / "p02.png", np.ones((4, 4), np.uint8))
    after = outputs.made_of(split, beside=folder)
    assert [name for name in before if before[name] != after[name]] == ["p02"]


def test_an_unreadable_picture_s_file_stays(tmp_path, split):
    folder = tmp_path / "out"
    digests = outputs.made_of(split)
    outputs.discard_stale(folder, ".png", digests)
    fill(folder, digests)
    split.records[1].image.unlink()
    assert outputs.made_of(split).keys() == {"p00", "p02"}
    assert outputs.discard_stale(folder, ".png", outputs.made_of(split)) == []
    assert (folder / "p01.png").exists()


def test_what_a_killed_program_left_half_written_goes(tmp_path, split):
    folder = tmp_path / "out"
    folder.mkdir()
    for name in (".p00.png.0123abcd", ".p00.npz.0123abcd", ".keep"):
        (folder / name).touch()
    outputs.discard_stale(folder, ".png", outputs.made_of(split))
    assert {path.name for path in folder.iterdir()} == {".p00.npz.0123abcd", ".keep", outputs.NOTED}


def test_who_comes_while_another_command_fills_a_folder_waits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = []

    def second() -> None:
        with outputs.filling("."):
            done.append("second")

    with outputs.filling(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        done.append("first")
    thread.join()
    assert done == ["first", "second"]
