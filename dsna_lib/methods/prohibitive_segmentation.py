r"""AE-PSL: a network that learns from adversarial erasing's masks, and from its own, where a classifier permits it.

The masks of adversarial erasing (:mod:`dsna_lib.methods.adversarial_erasing`) leave places open and are wrong at
others. While it learns, the segmentation network has an answer for every place; what it answers is trusted as far as a
classifier finds the class in the picture at all. With :math:`f_{c,u}` its probabilities, 0 being the background, and
:math:`v_c` the classifier's of class c,

.. math:: \hat S_u = \arg\max_c \, w_c f_{c,u}, \qquad w_0 = 1, \quad
    w_c = \begin{cases} v_c & v_c \ge \kappa \\ 0 & \text{below: class c is prohibited} \end{cases}

is the *auxiliary* mask, made anew at each step, and the network minimizes its cross-entropy J on both masks,

.. math:: L = J(f, S) + J(f, \hat S)

Source: Wei et al., "Object Region Mining with Adversarial Erasing: A Simple Classification to Semantic Segmentation
Approach", CVPR 2017; we know of no public code. Decided here:

- *Masks S.* Those of the row *AE, step 3*, as many steps as theirs. They have the table's background cue in place of a
  saliency detector, so that this row is told image labels alone.
- *Classifier.* That of erasing's first step, trained before, in place of a branch of the segmentation network. It is
  shown the very crop that the network is shown, at the table's size for maps.
- *Threshold.* :math:`\kappa` is 0.1. No slope flows through the auxiliary mask.
- *Testing* is that of all rows: no classifier has a say then.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib.attention import AttentionModel
from dsna_lib.engine import runs
from dsna_lib.methods.adversarial_erasing import AdversarialErasing
from dsna_lib.methods.base import Stage
from dsna_lib.methods.cam import cam_maker
from dsna_lib.methods.explain import CLASSIFIER
from dsna_lib.methods.table_iv import printed
from dsna_lib.segmentation.training import segmentation_loss


def auxiliary(logits: Tensor, found: Tensor, threshold: float = 0.1) -> Tensor:
    """The auxiliary mask ``(N, h, w)`` of logits ``(N, C + 1, h, w)`` and the classifier's probabilities ``(N, C)``.

    Example:
        >>> logits = torch.tensor([0.2, 0.7, 0.1]).log().view(1, 3, 1, 1)
        >>> [auxiliary(logits, torch.tensor([[v, 1.0]])).item() for v in (0.5, 0.2, 0.05)]  # 0.35, 0.14 and 0
        [1, 0, 0]
    """
    weights = functional.pad(found.where(found >= threshold, 0), (1, 0), value=1.0)
    return (functional.softmax(logits.float(), dim=1) * weights[..., None, None]).argmax(dim=1)


@dataclass(frozen=True)
class ProhibitiveLoss:
    """The loss above; see :class:`dsna_lib.segmentation.training.Loss`.

    Attributes:
        classifier: the digest of its file.
        size: of the squares that it is shown, in pixels.
        threshold: kappa.
    """

    classifier: str
    size: int
    model: InitVar[AttentionModel]
    threshold: float = 0.1
    whole_pictures: ClassVar[bool] = False
    needs_masks: ClassVar[bool] = True

    def __post_init__(self, model: AttentionModel) -> None:
        vars(self)["model"] = model.eval()  # beside the fields: it is none of the identity

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C + 1, h, w)``, masks ``(N, H, W)`` and pictures ``(N, 3, H, W)`` to a scalar."""
        mask = auxiliary(logits.detach(), self.found(batch["image"]), self.threshold)
        return segmentation_loss(logits, batch["mask"]) + functional.cross_entropy(logits.float(), mask)

    @torch.no_grad()
    def found(self, pictures: Tensor) -> Tensor:
        """How likely the classifier finds each class ``(N, C)`` in pictures ``(N, 3, H, W)``."""
        model: nn.Module = vars(self)["model"].to(pictures.device)
        shown = functional.interpolate(pictures.float(), (self.size, self.size), mode="bilinear", antialias=True)
        return model(shown).scores.float().sigmoid()


@dataclass(frozen=True)
class ErasingWithProhibition(AdversarialErasing):
    """See :class:`dsna_lib.methods.base.Method`."""

    def loss(self, stage: Stage) -> ProhibitiveLoss:
        """Both masks, the second one under the classifier's weights."""
        model, file = stage.train(self.head)
        return ProhibitiveLoss(runs.file_digest(file), stage.maps.size, model)


AE_PSL = ErasingWithProhibition("AE-PSL", CLASSIFIER, "cam", cam_maker, paper=printed("AE-PSL"), steps=3)
