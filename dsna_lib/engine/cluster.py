"""Units of work on the workers of a Dask cluster; its scheduler needs this package, too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager
from multiprocessing import current_process
from threading import Lock
from typing import Any

from dsna_lib.engine import runs
from dsna_lib.engine.pools import PoolError, WorkerDied, do_packed, in_words, pack, work_file

ANSWER_WITHIN = 10.0  # seconds, of a scheduler and of its first worker
ONE_AT_A_TIME = Lock()  # in a worker: units share the process's folder, environment and random numbers


@contextmanager
def on_cluster(work: Callable[[Any], Any], address: str) -> Iterator[Callable[[Any], bytes]]:
    """What does a unit on a cluster."""
    try:
        import cloudpickle  # type: ignore[import-untyped]  # it can send what was defined in a notebook
        from distributed import CancelledError, Client, KilledWorker
    except ImportError:
        raise PoolError("a cluster needs Dask", 'install it: pip install "dsna-book[cluster]"') from None
    try:
        with ThreadPoolExecutor(1) as apart:  # a notebook's own thread has an event loop already
            apart.submit(asyncio.run, _greet(address)).result()
        client = Client(address, timeout=ANSWER_WITHIN, set_as_default=False)
    except Exception as error:  # whatever another service's answer makes Dask raise
        reason = in_words(error).splitlines()[0]
        hint = "start one with `dask scheduler`, or leave out `scheduler`"
        raise PoolError(f"no Dask scheduler answers at {address} ({reason})", hint) from None

    def do(unit: Any) -> bytes:
        packed = pack(unit, cloudpickle.dumps)
        try:
            return client.submit(_there, packed, path, place, os.getcwd(), pure=False).result()
        except KilledWorker:
            raise WorkerDied("the processes that tried it died, one after the other (out of memory?)") from None
        except CancelledError:
            raise PoolError(f"the scheduler at {address} went away") from None

    with client:
        try:
            client.wait_for_workers(1, timeout=ANSWER_WITHIN)
        except TimeoutError:
            hint = f"start some: dask worker --nthreads 1 {address}"
            raise PoolError(f"the scheduler at {address} has no workers", hint) from None
        if any(count > 1 for count in client.nthreads().values()):
            # Trainings in one process would share torch's random state, and no result would be reproducible.
            raise PoolError(f"a worker of {address} has several threads", "start workers with --nthreads 1")
        root = runs.root().resolve()
        root.mkdir(parents=True, exist_ok=True)
        place = {name: value for name, value in os.environ.items() if name.startswith("DSNA_")}
        place["DSNA_RUNS"] = str(root)
        with work_file(pack(work, cloudpickle.dumps), str(root)) as path:
            yield do


async def _greet(address: str) -> None:
    """Dask's client would wait for ever where somebody listens and says nothing."""
    from distributed.comm import connect

    try:
        async with asyncio.timeout(ANSWER_WITHIN + 1):
            comm = await connect(address, timeout=ANSWER_WITHIN)
    except TimeoutError:
        raise OSError("something listens there and says nothing") from None
    await comm.close()


def _there(unit: bytes, path: str, place: Mapping[str, str], folder: str) -> bytes:
    """A unit on another machine: from the same folder, with the same folders of runs and data."""
    with ONE_AT_A_TIME, chdir(folder):
        os.environ.update(place)
        # Dask's processes are daemons, which may not start the processes that read pictures.
        current_process()._config["daemon"] = False  # type: ignore[attr-defined]
        try:
            return do_packed(unit, path)
        finally:
            for name in place:  # the next command's may be others
                del os.environ[name]
