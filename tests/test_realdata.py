"""On PASCAL VOC pictures, where they are: in the folder that DSNA_VOC names, or beside this repository.

Expected are either the full data set or the subset that the results of this book were measured on.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import needs_pydensecrf

from dsna_lib import attention, crf, training
from dsna_lib.annotate import annotate_split, evaluate
from dsna_lib.attention import ModelConfig
from dsna_lib.data import Pictures, pictures, read_image, read_mask, voc
from dsna_lib.methods import cams
from dsna_lib.tables import measure
from dsna_lib.tables.measure import MapProtocol

BESIDE = Path(__file__).parents[2] / "shared" / "data" / "VOCdevkit"
SIZES = {"train": (665, 1464), "train_aug": (3398, 10582), "val": (500, 1449)}

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def root() -> Path:
    folder = Path(os.environ.get("DSNA_VOC") or BESIDE)
    if not folder.is_dir():
        pytest.skip("no real pictures: set DSNA_VOC to a VOC2012 folder to run this")
    return folder


@pytest.fixture(scope="module")
def val(root) -> Pictures:
    return voc.load(root, "val")


@pytest.mark.parametrize("split", SIZES)
def test_splits_are_whole(root, split):
    loaded = voc.load(root, split)
    assert len(loaded) in SIZES[split]
    assert loaded.class_names == voc.CLASS_NAMES
    assert all(record.labels for record in loaded.records)
    assert all(record.mask is not None for record in loaded.records)
    assert len({record.id for record in loaded.records}) == len(loaded)


def test_train_and_val_have_no_picture_in_common(root, val):
    learned = {record.id for record in voc.load(root, "train_aug").records}
    assert not learned & {record.id for record in val.records}


def test_labels_agree_with_masks(val):
    for record in val.records[:10]:
        image, mask = read_image(record.image), read_mask(record.mask)
        assert image.shape[:2] == mask.shape
        assert {c - 1 for c in np.unique(mask) if 0 < c < 255} <= set(record.labels)


def test_from_pictures_to_scores(tmp_path, root, val):
    """Two training steps of the heads, two validation pictures: nothing to measure, all of it to run."""
    torch.manual_seed(0)
    model = attention.create(ModelConfig(voc.CLASS_NAMES, train_last=0))
    config = training.TrainingConfig(epochs=1, batch_size=2, crop=96, workers=0, device="cpu")
    training.train_attention(model, pictures.subset(voc.load(root, "train"), 4), config, tmp_path / "run")
    assert all(np.isfinite(line["loss"]) for line in training.read_log(tmp_path / "run"))

    few = pictures.subset(val, 2)
    blind = pictures.without_masks(few)
    report = annotate_split(model, blind, tmp_path / "out", kinds=("expansive", "merged"))
    assert report.failed == {}
    assert len(report.written) == 2
    for kind in ("expansive", "merged"):
        matrix = evaluate(tmp_path / "out" / kind, few)
        assert 0 <= matrix.mean_iou <= 1
        assert matrix.counts.sum() == sum((read_mask(r.mask) != 255).sum() for r in few.records)
    report = crf.refine_split(blind, tmp_path / "out" / "merged", tmp_path / "refined")
    assert report.failed == {}
    assert 0 <= evaluate(tmp_path / "refined", few).mean_iou <= 1


@needs_pydensecrf
def test_backends_of_the_crf_agree_on_photographs(val):
    for record in val.records[:3]:
        image, mask = read_image(record.image), read_mask(record.mask)
        mask[::2] = 255
        probabilities = crf.class_probabilities(mask, record.labels, val.num_classes)
        ours, theirs = (crf.marginals(image, probabilities, backend=backend) for backend in ("torch", "pydensecrf"))
        assert (ours.argmax(axis=0) == theirs.argmax(axis=0)).mean() >= 0.995
        assert abs(ours - theirs).mean() < 1e-4


def test_explaining_methods_on_photographs(val):
    """An untrained classifier on a pretrained backbone: its maps mean nothing, but the protocol takes them all."""
    torch.manual_seed(0)
    model = attention.create(ModelConfig(voc.CLASS_NAMES, head="single_stream", dropout=0.0))
    few = pictures.subset(val, 2)
    measured = measure.measure(model, few, [MapProtocol(name) for name in cams.CAM_METHODS])
    known = [int((read_mask(record.mask) != 255).sum()) for record in few.records]
    assert len(measured.counts) == len(cams.CAM_METHODS)
    for protocol in measured.counts:
        assert measured.counts[protocol].sum(axis=(1, 2)).tolist() == known
        assert np.isfinite(measured.coverage[protocol][:, 2]).all()
    np.testing.assert_array_equal(measured.counts[MapProtocol("cam")], measured.counts[MapProtocol("grad_cam")])
