"""What the tests of segmentation share: a trained network, and pictures of several sizes."""

from __future__ import annotations

import pytest
import samples
import tiny
import torch

from dsna_lib import backbones
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.segmentation.training import train_segmentation
from dsna_lib.training import read_log


@pytest.fixture(autouse=True, scope="module")
def alone(one_thread):
    """All tests here."""


@pytest.fixture
def split(tmp_path):
    return tiny.pictures(tmp_path / "data", masks=True)


@pytest.fixture
def tiny_backbones(monkeypatch):
    """Networks of the tiny backbone instead of a real one."""
    monkeypatch.setattr(backbones, "create", lambda name, stride, weights: tiny.backbone())


@pytest.fixture
def mixed(tmp_path):
    return samples.photos(tmp_path / "photos", *samples.MIXED)


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory):
    return tiny.vgg16_file(tmp_path_factory.mktemp("weights") / "vgg16.pth")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A network that has learned eight pictures, the pictures, and its log."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    pictures = tiny.pictures(folder / "data", masks=True)
    config = SegmentationTraining(
        epochs=60, drop_after=50, batch_size=4, backbone_rate=0.05, head_rate=0.2, crop=25, scales=(1.0, 1.2),
        workers=0, device="cpu", checkpoint_every=1000,
    )  # fmt: skip
    model = tiny.segmentation(dropout=0.0)
    train_segmentation(model, pictures, config, folder / "run")
    torch.set_num_threads(threads)
    return model, pictures, read_log(folder / "run")
