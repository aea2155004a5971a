"""Files that are whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
import reprlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from typing import Any

from dsna_lib.engine.errors import DsnaError, FileError


def write_atomically(path: str | Path, write: Callable[[Any], object]) -> None:
    """Call `write` with an open binary file, then move it to `path` in one step. Who may read it follows the umask.

    Raises:
        OSError: unwritable folder or full disk; the message names `path`, and no half file stays.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with _named(path):
            _refuse_other(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "xb") as file:
                write(file)
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # moved, or never made
            temporary.unlink()


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file; what a full disk takes of it may stay, an unfinished last line.

    Raises:
        OSError: unwritable file or full disk; the message names `path`.
    """
    with _named(path), open(path, "ab") as file:
        file.write(f"{line}\n".encode())


def refuse_unwritable(path: str | Path) -> None:
    """Raise an OSError where :func:`write_atomically` would, before the work whose result goes there; makes nothing."""
    path = Path(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    with _named(path):
        _refuse_other(path)
        with TemporaryFile(dir=folder):
            pass


@contextmanager
def _named(path: str | Path) -> Iterator[None]:
    """What cannot be written says its name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error


def _refuse_other(path: Path) -> None:
    """A device or a pipe must not be replaced by a file."""
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "something other than a file is there")


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
    with _named(f"into the folder {folder}"):
        folder.mkdir(parents=True, exist_ok=True)


def move_folder(made: Path, folder: Path) -> None:
    """Move a folder in one step to where there is none, or an empty one; an OSError says that something is in it."""
    with suppress(FileNotFoundError):
        folder.rmdir()  # Windows moves none onto another
    os.replace(made, folder)


def read_json(path: str | Path, shape: Any = object) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        shape: what it must hold: a type, a list of one shape, or a dict of names to shapes. In a dict these names must
            be there, beside any others; the name ``str`` stands for all names.

    Raises:
        FileNotFoundError: no such file.
        FileError: it is empty, cut short, no JSON, or of another shape.

    Example:
        >>> read_json("image_labels.json", {str: [str]})  # doctest: +SKIP
        {'beach': ['person', 'dog']}
    """
    return _parsed(Path(path).read_bytes(), path, shape)


def read_json_lines(path: str | Path, shape: Any = object) -> list[Any]:
    """Read a file with one JSON value a line, each of one shape; see :func:`read_json`."""
    lines = Path(path).read_bytes().splitlines()
    return [_parsed(line, f"{path}, line {k}", shape) for k, line in enumerate(lines or [b""], start=1)]


def _parsed(content: bytes, where: object, shape: Any) -> Any:
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        said = f"is no JSON, or cut short ({error})" if content.strip() else "is empty"
        raise FileError(f"{where}: {said}", "delete it or write it anew") from error
    if misfit := next(_misfits(value, shape, "its content"), ""):
        raise FileError(f"{where}: {misfit}", "delete it or write it anew")
    return value


def _misfits(value: Any, shape: Any, place: str) -> Iterator[str]:
    """Where a JSON value is of another shape, in words."""
    kind = type(shape) if isinstance(shape, dict | list) else shape
    if not isinstance(value, kind):
        wanted = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}.get(kind, "a number")
        yield f"{place} must be {wanted}, not {reprlib.repr(value)}"
    elif isinstance(shape, list):
        for k, each in enumerate(value):
            yield from _misfits(each, shape[0], f"{place}[{k}]")
    elif isinstance(shape, dict):
        for name, below in (dict.fromkeys(value, shape[str]) if str in shape else shape).items():
            if name in value:
                yield from _misfits(value[name], below, f"{place}[{name!r}]")
            else:
                yield f"{place} lacks {name!r}"


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
