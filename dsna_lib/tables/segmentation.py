"""Tables III and IV: from labels to masks, for every method. Annotate, train a segmentation network, score it on val.

All rows share the backbone, the pictures, the thresholds, the schedule and the way val is segmented; no image label is
read there. *Full supervision* learns from the true masks by the same recipe: the ceiling, of which every other number
is a share.

Each stage of each row is a run: finished ones are found again, by this command or the next, and a killed one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsna_lib.config.recipe import NetworkConfig
from dsna_lib.config.segmentation import InferenceConfig
from dsna_lib.config.tables import TITLES
from dsna_lib.data.help import origin
from dsna_lib.data.pictures import DataError, Pictures, read_mask
from dsna_lib.engine import runs
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.pools import ALONE, Unit, Workers, run_units
from dsna_lib.engine.runs import Run
from dsna_lib.methods.base import LABELS, Method, MethodError, lessons, prepare
from dsna_lib.methods.full_supervision import FULL_SUPERVISION
from dsna_lib.metrics import ConfusionMatrix
from dsna_lib.segmentation import mistakes
from dsna_lib.segmentation.inference import segment_split
from dsna_lib.segmentation.networks import SegmentationModel
from dsna_lib.segmentation.training import train_once
from dsna_lib.tables.measure import counts_of, left_out, matrix_of, require_masks
from dsna_lib.tables.run import Experiment, Result, over_seeds, with_trainings
from dsna_lib.tables.scores import Score, place
from dsna_lib.tables.verdicts import Evidence, claim_verdicts

MEASURED = {"III": TITLES["III"], "IV": "What methods are told, and what it is worth (the methods of Table IV)"}
COLUMNS = ("annotation", "single", "multi", "iou", "object", "share")
KINDS_WITH_CRF = {"single": "single", "multi": "multi", "iou": "crf"}  # column to the kind of mask that it scores


def train_and_score(method: Method, seed: int, experiment: Experiment, network: NetworkConfig) -> Score:
    """Annotate, train, segment val and count: one row with one seed. Whatever is finished already is read."""
    model, trained, pictures = trained_network(method, seed, experiment, network)
    masks, kinds = segmented(trained, model, experiment.val, network), kinds_of(network.inference)
    counts = {column: count_masks(masks / kind, experiment.val) for column, kind in kinds.items()}
    wrong = count_wrong(masks / kinds["iou"], experiment.val)
    how = runs.model_provenance(trained.folder / "model.pth")
    return Score(counts, wrong, *_quality(pictures, experiment.train), how)


def kinds_of(inference: InferenceConfig) -> dict[str, str]:
    """Column to the kind of mask that it scores: the last one is that of several scales where there is no CRF."""
    return KINDS_WITH_CRF | ({"iou": "multi"} if inference.crf == "none" else {})


def trained_network(
    method: Method, seed: int, experiment: Experiment, network: NetworkConfig
) -> tuple[SegmentationModel, Run, Pictures]:
    """A method's segmentation network, its run, and the pictures that it learned from, with their masks."""
    stage = prepare(method, experiment.recipe, experiment.mining, experiment.train, seed)
    pictures, loss = lessons(method, stage)
    config = replace(network.model, class_names=experiment.mining.class_names)
    if network.start == "attention":  # of this seed: it has learned from the image labels that all rows are told
        _, attention = stage.train()
        config = replace(config, weights=str(attention))
    return *train_once(config, pictures, replace(network.training, seed=seed), loss=loss), pictures


def segmented(trained: Run, model: SegmentationModel, pictures: Pictures, network: NetworkConfig) -> Path:
    """The folder of a network's masks of pictures, ``KIND/ID.png``, all kinds; made where it is not."""
    how, kinds = network.inference, dict.fromkeys(kinds_of(network.inference).values())

    def work(folder: Path) -> dict[str, Any]:
        on_device = model.to(choose_device(network.training.device))
        looking = how.scales, how.flip, how.crf
        segment_split(on_device, pictures, folder, kinds, *looking, precision=how.precision).raise_failures("segmented")
        return {}

    identity = {"model": runs.file_digest(trained.folder / "model.pth"), "data": runs.data_digest(pictures)}
    run = runs.open_run("segment", identity | {"inference": asdict(how)}, "dsna_lib.segmentation.inference")
    return runs.complete(run, work).folder


def count_masks(folder: Path, pictures: Pictures) -> np.ndarray:
    """Confusion counts of each picture ``(N, C + 1, C + 2)``, from a folder with ``ID.png`` for each."""
    pairs = _with_truths(folder, pictures)
    return np.stack([counts_of(*pair, pictures.num_classes + 1) for pair in pairs]).astype(np.int32)


def count_wrong(folder: Path, pictures: Pictures) -> np.ndarray:
    """What is wrong in masks, over all pictures: see :func:`~dsna_lib.segmentation.mistakes.count_mistakes`."""
    return np.sum([mistakes.count_mistakes(*pair) for pair in _with_truths(folder, pictures)], axis=0)


def _with_truths(folder: Path, pictures: Pictures) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Mask and truth of each picture."""
    for record, mask in zip(pictures.records, require_masks(pictures), strict=True):
        truth = read_mask(mask, num_classes=pictures.num_classes)
        yield read_mask(folder / f"{record.id}.png", truth.shape, pictures.num_classes), truth


def _quality(learned: Pictures, train: Pictures) -> tuple[float | None, np.ndarray | None]:
    """Mean IoU of what is learned from against the truth, and what is wrong in it, where both are known."""
    matrix, wrong = ConfusionMatrix(train.num_classes + 1), np.zeros(len(mistakes.KINDS), int)
    for record, truth in zip(learned.records, train.records, strict=True):
        if record.mask is None or truth.mask is None:
            return None, None
        target = read_mask(truth.mask, num_classes=train.num_classes)
        found = read_mask(record.mask, target.shape, train.num_classes)
        matrix.update(found, target)
        wrong += mistakes.count_mistakes(found, target)
    return round(100 * matrix.mean_iou, 2), wrong / matrix.counts.sum()


def run_table_iii(
    methods: Sequence[Method],
    experiment: Experiment,
    network: NetworkConfig,
    seeds: int | None = None,
    workers: Workers = ALONE,
    say: Callable[[str], None] = print,
    table: str = "III",
    kept: Path | None = None,
) -> Result:
    """Fill in Table III, or another one whose rows are methods: its values and their provenance.

    Args:
        methods: its rows.
        network: the segmentation network.
        experiment, seeds, workers, say: see :func:`~dsna_lib.tables.run.run_tables`.
        table: its name, one of :data:`MEASURED`.
        kept: a folder of scores. A training that has left one there, of the same recipe, data, method and seed, is
            not done again, whatever code and machine made it (the provenance says); each new one is written there.

    Raises:
        TableError, PictureError: see :meth:`~dsna_lib.tables.run.Experiment.checked_seeds`.
        MethodError: a method needs what the data set lacks.
        RunError: some rows failed; the finished ones are kept.
    """
    seeds = experiment.checked_seeds(seeds)
    for method in methods:  # before the first of them trains
        prepare(method, experiment.recipe, experiment.mining, experiment.train, seed=0)
    units = [Unit(method, seed) for seed in range(seeds) for method in in_order(methods)]
    scores = run_units(units, partial(_scored, experiment=experiment, network=network, kept=kept), workers, say)
    trained = {Unit(method, seed): scores[Unit(method, seed)].how for method in methods for seed in range(seeds)}
    how = {"labels": "none on val", "protocol": _protocol(experiment, network), "network": network.model.backbone}
    if any(method.needs - LABELS - {"masks"} for method in methods):
        how["help"] = origin(experiment.train)
    values = summarize(methods, scores, seeds, experiment.val, table)
    return with_trainings(values, experiment, how, trained)


def told_enough(methods: Sequence[Method], experiment: Experiment, say: Callable[[str], None] = print) -> list[Method]:
    """Those methods whose help the data set has; `say` hears what the others lack."""
    found = []
    for method in methods:
        try:
            prepare(method, experiment.recipe, experiment.mining, experiment.train, seed=0)
        except (MethodError, DataError) as error:
            say(f"left out: {error}")
        else:
            found.append(method)
    return found


def _protocol(experiment: Experiment, network: NetworkConfig) -> str:
    """How the table was made, in words."""
    maps, annotation, inference = experiment.recipe.maps, experiment.recipe.annotation, network.inference
    refined = "no CRF" if annotation.crf == "none" else f"dense CRF with tau {annotation.tau:g} (none for SEC's cues)"
    scales = ", ".join(f"{scale:g}" for scale in inference.scales)
    one_model = (
        f" by one attention model for all seeds ({Path(name).stem})" if (name := experiment.recipe.finished) else ""
    )
    return (
        f"annotations of {maps}{one_model}, {refined}; val at scales {scales}, "
        f"{'no CRF' if inference.crf == 'none' else 'then a dense CRF'}; {inference.precision}; means over "
        f"{experiment.val.num_classes + 1} classes with background"
    )


def in_order(methods: Sequence[Method]) -> list[Method]:
    """When to start which row, so that few wait for what another one is making.

    The one that trains the most classifiers comes first, then those that share the fewest of them.
    """
    longest = max((method.trains for method in methods), key=len, default=frozenset())
    return sorted(methods, key=lambda method: (method.trains != longest, len(method.trains & longest)))


def _scored(unit: Unit, experiment: Experiment, network: NetworkConfig, kept: Path | None) -> Score:
    if kept is None:
        return train_and_score(unit.what, unit.seed, experiment, network)
    path = score_file(unit, experiment, network, kept)
    if path.is_file():
        return Score.load(path)
    score = train_and_score(unit.what, unit.seed, experiment, network)
    score.save(path)
    return score


def score_file(unit: Unit, experiment: Experiment, network: NetworkConfig, folder: Path) -> Path:
    """Where a row's score lies in a folder of scores: the same for the same recipe, pictures, help, method and seed.

    The masks of `train` decide it, too, for every row: annotations are held against them.
    """
    recipe, method, train = experiment.recipe, unit.what, experiment.train
    decides = {
        "attention": [asdict(recipe.attention), recipe.finished, recipe.training.identity()],
        "annotations": [asdict(recipe.maps), asdict(recipe.annotation), sorted(method.needs)],
        "help": prepare(method, recipe, experiment.mining, train, unit.seed).told(),
        "network": [network.start, asdict(network.model), network.training.identity(), asdict(network.inference)],
        "data": experiment.provenance()["data"] | {"train": runs.data_digest(train, masks=True)},
    }
    return place(folder, Unit(method.title, unit.seed), decides)


def summarize(
    methods: Sequence[Method], scores: Mapping[Unit, Score], seeds: int, val: Pictures, table: str = "III"
) -> dict[str, Any]:
    """What the table says, in plain numbers, in percent.

    Returns:
        ``rows``: each with ``title``, ``needs`` (what the method is told), ``paper``, the ``mean``, ``std`` and
        ``seeds`` of ``annotation`` (IoU of what was learned from), ``single``, ``multi`` and ``iou`` (val at one scale,
        at several, and after the CRF), ``object`` (the same as ``iou`` with all classes taken as one: where objects
        are, not what), ``share`` (of the ceiling's ``iou``, where there is one), ``per_class`` IoU and ``wrong`` pixels
        (their share of all, and the shares of each kind of mistake in them), means over seeds; ``claims``.
    """
    rows = []
    for method in methods:
        trainings = [scores[Unit(method, seed)] for seed in range(seeds)]
        ceilings = [scores.get(Unit(FULL_SUPERVISION, seed)) for seed in range(seeds)]
        columns = over_seeds([_columns(*pair) for pair in zip(trainings, ceilings, strict=True)])
        printed = {} if method.paper is None else {"iou": method.paper}
        per_class = _per_class(trainings, ("background", *val.class_names))
        details = {
            "per_class": per_class,
            "wrong": _wrong([each.wrong / each.counts["iou"].sum() for each in trainings]),
        }
        if learned := [score.learned_wrong for score in trainings if score.learned_wrong is not None]:
            details["annotation_wrong"] = _wrong(learned)
        rows.append({"title": method.title, "needs": sorted(method.needs), "paper": printed} | columns | details)

    def miou(counts: np.ndarray) -> float:
        return 100 * matrix_of(counts).mean_iou

    def evidence(title: str, measure: str) -> Evidence | None:
        """Of a row: its networks are its own, whatever their annotations share."""
        counts = [scores[Unit(m, seed)].counts[measure] for m in methods if m.title == title for seed in range(seeds)]
        if not counts:
            return None
        own = [miou(each.sum(axis=0)) for each in counts]
        return Evidence(title, np.array(own), np.array([left_out(each, miou) for each in counts]))

    return {
        "table": table,
        "title": MEASURED[table],
        "columns": [name for name in COLUMNS if any(name in row["mean"] for row in rows)],
        "rows": rows,
        "claims": claim_verdicts(table, evidence),
    }


def _per_class(trainings: Sequence[Score], names: Sequence[str]) -> dict[str, float | None]:
    """IoU of each class in percent, mean over seeds; None for one that is neither in the truth nor in any mask."""
    each = np.ma.masked_invalid([matrix_of(score.counts["iou"].sum(axis=0)).iou for score in trainings])
    means = (100 * each.mean(axis=0)).round(2).tolist()  # a masked number becomes None
    return dict(zip(names, means, strict=True))


def _wrong(shares: Sequence[np.ndarray]) -> dict[str, float]:
    """Percent of the pixels that are wrong, of all kinds together and of each; means over seeds."""
    mean = 100 * np.mean(shares, axis=0)  # (kinds,)
    return dict(zip(("all", *mistakes.KINDS), np.array([mean.sum(), *mean]).round(2).tolist(), strict=True))


def _columns(score: Score, ceiling: Score | None) -> dict[str, float]:
    """A row's measures for one seed."""
    columns = {} if score.annotation is None else {"annotation": score.annotation}
    columns |= {column: _miou(counts) for column, counts in score.counts.items()}
    total = score.counts["iou"].sum(axis=0)  # any object against background: a wrong class costs nothing
    columns["object"] = round(100 * float(total[1:, 1:-1].sum() / (total.sum() - total[0, 0])), 2)
    if ceiling is not None:
        columns["share"] = round(100 * columns["iou"] / _miou(ceiling.counts["iou"]), 2)
    return columns


def _miou(counts: np.ndarray) -> float:
    return round(100 * matrix_of(counts.sum(axis=0)).mean_iou, 2)
