"""Units of work give the same alone, by two processes and on a cluster, and what happens to one hurts no other."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
import torch
import units
from distributed import Client, LocalCluster

from dsna_lib.engine import cluster as clusters
from dsna_lib.engine import pools
from dsna_lib.engine.devices import core_count
from dsna_lib.engine.errors import RunError, SettingError
from dsna_lib.engine.pools import (
    ALONE,
    PoolError,
    Report,
    Share,
    Unit,
    Workers,
    completed,
    over_shares,
    run_shares,
    run_units,
    shares,
)

TWO = Workers(jobs=2)


@pytest.fixture(scope="module")
def local_cluster(tmp_path_factory):
    """A Dask scheduler with two workers in processes of their own; a task may die twice before it is given up."""
    place = tmp_path_factory.mktemp("dask")
    config = {"distributed.scheduler.allowed-failures": 1, "distributed.comm.timeouts.connect": "5s"}
    with (
        dask.config.set(config),
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            local_directory=str(place),
            silence_logs=logging.CRITICAL,
        ) as cluster,
    ):
        yield Workers(scheduler=cluster.scheduler_address)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Folders for runs and for temporary files, in which nothing may stay."""
    for name in ("runs", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("DSNA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield tmp_path
    assert not list((tmp_path / "runs").iterdir())
    assert not list((tmp_path / "temporary").glob(".work-*"))


@pytest.fixture
def light(monkeypatch):
    """Processes that do not import torch, which takes them most of their time."""
    monkeypatch.setattr(pools, "_start_worker", units.start_light)


@pytest.fixture(params=["alone", "two processes", "cluster"])
def workers(request, light):
    return {"alone": ALONE, "two processes": TWO}.get(request.param) or request.getfixturevalue("local_cluster")


@pytest.fixture(params=["two processes", "cluster"])
def others(request, light):
    return TWO if request.param == "two processes" else request.getfixturevalue("local_cluster")


# --- results ----------------------------------------------------------------------------------------------------------


UNITS = [Unit(what, seed) for seed in range(3) for what in ("DSNA", "CAM")]


def test_every_way_gives_the_same(workers):
    said: list[str] = []
    results = run_units(UNITS, partial(units.measure, scale=3.0), workers, said.append)
    assert list(results.items()) == [(unit, units.measure(unit, 3.0)) for unit in UNITS]
    assert sorted(line.split(": ", 1)[0] for line in said) == [f"{number} of 6" for number in range(1, 7)]
    assert [line.split(" ")[0] for line in said] == ["1", "2", "3", "4", "5", "6"]
    assert sorted(line.split(": ", 1)[1] for line in said) == sorted(f"{unit}: done" for unit in UNITS)


def test_a_unit_names_itself_by_what_and_seed():
    assert str(Unit("DSNA, merged", 2)) == "DSNA, merged, seed 2"


def test_no_units_are_no_work(workers):
    assert run_units([], units.measure, workers, pytest.fail) == {}


def test_the_same_pool_of_processes_does_many_units(others):
    processes = set(run_units(list(range(8)), units.process_of, others, units.nothing).values())
    assert os.getpid() not in processes
    assert 1 <= len(processes) <= 2


def test_one_unit_alone_is_done_in_this_process():
    assert run_units([1], units.process_of, TWO, units.nothing) == {1: os.getpid()}


def test_processes_share_the_cores():
    share = max(1, core_count() // 2)
    assert set(run_units([1, 2], units.threads_of, TWO, units.nothing).values()) == {share}


def test_of_several_gpus_each_process_gets_the_next(monkeypatch):
    chosen, threads = [], torch.get_num_threads()
    monkeypatch.setattr(pools, "_end_with_parent", units.nothing)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for count in (0, 1, 2):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        for place in range(3):
            pools._start_worker(place, 3)
    torch.set_num_threads(threads)
    assert chosen == [0, 1, 0]


# --- units that fail --------------------------------------------------------------------------------------------------


def test_a_unit_that_fails_does_not_take_the_others_with_it(workers):
    said: list[str] = []
    with pytest.raises(RunError) as error:
        run_units(["a", "nan", "b"], units.misbehave, workers, said.append)
    assert str(error.value) == (
        "1 of 3 failed (nan: the loss is nan), the other 2 are kept; run the same command again for these"
    )
    assert isinstance(error.value.__cause__, RuntimeError)
    assert sorted(line.split(": ", 1)[1] for line in said) == ["a: done", "b: done", "nan: failed: the loss is nan"]


def test_an_exception_arrives_as_what_it_is_or_in_words(workers):
    results = dict(completed(["a", "nan", "hint", "awkward", "silent", "key", "b"], units.misbehave, workers))
    assert (results.pop("a"), results.pop("b")) == ("A", "B")
    kinds = {"nan": RuntimeError, "hint": SettingError, "awkward": Exception, "silent": Exception, "key": KeyError}
    assert results.keys() == kinds.keys()
    assert all(isinstance(results[unit], kind) for unit, kind in kinds.items())
    assert {unit: str(error) for unit, error in results.items() if unit in ("nan", "hint", "silent", "key")} == {
        "nan": "the loss is nan",
        "hint": "crop=3 must be at least 16; raise `crop`",
        "silent": "",
        "key": "'missing'",
    }
    assert "this and that" in str(results["awkward"])
    assert results["hint"].hint == "raise `crop`"


def test_one_that_says_little_is_told_with_its_type(workers):
    with pytest.raises(RunError) as error:
        run_units(["silent", "key", "awkward"], units.misbehave, workers, units.nothing)
    message = str(error.value)
    assert message.startswith("3 of 3 failed (")
    assert message.endswith("); run the same command again for these")
    reasons = ["silent: SilentError", "key: KeyError: 'missing'", "awkward: AwkwardError: this and that"]
    assert all(reason in message for reason in reasons)


def test_a_reason_that_several_units_share_is_said_once():
    failing = [Unit("nan", seed) for seed in range(4)] + [Unit("a", 0)]
    with pytest.raises(RunError) as error:
        run_units(failing, lambda unit: units.misbehave(unit.what), ALONE, units.nothing)
    assert str(error.value).startswith("4 of 5 failed (nan, seed 0 and 3 more: the loss is nan), the other 1 are kept")


def test_a_result_that_cannot_be_sent_back_is_its_units_failure(others):
    results = dict(completed(["a", "lambda", "held", "b"], units.misbehave, others))
    assert (results["a"], results["b"]) == ("A", "B")
    for unit in ("lambda", "held"):
        assert isinstance(results[unit], PoolError)
        assert str(results[unit]).startswith("its result cannot be sent back (")


def test_a_unit_that_cannot_be_sent_fails_alone(others):
    stubborn = units.Stubborn()
    results = dict(completed(["a", stubborn, "b"], units.misbehave, others))
    assert (results["a"], results["b"]) == ("A", "B")
    assert str(results[stubborn]) == "stubborn cannot be sent to another process (TypeError: it stays here)"


def test_work_that_cannot_be_sent_is_refused_before_anything_starts():
    with pytest.raises(PoolError, match=r"cannot be sent to another process \("):
        run_units(["a", "b"], lambda unit: unit, TWO, units.nothing)


def test_a_cluster_does_what_was_defined_in_a_notebook(local_cluster):
    suffix = "!"
    assert run_units(["a", "b"], lambda unit: unit + suffix, local_cluster, units.nothing) == {"a": "a!", "b": "b!"}


def test_work_that_another_process_cannot_read_is_said_to_be_so(others):
    results = dict(completed(["a", "b"], units.Unreadable(), others))
    message = (
        "a worker cannot do its work (ModuleNotFoundError: No module named 'no_such_package_at_all'); "
        "all workers need the same folders and packages"
    )
    assert [str(error) for error in results.values()] == [message] * 2


# --- processes that die -----------------------------------------------------------------------------------------------


def test_a_unit_whose_process_was_killed_is_done_again_by_another(others, here):
    results = run_units(list(range(6)), partial(units.die_once, folder=here, victim=2), others, units.nothing)
    assert {unit: made for unit, (made, _) in results.items()} == {unit: unit for unit in range(6)}
    first, second = sorted((here / "begun").iterdir())
    assert first.name.split("-")[1] != second.name.split("-")[1] == str(results[2][1])
    if others == TWO:  # what the others hold in memory is given back first
        assert results[2][1] not in {process for unit, (_, process) in results.items() if unit != 2}


def test_a_unit_that_always_kills_its_process_fails_alone(others, here):
    said: list[str] = []
    with pytest.raises(RunError) as error:
        run_units(list(range(4)), partial(units.die_once, folder=here, victim=1, attempts=99), others, said.append)
    pattern = r"1 of 4 failed \(1: [^;\n]*died[^;\n]* \(out of memory\?\).*\), the other 3 are kept; run the same .*"
    assert re.fullmatch(pattern, str(error.value))
    assert isinstance(error.value.__cause__, PoolError)
    *done, failed = sorted((line.split(": ", 1)[1] for line in said), key=lambda line: "failed" in line)
    assert sorted(done) == ["0: done", "2: done", "3: done"]
    assert failed.startswith("1: failed: ")


def test_several_units_that_die_leave_the_rest(light, monkeypatch):
    rounds, elsewhere = [], pools._elsewhere
    monkeypatch.setattr(pools, "_elsewhere", lambda asked, *given: rounds.append(asked) or elsewhere(asked, *given))
    results = dict(completed(list(range(6)), partial(units.die_if, deadly=(0, 3)), TWO))
    assert {unit for unit, result in results.items() if isinstance(result, PoolError)} == {0, 3}
    assert {unit for unit, result in results.items() if result == "alive"} == {1, 2, 4, 5}
    assert rounds[0] == [0, 1, 2, 3, 4, 5]
    assert sorted(rounds[1:]) == [[0], [3]]  # only who was in the process that died


def test_a_unit_that_waited_behind_a_deadly_one_does_not_fail_with_it(here):
    """Dask gives a worker the next unit before it has done the first, and gives up both."""
    options = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "local_directory": str(here)}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(n_workers=1, threads_per_worker=1, silence_logs=logging.CRITICAL, **options) as cluster,
    ):
        work, workers = partial(units.die_if, deadly=(0,)), Workers(scheduler=cluster.scheduler_address)
        results = dict(completed([0, 1, 2], work, workers))
    assert isinstance(results[0], PoolError)
    assert (results[1], results[2]) == ("alive", "alive")


def test_a_unit_may_start_processes_of_its_own(others):
    assert run_units([1, 2], units.start_a_process, others, units.nothing) == {1: 0, 2: 0}


def test_nothing_is_left_running(light):
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    with pytest.raises(RunError):
        run_units(["a", "nan", "b"], units.misbehave, TWO, units.nothing)

    def stop(said: str) -> None:
        raise BrokenPipeError(said)

    with pytest.raises(BrokenPipeError):
        run_units(list(range(50)), units.process_of, TWO, stop)
    left = {process.pid: process for process in psutil.Process().children(recursive=True)}
    tracker = {pid for pid, process in left.items() if "resource_tracker" in " ".join(process.cmdline())}
    assert set(left) - tracker <= before


COMMAND = """
import os, sys, time
from dsna_lib.engine.pools import Workers, run_units

def sleep(unit):
    os.write(1, b"%d\\n" % os.getpid())  # in one write, as in units.say_process
    time.sleep(100)

if __name__ == "__main__":
    run_units([1, 2], sleep, Workers(jobs=2))
"""


def runs_still(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def test_workers_end_with_a_killed_command(here):
    script = here / "command.py"
    script.write_text(COMMAND)
    environment = os.environ | {"TMPDIR": str(here)}  # a killed command cannot tidy up
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as command:
        processes = [int(command.stdout.readline()) for _ in range(2)]
        assert all(runs_still(process) for process in processes)
        assert len({command.pid, *processes}) == 3
        command.kill()
    deadline = time.monotonic() + 20
    while any(runs_still(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    outlived = [process for process in processes if runs_still(process)]
    for process in outlived:
        os.kill(process, signal.SIGKILL)
    assert not outlived, "the workers outlived their command"


# --- a cluster --------------------------------------------------------------------------------------------------------


def test_variables_and_folder_arrive_at_the_workers_and_do_not_stay(local_cluster, monkeypatch, here):
    for voc in (str(here / "VOC"), None):
        folder = here / f"work-{voc is None}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("DSNA_RUNS", "../runs")
        monkeypatch.delenv("DSNA_VOC", raising=False)
        if voc is not None:
            monkeypatch.setenv("DSNA_VOC", voc)
        told = run_units(["a", "b", "c"], units.surroundings, local_cluster, units.nothing)
        assert set(told.values()) == {(voc, str(here / "runs"), str(folder))}


def test_a_worker_that_does_not_have_the_folder_says_so(local_cluster, here, monkeypatch):
    (here / "gone").mkdir()
    monkeypatch.chdir(here / "gone")
    monkeypatch.setattr(os, "getcwd", lambda: str(here / "elsewhere"))
    (reason,) = dict(completed(["a"], units.surroundings, local_cluster)).values()
    assert isinstance(reason, PoolError)
    assert str(reason) == (
        f"a worker cannot do its work ([Errno 2] No such file or directory: '{here / 'elsewhere'}'); "
        "all workers need the same folders and packages"
    )


def test_units_of_one_worker_never_run_at_the_same_time(here):
    """Even where a worker with several threads joins after the check."""
    running, most = [], []

    def look(unit: bytes, path: str) -> bytes:
        running.append(unit)
        most.append(len(running))
        time.sleep(0.02)
        running.remove(unit)
        return unit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clusters, "do_packed", look)
        threads = [threading.Thread(target=clusters._there, args=(bytes(k), "", {}, os.getcwd())) for k in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1, 1, 1, 1]


def test_what_a_cluster_says_is_told_in_one_line():
    def do(unit: str) -> bytes:
        raise ValueError("no such\nmodule")

    said = pools._answer("a", do)
    assert isinstance(said, PoolError)
    assert str(said) == "a worker cannot do its work (no such); all workers need the same folders and packages"


def test_a_cluster_gets_many_units_a_few_at_a_time(local_cluster, monkeypatch):
    monkeypatch.setattr(pools, "ON_CLUSTER", 2)
    numbers = list(range(20))
    assert run_units(numbers, lambda unit: 2 * unit, local_cluster, units.nothing) == {k: 2 * k for k in numbers}


def error_within(seconds: float, call: Callable[[], Any]) -> BaseException:
    """What a call raises, which must not wait for ever."""
    raised: list[BaseException] = []

    def target() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(timeout=seconds)
    assert raised, "it waits for ever"
    return raised[0]


def test_who_stops_does_not_wait_for_what_a_cluster_still_does(local_cluster, here):
    (folder := here / "units").mkdir()
    threads = threading.active_count()

    def stop(said: str) -> None:
        raise BrokenPipeError(said)

    try:
        work = partial(units.wait_if_slow, folder)
        error = error_within(8, lambda: run_units(["slow", *"abcde"], work, local_cluster, stop))
        assert isinstance(error, BrokenPipeError)
        deadline = time.monotonic() + 8
        while threading.active_count() > threads and time.monotonic() < deadline:
            time.sleep(0.02)
        assert threading.active_count() <= threads
    finally:
        (folder / "enough").touch()


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """Something that listens, and answers everything alike or not at all; yields its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stopped = threading.Event()

        def serve() -> None:
            listener.settimeout(0.05)
            held = []
            while not stopped.is_set():
                try:
                    held.append(listener.accept()[0])
                except TimeoutError:
                    continue
                if answer is not None:
                    held[-1].sendall(answer)
            for connection in held:
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stopped.set()
            thread.join()


def refused(address: str) -> str:
    """What is said about a scheduler, which must take but a few seconds."""
    scheduler = Workers(scheduler=address)
    error = error_within(8, lambda: run_units(["a", "b"], units.surroundings, scheduler, pytest.fail))
    assert isinstance(error, PoolError)
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(clusters, "ANSWER_WITHIN", 0.4)


def test_a_scheduler_that_does_not_answer_is_named(soon):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    assert refused(address) == (
        f"no Dask scheduler answers at {address} (Timed out trying to connect to {address} after 0.4 s); "
        "start one with `dask scheduler`, or leave out `scheduler`"
    )


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64])
def test_something_else_that_listens_there_is_no_scheduler(soon, answer):
    with listening(answer) as address:
        said = refused(address)
    assert said.startswith(f"no Dask scheduler answers at {address} (")
    if answer is None:
        assert "(something listens there and says nothing)" in said


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:8786", "tcp://127.0.0.1", "tcp://:x"])
def test_what_is_no_address_is_named(soon, address):
    assert refused(address).startswith(f"no Dask scheduler answers at {address} (")


def test_a_scheduler_without_workers_is_refused(soon):
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        address = cluster.scheduler_address
        hint = f"start some: dask worker --nthreads 1 {address}"
        assert refused(address) == f"the scheduler at {address} has no workers; {hint}"


def test_workers_with_several_threads_are_refused(here):
    """They would share one state of random numbers."""
    options = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "local_directory": str(here)}
    with LocalCluster(n_workers=1, threads_per_worker=2, **options) as cluster:
        address = cluster.scheduler_address
        hint = "start workers with --nthreads 1"
        assert refused(address) == f"a worker of {address} has several threads; {hint}"


def test_without_dask_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert refused("tcp://127.0.0.1:8786") == 'a cluster needs Dask; install it: pip install "dsna-book[cluster]"'


def test_workers_that_cannot_be_are_refused():
    for jobs in (0, -1):
        with pytest.raises(PoolError, match=f"^jobs={jobs} must be at least 1$"):
            Workers(jobs)
    with pytest.raises(PoolError, match="^scheduler='' is no address"):
        Workers(scheduler="")
    assert Workers() == ALONE


@pytest.fixture
def started(here):
    """Starts a scheduler and two workers by Dask's own commands; workers that die stay dead."""
    (dask_command := Path(sys.executable).with_name("dask")).stat()
    processes: list[subprocess.Popen] = []
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "DASK_TEMPORARY_DIRECTORY": str(here),
    }

    def start(*arguments: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [dask_command, *arguments], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        processes.append(process)
        return process

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show")
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1")
    start_worker = partial(start, "worker", *options, address)
    yield address, scheduler, [start_worker() for _ in range(2)], start_worker
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def in_background():
    """Starts run_units in a thread, and gives what becomes of it."""

    def run(names: list[str], work: Callable[[str], str], workers: Workers) -> Callable[[], Any]:
        ended: list[Any] = []

        def target() -> None:
            try:
                ended.append(run_units(names, work, workers, units.nothing))
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=target, daemon=True)
        thread.start()

        def result() -> Any:
            thread.join(timeout=30)
            assert ended, "it hangs"
            return ended[0]

        return result

    return run


def begun(folder: Path, unit: str, times: int) -> list[int]:
    """The processes in which a unit was begun, once it was so often."""
    deadline = time.monotonic() + 20
    while len(there := sorted(folder.glob(f"{unit}-*"), key=lambda path: path.stat().st_mtime_ns)) < times:
        assert time.monotonic() < deadline, f"{unit} was begun {len(there)} times"
        time.sleep(0.02)
    return [int(path.name.split("-")[1]) for path in there]


def test_a_unit_of_a_killed_worker_is_done_by_another_or_by_the_next_that_comes(
    started, in_background, here, monkeypatch
):
    address, _, workers, start_worker = started
    (folder := here / "units").mkdir()
    monkeypatch.setattr(clusters, "ANSWER_WITHIN", 20)
    run_units(
        ["a", "b"], partial(units.wait_if_slow, folder), Workers(scheduler=address), units.nothing
    )  # both are awake then
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=20)

    # A worker is killed in the middle: the other one finishes its unit.
    result = in_background(["slow", "c"], partial(units.wait_if_slow, folder), Workers(scheduler=address))
    (first,) = begun(folder, "slow", 1)
    (killed,) = [worker for worker in workers if worker.pid == first]
    killed.kill()
    assert begun(folder, "slow", 2) == [first, next(worker.pid for worker in workers if worker.pid != first)]
    (folder / "enough").touch()
    assert result() == {"slow": "slow", "c": "c"}

    # The last one is killed: the next that comes does its unit.
    (folder / "enough").unlink()
    for path in folder.glob("slow-*"):
        path.unlink()
    result = in_background(["slow", "d"], partial(units.wait_if_slow, folder), Workers(scheduler=address))
    begun(folder, "slow", 1)
    next(worker for worker in workers if worker is not killed).kill()
    another = start_worker()
    assert begun(folder, "slow", 2)[1] == another.pid
    (folder / "enough").touch()
    assert result() == {"slow": "slow", "d": "d"}


def test_a_scheduler_that_goes_away_is_named(started, in_background, here, monkeypatch):
    address, scheduler, *_ = started
    (folder := here / "units").mkdir()
    monkeypatch.setattr(clusters, "ANSWER_WITHIN", 20)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        result = in_background(["slow", "d"], partial(units.wait_if_slow, folder), Workers(scheduler=address))
        begun(folder, "slow", 1)
        scheduler.kill()
        said = str(result())
    (folder / "enough").touch()
    assert f"the scheduler at {address} went away" in said


# --- shares of a data set ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count, batch_size, workers, made",
    [
        (0, 1, ALONE, []),
        (50, 16, ALONE, [(0, 50)]),
        (50, 16, TWO, [(0, 32), (32, 50)]),
        (70, 1, TWO, [(0, 32), (32, 64), (64, 70)]),
        (70, 15, TWO, [(0, 45), (45, 70)]),
        (70, 40, Workers(jobs=9), [(0, 40), (40, 70)]),
        (40, 1, Workers(scheduler="tcp://127.0.0.1:1"), [(0, 32), (32, 40)]),
        (0, 1, TWO, []),
    ],
)
def test_shares_are_whole_batches(count, batch_size, workers, made):
    cut = shares(count, batch_size, workers)
    assert cut == [Share(range(*ends)) for ends in made]
    assert all(share.places.start % batch_size == 0 for share in cut)


def test_a_share_names_itself_by_its_first_and_last_picture():
    assert str(Share(range(32, 50))) == "pictures 33 to 50"


def test_every_way_reports_all_pictures_in_their_order(workers):
    report = run_shares(100, partial(units.treat, bad=(3, 77)), workers, batch_size=7)
    assert report == units.treat(range(100), (3, 77))
    assert list(report.failed) == ["p003", "p077"]
    assert report.written == sorted(report.written)
    assert len(report.written) + len(report.skipped) + len(report.failed) == 100


def test_no_pictures_are_an_empty_report(workers):
    assert run_shares(0, units.treat, workers) == Report()


def test_the_first_share_that_fails_is_raised_once_all_were_tried(others, here):
    (here / "done").mkdir()
    with pytest.raises(SettingError, match="^picture 40 is wrong; mend it$") as error:
        run_shares(128, partial(units.fail_in, bad=(70, 40), folder=here / "done"), others)
    assert error.value.hint == "mend it"
    assert {path.name for path in (here / "done").iterdir()} == {"0", "96"}


def test_what_comes_of_shares_is_in_their_order(workers):
    """The first share is the slowest."""
    parts = list(over_shares(100, units.treat, workers, batch_size=7))
    assert [part.skipped[0] for part in parts] == (["p000"] if workers == ALONE else ["p000", "p040", "p070"])
    assert sum(len(part.written) + len(part.skipped) for part in parts) == 100


def test_a_report_takes_in_another_and_refuses_failures():
    report, other = Report(["a"], ["b"], {"c": "bad"}), Report(["d"], [], {"e": "worse"})
    report.add(other)
    assert report == Report(["a", "d"], ["b"], {"c": "bad", "e": "worse"})
    with pytest.raises(RunError, match="^2 pictures could not be annotated, such as c: bad$"):
        report.raise_failures("annotated")
    Report(["a"]).raise_failures("annotated")


def test_heavy_work_travels_once_and_not_with_every_unit(others, here, monkeypatch):
    written: list[int] = []
    write = pools.write_atomically

    def noted(path, content):
        write(path, content)
        written.append(Path(path).stat().st_size)

    monkeypatch.setattr(pools, "write_atomically", noted)
    assert set(run_units(list(range(20)), units.Heavy(3_000_000), others, units.nothing).values()) == {3_000_000}
    assert len(written) == 1
    assert 3_000_000 < written[0] < 3_100_000
