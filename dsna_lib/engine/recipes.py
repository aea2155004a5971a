"""Recipes: configurations as TOML files that a person reads in a minute.

A recipe is read into a dataclass whose fields are values (:func:`dsna_lib.engine.fields.option`), other dataclasses
(a TOML table) or dicts of dataclasses (tables by names of their own). What the file leaves out keeps its default.
"""

from __future__ import annotations

import dataclasses
import reprlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from dsna_lib.engine import fields
from dsna_lib.engine.errors import DsnaError, SettingError
from dsna_lib.engine.files import refuse_special

T = TypeVar("T")


class RecipeError(DsnaError, ValueError):
    """A recipe that cannot be read; the message names the file and the key."""


def load(path: str | Path, kind: type[T], changes: Sequence[str] = ()) -> T:
    """Read a recipe.

    Args:
        path: a TOML file.
        kind: the dataclass that it fills.
        changes: replacements such as ``"training.epochs=3"``, with a value as in TOML.

    Raises:
        RecipeError: no such file or no TOML, an unknown key, a value of another type or out of range; the message
            names the file, the key and the nearest right name.

    Example:
        >>> load("recipes/drawn.toml", Recipe, ["seeds=1"]).seeds  # doctest: +SKIP
        1
    """
    refuse_special(path, RecipeError)
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        for change in changes:
            _change(content, change)
        return _filled(kind, content, "")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such recipe") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: is no TOML file ({error})") from None
    except SettingError as error:
        raise RecipeError(f"{path}: {error}") from None
    except RecipeError:
        raise
    except (ValueError, RecursionError) as error:  # Python's own, about what is TOML, and beyond its limits
        hint = "shorten the number or the nested list that is so long"
        raise RecipeError(f"{path}: holds what cannot be read ({error})", hint) from None


def _change(content: dict[str, Any], change: str) -> None:
    name, sign, text = change.partition("=")
    *tables, key = name.strip().split(".")
    if not sign or not key:
        raise RecipeError(f"{change!r} changes nothing", "write KEY=VALUE, such as training.epochs=3")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise RecipeError(f"{change!r}: {table} is a value, not a table")
    try:
        content[key] = fields.parse(text.strip())
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{reprlib.repr(change)} holds what cannot be read ({error})", "shorten it") from None


def _filled(kind: Any, content: Any, where: str) -> Any:
    """A dataclass of a TOML table; `where` is the table's name with a dot behind it."""
    if not isinstance(content, dict):
        raise SettingError(f"{where.removesuffix('.')} must be a table of settings, not {content!r}")
    # What follows from the data, such as the names of classes, is no option and stands in no recipe.
    known = {f.name: f for f in dataclasses.fields(kind) if f.metadata or f.default_factory is not dataclasses.MISSING}
    kinds, values = fields.types_of(kind), {}
    for name, value in content.items():
        if name not in known:
            there = fields.nearest(name, known) or f"; there is {', '.join(known)}"
            raise SettingError(f"unknown key {where}{name}{there}")
        if dataclasses.is_dataclass(kinds[name]):
            values[name] = _filled(kinds[name], value, f"{where}{name}.")
        elif get_origin(kinds[name]) is dict:
            if not isinstance(value, dict):
                raise SettingError(f"{where}{name} must be a table of tables, not {value!r}")
            each = get_args(kinds[name])[1]
            values[name] = {key: _filled(each, below, f"{where}{name}.{key}.") for key, below in value.items()}
        else:
            values[name] = fields.checked(value, kinds[name], known[name].metadata, f"{where}{name}")
    try:
        return kind(**values)
    except SettingError as error:  # a rule between several fields
        raise SettingError(f"{where}{error}") from None
