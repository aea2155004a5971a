"""What `make book` runs, in which order, and what it leaves as it is."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Event
from time import sleep

import pytest
import scripts


@pytest.fixture
def tool(monkeypatch):
    tool = scripts.load("tools/build_book.py")
    monkeypatch.setattr(tool, "core_count", lambda: 6)
    return tool


@pytest.fixture
def ran(tool, monkeypatch) -> list:
    """Programs that were started, with their environments; a chapter writes its copy, and chapter 08 stops."""
    ran = []

    def run(command, check, cwd=None, env=None):
        ran.append((list(map(str, command)), env))
        if "dsna_lib.book.chapters" in command:
            copy = command[-1]
            if copy.name.startswith("08"):
                raise subprocess.CalledProcessError(1, command)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text("run")

    monkeypatch.setattr(tool.subprocess, "run", run)
    return ran


@pytest.fixture
def root(tmp_path) -> Path:
    for name in ("dsna_lib/a.py", "dsna_lib/__pycache__/a.pyc", "book/page.md", "_config.yml", "_toc.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "notebooks").mkdir()
    for number in (1, 5, 6):
        (tmp_path / "notebooks" / f"{number:02d}_chapter.ipynb").write_text("")
    return tmp_path


def numbers(ran: list) -> list[str]:
    return [Path(command[-1]).name[:2] for command, _ in ran]


def test_the_long_ones_come_first_and_what_waits_for_them_last(tool):
    names = [f"{number:02d}_chapter.ipynb" for number in range(1, 13)]
    order = [path.name[:2] for path in tool.in_turn(map(Path, reversed(names)))]
    assert order == ["05", "02", "10", "08", "09", "01", "03", "04", "11", "12", "06", "07"]


def test_only_what_changed_is_run_again(tool, ran, root, monkeypatch):
    monkeypatch.delenv("DSNA_RUNS", raising=False)
    tool.run_chapters(root, root / "copies")
    assert sorted(numbers(ran)) == ["01", "05", "06"]
    assert all(command[:3] == [sys.executable, "-m", "dsna_lib.book.chapters"] for command, _ in ran)
    assert {env["OMP_NUM_THREADS"] for _, env in ran} == {"3"}
    assert {env["DSNA_RUNS"] for _, env in ran} == {str(root / "runs")}
    tool.run_chapters(root, root / "copies")
    assert len(ran) == 3
    later = (root / "copies" / "05_chapter.ipynb").stat().st_mtime + 9
    os.utime(root / "notebooks" / "05_chapter.ipynb", (later, later))
    tool.run_chapters(root, root / "copies")
    assert numbers(ran[3:]) == ["05"]
    os.utime(root / "dsna_lib" / "__pycache__" / "a.pyc", (later, later))  # is no source
    os.utime(root / "copies" / "05_chapter.ipynb", (later, later))
    tool.run_chapters(root, root / "copies")
    assert len(ran) == 4
    os.utime(root / "dsna_lib" / "a.py", (later + 9, later + 9))
    tool.run_chapters(root, root / "copies")
    assert sorted(numbers(ran[4:])) == ["01", "05", "06"]


def test_two_at_a_time(tool, root, monkeypatch):
    together = Barrier(2, timeout=20)
    (root / "notebooks" / "06_chapter.ipynb").unlink()
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: together.wait())
    tool.run_chapters(root, root / "copies")


def test_a_chapter_that_stops_ends_it_before_the_site(tool, ran, root, monkeypatch):
    (root / "notebooks" / "08_chapter.ipynb").write_text("")
    monkeypatch.setattr(tool, "AT_ONCE", 1)
    monkeypatch.setattr(tool, "ROOT", root)
    with pytest.raises(SystemExit) as stopped:
        tool.main()
    assert stopped.value.code == 1
    assert numbers(ran)[:2] == ["05", "08"]
    assert "06" not in numbers(ran)
    assert not any("build" in command for command, _ in ran)


def test_no_other_chapter_is_begun_beside_one_that_takes_long(tool, root, monkeypatch):
    """08 stops while 05 is still running: there would be time for 01 and 06."""
    (root / "notebooks" / "08_chapter.ipynb").write_text("")
    begun, failed = [], Event()

    def run(command, **_):
        number = command[-1].name[:2]
        begun.append(number)
        if number == "05":
            assert failed.wait(20)
            sleep(0.2)
        else:
            failed.set()
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(tool.subprocess, "run", run)
    with pytest.raises(subprocess.CalledProcessError):
        tool.run_chapters(root, root / "copies")
    assert sorted(begun) == ["05", "08"]


def test_the_site_is_made_of_the_copies_and_of_nothing_older(tool, ran, root, monkeypatch, capsys):
    monkeypatch.setattr(tool, "ROOT", root)
    source = root / "_build" / "source"
    for old in (root / "_build/html/old.html", source / "book/old.md"):
        old.parent.mkdir(parents=True)
        old.write_text("")
    tool.main()
    (made, _), (command, _) = ran[-2:]
    assert made == [sys.executable, str(root / "tools/try_it.py"), str(source / "book/_static/try_it")]
    assert command[3:] == ["build", str(source), "--path-output", str(root), "-n", "-W", "--keep-going"]
    left = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    copies = {f"notebooks/{number}_chapter.ipynb" for number in ("01", "05", "06")}
    assert left == {"_config.yml", "_toc.yml", "book/page.md", "dsna_lib/a.py"} | copies
    assert not (root / "_build" / "html").exists()
    assert "_build/html/index.html" in capsys.readouterr().out.replace(os.sep, "/")
