"""Superpixels: small regions of even color, what they look like, which of them touch, and what they add up to.

They are those of Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 2004, as scikit-image
computes them. ScribbleSup's graph joins them; BoxSup's candidates and AF-SS's proposals are merged from them as in
selective search (Uijlings et al., "Selective Search for Object Recognition", IJCV 2013).
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from scipy.ndimage import find_objects

from dsna_lib.methods.base import MethodError

COLOR_BINS, GRADIENT_BINS = 25, 10  # a channel, and a direction


class Coarseness(NamedTuple):
    """How large superpixels are."""

    scale: float  #: k: the higher, the larger they are
    sigma: float  #: of the Gaussian that smooths the picture before
    smallest: int  #: number of pixels below which one is merged with a neighbor


FELZENSZWALB = Coarseness(500, 0.5, 20)  # of the authors' own program, for pictures of 320 x 240
SELECTIVE_SEARCH = Coarseness(100, 0.8, 100)  # of its fast setting


class Superpixels(NamedTuple):
    """The n superpixels of a picture."""

    labels: np.ndarray  #: ``(H, W)`` int, 0..n - 1
    sizes: np.ndarray  #: ``(n,)`` pixels
    colors: np.ndarray  #: ``(n, 75)``, histograms of red, green and blue; a row sums to 1
    textures: np.ndarray  #: ``(n, 20)``, histograms of the horizontal and the vertical gradient; a row sums to 1
    pairs: np.ndarray  #: ``(E, 2)``, those that share an edge, the lower number first


def superpixels(image: np.ndarray, coarseness: Coarseness) -> Superpixels:
    """Cut a picture ``(H, W, 3)`` uint8 into superpixels.

    Raises:
        MethodError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import felzenszwalb  # of the book, not of the library: it need not be there
    except ImportError:
        raise MethodError("superpixels need scikit-image", "`pip install scikit-image`") from None
    scale, sigma, smallest = coarseness
    labels = felzenszwalb(image, scale=scale, sigma=sigma, min_size=smallest)
    return describe(image, np.unique(labels, return_inverse=True)[1].reshape(labels.shape))


def describe(image: np.ndarray, labels: np.ndarray) -> Superpixels:
    """What the regions of a picture look like and which of them touch, given their numbers ``(H, W)``, 0..n - 1.

    Example:
        >>> describe(np.zeros((2, 4, 3), np.uint8), np.array([[0, 0, 1, 1], [0, 0, 1, 1]])).pairs.tolist()
        [[0, 1]]
    """
    gray = image.mean(axis=2)
    down, right = np.gradient(gray) if min(gray.shape) > 1 else (np.zeros_like(gray),) * 2
    gradients = np.stack([right, down], axis=2) + 127.5  # -127.5..127.5, and up to twice that at the border
    sides = (labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])
    pairs = np.concatenate([np.stack([a, b], axis=-1)[a != b] for a, b in sides])
    colors, textures = _histograms(image, COLOR_BINS, labels), _histograms(gradients, GRADIENT_BINS, labels)
    return Superpixels(labels, np.bincount(labels.ravel()), colors, textures, np.unique(np.sort(pairs), axis=0))


def _histograms(values: np.ndarray, bins: int, labels: np.ndarray) -> np.ndarray:
    """Histograms ``(n, channels * bins)`` of values ``(H, W, channels)``, cut to 0..255; each row sums to 1."""
    count, channels = labels.max() + 1, values.shape[2]
    places = (values.astype(np.float64) * bins / 255).clip(0, bins - 1).astype(int) + bins * np.arange(channels)
    cells = labels[..., None] * bins * channels + places
    found = np.bincount(cells.ravel(), minlength=count * bins * channels).reshape(count, -1)
    return found / found.sum(axis=1, keepdims=True)


class Segments(NamedTuple):
    """R candidate segments of a picture with n superpixels."""

    members: np.ndarray  #: ``(R, n)`` bool, the superpixels of each
    boxes: np.ndarray  #: ``(R, 4)``: left, top, and the first column and row beyond


def merge(parts: Superpixels) -> Segments:
    """The hierarchy of a picture's superpixels: the most similar two that touch are merged until one is left.

    Similar are those whose histograms of color and of gradients overlap, which are small, and which fill a box
    together: the sum of four measures in 0..1.

    Returns:
        The n superpixels, and each of the n - 1 merged segments in the order in which they arise.
    """
    count, area = len(parts.sizes), parts.labels.size
    total = 2 * count - 1
    members, boxes = np.zeros((total, count), bool), np.zeros((total, 4), int)
    sizes, looks = np.zeros(total), np.zeros((total, parts.colors.shape[1] + parts.textures.shape[1]))
    members[:count], boxes[:count], sizes[:count] = np.eye(count, dtype=bool), _tight(parts.labels), parts.sizes
    looks[:count] = np.concatenate([parts.colors, parts.textures], axis=1)
    touching: list[set[int]] = [set() for _ in range(total)]
    for a, b in parts.pairs.tolist():
        touching[a].add(b)
        touching[b].add(a)

    def similarity(one: int, others: list[int]) -> np.ndarray:
        together = _around(boxes[one], boxes[others])
        extent = (together[:, 2] - together[:, 0]) * (together[:, 3] - together[:, 1])
        both = sizes[one] + sizes[others]
        overlap = np.minimum(looks[one], looks[others]).sum(axis=1)  # of both histograms
        return overlap + (1 - both / area) + (1 - (extent - both) / area)

    queue: list[tuple[float, int, int]] = []  # pairs that touch, the most similar first, and some that are gone

    def put(one: int, others: list[int]) -> None:
        for other, alike in zip(others, similarity(one, others).tolist(), strict=True):
            heapq.heappush(queue, (-alike, one, other))

    for a in range(count):
        put(a, sorted(b for b in touching[a] if b > a))
    for new in range(count, total):
        first = second = -1
        while first < 0 or not (touching[first] and touching[second]):
            _, first, second = heapq.heappop(queue)
        touching[new] = (touching[first] | touching[second]) - {first, second}
        touching[first], touching[second] = set(), set()  # gone
        members[new] = members[first] | members[second]
        boxes[new], sizes[new] = _around(boxes[first], boxes[second]), sizes[first] + sizes[second]
        looks[new] = (sizes[first] * looks[first] + sizes[second] * looks[second]) / sizes[new]
        for other in touching[new]:
            touching[other] = touching[other] - {first, second} | {new}
        put(new, sorted(touching[new]))
    return Segments(members, boxes)


def _tight(labels: np.ndarray) -> np.ndarray:
    """The boxes ``(n, 4)`` around the regions 0..n - 1 of ``(H, W)``."""
    return np.array([[x.start, y.start, x.stop, y.stop] for y, x in find_objects(labels + 1)])


def _around(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The smallest boxes ``(..., 4)`` around two."""
    return np.concatenate([np.minimum(one, other)[..., :2], np.maximum(one, other)[..., 2:]], axis=-1)
