"""What ends a program from outside, and how it then ends: it leaves its work as by an exception, and tidies up."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from threading import Timer
from typing import Any, NoReturn

ENDING = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "left by its terminal"}
PATIENCE = 2.0  # seconds within which a signal that comes again is the same one: some send it twice


class Signals:
    """Lets signals raise an exception in the main thread, once.

    Processes that this one forks do not mind Ctrl-C, which a terminal sends to all of them, for the one that forked
    them ends them; other signals end them at once.

    Args:
        error: what is raised.
        at_once: is called with the number instead, while ``working`` is not set: exceptions do not come out of
            every import, nor of the end of a program.

    Attributes:
        working: whether there is work to leave.
        received: the number of the signal; None as long as there was none.
    """

    def __init__(self, error: type[BaseException], at_once: Callable[[int], object] | None = None) -> None:
        self.error, self.at_once, self.working = error, at_once, at_once is None
        self.received: int | None = None
        self._owner, self._since = os.getpid(), 0.0

    def install(self, *names: str) -> None:
        """Take over these signals, where they are known and not ignored, as under nohup."""
        for name in names:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._act)
        sys.unraisablehook = self._unraisable

    def _act(self, number: int, frame: object) -> None:
        if os.getpid() != self._owner:
            if number != signal.SIGINT:
                os._exit(128 + number)
        elif self.received is None:
            self.received, self._since = number, time.monotonic()
            if self.at_once is not None and not self.working:
                self.at_once(number)
            raise self.error
        elif time.monotonic() - self._since > PATIENCE:  # tidying up takes too long
            os._exit(128 + number)

    def _unraisable(self, raised: Any) -> None:
        """Where exceptions are dropped, as in a finalizer, the signal comes again a moment later."""
        number = self.received
        if number is None or not isinstance(raised.exc_value, self.error):
            sys.__unraisablehook__(raised)
        else:
            self.received = None
            again = Timer(0.01, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()


def leave(code: int) -> NoReturn:
    """End this process at once, and before it those that it has started by multiprocessing."""
    if started := getattr(sys.modules.get("multiprocessing"), "active_children", None):
        for child in started():
            child.kill()
    os._exit(code)
