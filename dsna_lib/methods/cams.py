"""The methods that explain a trained classifier, together: all of their maps from one forward pass."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from dsna_lib.attention import AttentionModel, AttentionOutput
from dsna_lib.engine.errors import SettingError
from dsna_lib.methods.cam import cam, explain_cam
from dsna_lib.methods.excitation_backprop import EXPLAINERS, excitation_backprop
from dsna_lib.methods.explain import Explainer, explained_maps
from dsna_lib.methods.grad_cam import explain_grad_cam, grad_cam

__all__ = ["CAM_METHODS", "cam", "cam_maps", "excitation_backprop", "grad_cam"]

CAM_METHODS: dict[str, Explainer] = {"cam": explain_cam, "grad_cam": explain_grad_cam, **EXPLAINERS}


def cam_maps(
    model: AttentionModel, pictures: Tensor, present: Tensor, methods: Iterable[str] = CAM_METHODS
) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """:func:`~dsna_lib.methods.explain.explained_maps` of some of :data:`CAM_METHODS`, all by default.

    Raises:
        SettingError: an unknown method.

    Example:
        >>> import torch
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "single_stream", dropout=0, weights=None))
        >>> output, maps = cam_maps(model, torch.rand(1, 3, 224, 224), torch.tensor([[True, False]]))
        >>> list(maps), maps["cam"].shape
        (['cam', 'grad_cam', 'excitation_backprop', 'contrastive_excitation_backprop'], torch.Size([1, 2, 14, 14]))
    """
    methods = list(methods)
    if unknown := [name for name in methods if name not in CAM_METHODS]:
        raise SettingError(f"unknown method {unknown[0]!r}; choose from {', '.join(CAM_METHODS)}")
    return explained_maps(model, pictures, present, **{name: CAM_METHODS[name] for name in methods})
