"""What a command prints, whatever becomes of its readers: work goes on, and no name of a file steers a terminal."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Any

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and the end of a line


def escaped(text: str) -> str:
    r"""A text whose control characters are shown, not obeyed.

    Example:
        >>> escaped("\x1b[31mred.jpg")
        '\\x1b[31mred.jpg'
    """
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Outlet:
    """A text stream that stays open: when its reader is gone, or its disk full, what is written to it is lost.

    What its encoding does not know is written as backslash escapes.

    Args:
        stream: the one beneath.

    Attributes:
        error: what ended the stream beneath, if anything did.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or lose it."""
        self._attempt(self._write, text)
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        self._attempt(self.stream.flush)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError as error:
            self.stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))

    def _attempt(self, act: Any, *given: str) -> None:
        if self.error is None:
            try:
                act(*given)
            except OSError as error:
                self.error = error
                # What is still in its buffer must go somewhere when the program ends.
                with suppress(OSError), open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class Escaping(Outlet):
    """An outlet that shows control characters."""

    def _write(self, text: str) -> None:
        super()._write(escaped(text))
