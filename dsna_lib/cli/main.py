"""``dsna``: runs a command, tells its errors, and makes its result an exit code.

A command takes the parsed arguments, prints for people, and returns a dict: ``done`` (how many), ``failed`` (name to
reason), ``warnings`` and whatever it has to say. :func:`main` names what failed, and prints the dict with ``--json``.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Any, NoReturn, cast

from dsna_lib import __version__
from dsna_lib.cli import options
from dsna_lib.cli.commands import COMMANDS
from dsna_lib.cli.streams import Escaping, Outlet, escaped
from dsna_lib.engine.devices import is_main_process
from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.files import plain

# The error or one that it inherits from; by their names, for some of their modules import torch.
WRONG_USAGE = {"UsageError", "SettingError", "RecipeError", "MethodError", "TableError", "ChapterError"}
UNKNOWN_SPLIT = " split '"  # whatever a data set is made of, it refuses one in these words
LOWER = ("--batch-size", "--crop", "--size", "--scales", "--workers", "--jobs", "--max-side")  # where memory runs out


class UsageError(ValueError):
    """The command was asked for something that does not exist or does not go together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command by its words, None for the program's own, and return the exit code; ``dsna --help`` lists them.

    Example:
        >>> main(["data", "make", "--out", "minivoc"])  # doctest: +SKIP
        0
    """
    out, err = Outlet(sys.stdout or io.StringIO()), Outlet(sys.stderr or io.StringIO())  # None where closed before
    with redirect_stdout(cast(Any, out)), redirect_stderr(cast(Any, err)):
        code = _main(argv)
        out.flush()
        if out.error and not isinstance(out.error, BrokenPipeError):
            print(f"dsna: error: cannot write to stdout: {out.error.strerror or out.error}", file=err)
            code = 3 if code < 2 else code
        err.flush()
    return 141 if code == 0 and out.error else code  # as a shell says it of a program that such a pipe ended


def _main(argv: Sequence[str] | None) -> int:
    try:
        args = parser().parse_args(argv)
        return _report(args, _run(args))
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("dsna: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


class Parser(argparse.ArgumentParser):
    """One whose messages show control characters that it was given."""

    def error(self, message: str) -> NoReturn:
        """End the program with a message."""
        super().error(escaped(message))


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    text = "Decoupled spatial neural attention: from pictures with image labels to pseudo-annotations."
    whole = Parser("dsna", description=text, epilog=options.EXIT_CODES, formatter_class=options.Help)
    whole.add_argument("--version", action="version", version=f"dsna-book {__version__}")
    options.add_commands(whole, COMMANDS)
    return whole


def _run(args: argparse.Namespace) -> dict[str, Any]:
    """What the command returns. One process of several prints, and on stderr where stdout is for JSON."""
    try:
        out = (sys.stderr if args.json else sys.stdout) if is_main_process() else io.StringIO()
        with redirect_stdout(cast(Any, Escaping(out))):
            return getattr(import_module(f"dsna_lib.cli.{args.module}"), args.function)(args)
    except Exception as error:
        if args.debug or os.environ.get("DSNA_DEBUG"):
            traceback.print_exc()
        wrong = any(kind.__name__ in WRONG_USAGE for kind in type(error).__mro__) or UNKNOWN_SPLIT in str(error)
        return {"error": sentence(error, args), "code": 2 if wrong else 3}


def _report(args: argparse.Namespace, result: dict[str, Any]) -> int:
    """Say what failed and what to mind, print the JSON, and return the exit code."""
    failed, code = result.get("failed", {}), result.pop("code", 0)
    if failed and not code:
        code = 1 if result["done"] else 3
    if _speaks():
        said = [f"{name}: {reason}".replace("\n", "\\n") for name, reason in failed.items()]
        said += [f"warning: {warning}" for warning in result.get("warnings", ())]
        said += [f"error: {result['error']}"] if "error" in result else []
        for line in said:
            print(f"{args.prog}: {escaped(line)}", file=sys.stderr)
        if args.json:
            print(json.dumps(plain(result), allow_nan=False))
    return code


def warn(args: argparse.Namespace, warnings: Sequence[str]) -> None:
    """Say what to mind before long work; a command that returns it as well has it said again in the end."""
    if _speaks():
        for warning in warnings:
            print(f"{args.prog}: warning: {escaped(warning)}", file=sys.stderr, flush=True)


def _speaks() -> bool:
    """Whether this is the process that prints; one that cannot know has that to say."""
    try:
        return is_main_process()
    except DsnaError:
        return True


def sentence(error: Exception, args: argparse.Namespace) -> str:
    """What an error means to somebody who did not write the code, in terms of the command's options."""
    text = str(error)
    if "Traceback (most recent call last)" in text:  # sent by a process that reads pictures; its last line is the error
        text = text.strip().splitlines()[-1].partition(": ")[2]
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        helpful = [name for name in LOWER if name in args.flags]
        return "out of memory" + (f": lower {' or '.join(helpful)}" if helpful else "")
    if isinstance(error, DsnaError | ImportError):
        return options.with_flags(text, args.flags)
    if isinstance(error, OSError | ValueError | RuntimeError):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text} (--debug shows where it happened)"


@contextmanager
def noted(args: argparse.Namespace, result: dict[str, Any], name: str) -> Iterator[None]:
    """Note whether this one of several was done or failed, so that others follow; a full disk ends the command."""
    try:
        yield
        result["done"] += 1
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        result["failed"][name] = sentence(error, args)
