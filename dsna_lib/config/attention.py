"""What an attention model is made of."""

from __future__ import annotations

from typing import Literal

from dsna_lib.engine.fields import configuration, option

Head = Literal["decoupled", "conventional", "single_stream"]
DropoutAfter = Literal["convolution", "activation"]


@configuration
class HeadConfig:
    """An attention head (:mod:`dsna_lib.attention`): what the rows of an ablation differ in."""

    head: Head = option("decoupled", "the attention")
    dropout: float = option(0.5, "dropout rate of the decoupled and the single-stream head", low=0, high=1)
    dropout_after: DropoutAfter = option("convolution", "what the decoupled head's second dropout follows")

    def __str__(self) -> str:
        after = "" if self.dropout_after == "convolution" else f" after the {self.dropout_after}"
        return f"{self.head}, dropout {self.dropout:g}{after}"


@configuration
class ModelConfig:
    """What an attention model is made of; a model file carries it.

    `class_names`, those of the C classes without background, follow from the data.
    """

    class_names: tuple[str, ...] = ()
    backbone: str = option("efficientnet_lite0", "vgg16, efficientnet_lite0, resnet50_caffe, or a timm model")
    head: Head = option("decoupled", "the attention")
    dropout: float = option(0.5, "dropout rate of the decoupled and the single-stream head", low=0, high=1)
    dropout_after: DropoutAfter = option("convolution", "what the decoupled head's second dropout follows")
    train_last: int | None = option(None, "train the backbone's last N stages only (default: all)", low=0)
    output_stride: int = option(16, "pixels that a feature cell stands for", low=1)
    weights: str | None = option("imagenet", "where the backbone starts: imagenet, none, or a file")
