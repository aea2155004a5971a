"""What a segmentation network is made of, and how it is run."""

from __future__ import annotations

from typing import Literal

from dsna_lib.config.annotation import Preset
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.fields import check, configuration, option

SCALES = (0.7, 1.0, 1.3)
FINE, COARSE = 8, 16  # pixels of a cell: as in DeepLab, and where a decoder starts from


@configuration
class SegmentationConfig:
    """What a segmentation network is made of; a model file carries it.

    `class_names`, those of the C classes without background, follow from the data.
    """

    class_names: tuple[str, ...] = ()
    backbone: str = option(
        "efficientnet_lite0", "vgg16 (DeepLab-LargeFOV), resnet101, efficientnet_lite0, or a timm model"
    )
    channels: int | None = option(
        None, "of each dilated convolution (default: 1024 for vgg16, 128 for efficientnet_lite0, else 512)", low=1
    )
    dilation: int = option(12, "of the same, in cells", low=1)
    stride: int = option(FINE, "pixels of a cell: 8, as in DeepLab, or 16; a decoder always starts from 16")
    decoder: bool = option(
        False, "cells of 16 pixels instead of 8, a wider context, and a decoder with the features of strides 8 and 4"
    )
    dropout: float = option(0.5, "dropout rate", low=0, high=1)
    train_last: int | None = option(None, "train the backbone's last N stages only (default: all)", low=0)
    batch_norm: Literal["frozen", "learned"] = option(
        "frozen", "frozen: statistics, scale and shift stay as pretrained; learned: they follow the batches"
    )
    weights: str | None = option("imagenet", "where the backbone starts: imagenet, none, or a file, such as a model's")
    pretrained_head: bool = option(
        False, "vgg16: start fc6 and fc7 from VGG-16's own, thinned out as DeepLab does; needs torchvision's file"
    )

    def __post_init__(self) -> None:
        check(self)
        if self.stride not in (FINE, COARSE):
            raise SettingError(f"stride={self.stride} must be {FINE} or {COARSE}")

    @property
    def output_stride(self) -> int:
        """Pixels of the cells that the head starts from."""
        return COARSE if self.decoder else self.stride


@configuration
class InferenceConfig:
    """How a segmentation network is run."""

    scales: tuple[float, ...] = option(
        SCALES, "multiples of the picture's size at which it is shown", low=0, ends=False
    )
    flip: bool = option(False, "show it mirrored, too")
    precision: Literal["no", "bf16"] = option("no", "no: 32-bit numbers; bf16: mixed")
    crf: Preset = option("segmentation", "parameters of the dense CRF, by name")

    def __post_init__(self) -> None:
        check(self)
        if not self.scales:
            raise SettingError("scales=[] must name at least one")
