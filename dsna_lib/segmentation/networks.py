"""Segmentation networks: a backbone of output stride 8 and a head that scores each cell and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dsna_lib import backbones, model_files
from dsna_lib.backbones import Backbone
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.engine.errors import SettingError

STRIDE = 8
FORMAT = "dsna-segmentation-1"  # of model files
CHANNELS = {"vgg16": 1024, "efficientnet_lite0": 128}  # of the dilated convolution; 512 for others


class SegmentationModel(nn.Module):
    """A backbone of output stride 8 and a head: pictures in, a score for each cell and class out.

    Args:
        backbone: maps pictures ``(N, 3, H, W)`` in 0..1 to features ``(N, D, h, w)``.
        head: maps features to ``(N, C + 1, h, w)``.
    """

    def __init__(self, backbone: Backbone, head: nn.Sequential) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.config: SegmentationConfig | None = None

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)``, RGB in 0..1, to logits ``(N, C + 1, h, w)``; class 0 is background."""
        return self.head(self.backbone(pictures))


def create(config: SegmentationConfig) -> SegmentationModel:
    """Make a network. Its head starts from random weights: seed torch first.

    Raises:
        SettingError: unknown backbone, or one without output stride 8; a pretrained head that VGG-16 does not have.
        CheckpointError: the backbone's weights cannot be used.

    Example:
        >>> model = create(SegmentationConfig(("cat", "dog"), "vgg16", weights=None))
        >>> model(torch.rand(1, 3, 65, 65)).shape
        torch.Size([1, 3, 9, 9])
    """
    if config.pretrained_head and (config.backbone != "vgg16" or config.weights is None):
        given = f"backbone={config.backbone!r} with weights={config.weights!r}"
        raise SettingError(f"`pretrained_head`: only VGG-16's weights hold a head to start from, not {given}")
    backbone = _backbone(config)
    model = SegmentationModel(backbone, _head(config, backbone.out_channels)).eval()
    model.config = config
    return model.to(memory_format=torch.channels_last)


def _backbone(config: SegmentationConfig) -> Backbone:
    if config.backbone == "vgg16":
        backbone = _large_fov(backbones.create("vgg16", weights=config.weights))
    else:
        backbone = backbones.create(config.backbone, STRIDE, config.weights)
    if config.backbone == "efficientnet_lite0":
        # The attention model needs conv_head's activation (its channel sum is the background cue); this head does not.
        backbone.stages, backbone.out_channels = backbone.stages[:-1], 320
    backbone.train_last(config.train_last)
    for module in backbone.modules():  # its statistics are frozen, see Backbone; so are its scale and shift
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)
    return backbone


def _large_fov(backbone: Backbone) -> Backbone:
    """VGG-16 with a cell every 8 pixels; no weight changes."""
    layers = list(backbone.stages)
    pools = [place for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    for number, place in enumerate(pools):
        layers[place] = nn.MaxPool2d(3, stride=2 if number < 3 else 1, padding=1)
    for layer in layers[pools[3] :]:  # conv5 sees what it saw before pool4 lost its stride
        if isinstance(layer, nn.Conv2d):
            layer.dilation, layer.padding = (2, 2), (2, 2)
    pool5 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.AvgPool2d(3, stride=1, padding=1))
    backbone.stages, backbone.output_stride = nn.Sequential(*layers, pool5), STRIDE
    return backbone


def _head(config: SegmentationConfig, in_channels: int) -> nn.Sequential:
    channels, d = config.channels or CHANNELS.get(config.backbone, 512), config.dilation
    hidden = [nn.Conv2d(in_channels, channels, 3, padding=d, dilation=d)]  # the large field of view, fc6 in VGG-16
    if config.backbone == "vgg16":
        hidden.append(nn.Conv2d(channels, channels, kernel_size=1))  # fc7
        for convolution in hidden:  # features without BatchNorm are large: He's weights would diverge
            nn.init.normal_(convolution.weight, std=0.01)
    else:
        nn.init.kaiming_normal_(hidden[0].weight, nonlinearity="relu")
    classifier = nn.Conv2d(channels, len(config.class_names) + 1, kernel_size=1)
    nn.init.normal_(classifier.weight, std=0.01)
    layers: list[nn.Module] = []
    for convolution in hidden:
        layers += [convolution, nn.ReLU(inplace=True), nn.Dropout(config.dropout)]
    head = nn.Sequential(*layers, classifier)
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    if config.pretrained_head and config.weights is not None:
        head.load_state_dict(_thinned_out(backbones.vgg16_classifier(config.weights), channels), strict=False)
    return head


def _thinned_out(whole: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Evenly spaced channels of VGG-16's fc6 and fc7 for our head, and of fc6's 7x7 places every third: 3x3.

    VGG-16's cells there are 32 pixels apart, so places 0, 3 and 6 are 96: 12 of our cells. The dilation is this number.
    """
    of = len(whole["fc6.bias"])
    if channels > of:
        raise SettingError(f"`pretrained_head`: VGG-16 has {of} channels to choose from, not {channels}")
    kept = torch.arange(channels) * (of // channels)
    fc6 = whole["fc6.weight"].view(of, -1, 7, 7)[kept, :, ::3, ::3]
    fc7 = whole["fc7.weight"][kept][:, kept, None, None]
    return {"0.weight": fc6, "0.bias": whole["fc6.bias"][kept], "3.weight": fc7, "3.bias": whole["fc7.bias"][kept]}


def save(model: SegmentationModel, path: str | Path, half: bool = False) -> None:
    """Write a model file; see :func:`dsna_lib.model_files.save`."""
    model_files.save(model, path, FORMAT, half)


def load(path: str | Path, class_names: Sequence[str] | None = None) -> SegmentationModel:
    """Read a model file that :func:`save` wrote; see :func:`dsna_lib.model_files.load`."""
    # The whole head is in the file: nothing is to be fetched for it.
    return model_files.load(
        path, FORMAT, SegmentationConfig, lambda config: create(replace(config, pretrained_head=False)), class_names
    )
