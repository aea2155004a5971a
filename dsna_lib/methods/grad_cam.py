r"""Grad-CAM: channels weighted by the mean slope of the score, for any differentiable head.

.. math:: \alpha_{ck} = \frac1{hw}\sum_{ij}\frac{\partial p_c}{\partial X_{kij}}, \qquad
          M_{cij} = \max\Big(0, \sum_k \alpha_{ck} X_{kij}\Big)

For a pooled linear classifier the slope is :math:`w_{ck}/hw`, and the map the positive part of CAM over hw.

Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dsna_lib.attention import AttentionModel
from dsna_lib.methods.explain import Passed, checked_wanted, explaining, full_gradients


def grad_cam(model: AttentionModel, features: Tensor, wanted: Tensor | None = None) -> Tensor:
    """The maps ``(N, C, h, w)`` float32 of features ``(N, D, h, w)``; the model may have any head.

    Args:
        wanted: ``(N, C)`` true for the maps to make, a backward pass through the head each; None for all.

    Raises:
        ValueError: `wanted` has another shape.

    Example:
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "decoupled", dropout=0, weights=None))
        >>> grad_cam(model, torch.rand(1, 512, 14, 14), torch.tensor([[True, False]])).shape
        torch.Size([1, 2, 14, 14])
    """
    with full_gradients(features.device):
        x = features.detach().float().clone().requires_grad_()
        scores = model.head(x).scores
        wanted = checked_wanted(wanted, scores.shape, x.device)
        maps = torch.zeros(*scores.shape, *x.shape[-2:], device=x.device)
        for c in wanted.any(dim=0).nonzero().flatten().tolist():
            # Pictures do not see each other, so the slope of the sum holds each picture's own.
            (slope,) = torch.autograd.grad(scores[:, c].sum(), x, retain_graph=True)
            alpha = slope.mean(dim=(-2, -1), keepdim=True)
            maps[:, c] = (alpha * x.detach()).sum(dim=1).relu()
    return maps * wanted[..., None, None]


def explain_grad_cam(model: AttentionModel, features: Tensor, passed: Passed, wanted: Tensor) -> Tensor:
    """:func:`grad_cam` as an :data:`~dsna_lib.methods.explain.Explainer`."""
    return grad_cam(model, features, wanted)


GRAD_CAM = explaining("Grad-CAM", "grad_cam", explain_grad_cam)
