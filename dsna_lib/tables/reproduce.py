"""Everything that a recipe's tables need, from trainings to Table VI, in the order of their dependencies.

:func:`plan` says what there is to do, and how much; :func:`run` does it. Every unit is a run of its own: what is
finished is found again, whenever the command was stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsna_lib.config.recipe import DataConfig, NetworkConfig
from dsna_lib.config.training import TrainingConfig
from dsna_lib.data import sources
from dsna_lib.data.pictures import Pictures
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.fields import nearest
from dsna_lib.engine.files import write_atomically
from dsna_lib.engine.pools import ALONE, Workers
from dsna_lib.engine.provenance import write_result
from dsna_lib.methods import rows
from dsna_lib.methods.base import Method, head_of
from dsna_lib.methods.dsna import DSNA
from dsna_lib.segmentation.archive import server_archive
from dsna_lib.tables import definitions, published
from dsna_lib.tables.definitions import Table
from dsna_lib.tables.run import Experiment, Result, heads_of, run_tables
from dsna_lib.tables.segmentation import kinds_of, run_table_iii, segmented, trained_network
from dsna_lib.training import CURVE_POINTS

KNOWN = (*definitions.TABLES, "III", *published.TITLES)
MERGED = DSNA["merged"]
# How much there is to do, five numbers: trainings, their steps, and pictures that these show; pictures that trained
# models are shown, to measure, annotate or segment; and dense CRFs of whole pictures.
Work = np.ndarray
NOTHING: Work = np.zeros(5, int)
IN_WORDS = "{:,} trainings with {:,} steps over {:,} pictures; {:,} pictures looked at, {:,} refined by a CRF"


def training_work(config: TrainingConfig, pictures: int, trainings: int) -> Work:
    """The work of some trainings on a number of pictures."""
    held = round(config.held_out * pictures)
    steps = trainings * config.epochs * ((pictures - held) // config.batch_size)
    return np.array([trainings, steps, steps * config.batch_size, trainings * CURVE_POINTS * held, 0])


def showing_work(pictures: int, crf: str = "none") -> Work:
    """The work of showing pictures to a model, and of refining its answers where there is a CRF."""
    return np.array([0, 0, 0, pictures, 0 if crf == "none" else pictures])


@dataclass(frozen=True)
class Plan:
    """What a recipe's tables need.

    Attributes:
        experiment: recipe and pictures.
        maps: tables of maps, measured together.
        networks: names of the recipe's segmentation networks, and the methods that each learns from.
        printed: Tables IV to VI, which show what the others measured.
        test: pictures to segment for VOC's server; None for none.
    """

    experiment: Experiment
    maps: tuple[Table, ...]
    networks: dict[str, list[Method]]
    printed: tuple[str, ...]
    test: Pictures | None = None

    def steps(self) -> list[tuple[str, Work]]:
        """What is done one after the other, and how much each is at most: what rows share is done once."""
        experiment, recipe = self.experiment, self.experiment.recipe
        mining, train, val = (len(pictures) for pictures in (experiment.mining, experiment.train, experiment.val))
        listed, heads = [], heads_of(self.maps, seeds=1)
        if heads:
            names = ", ".join(table.name for table in self.maps)
            work = training_work(recipe.training, mining, len(heads)) + showing_work(len(heads) * val)
            listed.append((f"attention models, measured: tables {names}", recipe.seeds * work))
        trained = frozenset(str(unit.what) for unit in heads)
        usual = frozenset({str(head_of(recipe.attention))})
        for name, methods in self.networks.items():
            network, count = recipe.networks[name], len(methods)
            start = usual if network.start == "attention" else frozenset[str]()
            new = start.union(*(method.trains for method in methods)) - trained
            new = new - usual if recipe.finished else new
            work = training_work(recipe.training, mining, len(new)) + training_work(network.training, train, count)
            learning = [len(method.trains) for method in methods if method.trains]
            work += showing_work(len(learning) * train, recipe.annotation.crf)
            # Who trains several classifiers erases what each has found in all pictures that it has learned from.
            work += showing_work(mining * sum(number for number in learning if number > 1))
            work += showing_work(count * val, network.inference.crf)
            listed.append((f"network {name}, {count} methods: table III", recipe.seeds * work))
            trained |= new
        if self.test is not None and self.networks:
            shown = [showing_work(len(self.test), recipe.networks[name].inference.crf) for name in self.networks]
            listed.append(("masks of the test split, packed for VOC's server", sum(shown, NOTHING)))
        return listed

    def __str__(self) -> str:
        recipe, experiment, steps = self.experiment.recipe, self.experiment, self.steps()
        lines = [
            recipe.title or "a recipe without a title",
            f"{len(experiment.mining):,} pictures to mine, {len(experiment.train):,} to segment, "
            f"{len(experiment.val):,} to measure on; {recipe.seeds} seeds",
        ]
        for place, (title, work) in enumerate(steps, start=1):
            lines += [f"{place}. {title}", f"   {IN_WORDS.format(*work)}"]
        if self.printed:
            lines.append(f"{len(steps) + 1}. printed from these: tables {', '.join(self.printed)}")
        if recipe.data.test and self.test is None:
            lines.append(f"the split {recipe.data.test} is not there: nothing is packed for VOC's server")
        total = sum((work for _, work in steps), NOTHING)
        return "\n".join([*lines, f"in all at most: {IN_WORDS.format(*total)}"])


def plan(experiment: Experiment, root: str | Path | None = None) -> Plan:
    """What a recipe's tables need.

    Args:
        experiment: recipe and pictures.
        root: where the data set lies, for its test split.

    Raises:
        SettingError: a table or a segmentation network that is not there, networks whose tables would have one name, or
            one that does not learn from the annotations whose test masks are packed.
        MethodError: a row that is not there.
    """
    recipe = experiment.recipe
    for name in recipe.tables:
        if name not in KNOWN:
            raise SettingError(f"tables: there is no table {name!r}{nearest(name, KNOWN)}; there is {', '.join(KNOWN)}")
    maps = tuple(definitions.TABLES[name] for name in recipe.tables if name in definitions.TABLES)
    networks = {}
    if "III" in recipe.tables:
        recipe.network()  # there has to be one
        networks = {name: rows.select(network.rows) for name, network in recipe.networks.items()}
    files = {_stem("III", recipe.data.source, recipe.networks[name].model.backbone) for name in networks}
    if len(files) < len(networks):
        raise SettingError(f"networks {', '.join(networks)}: several would write {', '.join(sorted(files))}.json")
    bare = [name for name, methods in networks.items() if recipe.data.test and MERGED not in methods]
    if bare:
        raise SettingError(f"networks.{bare[0]}.rows lacks {MERGED.title!r}, whose masks of data.test are packed")
    printed = tuple(name for name in recipe.tables if name in published.TITLES)
    return Plan(experiment, maps, networks, printed, _test_pictures(recipe.data, root))


def _test_pictures(data: DataConfig, root: str | Path | None) -> Pictures | None:
    """The split for VOC's server. It is fetched apart from the rest of VOC, so often it is not there."""
    try:
        return None if data.test is None else sources.load_split(data, data.test, root)
    except FileNotFoundError:
        return None


def run(
    plan: Plan,
    workers: Workers = ALONE,
    out: str | Path = "results",
    say: Callable[[str], None] = print,
    kept: Path | None = None,
) -> dict[str, Path]:
    """Do everything: name of each table (and archive) to its file in the folder `out`.

    `kept` is a folder of scores, see :func:`~dsna_lib.tables.segmentation.run_table_iii`.

    Raises:
        RunError: some units failed; the finished ones are kept.
    """
    files: dict[str, Path] = {}
    experiment, out = plan.experiment, Path(out)
    for result in run_tables(plan.maps, experiment, workers=workers, say=say) if plan.maps else ():
        files[result[0]["table"]] = keep(result, experiment.recipe.attention.backbone, out)
    for name, methods in plan.networks.items():
        network = experiment.recipe.networks[name]
        result = run_table_iii(methods, experiment, network, workers=workers, say=say, kept=kept)
        files[f"III, {name}"] = keep(result, network.model.backbone, out)
        if plan.test is not None:
            files[f"test, {name}"] = _archive(plan.test, experiment, network, out / f"test_{name}.tar.gz")
            say(f"{files[f'test, {name}']}: for VOC's evaluation server")
    return files | {name: _print(name, out) for name in plan.printed}


def keep(result: Result, backbone: str, out: str | Path) -> Path:
    """Write a table that was measured, with null for NaN, under the name by which pages and chapters look for it.

    It names the `backbone`, unless the pictures were drawn.
    """
    values, provenance = result
    values = json.loads(json.dumps(values), parse_constant=lambda constant: None)
    name = _stem(values["table"], provenance["recipe"]["data"]["source"], backbone)
    return write_result(name, values, provenance, out)


def _stem(table: str, source: str, backbone: str) -> str:
    """The name of a table's file."""
    return f"table_{table}_{source}" + ("" if source == "minivoc" else f"_{backbone}")


def _print(name: str, out: Path) -> Path:
    """Write Table IV, V or VI, with what Table III measured in the same folder."""
    path, text = out / f"table_{name}.md", f"{published.TITLES[name]}\n\n{published.render_published(name, out)}"
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def _archive(test: Pictures, experiment: Experiment, network: NetworkConfig, path: Path) -> Path:
    """The test split's masks by the network that learned from merged annotations, seed 0."""
    model, trained, _ = trained_network(MERGED, 0, experiment, network)
    masks = segmented(trained, model, test, network) / kinds_of(network.inference)["iou"]
    return server_archive(masks, test, path)
