"""Runs: a finished stage is found again, and is never taken for another.

A run is a folder ``runs/STAGE/DIGEST``. Its *identity* is everything that decides what comes out: the configuration,
a digest of the data's files and one of the code. The same identity finds the same folder; any change makes a new one.
The folder's ``run.json`` says what it is and whether it is finished.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import resolve_name
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from dsna_lib.engine import devices, provenance
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import make_folder, plain, read_json, refuse_special, write_json

if TYPE_CHECKING:
    from dsna_lib.data.pictures import Pictures

PACKAGE = Path(__file__).resolve().parents[1]
CARD = "run.json"
BEGUN = (CARD, "metrics.jsonl", "checkpoint.partial")  # what a run leaves before it has a result
SHAPE = {"stage": str, "state": str, "identity": dict}  # of what it says
DIGITS = 12


def root() -> Path:
    """The folder for runs: environment variable ``DSNA_RUNS``, else ``runs`` in the working folder."""
    return Path(os.environ.get("DSNA_RUNS") or "runs")


def file_digest(path: str | Path) -> str:
    """A digest over the content of a file, which is read once as long as it stays: a table asks a hundred times.

    Raises:
        RunError: a pipe or a device.
        OSError: it cannot be read.
    """
    refuse_special(path, RunError)
    stat = os.stat(path)  # times alone may be set back, or stand still for milliseconds
    return _file_digest(os.fspath(path), stat.st_ino, stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=200_000)
def _file_digest(path: str, *state: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def data_digest(pictures: Pictures, masks: bool = False) -> str:
    """A digest over ids, image labels, names of classes, and the content of every file; with `masks`, of those, too."""
    listed: list[list[Any]] = []
    for record in pictures.records:
        files = (record.image, record.mask, record.part) if masks else (record.image,)
        digests = (None if path is None else file_digest(path) for path in files)
        listed.append([record.id, list(record.labels), *digests])
    return digest([listed, list(pictures.class_names)])


def code_digest(*modules: str) -> str:
    """A digest over the source of all that modules such as ``"dsna_lib.training"`` import, see :func:`imported_by`."""
    return digest({name: file_digest(source) for name, source in imported_by(*modules).items()})


def imported_by(*modules: str) -> dict[str, Path]:
    """The modules of this package that these import, directly or not, and these themselves: sorted names to files.

    Read off the source: imports within functions count, those under ``if TYPE_CHECKING`` do not. Packages on the way
    to a module count with what their ``__init__`` imports.

    Example:
        >>> list(imported_by("dsna_lib.engine.files"))
        ['dsna_lib', 'dsna_lib.engine', 'dsna_lib.engine.files']
    """
    known: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if (source := _source(name)) is None:
            raise ModuleNotFoundError(f"{name} is no module of this package")
        if name not in known:
            known[name] = source
            above = name.rpartition(".")[0]
            package = name if source.name == "__init__.py" else above
            named = [above, *_imports(source, package, file_digest(source))]
            waiting += [module for module in named if _source(module)]
    return dict(sorted(known.items()))


def _source(module: str) -> Path | None:
    """The file of a module; None where it is none of this package."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py") if module.split(".")[0] == PACKAGE.name else ()
    return next((file for file in files if file.is_file()), None)


@lru_cache(maxsize=1000)
def _imports(source: Path, package: str, digest: str) -> list[str]:
    """What a file in a package imports, within functions, too: modules, and names that may be modules."""
    tree, names = ast.parse(source.read_text(encoding="utf-8")), []
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names


def digest(content: Any) -> str:
    """A digest over plain JSON values; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True)
class Run:
    """A stage's folder, and everything that decides what comes out, as plain JSON values."""

    folder: Path
    stage: str
    identity: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether this very run has come to its end before."""
        card = self.read()
        return card.get("state") == "finished" and card["identity"] == self.identity

    def read(self) -> dict[str, Any]:
        """What the folder's ``run.json`` says; nothing where it is not there, damaged, or another program's."""
        try:
            card = read_json(self.folder / CARD, SHAPE)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        whole = card["state"] != "finished" or {"metrics", "environment"} <= card.keys()
        return card if whole else {}

    def finish(self, **metrics: Any) -> None:
        """Mark the run as finished, with what it measured and where it ran."""
        card = {"stage": self.stage, "state": "finished", "identity": self.identity, "metrics": metrics}
        write_json(self.folder / CARD, card | {"environment": provenance.environment()})


def open_run(stage: str, identity: Mapping[str, Any], *modules: str, folder: str | Path | None = None) -> Run:
    """The run of a stage, such as ``"train"``, under what decides its outcome and the present code.

    Args:
        stage: its name.
        identity: plain values.
        modules: that its code starts from, see :func:`code_digest`.
        folder: of your own instead of the one named by the digest; it may not exist yet.
    """
    known = plain(dict(identity) | {"code": code_digest(*modules)})
    return Run(Path(folder) if folder else root() / stage / digest(known), stage, known)


def complete(run: Run, work: Callable[[Path], Mapping[str, Any]]) -> Run:
    """Do the work of a run, unless it is finished: it gets the folder, goes on with what is there, returns metrics."""
    with locked(run.folder):
        if not run.finished:
            if devices.is_main_process():
                claim_folder(run.folder, run.stage, **run.identity)
            devices.wait_for_everyone()
            metrics = work(run.folder)
            if devices.is_main_process():
                run.finish(**metrics)
            devices.wait_for_everyone()
    return run


def claim_folder(folder: str | Path, stage: str, **identity: Any) -> Run:
    """Note in ``run.json`` what decides a folder's files, or refuse a folder of something else.

    What is found in a folder is taken as this run's own, so it must not come from another one; where a run stopped
    before it had a result, the folder is free. What the folder says beyond `identity` stays, and comes back with its
    run.

    Raises:
        RunError: the folder was made otherwise, or does not say how; the message says in what.
        OSError: the folder cannot be written.
    """
    folder, mine = Path(folder), plain(identity)
    make_folder(folder)
    card = Run(folder, stage, {}).read()
    refused = ""
    if card:
        refused = next(_differences(card["identity"], mine), "")
        if refused and card["state"] == "running" and not _has_results(folder):
            card, refused = {}, ""
    elif (folder / CARD).exists():
        refused = f"holds a {CARD} that does not say what it is"
    elif any(folder.glob("checkpoint-*")) or (folder / "model.pth").exists():
        refused = f"holds a model or checkpoints, and no {CARD} that says how they were made"
    if refused:
        raise RunError(f"{folder} {refused}", "use another folder or delete it")
    if not card:
        card = {"stage": stage, "state": "running", "identity": mine}
        write_json(folder / CARD, card)
    return Run(folder, card["stage"], card["identity"])


def _has_results(folder: Path) -> bool:
    """Whether a folder holds a file that is neither hidden nor among those which a run begins with."""
    files = (path.relative_to(folder).parts for path in folder.rglob("*") if not path.is_dir())
    return any(not any(part in BEGUN or part.startswith(".") for part in parts) for parts in files)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """In which of the present values two configurations differ, in words."""
    for name, new in now.items():
        old = before.get(name)
        if name not in before:
            yield f"was made with no {where}{name}"
        elif isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, dict.fromkeys(old) | new, f"{where}{name}.")
        elif old != new and name == "code":
            yield "was made with another version of the code"
        elif old != new:
            yield f"was made with {where}{name} {old!r}, not {new!r}"


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Work in a folder while no other program does: whoever needs the same run waits, and then finds it finished.

    The processes of one ``accelerate launch`` work together and do not wait for each other.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    with nullcontext() if devices.process_count() > 1 else lock:
        yield


def model_provenance(path: str | Path) -> dict[str, Any]:
    """Where a model file comes from: its digest as ``file`` and, where a run made it, the run's identity and so on."""
    known: dict[str, Any] = {"file": file_digest(path)}
    card = Run(Path(path).parent, "", {}).read()
    if card.get("state") == "finished":
        known |= card["identity"] | {"metrics": card["metrics"], "environment": card["environment"]}
        if isinstance(model := known.get("model"), dict):  # a folder of annotations names its model by a digest
            known["model"] = {name: model[name] for name in model if name not in ("class_names", "weights")}
    return known
