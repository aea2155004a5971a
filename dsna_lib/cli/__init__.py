"""The command line, thin over the library: ``dsna train``, ``annotate``, ``segment`` and what goes with them.

:mod:`dsna_lib.cli.commands` has the list of commands and their options, without torch; other modules run them.
"""

from dsna_lib.cli.main import main

__all__ = ["main"]
