"""Units of work for the tests of pools. New processes read this file, and find neither Dask nor torch in it."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from dsna_lib.engine import pools
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.pools import Report, Unit


def start_light(place: int, jobs: int) -> None:
    """Instead of a start that imports torch."""
    pools._end_with_parent()


def nothing(_: Any = None) -> None:
    """Do nothing."""


def measure(unit: Unit, scale: float = 1.0) -> dict[str, Any]:
    """Numbers that follow from the seed."""
    draw = [random.Random(unit.seed).gauss(0, 1) for _ in range(5)]
    return {"mean": sum(draw) / 5 * scale, "draw": draw, "of": unit.what}


def process_of(unit: int) -> int:
    """The process that does it."""
    time.sleep(0.02)
    return os.getpid()


def say_process() -> None:
    """Its number, in one write: with PYTHONUNBUFFERED, `print` writes the end of the line apart, after another's."""
    os.write(1, f"{os.getpid()}\n".encode())


def stay(unit: int) -> None:
    """Say that it was begun, with something to tidy up, and take for ever."""
    with tempfile.TemporaryDirectory():
        say_process()
        time.sleep(1000)


def threads_of(unit: int) -> int:
    """How many threads torch uses."""
    import torch

    return torch.get_num_threads()


class AwkwardError(Exception):
    """It can be written and not be read again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class SilentError(Exception):
    """It says nothing."""


class Stubborn:
    """A unit that cannot be sent."""

    def __reduce__(self) -> Any:
        raise TypeError("it stays here")

    def __str__(self) -> str:
        return "stubborn"


class Unreadable:
    """Work that another process cannot read, as where a package is missing there."""

    def __reduce__(self) -> Any:
        return __import__, ("no_such_package_at_all",)

    def __call__(self, unit: str) -> str:
        return unit


class Heavy:
    """Work that a model hangs on."""

    def __init__(self, size: int) -> None:
        self.numbers = bytes(size)

    def __call__(self, unit: int) -> int:
        return len(self.numbers)


def misbehave(unit: str) -> Any:
    """A unit of a certain temper."""
    match unit:
        case "nan":
            raise RuntimeError("the loss is nan")
        case "hint":
            raise SettingError("crop=3 must be at least 16", "raise `crop`")
        case "awkward":
            raise AwkwardError("this", "that")
        case "silent":
            raise SilentError
        case "key":
            return {}["missing"]
        case "lambda":
            return lambda: None
        case "held":
            return open(os.devnull)
    return unit.upper()


def die_once(unit: int, folder: Path, victim: int, attempts: int = 1) -> tuple[int, int]:
    """A unit whose process is killed without warning at its first attempts."""
    (folder / "begun").mkdir(exist_ok=True)
    if unit == victim:
        begun = len(list((folder / "begun").iterdir()))
        (folder / "begun" / f"{begun}-{os.getpid()}").touch()
        if begun < attempts:
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return unit, os.getpid()


def die_if(unit: int, deadly: tuple[int, ...]) -> str:
    """Some units end their process."""
    if unit in deadly:
        os._exit(3)
    return "alive"


def start_a_process(unit: int) -> int | None:
    """As a unit that trains with processes that read pictures does."""
    inner = multiprocessing.get_context("fork").Process(target=nothing)
    inner.start()
    inner.join()
    return inner.exitcode


def surroundings(unit: str) -> tuple[str | None, str | None, str]:
    """Variables and working folder."""
    return os.environ.get("DSNA_VOC"), os.environ.get("DSNA_RUNS"), os.getcwd()


def wait_if_slow(folder: Path, unit: str) -> str:
    """Say that it was begun; the one called slow waits for a word."""
    (folder / f"{unit}-{os.getpid()}").touch()
    while unit == "slow" and not (folder / "enough").exists():
        time.sleep(0.02)
    return unit


def treat(places: range, bad: tuple[int, ...] = ()) -> Report:
    """Some pictures are there, some are bad; the first share is the slowest."""
    time.sleep(0.1 if places.start == 0 else 0)
    report = Report()
    for place in places:
        if place in bad:
            report.failed[f"p{place:03d}"] = "unreadable"
        elif place % 10 == 0:
            report.skipped.append(f"p{place:03d}")
        else:
            report.written.append(f"p{place:03d}")
    return report


def fail_in(places: range, bad: tuple[int, ...], folder: Path) -> Report:
    """A share that holds a bad picture fails altogether."""
    for place in places:
        if place in bad:
            raise SettingError(f"picture {place} is wrong", "mend it")
    (folder / f"{places.start}").touch()
    return treat(places)
