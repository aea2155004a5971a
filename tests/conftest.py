"""What all tests share: one thread per worker, figures without a screen, and the built site."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

# Before torch is imported: several workers with all threads each would fight over the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_finish():
    """What all modules brought along stays: each training collects garbage, and would look through it every time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """Extension modules that count what they leave behind find it gone."""
    gc.unfreeze()


@pytest.fixture(scope="module")
def one_thread():
    """Torch on one thread, in what a module's fixtures train, too: with more, sums of floats may differ."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def without_pydensecrf(monkeypatch):
    """As where it is not installed."""
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)


@pytest.fixture(scope="session")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site. Strict: an unresolved reference or any other warning fails the build."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all workers: the first one builds, the others wait for it
    folder, built = shared / "site", shared / "site.built"
    with FileLock(shared / "site.lock"):
        if not built.exists():
            command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT, "--path-output", folder]
            command += ["-n", "-W", "--keep-going"]
            build = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            said = [line for line in build.stdout.splitlines() if "WARNING" in line or "ERROR" in line]
            assert build.returncode == 0, "\n".join(said) or build.stdout[-4000:]
            built.touch()
    return folder / "_build" / "html"
