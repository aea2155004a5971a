"""Files are whole or not there at all, and JSON comes back as it was written."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path, PurePosixPath

import pytest

from dsna_lib.engine import files
from dsna_lib.engine.errors import FileError, RunError


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    for content in (b"first", b"second, longer", b""):
        files.write_atomically(str(path), lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert [inner.name for inner in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_follows_the_umask(tmp_path, umask, mode):
    (tmp_path / "file").touch(0o400)
    before = os.umask(umask)
    try:
        files.write_atomically(tmp_path / "file", lambda file: file.write(b"new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_moves_to_where_there_is_none_or_an_empty_one(tmp_path, monkeypatch, there):
    """On Windows, too, which moves none onto another."""
    made, folder, replace = tmp_path / "made", tmp_path / "folder", os.replace

    def replace_as_windows(source, target):
        assert not target.exists()
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_as_windows)
    made.mkdir()
    (made / "file").touch()
    if there:
        folder.mkdir()
    files.move_folder(made, folder)
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert not made.exists()
    made.mkdir()
    with pytest.raises(OSError, match="not empty"):
        files.move_folder(made, folder)


def half_and(error: BaseException):
    def write(file):
        file.write(b"half")
        raise error

    return write


def test_a_full_disk_leaves_the_file_before_and_is_named(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match=r"cannot write .*/file: No space left on device") as error:
        files.write_atomically(path, half_and(OSError(28, "No space left on device")))
    assert error.value.errno == 28
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_lines_are_added_to_what_is_there_and_a_full_disk_is_named(tmp_path):
    path = tmp_path / "log"
    files.append_line(path, "one")
    files.append_line(path, "deux et demi, à peu près")
    assert path.read_text() == "one\ndeux et demi, à peu près\n"
    with pytest.raises(OSError, match="cannot write /dev/full: No space left on device") as caught:
        files.append_line("/dev/full", "three")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_whatever_else_ends_the_writing_leaves_no_half_file_either(tmp_path, error):
    with pytest.raises(type(error)):
        files.write_atomically(tmp_path / "file", half_and(error))
    assert not list(tmp_path.iterdir())


def test_pipes_and_devices_are_refused_and_nothing_else(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", str(tmp_path / "link"), "/dev/null"):
        with pytest.raises(RunError) as error:
            files.refuse_special(path, RunError)
        assert str(error.value) == f"{path}: is a pipe or a device, which may never end; name a file"
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path, tmp_path / "gone"):
        files.refuse_special(path, RunError)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot write .*/file/inner: "):
        files.write_atomically(tmp_path / "file" / "inner", lambda file: None)


@pytest.mark.parametrize(
    "place, reason",
    [
        ("file/inner", "(Not a directory|File exists)"),
        ("file/deeper/inner", "Not a directory"),
        ("folder", "something other than a file is there"),
        ("pipe", "something other than a file is there"),
    ],
)
def test_what_cannot_be_written_is_told_before(tmp_path, place, reason):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for act in (files.refuse_unwritable, lambda path: files.write_atomically(path, lambda file: None)):
        with pytest.raises(OSError, match=f"cannot write .*/{place}: {reason}"):
            act(tmp_path / place)
    assert (tmp_path / "pipe").is_fifo()


def test_what_can_be_written_is_not_made_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", "file", "new", tmp_path / "a" / "b" / "new", "a/b/new"):
        files.refuse_unwritable(path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_is_being_written_is_not_there_yet(tmp_path):
    path = tmp_path / "file"

    def write(file):
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and all")

    files.write_atomically(path, write)
    assert path.read_bytes() == b"half and all"


def test_who_reads_a_file_meanwhile_reads_it_to_its_end(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"first and longer")
    with path.open("rb") as reader:
        assert reader.read(5) == b"first"
        files.write_atomically(path, lambda file: file.write(b"second"))
        assert reader.read() == b" and longer"
    assert path.read_bytes() == b"second"


def test_json_is_indented_and_ends_its_last_line(tmp_path):
    files.write_json(tmp_path / "a.json", {"x": [1, 2.5, None, "ä"]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == json.dumps({"x": [1, 2.5, None, "ä"]}, indent=2) + "\n"
    assert files.read_json(tmp_path / "a.json") == {"x": [1, 2.5, None, "ä"]}


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"rows": [', "is no JSON, or cut short"),
        (b"\xff\xfe", "is no JSON, or cut short"),
        (b"[" * 100_000, "is no JSON, or cut short"),
        (b"[]", r"its content must be an object, not \[\]"),
        (b"null", "its content must be an object, not None"),
        (b'{"other": 1}', "its content lacks 'rows'"),
        (b'{"rows": {}}', r"its content\['rows'\] must be a list, not {}"),
        (b'{"rows": [{"iou": 1}, 3]}', r"its content\['rows'\]\[1\] must be an object, not 3"),
        (b'{"rows": [{"iou": "1"}]}', r"its content\['rows'\]\[0\]\['iou'\] must be a number, not '1'"),
    ],
)
def test_json_that_is_damaged_or_of_another_shape_is_named(tmp_path, content, reason):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FileError, match=f"a.json: {reason}"):
        files.read_json(tmp_path / "a.json", {"rows": [{str: int | float | None}]})


def test_json_of_the_shape_wanted(tmp_path):
    for content in ({"rows": []}, {"rows": [{}, {"iou": None, "loss": 0.5}], "more": 1}):
        files.write_json(tmp_path / "a.json", content)
        assert files.read_json(tmp_path / "a.json", {"rows": [{str: int | float | None}]}) == content


def test_lines_of_json_are_named_by_their_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert files.read_json_lines(path, {"step": int}) == [{"step": 1}, {"step": 2}]
    contents = {"": "line 1: is empty", '{"step": 1}\n{"st': "line 2: is no JSON", "3\n": "line 1: its content must"}
    for content, reason in contents.items():
        path.write_text(content)
        with pytest.raises(FileError, match=f"a.jsonl, {reason}"):
            files.read_json_lines(path, {"step": int})


def test_json_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "a.json", {"x": object()})
    assert not list(tmp_path.iterdir())


def test_plain_values_are_what_json_gives_back(tmp_path):
    values = {
        "tuple": (1, (2.0, None)),
        "path": Path("a") / "b",
        "pure": PurePosixPath("c"),
        "set": frozenset({"b", "a"}),
        3: True,
    }
    plain = files.plain(values)
    assert plain == {"tuple": [1, [2.0, None]], "path": "a/b", "pure": "c", "set": ["a", "b"], "3": True}
    files.write_json(tmp_path / "a.json", plain)
    assert files.read_json(tmp_path / "a.json") == plain == files.plain(plain)


def test_numbers_that_are_none_are_null():
    """JSON has no word for them, and what is read again must be what was written."""
    assert files.plain({"iou": float("nan"), "loss": [float("inf"), -float("inf"), 1.5]}) == {
        "iou": None,
        "loss": [None, None, 1.5],
    }


@pytest.mark.parametrize("value", [lambda: None, object(), {"x": os}, [1j]])
def test_values_without_a_fixed_text_are_not_plain(value):
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        files.plain(value)
