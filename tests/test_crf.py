"""Eq. 12-13 against NumPy, what the dense CRF does to a picture, and whole folders on several processes."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy_reference as reference
import pytest
import torch
from PIL import Image
from tiny import needs_pydensecrf

from dsna_lib import crf
from dsna_lib.crf import CRFParams, choose_backend, class_probabilities, marginals, refine, refine_split
from dsna_lib.data import Pictures, Record, read_image, read_mask, write_mask
from dsna_lib.engine import pools
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.pools import PoolError, Workers


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tau", [0.51, 0.7, 0.99])
def test_probabilities_are_eq_12_and_13(seed, tau):
    rng = np.random.default_rng(seed)
    labels = sorted(rng.choice(6, size=1 + seed % 3, replace=False).tolist())
    annotation = rng.choice([0, 255, *(k + 1 for k in labels)], size=(5, 7)).astype(np.uint8)
    got = class_probabilities(annotation, labels, 6, tau)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, reference.class_probabilities(annotation, labels, 6, tau), atol=1e-7)
    np.testing.assert_allclose(got.sum(axis=0), 1, atol=1e-6)


def test_probabilities_by_hand():
    got = class_probabilities(np.array([[0, 2, 255]], np.uint8), [1, 2], num_classes=3, tau=0.6)
    np.testing.assert_allclose(
        got[:, 0].T, [[0.6, 0, 0.2, 0.2], [0.2, 0, 0.6, 0.2], [1 / 3, 0, 1 / 3, 1 / 3]], rtol=1e-6
    )


def test_one_label_counts_the_background():
    got = class_probabilities(np.array([[1, 255]], np.uint8), [0], num_classes=1)
    np.testing.assert_allclose(got[:, 0].T, [[0.3, 0.7], [0.5, 0.5]], rtol=1e-6)


@pytest.mark.parametrize("tau", [0.5, 1.0, 0.0, -1.0, 2.0, float("nan")])
def test_tau_out_of_range(tau):
    with pytest.raises(ValueError, match=f"tau={tau} must lie between 0.5 and 1"):
        class_probabilities(np.zeros((2, 2), np.uint8), [0], 1, tau)


@pytest.mark.parametrize("labels", [[], [3], [-1]])
def test_bad_labels(labels):
    with pytest.raises(ValueError, match="must name at least one of the 3 classes"):
        class_probabilities(np.zeros((2, 2), np.uint8), labels, 3)


def test_an_annotation_of_a_class_that_is_not_present():
    with pytest.raises(ValueError, match="holds 2, which is neither background, void, nor one of the labels"):
        class_probabilities(np.array([[0, 2]], np.uint8), [0], 3)


# The dense CRF

BACKENDS = ["torch", pytest.param("pydensecrf", marks=needs_pydensecrf)]


def scene(height: int = 40, width: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A bright object on the right of a dark ground, and its true mask."""
    rng = np.random.default_rng(0)
    truth = np.zeros((height, width), np.uint8)
    truth[8:32, 20:44] = 1
    return (rng.integers(20, 40, (height, width, 3)) + 180 * truth[..., None]).astype(np.uint8), truth


def coarse(truth: np.ndarray) -> np.ndarray:
    """What a small attention map leaves: a core of the object, some far background, void between, and an error."""
    annotation = np.full_like(truth, 255)
    annotation[14:26, 26:36] = 1
    annotation[:, :10] = 0
    annotation[:4] = 0
    annotation[12:16, 14:18] = 1  # outside the object
    return annotation


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("params", ["sec", "segmentation", "deeplab", CRFParams(iterations=5)])
def test_refining_follows_the_edges(params, backend):
    image, truth = scene()
    refined = refine(image, class_probabilities(coarse(truth), [0], 1), params, backend)
    assert refined.dtype == np.uint8
    assert refined.shape == truth.shape
    assert (refined == truth).mean() > 0.99


@pytest.mark.parametrize("backend", BACKENDS)
def test_refining_returns_present_classes_only_and_is_deterministic(backend):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 41, 3), dtype=np.uint8)
    annotation = rng.choice([0, 4, 8, 255], size=(30, 41)).astype(np.uint8)
    probabilities = class_probabilities(annotation, [3, 7], 20)
    refined = refine(image, probabilities, backend=backend)
    assert set(np.unique(refined)) == {0, 4, 8}
    for _ in range(3):
        np.testing.assert_array_equal(refine(image, probabilities, backend=backend), refined)


@pytest.mark.parametrize("backend", BACKENDS)
def test_refining_leaves_its_input_alone(backend):
    image, truth = scene()
    probabilities = class_probabilities(coarse(truth), [0], 1)
    before = image.copy(), probabilities.copy()
    refine(image, probabilities, backend=backend)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(probabilities, before[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_refining_the_smallest_pictures(shape, backend):
    annotation = np.ones(shape, np.uint8)
    refined = refine(np.zeros((*shape, 3), np.uint8), class_probabilities(annotation, [0], 1), backend=backend)
    np.testing.assert_array_equal(refined, annotation)


@pytest.mark.parametrize("backend", BACKENDS)
def test_refining_takes_pictures_and_probabilities_of_any_memory_order(backend):
    image, truth = scene()
    probabilities = class_probabilities(coarse(truth), [0], 1)
    turned = refine(image.transpose(1, 0, 2), probabilities.transpose(0, 2, 1), backend=backend)
    assert (turned == truth.T).mean() > 0.99


def test_one_possible_class_needs_no_crf():
    probabilities = np.zeros((3, 4, 5), np.float32)
    probabilities[2] = 1
    assert (refine(np.zeros((4, 5, 3), np.uint8), probabilities) == 2).all()
    assert (refine(np.zeros((4, 5, 3), np.uint8), probabilities * 0) == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_marginals_are_probabilities_and_their_maximum_is_the_refined_mask(backend):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (30, 41, 3), dtype=np.uint8)
    annotation = rng.choice([0, 4, 8, 255], size=(30, 41)).astype(np.uint8)
    probabilities = class_probabilities(annotation, [3, 7], 20)
    likely = marginals(image, probabilities, backend=backend)
    assert likely.dtype == np.float32
    assert likely.shape == (21, 30, 41)
    np.testing.assert_allclose(likely.sum(axis=0), 1, atol=1e-5)
    assert np.flatnonzero(likely.any(axis=(1, 2))).tolist() == [0, 4, 8]
    np.testing.assert_array_equal(likely.argmax(axis=0), refine(image, probabilities, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_marginals_without_pairwise_terms_are_the_probabilities(backend):
    image, truth = scene()
    probabilities = class_probabilities(coarse(truth), [0], 1)
    likely = marginals(image, probabilities, CRFParams(smooth_weight=0, bilateral_weight=0), backend)
    np.testing.assert_allclose(likely, probabilities, atol=1e-6)


def test_marginals_of_one_possible_class_or_none():
    probabilities = np.zeros((3, 4, 5), np.float32)
    image = np.zeros((4, 5, 3), np.uint8)
    assert not marginals(image, probabilities).any()
    probabilities[2, 1] = 0.5
    np.testing.assert_array_equal(marginals(image, probabilities), np.eye(3)[2][:, None, None] * np.ones((4, 5)))


def test_refining_refuses_what_is_not_the_raw_picture():
    image, truth = scene()
    probabilities = class_probabilities(truth, [0], 1)
    for wrong in (image - image.mean(), image.astype(np.float32) / 255, image[..., 0], image[..., :2]):
        with pytest.raises(ValueError, match=r"the CRF wants the raw \(H, W, 3\) uint8 picture"):
            refine(wrong, probabilities)
    with pytest.raises(ValueError, match=r"the picture is \(39, 48\) and the probabilities \(40, 48\)"):
        refine(image[1:], probabilities)


def test_presets():
    assert crf.preset("sec") == CRFParams(3, 3, 80, 13, 10, 10)
    assert crf.preset("segmentation") == CRFParams(3, 2, 55, 3, 4, 10)
    own = CRFParams(iterations=1)
    assert crf.preset(own) is own
    with pytest.raises(ValueError, match="unknown CRF preset 'best': choose one of sec, segmentation, deeplab"):
        crf.preset("best")


@pytest.mark.parametrize("backend", BACKENDS)
def test_refining_takes_a_picture_that_cannot_be_written_to(backend):
    image, truth = scene()
    probabilities = class_probabilities(coarse(truth), [0], 1)
    expected = refine(image, probabilities, backend=backend)
    image.flags.writeable = False
    np.testing.assert_array_equal(refine(image, probabilities, backend=backend), expected)


@needs_pydensecrf
def test_both_backends_refine_alike():
    image, truth = scene()
    probabilities = class_probabilities(coarse(truth), [0], 1)
    one, other = (marginals(image, probabilities, backend=backend) for backend in ("torch", "pydensecrf"))
    assert (one != other).any()  # two of them
    np.testing.assert_allclose(one, other, atol=1e-4)


@needs_pydensecrf
def test_pydensecrf_is_for_the_cpu():
    chosen = {device: choose_backend("auto", device) for device in ("cpu", "cuda:0", "mps")}
    assert chosen == {"cpu": "pydensecrf", "cuda:0": "torch", "mps": "pydensecrf"}  # the CPU works for Apple's GPU, too
    assert choose_backend("torch") == "torch"
    assert choose_backend("pydensecrf", "cuda") == "pydensecrf"


def test_an_unknown_backend(tmp_path):
    image, truth = scene()
    with pytest.raises(SettingError, match="backend='pytorch': choose auto, pydensecrf or torch; did you mean 'torch'"):
        refine(image, class_probabilities(truth, [0], 1), backend="pytorch")
    with pytest.raises(SettingError, match="backend='pytorch'"):
        refine_split(Pictures([], ("object",)), tmp_path, tmp_path, backend="pytorch")


def test_for_apples_gpu_the_cpu_refines(monkeypatch):
    image, truth = scene()
    places = []
    monkeypatch.setattr(
        crf.mean_field, "marginals", lambda image, unary, params, device: places.append(device) or unary
    )
    for device in ("cpu", "cuda:0", "mps", torch.device("mps")):
        refine(image, class_probabilities(coarse(truth), [0], 1), backend="torch", device=device)
    assert places == ["cpu", "cuda:0", "cpu", "cpu"]


def test_without_pydensecrf_torch_refines(without_pydensecrf):
    image, truth = scene()
    probabilities = class_probabilities(coarse(truth), [0], 1)
    assert choose_backend() == "torch"
    np.testing.assert_array_equal(refine(image, probabilities), refine(image, probabilities, backend="torch"))


def test_without_pydensecrf_who_names_it_is_told(without_pydensecrf, tmp_path):
    image, truth = scene()
    with pytest.raises(ImportError, match="not installed: `pip install pydensecrf2`.*`crf_backend` torch"):
        refine(image, class_probabilities(truth, [0], 1), backend="pydensecrf")
    with pytest.raises(ImportError, match="pydensecrf is not installed"):
        refine_split(Pictures([], ("object",)), tmp_path, tmp_path, backend="pydensecrf")


# Folders


@pytest.fixture
def folder(tmp_path) -> tuple[Pictures, Path]:
    """Five pictures with coarse annotations."""
    records = []
    for k in range(5):
        image, truth = scene(40 + k, 48)
        path = tmp_path / f"p{k}.png"
        Image.fromarray(image).save(path)
        write_mask(tmp_path / "coarse" / f"p{k}.png", coarse(truth))
        records.append(Record(f"p{k}", path, (0,)))
    return Pictures(records, ("object",)), tmp_path / "coarse"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_two_processes_write_what_one_writes_in_order(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "SHARE", 2)
    pictures, annotations = folder
    (annotations / "p1.png").unlink()
    pictures.records[3].image.write_bytes(b"")
    reports = [refine_split(pictures, annotations, tmp_path / f"out{n}", workers=Workers(n)) for n in (1, 2)]
    assert reports[0] == reports[1]
    assert reports[0].written == ["p0", "p2", "p4"]
    assert list(reports[0].failed) == ["p1", "p3"]
    assert "p1.png: no such mask" in reports[0].failed["p1"]
    assert "p3.png: cannot be read as a picture" in reports[0].failed["p3"]
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")
    expected = refine(
        read_image(pictures.records[0].image), class_probabilities(read_mask(annotations / "p0.png"), [0], 1)
    )
    np.testing.assert_array_equal(read_mask(tmp_path / "out1" / "p0.png"), expected)


def test_what_is_there_is_skipped(folder, tmp_path):
    pictures, annotations = folder
    write_mask(tmp_path / "out" / "p2.png", np.full((3, 3), 7))
    report = refine_split(pictures, annotations, tmp_path / "out", params="segmentation")
    assert report.skipped == ["p2"]
    assert report.written == ["p0", "p1", "p3", "p4"]
    assert read_mask(tmp_path / "out" / "p2.png").tolist() == [[7] * 3] * 3


def test_a_picture_without_labels_stays_background(folder, tmp_path):
    pictures, annotations = folder
    object.__setattr__(pictures.records[1], "labels", ())
    write_mask(annotations / "p1.png", np.full((41, 48), 255))
    assert refine_split(pictures, annotations, tmp_path / "out").failed == {}
    assert [read_mask(tmp_path / "out" / f"p{k}.png").any() for k in range(3)] == [True, False, True]


def test_bad_annotations_and_a_full_disk_are_reported_by_name(folder, tmp_path, monkeypatch):
    pictures, annotations = folder
    write_mask(annotations / "p0.png", np.zeros((4, 6)))
    write_mask(annotations / "p1.png", np.full((41, 48), 9))

    def full(path, mask):
        raise OSError(28, f"cannot write {path}: No space left on device")

    monkeypatch.setattr(crf, "write_mask", full)
    report = refine_split(pictures, annotations, tmp_path / "out")
    assert report.written == []
    assert "p0.png: the mask is 6 x 4, its picture 48 x 40" in report.failed["p0"]
    assert "p1.png: the annotation holds 9" in report.failed["p1"]
    assert "p2.png: No space left on device" in report.failed["p2"]


def test_a_picture_that_the_camera_turned(tmp_path):
    """Stored on its side with an EXIF note, it is refined upright, in the annotation's frame."""
    image, truth = scene()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    stored = Image.fromarray(np.rot90(image).copy())
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    write_mask(tmp_path / "coarse" / "turned.png", coarse(truth))
    pictures = Pictures([Record("turned", tmp_path / "turned.jpg", (0,))], ("object",))
    assert refine_split(pictures, tmp_path / "coarse", tmp_path / "out").failed == {}
    assert (read_mask(tmp_path / "out" / "turned.png") == truth).mean() > 0.99


class Deadly:
    """A path that kills the process which opens it, as the kernel does when memory runs out."""

    def __fspath__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def test_a_worker_that_dies_is_reported_and_the_others_are_done(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "SHARE", 2)
    pictures, annotations = folder
    dying = pictures.with_records([replace(pictures.records[0], image=Deadly()), *pictures.records[1:]])
    with pytest.raises(PoolError, match=r"its process died \(out of memory\?\); use fewer `jobs`"):
        refine_split(dying, annotations, tmp_path / "out", workers=Workers(2))
    assert sorted(contents(tmp_path / "out")) == ["p2.png", "p3.png", "p4.png"]
    report = refine_split(pictures, annotations, tmp_path / "out")
    assert (report.written, report.skipped) == (["p0", "p1"], ["p2", "p3", "p4"])


def test_an_unknown_preset_is_refused_before_any_picture_is_read(folder, tmp_path):
    with pytest.raises(SettingError, match="unknown CRF preset 'best'"):
        refine_split(*folder, tmp_path / "out", params="best")
    assert not (tmp_path / "out").exists()
