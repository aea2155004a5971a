"""Masks: probabilities at several scales, a CRF that follows edges, and folders that resume and are shared."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from samples import MIXED, batch_of, photos
from torch import Tensor, nn

from dsna_lib import crf
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.data import Record, read_image, read_mask
from dsna_lib.engine import pools
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.pools import ALONE, Workers
from dsna_lib.segmentation import inference
from dsna_lib.segmentation.inference import at_scales, probabilities, refined, segment_shares, segment_split
from dsna_lib.segmentation.networks import create, load, save

ALL = ("single", "multi", "crf")


def enlarge(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, corners on corners."""
    rows, columns = (np.linspace(0, n - 1, side) for n, side in zip(plane.shape, size, strict=True))
    wide = np.stack([np.interp(columns, np.arange(plane.shape[1]), line) for line in plane])
    return np.stack([np.interp(rows, np.arange(plane.shape[0]), line) for line in wide.T], axis=1)


def test_at_its_own_scale_a_picture_of_8k_plus_1_pixels_is_shown_as_it_is(trained):
    model, (picture,) = trained[0], batch_of((33, 41))
    with torch.inference_mode():
        logits = model(picture / 255)[0].numpy()
    scores = np.exp(np.stack([enlarge(plane, (33, 41)) for plane in logits]))
    got = probabilities(model, picture, (1.0,))
    np.testing.assert_allclose(got[0], scores / scores.sum(axis=0), atol=1e-5)
    assert len(got[0].argmax(dim=0).unique()) > 1


@pytest.mark.parametrize("size", [(33, 41), (20, 27), (3, 50), (1, 1)])
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_sum_to_one_at_full_size(trained, size, flip):
    got = probabilities(trained[0], torch.cat(batch_of(size, size)), flip=flip)
    assert (got.shape, got.dtype) == ((2, 4, *size), torch.float32)
    assert (got >= 0).all()
    torch.testing.assert_close(got.sum(dim=1), torch.ones(2, *size))


def test_every_scale_is_shown_with_8k_plus_1_pixels(trained):
    """0.7 x 20 = 14 is nearest to 17, 0.7 x 26 = 18.2 too; 26 is nearest to 25, 1.3 x 26 = 33.8 to 33."""
    with looking(trained[0]) as shown:
        probabilities(trained[0], batch_of((20, 26))[0], (0.7, 1.0, 1.3))
        probabilities(trained[0], batch_of((2, 5))[0], (0.5,))
    assert [shape[-2:] for shape in shown] == [(17, 17), (17, 25), (25, 33), (9, 9)]


def test_a_decoder_is_shown_16k_plus_1_pixels():
    model = create(SegmentationConfig(tiny.NAMES, decoder=True, channels=8, weights=None))
    with looking(model) as shown:
        probabilities(model, batch_of((40, 52))[0], (1.0,))
    assert [shape[-2:] for shape in shown] == [(33, 49)]


@contextmanager
def looking(model: nn.Module, stop_at: int | None = None) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of what a model is shown; the n-th call may be interrupted, as by a kill."""
    shapes = []

    def look(model: nn.Module, inputs: tuple[Tensor]) -> None:
        shapes.append(tuple(inputs[0].shape))
        if len(shapes) == stop_at:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(look)
    try:
        yield shapes
    finally:
        hook.remove()


def test_several_scales_are_averaged(trained):
    model, (picture,) = trained[0], batch_of((40, 52))
    each = at_scales(model, picture, (0.7, 1.3))
    assert not torch.allclose(each[0.7], each[1.3], atol=1e-2)
    assert torch.equal(each[0.7], probabilities(model, picture, (0.7,)))
    torch.testing.assert_close(probabilities(model, picture, (0.7, 1.3)), (each[0.7] + each[1.3]) / 2)


def test_a_mirrored_picture_gives_the_mirrored_result_with_flip(trained):
    model, (picture,) = trained[0], batch_of((33, 42))
    plain, both = (probabilities(model, picture, flip=flip) for flip in (False, True))
    mirrored, mirrored_both = (probabilities(model, picture.flip(-1), flip=flip).flip(-1) for flip in (False, True))
    torch.testing.assert_close(mirrored_both, both)
    torch.testing.assert_close((plain + mirrored) / 2, both)
    assert not torch.allclose(plain, mirrored, atol=1e-3)


def test_inference_is_deterministic_and_leaves_no_graph():
    model, (picture,) = tiny.segmentation(dropout=0.5), batch_of((33, 41))
    first = probabilities(model, picture)
    assert torch.equal(first, probabilities(model, picture))
    assert not first.requires_grad


def test_half_precision_is_close(trained):
    model, (picture,) = trained[0], batch_of((33, 41))
    full, half = (probabilities(model, picture, precision=precision) for precision in ("no", "bf16"))
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, atol=0.1, rtol=0)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_says_what_to_lower(monkeypatch, error):
    def full(*_):
        raise error

    model = tiny.segmentation()
    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(RuntimeError, match="2 pictures of 26 x 20; lower `batch_size`, `scales` or `max_side`"):
        probabilities(model, torch.cat(batch_of((20, 26), (20, 26))))


def test_other_errors_pass_as_they_are(monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes cannot be multiplied")

    model = tiny.segmentation()
    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(RuntimeError, match="^shapes cannot be multiplied$"):
        probabilities(model, batch_of((20, 26))[0])


# --- the CRF


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two colors that meet at column 24, a smooth belief of class 1 that is 4 columns off, and the truth."""
    rng, truth = np.random.default_rng(0), np.zeros((40, 48), np.uint8)
    truth[:, 24:] = 1
    image = np.where(truth[..., None] == 1, (200, 120, 50), (40, 60, 90)) + rng.integers(-1, 2, (40, 48, 3))
    belief = 1 / (1 + np.exp(-(np.arange(48) - 28) / 4)) * np.ones((40, 1))
    return image.astype(np.uint8), np.stack([1 - belief, belief]).astype(np.float32), truth


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_refining_follows_the_edge(kind):
    image, likely, truth = scene()
    assert (likely.argmax(axis=0) == truth).mean() < 0.95
    mask = refined(image, likely.astype(kind))
    assert mask.dtype == np.uint8
    assert (mask == truth).mean() > 0.99
    np.testing.assert_array_equal(mask, crf.refine(image, likely.astype(kind).astype(np.float32), "segmentation"))
    assert (refined(image, likely, crf.CRFParams(iterations=0)) != mask).any()


def test_classes_that_are_nowhere_plausible_take_no_part(monkeypatch):
    seen = []
    monkeypatch.setattr(crf, "refine", lambda image, likely, params, *where: seen.append((likely, params)))
    likely = np.zeros((4, 2, 3), np.float32)
    likely[0], likely[1, 0, 0], likely[2], likely[3, 1, 2] = 0.5, 0.06, 0.04, 0.9
    refined(np.zeros((2, 3, 3), np.uint8), likely.astype(np.float16), "deeplab")
    ((kept, params),) = seen
    assert params == "deeplab"
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept[[0, 1, 3]], likely[[0, 1, 3]], atol=1e-3)
    assert (kept[2] == 0).all()


# --- whole splits


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def as_batch(record: Record) -> Tensor:
    return torch.from_numpy(read_image(record.image)).permute(2, 0, 1)[None]


def test_kinds(trained, mixed, tmp_path):
    """`single` is at the middle one of the scales."""
    model, scales = trained[0], (1.3, 0.7, 1.0)
    report = segment_split(model, mixed, tmp_path / "out", ALL, scales)
    assert report.written == [f"p{k}" for k in range(5)]
    assert (report.skipped, report.failed) == ([], {})
    differ = set()
    for record in mixed.records:
        alone, several = (probabilities(model, as_batch(record), shown)[0] for shown in ((1.0,), scales))
        wanted = {
            "single": alone.argmax(dim=0).numpy(),
            "multi": several.argmax(dim=0).numpy(),
            "crf": refined(read_image(record.image), several.numpy()),
        }
        for kind, mask in wanted.items():
            np.testing.assert_array_equal(read_mask(tmp_path / "out" / kind / f"{record.id}.png"), mask)
        differ |= {(a, b) for a in ALL for b in ALL if (wanted[a] != wanted[b]).any()}
    assert len(differ) == 6  # so no kind can pass for another
    assert len(contents(tmp_path / "out")) == 15
    assert Image.open(tmp_path / "out" / "single" / "p0.png").getpalette()[3:6] == [128, 0, 0]


def test_pictures_of_one_size_share_a_forward_pass_and_sizes_may_mix(trained, mixed, tmp_path):
    with looking(trained[0]) as shown:
        report = segment_split(trained[0], mixed, tmp_path / "together", ("single",), batch_size=4)
    assert sorted(shown) == [(1, 3, 17, 25), (2, 3, 17, 25), (2, 3, 25, 17)]
    assert sorted(report.written) == [f"p{k}" for k in range(5)]
    segment_split(trained[0], mixed, tmp_path / "alone", ("single",))
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    assert read_mask(tmp_path / "alone" / "single" / "p1.png").shape == (24, 20)


def test_a_killed_run_goes_on_at_the_next_picture(trained, mixed, tmp_path):
    segment_split(trained[0], mixed, tmp_path / "whole", ALL)
    with pytest.raises(KeyboardInterrupt), looking(trained[0], stop_at=3 * 2 + 2):  # within the third picture
        segment_split(trained[0], mixed, tmp_path / "out", ALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    assert len(before) == 6
    with looking(trained[0]) as shown:
        report = segment_split(trained[0], mixed, tmp_path / "out", ALL)
    assert (report.skipped, report.written) == (["p0", "p1"], ["p2", "p3", "p4"])
    assert len(shown) == 3 * 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_is_there_is_skipped_and_a_picture_that_lacks_a_kind_is_not(trained, mixed, tmp_path):
    segment_split(trained[0], mixed, tmp_path, ("single", "multi"))
    (tmp_path / "multi" / "p3.png").unlink()
    report = segment_split(trained[0], mixed, tmp_path, ("single", "multi"))
    assert (report.skipped, report.written) == (["p0", "p1", "p2", "p4"], ["p3"])
    assert len(contents(tmp_path / "multi")) == 5


def test_an_unreadable_picture_is_reported_and_the_others_are_done(trained, mixed, tmp_path):
    mixed.records[1].image.write_bytes(mixed.records[1].image.read_bytes()[:60])
    mixed.records[4].image.unlink()
    report = segment_split(trained[0], mixed, tmp_path / "out", ("single",), batch_size=3)
    assert sorted(report.written) == ["p0", "p2", "p3"]
    assert "p1.png: cannot be read as a picture" in report.failed["p1"]
    assert "p4.png: no such picture" in report.failed["p4"]
    assert sorted(contents(tmp_path / "out")) == [f"single/p{k}.png" for k in (0, 2, 3)]


def test_image_labels_and_masks_are_not_read(trained, mixed, tmp_path):
    segment_split(trained[0], mixed, tmp_path / "right", ALL)
    for name, labels in (("none", ()), ("wrong", (1, 2))):
        records = [replace(record, labels=labels, mask=tmp_path / "gone.png") for record in mixed.records]
        segment_split(trained[0], mixed.with_records(records), tmp_path / name, ALL)
        assert contents(tmp_path / name) == contents(tmp_path / "right")


@pytest.fixture
def model_file(tmp_path, monkeypatch) -> Path:
    """A real network that fits in milliseconds, undecided as it is; and shares of two pictures."""
    monkeypatch.setattr(pools, "SHARE", 2)
    torch.manual_seed(0)
    model = create(SegmentationConfig(tiny.NAMES, "test_resnet", channels=8, dilation=1, weights=None))
    model.head[-1].weight.data *= 1000
    save(model, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def test_two_processes_write_what_one_writes(model_file, mixed, tmp_path):
    """And go on with what they find."""
    how = {"kinds": ALL, "scales": (1.0, 1.3), "batch_size": 2, "device": "cpu", "workers": 1}  # who reads
    alone, together = (segment_shares(model_file, mixed, tmp_path / f"out{n}", pool=Workers(n), **how) for n in (1, 2))
    assert alone == together
    assert sorted(alone.written) == [f"p{k}" for k in range(5)]
    assert len(contents(tmp_path / "out1")) == 15
    assert contents(tmp_path / "out1") == contents(tmp_path / "out2")
    masks = [read_mask(path) for path in sorted((tmp_path / "out1" / "multi").iterdir())]
    assert all(len(np.unique(mask)) > 1 for mask in masks)


def segment_until_killed(model_file: Path, folder: Path, out: Path) -> None:
    write, written = inference.write_mask, []

    def write_then_die(path, mask):
        write(path, mask)
        written.append(path)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    inference.write_mask = write_then_die
    segment_shares(model_file, photos(folder, *MIXED), out, ALONE, kinds=("multi",), device="cpu")


def test_a_killed_process_leaves_whole_masks_and_the_next_one_goes_on(model_file, mixed, tmp_path):
    how = {"kinds": ("multi",), "device": "cpu"}
    place = tmp_path / "killed" / "photos", tmp_path / "out"
    assert tiny.in_processes(segment_until_killed, model_file, *place) == [-signal.SIGKILL]
    report = segment_shares(model_file, mixed, tmp_path / "out", ALONE, **how)
    assert (report.skipped, report.written) == (["p0", "p1", "p2"], ["p3", "p4"])
    segment_shares(model_file, mixed, tmp_path / "whole", ALONE, **how)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_model_file_that_changed_is_read_again(model_file, mixed, tmp_path):
    how = {"kinds": ("multi",), "device": "cpu"}
    segment_shares(model_file, mixed, tmp_path / "before", ALONE, **how)
    model = load(model_file)
    model.head[-1].bias.data[2] = 1e6
    save(model, model_file)
    segment_shares(model_file, mixed, tmp_path / "after", ALONE, **how)
    assert all((read_mask(path) == 2).all() for path in (tmp_path / "after" / "multi").iterdir())
    assert contents(tmp_path / "before") != contents(tmp_path / "after")


@pytest.mark.parametrize("kinds", [("soft",), ("crf", "hard"), (), "crf"])
def test_unknown_kinds_are_refused(trained, mixed, tmp_path, kinds):
    with pytest.raises(ValueError, match=r"kinds=\(.*\): choose from single, multi, crf"):
        segment_split(trained[0], mixed, tmp_path / "out", kinds)
    assert not (tmp_path / "out").exists()


def test_without_pydensecrf_nothing_is_begun_that_needs_it(trained, mixed, tmp_path, without_pydensecrf):
    with looking(trained[0]) as shown, pytest.raises(ImportError, match="pydensecrf is not installed"):
        segment_split(trained[0], mixed, tmp_path / "out", ALL, backend="pydensecrf")
    assert (shown, (tmp_path / "out").exists()) == ([], False)
    assert len(segment_split(trained[0], mixed, tmp_path / "out", ALL).written) == 5
    segment_split(trained[0], mixed, tmp_path / "torch", ("crf",), backend="torch")
    assert contents(tmp_path / "out" / "crf") == contents(tmp_path / "torch" / "crf")


def test_an_unknown_crf_preset_is_refused(trained, mixed, tmp_path):
    with looking(trained[0]) as shown, pytest.raises(SettingError, match="unknown CRF preset 'best'"):
        segment_split(trained[0], mixed, tmp_path / "out", ("crf",), params="best")
    assert (shown, (tmp_path / "out").exists()) == ([], False)
