"""What a chapter starts from: the profiles `cpu`, `colab` and `full`, checked before anything is loaded.

=========  ===============================  ============================================  ==========================
profile    pictures to learn from           model and schedule                            needs
=========  ===============================  ============================================  ==========================
``cpu``    400 drawn ones                   EfficientNet-lite0, the book's quick recipe   nothing
``colab``  2,000 drawn ones                 the same, for twice as many epochs            a GPU
``full``   PASCAL VOC, split ``train_aug``  VGG-16, the paper's schedule                  a GPU, VOC
=========  ===============================  ============================================  ==========================

The quick recipe is that of the tables (:data:`dsna_lib.tables.DRAWN_TRAINING`), so a chapter and a row of a table
that ask for the same model share one training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from dsna_lib import tables
from dsna_lib.attention import ModelConfig
from dsna_lib.data import Pictures, minivoc, voc
from dsna_lib.training import TrainingConfig

PROFILES = ("cpu", "colab", "full")
DRAWN_PICTURES = {"cpu": 400, "colab": 2000}  # to learn from
COLAB_TRAINING = {"epochs": 12, "drop_after": 10, "workers": 2}

T = TypeVar("T")


class ProfileError(ValueError):
    """A parameter of a chapter does not fit this machine or this book; the message says what to change.

    A notebook shows the message alone: the traceback of a wrong parameter helps nobody.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Setup:
    """Pictures, model and schedule of a chapter; printing it shows them.

    Attributes:
        train: pictures to learn from.
        val: pictures to look at and to measure on.
        model: what is trained.
        training: how.
        device: ``"cuda"`` where there is a GPU, else ``"cpu"``.
    """

    train: Pictures
    val: Pictures
    model: ModelConfig
    training: TrainingConfig
    device: str

    @property
    def look_precision(self) -> str:
        """The precision in which pictures are looked at, ``"bf16"`` if the training has it, else ``"no"``.

        Maps and masks are never computed in fp16.
        """
        return "bf16" if self.training.precision == "bf16" else "no"

    def __str__(self) -> str:
        learn, model, how = self.train, self.model, self.training
        head = model.head.replace("_", "-")
        return (
            f"{len(learn)} pictures to learn from, {len(self.val)} to look at, {learn.num_classes} classes\n"
            f"{model.backbone} with a {head} head; {how.epochs} epochs in batches of {how.batch_size}, "
            f"learning rates {how.backbone_rate:g} and {how.head_rate:g}"
        )


def choose(profile: str, values: Mapping[str, T]) -> T:
    """The value that belongs to a profile.

    Args:
        profile: one of :data:`PROFILES`.
        values: profile to value.

    Raises:
        ProfileError: unknown profile.

    Example:
        >>> choose("cpu", {"cpu": 100, "colab": 400, "full": 1600})
        100
    """
    if profile not in values:
        *most, last = values
        raise ProfileError(f"unknown profile {profile!r}: choose {', '.join(most)} or {last}")
    return values[profile]


def attention(profile: str, *, seed: int = 0, voc_root: str | Path = "", **model: Any) -> Setup:
    """Set up the training of an attention model.

    Args:
        profile: one of :data:`PROFILES`.
        seed: of everything random in training, 0 or more.
        voc_root: the folder of PASCAL VOC, see :func:`dsna_lib.data.voc.find_root`; only ``full`` reads it.
        model: fields of :class:`~dsna_lib.attention.ModelConfig` that differ from the profile's.

    Returns:
        Pictures, model and schedule.

    Raises:
        ProfileError: unknown profile, a seed that is none, no GPU or no VOC where the profile needs it.

    Example:
        >>> attention("cpu", seed=1, head="single_stream", dropout=0.0).training.seed  # doctest: +SKIP
        1
    """
    needs_gpu = choose(profile, {"cpu": False, "colab": True, "full": True})
    if not isinstance(seed, int) or seed < 0:
        raise ProfileError(f"seed {seed!r}: choose a whole number, 0 or more")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if needs_gpu and device == "cpu":
        raise ProfileError(
            f"profile {profile!r} needs a GPU and this machine shows none: choose profile 'cpu', or in Colab a GPU "
            "under Runtime, Change runtime type"
        )
    if profile == "full":
        train, val = _voc(voc_root, "train_aug"), _voc(voc_root, "val")
        config = ModelConfig(train.class_names, **{"backbone": "vgg16"} | model)
        return Setup(train, val, config, TrainingConfig(precision="auto", seed=seed), device)
    train, val = (minivoc.load(split, train=DRAWN_PICTURES[profile]) for split in ("train", "val"))
    longer = COLAB_TRAINING if profile == "colab" else {}
    training = TrainingConfig(**tables.DRAWN_TRAINING | longer | {"seed": seed})
    return Setup(train, val, ModelConfig(train.class_names, **tables.DRAWN_MODEL | model), training, device)


def _voc(root: str | Path, split: str) -> Pictures:
    if not root:
        raise ProfileError("profile 'full' needs PASCAL VOC: set voc_root to the folder that holds JPEGImages")
    try:
        return voc.load(Path(root).expanduser(), split)
    except (OSError, ValueError) as error:
        raise ProfileError(f"voc_root: {error}") from None


def results_folder(results: str | Path = "") -> Path:
    """The folder of the stored tables that a chapter shows, wherever it is run from.

    Args:
        results: a folder of your own; empty for the ``results`` of the checkout that this library lies in.

    Returns:
        The folder. Without a checkout it is absent; chapters say so of each table that they miss.

    Raises:
        ProfileError: a folder of your own that does not exist.
    """
    if not results:
        return Path(__file__).resolve().parents[1] / "results"
    folder = Path(results).expanduser()
    if not folder.is_dir():
        raise ProfileError(f"results: there is no folder {folder}; leave it empty for the book's own tables")
    return folder
