"""Signals become one exception, which cannot get lost, and do not concern processes that were forked."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import os, signal, sys, time
from dsna_lib.engine import signals
known = signals.Signals(KeyboardInterrupt)
known.install("SIGINT", "SIGTERM", "SIGNONE")
def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)
"""
ONCE = """
try:
    send()
except KeyboardInterrupt:
    send(), send()  # some send it twice
    print(known.received == signal.SIGTERM)
signals.PATIENCE = 0.0
send()
"""
DROPPED = """
class Dropping:
    def __del__(self):
        send()
try:
    Dropping()
    time.sleep(20)
except KeyboardInterrupt:
    print(known.received == signal.SIGTERM)
    os._exit(143)
"""
FORKED = """
for number in (signal.SIGINT, signal.SIGTERM):
    if not (child := os.fork()):
        send(number)
        os._exit(7)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(143)
"""


@pytest.mark.parametrize("code, said", [(ONCE, "True\n"), (DROPPED, "True\n"), (FORKED, "7\n143\n")])
def test_signals(code, said):
    done = subprocess.run([sys.executable, "-uc", START + code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, said, "")
