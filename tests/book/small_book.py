"""Two small chapters, for tests of what runs chapters and takes figures out of them."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from dsna_lib.book.exhibits import Exhibit

PARAMETERS = """\
profile: str = "cpu"  # cpu, colab or full
seed: int = 0
rate: float = 0.5
flip: bool = False
rates: list = []
voc_root: str = ""  # a folder
results: str = ""
"""
PLOT = """\
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(1, 1))
"""
TABLE = """\
from pathlib import Path

from IPython.display import Markdown, display

lines = [f"**Rates of {Path.cwd().name}.**", "", "| rate | IoU |", "| --- | ---: |", f"| {rate} | {seed} ± 0.5 |"]
display(Markdown("\\n".join(lines)))
print("rates", rates)
"""


def tagged(source: str, *tags: str, **metadata: object) -> nbformat.NotebookNode:
    return new_code_cell(source, metadata={"tags": list(tags), **metadata})


def small_chapter() -> nbformat.NotebookNode:
    """A chapter with a figure, a table and a cell that fails on request."""
    cells = [
        new_markdown_cell("# A chapter"),
        tagged(PARAMETERS, "parameters"),
        new_code_cell('if seed == 13:\n    raise ValueError("seed 13 brings bad luck: choose another one")'),
        tagged(PLOT, "figure-5", mystnb={"image": {"alt": "An empty pair of axes"}}),
        tagged(TABLE, "table-II", "table-IV", "nbval-ignore-output"),
        tagged("quiet = 1", "table-III"),
    ]
    return new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )


EXHIBITS = (
    Exhibit("figure-5", "06_small", "axes"),
    Exhibit("table-II", "06_small", "rates"),
    Exhibit("table-III", "06_small", "nothing"),
    Exhibit("table-IV", "08_other", "rates once more"),
)


def edit(notebook: Path, cell: int, source: str) -> None:
    content = nbformat.read(notebook, as_version=4)
    content.cells[cell].source = source
    nbformat.write(content, notebook)
