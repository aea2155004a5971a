"""Options out of configurations: names, types, ranges, defaults; and messages in terms of them."""

import argparse
from dataclasses import dataclass, fields
from typing import Literal

import pytest

from dsna_lib.cli import options
from dsna_lib.cli.main import parser
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.training import SegmentationTraining, TrainingConfig
from dsna_lib.engine.fields import option


@dataclass(frozen=True)
class Sample:
    name: str = option("oak", "its name")
    first_year: int = option(1900, "100 % sure, see `last_year`", low=1)
    last_year: int | None = option(None, "when it fell (default: it stands)", low=1)
    file: str | None = option("tree.png", "a picture")
    height: float = option(2.5, "in meters", low=0, ends=False)
    scales: tuple[float, ...] = option((0.5, 1.0), "several", low=0)
    kind: Literal["leaf", "needle"] = option("leaf", "what it has")
    evergreen: bool = option(False, "whether it stays green")
    derived: int = 3


def parsed(*words: str, config: type = Sample, **said: object) -> dict[str, object]:
    made = argparse.ArgumentParser()
    options.add(made, config, **said)
    return options.given(made.parse_args(words), config)


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit):
        parsed(*words)
    return capsys.readouterr().err


def test_what_is_not_given_is_absent():
    assert parsed() == {}


def test_values_have_the_types_of_their_fields():
    words = "--name 3 --first-year 1950 --last-year 2000 --height 3 --scales 1,2.5 --kind needle --evergreen"
    values = parsed(*words.split())
    assert values == {
        "name": "3", "first_year": 1950, "last_year": 2000, "height": 3.0, "scales": (1.0, 2.5),
        "kind": "needle", "evergreen": True,
    }  # fmt: skip
    assert isinstance(values["height"], float)
    assert isinstance(values["scales"][0], float)
    assert parsed("--no-evergreen") == {"evergreen": False}


def test_none_is_what_a_recipe_leaves_out():
    assert parsed("--last-year", "none", "--file", "none") == {"last_year": None, "file": None}
    assert parsed("--name", "none") == {"name": "none"}


@pytest.mark.parametrize(
    "words, said",
    [
        ("--first-year 0", "argument --first-year: 0 must be at least 1"),
        ("--first-year soon", "argument --first-year: 'soon' must be a whole number"),
        ("--first-year none", "argument --first-year: 'none' must be a whole number"),
        ("--height 0", "argument --height: 0 must be above 0"),
        ("--height nan", "argument --height: nan must be a finite number above 0"),
        ("--scales 1,-1", "argument --scales: -1 must be at least 0"),
        ("--scales 1,wide", "argument --scales: '[1,wide]' must be a list of numbers"),
        ("--kind bark", "invalid choice: 'bark'"),
        ("--derived 4", "unrecognized arguments"),
    ],
)
def test_what_cannot_be_is_refused(capsys, words, said):
    assert said in refused(capsys, *words.split())


def test_help_has_default_unit_and_choices(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    made = argparse.ArgumentParser()
    options.add(made, Sample, height="taller than I")
    text = made.format_help()
    assert "100 % sure, see --last-year (at least 1; default: 1900)" in text
    assert "when it fell (default: it stands)\n" in text
    assert "in meters (above 0; default: taller than I)" in text
    assert "several (at least 0; default: 0.5,1)" in text
    assert "its name (default: oak)" in text
    assert "{leaf,needle}" in text


def test_one_field_alone():
    made = argparse.ArgumentParser()
    options.add(made, Sample, "height")
    assert {action.dest for action in made._actions} == {"help", "height"}


@pytest.mark.parametrize(
    "command, configs",
    [("train", (ModelConfig, TrainingConfig)), ("train-segmentation", (SegmentationConfig, SegmentationTraining))],
)
def test_every_field_of_a_training_is_an_option(command, configs):
    args = parser().parse_args([command, "--data", "minivoc"])
    for config in configs:
        for field in fields(config):
            if "help" in field.metadata:
                of_eq_10 = command == "train-segmentation" and field.name == "loss_over_classes"
                assert (options.flag(field.name) in args.flags) is not of_eq_10


def test_messages_name_the_commands_own_options():
    flags = {"--batch-size", "--crop"}
    assert options.with_flags("lower `batch_size` or `crop`", flags) == "lower --batch-size or --crop"
    assert options.with_flags("`crop`: no column `crop`", flags) == "--crop: no column `crop`"
    assert options.with_flags("lower `jobs`; start `dask scheduler`", flags) == "lower jobs; start dask scheduler"


def test_words():
    assert options.words("cat, person,") == ["cat", "person"]
