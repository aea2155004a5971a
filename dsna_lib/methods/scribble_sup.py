r"""ScribbleSup: a few strokes, spread over the picture by a graph of superpixels.

A superpixel that a stroke touches has the stroke's class; the others agree with what the network believes and with
neighbors that look like them. The labels y of the superpixels minimize

.. math:: \sum_i \psi^{scr}_i(y_i) + \sum_i \psi^{net}_i(y_i) + \sum_{i \sim j} [y_i \ne y_j]
    \exp\Big(-\frac{\|h^c_i - h^c_j\|^2}{\delta_c^2} - \frac{\|h^t_i - h^t_j\|^2}{\delta_t^2}\Big)

with :math:`\psi^{scr}_i` infinite for every class but that of a stroke on superpixel i, and otherwise the same for all
classes of the picture; :math:`\psi^{net}_i = -\log P` of the network; and h the histograms of color (25 bins a channel)
and of gradients (10 bins a direction) of superpixels that touch.

Source: Lin, Dai, Jia, He and Sun, "ScribbleSup: Scribble-Supervised Convolutional Networks for Semantic Segmentation",
CVPR 2016. With scribbles it is the first row of Table IV, with points the second.

Decided here:

- *Turns.* ScribbleSup takes turns between this graph and the network. Here is one, with the opinion of a classifier in
  place of the network's: see :mod:`dsna_lib.methods.from_help`. The points of our data sets lie on objects only, so
  the background is known from that opinion alone.
- *Scales.* :math:`\psi^{net}_i` is the mean over a superpixel's pixels: their sum would drown the pairs, of at most 1
  each. A histogram sums to 1, and :math:`\delta^2` is the mean of the squared distances over the picture's pairs, as
  in Boykov and Jolly's and in GrabCut's graphs; ScribbleSup's 5 and 10 suit histograms of another scale.
- *Superpixels.* With the values that Felzenszwalb and Huttenlocher's own program has for pictures of this size.
- *Solver.* Alpha-expansion (Boykov, Veksler and Zabih, PAMI 2001) until nothing changes: with two labels the minimum,
  with more within a factor of 2 of it. SciPy's maximum flow stands in for Boykov and Kolmogorov's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from dsna_lib.data.marks import Point
from dsna_lib.data.pictures import VOID
from dsna_lib.methods.from_help import HelpMethod
from dsna_lib.methods.superpixels import FELZENSZWALB, Superpixels, superpixels
from dsna_lib.methods.table_iv import printed

_STEPS = 10_000  # of a unit of energy: flows are whole numbers
_NEVER = 10_000.0  # an energy above that of all pairs of a superpixel


def alpha_expansion(unary: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    r"""Labels y that make :math:`\sum_i u_{i,y_i} + \sum_{ij} w_{ij} [y_i \ne y_j]` small.

    From the cheapest label of each node on, one label after the other may take over any of the nodes: a minimum cut.

    Args:
        unary: ``(n, K)`` costs of labels, up to 10,000.
        pairs: ``(E, 2)`` nodes, each pair once.
        weights: ``(E,)`` costs of a difference, from 0 on.

    Returns:
        ``(n,)`` labels.

    Example:
        >>> unary, pairs = np.array([[0.0, 9.0], [0.6, 0.5], [9.0, 0.0]]), np.array([[0, 1], [1, 2]])
        >>> alpha_expansion(unary, pairs, np.array([0.5, 0.2]))
        array([0, 0, 1])
    """
    labels, best = unary.argmin(axis=1), np.inf
    while (energy := _energy(labels, unary, pairs, weights)) < best:
        best, kept = energy, labels
        for alpha in range(unary.shape[1]):
            labels = np.where(_expansion(labels, alpha, unary, pairs, weights), alpha, labels)
    return kept


def _energy(labels: np.ndarray, unary: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> float:
    """In whole steps, so that rounding never looks like progress."""
    differ = labels[pairs[:, 0]] != labels[pairs[:, 1]]
    return _whole(unary[np.arange(len(labels)), labels]).sum() + _whole(weights[differ]).sum()


def _whole(energy: np.ndarray) -> np.ndarray:
    return np.rint(energy * _STEPS).astype(np.int64)


def _expansion(labels: np.ndarray, alpha: int, unary: np.ndarray, pairs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Which nodes ``(n,)`` bool take the label alpha in the best expansion, the fewest: the sink's side of a cut."""
    count, (first, second), costs = len(labels), pairs.T, _whole(weights)
    # Of a pair: both keep, the first keeps and the second takes alpha, the reverse; both alpha costs nothing.
    keep = costs * (labels[first] != labels[second])
    later, earlier = costs * (labels[first] != alpha), costs * (labels[second] != alpha)
    # Kolmogorov and Zabih, PAMI 2004: keep + (earlier - keep) x_i - earlier x_j + (later + earlier - keep) (1-x_i) x_j
    taking = _whole(unary[:, alpha]) - _whole(unary[np.arange(count), labels])
    np.add.at(taking, first, earlier - keep)
    np.add.at(taking, second, -earlier)
    nodes, source, sink = np.arange(count), count, count + 1
    starts = np.concatenate([np.full(count, source), nodes, first]).astype(np.int32)
    ends = np.concatenate([nodes, np.full(count, sink), second]).astype(np.int32)
    room = np.concatenate([taking.clip(min=0), (-taking).clip(min=0), later + earlier - keep]).astype(np.int32)
    graph = csr_array((room, (starts, ends)), shape=(count + 2, count + 2))
    left = (graph - maximum_flow(graph, source, sink).flow).T.tocsr()  # what still could flow, from the sink back
    left.eliminate_zeros()
    return np.isin(nodes, breadth_first_order(left, sink, return_predecessors=False))


def pair_weights(parts: Superpixels) -> np.ndarray:
    """How much alike the superpixels of each pair are ``(E,)``, in 0..1."""

    def distances(histograms: np.ndarray) -> np.ndarray:
        squared = ((histograms[parts.pairs[:, 0]] - histograms[parts.pairs[:, 1]]) ** 2).sum(axis=1)
        return squared / max(squared.mean(), 1e-12) if len(squared) else squared

    return np.exp(-distances(parts.colors) - distances(parts.textures))


def from_scribbles(image: np.ndarray, scribbles: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """A :data:`~dsna_lib.methods.from_help.Labeler` of scribbles ``(H, W)``: class indices, 255 where none is."""
    parts = superpixels(image, FELZENSZWALB)
    count, drawn = len(parts.sizes), scribbles != VOID
    # Classes that take part: those of the image label, of which the classifier has an opinion, and those drawn.
    classes = np.union1d(np.flatnonzero(np.isfinite(costs[:, 0, 0])), scribbles[drawn])
    cells = np.where(np.isfinite(costs), costs, costs[0])[classes].reshape(len(classes), -1)
    unary = np.stack([np.bincount(parts.labels.ravel(), cell) for cell in cells], axis=1) / parts.sizes[:, None]
    touched = np.zeros((count, len(classes)))
    np.add.at(touched, (parts.labels[drawn], np.searchsorted(classes, scribbles[drawn])), 1)
    told = touched.any(axis=1)  # by the class that covers most of it, where there are several
    unary[told] = np.where(np.arange(len(classes)) == touched[told].argmax(axis=1)[:, None], 0, _NEVER)
    return classes[alpha_expansion(unary, parts.pairs, pair_weights(parts))][parts.labels].astype(np.uint8)


def from_points(image: np.ndarray, points: Sequence[Point], costs: np.ndarray) -> np.ndarray:
    """A :data:`~dsna_lib.methods.from_help.Labeler` of points: scribbles of one pixel."""
    scribbles = np.full(image.shape[:2], VOID, np.uint8)
    for point in points:
        scribbles[point.y, point.x] = point.label + 1
    return from_scribbles(image, scribbles, costs)


SCRIBBLE_SUP = HelpMethod("ScribbleSup", "scribbles", from_scribbles, printed("ScribbleSup"))
SCRIBBLE_SUP_POINTS = HelpMethod("ScribbleSup (point)", "points", from_points, printed("ScribbleSup (point)"))
ROWS = (SCRIBBLE_SUP, SCRIBBLE_SUP_POINTS)
