"""Which device, in which precision, and which of several processes speaks for all."""

from __future__ import annotations

import os

import pytest
import torch

from dsna_lib.engine import devices
from dsna_lib.engine.errors import DsnaError, RunError, SettingError, first_few


def with_gpus(monkeypatch, *shown: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in shown)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in shown)


@pytest.mark.parametrize("shown, auto", [([], "cpu"), (["cuda"], "cuda"), (["mps"], "mps"), (["mps", "cuda"], "cuda")])
def test_the_device_of_a_name(monkeypatch, shown, auto):
    with_gpus(monkeypatch, *shown)
    for name, device in [("auto", auto), ("cpu", "cpu"), *zip(shown, shown, strict=True)]:
        assert devices.choose_device(name) == torch.device(device)
    assert devices.choose_device() == devices.choose_device("auto")


@pytest.mark.parametrize("name, kind", [("cuda", "GPU"), ("mps", "GPU of Apple's")])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, name, kind):
    with_gpus(monkeypatch, *{"cuda", "mps"} - {name})
    with pytest.raises(RunError) as error:
        devices.choose_device(name)
    assert str(error.value) == f"a GPU was asked for, but this machine shows no {kind}; use `device` cpu"


@pytest.mark.parametrize("said, device", [("true", "cpu"), ("1", "cpu"), ("false", "mps"), ("", "mps")])
def test_auto_does_without_a_gpu_where_accelerate_does(monkeypatch, said, device):
    with_gpus(monkeypatch, "mps")
    monkeypatch.setenv("ACCELERATE_USE_CPU", said)
    assert devices.choose_device().type == device
    assert devices.choose_device("mps").type == "mps"


def test_apples_gpus_compute_in_fp32(monkeypatch):
    with_gpus(monkeypatch, "mps")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert devices.native_precision() == devices.native_precision("mps") == "no"
    with_gpus(monkeypatch)
    assert devices.native_precision("mps") == "no"
    assert devices.native_precision() == "bf16"


@pytest.mark.parametrize(
    "quota, cores",
    [("max 100000", 3), ("200000 100000", 2), ("150000 100000", 2), ("9 100000", 1), ("900000 100000", 3), (None, 3)],
)
def test_cores_are_those_that_the_process_may_use(monkeypatch, tmp_path, quota, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 7}, raising=False)
    monkeypatch.setattr(devices, "CPU_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        devices.CPU_QUOTA.write_text(f"{quota}\n")
    assert devices.core_count() == cores
    assert [devices.reader_count(asked) for asked in (0, 1, 8)] == [0, 1, cores]


def test_without_affinity_all_cores_count(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(devices, "CPU_QUOTA", tmp_path / "gone")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert devices.core_count() == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert devices.core_count() == 1


@pytest.mark.parametrize("amx, precision", [(True, "bf16"), (False, "no")])
def test_a_processor_computes_in_bf16_where_it_multiplies_such_matrices(monkeypatch, amx, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert devices.native_precision("cpu") == devices.native_precision() == precision


def test_a_release_of_torch_that_does_not_tell_gets_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert devices.native_precision("cpu") == "no"


@pytest.mark.parametrize("bf16, precision", [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_half_precision(monkeypatch, bf16, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert devices.native_precision() == devices.native_precision("cuda") == precision
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert devices.native_precision("cpu") == "no"


def test_one_process_alone_is_the_main_one_and_waits_for_nobody(monkeypatch):
    for name in devices.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    assert devices.process_count() == 1
    assert devices.is_main_process()
    devices.wait_for_everyone()


@pytest.mark.parametrize("rank", [0, 1])
def test_of_several_processes_the_first_is_the_main_one(monkeypatch, rank):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, str(rank))
    assert devices.process_count() == 2
    assert devices.is_main_process() is (rank == 0)


@pytest.mark.parametrize("alone", [{}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "RANK": "0"}, {"RANK": "0"}])
def test_a_cluster_that_says_there_is_one_process_does_no_harm(monkeypatch, alone):
    for name in devices.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in alone.items():
        monkeypatch.setenv(name, value)
    assert devices.process_count() == 1
    assert devices.is_main_process()


@pytest.mark.parametrize(
    "left, said",
    [
        ({"WORLD_SIZE": "abc"}, "RANK is not set, WORLD_SIZE is abc, LOCAL_RANK is not set"),
        ({"WORLD_SIZE": ""}, "RANK is not set, WORLD_SIZE is , LOCAL_RANK is not set"),
        ({"WORLD_SIZE": "2"}, "RANK is not set, WORLD_SIZE is 2, LOCAL_RANK is not set"),
        ({"WORLD_SIZE": "0"}, "RANK is not set, WORLD_SIZE is 0, LOCAL_RANK is not set"),
        ({"RANK": "1"}, "RANK is 1, WORLD_SIZE is not set, LOCAL_RANK is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK is 0, WORLD_SIZE is 2, LOCAL_RANK is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK is 2, WORLD_SIZE is 2, LOCAL_RANK is 0"),
        ({"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK is -1, WORLD_SIZE is 2, LOCAL_RANK is 0"),
        ({"LOCAL_RANK": "0"}, "RANK is not set, WORLD_SIZE is not set, LOCAL_RANK is 0"),
    ],
)
@pytest.mark.parametrize("ask", [devices.process_count, devices.is_main_process, devices.wait_for_everyone])
def test_what_is_left_over_of_a_launch_is_refused(monkeypatch, left, said, ask):
    for name in devices.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingError) as error:
        ask()
    hint = "unset them, or start the processes by accelerate launch"
    assert str(error.value) == f"environment variables of no launch of processes: {said}; {hint}"


def test_an_error_puts_its_hint_behind_the_message():
    error = DsnaError("rate=2 must be at most 1", "lower `rate`")
    assert (str(error), error.hint) == ("rate=2 must be at most 1; lower `rate`", "lower `rate`")
    assert (str(DsnaError("wrong")), DsnaError("wrong").hint) == ("wrong", "")


def test_the_first_of_many_names():
    assert first_few([]) == ""
    assert first_few(["a", "b", "c"]) == "a, b, c"
    assert first_few(list("abcde"), shown=2, separator="; ") == "a; b and 3 more"
