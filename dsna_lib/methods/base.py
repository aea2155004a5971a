"""The seam between methods and everything that trains, measures and prints them.

A :class:`Method` is a row of Table III: how it annotates pictures, and by which loss a segmentation network learns.
It is handed a :class:`Stage`: pictures without masks, the help beyond image labels that it says it needs, and what
trains models and makes maps. Training, resuming, evaluation, tables and chapters know methods through this alone.

Most methods are a :class:`MapMethod`: a classifier whose maps become annotations; those that are told more are often a
:class:`~dsna_lib.methods.from_help.HelpMethod`. A new one is a file beside this and a line in
:mod:`dsna_lib.methods.rows`; the book's page *Add a method* writes one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, cast

import numpy as np
from tqdm import tqdm

from dsna_lib import attention, checkpoints
from dsna_lib.annotate import annotate_split
from dsna_lib.attention import AttentionModel
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.attention import HeadConfig, ModelConfig
from dsna_lib.config.recipe import MapConfig, NetworkConfig, Recipe
from dsna_lib.config.training import TrainingConfig
from dsna_lib.crf import refine_split
from dsna_lib.data.help import SETS, help_folder, load_help, origin
from dsna_lib.data.marks import Box, Hints, Point
from dsna_lib.data.pictures import Pictures, Record, read_image, without_masks, write_mask
from dsna_lib.engine import runs
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.errors import DsnaError, first_few
from dsna_lib.engine.outputs import is_whole
from dsna_lib.engine.pools import Report
from dsna_lib.maps import MapMaker, PictureMaps, attention_maps, iterate_maps
from dsna_lib.segmentation.training import Loss, with_annotations
from dsna_lib.training import train_once

Help = Literal["labels", "points", "scribbles", "boxes", "saliency", "web", "videos", "other_masks", "masks"]
LABELS: frozenset[Help] = frozenset({"labels"})


class Told(TypedDict, total=False):
    """What a method is told beside image labels, by kind; see :mod:`dsna_lib.data.help`."""

    points: Hints[tuple[Point, ...]]
    scribbles: Hints[np.ndarray]
    boxes: Hints[tuple[Box, ...]]
    saliency: Hints[np.ndarray] | Pictures
    web: Pictures
    videos: Pictures
    other_masks: Pictures
    masks: Pictures


class MethodError(DsnaError, ValueError):
    """A method that is not there, or one that needs what the data set does not have."""


@dataclass(frozen=True)
class Stage:
    """What a method works with, for one seed.

    Attributes:
        mining: pictures and image labels that classifiers learn from.
        pictures: those to annotate, without masks.
        model: the attention model; a method replaces its head.
        training: its schedule, with the seed.
        maps: how maps are made.
        annotation: how they become annotations.
        help: what the method needs beside image labels. Of `pictures` by their ids: points, scribbles, boxes and gray
            saliency maps; the same pictures with their masks; and sets of other pictures.
        finished: the file of an attention model that need not be trained any more; None: all are trained.
        network: the recipe's usual segmentation network, for methods that train one before the row's own; None where
            the recipe has none.
    """

    mining: Pictures
    pictures: Pictures
    model: ModelConfig
    training: TrainingConfig
    maps: MapConfig
    annotation: AnnotationConfig
    help: Told
    finished: Path | None = None
    network: NetworkConfig | None = None

    def train(self, head: HeadConfig | None = None) -> tuple[AttentionModel, Path]:
        """The attention model, with this head or its own, where it runs best, and its file.

        It learns from the image labels of `mining`, unless the finished model is the one that is asked for.

        Raises:
            MethodError: the finished model has this head and differs otherwise from what is asked for.
            CheckpointError: it cannot be read, or knows other classes.
        """
        asked = self.model if head is None else replace(self.model, **asdict(head))
        if self.finished is not None and (known := self._known(asked, self.finished)):
            model, path = known, self.finished
        else:
            model, run = train_once(asked, self.mining, self.training)
            path = run.folder / "model.pth"
        return model.to(choose_device(self.training.device)), path

    def _known(self, asked: ModelConfig, path: Path) -> AttentionModel | None:
        """The model in a file; None where its head is another than the one that is asked for."""
        model = attention.load(path, self.mining.class_names)
        assert model.config is not None
        found = replace(model.config, weights=asked.weights)
        if head_of(found) != head_of(asked):
            return None
        if found != asked:
            raise MethodError(f"{path}: holds {found}, and the recipe asks for {asked}")
        return model

    def iterate_maps(self, model: AttentionModel, maker: MapMaker = attention_maps) -> Iterator[PictureMaps]:
        """The maps of `pictures`, see :func:`dsna_lib.maps.iterate_maps`."""
        return iterate_maps(model, self.pictures, maker=maker, **asdict(self.maps))

    def annotate(
        self, head: HeadConfig, kind: str, maker: MapMaker = attention_maps, besides: Sequence[str] = ()
    ) -> Path:
        """Annotations from one kind of map of a trained model: a folder with ``ID.png`` for each of `pictures`.

        Args:
            head: of the model.
            kind, maker: a key of what the maker of maps returns.
            besides: kinds that are annotated in the same pass, for methods that share the model.
        """
        kinds, limits = sorted({kind, *besides}), thresholds(self.annotation)
        modules, described = identify(maker)
        model, path = self.train(head)

        def work(folder: Path) -> None:
            report = annotate_split(model, self.pictures, folder, kinds, maker=maker, **asdict(self.maps), **limits)
            report.raise_failures("annotated")

        identity = {"model": runs.file_digest(path), "kinds": kinds, "maker": described, "thresholds": limits}
        # From image labels alone, whatever else a method is told: rows that share the classifier share them.
        return replace(self, help={}).folder("annotate", work, identity, "dsna_lib.annotate", *modules) / kind

    def annotate_each(
        self, name: str, label: Callable[[Record], np.ndarray], identity: Mapping[str, Any], *modules: str
    ) -> Path:
        """Annotations that are made picture by picture: a folder with ``ID.png`` for each of `pictures`.

        What is there already is skipped, so a killed call goes on where it stopped.

        Args:
            label: makes the mask ``(H, W)`` of a picture; one without any label is background everywhere.
            name, identity, modules: see :meth:`folder`.

        Raises:
            RunError: pictures that cannot be annotated; the message counts and names them.
        """

        def work(folder: Path) -> None:
            _write_each(folder, ((record, partial(label, record)) for record in self.pictures.records))

        return self.folder(name, work, identity, *modules)

    def annotate_maps(
        self,
        model: AttentionModel,
        maker: MapMaker,
        label: Callable[[Record, PictureMaps], np.ndarray],
        identity: Mapping[str, Any],
        *modules: str,
    ) -> Path:
        """As :meth:`annotate_each`, in a stage named ``annotate``, with a picture's maps by a maker for `label`."""

        def work(folder: Path) -> None:
            records, made = self.pictures.records, self.iterate_maps(model, maker)
            _write_each(folder, ((records[each.index], partial(label, records[each.index], each)) for each in made))

        return self.folder("annotate", work, identity, *modules)

    def refine(self, annotations: Path) -> Path:
        """The same after the dense CRF of `annotation`; unchanged where that is ``"none"``."""
        tau, crf = self.annotation.tau, self.annotation.crf
        if crf == "none":
            return annotations

        def work(folder: Path) -> None:
            report = refine_split(self.pictures, annotations, folder, tau, crf, device=self.training.device)
            report.raise_failures("refined")

        identity = {"annotations": self.content(annotations), "tau": tau, "crf": crf}
        return self.folder("refine", work, identity, "dsna_lib.crf")

    def content(self, annotations: Path) -> str:
        """A digest over the annotations of `pictures` in a folder, for the identity of what is made of them."""
        files = {record: annotations / f"{record.id}.png" for record in self.pictures.records}
        known = [replace(record, mask=file if file.is_file() else None) for record, file in files.items()]
        return runs.data_digest(self.pictures.with_records(known), masks=True)

    def told(self) -> dict[str, str]:
        """Each kind of help to a digest of its content; empty where a method is told image labels alone."""
        return {kind: _digest(content) for kind, content in cast(Mapping[str, Any], self.help).items()}

    def folder(self, name: str, work: Callable[[Path], None], identity: Mapping[str, Any], *modules: str) -> Path:
        """The folder of something made of `pictures`; `work` makes it, or goes on with it, unless it is finished.

        Args:
            name, work: of the stage, which gets the folder.
            identity: what decides its files, beside the pictures, the help, and how maps are made.
            modules: entry modules of the code, see :func:`dsna_lib.engine.runs.code_digest`.
        """

        def metrics(folder: Path) -> dict[str, Any]:
            work(folder)
            return {"origin": origin(self.pictures)} if self.help else {}

        # The help by its content, so that what was made of one file is not taken for what another one tells. Who is
        # told image labels alone has no such entry.
        told = self.told()
        known = {"data": runs.data_digest(self.pictures), "maps": asdict(self.maps)} | ({"help": told} if told else {})
        return runs.complete(runs.open_run(name, known | dict(identity), __name__, *modules), metrics).folder


def _write_each(folder: Path, labels: Iterable[tuple[Record, Callable[[], np.ndarray]]]) -> None:
    """Write the masks of pictures that are not there yet; one without any label is background everywhere."""
    report = Report()
    for record, label in tqdm(labels, leave=False, disable=None, unit="picture"):
        path = folder / f"{record.id}.png"
        if is_whole(path):
            continue
        try:
            write_mask(path, label() if record.labels else np.zeros(read_image(record.image).shape[:2]))
        except (OSError, ValueError) as error:
            report.failed[record.id] = str(error)
    report.raise_failures("annotated")


def _digest(told: Hints[Any] | Pictures) -> str:
    return told.digest() if isinstance(told, Hints) else runs.data_digest(told, masks=True)


def head_of(model: ModelConfig) -> HeadConfig:
    """The head of an attention model."""
    return HeadConfig(**{field.name: getattr(model, field.name) for field in fields(HeadConfig)})


def thresholds(annotation: AnnotationConfig) -> dict[str, Any]:
    """The thresholds of annotating, by the names of their arguments."""
    return {name: getattr(annotation, name) for name in ("foreground_threshold", "background_threshold")}


class Method(Protocol):
    """A way from help to a segmentation network.

    Attributes:
        title: the row's name, unique.
        needs: what it is told about the training pictures.
        paper: mIoU on VOC val that the paper prints, in percent; None where it prints none.
        trains: names of the classifiers that it trains on the way; methods that name the same one share it.
    """

    # Properties, so that a frozen dataclass's fields will do.
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def needs(self) -> frozenset[Help]: ...  # noqa: D102
    @property
    def paper(self) -> float | None: ...  # noqa: D102
    @property
    def trains(self) -> frozenset[str]: ...  # noqa: D102

    def annotate(self, stage: Stage) -> Path | None:
        """A folder with ``ID.png`` for each of the stage's pictures; None: the network learns from labels or masks.

        What else is told reaches the network through these files alone, where it may be sparse: 255 is void. So a
        training goes by the content of what it learned from, and never by that of another file of help.
        """

    def loss(self, stage: Stage) -> Loss | None:
        """What the network minimizes; None for the cross-entropy on the annotations."""


@dataclass(frozen=True)
class MapMethod:
    """A :class:`Method` that annotates with one kind of map of one classifier.

    Attributes:
        head, kind, maker, besides: see :meth:`Stage.annotate`.
        refined: whether the dense CRF refines the annotations.
        minimized: the loss of the segmentation network, None for the cross-entropy.
    """

    title: str
    head: HeadConfig
    kind: str
    maker: MapMaker = attention_maps
    besides: tuple[str, ...] = ()
    refined: bool = True
    minimized: Loss | None = None
    paper: float | None = None
    needs: frozenset[Help] = LABELS

    def __str__(self) -> str:
        return self.title

    @property
    def trains(self) -> frozenset[str]:
        """Its classifier."""
        return frozenset({str(self.head)})

    def annotate(self, stage: Stage) -> Path:
        """See :class:`Method`."""
        annotations = stage.annotate(self.head, self.kind, self.maker, self.besides)
        return stage.refine(annotations) if self.refined else annotations

    def loss(self, stage: Stage) -> Loss | None:
        """See :class:`Method`."""
        return self.minimized


def identify(maker: Any) -> tuple[list[str], list[Any]]:
    """What tells a map maker, or another function, from others: for the identity of what it makes.

    Returns:
        Its modules in this package; and names of functions, and what a ``partial`` gives them, or the source of a
        function of your own.
    """
    if isinstance(maker, partial):
        parts = [identify(part) for part in (maker.func, *maker.args, *chain(*maker.keywords.items()))]
        return [name for modules, _ in parts for name in modules], [said for _, each in parts for said in each]
    if not callable(maker):
        return [], [maker]
    if maker.__module__.split(".")[0] == runs.PACKAGE.name:
        return [maker.__module__], [maker.__qualname__]
    return [], [inspect.getsource(maker)]  # one of your own, in a notebook say


def prepare(method: Method, recipe: Recipe, mining: Pictures, pictures: Pictures, seed: int) -> Stage:
    """The stage of a method: what the recipe says, pictures without masks, and the help that the method needs.

    Raises:
        MethodError: the data set lacks what the method needs.
        DataError: what it has of that kind cannot be used as a whole.
    """
    known = {kind: _told(method, kind, pictures) for kind in sorted(method.needs - LABELS)}
    model, training = replace(recipe.attention, class_names=mining.class_names), replace(recipe.training, seed=seed)
    bare = without_masks(mining), without_masks(pictures)
    finished = None if recipe.finished is None else checkpoints.find(recipe.finished)
    network = next(iter(recipe.networks.values()), None)
    return Stage(*bare, model, training, recipe.maps, recipe.annotation, cast(Told, known), finished, network)


def _told(method: Method, kind: Help, pictures: Pictures) -> Hints[Any] | Pictures:
    """What is told of a kind. All pictures with a label must have it, unless it is a set of others."""
    known = pictures if kind == "masks" else load_help(kind, without_masks(pictures))
    needs = f"{method.title} needs {kind.replace('_', ' ')}, which"
    place = help_folder(pictures)
    drawn = known is None and place is not None and (place.parent / "minivoc.json").is_file()
    hint = "`dsna data make --with-help` draws it" if drawn else ""
    if known is None and kind in SETS and place:
        raise MethodError(f"{needs} the data set does not have in {place / kind}", hint or "put it there")
    if kind == "masks":
        lacking = [record.id for record in pictures.records if record.mask is None]
    elif isinstance(known, Pictures):
        lacking = []
    else:
        lacking = [record.id for record in pictures.records if record.labels and record.id not in (known or ())]
    if lacking or known is None:
        which = f"{len(lacking)} of {len(pictures)} pictures of the data set do not have: {first_few(lacking)}"
        raise MethodError(f"{needs} {which}", hint)
    return known


def lessons(method: Method, stage: Stage) -> tuple[Pictures, Loss | None]:
    """What a segmentation network learns from, with masks where the loss needs any; and the loss."""
    annotations = method.annotate(stage)
    if annotations is not None:
        return with_annotations(stage.pictures, annotations), method.loss(stage)
    return stage.help.get("masks", stage.pictures), method.loss(stage)
