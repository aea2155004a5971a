"""What a chapter starts from: the profiles `cpu`, `colab` and `full`, checked before anything is loaded.

=========  ===========================  =========================================  ==========================
profile    recipe                       pictures to learn from                     needs
=========  ===========================  =========================================  ==========================
``cpu``    ``recipes/drawn.toml``       1,000 drawn ones                           nothing
``colab``  ``recipes/colab.toml``       2,000 drawn ones, 6 epochs instead of 4    a GPU
``full``   ``recipes/paper.toml``       PASCAL VOC, split ``train_aug``            a GPU, VOC
=========  ===========================  =========================================  ==========================

A chapter and a row of a table that ask for the same model share one training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from dsna_lib import attention as attention_models
from dsna_lib import checkpoints
from dsna_lib.attention import AttentionModel
from dsna_lib.config import recipe as recipe_files
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.recipe import NetworkConfig, Recipe
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data import sources
from dsna_lib.data.pictures import Pictures, without_masks
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.errors import DsnaError
from dsna_lib.tables.run import Experiment
from dsna_lib.training import train_once

RECIPES = {"cpu": "drawn", "colab": "colab", "full": "paper"}
PROFILES = tuple(RECIPES)
SHORT_EPOCHS, SHORT_WARM_UP = 2, 30  #: of a training that a reader waits for; the warm-up in steps, at most

T = TypeVar("T")


class ProfileError(DsnaError, ValueError):
    """A parameter of a chapter does not fit this machine or this book; the message says what to change."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the traceback of a wrong parameter helps nobody."""
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class ChapterSetup:
    """Pictures, model and schedule of a chapter; printing it shows them."""

    recipe: Recipe  #: the profile's
    train: Pictures  #: to learn from
    val: Pictures  #: to look at and to measure on
    model: ModelConfig  #: what is trained
    training: TrainingConfig  #: how
    device: str  #: a GPU if there is one, see :func:`~dsna_lib.engine.devices.choose_device`

    @property
    def inference_precision(self) -> Literal["no", "bf16"]:
        """Of the training if it is bf16, else ``"no"``: maps and masks are never computed in fp16."""
        return "bf16" if self.training.precision == "bf16" else "no"

    @property
    def network(self) -> NetworkConfig:
        """The recipe's segmentation network for these classes, its schedule with the seed of this setup."""
        network = self.recipe.network()
        model = replace(network.model, class_names=self.train.class_names)
        training = replace(network.training, seed=self.training.seed)
        inference = replace(network.inference, precision=self.inference_precision)
        return replace(network, model=model, training=training, inference=inference)

    @property
    def experiment(self) -> Experiment:
        """What tables of these pictures, this model and this schedule are made of."""
        maps = replace(self.recipe.maps, precision=self.inference_precision)
        recipe = replace(self.recipe, attention=self.model, training=self.training, maps=maps)
        return Experiment(recipe, self.train, self.train, self.val)

    @property
    def short(self) -> TrainingConfig:
        """The recipe's schedule cut to :data:`SHORT_EPOCHS`: what is trained while one reads has not converged."""
        warm_up = min(self.training.warm_up, SHORT_WARM_UP)
        return replace(self.training, epochs=SHORT_EPOCHS, warm_up=warm_up)

    def converged(self) -> AttentionModel:
        """The model of the whole schedule, where it runs best: the one that comes with the book, else trained here.

        Some come with the book, for the recipe of drawn pictures and seed 0: ``dsna_lib.checkpoints.DRAWN``.

        Raises:
            TrainingError: see :func:`dsna_lib.training.fit`.
        """
        shipped = recipe_files.load(RECIPES["cpu"])
        asked, there = (replace(how, precision="no").identity() for how in (self.training, shipped.training))
        ours = checkpoints.DRAWN.get((self.model.head, self.model.dropout))
        if ours is not None and (self.recipe.data, asked) == (shipped.data, there):
            model = attention_models.load(ours, self.train.class_names)
            if model.config == self.model:
                return model.to(self.device)
        return train_once(self.model, without_masks(self.train), self.training)[0].to(self.device)

    def __str__(self) -> str:
        learn, model, how = self.train, self.model, self.training
        by = "AdamW" if how.optimizer == "adamw" else "SGD"
        return (
            f"{len(learn)} pictures to learn from, {len(self.val)} to look at, {learn.num_classes} classes\n"
            f"{model.backbone} with a {model.head.replace('_', '-')} head; {how.epochs} epochs in batches of "
            f"{how.batch_size} by {by}, learning rates {how.backbone_rate:g} and {how.head_rate:g}"
        )


def choose(profile: str, values: Mapping[str, T]) -> T:
    """The value that belongs to one of :data:`PROFILES`.

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


def attention(profile: str, *, seed: int = 0, voc_root: str | Path = "", **model: Any) -> ChapterSetup:
    """Set up the training of an attention model.

    Args:
        profile: one of :data:`PROFILES`.
        seed: of everything random in training.
        voc_root: the folder of PASCAL VOC, see :func:`dsna_lib.data.voc.find_root`; only ``full`` reads it.
        model: fields of :class:`~dsna_lib.config.attention.ModelConfig` that differ from the profile's.

    Raises:
        ProfileError: unknown profile, a seed that is none, no GPU or no VOC where the profile needs it.

    Example:
        >>> attention("cpu", seed=1, head="single_stream", dropout=0.0).training.seed  # doctest: +SKIP
        1
    """
    recipe = recipe_files.load(choose(profile, RECIPES))
    if not isinstance(seed, int) or seed < 0:
        raise ProfileError(f"seed {seed!r}: choose a whole number, 0 or more")
    device = choose_device().type
    if profile != "cpu" and device == "cpu":
        hint = "choose profile 'cpu', or in Colab a GPU under Runtime, Change runtime type"
        raise ProfileError(f"profile {profile!r} needs a GPU and this machine shows none", hint)
    data = recipe.data
    if data.source == "voc" and not voc_root:
        raise ProfileError(f"profile {profile!r} needs PASCAL VOC: set voc_root to the folder that holds JPEGImages")
    root = Path(voc_root).expanduser() if data.source == "voc" else None
    try:
        train, val = (sources.load_split(data, split, root) for split in (data.train, data.val))
    except (OSError, ValueError) as error:
        raise ProfileError(f"voc_root: {error}") from None
    config = replace(recipe.attention, class_names=train.class_names, **model)
    return ChapterSetup(recipe, train, val, config, replace(recipe.training, seed=seed), device)


def results_folder(results: str | Path = "") -> Path:
    """The folder of the stored tables that a chapter shows: one of your own, else that of the library's checkout.

    Raises:
        ProfileError: a folder of your own that does not exist.
    """
    if not results:
        return Path(__file__).resolve().parents[2] / "results"
    folder = Path(results).expanduser()
    if not folder.is_dir():
        raise ProfileError(f"results: there is no folder {folder}; leave it empty for the book's own tables")
    return folder
