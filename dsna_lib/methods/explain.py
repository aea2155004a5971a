r"""Explaining a classifier after it was trained: what CAM, Grad-CAM and Excitation Backprop share.

They explain an :class:`~dsna_lib.attention.AttentionModel` with the head ``SingleStreamAttention(dropout=0)``, which is
the network of CAM: a 1x1 convolution followed by the spatial mean is global average pooling followed by a linear layer,

.. math:: \frac1{hw}\sum_{ij}\Big(\sum_k w_{ck}X_{kij}+b_c\Big)=\sum_k w_{ck}\Big(\frac1{hw}\sum_{ij}X_{kij}\Big)+b_c.

Grad-CAM also explains every other head. All functions want the model in evaluation mode, compute in float32 whatever
the precision around them, and leave the parameters' gradients as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dsna_lib.attention import AttentionModel, AttentionOutput, SingleStreamAttention
from dsna_lib.backbones import Backbone
from dsna_lib.config.attention import HeadConfig
from dsna_lib.maps import positive_part
from dsna_lib.methods.base import MapMethod

CLASSIFIER = HeadConfig("single_stream", dropout=0.0)  # pooled and linear: the network of CAM
# Where Excitation Backprop stops unless told otherwise: VGG-16 at conv5_1, whose input is the output of pool4, on the
# same grid as X. Other backbones stop at X: what is below may be negative, or has no rule.
DEFAULT_STAGES = {"vgg16": 24}

Passed = list[tuple[nn.Module, Tensor]]  # layers from the stage to X, bottom first, each with its input
# Model, X (N, D, h, w), layers passed, maps wanted (N, C) -> raw maps (N, C, h, w).
Explainer = Callable[[AttentionModel, Tensor, Passed, Tensor], Tensor]


@torch.no_grad()
def explained_maps(
    model: AttentionModel, pictures: Tensor, present: Tensor, **explainers: Explainer
) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """One forward pass, and from it the maps of several methods; a :data:`dsna_lib.maps.MapMaker` of these methods.

    Args:
        model: a pooled linear classifier, see above.
        pictures: ``(N, 3, H, W)``, RGB in 0..1.
        present: ``(N, C)`` true for the maps to make, usually the classes present.
        explainers: the methods by name; what they raise is raised.

    Returns:
        The model's output, and method to ``(N, C, h, w)`` float32 in 0..1: the positive part of the method's map
        over its maximum, zeros where not wanted.
    """
    output, features, passed = forward_keeping_inputs(model, pictures)
    wanted = checked_wanted(present, output.scores.shape, features.device)
    raw = {name: explain(model, features, passed, wanted) for name, explain in explainers.items()}
    return output, {name: positive_part(maps * wanted[..., None, None]) for name, maps in raw.items()}


def explaining(title: str, kind: str, explainer: Explainer) -> MapMethod:
    """The method that annotates with an explainer's maps."""
    chosen: dict[str, Any] = {kind: explainer}
    return MapMethod(title, CLASSIFIER, kind, partial(explained_maps, **chosen))


def forward_keeping_inputs(
    model: AttentionModel, pictures: Tensor, stage: int | None = None
) -> tuple[AttentionOutput, Tensor, Passed]:
    """A forward pass: the model's output, X, and the input of every layer from `stage` on."""
    backbone: Backbone = model.backbone  # type: ignore[assignment]  # a plain module's attributes have no types
    stage = DEFAULT_STAGES.get(backbone.name, len(backbone.stages)) if stage is None else stage
    if not 0 <= stage <= len(backbone.stages):
        raise ValueError(f"{backbone.name} has no stage {stage}; choose 0..{len(backbone.stages)}, the last for X")
    layers, inputs = _flat(backbone.stages[stage:]), list[Tensor]()
    hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in layers]
    try:
        output = model(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    assert output.features is not None, "they are those of a whole model"
    return output, output.features, list(zip(layers, inputs, strict=True))


def _flat(module: nn.Module) -> list[nn.Module]:
    """The layers of a sequence of sequences, in order."""
    return [layer for child in module for layer in _flat(child)] if isinstance(module, nn.Sequential) else [module]


def pooled_classifier(model: AttentionModel, method: str) -> Tensor:
    """The weight ``(C, D)`` of a pooled linear classifier; another head is refused."""
    if not isinstance(model.head, SingleStreamAttention):
        raise ValueError(
            f"{method} explains a pooled linear classifier: use the head SingleStreamAttention(dropout=0), "
            f"not {type(model.head).__name__}"
        )
    return model.head.discriminative.weight.detach().float().flatten(1)


def checked_wanted(wanted: Tensor | None, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Which maps are wanted ``(N, C)`` bool, all of them where `wanted` is None; another shape is refused."""
    wanted = torch.ones(shape) if wanted is None else wanted
    if wanted.shape != shape:
        raise ValueError(f"wanted {tuple(wanted.shape)} must have the shape (N, C) = {tuple(shape)}")
    return wanted.to(device, torch.bool)


@contextmanager
def full_gradients(device: torch.device) -> Iterator[None]:
    """Gradients in full precision, also where the caller switched them off or computes in bf16."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield
