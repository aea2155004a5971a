"""How a model is trained."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar, Literal, Self

from dsna_lib.engine.devices import native_precision
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.fields import check, configuration, option
from dsna_lib.engine.files import plain

Precision = Literal["auto", "no", "bf16", "fp16"]
Crops = Literal["rescaled", "resized", "whole"]
Device = Literal["auto", "cpu", "cuda", "mps"]


@configuration
class TrainingConfig:
    """How to train. The defaults are the paper's schedule; :meth:`quick` is for a CPU.

    The paper gives 0.01 and 0.1 as learning rates and no momentum. An SGD step with momentum m moves about
    rate / (1 - m) in the long run, so with m = 0.9 those rates are 0.001 and 0.01. The precision ``auto`` becomes
    that of :func:`~dsna_lib.engine.devices.native_precision`, so that a run records what it used.
    """

    epochs: int = option(20, "passes over the pictures", low=1)
    schedule: Literal["step", "poly"] = option(
        "step", "step: divide the rates by 10 after `drop_after`; poly: let them fall as (1 - progress) ** 0.9"
    )
    drop_after: int = option(10, "epoch after which the rates are divided by 10", low=0)
    warm_up: int = option(0, "steps over which the rates rise at the start", low=0)
    optimizer: Literal["sgd", "adamw"] = option("sgd", "sgd: with `momentum`, as in the paper; adamw")
    batch_size: int = option(15, "pictures a step, over all processes together", low=1)
    backbone_rate: float = option(0.001, "learning rate of the pretrained layers", low=0)
    head_rate: float = option(0.01, "learning rate of the new layers", low=0)
    momentum: float = option(0.9, "momentum of SGD", low=0, high=1)
    weight_decay: float = option(5e-4, "weight decay", low=0)
    loss_over_classes: Literal["mean", "sum"] = option("mean", "how Eq. 10 runs over classes")
    crops: Crops = option(
        "rescaled",
        "rescaled: a square out of the picture at one of `scales`, as in the paper; resized: a box of any shape that "
        "holds one of `shares` of it, squeezed into a square; whole: all of it, squeezed into a square",
    )
    crop: int = option(224, "side of the training crop in pixels", low=16)
    scales: tuple[float, float] = option(
        (1.0, 1.5), "range of the shorter side before cropping, in multiples of the crop", low=0, ends=False
    )
    shares: tuple[float, float] = option(
        (0.3, 1.0), "range of the share of a picture that a resized crop holds", low=0, high=1
    )
    jitter: float = option(
        0.0,
        "how much brightness, contrast and saturation change at random, as a share; the hue by a quarter",
        low=0,
        high=1,
    )
    balance: float = option(0.0, "0: draw each picture alike; 1: each class; between: in between", low=0, high=1)
    held_out: float = option(0.0, "share of the pictures kept aside for the learning curve", low=0, high=0.5)
    held_out_size: int = option(0, "side of the square that those are shown in, in pixels; 0: that of `crop`", low=0)
    seed: int = option(0, "seed of everything random", low=0, high=2**32 - 1)  # NumPy takes no larger one
    precision: Precision = option("no", "no: 32-bit numbers; bf16, fp16: mixed; auto: the quickest here")
    workers: int = option(2, "processes that read pictures", low=0)
    memory: float = option(1.0, "GiB on a CPU for what frozen layers made of whole pictures: they see each once", low=0)
    checkpoint_every: int = option(0, "steps between checkpoints; 0: once an epoch", low=0)
    device: Device = option("auto", "auto: a GPU if there is one")
    QUICK: ClassVar[dict[str, Any]] = {"epochs": 6, "drop_after": 4, "precision": "auto"}

    def __post_init__(self) -> None:
        check(self)
        for name in ("scales", "shares"):
            low, high = getattr(self, name)
            if low > high:
                raise SettingError(f"{name}={[low, high]} must be two numbers, the smaller first")
        if self.precision == "auto":
            object.__setattr__(self, "precision", native_precision(self.device))

    @classmethod
    def quick(cls, **changes: Any) -> Self:
        """A short schedule for a laptop: 6 epochs, in bf16 where the processor has it."""
        return cls(**cls.QUICK | changes)

    def identity(self) -> dict[str, Any]:
        """The fields that change what is learned, as plain JSON values.

        Left out is who reads the pictures, where the model runs, what is kept in memory, how often it is saved, and how
        it is looked at; and random colors where there are none, as in records from before there were any.
        """
        free = {"workers", "device", "memory", "checkpoint_every", "held_out_size"}
        free |= set() if self.jitter else {"jitter"}
        return plain({name: value for name, value in asdict(self).items() if name not in free})

    def rate_factor(self, step: int, epoch: int) -> float:
        """What the rates are multiplied by in a step.

        Args:
            step: counted from 0.
            epoch: steps of a pass over the pictures.

        Example:
            >>> TrainingConfig(warm_up=1).rate_factor(0, 700), TrainingConfig().rate_factor(7000, 700)
            (0.5, 0.1)
        """
        warmed = min(1.0, (step + 1) / (self.warm_up + 1))
        if self.schedule == "poly":
            return warmed * max(0.0, 1 - step / epoch / self.epochs) ** 0.9
        return warmed * (1.0 if step < self.drop_after * epoch else 0.1)


@configuration
class SegmentationTraining(TrainingConfig):
    """How to train a segmentation network. The defaults are the paper's; :meth:`~TrainingConfig.quick` is for a CPU.

    New layers learn 10 times as fast as pretrained ones, and biases twice as fast as weights and without decay, as in
    DeepLab; `backbone_rate` and `head_rate` are those of the weights. Losses that use image labels show whole pictures
    whatever `crops` says: a label says nothing about a crop.
    """

    epochs: int = option(12, "passes over the pictures", low=1)
    drop_after: int = option(8, "epoch after which the rates are divided by 10", low=0)
    crop: int = option(321, "side of the training crop in pixels, 8k + 1", low=16)
    scales: tuple[float, float] = option(
        (0.75, 1.5), "range of the shorter side before cropping, in multiples of the crop", low=0, ends=False
    )
