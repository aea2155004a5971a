r"""Excitation Backprop: how likely a walk down from the class, along excitatory links, comes by each place.

From unit i the walk goes to a unit j of the layer below with a probability proportional to :math:`a_j w_{ji}^+`,
its activation times the positive part of the weight. Summed over all ways this gives the marginal winning
probability of each unit, for a whole layer

.. math:: P_{below} = a \odot W^{+\top}\big(P \oslash (W^+ a)\big),

zero where the denominator is. Biases take no part. Max pooling passes P to its winner, ReLU passes it on,
average pooling is a convolution. The map is P summed over channels; it sums to 1 unless the walk meets a unit
that only its bias excites, and is all zeros if nothing excites the class.

The contrastive form starts a second walk from the dual unit, the class with its weights negated, takes its P from
the first one's at X, passes the difference down by the same rule, which is linear in P, sums it over channels and
cuts it off at zero. (The paper takes the difference just below the classifier, here the pooled X. Pooling passes
both walks on alike, so taking it at X is the same.)

Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dsna_lib.attention import AttentionModel
from dsna_lib.methods import explain
from dsna_lib.methods.explain import Explainer, Passed

PASSED_BY_THE_RULE = (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d)
TINY = torch.finfo(torch.float32).tiny


@torch.no_grad()
def excitation_backprop(
    model: AttentionModel,
    pictures: Tensor,
    wanted: Tensor | None = None,
    contrastive: bool = False,
    stage: int | None = None,
) -> Tensor:
    """The maps of both forms: ``(N, C, h, w)`` float32 from 0 up, h and w those of the stage's input.

    Args:
        model: a pooled linear classifier.
        pictures: ``(N, 3, H, W)``, RGB in 0..1.
        wanted: ``(N, C)`` true for the maps to make, the others are zeros; None for all.
        contrastive: the contrastive form.
        stage: the walk ends at the input of this stage of the backbone, in 0..len(stages), which stands for X; None
            for :data:`~dsna_lib.methods.explain.DEFAULT_STAGES`, and X for backbones that are not there.

    Raises:
        ValueError: the head is no pooled linear classifier, `wanted` has another shape, there is no such stage, or
            the walk meets a layer without a rule or negative activations.

    Example:
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "single_stream", dropout=0, weights=None))
        >>> excitation_backprop(model, torch.rand(1, 3, 224, 224), torch.tensor([[True, False]])).shape
        torch.Size([1, 2, 14, 14])
    """
    _, features, passed = explain.forward_keeping_inputs(model, pictures, stage)
    return propagate(model, features, passed, wanted, contrastive)


def propagate(
    model: AttentionModel, x: Tensor, passed: Passed, wanted: Tensor | None, contrastive: bool = False
) -> Tensor:
    """P summed over channels, at the lowest input in `passed`, or at X if it is empty: an ``Explainer``."""
    weight = explain.pooled_classifier(model, "excitation backprop")
    wanted = explain.checked_wanted(wanted, (len(x), len(weight)), x.device)
    picture, label = wanted.nonzero(as_tuple=True)  # one walk a wanted pair
    with explain.full_gradients(x.device):
        p = from_class(x, picture, weight[label])
        if contrastive:
            p = p - from_class(x, picture, -weight[label])
        for layer, below in reversed(passed):
            p = propagate_layer(layer, below, picture, p)
    maps = torch.zeros(*wanted.shape, *p.shape[-2:], device=x.device)
    maps[picture, label] = p.sum(dim=1)
    return maps.clamp_min(0) if contrastive else maps


def from_class(x: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """From the class unit to X: the pooling's 1/hw cancels."""
    x = _non_negative(x, "the backbone's output", "backbone that ends in a ReLU")[picture].float()
    excitation = x * weight.clamp_min(0)[..., None, None]
    total = excitation.sum(dim=(1, 2, 3), keepdim=True)
    return torch.where(total > TINY, excitation / total, 0)


def propagate_layer(layer: nn.Module, below: Tensor, picture: Tensor, p: Tensor) -> Tensor:
    """From a layer's output to its input, for all walks."""
    if isinstance(layer, nn.ReLU):
        return p
    kind = type(layer).__name__
    if not isinstance(layer, PASSED_BY_THE_RULE):
        raise ValueError(f"excitation backprop has no rule for a layer of type {kind}; choose a later stage")
    below = _non_negative(below, f"the input of a {kind}", "later stage")[picture].float().requires_grad_()
    # Every one of these layers is linear in its input (max pooling once its winners stand), so W+^T is its
    # vector-Jacobian product.
    positive = {name: w.detach().float().clamp_min(0) * (name == "weight") for name, w in layer.named_parameters()}
    excitation = functional_call(layer, positive, (below,))
    share = torch.where(excitation > TINY, p / excitation, 0).detach()
    (received,) = torch.autograd.grad(excitation, below, share)
    return below.detach() * received


def _non_negative(activation: Tensor, what: str, choose: str) -> Tensor:
    if (lowest := activation.min().item()) < 0:
        raise ValueError(f"excitation backprop needs activations from 0 up, {what} has {lowest:.3g}; choose a {choose}")
    return activation


EXPLAINERS: dict[str, Explainer] = {
    "excitation_backprop": propagate,
    "contrastive_excitation_backprop": partial(propagate, contrastive=True),
}
EXCITATION_BACKPROP, CONTRASTIVE_EXCITATION_BACKPROP = (
    explain.explaining(name.replace("_", " "), name, explainer) for name, explainer in EXPLAINERS.items()
)
