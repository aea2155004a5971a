"""Units of work on processes of this machine, or on the workers of a Dask cluster.

Rows and seeds of a table, trainings, shares of a data set: each unit is done on its own and keeps what it finished in
``runs/``. One that fails does not take the others with it; one whose process dies is done again by another.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory, gettempdir
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from dsna_lib.engine.devices import core_count
from dsna_lib.engine.errors import DsnaError, RunError, first_few
from dsna_lib.engine.files import write_atomically
from dsna_lib.engine.signals import Signals, leave

U = TypeVar("U", bound=Hashable)
R = TypeVar("R")

# glibc gives large blocks back to the kernel and fetches them anew, page by page, at every training step: a tenth of
# the step on a CPU. Its settings are read when a process starts, hence for the workers; other systems ignore them.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "536870912"}
SHARE = 32  # pictures of a share: what a killed worker costs at most
GRACE = 5.0  # seconds for a worker that is told to end
ON_CLUSTER = 200  # units that a scheduler is given at a time: a thread waits for each


class PoolError(DsnaError, RuntimeError):
    """Workers that cannot be had, or cannot do a unit."""


class WorkerDied(PoolError):
    """A process that died in the middle of a unit, perhaps for the sake of another one."""


class Unit(NamedTuple):
    """Something to be done with a seed, such as a row of a table."""

    what: Any
    seed: int

    def __str__(self) -> str:
        return f"{self.what}, seed {self.seed}"


@dataclass(frozen=True)
class Workers:
    """Who does the units.

    Attributes:
        jobs: units at a time, each in a process of its own with its share of the cores; with several GPUs, each on the
            next one. 1 does them one after the other in this process.
        scheduler: address of a Dask scheduler, such as ``"tcp://10.0.0.1:8786"``, whose workers do them instead; they
            must see the same folders.
    """

    jobs: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise PoolError(f"jobs={self.jobs} must be at least 1")
        if self.scheduler == "":
            raise PoolError("scheduler='' is no address", "name one such as tcp://10.0.0.1:8786")


ALONE = Workers()


def run_units(
    units: Sequence[U], work: Callable[[U], R], workers: Workers = ALONE, say: Callable[[str], None] = print
) -> dict[U, R]:
    """Do every unit; returns unit to result, in their order.

    Args:
        units: what to do; each names itself by ``str``.
        work: does one, and keeps what it finished; it and the units must survive pickling.
        workers: who.
        say: is told what finished.

    Raises:
        RunError: some units failed; the message names each. The finished ones are kept.
        PoolError: the scheduler does not answer, or the work cannot be sent to other processes.
    """
    results: dict[U, R] = {}
    failed: dict[U, Exception] = {}
    for number, (unit, result) in enumerate(completed(units, work, workers), start=1):
        if isinstance(result, Exception):
            failed[unit], said = result, f"failed: {in_words(result)}"
        else:
            results[unit], said = result, "done"
        say(f"{number} of {len(units)}: {unit}: {said}")
    by_reason: dict[str, list[str]] = {}
    for unit, error in failed.items():
        by_reason.setdefault(in_words(error), []).append(str(unit))
    if failed:
        reasons = "; ".join(f"{first_few(named, 1)}: {reason}" for reason, named in by_reason.items())
        kept = f", the other {len(results)} are kept" if results else ""
        message = f"{len(failed)} of {len(units)} failed ({reasons}){kept}"
        raise RunError(message, "run the same command again for these") from next(iter(failed.values()))
    return {unit: results[unit] for unit in units}


def in_words(error: BaseException) -> str:
    """An exception for a message: what it says, and its type where it says little without."""
    says_it_all = isinstance(error, DsnaError | OSError | ValueError | RuntimeError) and str(error)
    return str(error) if says_it_all else f"{type(error).__name__}: {error}".removesuffix(": ")


def completed(units: Sequence[U], work: Callable[[U], R], workers: Workers) -> Iterator[tuple[U, R | Exception]]:
    """Each unit and its result, or the exception that it ended with, as they finish; see :func:`run_units`."""
    if workers.scheduler is None and (workers.jobs == 1 or len(units) < 2):
        for unit in units:
            yield unit, result_or_error(unit, work)
        return
    died = []
    for unit, result in _elsewhere(units, work, workers):
        if isinstance(result, WorkerDied):
            died.append(unit)
        else:
            yield unit, result
    for unit in died:  # each alone: then only its killer fails, and there is the most memory
        yield from _elsewhere([unit], work, workers)


def result_or_error(unit: U, work: Callable[[U], R]) -> R | Exception:
    """What becomes of a unit: one that fails must not take the others with it."""
    try:
        return work(unit)
    except Exception as error:
        return error


def _elsewhere(units: Sequence[U], work: Callable[[U], R], workers: Workers) -> Iterator[tuple[U, R | Exception]]:
    """Units in other processes; a thread waits for each that is being done."""
    jobs = min(workers.jobs, len(units))
    if workers.scheduler is None:
        threads, others = ThreadPoolExecutor(jobs, initializer=_keep_interrupts), _processes(work, jobs)
    else:
        from dsna_lib.engine.cluster import on_cluster

        threads, others = ThreadPoolExecutor(ON_CLUSTER), on_cluster(work, workers.scheduler)
    try:
        with others as do:
            try:
                futures = {threads.submit(_answer, unit, do): unit for unit in units}
                for future in as_completed(futures):
                    yield futures[future], future.result()
            finally:
                threads.shutdown(wait=False, cancel_futures=True)
    finally:
        threads.shutdown(wait=workers.scheduler is None)


def _answer(unit: U, do: Callable[[U], bytes]) -> Any:
    """The result of a unit that is done elsewhere, or the exception that it ended with."""
    try:
        return pickle.loads(do(unit))
    except PoolError as error:
        return error
    except Exception as error:  # no such folder or package there, or one more process than the machine takes
        reason, hint = in_words(error).splitlines()[0], "all workers need the same folders and packages"
        return PoolError(f"a worker cannot do its work ({reason})", hint)


@contextmanager
def _processes(work: Callable[[U], R], jobs: int) -> Iterator[Callable[[U], bytes]]:
    """What does a unit in one of so many processes; each is a pool of its own: one that dies breaks no other."""
    for name, value in KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    arguments = [(1, get_context("spawn"), _start_worker, (place, jobs)) for place in range(jobs)]
    pools = [ProcessPoolExecutor(*given) for given in arguments]  # a process starts with its first unit
    free: SimpleQueue[int] = SimpleQueue()
    for place in range(jobs):
        free.put(place)

    def do(unit: U) -> bytes:
        packed, place = pack(unit), free.get()
        try:
            return pools[place].submit(_do_in_worker, packed, path).result()
        except BrokenProcessPool:
            pools[place] = ProcessPoolExecutor(*arguments[place])
            raise WorkerDied("its process died (out of memory?)", "use fewer `jobs`") from None
        finally:
            free.put(place)

    with work_file(pack(work), gettempdir()) as path:
        try:
            yield do
        except BaseException:  # the command is stopped, or nobody wants the rest
            left, pools = pools, []  # no thread starts another one
            _end([process for pool in left for process in list((pool._processes or {}).values())])
            for pool in left:
                pool.shutdown()
            raise
        for pool in pools:
            pool.shutdown()


def _keep_interrupts() -> None:
    """Let processes that this thread starts not mind Ctrl-C, which a terminal sends to all: they inherit its mask."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _end(processes: Sequence[BaseProcess]) -> None:
    """End processes that may be in the middle of something; they get a moment to tidy up."""
    for process in processes:
        process.terminate()
    last = time.monotonic() + GRACE
    for process in processes:
        process.join(max(0.0, last - time.monotonic()))
        process.kill()


def _start_worker(place: int, jobs: int) -> None:
    """Give a process its share of the cores, and a GPU where there are several; it ends when its parent does."""
    _end_with_parent()  # first of all: importing torch takes seconds
    try:
        import torch

        torch.set_num_threads(max(1, core_count() // jobs))
        if torch.cuda.device_count() > 1:
            torch.cuda.set_device(place % torch.cuda.device_count())
    except SystemExit:  # told to end in the middle of it; the pool would show its traceback
        leave(1)


def _end_with_parent() -> None:
    """A worker that outlives a killed command would go on writing into the folder that the next command resumes."""
    Signals(SystemExit).install("SIGTERM")
    Thread(target=_watch_parent, daemon=True).start()


def _watch_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker is started by a pool"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    leave(1)


def _do_in_worker(unit: bytes, path: str) -> bytes:
    """A unit in a process of a pool; one that is told to end does so once it has tidied up, and answers nobody."""
    try:
        return do_packed(unit, path)
    except SystemExit:
        leave(1)


def pack(value: Any, dumps: Callable[[Any], bytes] = pickle.dumps) -> bytes:
    """Something as bytes, or a :class:`PoolError`."""
    try:
        return dumps(value)
    except Exception as error:  # pickling asks the object itself, which may raise anything
        raise PoolError(f"{value} cannot be sent to another process ({in_words(error)})") from error


@contextmanager
def work_file(packed: bytes, folder: str) -> Iterator[str]:
    """The work in a file that all workers see: a model may hang on it, which need not travel with every unit."""
    with TemporaryDirectory(dir=folder, prefix=".work-") as own:
        path = Path(own, "work")
        write_atomically(path, lambda file: file.write(packed))
        yield str(path)


@lru_cache(maxsize=1)
def _read(path: str) -> Callable[[Any], Any]:
    return pickle.loads(Path(path).read_bytes())


def do_packed(unit: bytes, path: str) -> bytes:
    """A unit in another process: its result, or the exception that it ended with, in a form that arrives."""
    result = result_or_error(pickle.loads(unit), _read(path))
    try:
        packed = pickle.dumps(result)
        pickle.loads(packed)  # some exceptions can be written and not be read
    except Exception as error:
        unsent = PoolError(f"its result cannot be sent back ({in_words(error)})")
        packed = pickle.dumps(RunError(in_words(result)) if isinstance(result, Exception) else unsent)
    return packed


@dataclass
class Report:
    """What became of the pictures of a data set."""

    written: list[str] = field(default_factory=list)  #: ids of those done in this run
    skipped: list[str] = field(default_factory=list)  #: ids of those that were there already
    failed: dict[str, str] = field(default_factory=dict)  #: id to reason
    renewed: list[str] = field(default_factory=list)  #: ids of those whose files were of other data, and were deleted

    def add(self, other: Report) -> None:
        """Take in another one's pictures."""
        self.written += other.written
        self.skipped += other.skipped
        self.failed |= other.failed
        self.renewed += other.renewed

    def raise_failures(self, what: str) -> None:
        """Refuse, by a RunError, to go on without the pictures that failed."""
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            raise RunError(f"{len(self.failed)} pictures could not be {what}, such as {name}: {reason}")


class Share(NamedTuple):
    """Some places of a data set; it is named by its first and last one."""

    places: range

    def __str__(self) -> str:
        return f"pictures {self.places.start + 1} to {self.places.stop}"


def shares(count: int, batch_size: int = 1, workers: Workers = ALONE) -> list[Share]:
    """Cut places 0 .. count - 1 into shares of whole batches, so that any number of workers computes the same batches.

    Example:
        >>> [str(share) for share in shares(50, 16, Workers(jobs=2))]
        ['pictures 1 to 32', 'pictures 33 to 50']
    """
    size = max(count, 1) if workers == ALONE else batch_size * -(-SHARE // batch_size)
    return [Share(range(start, min(start + size, count))) for start in range(0, count, size)]


def over_shares(count: int, work: Callable[[range], R], workers: Workers = ALONE, batch_size: int = 1) -> Iterator[R]:
    """What comes of each share of a data set, in their order.

    Args:
        count: how many pictures.
        work: does those at some places; it must survive pickling where there are several workers.
        workers: who.
        batch_size: pictures that belong together.

    Raises:
        Exception: what `work` raised for the first share that failed, once all were tried.
    """
    places = [share.places for share in shares(count, batch_size, workers)]
    results = dict(completed(places, work, workers))
    for result in (results[some] for some in places):
        if isinstance(result, Exception):
            raise result
        yield result


def run_shares(count: int, work: Callable[[range], Report], workers: Workers = ALONE, batch_size: int = 1) -> Report:
    """The report on all pictures of a data set, in their order; see :func:`over_shares`."""
    report = Report()
    for part in over_shares(count, work, workers, batch_size):
        report.add(part)
    return report
