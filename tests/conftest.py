"""What all tests share: one thread per worker, figures without a screen, and where real pictures are."""

import os
from pathlib import Path

# Before torch is imported: several workers with all threads each would fight over the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest


@pytest.fixture(scope="session")
def voc_root() -> Path:
    """The folder named by DSNA_VOC (the one that holds JPEGImages); tests that use it carry the mark `realdata`."""
    folder = os.environ.get("DSNA_VOC")
    if not folder:
        pytest.skip("set DSNA_VOC to a VOC2012 folder to run this on real pictures")
    if not Path(folder, "JPEGImages").is_dir():
        pytest.fail(f"DSNA_VOC={folder} has no JPEGImages folder")
    return Path(folder)
