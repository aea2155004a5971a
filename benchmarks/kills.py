"""Whether a command that is stopped at any moment, and started again, makes the very files of one that was not.

Every stage runs once undisturbed. Then it is stopped at random moments, by Ctrl-C (to all of its processes, as a
terminal sends it), SIGTERM or SIGKILL, started again each time until it comes to its end, and its files are compared.
Counted are processes that outlive their command, words beyond the one sentence that a stopped command says, and
temporary files that stay (after SIGKILL nobody can remove them at once).

    python benchmarks/kills.py [--hits 60] [--seed 0] [--stages annotate segment] [--name kills]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from dsna_lib.engine.provenance import write_result

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
LINGER = 15.0  # seconds within which the processes of a killed command must have ended
DSNA = (sys.executable, "-m", "dsna_lib.cli")
TINY = ("--device", "cpu", "--size", "64")
DRAWN = ("--data", "minivoc", "--root", "drawn")
LEARNING = ("--epochs", "2", "--batch-size", "4", "--crop", "65", "--checkpoint-every", "4", "--device", "cpu")
RECIPE = {
    "data.drawn": 24,
    "training.epochs": 1,
    "training.batch_size": 4,
    "training.crop": 64,
    "training.warm_up": 2,
    "training.held_out": 0,
    "training.checkpoint_every": 2,
    "attention.weights": "none",
    "maps.size": 64,
}
CHANGES = tuple(word for key, value in RECIPE.items() for word in ("-p", f"{key}={value}"))
DRAW = (*DSNA, "data", "make", "--size", "64")
TRAIN = (*DSNA, "train", *DRAWN, "--weights", "none", *LEARNING)
TRAIN_SEGMENTATION = (*DSNA, "train-segmentation", *DRAWN, "--truth", "--weights", "none", "--channels", "8", *LEARNING)
# What the stages need, and the stages; each writes into the folder that is put behind.
NEEDED = {"drawn": (*DRAW, "--train", "24", "--val", "8"), "trained": TRAIN, "network": TRAIN_SEGMENTATION}
ON_TWO = ("--jobs", "2", "--model")
STAGES = {
    "data make": (*DRAW, "--train", "200", "--val", "20", "--workers", "2"),
    "train": (*TRAIN, "--workers", "2"),
    "annotate": (*DSNA, "annotate", *DRAWN, *TINY, *ON_TWO, "trained/model.pth"),
    "evaluate": (*DSNA, "evaluate", *DRAWN, *TINY, "--crf", "sec", *ON_TWO, "trained/model.pth"),
    "train-segmentation": (*TRAIN_SEGMENTATION, "--workers", "2"),
    "segment": (*DSNA, "segment", *DRAWN, "--device", "cpu", "--scales", "1", *ON_TWO, "network/model.pth"),
    "table": (*DSNA, "table", "I", "--root", "drawn", "--seeds", "2", "--jobs", "2", *CHANGES),
}


@dataclass
class Count:
    """What became of a stage that was stopped again and again."""

    hits: int = 0  #: how often it was stopped
    differing: list[str] = field(default_factory=list)  #: files that are not those of the undisturbed run
    orphans: int = 0  #: processes that outlived their command
    talkative: list[str] = field(default_factory=list)  #: what commands said beyond their sentence
    leftovers: list[str] = field(default_factory=list)  #: temporary files that stayed
    refused: list[str] = field(default_factory=list)  #: what a command said that did not go on

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.differing or self.orphans or self.talkative or self.leftovers or self.refused)


def stop_again_and_again(words: Sequence[str], hits: int, draw: random.Random, where: Path) -> Count:
    """Stop a command so many times.

    Args:
        words: the command, without the folder that it writes, which is put behind them as ``--out FOLDER``.
        hits: how often; more often where it ends before its moment has come.
        draw: the moments and signals.
        where: the working folder; what the command makes goes into ``whole`` and ``stopped`` in it.
    """
    count = Count()
    for name in ("whole", "stopped"):
        shutil.rmtree(where / name, ignore_errors=True)
    began = time.monotonic()
    whole = _start(words, where, "whole")
    _, said = whole.communicate()
    if whole.returncode:
        raise RuntimeError(f"{' '.join(words)} ends with {whole.returncode}: {said}")
    usual = time.monotonic() - began
    while count.hits < hits:
        command, sent = _start(words, where, "stopped"), draw.choice(SIGNALS)
        try:
            _, said = command.communicate(timeout=draw.uniform(0, usual))
        except subprocess.TimeoutExpired:
            count.hits += 1
            _stop(command, sent, count, where)
        else:  # it came to its end before
            _judge(command.returncode, said, where, count)
            shutil.rmtree(where / "stopped")
    command = _start(words, where, "stopped")
    _, said = command.communicate()
    _judge(command.returncode, said, where, count)
    return count


def _start(words: Sequence[str], where: Path, out: str) -> subprocess.Popen[str]:
    """A command in a session of its own, with a temporary folder of its own."""
    shutil.rmtree(where / "t", ignore_errors=True)
    (where / "t").mkdir()
    own = {"TMPDIR": str(where / "t"), "DSNA_RUNS": str(where / out / "runs"), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    command = [*words, "--out", str(where / out)]
    return subprocess.Popen(command, cwd=where, env=os.environ | own, start_new_session=True, **pipes)


def _stop(command: subprocess.Popen[str], sent: signal.Signals, count: Count, where: Path) -> None:
    """Send a signal, and count what is not as it should be."""
    (os.killpg if sent == signal.SIGINT else os.kill)(command.pid, sent)
    command.wait()
    last = time.monotonic() + LINGER
    while (left := _of_session(command.pid)) and time.monotonic() < last:
        time.sleep(0.1)
    count.orphans += len(left)
    for process in left:
        process.kill()
    _, said = command.communicate()
    sentences = sum(line.startswith("dsna") for line in said.replace("\r", "\n").splitlines())
    expected = command.returncode in (0, 128 + sent, -sent)
    if "Traceback" in said or sentences > 1 or not expected:
        count.talkative.append(f"{sent.name}, {command.returncode}: {said[-2000:]}")
    if sent != signal.SIGKILL:
        count.leftovers += [f"{sent.name}: {path.name}" for path in (where / "t").iterdir()]


def _of_session(session: int) -> list[psutil.Process]:
    """The processes of a session that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _judge(code: int, said: str, where: Path, count: Count) -> None:
    """Compare what a command has made in the end with what the undisturbed one did."""
    if code:
        count.refused.append(f"{code}: {said[-2000:]}")
    whole, stopped = (outcome(where / name) for name in ("whole", "stopped"))
    count.differing += sorted(name for name in whole | stopped if whole.get(name) != stopped.get(name))


def outcome(folder: Path) -> dict[str, Any]:
    """Name to content of the files that a command has made; of JSON, what does not tell of time and place.

    Logs tell the seconds and are no outcome, nor are notes that begin with a dot, unless somebody left them half
    written.
    """
    made: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name in ("metrics.jsonl", ".made-of.json") or path.suffix == ".lock":
            continue
        if path.name == "run.json":
            card = json.loads(path.read_text())
            made[name] = [card["state"], card["identity"]]
        elif path.suffix == ".json" and "values" in (content := json.loads(path.read_text())):
            made[name] = content["values"]
        elif "checkpoint-" not in name:
            made[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return made


def main(arguments: list[str] | None = None) -> dict[str, Count]:
    """Run from the command line; returns the counts of each stage."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--hits", type=int, default=63, help="over all stages")
    ask.add_argument("--seed", type=int, default=0)
    ask.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    draw, counts = random.Random(args.seed), dict[str, Count]()
    with tempfile.TemporaryDirectory(prefix="k-") as folder:
        where = Path(folder)
        for name, words in NEEDED.items():
            command = _start(words, where, name)
            if command.wait():
                raise RuntimeError(f"{name} cannot be made: {command.communicate()[1]}")
        for place, stage in enumerate(args.stages):
            hits = args.hits // len(args.stages) + (place < args.hits % len(args.stages))
            counts[stage] = stop_again_and_again(STAGES[stage], hits, draw, where)
            print(stage, "clean" if counts[stage].clean else "NOT CLEAN", counts[stage], flush=True)
    if args.name:
        values: Mapping[str, Any] = {stage: vars(count) for stage, count in counts.items()}
        write_result(args.name, values, {"script": "benchmarks/kills.py", "arguments": vars(args)})
    return counts


if __name__ == "__main__":
    sys.exit(not all(count.clean for count in main().values()))
