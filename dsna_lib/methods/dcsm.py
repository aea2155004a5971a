r"""DCSM: distinct class saliency maps, slopes of a class's score that no other class shares.

How much the score of class c hangs on a place x of layer i's input z is the steepest of its slopes there,

.. math:: m_{ic}(x) = \max_k \Big|\frac{\partial p_c}{\partial z_{ik}(x)}\Big|

scaled up bilinearly, with *guided* back-propagation: a ReLU passes no negative slope on. By itself this map shows
objects of all classes. What is the class's own is what remains where those of other classes are taken away,

.. math:: M_c = \sum_i \sum_{c' \ne c} \max\Big(0, \tanh \frac{\alpha \, d_{icc'}}{\max_x d_{icc'}(x)}\Big), \qquad
    d_{icc'} = m_{ic} - m_{ic'}

with :math:`\alpha = 3`, and zero where the difference is nowhere above it. The classes c' are those present, and where
there are fewer than four, the absent ones of the highest scores.

Source: Shimoda and Yanai, "Distinct Class-specific Saliency Maps for Weakly Supervised Semantic Segmentation", ECCV
2016; details follow the authors' published code, ``dcsm.m``, https://github.com/shimoda-uec/mat_dcsm. Decided here:

- *Layers.* Theirs are the inputs of VGG-16's nine convolutions from conv3_1 on (:data:`LOWEST`), and so they are here;
  of other backbones we take the stages of the upper half. Maps are compared and added on the finest grid among them
  and not at the picture's size.
- *Classifier.* CAM's, as in all our rows that explain one. It ends in the spatial mean; theirs has VGG-16's fully
  connected layers, and lets slopes begin at all places alike, which is the same.
- *Labels.* Those of the picture, where theirs, at test time, are the classes that score above 0.5.
- *Scales.* Those of the table for all methods; theirs are 0.8, 1 and 1.2.
- *Threshold, background, CRF.* The table's, in place of their CRF on the maps; so the last tanh of their code, which
  prepares the maps for that, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib.attention import AttentionOutput
from dsna_lib.backbones import Backbone
from dsna_lib.engine.errors import SettingError
from dsna_lib.maps import positive_part
from dsna_lib.methods.base import MapMethod
from dsna_lib.methods.explain import CLASSIFIER, checked_wanted, full_gradients
from dsna_lib.methods.table_iv import printed

LOWEST = {"vgg16": 10}  # the first stage whose input is looked at: conv3_1
CANDIDATES = 4  # classes that are compared, at least
ALPHA = 3.0


def dcsm_maps(model: nn.Module, pictures: Tensor, present: Tensor) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """A :data:`dsna_lib.maps.MapMaker` of the kind ``"dcsm"``; the output's features are scaled up to the maps' grid.

    Raises:
        SettingError: the model knows one class alone, which there is nothing to compare with.
        ValueError: `present` has another shape.

    Example:
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "single_stream", dropout=0, weights=None))
        >>> output, maps = dcsm_maps(model, torch.rand(1, 3, 224, 224), torch.tensor([[True, False]]))
        >>> maps["dcsm"].shape, output.features.shape
        (torch.Size([1, 2, 56, 56]), torch.Size([1, 512, 56, 56]))
    """
    with full_gradients(pictures.device), guided(model) as inputs:
        output = model(pictures.float())
        if output.scores.shape[1] < 2:
            raise SettingError("DCSM compares classes with each other, and there is one", "choose another method")
        present = checked_wanted(present, output.scores.shape, pictures.device)
        classes, compared = candidates(output.scores.detach(), present)
        slopes = [_slopes(output.scores.gather(1, each[:, None]).sum(), inputs) for each in classes.T]
    assert output.features is not None, "they are those of a whole model"
    maps = torch.zeros(*present.shape, *slopes[0][0].shape[-2:], device=pictures.device)
    for own, rival in permutations(range(len(slopes)), 2):
        both = (compared[:, own] & compared[:, rival])[:, None, None]
        for mine, other in zip(slopes[own], slopes[rival], strict=True):
            maps[torch.arange(len(maps)), classes[:, own]] += both * distinct(mine, other)
    features = functional.interpolate(output.features.detach(), maps.shape[-2:], mode="bilinear")
    kept = AttentionOutput(output.scores.detach(), None, output.discriminative.detach(), features)
    return kept, {"dcsm": positive_part(maps * present[..., None, None])}


def candidates(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Which classes are compared in each picture: ``(N, K)`` indices, and which of these count, bool.

    Those present come first, then the absent ones of the highest scores, up to ``CANDIDATES``.

    Example:
        >>> candidates(torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([[True, False, False]]))[0].tolist()
        [[0, 1, 2]]
    """
    count = present.sum(dim=1).clamp_min(CANDIDATES)
    order = scores.masked_fill(present, torch.inf).argsort(dim=1, descending=True, stable=True)
    order = order[:, : int(count.max())]
    return order, torch.arange(order.shape[1], device=scores.device) < count[:, None]


def distinct(own: Tensor, other: Tensor) -> Tensor:
    """What of a map ``(N, h, w)`` is above another one, between 0 and tanh of alpha.

    Example:
        >>> distinct(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[1.0, 2.0]]]))  # tanh 3, and nothing
        tensor([[[0.9951, 0.0000]]])
    """
    return (ALPHA * positive_part(own - other)).tanh()


def _slopes(score: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The map m of each layer ``(N, h, w)``, on the first one's grid, which is the finest."""
    slopes = torch.autograd.grad(score, inputs, retain_graph=True)
    steepest = [slope.abs().amax(dim=1, keepdim=True) for slope in slopes]
    grid = steepest[0].shape[-2:]
    return [functional.interpolate(each, grid, mode="bilinear")[:, 0] for each in steepest]


@contextmanager
def guided(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within, back-propagation is guided, and a forward pass lists the inputs of the layers that are looked at."""
    backbone: Backbone = model.backbone  # type: ignore[assignment]  # a plain module's attributes have no types
    inputs: list[Tensor] = []

    def keep(_: nn.Module, given: tuple[Tensor]) -> Tensor:
        # A copy: its slope is what arrives here, before the ReLU below lets only what is positive pass. The graph
        # starts at the first one.
        inputs.append(given[0].clone() if inputs else given[0].detach().clone().requires_grad_())
        return inputs[-1]

    def guide(_: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        if made.requires_grad:
            made.register_hook(lambda slope: slope.clamp_min(0))

    lowest = LOWEST.get(backbone.name, len(backbone.stages) // 2)
    learned = [stage for stage in backbone.stages[lowest:] if any(True for _ in stage.parameters())]
    hooks = [stage.register_forward_pre_hook(keep) for stage in learned]
    hooks += [m.register_forward_hook(guide) for m in backbone.modules() if isinstance(m, nn.ReLU | nn.ReLU6)]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


DCSM = MapMethod("DCSM", CLASSIFIER, "dcsm", dcsm_maps, paper=printed("DCSM"))
