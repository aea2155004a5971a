r"""AffinityNet: places belong together whose learned features are near, and background walks along with the objects.

With f the features that the network gives each place, K of them, the affinity of two places is

.. math:: a_{ij} = \exp\Big(-\frac1K \sum_k | f_{ik} - f_{jk} |\Big)

which is learned, and walked along, as :mod:`dsna_lib.methods.affinity` says, with :math:`\beta = 8`. A class activation
map leaves as much background as the power :math:`\alpha` makes of what no class claims,

.. math:: M_0 = \big(1 - \max_{c \in C_I} M_c\big)^{\alpha}

a large :math:`\alpha` little, a small one much. What is sure of both is learned from. At last M_0 walks as the maps of
the classes do, and each pixel takes the plane that is highest there.

Source: Ahn and Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly Supervised
Semantic Segmentation", CVPR 2018. As in the authors' published code, https://github.com/jiwoon-ahn/psa, the distance is
a mean over channels, where the paper has a sum; :math:`\alpha` is 4 and 32 for what is sure, and 16 for the walk of 256
steps; pairs are nearer than 5 places. The row quotes its number with a ResNet-38. Decided here, beside what
:mod:`dsna_lib.methods.affinity` decides:

- *CRF* on hard labels, as in the table, where theirs is on the planes.
- *Maps* of the table's scales, and 64 features on the finer of two grids, where theirs have 448 of three.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from dsna_lib.methods.affinity import AffinityMethod
from dsna_lib.methods.later import printed_later

LITTLE, MUCH, WALKED = 32, 4, 16  # alpha


def background(maps: Tensor, alpha: float) -> Tensor:
    """M_0 ``(H, W)`` of maps ``(K, H, W)`` in 0..1.

    Example:
        >>> background(torch.tensor([[[0.5, 0.0]], [[0.1, 0.0]]]), 2)
        tensor([[0.2500, 1.0000]])
    """
    return (1 - maps.amax(dim=0)) ** alpha


@dataclass(frozen=True)
class AffinityNet(AffinityMethod):
    """See :class:`dsna_lib.methods.base.Method`."""

    channels: ClassVar[int] = 64
    power: ClassVar[float] = 8

    def affinity(self, output: Tensor, way: Tensor) -> Tensor:
        """How near features are, after an ELU."""
        features = functional.elu(output).flatten(2)
        return (-(features[:, :, way[:, 0]] - features[:, :, way[:, -1]]).abs().mean(dim=1)).exp()

    def backgrounds(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """M_0 with a large power and with a small one."""
        return background(maps, LITTLE), background(maps, MUCH)

    def walked(self, maps: Tensor, output: Tensor, along: Callable[[Tensor], Tensor]) -> Tensor:
        """The background walks, too."""
        return along(torch.cat([background(maps, WALKED)[None], maps]))


AFFINITY_NET = AffinityNet("AffinityNet", printed_later("AffinityNet"))
