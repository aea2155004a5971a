"""Every protocol is measured as if it were alone, and hand-made maps give the numbers that one counts oneself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from dsna_lib import annotate, maps
from dsna_lib.attention import AttentionModel, AttentionOutput, ConventionalAttention, SingleStreamAttention
from dsna_lib.config.attention import ModelConfig
from dsna_lib.data.pictures import PictureError, Pictures, read_mask, without_masks, write_mask
from dsna_lib.metrics import ConfusionMatrix
from dsna_lib.tables import measure
from dsna_lib.tables.measure import MapProtocol, Measurement

MERGED = MapProtocol()
ALL = [MapProtocol(name) for name in measure.MAP_FORMULAS] + [
    MapProtocol(upsample_first=False),
    MapProtocol(scales=(1.0, 2.0)),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tiny.pictures(tmp_path_factory.mktemp("data"), count=5, masks=True)


def network(head=None) -> AttentionModel:
    model = tiny.model()
    name = "decoupled"
    if head is not None:
        model = AttentionModel(model.backbone, head).eval()
        name = "conventional" if isinstance(head, ConventionalAttention) else "single_stream"
    model.config = ModelConfig(tiny.NAMES, "tiny", name)
    return model


@pytest.fixture(scope="module")
def measured(pictures):
    return measure.measure(network(), pictures, ALL, size=24)


def output(seed=0) -> AttentionOutput:
    torch.manual_seed(seed)
    a = torch.rand(2, 3, 4, 5)
    return AttentionOutput(torch.randn(2, 3), a / a.sum(dim=(-2, -1), keepdim=True), torch.randn(2, 3, 4, 5))


@pytest.mark.parametrize("kind", maps.MAP_KINDS)
def test_the_counts_of_a_kind_are_those_of_annotating_with_it(measured, pictures, kind):
    for each, picture in zip(
        measured.counts[MapProtocol(kind)], maps.iterate_maps(network(), pictures, size=24), strict=True
    ):
        record, matrix = pictures.records[picture.index], ConfusionMatrix(4)
        annotation = annotate.pseudo_annotation(picture.maps[kind], picture.features, record.labels, picture.size)
        matrix.update(annotation, read_mask(record.mask))
        np.testing.assert_array_equal(each, matrix.counts)


def test_a_picture_without_any_class_is_annotated_as_background(pictures, measured):
    """It counts as such at every threshold; the others count as ever, and it is no object."""
    bare = replace(pictures.records[1], labels=())
    write_mask(bare.mask.with_name("bare.png"), np.zeros_like(read_mask(bare.mask)))
    bare = replace(bare, mask=bare.mask.with_name("bare.png"))
    records = [bare if record.id == bare.id else record for record in pictures.records]
    seen = measure.measure(network(), pictures.with_records(records), ALL, size=24)
    pixels = read_mask(bare.mask).size
    for protocol in ALL:
        assert seen.counts[protocol][1].sum() == seen.counts[protocol][1][0, 0] == pixels
        np.testing.assert_array_equal(seen.counts[protocol][2:], measured.counts[protocol][2:])
    alone = measure.measure(network(), pictures.with_records([bare, pictures.records[0]]), [MERGED], size=24)
    whole = measure.measure(network(), pictures.with_records([pictures.records[0]]), [MERGED], size=24)
    added = alone.curves[MERGED] - whole.curves[MERGED]
    assert (added[:, 0, 0] == pixels).all()
    assert (added.sum(axis=(1, 2)) == pixels).all()
    assert 1 not in seen.objects[:, 0]


def test_thresholding_first_is_measured_so(measured, pictures):
    total = np.zeros((4, 5), int)
    for picture in maps.iterate_maps(network(), pictures, size=24):
        record, matrix = pictures.records[picture.index], ConfusionMatrix(4)
        small = annotate.pseudo_annotation(
            picture.maps["merged"], picture.features, record.labels, picture.size, upsample_first=False
        )
        matrix.update(small, read_mask(record.mask))
        total += matrix.counts
    np.testing.assert_array_equal(measured.counts[MapProtocol(upsample_first=False)].sum(axis=0), total)
    assert (total != measured.counts[MERGED].sum(axis=0)).any()


def test_every_protocol_counts_every_known_pixel(measured, pictures):
    sizes = [read_mask(record.mask).size for record in pictures.records]
    for protocol, counts in measured.counts.items():
        assert counts.sum(axis=(1, 2)).tolist() == sizes, protocol


def test_formulas():
    out = output()
    raw = out.expansive, out.discriminative, out.scores
    a, s, p = (tensor.numpy() for tensor in raw)
    present = torch.tensor([[True, False, True], [False, True, False]])
    low, high = a.min(axis=(2, 3), keepdims=True), a.max(axis=(2, 3), keepdims=True)
    scaled = (a - low) / (high - low)
    positive = s.clip(0) / s.clip(0).max(axis=(2, 3), keepdims=True)
    both = (s - s.min(axis=(2, 3), keepdims=True)) / np.ptp(s, axis=(2, 3), keepdims=True)
    chance = np.exp(p) / np.exp(p).sum(axis=1, keepdims=True)
    there = np.exp(p) * present.numpy() / (np.exp(p) * present.numpy()).sum(axis=1, keepdims=True)
    sigmoid = 1 / (1 + np.exp(-p))

    def blend(weight, other=positive):
        return weight[..., None, None] * scaled + (1 - weight[..., None, None]) * other

    product = a * s.clip(0)
    expected = {
        "expansive": scaled,
        "discriminative": positive,
        "merged": blend(chance),
        "discriminative, min-max": both,
        "merged, min-max": blend(chance, both),
        "merged, present": blend(there),
        "merged, sigmoid": blend(sigmoid),
        "mean": (scaled + positive) / 2,
        "maximum": np.maximum(scaled, positive),
        "product": product / product.max(axis=(2, 3), keepdims=True),
    }
    assert set(expected) == set(measure.MAP_FORMULAS)
    for name, value in expected.items():
        np.testing.assert_allclose(measure.MAP_FORMULAS[name](*raw, present), value, atol=1e-6, err_msg=name)


def test_one_scale_twice_is_one_scale(pictures):
    twice = MapProtocol(scales=(1.0, 1.0))
    both = measure.measure(network(), pictures, [MERGED, twice], size=24)
    np.testing.assert_array_equal(both.counts[MERGED], both.counts[twice])


def test_two_scales_are_the_mean_of_the_maps_of_each():
    torch.manual_seed(0)
    small, large = torch.rand(3, 4, 4), torch.rand(3, 8, 8)
    at_scale = {
        1.0: maps.PictureMaps(0, (16, 16), {"merged": small}, torch.rand(8, 4, 4), torch.zeros(3)),
        2.0: maps.PictureMaps(0, (16, 16), {"merged": large}, torch.rand(8, 8, 8), torch.zeros(3)),
    }
    averaged = measure._averaged(at_scale, MapProtocol(scales=(1.0, 2.0)))
    # Halved bilinearly without anti-aliasing, each place is the mean of the two by two in its middle.
    halved = large.reshape(3, 4, 2, 4, 2).mean(dim=(2, 4))
    torch.testing.assert_close(averaged, (small + halved) / 2)


def test_curves_pass_through_the_papers_threshold(measured):
    place = measure.THRESHOLDS.index(annotate.FOREGROUND_THRESHOLD)
    plain = {MapProtocol(kind) for kind in maps.MAP_KINDS}
    assert set(measured.curves) == set(measured.coverage) == plain
    for protocol in plain:
        np.testing.assert_array_equal(measured.curves[protocol][place], measured.counts[protocol].sum(axis=0))
        assert measured.curve(protocol)["iou"][place] == measured.scores(protocol)["iou"]


@pytest.mark.parametrize("threshold", [0.23, 0.35])
def test_the_default_threshold_is_measured_apart_from_the_curve(pictures, measured, threshold):
    """It may lie anywhere; on the curve's grid the two agree, off it they do not."""
    protocols = [MapProtocol(kind) for kind in maps.MAP_KINDS]
    other = measure.measure(network(), pictures, protocols, size=24, foreground_threshold=threshold)
    for protocol in protocols:
        total = np.zeros((4, 5), int)
        for picture in maps.iterate_maps(network(), pictures, size=24):
            record, matrix = pictures.records[picture.index], ConfusionMatrix(4)
            thresholds = {"foreground_threshold": threshold, "background_threshold": 0.3}
            planes = picture.maps[protocol.map]
            annotation = annotate.pseudo_annotation(planes, picture.features, record.labels, picture.size, **thresholds)
            matrix.update(annotation, read_mask(record.mask))
            total += matrix.counts
        np.testing.assert_array_equal(other.counts[protocol].sum(axis=0), total)
        # The curve is the same whatever the default is.
        np.testing.assert_array_equal(other.curves[protocol], measured.curves[protocol])
        on_the_curve = [(total == counts).all() for counts in other.curves[protocol]]
        assert sum(on_the_curve) == (threshold in measure.THRESHOLDS)
        assert (total != measured.counts[protocol].sum(axis=0)).any()
    # What the map covers is what lies above the default threshold, too: less where it is higher.
    assert (other.coverage[MERGED][:, 2] <= measured.coverage[MERGED][:, 2]).all()
    assert (other.coverage[MERGED][:, 2] < measured.coverage[MERGED][:, 2]).any()


def test_the_background_threshold_is_that_of_the_curve_too(pictures, measured):
    other = measure.measure(network(), pictures, [MERGED], size=24, background_threshold=0.6)
    place = measure.THRESHOLDS.index(annotate.FOREGROUND_THRESHOLD)
    np.testing.assert_array_equal(other.curves[MERGED][place], other.counts[MERGED].sum(axis=0))
    assert other.counts[MERGED][..., 0].sum() > measured.counts[MERGED][..., 0].sum()


def test_what_nothing_is_known_of_is_no_measure(measured):
    """These pictures have no masks of parts."""
    assert np.isnan(measured.coverage[MERGED][:, :2]).all()
    assert not {"part", "rest", "telling", "telling_oracle"} & set(measured.scores(MERGED))
    assert not {"part", "rest"} & set(measured.curve(MERGED))
    assert {"whole", "oracle_iou"} < set(measured.scores(MERGED))


def test_a_higher_threshold_never_finds_more_foreground(measured):
    foreground = measured.curves[MERGED][:, :, 1:-1].sum(axis=(1, 2))
    assert (np.diff(foreground) <= 0).all()
    assert foreground[0] > foreground[-1]


def test_the_oracle_is_the_best_point_of_the_curve(measured):
    scores, curve = measured.scores(MERGED), measured.curve(MERGED)
    assert scores["oracle_iou"] == max(curve["iou"])
    assert scores["oracle_threshold"] == curve["threshold"][int(np.argmax(curve["iou"]))]


def test_void_policies_share_the_counts(measured):
    missed, background, ignored = (measured.scores(MERGED, void) for void in ("false_negative", "background", "ignore"))
    matrix = ConfusionMatrix(4, void="background")
    matrix.counts = measured.counts[MERGED].sum(axis=0)
    assert background["iou"] == matrix.summary()["iou"]
    assert missed["recall"] < ignored["recall"]
    assert missed["precision"] == ignored["precision"]


def test_other_protocols_have_no_curve(measured):
    assert not {"whole", "oracle_iou", "similarity"} & set(measured.scores(MapProtocol("mean")))


def test_covered_shares_by_hand():
    plane = torch.zeros(4, 4)
    plane[0] = 1.0  # min-max leaves it; the first row lies above the threshold
    whole, part = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    whole[:2], part[0, :2], part[3, 3] = True, True, True  # one part pixel is hidden by another animal
    assert measure._covered(plane, whole, part, [0.2, 1]).tolist() == [[1.0, 2 / 6, 0.5], [0, 0, 0]]
    (shares,) = measure._covered(plane, whole, np.zeros((4, 4), bool), [0.2])
    assert np.isnan(shares[:2]).all()
    assert shares[2] == 0.5


def by_hand(shares=((0.5, 0.25, 0.3), (1.0, np.nan, 1.0))) -> Measurement:
    """Two pictures of 100 pixels: a small red object that is half found, and a large green one."""
    counts = np.zeros((2, 4, 5), int)
    counts[0, 1], counts[0, 0] = [1, 2, 0, 0, 1], [90, 6, 0, 0, 0]
    counts[1, 2], counts[1, 0] = [20, 0, 30, 0, 0], [48, 0, 0, 2, 0]
    coverage = np.array(shares, np.float32)
    extent = np.broadcast_to(coverage, (len(measure.THRESHOLDS), 2, 3))
    curves = np.broadcast_to(counts.sum(axis=0), (len(measure.THRESHOLDS), 4, 5))
    where = {MERGED: np.zeros(0)}
    objects, area = np.array([[0, 0], [1, 1]]), np.array([0.04, 0.5])
    return Measurement(
        {MERGED: counts}, {MERGED: curves}, {MERGED: coverage}, {MERGED: extent}, where, objects, area, area, 1.0
    )


def test_measures_of_single_objects_by_hand():
    scores = by_hand().scores(MERGED)
    assert (scores["precision_small"], scores["recall_small"]) == (25, 50)
    assert (scores["precision_large"], scores["recall_large"]) == (100, 60)
    assert (scores["telling"], scores["telling_oracle"], scores["whole"]) == (25, 25, 65)
    small, large = by_hand().by_size(MERGED, (0, 0.1, 0.2, 1.01))
    assert small == {"low": 0, "high": 0.1, "objects": 1, "precision": 25, "recall": 50, "iou": 20}
    assert (large["low"], large["objects"], large["iou"]) == (0.2, 1, 60)


def test_an_object_that_is_not_marked_at_all_has_no_precision():
    measured = by_hand()
    measured.counts[MERGED][0, :, 0] += measured.counts[MERGED][0, :, 1]
    measured.counts[MERGED][0, :, 1] = 0
    assert "precision_small" not in measured.scores(MERGED)
    assert measured.scores(MERGED)["recall_small"] == 0
    assert measured.by_size(MERGED, (0, 0.1))[0]["precision"] == 0


def test_without_the_only_picture_nothing_is_known():
    np.testing.assert_array_equal(by_hand().without(MERGED, "recall_small"), [np.nan, 50])


def test_left_out():
    counts = np.array([[1, 2], [3, 4], [5, 6]])
    assert measure.left_out(counts, lambda total: total[0] / total.sum()).tolist() == [8 / 18, 6 / 14, 4 / 10]


@pytest.mark.parametrize("name", ["precision", "recall", "iou", "recall_large", "whole"])
def test_scores_without_a_picture_are_those_of_the_others(measured, name):
    measured = replace(measured, area=np.full_like(measured.area, 0.3))
    without = measured.without(MERGED, name)
    count = len(without)
    assert count == 5
    for left_out in range(count):
        kept = [place for place in range(count) if place != left_out]
        inside = measured.objects[:, 0] != left_out
        objects = measured.objects[inside].copy()
        objects[:, 0] -= objects[:, 0] > left_out
        others = replace(
            measured,
            counts={MERGED: measured.counts[MERGED][kept]},
            coverage={MERGED: measured.coverage[MERGED][inside]},
            extent={MERGED: measured.extent[MERGED][:, inside]},
            objects=objects,
            area=measured.area[inside],
        )
        assert without[left_out] == pytest.approx(others.scores(MERGED)[name], abs=0.006)


def test_part_masks_are_read(pictures, tmp_path):
    record = pictures.records[0]
    path = tmp_path / "part.png"
    write_mask(path, read_mask(record.mask))
    with_part = Pictures([replace(record, part=path)], tiny.NAMES)
    part, rest, whole = measure.measure(network(), with_part, [MERGED], size=24).coverage[MERGED][0]
    assert part == whole
    assert np.isnan(rest)
    assert np.isnan(measure.measure(network(), pictures, [MERGED], size=24).coverage[MERGED][:, :2]).all()


def test_maps_of_classes_in_one_picture_are_compared(pictures, tmp_path):
    """Only of classes that the mask shows, in pictures that show several."""
    record = pictures.records[0]
    mask = read_mask(record.mask)
    mask[0, 0], mask[0, 1] = 1, 2  # red and green
    write_mask(tmp_path / "mask.png", mask)
    both = [replace(record, mask=tmp_path / "mask.png", labels=(0, 1, 2)), pictures.records[1]]
    shown = Pictures(both, tiny.NAMES)
    measured = measure.measure(network(), shown, [MERGED, MapProtocol("mean")], size=24)
    red, green, _ = next(maps.iterate_maps(network(), shown, size=24)).maps["merged"].flatten(1).numpy()
    expected = (red * green).sum() / np.sqrt((red**2).sum() * (green**2).sum())
    np.testing.assert_allclose(measured.similarity[MERGED], [expected], rtol=1e-5)
    assert set(measured.similarity) == {MERGED}
    scores = measured.scores(MERGED)
    assert scores["similarity"] == pytest.approx(100 * expected, abs=0.01)
    assert scores["several_iou"] == measure.matrix_of(measured.counts[MERGED][0]).summary()["iou"]


def test_object_pixels_under_another_class_by_hand():
    one, both = np.zeros((3, 4), int), np.zeros((3, 4), int)
    one[0, 0], one[1] = 50, [3, 5, 90, 2]  # one class, whose pixels are mostly marked as the other one
    both[0] = [40, 3, 2, 5]
    both[1] = [2, 6, 4, 8]  # of the first class 4 of 20, of the second 1 of 10
    both[2] = [1, 1, 7, 1]
    scores = measure.several_classes(np.stack([one, both]))
    assert scores["confused"] == pytest.approx(100 * 5 / 30, abs=0.01)
    iou = [40 / (50 + 3), 6 / (20 + 4), 7 / (10 + 6)]
    assert scores["several_iou"] == pytest.approx(100 * np.mean(iou), abs=0.01)


def test_area_and_weight(measured, pictures):
    masks = [read_mask(record.mask) for record in pictures.records]
    np.testing.assert_allclose(measured.area, [(mask > 0).mean() for mask in masks], rtol=1e-6)
    chances = [torch.softmax(picture.scores, 0) for picture in maps.iterate_maps(network(), pictures, size=24)]
    expected = [float(p[record.labels[0]]) for p, record in zip(chances, pictures.records, strict=True)]
    np.testing.assert_allclose(measured.weight, expected, rtol=1e-5)


def test_what_is_saved_comes_back(measured, tmp_path):
    measured.save(tmp_path / "m.npz")
    again = Measurement.load(tmp_path / "m.npz")
    assert list(again.counts) == list(measured.counts)
    for what in measure.PER_PROTOCOL:
        mine, other = getattr(measured, what), getattr(again, what)
        assert set(mine) == set(other)
        for protocol in mine:
            np.testing.assert_array_equal(mine[protocol], other[protocol])
    np.testing.assert_array_equal(again.objects, measured.objects)
    np.testing.assert_array_equal(again.area, measured.area)
    np.testing.assert_array_equal(again.weight, measured.weight)
    assert again.mean_average_precision == measured.mean_average_precision


def test_rivals_enter_the_same_protocol(pictures):
    model = network(SingleStreamAttention(8, 3, dropout=0.0))
    protocols = [MapProtocol(name) for name in measure.MAPS_OF["single_stream"]]
    rivals = measure.measure(model, pictures, protocols, size=24)
    # A pooled linear classifier: Grad-CAM is the positive part of CAM, up to a factor that scaling removes.
    np.testing.assert_array_equal(rivals.counts[MapProtocol("cam")], rivals.counts[MapProtocol("grad_cam")])
    assert rivals.curves[MapProtocol("excitation_backprop")].sum() > 0


def test_conventional_attention_has_one_map_for_all_classes(pictures):
    one_map = measure.measure(network(ConventionalAttention(8, 3)), pictures, [MapProtocol("expansive")], size=24)
    assert one_map.counts[MapProtocol("expansive")].sum() == sum(read_mask(r.mask).size for r in pictures.records)


def test_a_map_that_the_head_does_not_have_is_refused(pictures):
    with pytest.raises(ValueError, match="decoupled model has no map 'cam'; it has expansive"):
        measure.measure(network(), pictures, [MapProtocol("cam")])


def test_pictures_without_masks_are_refused(pictures):
    with pytest.raises(PictureError, match=r"p00\.png has no ground-truth mask"):
        measure.measure(network(), without_masks(pictures), [MERGED])


def test_pictures_without_any_class_are_refused(pictures):
    negative = pictures.with_records([replace(record, labels=()) for record in pictures.records])
    with pytest.raises(PictureError, match=rf"none of the {len(pictures)} pictures to measure on shows a class"):
        measure.measure(network(), negative, [MERGED])


def test_weight_by_size():
    area, weight = np.array([0.01, 0.02, 0.3, 0.5]), np.array([0.1, 0.3, 0.8, 1.0])
    small, large = measure.weight_by_size(area, weight, [0, 0.1, 0.2, 1])
    assert small == {"low": 0, "high": 0.1, "objects": 2, "mean": 0.2, "lower": 0.15, "median": 0.2, "upper": 0.25}
    assert (large["low"], large["objects"], large["mean"]) == (0.2, 2, 0.9)
