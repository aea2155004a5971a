r"""IRN: places belong together that no boundary parts, and boundaries are learned without any being shown.

The network gives each place a boundary B in 0..1. The affinity of two places is what the strongest boundary on the
straight way between them leaves,

.. math:: a_{ij} = 1 - \max_{k \in \Pi_{ij}} B_k

so that B is learned from pairs alone: somewhere between two places of different classes there must be a boundary, and
nowhere between two of one (:mod:`dsna_lib.methods.affinity`). The map of a class starts where there is no boundary, and
walks along :math:`a` to the power :math:`\beta = 10`,

.. math:: M'_c = T^t \big( M_c \odot (1 - B) \big)

and a pixel is background where, of the highest value of all classes, none reaches a share of 0.25.

Source: Ahn, Cho and Kwak, "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019,
its semantic part only: the displacement field, which tells instances of a class apart, is left out. As in the authors'
published code, https://github.com/jiwoon-ahn/irn, maps are sure above a background of 0.3, and the background is sure
where 0.05 is above all maps, both after a CRF on hard labels; a walk has 256 steps. The row quotes its number with
a ResNet-50. Decided here, beside what :mod:`dsna_lib.methods.affinity` decides:

- *Grid.* Places of about 8 pixels and a radius of 5, where theirs have 4 and learn within a radius of 10.
- *Network.* Projections of the backbone's last two grids, where theirs have five; they learn, and, as there, the
  backbone does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dsna_lib.methods.affinity import AffinityMethod
from dsna_lib.methods.later import printed_later

LITTLE, MUCH, FINAL = 0.05, 0.3, 0.25  # background, of a map's maximum


@dataclass(frozen=True)
class IRN(AffinityMethod):
    """See :class:`dsna_lib.methods.base.Method`."""

    channels: ClassVar[int] = 1
    power: ClassVar[float] = 10
    learned_backbone: ClassVar[bool] = False

    def affinity(self, output: Tensor, way: Tensor) -> Tensor:
        """What the strongest boundary on the way leaves."""
        return 1 - output.sigmoid().flatten(1)[:, way].amax(dim=2)

    def backgrounds(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """The same everywhere."""
        return torch.full_like(maps[0], LITTLE), torch.full_like(maps[0], MUCH)

    def walked(self, maps: Tensor, output: Tensor, along: Callable[[Tensor], Tensor]) -> Tensor:
        """The maps walk from where there is no boundary; the background is what is left."""
        far = along(maps * (1 - output.sigmoid()))
        far = far / far.amax().clamp_min(torch.finfo(far.dtype).tiny)
        return torch.cat([torch.full_like(far[:1], FINAL), far])


IRN_METHOD = IRN("IRN", printed_later("IRNet"))
