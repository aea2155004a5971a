"""What a field of a configuration may be, told by code, by a recipe or on the command line."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace
from inspect import getdoc
from typing import Any, Literal

import pytest

from dsna_lib.engine.errors import DsnaError, SettingError
from dsna_lib.engine.fields import check, checked, choices, configuration, limits, nearest, option, parse, types_of
from dsna_lib.engine.recipes import load

Word = Literal["mean", "sum"]


@configuration
class Config:
    """All kinds of fields."""

    count: int = option(3, "how many", low=1, high=9)
    rate: float = option(0.5, "rate", low=0, high=1)
    trust: float = option(0.7, "trust", low=0.5, high=1, ends=False)
    below: float = option(-1.0, "below", high=0, ends=False)
    most: int = option(0, "at most", high=5)
    any_number: float = option(0.0, "any")
    on: bool = option(False, "on or off")
    name: str = option("a", "name")
    word: Word = option("mean", "a choice")
    word_or_none: Word | None = option(None, "a choice, or none")
    limit: int | None = option(None, "limit", low=1)
    file: str | None = option("x", "file")
    pair: tuple[float, float] = option((1.0, 1.5), "range", low=0, ends=False)
    several: tuple[float, ...] = option((1.0,), "several", low=0)
    names: tuple[str, ...] = option((), "names")
    sizes: tuple[int, ...] = option((), "sizes", low=1)
    untold: Any = ()


@configuration
class Narrow(Config):
    """A rule of its own.

    It is about two fields.
    """

    rate: float = option(0.1, "slower", low=0)
    kind: Word = option("sum", "how `rate` counts")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate > self.count:
            raise SettingError("rate must not exceed count")


RIGHT = [
    ("count", 1, 1),
    ("count", 9, 9),
    ("rate", 0, 0.0),
    ("rate", 1, 1.0),
    ("rate", 0.25, 0.25),
    ("trust", 0.500001, 0.500001),
    ("below", -1e300, -1e300),
    ("most", -(10**30), -(10**30)),
    ("any_number", -5, -5.0),
    ("on", True, True),
    ("name", "", ""),
    ("word", "sum", "sum"),
    ("word_or_none", "sum", "sum"),
    ("word_or_none", "none", None),
    ("limit", 1, 1),
    ("limit", "none", None),
    ("file", "y", "y"),
    ("file", "none", None),
    ("name", "none", "none"),
    ("pair", [1, 2], (1.0, 2.0)),
    ("several", [], ()),
    ("several", [0, 1.5], (0.0, 1.5)),
    ("names", ["a", "b"], ("a", "b")),
    ("sizes", [1, 2], (1, 2)),
]
WRONG = [
    ("count", 0, "count=0 must be from 1 to 9"),
    ("count", 10, "count=10 must be from 1 to 9"),
    ("count", 123456789, "count=123456789 must be from 1 to 9"),
    ("count", 2.0, "count=2.0 must be a whole number"),
    ("count", True, "count=True must be a whole number"),
    ("count", "3", "count='3' must be a whole number"),
    ("count", [3], "count=[3] must be a whole number"),
    ("rate", -0.1, "rate=-0.1 must be from 0 to 1"),
    ("rate", 1.0001, "rate=1.0001 must be from 0 to 1"),
    ("rate", math.nan, "rate=nan must be a finite number from 0 to 1"),
    ("rate", math.inf, "rate=inf must be a finite number from 0 to 1"),
    ("rate", False, "rate=False must be a number"),
    ("rate", "0.5", "rate='0.5' must be a number"),
    ("trust", 0.5, "trust=0.5 must be between 0.5 and 1"),
    ("trust", 1, "trust=1 must be between 0.5 and 1"),
    ("below", 0.0, "below=0 must be below 0"),
    ("below", -math.inf, "below=-inf must be a finite number below 0"),
    ("most", 6, "most=6 must be at most 5"),
    ("any_number", math.inf, "any_number=inf must be a finite number"),
    ("any_number", math.nan, "any_number=nan must be a finite number"),
    ("on", 1, "on=1 must be true or false"),
    ("on", "true", "on='true' must be true or false"),
    ("name", 3, "name=3 must be a text"),
    ("name", True, "name=True must be a text"),
    ("word", "sums", "word='sums': choose mean or sum; did you mean 'sum'?"),
    ("word", "other", "word='other': choose mean or sum"),
    ("word", 3, "word=3: choose mean or sum"),
    ("word", ["mean"], "word=['mean']: choose mean or sum; did you mean 'mean'?"),
    ("word_or_none", "summ", "word_or_none='summ': choose mean or sum; did you mean 'sum'?"),
    ("limit", 0, "limit=0 must be at least 1"),
    ("limit", 1.5, "limit=1.5 must be a whole number or left out"),
    ("limit", True, "limit=True must be a whole number or left out"),
    ("file", 3, "file=3 must be a text or left out"),
    ("several", "none", "several='none' must be a list of numbers"),
    ("pair", [1.0], "pair=[1.0] must be 2 numbers"),
    ("pair", [1.0, 2.0, 3.0], "pair=[1.0, 2.0, 3.0] must be 2 numbers"),
    ("pair", 1.0, "pair=1.0 must be 2 numbers"),
    ("pair", "ab", "pair='ab' must be 2 numbers"),
    ("pair", [1.0, 0], "pair=0 must be above 0"),
    ("pair", [1.0, "a"], "pair='a' must be a number"),
    ("several", 1.0, "several=1.0 must be a list of numbers"),
    ("several", [-1], "several=-1 must be at least 0"),
    ("several", [[1.0]], "several=[1.0] must be a number"),
    ("names", "abc", "names='abc' must be a list of texts"),
    ("names", ["a", 1], "names=1 must be a text"),
    ("sizes", [1.0], "sizes=1.0 must be a whole number"),
    ("sizes", [0], "sizes=0 must be at least 1"),
]


def toml(value: Any) -> str:
    """A value as it stands in a TOML file."""
    if isinstance(value, list):
        return f"[{', '.join(toml(inner) for inner in value)}]"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def from_recipe(tmp_path, name: str, value: Any) -> Config:
    (tmp_path / "recipe.toml").write_text(f"{name} = {toml(value)}\n")
    return load(tmp_path / "recipe.toml", Config)


@pytest.mark.parametrize("name, value, becomes", RIGHT)
def test_right_values_are_the_same_from_code_and_from_a_recipe(tmp_path, name, value, becomes):
    for config in (Config(**{name: value}), from_recipe(tmp_path, name, value), replace(Config(), **{name: value})):
        taken = getattr(config, name)
        assert taken == becomes
        assert type(taken) is type(becomes)
        if isinstance(becomes, tuple):
            assert [type(inner) for inner in taken] == [type(inner) for inner in becomes]
        assert hash(config) == hash(Config(**{name: becomes}))


@pytest.mark.parametrize("name, value, message", WRONG)
def test_wrong_values_are_refused_alike_by_code_and_by_a_recipe(tmp_path, name, value, message):
    with pytest.raises(SettingError) as from_code:
        Config(**{name: value})
    assert str(from_code.value) == message
    with pytest.raises(DsnaError) as from_file:
        from_recipe(tmp_path, name, value)
    assert str(from_file.value) == f"{tmp_path / 'recipe.toml'}: {message}"


@pytest.mark.parametrize("name", [field.name for field in fields(Config) if field.name not in ("untold", "file")])
def test_only_what_may_be_left_out_may_be_none(name):
    if name in ("limit", "word_or_none"):
        assert getattr(Config(**{name: None}), name) is None
        return
    with pytest.raises(SettingError, match=f"^{name}=None"):
        Config(**{name: None})


def test_none_instead_of_a_default():
    assert Config(file=None).file is None


def test_every_kind_of_field_is_in_both_lists():
    told = {field.name for field in fields(Config)} - {"untold"}
    assert {name for name, *_ in RIGHT} == {name for name, *_ in WRONG} == told


def test_a_field_that_is_no_option_is_nobodys_to_check():
    assert Config(untold={"any": "thing"}).untold == {"any": "thing"}


def test_a_configuration_is_changed_to_its_fields_types_and_no_more():
    config = Config(rate=1, pair=[1, 2])
    assert config == Config(rate=1.0, pair=(1.0, 2.0))
    check(config)
    assert config == Config(rate=1.0, pair=(1.0, 2.0))


def test_types_and_choices():
    assert types_of(Config)["word"] is Word
    assert types_of(Config)["limit"] == int | None
    assert choices(Word) == ("mean", "sum")
    assert choices(str) == choices(Word | None) == choices(tuple[str, ...]) == ()


def test_an_option_carries_its_help_and_range():
    (trust,) = (field for field in fields(Config) if field.name == "trust")
    assert dict(trust.metadata) == {"help": "trust", "low": 0.5, "high": 1, "ends": False}
    assert checked(0.6, float, trust.metadata, "trust") == 0.6


def test_a_configuration_is_frozen_and_checked_when_it_is_made():
    with pytest.raises(FrozenInstanceError):
        Config().count = 4
    with pytest.raises(SettingError, match="^count=0 must be from 1 to 9$"):
        Narrow(count=0)
    with pytest.raises(SettingError, match="^rate must not exceed count$"):
        Narrow(rate=4)
    assert Narrow(rate=3) == Narrow(rate=3.0)


def test_options_describe_their_configuration():
    assert getdoc(Config).startswith("All kinds of fields.\n\nAttributes:\n    count: how many; from 1 to 9.\n")
    assert "\n    on: on or off.\n" in getdoc(Config)
    assert "\n    pair: range; above 0.\n" in getdoc(Config)
    assert "untold" not in getdoc(Config)
    first, second, *lines = getdoc(Narrow).partition("\n\nAttributes:\n")[2].splitlines()
    assert (first, second) == ("    count: how many; from 1 to 9.", "    rate: slower; at least 0.")
    assert lines[-1] == "    kind: how `rate` counts; mean or sum."
    assert getdoc(Narrow).startswith("A rule of its own.\n\nIt is about two fields.\n\nAttributes:\n")


@pytest.mark.parametrize(
    "low, high, with_ends, without",
    [
        (0, 1, "from 0 to 1", "between 0 and 1"),
        (0.5, None, "at least 0.5", "above 0.5"),
        (None, 1e-3, "at most 0.001", "below 0.001"),
        (0, 2**32 - 1, "from 0 to 4294967295", "between 0 and 4294967295"),
        (None, None, "", ""),
    ],
)
def test_a_range_in_words(low, high, with_ends, without):
    for ends, text in ((True, with_ends), (False, without)):
        assert limits(option(0, "a number", low, high, ends).metadata) == text


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", 3),
        ("3.0", 3.0),
        ("1e-3", 0.001),
        ("true", True),
        ("[0.8, 1.25]", [0.8, 1.25]),
        ('["a", "b"]', ["a", "b"]),
        ('"3"', "3"),
        ("vgg16", "vgg16"),
        ("imagenet", "imagenet"),
        ("weights/vgg.pth", "weights/vgg.pth"),
        ("[0.8", "[0.8"),
        ("True", "True"),
        ("", ""),
        ("a = 3", "a = 3"),
        ("3 4", "3 4"),
    ],
)
def test_a_text_is_read_as_in_toml_and_a_bare_word_is_a_text(text, value):
    read = parse(text)
    assert read == value
    assert type(read) is type(value)


def test_the_nearest_right_name():
    assert nearest("epoch", ["epochs", "seed"]) == "; did you mean 'epochs'?"
    assert nearest("zzz", {"epochs": 1}) == ""
    assert nearest("zzz", []) == ""
