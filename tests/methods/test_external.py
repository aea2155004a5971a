"""Methods that are told of other pictures: each from help to scores, and what they share."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import tiny_experiments
from PIL import Image
from tiny_experiments import NETWORK, RECIPE

from dsna_lib.config.segmentation import InferenceConfig
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data.pictures import read_image, read_mask
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.methods import turns
from dsna_lib.methods.base import LABELS, MethodError, prepare
from dsna_lib.methods.rows import EXTERNAL, METHODS, TABLE_III
from dsna_lib.methods.saliency import saliency
from dsna_lib.methods.turns import EarlierNetwork, in_as_many_steps, likeliest, of_one_class
from dsna_lib.paper import published
from dsna_lib.tables.run import Experiment
from dsna_lib.tables.segmentation import train_and_score


@pytest.fixture
def helped(tmp_path, monkeypatch):
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    return tiny.helped_pictures(tmp_path / "data")


def test_they_are_rows_of_the_second_block_of_table_iv():
    assert {m.title: (m.needs - LABELS, m.paper) for m in EXTERNAL} == {
        "STC": ({"saliency"}, 49.3),
        "Co-segmentation": ({"web"}, 56.4),
        "Webly-supervised": ({"web"}, 53.4),
        "Crawled-Video": ({"videos"}, 58.1),
        "TransferNet": ({"other_masks"}, 52.1),
        "AF-MCG": (set(), 54.3),  # what the paper's was told, proposals and saliency, has a stand-in of labels alone
        "Joon et al.": ({"saliency"}, 55.7),
        "DCSP": ({"saliency"}, 58.6),
        "Mining-pixels": ({"saliency"}, 58.7),
        "AE-PSL": (set(), 55.0),
    }
    printed = [row.method for row in published("val")]
    assert [m.title for m in EXTERNAL] == sorted((m.title for m in EXTERNAL), key=printed.index)
    assert all(METHODS[method.title] is method and method not in TABLE_III for method in EXTERNAL)


@pytest.mark.parametrize("method", EXTERNAL, ids=str)
def test_from_help_to_scores(helped, tmp_path: Path, method):
    val = tiny.pictures(tmp_path / "val", 4, masks=True)
    score = train_and_score(method, 0, Experiment(RECIPE, helped, helped, val), NETWORK)
    assert score.counts["iou"].shape == (4, 4, 5)
    assert score.annotation is not None


def test_the_likeliest_of_the_classes_present():
    likely = np.array([[[0.1, 0.5, 0.2]], [[0.2, 0.1, 0.3]], [[0.7, 0.4, 0.1]], [[0.0, 0.0, 0.4]]])
    assert likeliest(likely, [0, 2]).tolist() == [[1, 0, 3]]
    assert likeliest(likely, [2, 0]).tolist() == [[1, 0, 3]]
    assert likeliest(likely, [1]).tolist() == [[2, 0, 0]]


def test_saliency_is_what_a_network_learned_of_other_pictures(helped):
    """Methods share it, and its maps are its probabilities."""
    stage = prepare(METHODS["STC"], RECIPE, helped, helped, 0)
    found = saliency(stage)
    trained = [path for path in runs.root().glob("segmentation/*") if path.is_dir()]
    record = helped.records[0]
    network = EarlierNetwork(stage, stage.help["saliency"])
    image = read_image(record.image)
    np.testing.assert_array_equal(found.of(record), network.likely(image)[1])
    assert found.of(record).shape == image.shape[:2]
    np.testing.assert_allclose(network.likely(image).sum(axis=0), 1, rtol=1e-5)
    again = saliency(prepare(METHODS["DCSP"], RECIPE, helped, helped, 0))
    assert again.source == found.source == network.identity
    assert [path for path in runs.root().glob("segmentation/*") if path.is_dir()] == trained
    assert saliency(prepare(METHODS["DCSP"], RECIPE, helped, helped, 1)).source != found.source


def test_another_way_to_run_a_network_is_another_run(helped):
    recipes = [RECIPE, replace(RECIPE, networks={"tiny": replace(NETWORK, inference=InferenceConfig(scales=(1.0,)))})]
    for title in ("Webly-supervised", "DCSP"):
        folders = [METHODS[title].annotate(prepare(METHODS[title], recipe, helped, helped, 0)) for recipe in recipes]
        assert len(set(folders)) == 2, title


def test_gray_maps_are_used_as_they_are(tmp_path):
    told = tiny.told_pictures(tmp_path)
    for k, record in enumerate(told.records):
        path = tmp_path / "help/saliency" / f"{record.id}.png"
        path.parent.mkdir(exist_ok=True)
        values = np.full(read_image(record.image).shape[:2], 51 * (k % 6), np.uint8)
        Image.fromarray(values).save(path)
    found = saliency(prepare(METHODS["STC"], RECIPE, told, told, 0))
    assert found.source is None
    assert [found.of(record).max().round(3) for record in told.records[:3]] == [0, 0.2, 0.4]


def test_an_earlier_turn_needs_a_network(helped):
    stage = prepare(METHODS["STC"], replace(RECIPE, networks={}), helped, helped, 0)
    with pytest.raises(MethodError, match="the recipe has none"):
        saliency(stage)


def test_it_starts_where_the_rows_network_starts(helped, monkeypatch):
    asked = []
    monkeypatch.setattr(turns, "train_once", lambda config, *rest: asked.append(config.weights) or 1 / 0)
    for start in ("weights", "attention"):
        recipe = replace(RECIPE, networks={"tiny": replace(NETWORK, start=start)})
        stage = prepare(METHODS["STC"], recipe, helped, helped, 0)
        with pytest.raises(ZeroDivisionError):
            saliency(stage)
    assert asked == [None, str(stage.train()[1])]


@pytest.mark.parametrize(("pictures", "epochs", "drop_after"), [(50, 24, 16), (200, 6, 4), (5000, 1, 0)])
def test_other_pictures_are_learned_from_in_as_many_steps(pictures, epochs, drop_after):
    config = SegmentationTraining(epochs=12, drop_after=8, batch_size=7)
    found = in_as_many_steps(config, range(100), range(pictures))
    assert found == replace(config, epochs=epochs, drop_after=drop_after)


def test_pictures_of_one_class(helped):
    several = [replace(helped.records[0], labels=(0, 1)), *helped.records[1:3], replace(helped.records[3], labels=())]
    stage = replace(prepare(METHODS["STC"], RECIPE, helped, helped, 0), pictures=helped.with_records(several))
    assert [record.id for record in of_one_class(stage, "STC").pictures.records] == ["p01", "p02"]
    with pytest.raises(MethodError, match="STC starts from pictures of one class, and none of the 1 is one"):
        of_one_class(replace(stage, pictures=helped.with_records(several[:1])), "STC")


@pytest.mark.parametrize("title", ["DCSP", "Joon et al."])
def test_a_picture_whose_map_is_no_map_is_named(helped, tmp_path, title):
    shutil.rmtree(tmp_path / "data/help/saliency")
    (tmp_path / "data/help/saliency").mkdir()
    for record in helped.records:
        Image.new("L", (3, 3)).save(tmp_path / "data/help/saliency" / f"{record.id}.png")
    with pytest.raises(RunError, match="8 pictures could not be annotated, such as p00: .*the saliency map is 3 x 3"):
        METHODS[title].annotate(prepare(METHODS[title], RECIPE, helped, helped, 0))


def test_pictures_without_a_label_are_background(helped):
    pictures = helped.with_records([replace(helped.records[0], labels=()), *helped.records[1:]])
    for title in ("DCSP", "Joon et al.", "STC"):
        folder = METHODS[title].annotate(prepare(METHODS[title], RECIPE, pictures, pictures, 0))
        assert not read_mask(folder / "p00.png").any()
