"""The benchmarks run, and what they time is what they say."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType

import pytest
import scripts
import tiny
import torch
from torch import Tensor
from torch.nn import functional

from dsna_lib import maps, runs


def script(name: str) -> ModuleType:
    return scripts.load(f"benchmarks/{name}.py")


@pytest.fixture(scope="module")
def one_pass() -> ModuleType:
    return script("one_pass")


@pytest.fixture
def batch() -> Tensor:
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_rows(one_pass: ModuleType, batch: Tensor) -> None:
    rows = one_pass.measure(tiny.backbone(), batch, rounds=3)
    for name in ("backbone", "dsna", "dsna_lib.cams", "multi-scale cam"):
        low, high = rows[name]["quartiles"]
        assert rows[name]["milliseconds_a_picture"] > 0
        assert 0 < low <= rows[name]["ratio"] <= high


@pytest.mark.parametrize("bf16", [False, True])
def test_a_batch_and_its_limits(one_pass: ModuleType, batch: Tensor, bf16: bool) -> None:
    rows = one_pass.measure(tiny.backbone(), batch.expand(2, -1, -1, -1), rounds=1, bf16=bf16)
    assert rows["multi-scale cam"] == {"skipped": "does not run: its pipeline takes one picture at a time"}
    assert "ratio" in rows["dsna"]
    assert "ratio" in rows["dsna_lib.cams"]


def test_missing_package(one_pass: ModuleType, batch: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    rows = one_pass.measure(tiny.backbone(), batch, rounds=1)
    assert rows["grad-cam"] == {"skipped": "pytorch_grad_cam is not installed: pip install -e .[bench]"}
    assert "ratio" in rows["dsna"]


def test_own_errors_are_not_hidden(one_pass: ModuleType, batch: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_pass.maps, "from_output", lambda output: int("no map"))
    with pytest.raises(ValueError, match="no map"):
        one_pass.measure(tiny.backbone(), batch, rounds=1)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("rival, module", [("torch-cam", "torchcam"), ("grad-cam", "pytorch_grad_cam")])
def test_every_grad_cam_gives_the_same_maps(one_pass: ModuleType, rival: str, module: str, count: int) -> None:
    pytest.importorskip(module, reason="pip install -e .[bench]")
    torch.manual_seed(0)
    pictures = torch.rand(count, 3, 32, 48)
    works = one_pass.contenders(tiny.backbone(), pictures)
    own = works["dsna_lib.cams"]()
    assert own.shape == (count, 2, 8, 12)
    assert own.amax(dim=(-2, -1)).min() > 0.9  # no map is empty: the comparison means something
    theirs = works[rival]()
    if theirs.shape != own.shape:  # in the picture's size
        own = functional.interpolate(maps.min_max(own), (32, 48), mode="bilinear")
    torch.testing.assert_close(theirs, maps.min_max(own), atol=1e-4, rtol=0)


def test_multi_scale_cam_of_a_mirrored_picture_is_mirrored(one_pass: ModuleType, batch: Tensor) -> None:
    torch.manual_seed(0)
    backbone = tiny.backbone()
    found = []
    for pictures in (batch, batch.flip(-1)):
        torch.manual_seed(1)  # of the head
        found.append(one_pass.contenders(backbone, pictures)["multi-scale cam"]())
    assert found[0].shape == (1, 2, 32, 48)
    assert not torch.allclose(found[0], found[1], atol=1e-2)
    torch.testing.assert_close(found[0], found[1].flip(-1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0].amax(dim=(-2, -1)), torch.ones(1, 2), atol=1e-2, rtol=0)


def test_command_line_writes_the_result(
    one_pass: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(one_pass.backbones, "create", lambda *_, **__: tiny.backbone())
    (tmp_path / "results").mkdir()
    monkeypatch.chdir(tmp_path)
    one_pass.main(["--batch-sizes", "1", "2", "--rounds", "1", "--size", "32", "--name", "speed"])
    content = runs.read_json("results/speed.json")
    assert set(content["values"]) == {"batch of 1", "batch of 2"}
    assert content["provenance"]["arguments"]["rounds"] == 1
    assert "one picture at a time" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        one_pass.main(["--rounds", "0"])


def test_both_training_loops_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = script("segmentation_speed")
    monkeypatch.setattr(module.minivoc, "load", lambda split: tiny.pictures(tmp_path, 10, masks=True))
    monkeypatch.setattr(module.segmentation, "create", lambda config: tiny.segmentation())
    shape = {"batch_size": 2, "crop": 17, "steps": 5, "rounds": 2, "precision": "no", "workers": 0}
    found = module.steps(argparse.Namespace(backbone="tiny", train_last=None, **shape))
    assert found["steps"] == 2 * (5 - 1 - module.SKIPPED)
    assert found["own_milliseconds"] > 0
    assert found["bare_milliseconds"] > 0
    assert 0 < found["waiting_for_pictures"] < 1
