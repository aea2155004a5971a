"""The dense CRF's two backends on the book's four photographs: how long each takes, and whether they agree.

The photographs' merged pseudo-annotations, by the attention model that comes with the book, are refined by pydensecrf
and by PyTorch in turns, on one core. The processor's clock leaves out other programs.

    python benchmarks/crf_backends.py [--name crf_backends]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from dsna_lib import attention, checkpoints, crf
from dsna_lib.annotate import annotate_split
from dsna_lib.book import photos
from dsna_lib.data.pictures import read_image, read_mask
from dsna_lib.engine.files import write_atomically
from dsna_lib.engine.provenance import write_result
from dsna_lib.engine.runs import file_digest

BACKENDS = ("pydensecrf", "torch")


def annotated(size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each photograph, of a longer side of at most `size` pixels, and the probabilities that the CRF starts from."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = photos.free(folder)
        for record in pictures.records:
            small = Image.fromarray(photos.reduced(read_image(record.image), size))
            write_atomically(record.image, partial(small.save, format="PNG"))
        model = attention.load(checkpoints.ATTENTION, pictures.class_names)
        annotate_split(model, pictures, folder).raise_failures("annotated")
        for record in pictures.records:
            annotation = read_mask(Path(folder) / "merged" / f"{record.id}.png")
            likely = crf.class_probabilities(annotation, record.labels, pictures.num_classes)
            yield read_image(record.image), likely


def measure(size: int, rounds: int) -> dict[str, Any]:
    """Median seconds a photograph and their ratio; pixels with another label, and how far marginals are apart."""
    crf.require("pydensecrf")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    same, apart = [], []
    try:
        for image, likely in annotated(size):
            for _ in range(rounds):
                made = []
                for backend, took in seconds.items():
                    start = time.process_time()
                    made.append(crf.marginals(image, likely, "sec", backend))
                    took.append(time.process_time() - start)
            same.append(made[0].argmax(axis=0) == made[1].argmax(axis=0))
            apart.append(np.abs(made[0] - made[1]).max())
    finally:
        torch.set_num_threads(threads)
    theirs, ours = (statistics.median(seconds[backend]) for backend in BACKENDS)
    return {
        "pydensecrf_seconds": round(theirs, 3),
        "torch_seconds": round(ours, 3),
        "ratio": round(ours / theirs, 1),
        "pixels": sum(each.size for each in same),
        "other_labels": sum(int((~each).sum()) for each in same),
        "largest_difference": float(f"{max(apart):.1g}"),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--size", type=int, default=500, help="longer side of the photographs in pixels, at most")
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    values = measure(args.size, args.rounds)
    for name, value in values.items():
        print(name, value)
    if args.name:
        how = {"script": "benchmarks/crf_backends.py", "arguments": vars(args)}
        write_result(args.name, values, how | {"model": file_digest(checkpoints.ATTENTION)})


if __name__ == "__main__":
    main()
