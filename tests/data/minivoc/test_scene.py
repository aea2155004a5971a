"""Pictures: the same pixels everywhere, masks that agree with labels, and all sizes and numbers of classes."""

import hashlib

import numpy as np
import pytest

from dsna_lib.data import minivoc
from dsna_lib.data.minivoc import canvas, scene

# Raise minivoc.VERSION together with these: a changed pixel is another data set.
CHECKSUMS = {
    (0, 0, 224): "0dd9c5d19c6fabb5",
    (0, 20, 224): "d3fc4d0485269c77",
    (0, 1000007, 224): "9a42837599ab8369",
    (7, 3, 160): "24c85d27612f29e0",
    (123, 45, 64): "499653bf9802f429",
}  # fmt: skip


def checksum(drawing: minivoc.Drawing) -> str:
    pixels = hashlib.sha256()
    for array in drawing[:3]:
        pixels.update(repr(array.shape).encode() + array.tobytes())
    return pixels.hexdigest()[:16]


@pytest.fixture(scope="module")
def drawings() -> list[minivoc.Drawing]:
    return [minivoc.draw(3, index, 96) for index in range(80)]


@pytest.mark.parametrize(("arguments", "expected"), CHECKSUMS.items())
def test_same_pixels_on_every_machine(arguments, expected):
    drawing = minivoc.draw(*arguments)
    assert checksum(drawing) == expected
    assert checksum(minivoc.draw(*arguments)) == expected


def test_seed_and_index_matter():
    assert len({checksum(minivoc.draw(seed, index, 64)) for seed in (0, 1) for index in (0, 1)}) == 4


@pytest.mark.parametrize("arguments", [(-1, 0, 96), (0, -1, 96), (0, 0, 47)])
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match=", ".join(map(str, arguments))):
        minivoc.draw(*arguments)


def test_shapes(drawings):
    assert {d.mask.shape for d in drawings} == {(96, 96), (72, 96), (96, 72)}
    for d in drawings:
        assert d.image.shape == (*d.mask.shape, 3) == (*d.part.shape, 3)
        assert d.image.dtype == d.mask.dtype == d.part.dtype == np.uint8


def test_labels_are_the_classes_in_the_mask(drawings):
    for d in drawings:
        assert d.labels
        assert d.labels == tuple(sorted({int(v) - 1 for v in np.unique(d.mask)} - {-1, 254}))
    assert {label for d in drawings for label in d.labels} == set(range(len(minivoc.CLASS_NAMES)))


def test_each_class_shows_its_part_inside_its_object(drawings):
    for d in drawings:
        inside = d.part > 0
        assert np.isin(d.mask[inside], [0]).sum() == 0
        assert ((d.mask[inside] == d.part[inside]) | (d.mask[inside] == minivoc.VOID)).all()
        assert {int(v) - 1 for v in np.unique(d.part)} - {-1} >= set(d.labels)


def test_void_is_a_thin_border(drawings):
    for d in drawings:
        void = d.mask == minivoc.VOID
        assert void.any()
        deep = void[1:-1, 1:-1] & void[:-2, 1:-1] & void[2:, 1:-1] & void[1:-1, :-2] & void[1:-1, 2:]
        assert deep.sum() < 0.25 * void.sum()


def test_sizes_span_from_tiny_to_most_of_the_picture():
    drawings = [minivoc.draw(0, index, 128) for index in range(60)]
    shares = [np.mean(d.mask == label + 1) for d in drawings for label in d.labels]
    assert min(shares) < 0.015
    assert max(shares) > 0.5
    thirds = np.histogram(np.log(shares), bins=np.log([0.005, 0.04, 0.15, 0.65]))[0]
    assert thirds.min() > 0.15 * len(shares)


def test_one_or_several_classes(drawings):
    counts = np.bincount([len(d.labels) for d in drawings], minlength=4)
    assert counts[0] == 0
    assert (counts[1:4] > 0).all()


def test_one_deck_deals_each_class_once():
    first = [scene._cast(canvas.Dice(0, index, 1), 0, index)[0] for index in range(30)]
    for start in (0, 10, 20):
        assert sorted(first[start : start + 10]) == sorted(minivoc.CLASS_NAMES)
