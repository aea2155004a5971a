"""From image labels to masks, for every method of Table III: annotate, train a segmentation network, score it on val.

A :class:`Method` is a row: where its annotations come from, and by which losses the network learns from them. All rows
share the backbone, the pictures, the thresholds, the schedule and the way val is segmented; no image label is read
there. *Full supervision* learns from the true masks by the same recipe: the ceiling, of which every other number is a
share.

Each stage of each row is a run: finished ones are found again, by this command or the next, and a killed one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsna_lib import annotate, cams, crf, maps, paper, runs, segmentation, tables
from dsna_lib.data import PictureError, Pictures, read_mask
from dsna_lib.data.pictures import without_masks
from dsna_lib.measure import matrix_of
from dsna_lib.metrics import ConfusionMatrix
from dsna_lib.rivals import adversarial_erasing
from dsna_lib.rivals.sec import SECLoss
from dsna_lib.segmentation import SegmentationConfig, SegmentationTraining
from dsna_lib.tables import Setting, TableError

ANNOTATING_CODE = ("annotate", "attention", "backbones", "cams", "crf", "maps", "rivals/adversarial_erasing")
SEGMENTING_CODE = ("backbones", "crf", "segmentation")
CLASSIFIER = Setting("single_stream", dropout=0.0)  # CAM's network
STEPS = 4  # of adversarial erasing
KINDS = {"single": "single", "multi": "multi", "iou": "crf"}  # column to how val is segmented


@dataclass(frozen=True)
class Method:
    """A row of Table III.

    Attributes:
        title: its name, unique.
        source: of its annotations: a kind of map of the decoupled model, ``"cam"``, ``"step-1"`` to ``"step-4"`` of
            adversarial erasing, or ``"truth"``.
        refined: whether the dense CRF refines them before they are learned from.
        losses: of SEC; none for the cross-entropy.
        paper: mIoU on VOC val that the paper prints.
    """

    title: str
    source: str
    refined: bool = True
    losses: tuple[str, ...] = ()
    paper: float | None = None

    def __str__(self) -> str:
        return self.title


_PRINTED = {row.title: row.miou for row in paper.TABLE_III}


def _sec(*losses: str) -> Method:
    title = "SEC, " + " + ".join(losses)
    return Method(title, "cam", refined=False, losses=losses, paper=_PRINTED[title])


METHODS: dict[str, Method] = {
    method.title: method
    for method in (
        Method("CAM", "cam"),
        _sec("seed"),
        _sec("seed", "constrain"),
        _sec("seed", "constrain", "expand"),
        *(Method(f"AE, step {k}", f"step-{k}", paper=_PRINTED[f"AE, step {k}"]) for k in range(1, STEPS + 1)),
        *(Method(f"DSNA, {kind}", kind, paper=_PRINTED[f"DSNA, {kind}"]) for kind in maps.KINDS),
        Method("full supervision", "truth", refined=False),
    )
}

PUBLISHED = ("IV", "V", "VI")
TITLES = {
    "III": "Segmentation from annotations of different origin (Table III)",
    "IV": "Results on VOC val, by what they learn from (Table IV), and what came later",
    "V": "Results on VOC test, by what they learn from (Table V), and what came later",
    "VI": "IoU by class (Table VI)",
}
# The book's quick recipe for the drawn pictures. They are shown whole: what tells one drawn animal from another is a
# small part of it, and a crop without that part teaches nothing.
DRAWN_NETWORK = {
    "backbone": "efficientnet_lite0",
    "channels": 256,
    "dilation": 6,
    "dropout": 0.1,
    "train_last": 1,
}
DRAWN_TRAINING = {
    "epochs": 9,
    "schedule": "poly",
    "batch_size": 10,
    "backbone_rate": 0.003,
    "head_rate": 0.03,
    "crop": 129,
    "whole": True,
    "precision": "auto",
    "workers": 0,
}
DRAWN_SCALES = (0.6, 0.75, 0.9)  # around the size at which the network has learned them


@dataclass(frozen=True)
class Recipe:
    """How and on what every row is made.

    Attributes:
        mining: pictures and schedule of the attention models and classifiers, see :class:`dsna_lib.tables.Recipe`; its
            `val` is what the rows are scored on.
        train: pictures that are annotated and learned from by the segmentation network, among those of `mining`; with
            masks, which only full supervision reads.
        network: the segmentation network.
        training: its schedule; the seed is replaced.
        tau: see :func:`dsna_lib.crf.class_probabilities`.
        scales: at which val is shown, for ``multi`` and the CRF.
    """

    mining: tables.Recipe
    train: Pictures
    network: SegmentationConfig
    training: SegmentationTraining
    tau: float = 0.7
    scales: tuple[float, ...] = segmentation.SCALES


Unit = tuple[Method, int]


@dataclass
class Score:
    """What became of a row.

    Attributes:
        counts: column to the confusion counts of each picture of val ``(N, C + 1, C + 2)``.
        annotation: mean IoU of the annotations it learned from, in percent; measured, never used. None without masks.
        how: where it comes from.
    """

    counts: dict[str, np.ndarray]
    annotation: float | None
    how: dict[str, Any] = field(default_factory=dict)


def score(unit: Unit, recipe: Recipe) -> Score:
    """Annotate, train, segment val and count: one row with one seed. Whatever is finished already is read."""
    method, seed = unit
    learned = recipe.train
    if method.source != "truth":
        learned = segmentation.annotated(learned, annotations(method, seed, recipe))
    training = replace(recipe.training, seed=seed, whole=recipe.training.whole or bool(method.losses))
    loss = SECLoss(method.losses) if method.losses else None
    model, trained = runs.train_once(recipe.network, learned, training, loss=loss)
    val, file = recipe.mining.val, trained.folder / "model.pth"
    described = {
        "model": runs.file_digest(file),
        "data": runs.data_digest(val),
        "scales": recipe.scales,
        "precision": recipe.mining.precision,
    }
    run = runs.open_run("segment", described, SEGMENTING_CODE)
    with runs.alone(run.folder):
        precision, kinds = recipe.mining.precision, tuple(KINDS.values())
        model = model.to(_device(recipe))
        report = segmentation.segment_split(model, val, run.folder, kinds, recipe.scales, precision=precision)
    if report.failed:
        name, reason = next(iter(report.failed.items()))
        raise PictureError(f"{len(report.failed)} pictures could not be segmented, such as {name}: {reason}")
    counts = {column: _counts(run.folder / kind, val) for column, kind in KINDS.items()}
    return Score(counts, _quality(learned, recipe.train), runs.model_provenance(file))


def _device(recipe: Recipe) -> str:
    return "cuda" if torch.cuda.is_available() and recipe.training.device != "cpu" else "cpu"


def annotations(method: Method, seed: int, recipe: Recipe) -> Path:
    """The folder of a method's annotations, ``ID.png`` for each picture of ``recipe.train``; made where it is not."""
    setting = Setting() if method.source in maps.KINDS else CLASSIFIER
    config = replace(recipe.mining.model, **asdict(setting))
    everything = without_masks(recipe.mining.train)
    training = replace(recipe.mining.training, seed=seed)
    model, trained = runs.train_once(config, everything, training)
    pictures = without_masks(recipe.train)
    look = {"size": recipe.mining.size, "precision": recipe.mining.precision}
    described = {"model": runs.file_digest(trained.folder / "model.pth"), "data": runs.data_digest(pictures), **look}
    steps = method.source.startswith("step")
    run = runs.open_run("erase" if steps else "annotate", described, ANNOTATING_CODE)
    with runs.alone(run.folder):
        if steps:
            wanted = int(method.source.removeprefix("step-"))
            adversarial_erasing.mine(config, everything, training, run.folder, wanted, **look)
        elif method.source == "cam":
            looking = partial(cams.look, methods=("cam",))
            report = annotate.annotate_split(
                model.to(_device(recipe)), pictures, run.folder, ("cam",), look=looking, **look
            )
            _check(report)
        else:
            _check(annotate.annotate_split(model.to(_device(recipe)), pictures, run.folder, maps.KINDS, **look))
        if not method.refined:
            return run.folder / method.source
        refined = run.folder / f"{method.source}-crf-{recipe.tau:g}"
        _check(crf.refine_split(pictures, run.folder / method.source, refined, recipe.tau))
    return refined


def _check(report: annotate.Report) -> None:
    if report.failed:
        name, reason = next(iter(report.failed.items()))
        raise PictureError(f"{len(report.failed)} pictures could not be annotated, such as {name}: {reason}")


def _counts(folder: Path, pictures: Pictures) -> np.ndarray:
    """Confusion counts of each picture."""
    counts = []
    for record in pictures.records:
        matrix, truth = ConfusionMatrix(pictures.num_classes + 1), read_mask(record.mask)
        matrix.update(read_mask(folder / f"{record.id}.png", truth.shape), truth)
        counts.append(matrix.counts.astype(np.int32))
    return np.stack(counts)


def _quality(learned: Pictures, train: Pictures) -> float | None:
    """Mean IoU of what is learned from against the truth, where that is known."""
    truth = {record.id: record.mask for record in train.records}
    matrix = ConfusionMatrix(train.num_classes + 1)
    for record in learned.records:
        if truth[record.id] is None:
            return None
        matrix.update(read_mask(record.mask), read_mask(truth[record.id]))
    return round(100 * matrix.mean_iou, 2)


def select(titles: Sequence[str] | None) -> list[Method]:
    """Methods by title; None for those of Table III and the ceiling.

    Raises:
        TableError: an unknown title; the message lists those there are.
    """
    if titles is None:
        return [method for method in METHODS.values() if method.title != "CAM"]  # the same as AE's first step
    for title in titles:
        if title not in METHODS:
            raise TableError(f"table III has no row {title!r}; its rows are {'; '.join(METHODS)}")
    return [method for method in METHODS.values() if method.title in titles]


def run(
    methods: Sequence[Method], recipe: Recipe, seeds: int = 1, jobs: int = 1, say: Callable[[str], None] = print
) -> tables.Result:
    """Fill in Table III.

    Args:
        methods: its rows.
        recipe: how.
        seeds: every stage of each row is made with seeds 0 .. seeds - 1.
        jobs: rows at a time, see :func:`dsna_lib.tables.do_all`.
        say: is told what finished.

    Returns:
        Its values and their provenance, as :func:`dsna_lib.runs.write_result` takes them.

    Raises:
        TableError: fewer than one seed or job.
        RuntimeError: some rows failed; the finished ones are kept.
    """
    tables.check_counts(seeds, jobs)
    order = sorted(methods, key=_place)
    units = [(method, seed) for seed in range(seeds) for method in order]
    found = tables.do_all(units, partial(score, recipe=recipe), jobs, say)
    names = ("background", *recipe.mining.val.class_names)
    trained = {m.title: {str(seed): found[m, seed].how for seed in range(seeds)} for m in methods}
    return values(methods, found, seeds, names), _provenance(recipe, trained)


def _place(method: Method) -> int:
    """When to start a row, so that few wait for what another one is making.

    The last step of erasing makes all steps before it, one after the other, and on its way CAM's classifier; rows of
    the decoupled model and the ceiling need none of it.
    """
    return 0 if method.source == f"step-{STEPS}" else 1 if method.source in (*maps.KINDS, "truth") else 2


def values(methods: Sequence[Method], found: Mapping[Unit, Score], seeds: int, names: Sequence[str]) -> dict[str, Any]:
    """What the table says, in plain numbers, in percent.

    Returns:
        ``rows``: each with ``title``, ``paper``, the ``mean``, ``std`` and ``seeds`` of ``annotation`` (IoU of what was
        learned from), ``single``, ``multi`` and ``iou`` (val at one scale, at several, and after the CRF), ``object``
        (the same as ``iou`` with all classes taken as one: where objects are, not what), ``share`` (of the ceiling's
        ``iou``, where there is one), and ``per_class`` IoU, mean over seeds; ``claims``.
    """
    ceiling = METHODS["full supervision"]
    rows = []
    for method in methods:
        each = []
        for seed in range(seeds):
            one = found[method, seed]
            scores = {column: _miou(counts) for column, counts in one.counts.items()}
            scores["object"] = _object_iou(one.counts["iou"])
            if (ceiling, seed) in found:
                scores["share"] = round(100 * scores["iou"] / _miou(found[ceiling, seed].counts["iou"]), 2)
            known = {} if one.annotation is None else {"annotation": one.annotation}
            each.append(known | scores)
        iou = np.mean([matrix_of(found[method, seed].counts["iou"].sum(axis=0)).iou for seed in range(seeds)], axis=0)
        per_class = {name: round(100 * float(value), 2) for name, value in zip(names, iou, strict=True)}
        printed = {} if method.paper is None else {"iou": method.paper}
        rows.append({"title": method.title, "paper": printed} | tables.over_seeds(each) | {"per_class": per_class})
    return {
        "table": "III",
        "title": TITLES["III"],
        "columns": list(rows[0]["mean"]),
        "rows": rows,
        "claims": tables.claims("III", rows, {m.title: found[m, 0].counts["iou"] for m in methods}),
    }


def _miou(counts: np.ndarray) -> float:
    return round(100 * matrix_of(counts.sum(axis=0)).mean_iou, 2)


def _object_iou(counts: np.ndarray) -> float:
    """IoU of objects of any class against background, in percent: a wrong class costs nothing."""
    total = counts.sum(axis=0)
    return round(100 * total[1:, 1:-1].sum() / (total.sum() - total[0, 0]), 2)


def _provenance(recipe: Recipe, trained: dict[str, Any]) -> dict[str, Any]:
    mining = recipe.mining
    return {
        "pictures": {"mining": len(mining.train), "train": len(recipe.train), "val": len(mining.val)},
        "data": {"mining": runs.data_digest(mining.train), "val": runs.data_digest(mining.val)},
        "labels": "none on val",
        "protocol": f"annotations of {mining.size} x {mining.size} input, dense CRF with tau {recipe.tau:g} (none for "
        f"SEC's cues); val at scales {', '.join(f'{scale:g}' for scale in recipe.scales)}, then a dense CRF; "
        f"{mining.precision}; means over {mining.val.num_classes + 1} classes with background",
        "mined": {"model": asdict(mining.model) | {"class_names": None}, "training": mining.training.decisive()},
        "trained": trained,
    }


# --- what was published, beside what was measured here ----------------------------------------------------------------


def render_published(name: str, results: str | Path = "results") -> str:
    """Table IV, V or VI as Markdown, with what :func:`run` measured on photographs.

    Args:
        name: one of :data:`PUBLISHED`.
        results: folder of ``table_III_*.json``; without one, the published numbers stand alone.

    Raises:
        TableError: another name.
    """
    if name not in PUBLISHED:
        raise TableError(f"table {name!r} was not published so; choose one of {', '.join(PUBLISHED)}")
    here = {path.stem: runs.read_json(path) for path in sorted(Path(results).glob("table_III_*.json"))}
    photographs = {stem: found for stem, found in here.items() if "minivoc" not in stem}
    return _by_class(here) if name == "VI" else _by_supervision("val" if name == "IV" else "test", photographs)


def _by_supervision(split: str, here: Mapping[str, Any]) -> str:
    rows = []
    for block, published in (("", paper.published(split)), ("later, ", paper.published(split, paper.LATER))):
        for one in published:
            name = one.method + (f" ({one.network})" if one.network else "")
            name += "" if one.quoted else ", the paper"
            rows.append([name, block + one.supervision, one.extra or "nothing", getattr(one, split), one.source])
    if split == "val":
        for stem, found in here.items():
            rows += [
                [f"{row['title']}, here", "image labels", "nothing", row["mean"]["iou"], f"{stem}.json"]
                for row in found["values"]["rows"]
                if row["title"] == "DSNA, merged"
            ]
    head = ["method", "learns from", "and from", f"mIoU, {split}", "source"]
    return tables.markdown(head, rows, words=("learns from", "and from", "source"))


def _by_class(here: Mapping[str, Any]) -> str:
    columns = {
        f"paper, {name}": values | {"mean": paper.TABLE_VI_MEAN[name]} for name, values in paper.TABLE_VI.items()
    }
    for stem, found in here.items():
        for row in found["values"]["rows"]:
            if row["title"] in ("DSNA, merged", "full supervision"):
                title = f"{row['title']}, {stem.removeprefix('table_III_')}"
                columns[title] = row["per_class"] | {"mean": row["mean"]["iou"]}
    classes = list(dict.fromkeys(name for values in columns.values() for name in values if name != "mean"))
    rows = [[name, *(values.get(name) for values in columns.values())] for name in (*classes, "mean")]
    return tables.markdown(["class", *columns], rows)
