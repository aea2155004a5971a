"""A recipe: every number of an experiment, from pictures to tables; ``recipes/*.toml`` hold the book's.

The tables of such a file are the fields of :class:`Recipe`, and theirs the fields of the configurations beside this
module. Where the data lies is not part of a recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import Literal

from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.segmentation import InferenceConfig, SegmentationConfig
from dsna_lib.config.training import SegmentationTraining, TrainingConfig
from dsna_lib.engine import recipes
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.fields import configuration, nearest, option

Source = Literal["minivoc", "voc", "folder"]


@configuration
class DataConfig:
    """Pictures to learn from and to measure on, see :func:`dsna_lib.data.sources.load_split`."""

    source: Source = option("minivoc", "the embedded set, VOC, or your own folder")
    train: str = option("train", "split that attention models and classifiers learn from")
    segment: str | None = option(None, "split that segmentation networks learn from, annotated (default: the same)")
    val: str = option("val", "split to measure on; it needs masks")
    test: str | None = option(None, "split to segment for VOC's server (default: none)")
    limit: int | None = option(None, "only the first N pictures of each split (default: all)", low=1)
    drawn: int = option(1000, "minivoc: how many training pictures to draw", low=1)


@configuration
class MapConfig:
    """How maps are made where they are measured, or turned into annotations."""

    size: int = option(224, "side in pixels of the square that a picture is resized to", low=16)
    scales: tuple[float, ...] = option((1.0,), "multiples of `size` over which maps are averaged", low=0, ends=False)
    flip: bool = option(False, "average over mirror images, too")
    batch_size: int = option(16, "pictures a forward pass; lower it when memory runs out", low=1)
    precision: Literal["no", "bf16"] = option("no", "no: 32-bit numbers; bf16: mixed")

    def __str__(self) -> str:
        scales = "" if self.scales == (1.0,) else f" at scales {', '.join(f'{scale:g}' for scale in self.scales)}"
        mirrored = " with mirror images" if self.flip else ""
        return f"{self.size} x {self.size} input{scales}{mirrored}, {'fp32' if self.precision == 'no' else 'bf16'}"


@configuration
class NetworkConfig:
    """A segmentation network of Table III: its `model`, its `training`, and its `inference` on what is measured."""

    rows: tuple[str, ...] = option((), "titles of the methods that it learns from (default: all of Table III)")
    start: Literal["weights", "attention"] = option(
        "weights", "where its backbone starts: at the model's `weights`, or where the recipe's attention model ended"
    )
    model: SegmentationConfig = field(default_factory=SegmentationConfig)
    training: SegmentationTraining = field(default_factory=SegmentationTraining)
    inference: InferenceConfig = field(default_factory=InferenceConfig)


@configuration
class Recipe:
    """An experiment: its pictures (`data`), and how everything is made of them.

    The head of the `attention` model is that of Table I's first row; other rows replace it. In Table III a `finished`
    model takes its place, with every seed; heads other than its own are trained. `networks` have names of
    one's own; the first one is the usual.
    """

    title: str = option("", "what it is, in a line")
    note: str = option("", "its limits, kept beside every number")
    seeds: int = option(3, "everything is trained with seeds 0 .. N - 1", low=1)
    tables: tuple[str, ...] = option((), "what `dsna reproduce` makes of it, in this order")
    data: DataConfig = field(default_factory=DataConfig)
    attention: ModelConfig = field(default_factory=ModelConfig)
    finished: str | None = option(
        None, "this attention model, trained already: a file, or the name of one that ships (default: it is trained)"
    )
    training: TrainingConfig = field(default_factory=TrainingConfig)
    maps: MapConfig = field(default_factory=MapConfig)
    annotation: AnnotationConfig = field(default_factory=AnnotationConfig)
    networks: dict[str, NetworkConfig] = field(default_factory=dict)

    def network(self, name: str | None = None) -> NetworkConfig:
        """A segmentation network by its name; None for the first.

        Raises:
            SettingError: there is none of that name.
        """
        if not self.networks:
            raise SettingError("the recipe has no segmentation network", "add a table [networks.NAME]")
        name = next(iter(self.networks)) if name is None else name
        if name not in self.networks:
            there = ", ".join(self.networks)
            raise SettingError(f"the recipe has no network {name!r}{nearest(name, self.networks)}; there is {there}")
        return self.networks[name]


def load(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, see :func:`dsna_lib.engine.recipes.load`.

    Args:
        path: a TOML file, or the name of one of the book's, such as ``"drawn"`` or ``"paper"``.
        changes: replacements such as ``"training.epochs=3"``.

    Raises:
        RecipeError: a recipe that is not there or cannot be read; the message names the file and the key.

    Example:
        >>> load("drawn").data.source
        'minivoc'
    """
    # They lie in the checkout, or within the installed package.
    package = Path(__file__).resolve().parents[1]
    ours = {file.stem: file for folder in (package.parent, package) for file in sorted(folder.glob("recipes/*.toml"))}
    file = ours.get(str(path), Path(path))
    if not file.is_file():
        hint = f"the book's are {', '.join(ours)}"
        raise recipes.RecipeError(f"{path}: no such recipe{nearest(Path(path).stem, ours)}", hint)
    return recipes.load(file, Recipe, changes)
