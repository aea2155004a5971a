r"""CAM: class activation maps, how much each place adds to the score of a class.

.. math:: M_{cij} = \sum_k w_{ck} X_{kij}

Source: Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dsna_lib.attention import AttentionModel
from dsna_lib.methods.explain import Passed, explaining, pooled_classifier


@torch.no_grad()
def cam(model: AttentionModel, features: Tensor) -> Tensor:
    """Class activation maps ``(N, C, h, w)`` float32 of features ``(N, D, h, w)``, of either sign.

    The bias is left out, so the score is the spatial mean of the map plus the bias.

    Raises:
        ValueError: the head is no pooled linear classifier.

    Example:
        >>> from dsna_lib.attention import ModelConfig, create
        >>> model = create(ModelConfig(("cat", "dog"), "vgg16", "single_stream", dropout=0, weights=None))
        >>> cam(model, torch.rand(1, 512, 14, 14)).shape
        torch.Size([1, 2, 14, 14])
    """
    weight = pooled_classifier(model, "CAM")
    with torch.autocast(features.device.type, enabled=False):
        return functional.conv2d(features.float(), weight[..., None, None])


def explain_cam(model: AttentionModel, features: Tensor, passed: Passed, wanted: Tensor) -> Tensor:
    """:func:`cam` as an :data:`~dsna_lib.methods.explain.Explainer`."""
    return cam(model, features)


CAM = explaining("CAM", "cam", explain_cam)
cam_maker = CAM.maker
