"""What all tests share: one thread per worker, and figures without a screen."""

import os

# Before torch is imported: several workers with all threads each would fight over the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
