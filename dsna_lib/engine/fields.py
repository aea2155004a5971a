"""Options of configurations: what each is, which values it may have, and how a text or a TOML value becomes one.

A :func:`configuration` is a frozen dataclass whose fields are made by :func:`option`. The command line makes its
options of them, recipes are read into them, their texts describe the class, and what cannot be is refused: everything
is said once.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from inspect import cleandoc
from types import NoneType
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

from dsna_lib.engine.errors import SettingError

T = TypeVar("T")
types_of = get_type_hints  # of each field of a dataclass


def option(default: Any, text: str, low: float | None = None, high: float | None = None, ends: bool = True) -> Any:
    """A field of a configuration. A ``Literal`` type names the choices.

    Args:
        default: its value unless told otherwise; None for one that follows from something else, as `text` says.
        text: what it is, with its unit.
        low, high: the range of a number, or of each of several.
        ends: whether the range includes its ends.
    """
    return dataclasses.field(default=default, metadata={"help": text, "low": low, "high": high, "ends": ends})


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def configuration(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass that describes its options in its docstring, and checks them when it is made.

    A class with a ``__post_init__`` of its own calls :func:`check` there.
    """
    made: Any = cls
    if not hasattr(made, "__post_init__"):
        made.__post_init__ = check
    made = dataclasses.dataclass(frozen=True)(made)
    # Python 3.13 takes the indent of docstrings away by itself.
    kinds, lines = types_of(made), [cleandoc(made.__doc__ or ""), "", "Attributes:"]
    for field in dataclasses.fields(made):
        if "help" in field.metadata:
            told = [field.metadata["help"], limits(field.metadata), _or(choices(kinds[field.name]))]
            lines.append(f"    {field.name}: {'; '.join(filter(None, told))}.")
    made.__doc__ = "\n".join(lines)
    return made


def choices(kind: Any) -> tuple[str, ...]:
    """The words that a ``Literal`` allows; none for another type.

    Example:
        >>> choices(Literal["mean", "sum"])
        ('mean', 'sum')
    """
    return get_args(kind) if get_origin(kind) is Literal else ()


def limits(metadata: Mapping[str, Any]) -> str:
    """The range of an option in words, such as ``from 0 to 1``; empty where it has none."""
    low, high, ends = metadata.get("low"), metadata.get("high"), metadata.get("ends")
    if low is not None and high is not None:
        return f"from {_told(low)} to {_told(high)}" if ends else f"between {_told(low)} and {_told(high)}"
    if low is not None:
        return f"{'at least' if ends else 'above'} {_told(low)}"
    return "" if high is None else f"{'at most' if ends else 'below'} {_told(high)}"


def _told(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def check(config: Any) -> None:
    """Refuse a configuration with a value of another type or outside its range.

    Lists become tuples and whole numbers decimal ones, where the type says so: a run must not depend on how a value
    was written.

    Raises:
        SettingError: the first such value.
    """
    kinds = types_of(type(config))
    for field in dataclasses.fields(config):
        if "help" in field.metadata:
            value = checked(getattr(config, field.name), kinds[field.name], field.metadata, field.name)
            object.__setattr__(config, field.name, value)


def checked(value: Any, kind: Any, metadata: Mapping[str, Any], name: str) -> Any:
    """A value as its field's type; see :func:`check`. Where one may be left out, the text ``none`` does so."""
    wanted = _words(kind)
    if NoneType in get_args(kind):
        if value is None or value == "none":  # TOML has no word for it
            return None
        kind = get_args(kind)[0]
    if words := choices(kind):
        if value not in words:
            raise SettingError(f"{name}={value!r}: choose {_or(words)}{nearest(str(value), words)}")
        return value
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, list | tuple) or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            raise SettingError(f"{name}={value!r} must be {wanted}")
        return tuple(checked(each, inner[0], metadata, name) for each in value)
    # True and false are no numbers, and a whole number is a decimal one, too.
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, int | float if kind is float else kind):
        raise SettingError(f"{name}={value!r} must be {wanted}")
    if kind in (int, float) and not _within(value, metadata):
        finite = "" if abs(value) < math.inf else "a finite number "
        raise SettingError(f"{name}={_told(value)} must be {finite}{limits(metadata)}".rstrip())
    return float(value) if kind is float else value


def _within(value: float, metadata: Mapping[str, Any]) -> bool:
    """Whether a number is finite and in its range. Comparing serves whole numbers of any length; nan is nowhere."""
    low, high = metadata.get("low"), metadata.get("high")
    inside = (low is None or low <= value) and (high is None or value <= high) and abs(value) < math.inf
    return inside and (metadata.get("ends") or value not in (low, high))


def _words(kind: Any) -> str:
    """A type in words."""
    inner = get_args(kind)
    if NoneType in inner:
        return f"{_words(inner[0])} or left out"
    if get_origin(kind) is tuple:
        many = "a list of" if inner[-1] is Ellipsis else f"{len(inner)}"
        return f"{many} {_words(inner[0]).removeprefix('a ')}s"
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(kind) or _or(inner)


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest right name, to be put behind a message; empty where none is near.

    Example:
        >>> nearest("epoch", ["epochs", "seed"])
        "; did you mean 'epochs'?"
    """
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def parse(text: str) -> Any:
    """A value as it stands behind ``=`` in TOML; a word without quotes is a text.

    Example:
        >>> parse("[0.8, 1.25]"), parse("vgg16"), parse("3")
        ([0.8, 1.25], 'vgg16', 3)
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
