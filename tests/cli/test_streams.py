"""What a command prints: the work goes on when nobody reads, and names of files are shown as they are."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from command_line import sentences

from dsna_lib.cli.main import main
from dsna_lib.cli.streams import Escaping, Outlet, escaped
from dsna_lib.data import voc

COUNTS = {"val": {"listed": 1, "pictures": 1, "labels": 1}}


def unread():
    """A pipe whose reader is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


def full():
    return open("/dev/full", "w")


@pytest.fixture
def checked(monkeypatch) -> list[str]:
    """What was done of a check that prints before, between and after; its pages are longer than a buffer."""
    done: list[str] = []

    def check(root):
        for k in range(3):
            print("." * 10_000, flush=True)
            done.append(str(k))
        return COUNTS

    monkeypatch.setattr(voc, "check", check)
    return done


@pytest.mark.parametrize("words", [[], ["--json"]])
@pytest.mark.parametrize(
    "broken, code, said",
    [(unread, 141, []), (full, 3, ["dsna: error: cannot write to stdout: No space left on device"])],
)
def test_the_work_goes_on_when_nobody_reads(checked, monkeypatch, capsys, words, broken, code, said):
    with broken() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["data", "check", ".", *words]) == code
    assert checked == ["0", "1", "2"]
    assert sentences(capsys.readouterr().err) == said


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_nor_does_it_need_a_reader_of_its_messages(checked, monkeypatch, capsys, words):
    with unread() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["data", "check", ".", *words]) == 0
        assert main(["data", "check", ".", "--nonsense"]) == 2
    assert checked == ["0", "1", "2"]
    if words:
        assert json.loads(capsys.readouterr().out)["splits"] == COUNTS


def test_a_failure_keeps_its_exit_code(monkeypatch, run):
    monkeypatch.setattr(voc, "check", lambda root: print("looking", flush=True) or {})
    with unread() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["data", "check", "."]) == 3


def test_streams_that_were_closed_before(checked, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["data", "check", ".", "--json"]) == 0


@pytest.mark.parametrize("broken, code", [(unread, 141), (full, 3)])
def test_the_program_ends_without_a_traceback(broken, code):
    """Neither then nor when Python flushes what is left."""
    with broken() as stream:
        words = [sys.executable, "-m", "dsna_lib.cli", "train", "--help"]
        done = subprocess.run(words, stdout=stream, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == (code == 3)


def test_names_that_the_terminal_cannot_show(monkeypatch):
    monkeypatch.setattr(voc, "check", lambda root: print(f"looking at {root}") or COUNTS)
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["data", "check", "k\u00e4tzchen-\udcff-\u732b"]) == 0
    said = stream.buffer.getvalue().splitlines()
    assert said[0] == rb"looking at k\xe4tzchen-\udcff-\u732b"
    assert len(said) == 2


def test_control_characters_are_shown(run, monkeypatch):
    def check(root):
        print(root)
        raise FileNotFoundError(f"{root}: no such folder")

    monkeypatch.setattr(voc, "check", check)
    code, out, err = run("data", "check", "a\x1b[31m\rb\x9b")
    assert (code, out) == (3, "a\\x1b[31m\\rb\\x9b\n")
    assert sentences(err) == ["dsna data check: error: a\\x1b[31m\\rb\\x9b: no such folder"]
    assert "\x1b" not in run("data", "check", ".", "\x1b[31m")[2]


def test_a_name_of_two_lines_is_one_line(run):
    code, _, err = run("segment", "gone\ndsna: all is well.jpg", "--device", "cpu")
    assert code == 3
    assert len(sentences(err)) == 1
    assert "gone\\ndsna: all is well" in err


def test_lines_and_columns_stay():
    assert escaped("a\tb\nc\x00\x7f") == "a\tb\nc\\x00\\x7f"
    outer = Escaping(Outlet(inner := io.StringIO()))
    assert outer.write("\x07\n") == 2
    assert inner.getvalue() == "\\x07\n"
    assert outer.isatty() is False
