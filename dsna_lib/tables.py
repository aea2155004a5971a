"""Tables of an ablation as data, and the runner that fills them in.

A :class:`Table` is rows and columns; a row names what is trained (:class:`Setting`) and how its maps are read
(:class:`~dsna_lib.measure.Reading`). The runner trains every setting once for each seed, measures all readings that
any table asks of it, and keeps both in ``runs/``: a second table that shares a setting, or the same table after a
kill, finds what is finished.

A relation between rows is only as firm as its spread. With several seeds a :func:`verdict` asks whether all seeds
agree and the mean difference exceeds their standard deviation; with one seed, whether the difference survives drawing
the pictures anew (a bootstrap).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from scipy import stats

from dsna_lib import measure, paper, runs
from dsna_lib.attention import ModelConfig
from dsna_lib.data import Pictures
from dsna_lib.data.pictures import without_masks
from dsna_lib.measure import Measurement, Reading
from dsna_lib.training import TrainingConfig

if TYPE_CHECKING:
    import pandas

MEASURING_CODE = ("annotate", "attention", "backbones", "cams", "maps", "measure", "metrics")
SIZES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 1.01)  # bins of an object's share of its picture
Counts = np.ndarray  # (N, C + 1, C + 2), see Measurement
MERGED = Reading()


class TableError(ValueError):
    """No such table, row or number of seeds; the message lists what there is."""


@dataclass(frozen=True)
class Setting:
    """What is trained; the fields are those of :class:`~dsna_lib.attention.ModelConfig`."""

    head: str = "decoupled"
    dropout: float = 0.5
    dropout_after: str = "convolution"

    def __str__(self) -> str:
        after = "" if self.dropout_after == "convolution" else f" after the {self.dropout_after}"
        return f"{self.head}, dropout {self.dropout:g}{after}"


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        title: its name, unique in its table.
        setting: what is trained.
        reading: how its maps are read.
        void: policy, see :class:`~dsna_lib.metrics.ConfusionMatrix`.
        paper: what the paper prints, measure to percent, None where it prints no number.
    """

    title: str
    setting: Setting = Setting()
    reading: Reading = MERGED
    void: str = "false_negative"
    paper: Mapping[str, float | None] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Table:
    """Rows and columns; the columns are measures of :meth:`~dsna_lib.measure.Measurement.scores`."""

    name: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = ("precision", "recall", "iou")

    def select(self, titles: Sequence[str]) -> Table:
        """The table with some of its rows only.

        Raises:
            TableError: a title that is none of its rows'.
        """
        known = [row.title for row in self.rows]
        for title in titles:
            if title not in known:
                raise TableError(f"table {self.name} has no row {title!r}; its rows are {'; '.join(known)}")
        return replace(self, rows=tuple(row for row in self.rows if row.title in titles))


_DSNA = tuple(Row(kind, reading=Reading(kind), paper=paper.TABLE_I[kind]) for kind in paper.TABLE_I)
_CLASSIFIER = Setting("single_stream", dropout=0.0)  # pooled and linear: the network of CAM
_METHODS = (
    Row("CAM", _CLASSIFIER, Reading("cam")),
    Row("Grad-CAM", _CLASSIFIER, Reading("grad_cam")),
    Row("excitation backprop", _CLASSIFIER, Reading("excitation_backprop")),
    Row("contrastive excitation backprop", _CLASSIFIER, Reading("contrastive_excitation_backprop")),
    Row("conventional attention", Setting("conventional", dropout=0.0), Reading("expansive")),
    *(replace(row, title=f"DSNA, {row.title}") for row in _DSNA),
)
_SENSITIVITY = (
    Row("merged, all defaults"),
    Row("S min-maxed with its negative part", reading=Reading("merged, min-max")),
    Row("p-hat over the present classes", reading=Reading("merged, present")),
    Row("sigmoid instead of softmax", reading=Reading("merged, sigmoid")),
    Row("plain mean of A and S", reading=Reading("mean")),
    Row("larger of A and S", reading=Reading("maximum")),
    Row("A times the positive part of S", reading=Reading("product")),
    Row("threshold first, then enlarge", reading=Reading(upsample_first=False)),
    Row("scales 0.75, 1 and 1.5", reading=Reading(scales=(0.75, 1.0, 1.5))),
    Row("void counts as background", void="background"),
    Row("void left out", void="ignore"),
    Row("second dropout after F", Setting(dropout_after="activation")),
    Row("expansive, all defaults", reading=Reading("expansive")),
    Row("discriminative, all defaults", reading=Reading("discriminative")),
    Row("discriminative, S min-maxed", reading=Reading("discriminative, min-max")),
)
_SINGLE = Row("single stream", Setting("single_stream"), Reading("discriminative"), paper=paper.SINGLE_STREAM)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table("I", "The attention maps of one model (Table I)", _DSNA),
        Table(
            "II",
            "The merged map by dropout rate (Table II)",
            tuple(Row(f"{rate:g}", Setting(dropout=rate), paper=scores) for rate, scores in paper.TABLE_II.items()),
        ),
        Table("single-stream", "With and without the expansive branch (Sec. IV-B)", (_SINGLE, *_DSNA)),
        Table(
            "methods",
            "Region-mining methods under one protocol",
            _METHODS,
            ("precision", "recall", "iou", "oracle_iou"),
        ),
        Table("parts", "Shares of objects that maps cover", _METHODS, ("part", "rest", "whole", "precision")),
        Table("sensitivity", "What the paper leaves open, one choice at a time", _SENSITIVITY),
    )
}


def find(name: str) -> Table:
    """A table by its name.

    Raises:
        TableError: there is none.
    """
    if name not in TABLES:
        raise TableError(f"unknown table {name!r}; choose one of {', '.join(TABLES)}")
    return TABLES[name]


def readings(setting: Setting, *own: Table) -> list[Reading]:
    """All readings that any table, `own` ones included, asks of a setting: measured together, in one pass."""
    tables = (*TABLES.values(), *own)
    return list(dict.fromkeys(r.reading for table in tables for r in table.rows if r.setting == setting))


# --- running ----------------------------------------------------------------------------------------------------------


# The book's quick recipe for the drawn pictures, the one of its chapters: fields of ModelConfig and TrainingConfig.
DRAWN_MODEL = {"train_last": 2}
DRAWN_TRAINING = {
    "epochs": 6,
    "drop_after": 4,
    "backbone_rate": 0.02,
    "head_rate": 0.2,
    "scales": (1.0, 1.25),
    "precision": "auto",
    "workers": 0,  # reading these small pictures is quicker than starting processes for it
}


@dataclass(frozen=True)
class Recipe:
    """How and on what every setting of a table is trained and measured.

    Attributes:
        train, val: pictures to learn from and to measure on.
        model: its head and dropout are replaced by each setting's.
        training: its seed is replaced.
        size: side of the square that pictures are shown at when measured, in pixels.
        precision: when measuring, ``"no"`` or ``"bf16"``.
    """

    train: Pictures
    val: Pictures
    model: ModelConfig
    training: TrainingConfig
    size: int = 224
    precision: str = "no"


def measured(setting: Setting, seed: int, recipe: Recipe, *own: Table) -> tuple[Measurement, dict[str, Any]]:
    """Train a setting with a seed and measure it; whatever is finished already is read.

    Args:
        setting, seed: what to train.
        recipe: how.
        own: tables of your own, whose readings are measured beside those of :data:`TABLES`.

    Returns:
        The measurement, and the model's provenance.
    """
    config = replace(recipe.model, **asdict(setting))
    model, trained = runs.train_once(config, without_masks(recipe.train), replace(recipe.training, seed=seed))
    path, wanted = trained.folder / "model.pth", readings(setting, *own)
    described = {
        "model": runs.file_digest(path),
        "data": runs.data_digest(recipe.val),
        "readings": [asdict(reading) for reading in wanted],
        "size": recipe.size,
        "precision": recipe.precision,
    }
    run = runs.open_run("measure", described, MEASURING_CODE)
    stored = run.folder / "measurement.npz"
    found = _stored(stored) if run.finished else None
    if found is None:
        device = "cuda" if torch.cuda.is_available() and recipe.training.device != "cpu" else "cpu"
        found = measure.measure(model.to(device), recipe.val, wanted, recipe.size, precision=recipe.precision)
        run.folder.mkdir(parents=True, exist_ok=True)
        found.save(stored)
        run.finish(mean_average_precision=found.mean_average_precision)
    return found, runs.model_provenance(path)


def _stored(path: Path) -> Measurement | None:
    """A measurement that was finished before; None where its file is damaged."""
    try:
        return Measurement.load(path)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        warnings.warn(f"{path} is missing or damaged and is measured again", stacklevel=3)
        return None


# glibc gives large blocks back to the kernel and fetches them anew, page by page, at every training step: a tenth of
# the step on a CPU. Its settings are read when a process starts, hence for the workers; other systems ignore them.
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "20000000000", "MALLOC_TOP_PAD_": "536870912"}

Unit = tuple[Setting, int]


Result = tuple[dict[str, Any], dict[str, Any]]  # values and provenance, as runs.write_result takes them


def run(table: Table, recipe: Recipe, seeds: int = 3, jobs: int = 1, say: Callable[[str], None] = print) -> Result:
    """Fill in one table, see :func:`run_all`."""
    return run_all([table], recipe, seeds, jobs, say)[0]


def run_all(
    tables: Sequence[Table], recipe: Recipe, seeds: int = 3, jobs: int = 1, say: Callable[[str], None] = print
) -> list[Result]:
    """Fill in tables; a setting that several of them share is trained once.

    Args:
        tables: of :data:`TABLES`, or of your own.
        recipe: how to train and measure.
        seeds: each setting is trained with seeds 0 .. seeds - 1.
        jobs: settings trained at a time, each in a process of its own with its share of the cores; with several
            GPUs, each on the next one.
        say: is told what finished.

    Returns:
        Of each table, its values and their provenance.

    Raises:
        TableError: fewer than one seed or job.
        RuntimeError: some settings failed; the message names each. The finished ones are kept.
    """
    check_counts(seeds, jobs)
    settings = dict.fromkeys(row.setting for table in tables for row in table.rows)
    units = [(setting, seed) for seed in range(seeds) for setting in settings]
    found = do_all(units, partial(_measured, recipe=recipe, own=tables), jobs, say)
    measurements = {unit: one for unit, (one, _) in found.items()}
    results = []
    for table in tables:
        trained = {
            str(setting): {str(seed): found[setting, seed][1] for seed in range(seeds)}
            for setting in dict.fromkeys(row.setting for row in table.rows)
        }
        results.append((values(table, measurements, seeds), _provenance(recipe, trained)))
    return results


def _measured(unit: Unit, recipe: Recipe, own: Sequence[Table]) -> tuple[Measurement, dict[str, Any]]:
    return measured(*unit, recipe, *own)


def check_counts(seeds: int, jobs: int) -> None:
    """Refuse a table of nothing.

    Raises:
        TableError: fewer than one seed or job.
    """
    if seeds < 1 or jobs < 1:
        raise TableError(f"seeds={seeds}, jobs={jobs}: a table needs at least one of each")


def do_all(units: Sequence[Any], work: Callable[[Any], Any], jobs: int, say: Callable[[str], None]) -> dict[Any, Any]:
    """Do every unit of a table, several at a time.

    Args:
        units: pairs of what is to be done and a seed.
        work: does one; it and the units must survive pickling.
        jobs: at a time, each in a process of its own.
        say: is told what finished.

    Returns:
        Unit to result.

    Raises:
        RuntimeError: some units failed; the message names each. The finished ones are kept by `work`.
    """
    found, failed = {}, {}
    for number, (unit, result) in enumerate(_each(units, work, jobs), start=1):
        (failed if isinstance(result, Exception) else found)[unit] = result
        said = f"failed: {result}" if isinstance(result, Exception) else "done"
        say(f"{number} of {len(units)}: {unit[0]}, seed {unit[1]}: {said}")
    if failed:
        raise RuntimeError(_failures(failed, len(units)))
    return found


def _failures(failed: Mapping[Any, Exception], total: int) -> str:
    """One sentence; a reason that several settings share is said once."""
    by_reason: dict[str, list[str]] = {}
    for (setting, seed), error in failed.items():
        by_reason.setdefault(str(error), []).append(f"{setting}, seed {seed}")
    said = [
        f"{named[0]}{f' and {len(named) - 1} others' if named[1:] else ''}: {why}" for why, named in by_reason.items()
    ]
    kept = f", the other {total - len(failed)} are kept" if len(failed) < total else ""
    return f"{len(failed)} of {total} settings failed ({'; '.join(said)}){kept}; run the same command again for these"


def _each(units: Sequence[Any], work: Callable[[Any], Any], jobs: int) -> Iterator[tuple[Any, Any]]:
    """Each unit and its result, or the exception that it ended with, as they finish."""
    if jobs == 1:
        for unit in units:
            yield unit, _tried(unit, work)
        return
    context = get_context("spawn")
    counter = context.Value("i", 0)
    for name, value in KEEP_MEMORY.items():
        os.environ.setdefault(name, value)
    with ProcessPoolExecutor(jobs, context, _start_worker, (jobs, counter)) as pool:
        waiting: dict[Future, Any] = {pool.submit(_tried, unit, work): unit for unit in units}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.exception() or future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _tried(unit: Any, work: Callable[[Any], Any]) -> Any:
    try:
        return work(unit)
    except Exception as error:  # one setting that fails must not take the others with it
        return error


def _start_worker(jobs: int, counter: Any) -> None:
    """Give a process its share of the cores, and the next GPU where there are any; it ends when its parent does."""
    # A worker that outlives a killed command would go on writing into the folder that the next command resumes.
    Thread(target=lambda: (parent_process().join(), os._exit(1)), daemon=True).start()
    with counter.get_lock():
        place, counter.value = counter.value, counter.value + 1
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(place % torch.cuda.device_count())


def _provenance(recipe: Recipe, trained: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "pictures": {"train": len(recipe.train), "val": len(recipe.val)},
        "data": {"train": runs.data_digest(recipe.train), "val": runs.data_digest(recipe.val)},
        "labels": "the true image labels",
        "protocol": f"{recipe.size} x {recipe.size} input, no CRF, {recipe.precision}, means over "
        f"{recipe.val.num_classes + 1} classes with background",
        "trained": trained,
    }


# --- values and verdicts ----------------------------------------------------------------------------------------------


def values(table: Table, measurements: Mapping[Unit, Measurement], seeds: int) -> dict[str, Any]:
    """What a table says, in plain numbers.

    Args:
        table: which.
        measurements: of every (setting, seed) of its rows.
        seeds: how many.

    Returns:
        ``rows`` (``title``, ``paper``, ``mean``, ``std`` over seeds, and ``seeds``), ``claims``, ``curves`` over the
        foreground threshold, ``weight`` of Eq. 11 by size of object, ``mean_average_precision`` of the classifiers.
    """
    rows, counts = [], {row.title: measurements[row.setting, 0].counts[row.reading] for row in table.rows}
    for row in table.rows:
        each = [measurements[row.setting, seed].scores(row.reading, row.void) for seed in range(seeds)]
        each = [
            {name: scores[name] for name in (*table.columns, "oracle_threshold") if name in scores} for scores in each
        ]
        rows.append({"title": row.title, "paper": dict(row.paper)} | over_seeds(each))
    plain = [row for row in table.rows if row.reading in measurements[row.setting, 0].curves]
    settings = dict.fromkeys(row.setting for row in table.rows)
    return {
        "table": table.name,
        "title": table.title,
        "columns": list(table.columns),
        "rows": rows,
        "claims": claims(table.name, rows, counts),
        "curves": {
            row.title: [measurements[row.setting, seed].curve(row.reading) for seed in range(seeds)] for row in plain
        },
        "weight": {
            str(setting): _weight([measurements[setting, seed] for seed in range(seeds)])
            for setting in settings
            if setting.head == "decoupled"
        },
        "mean_average_precision": {
            str(setting): [round(measurements[setting, seed].mean_average_precision, 4) for seed in range(seeds)]
            for setting in settings
        },
    }


def _mean(numbers: Sequence[float]) -> float:
    return round(float(np.mean(numbers)), 2)


def _std(numbers: Sequence[float]) -> float | None:
    """The sample standard deviation; None of a single number."""
    return round(float(np.std(numbers, ddof=1)), 2) if len(numbers) > 1 else None


def over_seeds(each: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """The measures of each seed, with their ``mean`` and ``std``."""
    columns = {name: [scores[name] for scores in each] for name in each[0]}
    mean, std = ({name: of(numbers) for name, numbers in columns.items()} for of in (_mean, _std))
    return {"mean": mean, "std": std, "seeds": list(each)}


def _weight(found: Sequence[Measurement]) -> dict[str, Any]:
    """The weight of the expansive map by size of object, all seeds together, and how the two go along."""
    area, weight = np.concatenate([m.area for m in found]), np.concatenate([m.weight for m in found])
    varied = np.ptp(area) > 0 and np.ptp(weight) > 0
    correlation = round(float(stats.spearmanr(area, weight).statistic), 3) if varied else None
    return {"spearman": correlation, "bins": measure.weight_by_size(area, weight, SIZES)}


def verdict(differences: Sequence[float]) -> str:
    """What several seeds say of a claim.

    Args:
        differences: for each seed, by how much the claim holds; negative where the opposite does.

    Returns:
        ``"holds"`` where all seeds agree and the mean exceeds the standard deviation, ``"does not hold"`` where the
        same is true of the opposite, else ``"within the seeds' spread"``; for one seed ``"one seed: no verdict"``.

    Example:
        >>> verdict([1.0, 1.2, 0.9]), verdict([1.0, -0.2, 0.1])
        ('holds', "within the seeds' spread")
    """
    if len(differences) < 2:
        return "one seed: no verdict"
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    if abs(mean) <= spread or min(differences) * max(differences) <= 0:
        return "within the seeds' spread"
    return "holds" if mean > 0 else "does not hold"


def claims(table: str, rows: Sequence[Mapping], counts: Mapping[str, Counts]) -> list[dict[str, Any]]:
    """Every claim that a table has the rows for: by how much it holds for each seed, and the verdict.

    A claim about several steps holds if each does, and does not if one of them does not; the differences are those
    of its weakest step. With one seed the verdict is that of :func:`bootstrap`, and says so.

    Args:
        table: its name.
        rows: each with ``title`` and ``seeds``, the measures of each seed.
        counts: title to the counts of each picture with seed 0, see :func:`bootstrap`.
    """
    scores = {row["title"]: row["seeds"] for row in rows}
    found = []
    for claim in paper.CLAIMS:
        chain = [title for title in claim.rows if title in scores]
        if claim.table != table or len(chain) < 2:
            continue
        steps = []
        for less, more in pairwise(chain):
            pairs = zip(scores[less], scores[more], strict=True)
            differences = [round(high[claim.measure] - low[claim.measure], 2) for low, high in pairs]
            step = {"differences": differences, "verdict": verdict(differences)}
            if len(differences) == 1 and claim.measure in ("precision", "recall", "iou"):
                step |= _one_training(counts[less], counts[more], claim.measure)
            steps.append(step)
        weakest = min(steps, key=lambda step: np.mean(step["differences"]))
        found.append({"text": claim.text, "source": claim.source} | weakest | {"verdict": _together(steps)})
    return found


def _one_training(less: Counts, more: Counts, name: str) -> dict[str, Any]:
    low, high = bootstrap(less, more, name)
    said = "holds" if low > 0 else "does not hold" if high < 0 else "not separated"
    return {"interval": [low, high], "verdict": f"{said} (one training)"}


def _together(steps: Sequence[Mapping[str, Any]]) -> str:
    """The verdict on all steps: one that does not hold settles it, else one that is open leaves all open."""
    verdicts = [step["verdict"] for step in steps]
    failed = [said for said in verdicts if said.startswith("does not hold")]
    unsettled = [said for said in verdicts if not said.startswith("holds")]
    return (failed or unsettled or verdicts)[0]


def bootstrap(less: Counts, more: Counts, name: str, rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """How far the choice of pictures moves the difference between two rows that were trained once.

    Pictures are drawn with replacement, the same ones for both rows; training is not repeated.

    Args:
        less, more: counts ``(N, C + 1, C + 2)`` of the same N pictures, see :class:`~dsna_lib.measure.Measurement`.
        name: of the measure: ``"precision"``, ``"recall"`` or ``"iou"``.
        rounds: how often to draw.
        seed: of the draws.

    Returns:
        The 2.5 and 97.5 percentiles of `more` minus `less`, in percentage points.
    """
    random, number, found = np.random.default_rng(seed), len(less), []
    for _ in range(rounds):
        drawn = np.bincount(random.integers(number, size=number), minlength=number)
        low, high = (measure.matrix_of(np.tensordot(drawn, each, axes=1)) for each in (less, more))
        found.append(100 * (getattr(high, f"mean_{name}") - getattr(low, f"mean_{name}")))
    low, high = np.percentile(found, [2.5, 97.5]).round(2).tolist()
    return low, high


# --- rendering --------------------------------------------------------------------------------------------------------

HEADS = {
    "precision": "precision",
    "recall": "recall",
    "iou": "IoU",
    "part": "telling part",
    "rest": "rest of the object",
    "whole": "whole object",
    "oracle_iou": "IoU at its best threshold (oracle)",
    "annotation": "IoU of the annotations",
    "single": "one scale",
    "multi": "several scales",
    "share": "share of the ceiling",
    "object": "any object, IoU",
}
FORMATS = ("markdown", "latex", "csv")


def frame(found: Mapping[str, Any]) -> pandas.DataFrame:
    """A table's :func:`values` as a pandas frame: one line a row, mean and std over seeds, the paper's beside them."""
    import pandas

    lines = {}
    for row in found["rows"]:
        line = {}
        for name in found["columns"]:
            line[HEADS[name], "mean"], line[HEADS[name], "std"] = row["mean"][name], row["std"][name]
            if name in _printed(found):
                line[HEADS[name], "paper"] = row["paper"].get(name)
        lines[row["title"]] = line
    table = pandas.DataFrame.from_dict(lines, orient="index")
    table.columns = pandas.MultiIndex.from_tuples(table.columns)
    return table.dropna(axis="columns", how="all").rename_axis("row")


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]], words: Collection[str] = ()) -> str:
    """A Markdown table; see :func:`cell`.

    Args:
        head: the columns' names.
        rows: their cells.
        words: names of columns that hold words: aligned to the left, as the first column always is. All others hold
            numbers and are aligned to the right.
    """
    unknown = [name for name in words if name not in head]
    if unknown:
        raise ValueError(f"no column is named {', '.join(map(repr, unknown))}; the columns are {', '.join(head)}")
    signs = ["---" if column == 0 or name in words else "---:" for column, name in enumerate(head)]
    lines = [list(head), signs, *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines) + "\n"


def cell(value: object) -> str:
    """A cell's text: numbers with one digit, None as a dash."""
    return "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)


def render(found: Mapping[str, Any], form: str = "markdown") -> str:
    """A table's :func:`values` as text, in percent: mean and standard deviation over seeds, the paper's beside them.

    Args:
        found: the values.
        form: ``"markdown"``, ``"latex"`` (with the booktabs package) or ``"csv"``.

    Raises:
        TableError: an unknown form.
    """
    if form == "latex":
        return frame(found).style.format(precision=1, na_rep="-").to_latex(hrules=True, multicol_align="c")
    if form == "csv":
        return frame(found).to_csv()
    if form != "markdown":
        raise TableError(f"unknown form {form!r}; choose one of {', '.join(FORMATS)}")
    columns, printed = found["columns"], _printed(found)
    head = ["", *(HEADS[name] for name in columns)]
    head += ["paper: " + " / ".join(HEADS[name] for name in printed)] if printed else []
    rows = []
    for row in found["rows"]:
        cells = [_spread(row["mean"][name], row["std"][name]) for name in columns]
        theirs = " / ".join(cell(row["paper"].get(name)) for name in printed) if row["paper"] else None
        rows.append([row["title"], *cells, *([theirs] if printed else [])])
    return markdown(head, rows)


def _printed(found: Mapping[str, Any]) -> list[str]:
    """The columns that the paper prints a number for, in any row."""
    return [n for n in found["columns"] if any(row["paper"].get(n) is not None for row in found["rows"])]


def _spread(mean: float, std: float | None) -> str:
    return f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def render_difference(claim: Mapping[str, Any]) -> str:
    """By how many points a claim holds: the mean, and the interval or else the least and the largest of the seeds."""
    each = claim["differences"]
    low, high = claim.get("interval") or (min(each), max(each))
    return f"{float(np.mean(each)):+.1f} ({low:+.1f} to {high:+.1f})"


def render_claims(found: Mapping[str, Any]) -> str:
    """A Markdown table of the claims that a table's :func:`values` answer; empty without any."""
    rows = [[claim["text"], claim["source"], render_difference(claim), claim["verdict"]] for claim in found["claims"]]
    head = ["claim", "whose", "by how many points", "here"]
    return markdown(head, rows, words=("whose", "here")) if rows else ""
