r"""Spatial neural attention, conventional and decoupled (Sec. III-A and III-B of the paper).

Notation, as in the paper and in the chapters (shapes are batched, channels first):

========================  ==================  ==========================================================
symbol                    shape               meaning
========================  ==================  ==========================================================
:math:`X`, ``features``   ``(N, D, h, w)``    output of the backbone
:math:`z`                 ``(N, C, h, w)``    attention before normalization, Eq. 1 and 5
:math:`a`, ``expansive``  ``(N, C, h, w)``    attention weights; sum to 1 over space, Eq. 2 and 6
:math:`s`                 ``(N, C, h, w)``    dense class scores, the discriminative map, Eq. 8
:math:`p`, ``scores``     ``(N, C)``          image-level class scores, Eq. 4 and 9
========================  ==================  ==========================================================

Source: Zhang et al., "Decoupled Spatial Neural Attention for Weakly Supervised Semantic Segmentation".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import backbones, model_files
from dsna_lib.config.attention import ModelConfig

FORMAT = "dsna-attention-1"  # of model files


class AttentionOutput(NamedTuple):
    """What an attention head returns."""

    scores: Tensor  #: ``(N, C)`` class scores p (logits)
    #: ``(N, C, h, w)`` attention weights a, non-negative, summing to 1 over space; ``(N, 1, h, w)`` from conventional
    #: attention; None from the single stream
    expansive: Tensor | None
    discriminative: Tensor  #: ``(N, C, h, w)`` raw dense class scores s, of either sign
    features: Tensor | None = None  #: ``(N, D, h, w)`` the backbone's X, where the output comes from a whole model


def spatial_normalize(z: Tensor) -> Tensor:
    """Eq. 2 and 6: divide z ``(N, C, h, w)``, which is positive, by its sum over space, so that it sums to 1 there."""
    return z / z.sum(dim=(-2, -1), keepdim=True)


def shifted_softplus(x: Tensor, epsilon: float) -> Tensor:
    """Eq. 7: ``log(1 + exp(x)) + epsilon``. Positive everywhere, so every place keeps some attention."""
    return functional.softplus(x) + epsilon


class ConventionalAttention(nn.Module):
    """One class-agnostic attention map that re-weights the features before a classifier (Eq. 1-4).

    Eq. 4 as printed multiplies by a twice (x-hat of Eq. 3 already holds it); it is applied once.

    Args:
        in_channels, num_classes: D, channels of the features, and C, classes without background.
        epsilon: of Eq. 7, which serves as F here, too: the exponential, the paper's example of it, diverges at the
            paper's learning rates.

    Example:
        >>> head = ConventionalAttention(512, 20)
        >>> head(torch.rand(2, 512, 14, 14)).expansive.shape
        torch.Size([2, 1, 14, 14])
    """

    def __init__(self, in_channels: int, num_classes: int, epsilon: float = 0.1) -> None:
        super().__init__()
        self.attention = nn.Conv2d(in_channels, 1, kernel_size=1)  # w, b
        self.classifier = nn.Conv2d(in_channels, num_classes, kernel_size=1)  # v_c, h_c
        self.epsilon = epsilon

    def forward(self, features: Tensor) -> AttentionOutput:
        """Features ``(N, D, h, w)`` to an :class:`AttentionOutput` with one attention map a picture."""
        z = shifted_softplus(self.attention(features), self.epsilon)  # Eq. 1
        a = spatial_normalize(z)  # Eq. 2
        attended = features * a  # Eq. 3
        scores = self.classifier(attended.sum(dim=(-2, -1), keepdim=True)).flatten(1)  # Eq. 4
        return AttentionOutput(scores, a, self.classifier(features))


class Dropout(nn.Dropout):
    """``nn.Dropout`` of the same rate `p`, drawn from uniform numbers: a CPU needs a third of the time for them."""

    def forward(self, values: Tensor) -> Tensor:
        """Any shape to the same shape."""
        if not self.training or self.p == 0:
            return values
        kept = torch.rand_like(values, dtype=torch.float32) >= self.p
        return values * (kept.to(values.dtype) / (1 - self.p or 1))


class DecoupledAttention(nn.Module):
    """Two class-specific maps from one forward pass: expansive a and discriminative s (Eq. 5-9).

    Dropout acts on the expansive branch only, element-wise, before and after its convolution, and the
    result is normalized afterwards; the discriminative branch sees the undropped features.

    Args:
        in_channels, num_classes: D, channels of the features, and C, classes without background.
        dropout: rate of both dropout layers, in 0..1 (Table II varies it).
        epsilon: the constant of Eq. 7.
        dropout_after: ``"convolution"`` drops the logits before F (default); ``"activation"`` drops z after F.

    Raises:
        ValueError: a rate outside 0..1, or an unknown `dropout_after`.

    Example:
        >>> out = DecoupledAttention(512, 20)(torch.rand(2, 512, 14, 14))
        >>> out.scores.shape, out.expansive.shape
        (torch.Size([2, 20]), torch.Size([2, 20, 14, 14]))
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        dropout: float = 0.5,
        epsilon: float = 0.1,
        dropout_after: str = "convolution",
    ) -> None:
        super().__init__()
        if dropout_after not in ("convolution", "activation"):
            raise ValueError(f"dropout_after={dropout_after!r}: choose 'convolution' or 'activation'")
        self.expansive = nn.Conv2d(in_channels, num_classes, kernel_size=1)  # w_c, b^c
        self.discriminative = nn.Conv2d(in_channels, num_classes, kernel_size=1)  # v_c, h_c
        self.dropout_before, self.dropout_after = Dropout(dropout), Dropout(dropout)
        self.drop_activation = dropout_after == "activation"
        self.epsilon = epsilon

    def forward(self, features: Tensor) -> AttentionOutput:
        """Features ``(N, D, h, w)`` to an :class:`AttentionOutput` with both maps."""
        logits = self.expansive(self.dropout_before(features))
        if self.drop_activation:
            z = self.dropout_after(shifted_softplus(logits, self.epsilon))
        else:
            z = shifted_softplus(self.dropout_after(logits), self.epsilon)  # Eq. 5, 7
        a = spatial_normalize(z)  # Eq. 6
        s = self.discriminative(features)
        attended = s * a  # Eq. 8
        scores = attended.sum(dim=(-2, -1))  # Eq. 9
        return AttentionOutput(scores, a, s)


class SingleStreamAttention(nn.Module):
    """The paper's ablation: the discriminative branch alone, pooled by its spatial mean.

    Args:
        in_channels, num_classes: D, channels of the features, and C, classes without background.
        dropout: rate of the dropout layers on both sides of the convolution.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.discriminative = nn.Conv2d(in_channels, num_classes, kernel_size=1)
        self.dropout_before, self.dropout_after = Dropout(dropout), Dropout(dropout)

    def forward(self, features: Tensor) -> AttentionOutput:
        """Features ``(N, D, h, w)`` to an :class:`AttentionOutput` whose `expansive` is None."""
        s = self.dropout_after(self.discriminative(self.dropout_before(features)))
        return AttentionOutput(s.mean(dim=(-2, -1)), None, s)


class AttentionModel(nn.Module):
    """A backbone and an attention head: pictures in, maps and features out, in one forward pass.

    Args:
        backbone: maps pictures ``(N, 3, H, W)`` in 0..1 to features ``(N, D, h, w)``.
        head: one of the attention modules above.

    Example:
        >>> model = AttentionModel(backbones.create("vgg16", weights=None), DecoupledAttention(512, 20)).eval()
        >>> model(torch.rand(1, 3, 224, 224)).features.shape
        torch.Size([1, 512, 14, 14])
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.config: ModelConfig | None = None

    def forward(self, pictures: Tensor) -> AttentionOutput:
        """Pictures ``(N, 3, H, W)``, RGB in 0..1, to an :class:`AttentionOutput` with `features`."""
        features = self.backbone(pictures)
        return self.head(features)._replace(features=features)


def classification_loss(scores: Tensor, labels: Tensor, over_classes: str = "mean") -> Tensor:
    """Eq. 10: the multi-label logistic loss, averaged over pictures.

    Args:
        scores: ``(N, C)`` logits p.
        labels: ``(N, C)`` 1 where the class is present, else 0.
        over_classes: ``"mean"`` (default) or ``"sum"``. Eq. 10 sums; with C classes that is C times the
            learning rate of the mean.

    Raises:
        ValueError: shapes differ, or `over_classes` is unknown.
    """
    if scores.shape != labels.shape:
        raise ValueError(f"scores {tuple(scores.shape)} and labels {tuple(labels.shape)} must have one shape (N, C)")
    loss = functional.binary_cross_entropy_with_logits(scores.float(), labels.float(), reduction="none")
    if over_classes not in ("mean", "sum"):
        raise ValueError(f"over_classes={over_classes!r}: choose 'mean' or 'sum'")
    return loss.mean() if over_classes == "mean" else loss.sum(dim=1).mean()


def create(config: ModelConfig) -> AttentionModel:
    """Make a model. Its head starts from random weights: seed torch first.

    Raises:
        SettingError: unknown backbone, or one without that output stride or that many stages.
        CheckpointError: the backbone's weights cannot be used.

    Example:
        >>> create(ModelConfig(("cat", "dog"), weights=None)).head.expansive.out_channels
        2
    """
    backbone = backbones.create(config.backbone, config.output_stride, config.weights).train_last(config.train_last)
    channels, classes = backbone.out_channels, len(config.class_names)
    head: nn.Module
    if config.head == "decoupled":
        head = DecoupledAttention(channels, classes, config.dropout, dropout_after=config.dropout_after)
    elif config.head == "conventional":
        head = ConventionalAttention(channels, classes)
    else:
        head = SingleStreamAttention(channels, classes, config.dropout)
    model = AttentionModel(backbone, head).eval().to(memory_format=torch.channels_last)
    model.config = config
    return model


def save(model: AttentionModel, path: str | Path, half: bool = False) -> None:
    """Write a model file; see :func:`dsna_lib.model_files.save`."""
    model_files.save(model, path, FORMAT, half)


def load(path: str | Path, class_names: Sequence[str] | None = None) -> AttentionModel:
    """Read a model file that :func:`save` wrote; see :func:`dsna_lib.model_files.load`."""
    return model_files.load(path, FORMAT, ModelConfig, create, class_names)
