"""Provenance: what a number needs to be explained later, kept beside it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from dsna_lib.engine.devices import device_name
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.files import leads_out, plain, write_json

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "pydensecrf2")


def environment() -> dict[str, Any]:
    """Versions, device, commit and time."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": device_name(),
        "system": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
    }


def write_result(
    name: str, values: Mapping[str, Any], provenance: Mapping[str, Any], folder: str | Path = "results"
) -> Path:
    """Write a result that the book states, ``results/NAME.json``, and return its path.

    Args:
        name: of the result.
        values: what was measured; a number that is none (NaN) becomes null.
        provenance: how: data, split, recipe, shortcuts. The environment is added.
        folder: where to.

    Raises:
        SettingError: see :func:`result_path`.
    """
    path = result_path(name, folder)
    write_json(path, plain({"values": values, "provenance": {**provenance, "environment": environment()}}))
    return path


def result_path(name: str, folder: str | Path = "results") -> Path:
    """Where :func:`write_result` writes; a SettingError refuses a name that leads out of the folder."""
    if leads_out(name):
        raise SettingError(f"a result named {name!r} would lie outside the folder {folder}", "choose another name")
    return Path(folder) / f"{name}.json"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the code, with ``+changes`` where the working tree differs; None outside a checkout."""
    here = Path(__file__).parents[1]
    try:
        commit, changes = (
            subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for args in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")
