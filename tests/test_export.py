"""Model files as ONNX: they compute what PyTorch does, at any size, and say what they are."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from tiny import needs_onnx
from torch import nn

from dsna_lib import checkpoints, export, maps
from dsna_lib.attention import AttentionModel, ConventionalAttention, DecoupledAttention, SingleStreamAttention
from dsna_lib.backbones import CheckpointError
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import read_json
from dsna_lib.segmentation import networks


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "model.pth"
    path.write_bytes(b"weights")
    return path


def attention_model(head: nn.Module, backbone: nn.Module | None = None) -> AttentionModel:
    model = AttentionModel(backbone or tiny.backbone(), head).eval()
    model.config = ModelConfig(tiny.NAMES, output_stride=4)
    return model


def computed(file: Path, pictures: torch.Tensor) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return dict(
        zip([o.name for o in session.get_outputs()], session.run(None, {"pictures": pictures.numpy()}), strict=True)
    )


@needs_onnx
@pytest.mark.parametrize("head", [DecoupledAttention, ConventionalAttention, SingleStreamAttention])
def test_attention_gives_scores_and_maps_as_they_are_and_scaled(head, source, tmp_path):
    torch.manual_seed(1)
    model = attention_model(head(8, len(tiny.NAMES)))
    about = export.write(model, tmp_path / "out" / "model.onnx", 32, "mine", source)
    pictures = torch.rand(3, 3, 36, 52)
    got = computed(tmp_path / "out" / "model.onnx", pictures)
    with torch.no_grad():
        output = model(pictures)
    wanted = {"scores": output.scores, "a": output.expansive, "s": output.discriminative, **maps.from_output(output)}
    wanted["background"] = output.features.sum(dim=1, keepdim=True)
    if head is SingleStreamAttention:
        del wanted["a"]
    assert list(about["outputs"]) == list(got) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values.numpy(), atol=1e-5, err_msg=name)
        assert about["outputs"][name]["shape"][1] == values.shape[1]
        assert len(about["outputs"][name]["shape"]) == values.ndim
    assert about == read_json(tmp_path / "out" / "model.json")
    assert about["class_names"] == list(tiny.NAMES)
    assert about["model"] == {"file": "model.pth", "digest": runs.file_digest(source)}
    assert (about["kind"], about["license"]) == ("attention", "mine")
    assert about["input"]["shape"] == ["pictures", 3, "height", "width"]
    assert about["input"]["mean"] == pytest.approx(model.backbone.mean.flatten().tolist())
    assert about["bytes"] == (tmp_path / "out" / "model.onnx").stat().st_size
    assert about["difference"] < 1e-5


@needs_onnx
@pytest.mark.parametrize("decoder", [True, False])
def test_segmentation_gives_a_score_for_each_cell(decoder, source, tmp_path):
    torch.manual_seed(0)
    config = SegmentationConfig(tiny.NAMES, channels=8, dilation=2, decoder=decoder, weights=None)
    model = networks.create(config)
    about = export.write(model, tmp_path / "model.onnx", 60, "", source)
    assert about["kind"] == "segmentation"
    assert about["input"]["size"] == (65 if decoder else 57)  # cells on the border
    pictures = torch.rand(2, 3, 81, 113)
    with torch.no_grad():
        wanted = model(pictures)
    logits = computed(tmp_path / "model.onnx", pictures)["logits"]
    np.testing.assert_allclose(logits, wanted.numpy(), atol=1e-4 * wanted.abs().max().item())
    same = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.padding == "same"]
    assert bool(same) == decoder  # the network itself stays as it is


@needs_onnx
def test_weights_that_half_precision_holds_are_stored_so(source, tmp_path):
    import onnx

    stored = {}
    for half in (False, True):
        model = attention_model(DecoupledAttention(8, 3))
        if half:
            for weights in model.parameters():
                weights.data = weights.data.half().float()
        file = tmp_path / f"{half}.onnx"
        export.write(model, file, 32, "", source)
        weights = [w for w in onnx.load(file).graph.initializer if w.data_type in (1, 10) and np.prod(w.dims) > 64]
        stored[half] = {w.data_type for w in weights}
        pictures = torch.rand(1, 3, 32, 32)
        with torch.no_grad():
            np.testing.assert_allclose(computed(file, pictures)["s"], model(pictures).discriminative.numpy(), atol=1e-6)
    assert stored == {False: {onnx.TensorProto.FLOAT}, True: {onnx.TensorProto.FLOAT16}}
    doubles = [n for n in onnx.load(file).graph.node for a in n.attribute if a.t.data_type == onnx.TensorProto.DOUBLE]
    assert doubles == []  # not every runtime has them


class Fixed(nn.Module):
    """As networks that know each place by its number."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.rand(8, 8, 8))

    def forward(self, features):
        return features + self.places


@needs_onnx
def test_a_backbone_of_one_size_says_so(source, tmp_path):
    backbone = tiny.backbone()
    backbone.stages.append(Fixed())
    about = export.write(attention_model(DecoupledAttention(8, 3), backbone), tmp_path / "model.onnx", 32, "", source)
    assert about["input"]["shape"] == ["pictures", 3, 32, 32]
    assert computed(tmp_path / "model.onnx", torch.rand(2, 3, 32, 32))["scores"].shape == (2, 3)


@needs_onnx
def test_what_differs_is_refused(source, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_difference", lambda *_: float("nan"))
    with pytest.raises(RunError, match=r"model\.onnx: computes something else than PyTorch \(by nan\)"):
        export.write(attention_model(DecoupledAttention(8, 3)), tmp_path / "model.onnx", 32, "", source)
    assert not (tmp_path / "model.onnx").exists()


@needs_onnx
def test_the_difference_is_one_of_outputs(source):
    model = attention_model(DecoupledAttention(8, 3))
    pictures = torch.rand(1, 3, 32, 32)
    network = export._Outputs(model, pictures)
    content = export._content(network, pictures, True)
    assert export._difference(network, content, pictures) < 1e-5
    model.head.discriminative.bias.data += 0.5
    assert export._difference(network, content, pictures) > 0.1


@needs_onnx
@pytest.mark.parametrize("path, size", [(checkpoints.ATTENTION, 64), (checkpoints.SEGMENTATION, 65)])
def test_files_that_ship(path, size, tmp_path):
    about = export.export(path, tmp_path, size, checkpoints.LICENSE)
    assert about["file"] == f"{path.stem}.onnx"
    assert about["bytes"] < 8e6
    assert about["difference"] < 1e-4
    assert len(about["class_names"]) == 20


@needs_onnx
def test_other_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pth: no such weight file"):
        export.export(tmp_path / "none.pth", tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="no model file of this book"):
        export.export(tmp_path / "other.pth", tmp_path)


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_what_is_missing_is_named(name, tmp_path, monkeypatch):
    for module in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, module, None if module == name else sys)
    with pytest.raises(ImportError, match=rf'needs {name}: pip install "dsna-book\[export\]"'):
        export.export(checkpoints.ATTENTION, tmp_path)
