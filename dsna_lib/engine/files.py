"""Files that are whole or not there at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsna_lib.engine.errors import DsnaError


def write_atomically(path: str | Path, write: Callable[[Any], object]) -> None:
    """Call `write` with an open binary file, then move it to `path` in one step. Who may read it follows the umask.

    Raises:
        OSError: unwritable folder or full disk; the message names `path`, and no half file stays.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            write(file)
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # moved, or never made
            temporary.unlink()


def leads_out(name: str) -> bool:
    """Whether what is named so within a folder would lie beside or above it, or be the folder itself.

    Example:
        >>> [leads_out(name) for name in ("a", "2007/a", "../a", "/a", ".")]
        [False, False, True, True, True]
    """
    path = PurePath(name)
    return bool(path.anchor) or ".." in path.parts or not path.parts


def refuse_special(path: str | Path, error: type[DsnaError]) -> None:
    """Raise an `error` where something is there that is neither file nor folder: who reads a pipe waits for ever."""
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise error(f"{path}: is a pipe or a device, which may never end", "name a file")


def make_folder(folder: Path) -> None:
    """Make a folder where it is not.

    Raises:
        OSError: it cannot be made; the message says where.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot write into the folder {folder}: {error.strerror}") from error


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON atomically, indented, with a final newline."""
    write_atomically(path, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))


def plain(values: Any) -> Any:
    """Values as JSON gives them back: tuples become lists, sets sorted ones, paths texts, numbers that are none null.

    Raises:
        TypeError: a value that JSON does not know. Its text may be another one in each process, as a function's is.
    """
    return json.loads(json.dumps(values, default=_known_to_json), parse_constant=lambda name: None)


def _known_to_json(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{value!r} cannot be written as JSON")
