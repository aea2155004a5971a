"""One family of errors: what went wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence


class DsnaError(Exception):
    """Something that whoever called can mend: one sentence that names the file or the value, and a `hint` what to do.

    Both put arguments between backticks; the command line shows them as its flags.

    Example:
        >>> str(DsnaError("rate=2 must be at most 1", "lower `rate`"))
        'rate=2 must be at most 1; lower `rate`'
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.hint = hint


class SettingError(DsnaError, ValueError):
    """A number or word of a configuration or recipe that cannot be; the message names it, and what there is."""


class FileError(DsnaError, ValueError):
    """A file that does not hold what it should; the message names it and says why."""


class RunError(DsnaError, RuntimeError):
    """A folder of a run that cannot be used for this one, or units of work that failed."""


def first_few(names: Sequence[str], shown: int = 3, separator: str = ", ") -> str:
    """The first of many names, and how many more there are, for a message.

    Example:
        >>> first_few(["a", "b", "c", "d"])
        'a, b, c and 1 more'
    """
    return separator.join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
