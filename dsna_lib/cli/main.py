"""``dsna``: runs a command, tells its errors, and makes its result an exit code.

A command takes the parsed arguments, prints for people, and returns a dict: ``done`` (how many), ``failed`` (name to
reason), ``warnings`` and whatever it has to say. :func:`main` names what failed, and prints the dict with ``--json``.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import io
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, NoReturn, cast

# Of this package, here only what is there at once: what comes later can be interrupted with a word.
from dsna_lib import __version__
from dsna_lib.cli.streams import Escaping, Outlet, escaped
from dsna_lib.engine.devices import is_main_process
from dsna_lib.engine.errors import DsnaError
from dsna_lib.engine.signals import ENDING, Signals, leave

# The error or one that it inherits from; by their names, for some of their modules import torch.
WRONG_USAGE = {"UsageError", "SettingError", "RecipeError", "MethodError", "TableError", "ChapterError"}
UNKNOWN_SPLIT = " split '"  # whatever a data set is made of, it refuses one in these words
LONGEST = 50  # characters of a folder's name: sockets lie in it, whose paths may have about 100
LOWER = ("--batch-size", "--crop", "--size", "--scales", "--workers", "--jobs", "--max-side")  # where memory runs out


class UsageError(ValueError):
    """The command was asked for something that does not exist or does not go together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command by its words, None for the program's own, and return the exit code; ``dsna --help`` lists them.

    Example:
        >>> main(["data", "make", "--out", "minivoc"])  # doctest: +SKIP
        0
    """
    if argv is not None:  # called by a program with signals and temporary files of its own
        return _speaking(argv, Signals(KeyboardInterrupt))
    temporary: list[str] = []

    def tidy_up() -> None:
        for folder in temporary:
            shutil.rmtree(folder, ignore_errors=True)

    def stop(number: int) -> NoReturn:
        os.write(2, f"{_stopped(number)}\n".encode())
        tidy_up()
        leave(128 + number)

    signals = Signals(KeyboardInterrupt, stop)
    signals.install(*ENDING)
    atexit.register(tidy_up)  # as the last: others register later
    with suppress(OSError):  # one folder for all temporary files, of other processes, too; a full disk has none
        if len(tempfile.gettempdir()) < LONGEST:
            temporary.append(tempfile.mkdtemp(prefix="dsna-"))
            tempfile.tempdir = os.environ["TMPDIR"] = temporary[0]
    code = _speaking(None, signals)
    if signals.received is not None:  # whoever still runs was told to end, and nobody has anything to say
        tidy_up()
        leave(code)
    return code


def _speaking(argv: Sequence[str] | None, signals: Signals) -> int:
    """Run a command whose words cannot be stopped by who reads them."""
    out, err = Outlet(sys.stdout or io.StringIO()), Outlet(sys.stderr or io.StringIO())  # None where closed before
    with redirect_stdout(cast(Any, out)), redirect_stderr(cast(Any, err)):
        code = _main(argv, signals)
        out.flush()
        if out.error and not isinstance(out.error, BrokenPipeError):
            print(f"dsna: error: cannot write to stdout: {out.error.strerror or out.error}", file=err)
            code = 3 if code < 2 else code
        err.flush()
    return 141 if code == 0 and out.error else code  # as a shell says it of a program that such a pipe ended


def _main(argv: Sequence[str] | None, signals: Signals) -> int:
    try:
        args = parser().parse_args(argv)
        return _report(args, _run(args, signals))
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    except KeyboardInterrupt:
        number = signals.received or signal.SIGINT
        if _speaks():
            print(_stopped(number), file=sys.stderr)
        return 128 + number


def _stopped(number: int) -> str:
    return f"dsna: {ENDING[signal.Signals(number).name]}; run the same command again to go on"


class Parser(argparse.ArgumentParser):
    """One whose messages show control characters that it was given."""

    def error(self, message: str) -> NoReturn:
        """End the program with a message."""
        super().error(escaped(message))


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    from dsna_lib.cli import options
    from dsna_lib.cli.commands import COMMANDS

    text = "Decoupled spatial neural attention: from pictures with image labels to pseudo-annotations."
    whole = Parser("dsna", description=text, epilog=options.EXIT_CODES, formatter_class=options.Help)
    whole.add_argument("--version", action="version", version=f"dsna-book {__version__}")
    options.add_commands(whole, COMMANDS)
    return whole


def _run(args: argparse.Namespace, signals: Signals) -> dict[str, Any]:
    """What the command returns. One process of several prints, and on stderr where stdout is for JSON."""
    from importlib import import_module

    try:
        out = (sys.stderr if args.json else sys.stdout) if is_main_process() else io.StringIO()
        with redirect_stdout(cast(Any, Escaping(out))):
            command = getattr(import_module(f"dsna_lib.cli.{args.module}"), args.function)
            signals.working = True
            try:
                return command(args)
            finally:
                signals.working = signals.at_once is None  # what is left are words
    except Exception as error:
        if signals.received is not None:  # what the signal has made of others' work, or they of it
            raise KeyboardInterrupt from None
        if args.debug or os.environ.get("DSNA_DEBUG"):
            import traceback

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
            import json

            from dsna_lib.engine.files import plain

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
        from dsna_lib.cli import options

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
