"""Splits of a recipe's data set: found by name, cut to its limit, refused where they are empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsna_lib.config.recipe import DataConfig
from dsna_lib.data import Pictures, Record, minivoc
from dsna_lib.data.sources import load_split, one_sided
from dsna_lib.engine.errors import DsnaError, SettingError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return minivoc.make(tmp_path / "set", train=4, val=2, size=48)


@pytest.mark.parametrize("limit, count", [(None, 4), (3, 3), (9, 4)])
def test_a_split_is_cut_to_its_limit(root, limit, count):
    for source in ("minivoc", "voc"):
        pictures = load_split(DataConfig(source=source, limit=limit), "train", root)
        assert [record.id for record in pictures.records] == [f"train_{k:05d}" for k in range(count)]


def test_as_many_pictures_are_drawn_as_the_recipe_says(monkeypatch):
    asked: list[dict] = []
    monkeypatch.setattr(minivoc, "load", lambda split, root, **options: asked.append(options) or [1])
    load_split(DataConfig(drawn=7), "train")
    assert asked == [{"train": 7}]


def test_an_empty_split_is_refused(root):
    (root / "ImageSets" / "Segmentation" / "none.txt").write_text("")
    with pytest.raises(SettingError, match=r"the split none of .*set lists no pictures"):
        load_split(DataConfig("voc"), "none", root)


@pytest.mark.parametrize("source", ["minivoc", "voc"])
def test_an_unknown_split_is_named_with_those_there_are(root, source):
    with pytest.raises((DsnaError, FileNotFoundError), match="no split 'trian'.* train, val"):
        load_split(DataConfig(source), "trian", root)


@pytest.mark.parametrize(
    "labels, warned",
    [([(0,), (0, 1)], ["cat"]), ([(0, 1), (0, 1)], ["cat", "dog"]), ([(0,), ()], []), ([(0,), (1,)], [])],
)
def test_a_class_that_every_picture_shows_is_warned_of(labels, warned):
    records = [Record(str(k), Path(f"{k}.png"), shown) for k, shown in enumerate(labels)]
    warnings = one_sided(Pictures(records, ("cat", "dog")))
    assert [text.split()[4].rstrip(",") for text in warnings] == warned
    assert all(text.startswith("all 2 pictures show") for text in warnings)
