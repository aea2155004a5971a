"""What the page *Try it* shows beside its text: networks, what runs them in a browser, and photographs.

``make book`` calls this. Where something cannot be had, the folder stays away, and with it the page's interactive part.

Example:
    python tools/try_it.py _build/source/book/_static/try_it
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
from npm_package import NotToBeHadError, Package, fetch
from PIL import Image

from dsna_lib import checkpoints
from dsna_lib.book import figures, photos
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.photos import SEGMENTED_SIDE, SHIPPED_SCALES, SHOWN
from dsna_lib.data.pictures import read_image
from dsna_lib.export import export

RUNTIME = Package(
    "onnxruntime-web",
    "1.30.0",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)
# One script and one binary each; the first computes on the CPU, the second on a GPU, where a browser lets it.
RUNTIMES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
}
PHOTOGRAPHS = {
    "cat": "Cat",
    "astronaut": "Astronaut",
    "grace_hopper": "Grace Hopper",
    "motorcycle": "Motorcycle",
}


def write_runtimes(folder: Path) -> dict[str, Any]:
    """Scripts and binaries of :data:`RUNTIMES`; returns for each their names and how many bytes are to be loaded."""
    about = {}
    with tarfile.open(fileobj=io.BytesIO(fetch(RUNTIME))) as archive:
        for kind, names in RUNTIMES.items():
            contents = [archive.extractfile(f"package/dist/{name}").read() for name in names]
            for name, content in zip(names, contents, strict=True):
                (folder / name).write_bytes(content)
            about[kind] = {"script": names[0], "binary": names[1], "bytes": sum(map(len, contents))}
    return about


def write_photographs(folder: Path) -> list[dict[str, str]]:
    """The book's free photographs at the size at which networks see them; returns file, name and label of each."""
    with tempfile.TemporaryDirectory() as original:
        pictures = photos.free(original)
        about = []
        for record in sorted(pictures.records, key=lambda record: list(PHOTOGRAPHS).index(record.id)):
            image = photos.reduced(read_image(record.image), SEGMENTED_SIDE)
            Image.fromarray(image).save(folder / f"{record.id}.jpg", quality=90, subsampling=0)
            label = pictures.class_names[record.labels[0]]
            about.append({"file": f"{record.id}.jpg", "name": PHOTOGRAPHS[record.id], "label": label})
    return about


def make(folder: Path) -> None:
    """Write everything into a folder, and into its ``parts.json`` what the page must know of it."""
    parts: dict[str, Any] = {"runtimes": write_runtimes(folder), "photographs": write_photographs(folder)}
    attention = export(checkpoints.ATTENTION, folder, SHOWN.size, checkpoints.LICENSE)
    segmentation = export(checkpoints.SEGMENTATION, folder, terms=checkpoints.LICENSE)
    colors = matplotlib.colormaps[figures.COLORMAP](range(256), bytes=True)[:, :3]
    parts |= {
        "attention": attention | {"scales": SHOWN.scales, "flip": SHOWN.flip, "size": SHOWN.size},
        "segmentation": segmentation | {"scales": SHIPPED_SCALES, "stride": segmentation["input"]["stride"]},
        "side": SEGMENTED_SIDE,
        "thresholds": [AnnotationConfig.foreground_threshold, AnnotationConfig.background_threshold],
        "colors": figures.COLORS[: len(attention["class_names"]) + 1].tolist(),
        "heat": colors.tolist(),
        "strength": figures.STRENGTH,
    }
    (folder / "parts.json").write_text(json.dumps(parts))


def main(words: list[str] | None = None) -> None:
    """Make the folder that is named, anew, or say why not."""
    folder = Path((words or sys.argv[1:])[0])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        make(folder)
    except (NotToBeHadError, ImportError) as error:
        shutil.rmtree(folder)
        print(f"Try it is left out of the site: {error}")


if __name__ == "__main__":
    main()
