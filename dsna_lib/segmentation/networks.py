"""Segmentation networks: a backbone and a head that scores each cell and class.

Two kinds of head: DeepLab's, one dilated convolution on cells of 8 pixels, or of 16; and a decoder, which takes cells
of 16 pixels (they cost a sixth, where a backbone has to be dilated for 8) and outlines from the backbone's finer
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import backbones, model_files
from dsna_lib.backbones import Backbone
from dsna_lib.config.segmentation import COARSE, FINE, SegmentationConfig
from dsna_lib.engine.errors import SettingError

FORMAT = "dsna-segmentation-1"  # of model files
CHANNELS = {"vgg16": 1024, "efficientnet_lite0": 128}  # of the dilated convolution; 512 for others


class Decoder(nn.Module):
    """Context on coarse features, then finer ones: the last two grids before it, of strides 8 and 4.

    The context is what DeepLab v3 puts side by side: a 1x1 convolution, dilated 3x3 ones, and the picture's mean. Going
    up follows its v3+ and U-Net: scaled up, joined with a narrow projection of the finer features, convolved.

    Args:
        widths: channels of the backbone's last three grids, the finest first.
        channels: of each part of the context; the decoder has as many, and half of it on the finest grid.
        dilation: of one 3x3 convolution of the context, in coarse cells; the other's is twice that.
        dropout: rate on the context.
        classes: scores to give.
    """

    def __init__(self, widths: Sequence[int], channels: int, dilation: int, dropout: float, classes: int) -> None:
        super().__init__()
        *finer, coarse = widths
        self.context = nn.ModuleList(
            [
                _convolution(coarse, channels, 1),
                _convolution(coarse, channels, 3, dilation),
                _convolution(coarse, channels, 3, 2 * dilation),
            ]
        )
        self.mean = _convolution(coarse, channels, 1)
        self.joined = nn.Sequential(_convolution(4 * channels, channels, 1), nn.Dropout(dropout))
        self.projections, self.steps, width = nn.ModuleList(), nn.ModuleList(), channels
        for finer_width, out in zip(reversed(finer), (channels, channels // 2), strict=True):
            self.projections.append(_convolution(finer_width, channels // 4, 1))
            self.steps.append(_convolution(width + channels // 4, out, 3))
            width = out
        self.classifier = nn.Conv2d(width, classes, kernel_size=1)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Features of each grid, the finest first, to scores ``(N, classes, h, w)`` at stride 4."""
        *_, finest, finer, coarse = levels
        mean = self.mean(coarse.mean(dim=(2, 3), keepdim=True)).expand(-1, -1, *coarse.shape[-2:])
        x = self.joined(torch.cat([*(part(coarse) for part in self.context), mean], dim=1))
        for level, projection, step in zip((finer, finest), self.projections, self.steps, strict=True):
            up = functional.interpolate(x, size=level.shape[-2:], mode="bilinear", align_corners=True)
            x = step(torch.cat([up, projection(level)], dim=1))
        return self.classifier(x)


def _convolution(width: int, channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(width, channels, kernel, padding="same", dilation=dilation)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.ReLU(inplace=True))


class SegmentationModel(nn.Module):
    """A backbone and a head: pictures in, a score for each cell and class out.

    Args:
        backbone: maps pictures ``(N, 3, H, W)`` in 0..1 to features ``(N, D, h, w)``.
        head: maps features to ``(N, C + 1, h, w)``; a :class:`Decoder` maps those of all grids.
    """

    def __init__(self, backbone: Backbone, head: nn.Sequential | Decoder) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.config: SegmentationConfig | None = None

    @property
    def stride(self) -> int:
        """Pixels of the head's coarsest cells: pictures of so many times k, and 1 more, have cells on their border."""
        return FINE if self.config is None else self.config.output_stride

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)``, RGB in 0..1, to logits ``(N, C + 1, h, w)``; class 0 is background."""
        if isinstance(self.head, Decoder):
            return self.head(self.backbone.pyramid(pictures))
        return self.head(self.backbone(pictures))


def create(config: SegmentationConfig) -> SegmentationModel:
    """Make a network. Its head starts from random weights: seed torch first.

    Raises:
        SettingError: unknown backbone, or one without this output stride; a pretrained head that VGG-16 does not have;
            a decoder on a backbone that gives no finer features.
        CheckpointError: the backbone's weights cannot be used.

    Example:
        >>> model = create(SegmentationConfig(("cat", "dog"), "vgg16", weights=None))
        >>> model(torch.rand(1, 3, 65, 65)).shape
        torch.Size([1, 3, 9, 9])
    """
    if config.pretrained_head and (config.backbone != "vgg16" or config.weights is None or config.decoder):
        given = f"backbone={config.backbone!r} with weights={config.weights!r} and decoder={config.decoder}"
        raise SettingError(f"`pretrained_head`: only VGG-16's weights hold a head to start from, not {given}")
    backbone = _backbone(config)
    model = SegmentationModel(backbone, _decoder(config, backbone) if config.decoder else _head(config, backbone))
    model.eval()
    model.config = config
    return model.to(memory_format=torch.channels_last)


def _backbone(config: SegmentationConfig) -> Backbone:
    stride = config.output_stride
    if config.backbone == "vgg16":
        backbone = backbones.create("vgg16", weights=config.weights)
        backbone = backbone if stride == COARSE else _large_fov(backbone)
    else:
        backbone = backbones.create(config.backbone, stride, config.weights)
    if config.backbone == "efficientnet_lite0":
        # The attention model needs conv_head's activation (its channel sum is the background cue); this head does not.
        backbone.stages, backbone.out_channels = backbone.stages[:-1], 320
    backbone.train_last(config.train_last)
    backbone.learns_statistics = config.batch_norm == "learned"
    for module in backbone.modules():  # where its statistics are frozen, so are its scale and shift
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not backbone.learns_statistics:
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
    backbone.stages, backbone.output_stride = nn.Sequential(*layers, pool5), FINE
    return backbone


@torch.no_grad()
def _decoder(config: SegmentationConfig, backbone: Backbone) -> Decoder:
    widths = [level.shape[1] for level in backbone.pyramid(torch.zeros(1, 3, 65, 65))][-3:]
    if len(widths) < 3:
        there = ", ".join(sorted(backbones.OWN))
        raise SettingError(f"`decoder`: {config.backbone} gives no features finer than its last; these do: {there}")
    channels = config.channels or CHANNELS.get(config.backbone, 512)
    return Decoder(widths, channels, config.dilation, config.dropout, len(config.class_names) + 1)


def _head(config: SegmentationConfig, backbone: Backbone) -> nn.Sequential:
    channels, d = config.channels or CHANNELS.get(config.backbone, 512), config.dilation
    # The large field of view: fc6 in VGG-16.
    hidden = [nn.Conv2d(backbone.out_channels, channels, 3, padding=d, dilation=d)]
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
