"""What tests of commands share: a small VOC, model files, a folder of their own, and `run`."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import SIZE
from PIL import Image

from dsna_lib import attention
from dsna_lib.cli.main import main
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.data import read_mask, voc, write_mask
from dsna_lib.data.pictures import palette
from dsna_lib.engine import pools
from dsna_lib.engine.pools import Workers
from dsna_lib.segmentation import networks


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    """A model of the 20 VOC classes with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.pth"
    attention.save(attention.create(attention.ModelConfig(voc.CLASS_NAMES, weights=None)), path)
    return path


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    """Four pictures with masks in the VOC layout."""
    root = tmp_path_factory.mktemp("data") / "VOC2012"
    generator = np.random.default_rng(0)
    labels = {"one": ["cat"], "two": ["dog", "person"], "three": ["cat", "dog"], "four": ["person"]}
    for i, names in labels.items():
        mask = np.zeros((40, 56), np.uint8)
        for place, name in enumerate(names):
            mask[8:30, 4 + 24 * place : 24 + 24 * place] = voc.CLASS_NAMES.index(name) + 1
        mask[30] = 255
        write_mask(root / f"SegmentationClass/{i}.png", mask)
        noise = generator.integers(0, 60, (40, 56, 3))
        picture = Image.fromarray(np.uint8(palette()[mask] // 2 + noise))
        (root / "JPEGImages").mkdir(exist_ok=True)
        picture.save(root / f"JPEGImages/{i}.jpg")
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split in ("train", "val"):
        (lists / f"{split}.txt").write_text("\n".join(labels) + "\n")
    (root / "image_labels.json").write_text(json.dumps(labels))
    return root


@pytest.fixture
def root(original, tmp_path) -> Path:
    """A copy of the data set to damage."""
    return Path(shutil.copytree(original, tmp_path / "VOC2012"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Default output folders land in the test's own folder; no debugging, no other process."""
    monkeypatch.chdir(tmp_path)
    for name in ("DSNA_DEBUG", "DSNA_RUNS", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys):
    """Run a command in this process; returns its exit code, stdout and stderr, which never hold a traceback."""

    def call(*words, traceback: bool = False):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert ("Traceback" in err) is traceback, err
        assert "Traceback" not in out
        return code, out, err

    return call


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Path:
    """A segmentation network of the 20 VOC classes with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("network") / "model.pth"
    config = SegmentationConfig(voc.CLASS_NAMES, channels=8, dilation=1, weights=None)
    networks.save(networks.create(config), path)
    return path


@pytest.fixture
def annotations(root, tmp_path) -> Path:
    """The true masks, as if somebody had annotated."""
    folder = tmp_path / "annotations"
    for path in (root / "SegmentationClass").iterdir():
        write_mask(folder / path.name, read_mask(path))
    return folder


@pytest.fixture
def annotate(run, model_file):
    def call(*words, **options):
        return run("annotate", *words, "--model", model_file, *SIZE, **options)

    return call


@pytest.fixture
def on_voc(run, model_file):
    def call(command, root, *words):
        return run(command, "--data", "voc", "--root", root, "--model", model_file, *SIZE, *words)

    return call


@pytest.fixture
def executor(monkeypatch) -> list[Workers]:
    """Shares of one picture each, sent as if to another process, and done in this one; the workers that were asked."""
    asked: list[Workers] = []

    def completed(units, work, workers):
        asked.append(workers)
        for unit in units:
            yield unit, pools.result_or_error(*pickle.loads(pickle.dumps((unit, work))))

    monkeypatch.setattr(pools, "SHARE", 1)
    monkeypatch.setattr(pools, "completed", completed)
    return asked
