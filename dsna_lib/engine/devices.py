"""Where things run: devices, their quickest precision, and which of several processes speaks for all.

Nothing here imports torch before it is asked something: configurations name devices, and ``--help`` should be quick.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dsna_lib.engine.errors import RunError, SettingError

if TYPE_CHECKING:
    import torch

LAUNCHED = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}  #: by a launcher, and what holds without it


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name: ``"auto"`` (a GPU if there is one), ``"cpu"`` or ``"cuda"``.

    Raises:
        RunError: a GPU was asked for and there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("a GPU was asked for, but this machine shows no GPU", "use `device` cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def native_precision(device: str = "auto") -> str:
    """The quickest precision of a device, see :func:`choose_device`.

    That is ``"bf16"`` on a GPU that has it, else ``"fp16"``; on a CPU ``"bf16"`` with AMX, else ``"no"``, fp32. Without
    any bf16 instructions a CPU emulates them, some twenty times slower than fp32; with those of AVX-512 alone,
    convolutions still take 1.6 to 1.9 times as long (measured on VGG-16 and EfficientNet-lite0).

    Example:
        >>> native_precision("cpu") in ("bf16", "no")
        True
    """
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # torch has no public question for this; where a release lacks the private one, fp32 is always right.
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)
    return "bf16" if has_amx() else "no"


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
        import torch
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        # Unless told so, Accelerate takes processes without GPUs for strangers, who do not wait for each other.
        without_gpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()
        PartialState(cpu=without_gpu).wait_for_everyone()
