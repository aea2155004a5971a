"""Pseudo-annotations: hand-drawn cases, the paper's text in NumPy, and whole splits that resume and are shared."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import numpy_reference as reference
import pytest
import tiny
import torch

from dsna_lib import annotate, maps
from dsna_lib.annotate import annotate_split, evaluate, pseudo_annotation
from dsna_lib.attention import AttentionModel, SingleStreamAttention
from dsna_lib.config.annotation import AnnotationConfig
from dsna_lib.data import PictureError, pictures, read_mask, write_mask
from dsna_lib.engine import pools
from dsna_lib.engine.errors import SettingError
from dsna_lib.engine.pools import Workers


def planes(*rows: list[float]) -> torch.Tensor:
    """One-row maps, one a class: (C, 1, w)."""
    return torch.tensor(rows, dtype=torch.float64)[:, None, :]


def annotated(maps: torch.Tensor, features: torch.Tensor, labels, **options) -> list[int]:
    return pseudo_annotation(maps, features, labels, tuple(maps.shape[-2:]), **options)[0].tolist()


QUIET = planes([1, 1, 1, 1, 0.999])  # no background but at the last place


def test_foreground_is_strictly_above_and_background_strictly_below():
    maps = planes([0, 0.2, 0.2000001, 0.1, 1])
    features = planes([0.29999, 0.3, 0, 1, 1])
    assert annotated(maps, features, [0]) == [0, 255, 1, 255, 1]


def test_thresholds_are_arguments():
    maps, features = planes([0, 0.4, 0.6, 1]), planes([0, 0.5, 0.5, 1])
    assert annotated(maps, features, [0], foreground_threshold=0.5, background_threshold=0.6) == [0, 0, 1, 1]


def test_maps_are_scaled_before_the_threshold():
    """Raw values are all above 0.2; scaled, 10 and 11 are 0 and 0.1."""
    assert annotated(planes([10, 11, 15, 20]), planes([5, 10, 10, 10]), [0]) == [0, 255, 1, 1]


def test_features_are_summed_over_channels_before_scaling():
    """Each channel alone varies; their sum is low in the middle only."""
    features = planes([0, 1, 4, 4], [4, 0, 0, 4])
    assert annotated(planes([0, 0, 0, 1]), features, [0]) == [255, 0, 255, 1]


def test_only_present_classes_are_drawn_with_their_number():
    maps = planes([1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0])
    assert annotated(maps, QUIET, [1]) == [255, 255, 255, 2, 0]
    assert annotated(maps, QUIET, [2, 1]) == [3, 255, 255, 2, 0]


def test_the_smallest_region_wins():
    maps = planes([1, 1, 1, 0, 0], [0, 0, 1, 1, 0])
    assert annotated(maps, QUIET, [0, 1]) == [1, 1, 2, 2, 0]


def test_regions_are_measured_before_conflicts_are_settled():
    """Sizes 4, 3, 2: the third takes two places of the second, which is left with 1 and still beats the first only
    where it did before; measured after conflicts, the order of class 0 and 1 would turn."""
    maps = planes([1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0, 0])
    quiet = planes([1, 1, 1, 1, 1, 1, 0.999])
    # Left after the third: class 0 has 2 places, class 1 has 3; place 3 still goes to class 1.
    assert annotated(maps, quiet, [0, 1, 2]) == [3, 3, 1, 2, 2, 2, 0]


def test_foreground_beats_background_and_the_rest_is_void():
    assert annotated(planes([1, 0, 0]), planes([0, 0, 1]), [0]) == [1, 0, 255]


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1.7, -2.3, 1e6])
@pytest.mark.parametrize("size", [(14, 14), (97, 53), (224, 300)])
def test_constant_maps_say_nothing(value, size):
    """Neither summing 512 channels nor resizing turns rounding errors into regions."""
    flat, half = torch.full((512, 14, 14), value), torch.zeros(1, 14, 14)
    half[:, :7] = 1
    no_background = pseudo_annotation(half, flat, [0], size)
    assert set(no_background.unique().tolist()) == {1, 255}
    no_foreground = pseudo_annotation(flat[:1], half, [0], size)
    assert set(no_foreground.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(5, 7), (11, 8), (3, 20), (1, 1)])
def test_against_the_text_of_section_iii_c(seed, size):
    rng = np.random.default_rng(seed)
    maps, features = rng.random((4, 5, 7)), rng.random((6, 5, 7))
    labels = sorted(rng.choice(4, size=1 + seed % 3, replace=False).tolist())
    got = pseudo_annotation(torch.tensor(maps), torch.tensor(features), labels, size)
    assert got.dtype == torch.uint8
    np.testing.assert_array_equal(got, reference.pseudo_annotation(maps, features, labels, size))


def test_threshold_first_gives_blocks():
    maps, features = planes([0, 0, 1]), planes([0, 1, 1])
    got = pseudo_annotation(maps, features, [0], (2, 6), upsample_first=False)
    assert got.tolist() == [[0, 0, 255, 255, 1, 1]] * 2
    smooth = pseudo_annotation(maps, features, [0], (2, 6))
    assert (smooth == 1).sum() > (got == 1).sum()  # bilinear: 0.2 is crossed earlier


def test_repeated_labels_count_once():
    assert annotated(planes([0, 1]), planes([0, 1]), [0, 0]) == [0, 1]


@pytest.mark.parametrize(
    "shapes, labels, message",
    [
        (((2, 3, 3), (5, 3, 3)), [], "labels is empty"),
        (((2, 3, 3), (5, 3, 3)), [2], r"label 2 is none of the 2 classes \(0 to 1\)"),
        (((2, 3, 3), (5, 3, 3)), [-1], "label -1 is none of"),
        (((2, 3, 3), (5, 3, 4)), [0], r"maps \(2, 3, 3\) and features \(5, 3, 4\)"),
        (((3, 3), (5, 3, 3)), [0], r"maps \(3, 3\)"),
    ],
)
def test_bad_arguments(shapes, labels, message):
    with pytest.raises(ValueError, match=message):
        pseudo_annotation(torch.rand(shapes[0]), torch.rand(shapes[1]), labels, (4, 4))


# Splits


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def split(tmp_path):
    return tiny.pictures(tmp_path / "data", 7)


def run(split, folder, **options):
    return annotate_split(tiny.model(), split, folder, **{"size": 32, "batch_size": 2} | options)


def test_a_split(tmp_path, split):
    report = run(split, tmp_path / "out", kinds=["merged", "expansive"])
    assert report.written == [r.id for r in split.records]
    assert (report.skipped, report.failed) == ([], {})
    assert len(files(tmp_path / "out")) == 14
    for k, record in enumerate(split.records):
        mask = read_mask(tmp_path / "out" / "merged" / f"{record.id}.png")
        assert mask.shape == (20 + k, 26)
        assert set(np.unique(mask)) <= {0, record.labels[0] + 1, 255}


def test_a_second_run_skips_everything_and_looks_at_no_picture(tmp_path, split, monkeypatch):
    run(split, tmp_path / "out")
    monkeypatch.setattr(pictures, "read_image", lambda path: pytest.fail("looked at a picture again"))
    report = run(split, tmp_path / "out")
    assert report.skipped == [r.id for r in split.records]
    assert report.written == []


def test_a_run_that_stopped_midway_goes_on_and_keeps_what_is_there(tmp_path, split):
    run(split, tmp_path / "whole")
    run(split, tmp_path / "out")
    for i in (3, 4, 5, 6):
        (tmp_path / "out" / "merged" / f"{split.records[i].id}.png").unlink()
    kept = tmp_path / "out" / "merged" / "p02.png"
    before = kept.stat().st_mtime_ns
    report = run(split, tmp_path / "out")
    assert report.written == ["p03", "p04", "p05", "p06"]
    assert report.skipped == ["p00", "p01", "p02"]
    assert kept.stat().st_mtime_ns == before
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def annotate_until_killed(data: Path, out: Path) -> None:
    write, count = annotate.write_mask, []

    def write_then_die(path, mask):
        write(path, mask)
        count.append(1)
        if len(count) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    annotate.write_mask = write_then_die
    run(tiny.pictures(data, 7), out)


def test_a_killed_run_goes_on(tmp_path, split):
    assert tiny.in_processes(annotate_until_killed, tmp_path / "data", tmp_path / "out") == [-signal.SIGKILL]
    assert len(files(tmp_path / "out")) == 3
    report = run(split, tmp_path / "out")
    assert report.written == ["p03", "p04", "p05", "p06"]
    run(split, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("size", [1, 3, 5])
def test_shares_of_any_size_write_the_same(tmp_path, split, monkeypatch, size):
    run(split, tmp_path / "one")
    monkeypatch.setattr(pools, "SHARE", size)
    shares = pools.shares(7, 2, Workers(2))
    assert len(shares) == {1: 4, 3: 2, 5: 2}[size]
    parts = [split.with_records([split.records[place] for place in share.places]) for share in shares]
    written = [run(part, tmp_path / "many").written for part in parts]
    assert [name for names in written for name in names] == [r.id for r in split.records]
    assert files(tmp_path / "one") == files(tmp_path / "many")


def test_thresholds_are_those_asked_for(tmp_path, split):
    thresholds = {"foreground_threshold": 0.6, "background_threshold": 0.1}
    run(split, tmp_path / "usual")
    run(split, tmp_path / "own", **thresholds)
    assert files(tmp_path / "usual") != files(tmp_path / "own")
    picture = next(maps.iterate_maps(tiny.model(), split, size=32, batch_size=2))
    expected = pseudo_annotation(picture.maps["merged"], picture.features, [0], picture.size, **thresholds)
    np.testing.assert_array_equal(read_mask(tmp_path / "own" / "merged" / "p00.png"), expected)


def test_a_bad_picture_is_reported_and_the_rest_is_done(tmp_path, split):
    split.records[2].image.write_bytes(split.records[2].image.read_bytes()[:200])
    report = run(split, tmp_path / "out")
    assert report.written == ["p00", "p01", "p03", "p04", "p05", "p06"]
    assert "p02.png: cannot be read as a picture" in report.failed["p02"]
    again = run(split, tmp_path / "out")
    assert list(again.failed) == ["p02"]
    assert again.written == []
    assert sorted(again.skipped) == ["p00", "p01", "p03", "p04", "p05", "p06"]


def test_a_picture_without_labels_is_background_everywhere(tmp_path, split):
    object.__setattr__(split.records[5], "labels", ())
    assert run(split, tmp_path / "out", kinds=["merged", "expansive"]).failed == {}
    for kind in ("merged", "expansive"):
        mask = read_mask(tmp_path / "out" / kind / "p05.png")
        assert mask.shape == (25, 26)
        assert not mask.any()


def test_a_full_disk_stops_with_the_file_named_and_no_half_file(tmp_path, split, monkeypatch):
    save, count = pictures.Image.Image.save, []

    def fill_up(self, file, **options):
        count.append(1)
        save(self, file, **options)
        if len(count) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures.Image.Image, "save", fill_up)
    with pytest.raises(OSError, match="cannot write .*p02.png: No space left on device"):
        run(split, tmp_path / "out")
    assert sorted(files(tmp_path / "out")) == ["merged/p00.png", "merged/p01.png"]
    monkeypatch.undo()
    assert run(split, tmp_path / "out").written == ["p02", "p03", "p04", "p05", "p06"]


def test_an_unknown_kind_and_a_kind_the_model_lacks(tmp_path, split):
    with pytest.raises(SettingError, match="unknown kind of map 'best'; choose from expansive"):
        run(split, tmp_path / "out", kinds=["best"])
    single = AttentionModel(tiny.backbone(), SingleStreamAttention(8, 3)).eval()
    report = annotate_split(single, split, tmp_path / "out", ["merged"], size=32)
    assert set(report.failed.values()) == {"this model has no merged map, only discriminative"}
    assert annotate_split(single, split, tmp_path / "out", ["discriminative"], size=32).failed == {}


def test_evaluate(tmp_path):
    split = tiny.pictures(tmp_path / "data", 3, masks=True)
    for record in split.records:
        truth = read_mask(record.mask)
        truth[:2] = 255
        write_mask(tmp_path / "out" / f"{record.id}.png", truth)
    matrix = evaluate(tmp_path / "out", split)
    assert matrix.num_classes == 4
    assert matrix.counts.sum() == sum(read_mask(r.mask).size for r in split.records)
    assert matrix.mean_precision == 1
    assert matrix.recall[0] < 1
    assert evaluate(tmp_path / "out", split, void="ignore").mean_recall == 1


def test_evaluate_names_what_is_wrong(tmp_path):
    split = tiny.pictures(tmp_path / "data", 2, masks=True)
    with pytest.raises(PictureError, match="p00.png: no such mask"):
        evaluate(tmp_path / "out", split)
    write_mask(tmp_path / "out" / "p00.png", np.zeros((4, 6)))
    with pytest.raises(PictureError, match="p00.png: the mask is 6 x 4, its picture 26 x 20"):
        evaluate(tmp_path / "out", split)
    write_mask(tmp_path / "out" / "p00.png", np.full((20, 26), 9))
    with pytest.raises(PictureError, match=r"out/p00.png against .*p00-mask.png: prediction holds 9"):
        evaluate(tmp_path / "out", split)
    with pytest.raises(PictureError, match=r"p00.png has no ground-truth mask"):
        evaluate(tmp_path / "out", tiny.pictures(tmp_path / "data", 2))


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """Seven pictures in shares of two, and annotations that are wrong here and there."""
    split = tiny.pictures(tmp_path / "data", 7, masks=True)
    for record in split.records:
        write_mask(tmp_path / "out" / f"{record.id}.png", np.roll(read_mask(record.mask), 3))
    monkeypatch.setattr(pools, "SHARE", 2)
    return split, tmp_path / "out"


def test_two_processes_count_what_one_counts(moved):
    split, folder = moved
    alone, together = (evaluate(folder, split, "ignore", Workers(jobs)) for jobs in (1, 2))
    assert 0 < alone.mean_iou < 1
    np.testing.assert_array_equal(together.counts, alone.counts)
    assert together.void == "ignore"


def test_of_several_failing_shares_the_first_is_named(moved, monkeypatch):
    """Whichever is done first."""
    split, folder = moved
    (folder / "p03.png").unlink()
    (folder / "p06.png").unlink()
    completed = pools.completed
    monkeypatch.setattr(pools, "completed", lambda units, work, _: completed(units[::-1], work, pools.ALONE))
    with pytest.raises(PictureError, match="p03.png: no such mask"):
        evaluate(folder, split, workers=Workers(2))


def test_defaults_are_the_papers():
    assert (annotate.FOREGROUND_THRESHOLD, annotate.BACKGROUND_THRESHOLD) == (0.2, 0.3)
    usual = AnnotationConfig()
    assert (usual.foreground_threshold, usual.background_threshold) == (0.2, 0.3)
