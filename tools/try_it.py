"""What the page *Try it* shows beside its text: networks, what runs them in a browser, and photographs.

``make book`` calls this. Where something cannot be had, the folder stays away, and with it the page's interactive part.

Example:
    python tools/try_it.py _build/source/book/_static/try_it
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image

from dsna_lib import checkpoints
from dsna_lib.book import figures, photos
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.config.photos import SEGMENTED_SIDE, SHIPPED_SCALES, SHOWN
from dsna_lib.data.pictures import palette, read_image
from dsna_lib.engine.files import write_atomically
from dsna_lib.export import export

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "_build" / "npm"
PUBLIC = "https://registry.npmjs.org/"
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
# As the registry states it: npm view onnxruntime-web@VERSION dist.integrity
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
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


class NotToBeHadError(Exception):
    """A part that is neither here nor can be fetched; the message says how to get it."""


def registry() -> str:
    """The registry that npm is told to use here, or the public one."""
    npm = shutil.which("npm")
    if npm is None:
        said = os.environ.get("NPM_CONFIG_REGISTRY", "")
    else:
        said = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True).stdout.strip()
    return f"{said.rstrip('/')}/" if said.startswith(("http://", "https://")) else PUBLIC


def package(cache: Path = CACHE) -> bytes:
    """The runtime's package, from the cache or the registry; one with another checksum is refused."""
    name = f"{PACKAGE}-{VERSION}.tgz"
    kept, address = cache / name, f"{registry()}{PACKAGE}/-/{name}"
    source, hint = kept if kept.exists() else address, f"put what `npm pack {PACKAGE}@{VERSION}` fetches into {cache}"
    try:
        content = kept.read_bytes() if source == kept else urllib.request.urlopen(address, timeout=60).read()
    except (OSError, ValueError) as error:
        raise NotToBeHadError(f"{source} cannot be read ({error}); {hint}") from error
    if f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}" != INTEGRITY:
        kept.unlink(missing_ok=True)  # so that the next call fetches it
        raise NotToBeHadError(f"{source} has another checksum than {PACKAGE} {VERSION}; {hint}")
    if source == address:
        write_atomically(kept, lambda file: file.write(content))
    return content


def write_runtimes(folder: Path) -> dict[str, Any]:
    """Scripts and binaries of :data:`RUNTIMES`; returns for each their names and how many bytes are to be loaded."""
    about = {}
    with tarfile.open(fileobj=io.BytesIO(package())) as archive:
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
        "colors": palette()[: len(attention["class_names"]) + 1].tolist(),
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
