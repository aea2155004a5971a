"""Splits of a recipe's data set: found by name, cut to its limit, refused where they are empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsna_lib.config.recipe import DataConfig
from dsna_lib.data import minivoc
from dsna_lib.data.sources import load_split
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
