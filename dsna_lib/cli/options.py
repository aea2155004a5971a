"""Options out of fields of configurations, with help, choices, range and default: nothing is said twice."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields as fields_of
from types import NoneType
from typing import Any, get_args, get_origin

from dsna_lib.engine import fields
from dsna_lib.engine.errors import SettingError

EXIT_CODES = """exit codes:
  0    all done
  1    some pictures failed (each is named on stderr), all others are done
  2    wrong usage: an unknown option, class, split, kind, row or key of a recipe, a value out of range, or options that
       do not go together
  3    a problem with the input or the machine: a missing or damaged file, a full disk, no GPU, no pydensecrf,
       not enough memory, a diverged training, or every picture failed; one sentence on stderr says what to do
  129  left by its terminal; run the same command again to go on
  130  interrupted with Ctrl-C; run the same command again to go on
  141  all done, but who reads stdout left before its end
  143  terminated (SIGTERM); run the same command again to go on

environment variables:
  DSNA_DEBUG    set to anything: show the traceback of an error, like --debug
  DSNA_RUNS     folder of trained models (default: runs)
  DSNA_CACHE    folder of data sets drawn on first use (default: the user's cache)
  DSNA_WEIGHTS  folder of ImageNet weight files
"""

DRAWN = "drawn"  # the recipe of the tables where none is named

Group = argparse.ArgumentParser | argparse._ArgumentGroup
# A function that adds a command's options: its name is the command's, its docstring the help. And the module of this
# package whose function of that name runs the command; None where it has commands of its own.
Commands = Mapping[Callable[[argparse.ArgumentParser], None], str | None]


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows every default but None, which the help text puts into words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        untold = action.default is None or action.default is False
        return action.help if untold else super()._get_help_string(action)


def add_commands(parser: argparse.ArgumentParser, commands: Commands, dest: str = "command") -> None:
    """Add commands to the program, or to one of its commands."""
    group = parser.add_subparsers(dest=dest, required=True, metavar=dest.upper())
    for fill, module in commands.items():
        text = (fill.__doc__ or "").rstrip(".")
        text = text[0].lower() + text[1:]
        name = fill.__name__.replace("_", "-")
        inner = group.add_parser(name, help=text, description=text, epilog=EXIT_CODES, formatter_class=Help)
        if module is not None:
            inner.add_argument("--json", action="store_true", help="print one JSON object on stdout, and nothing else")
            inner.add_argument("--debug", action="store_true", help="show the traceback of an error")
        fill(inner)
        if module is not None:
            inner.set_defaults(module=module, function=fill.__name__)
            inner.set_defaults(prog=inner.prog, flags=frozenset(inner._option_string_actions))


def add(group: Group, config: type, *names: str, **said: Any) -> None:
    """Add options for fields of a configuration. One that is not given is absent from the parsed arguments.

    Args:
        group: where to.
        config: its class, a :func:`dsna_lib.engine.fields.configuration`.
        names: which of its fields; none for all.
        said: the default to be told instead of the field's own.
    """
    kinds, quick = fields.types_of(config), getattr(config, "QUICK", {})
    flags = {flag(field.name) for field in fields_of(config)}
    for field in fields_of(config):
        if "help" in field.metadata and field.name in (names or kinds):
            usual = said.get(field.name, field.default)
            text = with_flags(field.metadata["help"], flags).replace("%", "%%")
            if usual is not None and usual is not False:
                told = ",".join(f"{number:g}" for number in usual) if isinstance(usual, tuple) else usual
                short = f"; with --quick: {quick[field.name]}" if field.name in quick else ""
                limits = fields.limits(field.metadata)
                text += f" ({limits}{'; ' if limits else ''}default: {told}{short})"
            form = _form(kinds[field.name], field.metadata)
            group.add_argument(flag(field.name), default=argparse.SUPPRESS, help=text, **form)


def given(args: argparse.Namespace, config: type) -> dict[str, Any]:
    """The fields of a configuration that were given as options."""
    return {field.name: getattr(args, field.name) for field in fields_of(config) if field.name in args}


def flag(name: str) -> str:
    """The option of a field."""
    return f"--{name.replace('_', '-')}"


def with_flags(text: str, flags: Collection[str]) -> str:
    """A message of the library, in which names between backticks are arguments, in terms of a command's options.

    Example:
        >>> with_flags("lower `batch_size` or `jobs`", {"--batch-size"})
        'lower --batch-size or jobs'
    """
    # A column of a table, which a message may name as well, is none.
    return re.sub("(?<!column )`([^`]*)`", lambda name: flag(name[1]) if flag(name[1]) in flags else name[1], text)


def _form(kind: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """How argparse reads a field. Lists have no brackets there."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    if choices := fields.choices(kind):
        return {"choices": choices}
    inner = get_args(kind)[0] if NoneType in get_args(kind) else kind
    several = get_origin(inner) is tuple

    def read(text: str) -> Any:
        raw = text if inner is str else fields.parse(f"[{text}]" if several else text)
        try:
            return fields.checked(raw, kind, metadata, "value")
        except SettingError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("value=")) from None

    return {"type": read} | ({} if inner is str else {"metavar": "N,..." if several else "N"})


def at_least(low: int) -> dict[str, Any]:
    """How argparse reads a whole number."""
    return _form(int, {"low": low, "ends": True})


def words(text: str) -> list[str]:
    """An argparse type: words separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]
