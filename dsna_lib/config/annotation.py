"""How maps become pseudo-annotations: thresholds, and the dense CRF with parameters that were published."""

from __future__ import annotations

from typing import Literal

from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.fields import configuration, nearest, option

Preset = Literal["sec", "segmentation", "deeplab", "none"]
VoidPolicy = Literal["false_negative", "background", "ignore"]  # see dsna_lib.metrics.ConfusionMatrix


@configuration
class CRFParams:
    """Parameters of the two Gaussian edge potentials."""

    smooth_xy: float = option(3.0, "deviation of the smoothness kernel, in pixels", low=0, ends=False)
    smooth_weight: float = option(3.0, "its weight", low=0)
    bilateral_xy: float = option(80.0, "deviation of the appearance kernel in space, in pixels", low=0, ends=False)
    bilateral_rgb: float = option(13.0, "its deviation in color, in 0..255 steps", low=0, ends=False)
    bilateral_weight: float = option(10.0, "its weight", low=0)
    iterations: int = option(10, "mean-field rounds", low=0)


PRESETS: dict[str, CRFParams] = {
    # Kolesnikov and Lampert, ECCV 2016 (SEC); used for pseudo-annotations here.
    "sec": CRFParams(),
    # Lin and Shen's segmentation code; used for final masks here.
    "segmentation": CRFParams(smooth_weight=2, bilateral_xy=55, bilateral_rgb=3, bilateral_weight=4),
    # Chen et al., ICLR 2015 (DeepLab-LargeFOV on VGG-16).
    "deeplab": CRFParams(bilateral_xy=121, bilateral_rgb=5, bilateral_weight=4),
}


def preset(params: CRFParams | str) -> CRFParams:
    """A preset by name, or the parameters themselves.

    Raises:
        SettingError: unknown name.
    """
    if isinstance(params, CRFParams):
        return params
    if params not in PRESETS:
        there = ", ".join(PRESETS)
        raise SettingError(f"unknown CRF preset {params!r}: choose one of {there}{nearest(params, PRESETS)}")
    return PRESETS[params]


@configuration
class AnnotationConfig:
    """How maps become pseudo-annotations (Sec. III-C)."""

    foreground_threshold: float = option(0.2, "a map above it is the object", low=0, high=1)
    background_threshold: float = option(0.3, "a feature sum below it is background", low=0, high=1)
    tau: float = option(0.7, "trust of the CRF in the annotation", low=0.5, high=1, ends=False)
    crf: Preset = option("sec", "parameters of the dense CRF, by name")
