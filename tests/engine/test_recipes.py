"""Recipes are read into dataclasses, or refused in one sentence with the file, the key and the nearest right name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.fields import check, option
from dsna_lib.engine.recipes import RecipeError, load


@dataclass(frozen=True)
class Schedule:
    epochs: int = option(20, "passes", low=1)
    rates: tuple[float, float] = option((0.1, 1.0), "range", low=0)
    names: tuple[str, ...] = ()  # follows from the data

    def __post_init__(self) -> None:
        check(self)
        if self.rates[0] > self.rates[1]:
            raise SettingError(f"rates={list(self.rates)} must not fall")


@dataclass(frozen=True)
class Network:
    backbone: str = option("light", "which")
    training: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Experiment:
    title: str = option("", "what it is")
    seeds: int = option(3, "how many", low=1)
    limit: int | None = option(None, "limit", low=1)
    training: Schedule = field(default_factory=Schedule)
    networks: dict[str, Network] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check(self)


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and returns its path."""

    def write(text: str) -> Path:
        (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
        return tmp_path / "recipe.toml"

    return write


def test_a_recipe_with_tables_and_tables_by_names_of_their_own(recipe):
    path = recipe("""
title = "an experiment"  # with a comment
[training]
rates = [0, 2]
[networks.first.training]
epochs = 5
[networks."another one"]
backbone = "heavy"
""")
    made = load(path, Experiment)
    networks = {"first": Network(training=Schedule(epochs=5)), "another one": Network("heavy")}
    assert made == Experiment("an experiment", training=Schedule(rates=(0.0, 2.0)), networks=networks)
    assert list(made.networks) == ["first", "another one"]
    assert load(str(path), Experiment) == made


def test_what_a_recipe_leaves_out_keeps_its_default(recipe):
    assert load(recipe(""), Experiment) == Experiment()


WRONG = [
    ("seed = 1", "unknown key seed; did you mean 'seeds'?"),
    ("zzz = 1", "unknown key zzz; there is title, seeds, limit, training, networks"),
    ("[training]\nepoch = 1", "unknown key training.epoch; did you mean 'epochs'?"),
    ("[trainings]\nepochs = 1", "unknown key trainings; did you mean 'training'?"),
    (
        "[networks.light.training]\nbackbone = 'x'",
        "unknown key networks.light.training.backbone; there is epochs, rates",
    ),
    ("[training]\nnames = ['cat']", "unknown key training.names; did you mean 'rates'?"),
    ("seeds = '3'", "seeds='3' must be a whole number"),
    ("seeds = 0", "seeds=0 must be at least 1"),
    ("limit = 0", "limit=0 must be at least 1"),
    ("[training]\nepochs = 1.5", "training.epochs=1.5 must be a whole number"),
    ("[training]\nrates = [1.0]", "training.rates=[1.0] must be 2 numbers"),
    ("[training]\nrates = [2.0, 1.0]", "training.rates=[2.0, 1.0] must not fall"),
    (
        "[networks.a.training]\nrates = [2.0, 1.0]",
        "networks.a.training.rates=[2.0, 1.0] must not fall",
    ),
    ("[networks.a.training]\nepochs = -1", "networks.a.training.epochs=-1 must be at least 1"),
    ("training = 3", "training must be a table of settings, not 3"),
    ("networks = 3", "networks must be a table of tables, not 3"),
    ("[[networks]]\nbackbone = 'x'", "networks must be a table of tables, not [{'backbone': 'x'}]"),
    ("[networks]\nbackbone = 'x'", "networks.backbone must be a table of settings, not 'x'"),
    ("[seeds]\nnumber = 3", "seeds={'number': 3} must be a whole number"),
    ("title = 2026-01-01", "title=datetime.date(2026, 1, 1) must be a text"),
]


@pytest.mark.parametrize("text, message", WRONG)
def test_a_wrong_recipe_is_refused_with_its_file_and_key(recipe, text, message):
    path = recipe(text)
    with pytest.raises(RecipeError) as error:
        load(path, Experiment)
    assert str(error.value) == f"{path}: {message}"


@pytest.mark.parametrize("text", ["seeds =", "[training", "seeds = 1\nseeds = 2", "= 3", "seeds = three"])
def test_what_is_no_toml_is_refused_with_its_place(recipe, text):
    path = recipe(text)
    with pytest.raises(RecipeError, match=r"recipe.toml: is no TOML file \(.* \(at (line 1|end)"):
        load(path, Experiment)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "recipe.toml").write_bytes(b"title = '\xff'")
    with pytest.raises(RecipeError, match=r"recipe.toml: is no TOML file \('utf-8' codec"):
        load(tmp_path / "recipe.toml", Experiment)


def test_what_is_no_file_is_refused_unread():
    with pytest.raises(RecipeError, match="^/dev/null: is a pipe or a device"):
        load("/dev/null", Experiment)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RecipeError, match=r"^.*/gone.toml: no such recipe$"):
        load(tmp_path / "gone.toml", Experiment)
    with pytest.raises(RecipeError, match=r"cannot be read \(Is a directory\)$"):
        load(tmp_path, Experiment)


# --- changes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, made",
    [
        (["seeds=1"], Experiment(seeds=1)),
        (["seeds = 1", "seeds=2"], Experiment(seeds=2)),
        (["title=three words here"], Experiment(title="three words here")),
        (["title='3'"], Experiment(title="3")),
        (["title=a=b"], Experiment(title="a=b")),
        (["title="], Experiment(title="")),
        (["training.epochs=3"], Experiment(training=Schedule(epochs=3))),
        (["training.rates=[0, 1]"], Experiment(training=Schedule(rates=(0.0, 1.0)))),
        (["networks.light.backbone=x"], Experiment(networks={"light": Network("x")})),
        (
            ["networks.light.training.epochs=3", "networks.light.backbone=x"],
            Experiment(networks={"light": Network("x", Schedule(3))}),
        ),
        (["limit=5"], Experiment(limit=5)),
    ],
)
def test_changes_make_the_tables_that_they_need(recipe, changes, made):
    assert load(recipe(""), Experiment, changes) == made


def test_changes_replace_what_the_file_says_and_nothing_else(recipe):
    path = recipe("seeds = 5\n[training]\nepochs = 7\nrates = [0, 2]\n")
    made = load(path, Experiment, ["training.epochs=3"])
    assert made == Experiment(seeds=5, training=Schedule(epochs=3, rates=(0.0, 2.0)))
    assert load(path, Experiment).training.epochs == 7


@pytest.mark.parametrize(
    "change, message",
    [
        ("seeds", "'seeds' changes nothing; write KEY=VALUE, such as training.epochs=3"),
        ("", "'' changes nothing; write KEY=VALUE, such as training.epochs=3"),
        ("=3", "'=3' changes nothing; write KEY=VALUE, such as training.epochs=3"),
        ("training.=3", "'training.=3' changes nothing; write KEY=VALUE, such as training.epochs=3"),
        ("seeds.number=3", "'seeds.number=3': seeds is a value, not a table"),
        ("training.epochs.first=3", "'training.epochs.first=3': epochs is a value, not a table"),
    ],
)
def test_changes_that_are_none_are_refused(recipe, change, message):
    with pytest.raises(RecipeError) as error:
        load(recipe("seeds = 2\n[training]\nepochs = 4\n"), Experiment, [change])
    assert str(error.value) == message


@pytest.mark.parametrize(
    "change, message",
    [
        ("seed=1", "unknown key seed; did you mean 'seeds'?"),
        ("trainin.epochs=1", "unknown key trainin; did you mean 'training'?"),
        ("training.epochs=few", "training.epochs='few' must be a whole number"),
        ("training.epochs=0", "training.epochs=0 must be at least 1"),
        ("training=3", "training must be a table of settings, not 3"),
        ("networks.light=3", "networks.light must be a table of settings, not 3"),
        ("title=3", "title=3 must be a text"),
    ],
)
def test_wrong_changes_are_refused_like_wrong_recipes(recipe, change, message):
    path = recipe("")
    with pytest.raises(RecipeError) as error:
        load(path, Experiment, [change])
    assert str(error.value) == f"{path}: {message}"
