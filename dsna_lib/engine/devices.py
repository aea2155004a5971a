"""Where things run: devices, their quickest precision, and which of several processes speaks for all.

Nothing here imports torch before it is asked something: configurations name devices, and ``--help`` should be quick.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dsna_lib.engine.errors import RunError, SettingError

if TYPE_CHECKING:
    import torch

LAUNCHED = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}  #: by a launcher, and what holds without it
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of work in each period, and the period


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``, Apple's GPU.

    ``"auto"`` is the GPU, if there is one and Accelerate was not told to do without (``accelerate launch --cpu``).

    Raises:
        RunError: a GPU was asked for and there is none.
    """
    import torch

    there: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if name == "auto":
        shown = (gpu for gpu, is_there in there.items() if is_there())
        name = "cpu" if _is_set("ACCELERATE_USE_CPU") else next(shown, "cpu")
    elif name in there and not there[name]():
        shows = "no GPU" if name == "cuda" else "no GPU of Apple's"
        raise RunError(f"a GPU was asked for, but this machine shows {shows}", "use `device` cpu")
    return torch.device(name)


def native_precision(device: str = "auto") -> str:
    """The quickest precision of a device, see :func:`choose_device`.

    That is ``"bf16"`` on a CUDA GPU that has it, else ``"fp16"``; on a CPU ``"bf16"`` with AMX, else ``"no"``, fp32, as
    on Apple's GPUs. Without any bf16 instructions a CPU emulates them, some twenty times slower than fp32; with those
    of AVX-512 alone, convolutions still take 1.6 to 1.9 times as long (measured on VGG-16 and EfficientNet-lite0).

    Example:
        >>> native_precision("cpu") in ("bf16", "no")
        True
    """
    import torch

    # A configuration may name a GPU that another machine has.
    kind = device if device in ("cpu", "mps") else choose_device().type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # torch has no public question for this; where a release lacks the private one, fp32 is always right.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    return "bf16" if kind == "cpu" and has_amx() else "no"


def core_count() -> int:
    """How many cores this process may use: fewer than the machine has under ``taskset`` and in many a container."""
    # Windows and macOS know no affinity.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = CPU_QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(time) / int(period))))
    except (OSError, ValueError):  # no container, or one without a limit: "max 100000"
        return cores


def reader_count(asked: int) -> int:
    """How many processes read pictures: as many as asked for, but not more than there are cores to use."""
    return min(asked, core_count())


def device_name() -> str:
    """The device that ``"auto"`` takes, see :func:`choose_device`, as a person would call it."""
    import torch

    kind = choose_device().type
    if kind == "cuda":
        return torch.cuda.get_device_name()
    return "Apple's GPU" if kind == "mps" else f"CPU, {core_count()} cores"


def _is_set(flag: str) -> bool:
    """Whether an environment variable says yes, in one of the words that Accelerate takes for it."""
    return os.environ.get(flag, "").lower() in ("y", "yes", "t", "true", "on", "1")


def process_count() -> int:
    """How many processes ``accelerate launch`` started together; 1 without it."""
    return _launched()[1]


def is_main_process() -> bool:
    """Whether this is the one process that prints and writes shared files."""
    return _launched()[0] == 0


def _launched() -> tuple[int, int]:
    """Which of how many processes this is, as a launcher says in environment variables; the first of 1 without it.

    Raises:
        SettingError: what they say cannot be, as where some are left over and others are not.
    """
    there = {name: os.environ[name] for name in LAUNCHED if name in os.environ}
    try:
        rank, count, _ = (int(there.get(name, usual)) for name, usual in LAUNCHED.items())
    except ValueError:
        rank, count = -1, 0
    # One process needs no launcher, and where nothing else is said a cluster's WORLD_SIZE=1 does no harm.
    whole = len(there) == len(LAUNCHED) or (count == 1 and "LOCAL_RANK" not in there)
    if not (whole and 0 <= rank < count):
        said = ", ".join(f"{name} is {there.get(name, 'not set')}" for name in LAUNCHED)
        hint = "unset them, or start the processes by accelerate launch"
        raise SettingError(f"environment variables of no launch of processes: {said}", hint)
    return rank, count


def wait_for_everyone() -> None:
    """Wait until every process has come here."""
    if process_count() > 1:
        from accelerate import PartialState

        # Unless told so, Accelerate takes processes without GPUs for strangers, who do not wait for each other.
        PartialState(cpu=choose_device().type == "cpu").wait_for_everyone()
