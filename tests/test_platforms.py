"""The library where Python lacks what only Unix has, as on Windows."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import tiny

from dsna_lib import maps, training
from dsna_lib.config.training import Crops, TrainingConfig
from dsna_lib.segmentation import inference

PACKAGE = Path(__file__).resolve().parents[1] / "dsna_lib"
MODULES = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in sorted(PACKAGE.rglob("*.py"))]

# What others import first may use all of it; what we import and do afterwards may not.
WITHOUT = """
import importlib, os, signal, sys
from pathlib import Path
import accelerate, distributed, filelock, ipywidgets, papermill, pandas, scipy.stats, skimage, timm, torchvision
import torch.utils.data, matplotlib.pyplot, multiprocessing.pool, concurrent.futures.process, tarfile, zipfile

for module, names in {
    os: "sched_getaffinity sched_setaffinity fork forkpty killpg setsid getpgid getuid geteuid getgid uname mkfifo",
    signal: "SIGKILL SIGHUP SIGALRM SIGPIPE SIGUSR1 SIGQUIT SIGCHLD setitimer alarm pthread_sigmask sigwait",
}.items():
    for name in names.split():
        delattr(module, name)
for name in ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "syslog"):
    sys.modules[name] = None
"""
IMPORTS = """
for name in sys.argv[1:]:
    if not name.endswith("__main__"):
        importlib.import_module(name)
from dsna_lib.book import chapters
from dsna_lib.engine.devices import core_count
assert core_count() > 0
assert chapters._note_memory(Path("none.ipynb")) == ""
"""
COMMAND = """
from dsna_lib.cli.main import main
sys.argv = ["dsna", "data", "make", "--out", "drawn", "--train", "2", "--val", "1", "--size", "48"]
sys.exit(main())
"""


def ended(code: str, folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-c", WITHOUT + code, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_is_imported(tmp_path):
    assert "dsna_lib.engine.signals" in MODULES
    ended(IMPORTS, tmp_path, *(name.removesuffix(".__init__") for name in MODULES))


def test_a_command_runs(tmp_path):
    assert "drawn" in ended(COMMAND, tmp_path)
    assert len(list((tmp_path / "drawn" / "JPEGImages").iterdir())) == 3


@pytest.mark.parametrize("crops", get_args(Crops))
def test_processes_that_start_anew_can_be_sent_the_pictures(tmp_path, crops):
    """As on Windows and macOS; elsewhere they inherit them."""
    pictures, config = tiny.pictures(tmp_path, 2, masks=True), replace(TrainingConfig(crop=16), crops=crops)
    augmented = pictures.with_transform(training.augmentation(config), seed=1, masks=True)
    arrived = pickle.loads(pickle.dumps(augmented))
    assert all((arrived[1][name] == augmented[1][name]).all() for name in ("image", "labels", "mask"))
    assert pickle.loads(pickle.dumps(maps._Reader(pictures, [16], True)))[1]["images"][0].shape == (3, 16, 16)
    assert pickle.loads(pickle.dumps(inference._Images(pictures)))[1][1].shape == (3, 21, 26)
