"""Run one notebook into a fresh copy, with other parameters if asked.

Example:
    python tools/run_notebook.py notebooks/05_training.ipynb runs/05_training.ipynb -p epochs 20
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import papermill
import yaml

CELL_TIMEOUT = 900  # seconds; no cell of the CPU profile comes near it


def run(notebook: Path, output: Path, parameters: dict[str, object]) -> float:
    """Execute `notebook` from the current folder and write the executed copy to `output`.

    Args:
        notebook: the notebook; it stays as it is.
        output: where the copy goes. It appears only once every cell has run; a failed run leaves
            ``<name>.failed.ipynb`` beside it, with the error marked.
        parameters: values that replace those of the notebook's ``parameters`` cell.

    Returns:
        The seconds it took.

    Raises:
        SystemExit: no such notebook, a parameter that it does not have, or a cell that failed.
    """
    if not notebook.is_file():
        raise SystemExit(f"{notebook}: no such notebook")
    # papermill itself only warns about a name that nothing reads.
    known = set(papermill.inspect_notebook(notebook))
    if unknown := sorted(set(parameters) - known):
        raise SystemExit(f"{notebook} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_suffix(".failed.ipynb")
    start = time.monotonic()
    try:
        papermill.execute_notebook(
            notebook,
            partial,
            parameters,
            kernel_name="python3",
            cwd=".",
            execution_timeout=CELL_TIMEOUT,
            progress_bar=False,
        )
    except papermill.PapermillExecutionError as error:
        raise SystemExit(f"{notebook} failed: {error}\nThe copy up to there is {partial}") from None
    partial.replace(output)
    return time.monotonic() - start


def main() -> None:
    """Command line: notebook, output, and any number of ``-p name value``."""
    parser = argparse.ArgumentParser(description="Run one notebook into a fresh copy.")
    parser.add_argument("notebook", type=Path, help="the notebook to run; it stays as it is")
    parser.add_argument("output", type=Path, help="where the executed copy goes")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="replace a parameter"
    )
    arguments = parser.parse_args()
    parameters = {name: yaml.safe_load(value) for name, value in arguments.parameter}
    seconds = run(arguments.notebook, arguments.output, parameters)
    print(f"{arguments.notebook}: {seconds:.0f} s")


if __name__ == "__main__":
    main()
