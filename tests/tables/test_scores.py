"""Scores outlive the machine that trained their rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
from tiny_experiments import NETWORK, quiet

from dsna_lib.config.recipe import load
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import read_json
from dsna_lib.engine.pools import Unit
from dsna_lib.methods.base import LABELS
from dsna_lib.methods.rows import METHODS
from dsna_lib.tables import segmentation
from dsna_lib.tables.measure import matrix_of
from dsna_lib.tables.scores import Score, place
from dsna_lib.tables.segmentation import run_table_iii, score_file

FULL = METHODS["full supervision"]
RESULTS = Path(__file__).resolve().parents[2] / "results"
KEPT = sorted((RESULTS / "scores").glob("*.npz"))


def score() -> Score:
    counts = {name: np.arange(24, dtype=np.int32).reshape(2, 3, 4) + k for k, name in enumerate(("single", "iou"))}
    return Score(counts, np.array([1, 2, 3, 4]), 43.2, np.array([0.1, 0.2, 0.0, 0.3]), {"training": {"seed": 1}})


@pytest.mark.parametrize("blind", [False, True])
def test_a_file_gives_back_what_was_saved(tmp_path, blind):
    saved, path = score(), tmp_path / "new" / "a.npz"
    if blind:  # no masks to hold annotations against
        saved = replace(saved, annotation=None, learned_wrong=None)
    saved.save(path)
    found = Score.load(path)
    assert found.counts.keys() == saved.counts.keys()
    for name, counts in saved.counts.items():
        np.testing.assert_array_equal(found.counts[name], counts)
    np.testing.assert_array_equal(found.wrong, saved.wrong)
    assert (found.annotation, found.how) == (saved.annotation, saved.how)
    if blind:
        assert found.learned_wrong is None
    else:
        np.testing.assert_array_equal(found.learned_wrong, saved.learned_wrong)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"{path}: holds no score that can be read.*delete it"):
        Score.load(path)


def test_a_file_without_a_card_is_named(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, wrong=np.zeros(4))
    with pytest.raises(RunError, match="holds no score"):
        Score.load(path)


def test_the_place_tells_row_seed_and_what_decides():
    units = [Unit("SEC, seed", 0), Unit("SEC, seed", 1), Unit("SEC, seed + constrain", 0)]
    places = {place(Path("f"), unit, {"epochs": epochs}).name for unit in units for epochs in (1, 2)}
    assert len(places) == 6
    assert all(name.startswith("SEC_seed") for name in places)
    assert place(Path("f"), units[0], {"shares": (0.4, 1.0)}) == place(Path("f"), units[0], {"shares": [0.4, 1.0]})


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder with the score of full supervision; what is trained after it fails."""
    folder, experiment = tmp_path / "scores", tiny_experiments.experiment(tmp_path)
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    first = run_table_iii([FULL], experiment, NETWORK, seeds=1, say=quiet, kept=folder)
    tiny_experiments.use(monkeypatch, tmp_path / "another machine")

    def refuse(*_: object) -> Score:
        raise RuntimeError("trained")

    monkeypatch.setattr(segmentation, "train_and_score", refuse)
    return folder, experiment, first


def test_a_table_takes_scores_from_another_machine(kept):
    folder, experiment, (values, provenance) = kept
    again, how = run_table_iii([FULL], experiment, NETWORK, seeds=1, say=quiet, kept=folder)
    assert again == values
    assert how["trained"] == provenance["trained"]
    assert [path.name.rsplit("-", 1)[0] for path in folder.iterdir()] == ["full_supervision-0"]


def test_another_recipe_seed_or_picture_is_trained(kept):
    folder, experiment, _ = kept
    longer = replace(NETWORK, training=replace(NETWORK.training, epochs=NETWORK.training.epochs + 1))
    thresholds = replace(experiment.recipe.annotation, foreground_threshold=0.4)
    other = replace(experiment, recipe=replace(experiment.recipe, annotation=thresholds))
    fewer = replace(experiment, val=experiment.val.with_records(experiment.val.records[:-1]))
    for changed, network, seeds in (
        (experiment, longer, 1),
        (other, NETWORK, 1),
        (fewer, NETWORK, 1),
        (experiment, NETWORK, 2),
    ):
        with pytest.raises(RunError, match="1 of . failed .*trained"):
            run_table_iii([FULL], changed, network, seeds=seeds, say=quiet, kept=folder)


def test_where_it_runs_and_which_rows_stand_beside_it_do_not_matter(kept):
    folder, experiment, _ = kept
    elsewhere = replace(NETWORK, rows=("CAM",), training=replace(NETWORK.training, workers=3))
    unit = Unit(FULL, 0)
    assert score_file(unit, experiment, elsewhere, folder) == score_file(unit, experiment, NETWORK, folder)
    assert score_file(unit, experiment, NETWORK, folder).is_file()


def test_other_masks_or_help_are_another_score(tmp_path):
    told = [tiny.told_pictures(tmp_path / name) for name in ("a", "moved", "unmasked")]
    points = tmp_path / "moved/help/points.csv"
    points.write_text(points.read_text().replace("p03,", "p03,1"))
    told[2] = told[2].with_records([replace(told[2].records[0], mask=None), *told[2].records[1:]])

    def names(title: str) -> list[str]:
        made = [replace(tiny_experiments.experiment(tmp_path), mining=train, train=train) for train in told]
        return [score_file(Unit(METHODS[title], 0), each, NETWORK, tmp_path).name for each in made]

    by_points, by_labels = names("What's the Point"), names("CAM")
    assert len({*by_points}) == 3
    assert by_labels[0] == by_labels[1] != by_labels[2]  # annotations are held against the masks of train


def test_scores_of_the_book_are_of_one_recipe_and_of_the_same_pictures():
    told_labels = [method.title for method in METHODS.values() if method.needs == LABELS]
    rows = {place(Path(), Unit(title, 0), {}).stem.rsplit("-", 2)[0] for title in told_labels}
    from_labels = [path.stem for path in KEPT if path.stem.rsplit("-", 2)[0] in rows]
    assert len({name.rpartition("-")[2] for name in from_labels}) == 1  # it tells recipe, pictures, and what is told


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_a_score_of_the_book_belongs_to_its_recipe(path):
    usual = load("drawn").network().training.identity()
    made = Score.load(path).how["training"]
    # Image labels, which these losses read, speak of whole pictures.
    shown = {"crops": "whole"} if path.stem.startswith(("SEC", "What_s_the_Point")) else {}
    assert made == usual | {"seed": int(path.stem.split("-")[-2])} | shown


@pytest.mark.parametrize("table", ["III", "IV"])
def test_the_books_table_is_what_its_scores_say(table):
    rows = read_json(RESULTS / f"table_{table}_minivoc.json")["values"]["rows"]
    assert len(rows) > 1
    for row in rows:
        for seed, columns in enumerate(row["seeds"]):
            found = [
                path for path in KEPT if path.name.startswith(place(Path(), Unit(row["title"], seed), {}).name[:-16])
            ]
            assert len(found) == 1, f"{row['title']}, seed {seed}"
            counts = Score.load(found[0]).counts
            for name in ("single", "multi", "iou"):
                assert round(100 * matrix_of(counts[name].sum(axis=0)).mean_iou, 2) == columns[name]
