"""Ctrl-C and other signals: one sentence, their exit code, and nothing is left, wherever the program is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ENGINE = Path(__file__).resolve().parents[1] / "engine"
# A command of two processes, in the middle of a unit each; one whose processes import torch; one still being imported.
PROGRAM = f"""
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
sys.path.insert(0, {str(ENGINE)!r})
import dsna_lib.cli

if __name__ == "__main__":
    dsna_lib.cli.__path__.insert(0, "commands")
    sys.argv = ["dsna", "data", "make"]
    sys.exit(dsna_lib.cli.main())
"""
WORKING = """
import units
from dsna_lib.engine import pools

def make(args):
    pools._start_worker = units.start_light
    pools.run_units([1, 2], units.stay, pools.Workers(2))
"""
STARTING = """
import sys, units
from dsna_lib.engine import pools

def make(args):
    sys.path.insert(0, "slow")
    pools.run_units([1, 2], units.nothing, pools.Workers(2))
"""
SLOW = """
import os, time
os.write(1, b"%d\\n" % os.getpid())
time.sleep(1000)
"""
IMPORTING = """
import os, time
print(os.getpid(), flush=True)
try:
    time.sleep(1000)
except BaseException:
    print("dropped")
"""
SAID = {
    signal.SIGINT: "dsna: interrupted; run the same command again to go on\n",
    signal.SIGTERM: "dsna: terminated; run the same command again to go on\n",
    signal.SIGHUP: "dsna: left by its terminal; run the same command again to go on\n",
}


@contextmanager
def program(folder: Path, command: str, processes: int) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """A program, in a process group of its own, whose temporary folder is `t`; and the processes at work by then."""
    (folder / "commands").mkdir()
    (folder / "commands/data.py").write_text(command)
    (folder / "program.py").write_text(PROGRAM)
    (folder / "slow").mkdir()
    (folder / "slow/torch.py").write_text(SLOW)
    environment = os.environ | {"TMPDIR": tempfile.mkdtemp(prefix="t-")}  # whose name is short
    (folder / "t").symlink_to(environment["TMPDIR"])
    how = {"cwd": folder, "env": environment, "text": True, "start_new_session": True}
    with subprocess.Popen(
        [sys.executable, "program.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how
    ) as process:
        try:
            at_work = [int(process.stdout.readline()) for _ in range(processes)]
            yield process, at_work
        finally:
            process.kill()
    for each in at_work:
        if runs_still(each):
            os.kill(each, signal.SIGKILL)
    shutil.rmtree(environment["TMPDIR"])


def runs_still(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def outlive(processes: list[int], seconds: float) -> list[int]:
    last = time.monotonic() + seconds
    while any(map(runs_still, processes)) and time.monotonic() < last:
        time.sleep(0.02)
    return [each for each in processes if runs_still(each)]


@pytest.mark.parametrize("command, processes, to, sent", [
    (WORKING, 2, os.kill, signal.SIGINT),
    (WORKING, 2, os.kill, signal.SIGTERM),
    (WORKING, 2, os.kill, signal.SIGHUP),
    (WORKING, 2, os.killpg, signal.SIGINT),
    (WORKING, 2, os.killpg, signal.SIGTERM),
    (STARTING, 2, os.kill, signal.SIGTERM),
    (STARTING, 2, os.killpg, signal.SIGINT),
    (IMPORTING, 1, os.kill, signal.SIGINT),
    (IMPORTING, 1, os.kill, signal.SIGTERM),
])  # fmt: skip
def test_a_stopped_command_says_one_sentence_and_leaves_nothing(tmp_path, command, processes, to, sent):
    with program(tmp_path, command, processes) as (process, at_work):
        to(process.pid, sent)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (128 + sent, "", SAID[sent])
        assert not outlive(at_work, 0.5)
        assert not list((tmp_path / "t").iterdir())


def test_workers_end_with_a_killed_command(tmp_path):
    """And tidy up, though nobody waits for it."""
    with program(tmp_path, WORKING, 2) as (process, at_work):
        process.kill()
        process.wait()
        assert not outlive(at_work, 20)
        assert "Traceback" not in process.stderr.read()
        (own,) = (tmp_path / "t").iterdir()  # of the command, which could not tidy up
        assert [path.name[:6] for path in own.iterdir()] == [".work-"]


def test_signals_that_are_ignored_stay_so(tmp_path):
    """As under nohup, or of a program in the background."""
    code = """
import signal, sys
signal.signal(signal.SIGHUP, signal.SIG_IGN)
from dsna_lib.cli import main
sys.argv = ["dsna", "--version"]
main()
assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
