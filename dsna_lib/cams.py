r"""Region mining by others: CAM, Grad-CAM and Excitation Backprop, for the same networks as the attention maps.

They explain an image classifier after it was trained. Ours is an :class:`~dsna_lib.attention.AttentionModel` with
the head ``SingleStreamAttention(dropout=0)``, which is the network of CAM: a 1x1 convolution followed by the spatial
mean is global average pooling followed by a linear layer,

.. math:: \frac1{hw}\sum_{ij}\Big(\sum_k w_{ck}X_{kij}+b_c\Big)=\sum_k w_{ck}\Big(\frac1{hw}\sum_{ij}X_{kij}\Big)+b_c.

Grad-CAM also explains every other head. All functions want the model in evaluation mode, compute in float32 whatever
the precision around them, and leave the parameters' gradients as they are. :data:`METHODS` names the methods;
:func:`look` makes their maps from one forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from dsna_lib.attention import AttentionModel, AttentionOutput, SingleStreamAttention
from dsna_lib.maps import positive_part

# Where Excitation Backprop stops unless told otherwise: VGG-16 at conv5_1, whose input is the output of pool4, on the
# same grid as X. Other backbones stop at X: what is below may be negative, or has no rule.
DEFAULT_STAGES = {"vgg16": 24}
PASSED_BY_THE_RULE = (nn.Conv2d, nn.AvgPool2d, nn.MaxPool2d)
TINY = torch.finfo(torch.float32).tiny

Passed = list[tuple[nn.Module, Tensor]]  # layers from the stage to X, bottom first, each with its input


@torch.no_grad()
def cam(model: AttentionModel, features: Tensor) -> Tensor:
    r"""Class activation maps: how much each place adds to the score of a class.

    .. math:: M_{cij} = \sum_k w_{ck} X_{kij}

    The bias is left out, so the score is the spatial mean of the map plus the bias.

    Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.

    Args:
        model: a pooled linear classifier, see above.
        features: ``(N, D, h, w)`` the backbone's X.

    Returns:
        ``(N, C, h, w)`` float32, raw evidence of either sign.

    Raises:
        ValueError: the head is no pooled linear classifier.

    Example:
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "single_stream", dropout=0, weights=None))
        >>> cam(model, torch.rand(1, 512, 14, 14)).shape
        torch.Size([1, 2, 14, 14])
    """
    weight = _classifier(model, "CAM")
    with torch.autocast(features.device.type, enabled=False):
        return functional.conv2d(features.float(), weight[..., None, None])


def grad_cam(model: AttentionModel, features: Tensor, wanted: Tensor | None = None) -> Tensor:
    r"""Grad-CAM: channels weighted by the mean slope of the score, for any differentiable head.

    .. math:: \alpha_{ck} = \frac1{hw}\sum_{ij}\frac{\partial p_c}{\partial X_{kij}}, \qquad
              M_{cij} = \max\Big(0, \sum_k \alpha_{ck} X_{kij}\Big)

    For a pooled linear classifier the slope is :math:`w_{ck}/hw`, and the map the positive part of CAM over hw.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    ICCV 2017.

    Args:
        model: with any head; one backward pass through the head a wanted class.
        features: ``(N, D, h, w)`` the backbone's X.
        wanted: ``(N, C)`` true for the maps to make; None for all.

    Returns:
        ``(N, C, h, w)`` float32, non-negative; zeros where not wanted.

    Raises:
        ValueError: `wanted` has another shape.

    Example:
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "decoupled", dropout=0, weights=None))
        >>> grad_cam(model, torch.rand(1, 512, 14, 14), torch.tensor([[True, False]])).shape
        torch.Size([1, 2, 14, 14])
    """
    with _gradients(features.device):
        x = features.detach().float().clone().requires_grad_()
        scores = model.head(x).scores
        wanted = _checked(wanted, scores.shape, x.device)
        maps = torch.zeros(*scores.shape, *x.shape[-2:], device=x.device)
        for c in wanted.any(dim=0).nonzero().flatten().tolist():
            # Pictures do not see each other, so the slope of the sum holds each picture's own.
            (slope,) = torch.autograd.grad(scores[:, c].sum(), x, retain_graph=True)
            alpha = slope.mean(dim=(-2, -1), keepdim=True)
            maps[:, c] = (alpha * x.detach()).sum(dim=1).relu()
    return maps * wanted[..., None, None]


@torch.no_grad()
def excitation_backprop(
    model: AttentionModel,
    pictures: Tensor,
    wanted: Tensor | None = None,
    contrastive: bool = False,
    stage: int | None = None,
) -> Tensor:
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

    Args:
        model: a pooled linear classifier, see above.
        pictures: ``(N, 3, H, W)``, RGB in 0..1.
        wanted: ``(N, C)`` true for the maps to make; None for all.
        contrastive: the contrastive form.
        stage: the walk ends at the input of this stage of the backbone, in 0..len(stages), which stands for X; None
            for :data:`DEFAULT_STAGES`, and X for backbones that are not there.

    Returns:
        ``(N, C, h, w)`` float32, non-negative, h and w those of the stage's input; zeros where not wanted.

    Raises:
        ValueError: the head is no pooled linear classifier, `wanted` has another shape, there is no such stage, or
            the walk meets a layer without a rule or negative activations.

    Example:
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "single_stream", dropout=0, weights=None))
        >>> excitation_backprop(model, torch.rand(1, 3, 224, 224), torch.tensor([[True, False]])).shape
        torch.Size([1, 2, 14, 14])
    """
    output, passed = _forward(model, pictures, stage)
    return _walk(model, output.features, passed, wanted, contrastive)


METHODS: dict[str, Callable[[AttentionModel, Tensor, Passed, Tensor], Tensor]] = {
    "cam": lambda model, x, passed, wanted: cam(model, x),
    "grad_cam": lambda model, x, passed, wanted: grad_cam(model, x, wanted),
    "excitation_backprop": lambda model, x, passed, wanted: _walk(model, x, passed, wanted, contrastive=False),
    "contrastive_excitation_backprop": lambda model, x, passed, wanted: _walk(model, x, passed, wanted, True),
}


@torch.no_grad()
def look(
    model: AttentionModel, pictures: Tensor, wanted: Tensor, methods: Iterable[str] = METHODS
) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """One forward pass, and from it each method's maps; :func:`dsna_lib.maps.compute` takes this as its `look`.

    Args:
        model: a pooled linear classifier, see above.
        pictures: ``(N, 3, H, W)``, RGB in 0..1.
        wanted: ``(N, C)`` true for the maps to make, usually the classes present.
        methods: of :data:`METHODS`.

    Returns:
        The model's output, and method to ``(N, C, h, w)`` float32 in 0..1: the positive part of the method's map
        over its maximum, zeros where not wanted.

    Raises:
        ValueError: an unknown method, or what the methods raise.

    Example:
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "single_stream", dropout=0, weights=None))
        >>> output, maps = look(model, torch.rand(1, 3, 224, 224), torch.tensor([[True, False]]))
        >>> list(maps), maps["cam"].shape
        (['cam', 'grad_cam', 'excitation_backprop', 'contrastive_excitation_backprop'], torch.Size([1, 2, 14, 14]))
    """
    methods = list(methods)
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"unknown method {unknown[0]!r}; choose from {', '.join(METHODS)}")
    output, passed = _forward(model, pictures)
    wanted = _checked(wanted, output.scores.shape, output.scores.device)
    found = {name: METHODS[name](model, output.features, passed, wanted) for name in methods}
    return output, {name: positive_part(maps * wanted[..., None, None]) for name, maps in found.items()}


def _forward(model: AttentionModel, pictures: Tensor, stage: int | None = None) -> tuple[AttentionOutput, Passed]:
    """A forward pass that also keeps the input of every layer from `stage` on."""
    backbone = model.backbone
    stage = DEFAULT_STAGES.get(backbone.name, len(backbone.stages)) if stage is None else stage
    if not 0 <= stage <= len(backbone.stages):
        raise ValueError(f"{backbone.name} has no stage {stage}; choose 0..{len(backbone.stages)}, the last for X")
    layers, inputs = _flat(backbone.stages[stage:]), []
    hooks = [layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for layer in layers]
    try:
        output = model(pictures)
    finally:
        for hook in hooks:
            hook.remove()
    return output, list(zip(layers, inputs, strict=True))


def _flat(module: nn.Module) -> list[nn.Module]:
    return [m for child in module for m in _flat(child)] if isinstance(module, nn.Sequential) else [module]


def _walk(model: AttentionModel, x: Tensor, passed: Passed, wanted: Tensor | None, contrastive: bool) -> Tensor:
    """Marginal winning probabilities, summed over channels, of the lowest input in `passed`, or of X if it is empty."""
    weight = _classifier(model, "excitation backprop")
    wanted = _checked(wanted, (len(x), len(weight)), x.device)
    picture, label = wanted.nonzero(as_tuple=True)  # one walk a wanted pair
    with _gradients(x.device):
        p = _first_step(x, picture, weight[label])
        if contrastive:
            p = p - _first_step(x, picture, -weight[label])
        for layer, below in reversed(passed):
            p = _step(layer, below, picture, p)
    maps = torch.zeros(*wanted.shape, *p.shape[-2:], device=x.device)
    maps[picture, label] = p.sum(dim=1)
    return maps.clamp_min(0) if contrastive else maps


def _first_step(x: Tensor, picture: Tensor, weight: Tensor) -> Tensor:
    """From the class unit to X: the pooling's 1/hw cancels."""
    x = _non_negative(x, "the backbone's output", "backbone that ends in a ReLU")[picture].float()
    excitation = x * weight.clamp_min(0)[..., None, None]
    total = excitation.sum(dim=(1, 2, 3), keepdim=True)
    return torch.where(total > TINY, excitation / total, 0)


def _step(layer: nn.Module, below: Tensor, picture: Tensor, p: Tensor) -> Tensor:
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


def _classifier(model: AttentionModel, method: str) -> Tensor:
    """The weight ``(C, D)`` of a pooled linear classifier."""
    if not isinstance(model.head, SingleStreamAttention):
        raise ValueError(
            f"{method} explains a pooled linear classifier: use the head SingleStreamAttention(dropout=0), "
            f"not {type(model.head).__name__}"
        )
    return model.head.discriminative.weight.detach().float().flatten(1)


def _checked(wanted: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    if wanted is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    if wanted.shape != shape:
        raise ValueError(f"wanted {tuple(wanted.shape)} must have the shape (N, C) = {tuple(shape)}")
    return wanted.to(device, torch.bool)


@contextmanager
def _gradients(device: torch.device) -> Iterator[None]:
    """Gradients in full precision, also where the caller switched them off or computes in bf16."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
        yield
