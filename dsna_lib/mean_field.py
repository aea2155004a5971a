r"""The dense CRF's mean field, in PyTorch (Kraehenbuehl and Koltun, NIPS 2011; the lattice of Adams et al., 2010).

A labeling x of the pixels i costs the unary energies u and, for each pair of pixels with different labels, what kernels
k_m of weights w_m say of their features f (position, or position and color):

.. math::
    E(x) = \sum_i u_i(x_i) + \sum_{i < j} [x_i \ne x_j] \sum_m w_m \tilde k_m(f_i, f_j).

The kernels are Gaussian, and normalized:

.. math::
    k(f_i, f_j) = e^{-|f_i - f_j|^2 / 2}, \quad
    \tilde k(f_i, f_j) = \frac{k(f_i, f_j)}{\sqrt{n_i n_j}}, \quad n_i = \sum_j k(f_i, f_j).

Mean field looks for the product of marginals Q that is nearest to the distribution exp(-E), in rounds:

.. math::
    Q_i \leftarrow \operatorname{softmax}\Big(-u_i + \sum_m w_m \sum_j \tilde k_m(f_i, f_j) \, Q_j\Big).

Two pixels of one label are spared the cost of two, hence the plus. As in the authors' code, which pydensecrf wraps, a
pixel sends a message to itself, too: j = i is not left out.

The sum over j is a Gaussian filter in d dimensions, of all pixels at once. The permutohedral lattice makes it linear in
their number: the integer points of R^(d+1) whose coordinates sum to 0 and leave one remainder when divided by d + 1.
They cut the space into simplices, whose d + 1 corners are found by sorting. Values are *splatted* to the corners around
their feature, with barycentric weights; *blurred* by (1/2, 1, 1/2) along each of the d + 1 directions of the lattice,
where a point that nobody splatted to counts as 0; and *sliced*, read with the weights with which they were written.
Each of these steps sums weighted rows of a table: one call of ``embedding_bag``, which runs wherever PyTorch does and
has a gradient. Factors that are the same for all pixels cancel in the normalization and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from dsna_lib.config.annotation import CRFParams
from dsna_lib.engine.errors import SettingError

Filter = Callable[[Tensor], Tensor]  # (N, K) values of the pixels to as many


def marginals(
    image: np.ndarray, unary: np.ndarray, params: CRFParams, device: torch.device | str = "cpu", exact: bool = False
) -> np.ndarray:
    """How likely each class is at each pixel, ``(K, H, W)`` float32, sums to 1.

    Args:
        image: ``(H, W, 3)`` uint8, raw RGB.
        unary: ``(K, H, W)`` energies, such as -log of probabilities.
        params: of both kernels, and the number of rounds.
        device: where to compute.
        exact: sum over all pairs of pixels instead of on the lattice; for pictures of at most some thousand pixels.

    Raises:
        SettingError: see :func:`lattice`.
    """
    positions, colors = (features.to(device) for features in _positions_and_colors(image))
    appearance = torch.cat([positions / params.bilateral_xy, colors / params.bilateral_rgb], dim=1)
    make = exact_filter if exact else lattice
    kernels = [
        (params.smooth_weight, normalized(make(positions / params.smooth_xy), positions)),
        (params.bilateral_weight, normalized(make(appearance), positions)),
    ]
    energies = torch.from_numpy(np.ascontiguousarray(unary, np.float32)).to(device).flatten(1).t().contiguous()
    q = mean_field(energies, kernels, params.iterations)
    return q.t().reshape(unary.shape).cpu().numpy()


def _positions_and_colors(image: np.ndarray) -> tuple[Tensor, Tensor]:
    """Of each pixel, row by row: (x, y) and (r, g, b), each ``(N, ...)`` float32."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in image.shape[:2]), indexing="ij")
    positions = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
    return positions.float(), torch.tensor(np.ascontiguousarray(image)).reshape(-1, 3).float()


def mean_field(unary: Tensor, kernels: Sequence[tuple[float, Filter]], iterations: int) -> Tensor:
    """The marginals Q ``(N, K)`` after some rounds; it has a gradient with respect to the unary energies ``(N, K)``.

    Args:
        unary: energies u.
        kernels: pairs of a weight w and what sums over j, see :func:`normalized`.
        iterations: rounds; 0 gives the softmax of -u.

    Example:
        >>> mean_field(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), [(1.0, lambda q: q.flip(0))], 1)  # each hears the other
        tensor([[0.6321, 0.3679],
                [0.3679, 0.6321]])
    """
    q = (-unary).softmax(dim=1)
    for _ in range(iterations):
        heard = torch.stack([weight * kernel(q) for weight, kernel in kernels]).sum(dim=0)
        q = (heard - unary).softmax(dim=1)
    return q


def normalized(kernel: Filter, like: Tensor) -> Filter:
    """The kernel over the square roots of n_i and n_j; `like` has a row for each pixel, and device and type."""
    root = (kernel(torch.ones_like(like[:, :1])) + 1e-20).rsqrt()
    return lambda values: root * kernel(root * values)


def exact_filter(features: Tensor) -> Filter:
    """The sum over all pairs, for features ``(N, d)``: N x N numbers in memory."""
    kernel = (-(features[:, None] - features).square().sum(dim=-1) / 2).exp()
    return lambda values: kernel @ values


class Sums(NamedTuple):
    """Weighted sums of rows of a table, each a row of the next: ``rows`` and ``weights`` of each sum.

    Both are ``(M, n)`` for M sums of n rows, or flat, where `starts` ``(M,)`` says where each sum begins.
    """

    rows: Tensor
    weights: Tensor
    starts: Tensor | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """The sums of the rows of a table ``(N, K)``, ``(M, K)``."""
        return embedding_bag(self.rows, values, self.starts, mode="sum", per_sample_weights=self.weights)


def lattice(features: Tensor) -> Filter:
    """The Gaussian filter of features ``(N, d)``, up to a factor, on the permutohedral lattice.

    Raises:
        SettingError: features so far apart that their lattice has no numbers for its points.
    """
    keys, weights, directions = corners(features)
    # Sorted by key, what belongs to one point of the lattice is one run; the point's number is that of its run.
    ordered, order = keys.flatten().sort(stable=True)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    points, starts = ordered[first], first.nonzero().flatten().int()
    numbers = torch.empty_like(order, dtype=torch.int32)
    numbers[order] = first.cumsum(dim=0, dtype=torch.int32) - 1
    splat = Sums((order // keys.shape[1]).int(), weights.flatten()[order], starts)
    steps = [splat, *_blurs(points, directions, weights.dtype), Sums(numbers.view_as(keys), weights)]

    def apply(values: Tensor) -> Tensor:
        for step in steps:
            values = step(values)
        return values

    return apply


def corners(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The corners of the simplex around each feature ``(N, d)``.

    A point of the lattice goes by its key, a number that is linear in its coordinates: along one direction all keys
    grow by the same.

    Returns:
        Keys ``(N, d + 1)`` int64, barycentric weights ``(N, d + 1)``, which sum to 1, and what a step along each of the
        directions adds to a key ``(d + 1,)``.

    Raises:
        SettingError: see :func:`lattice`.
    """
    d = features.shape[1]
    elevated = elevate(features)
    # The nearest point of remainder 0: round, then mend the sum, which is off by some multiple of d + 1, where rounding
    # was worst. Ranks tell by how much it was off, from 0 for what was rounded down most.
    multiples = (elevated / (d + 1)).round()
    order = (elevated - multiples * (d + 1)).argsort(dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(d + 1, device=order.device).expand_as(order))
    ranks += multiples.sum(dim=1, keepdim=True).long()
    wrapped = (ranks < 0).long() - (ranks > d).long()
    ranks += wrapped * (d + 1)
    nearest = (multiples.long() + wrapped) * (d + 1)
    # From the last rank to the first, how far the feature is beyond the nearest point; differences are the weights.
    beyond = torch.empty_like(elevated).scatter_(1, d - ranks, (elevated - nearest) / (d + 1))
    weights = beyond - beyond.roll(1, dims=1)
    weights[:, 0] += 1
    strides = _strides(nearest)
    steps = strides.sum() - (d + 1) * strides  # one up in each coordinate, but d down in one of them
    # Each corner is one such step from the one before it, down in the coordinate of the last rank, then of that before.
    walk = torch.empty_like(ranks).scatter_(1, d - ranks, steps.expand_as(ranks))[:, :d]
    keys = torch.cat([(nearest * strides).sum(dim=1, keepdim=True), walk], dim=1).cumsum(dim=1)
    return keys, weights, steps


def elevate(features: Tensor) -> Tensor:
    """Features ``(N, d)`` in the plane of R^(d+1) whose coordinates sum to 0, where the lattice is, ``(N, d + 1)``.

    They are scaled so that the lattice's steps, of splatting, blurring and slicing together, have the standard
    deviation 1 (Adams et al., p. 5 and 6).
    """
    d = features.shape[1]
    place = torch.arange(1, d + 1, dtype=torch.float64)
    # Columns are orthogonal: k ones, -k below them, zeros.
    basis = (torch.ones(d + 1, d + 1, dtype=torch.float64).triu() - torch.diag(place, -1))[:, :d]
    scales = math.sqrt(2 / 3) * (d + 1) / (place * (place + 1)).sqrt()
    # Not a matrix product: autocast would compute one in half precision.
    return (features[:, None] * (basis * scales).to(features)).sum(dim=-1)


def _strides(nearest: Tensor) -> Tensor:
    """What one more in each coordinate adds to a key, ``(d + 1,)``, so that no two points have the same."""
    d = nearest.shape[1] - 1
    # Corners and their neighbors are at most 2 d away. The last coordinate follows from the others.
    widths = (nearest[:, :d].amax(dim=0) - nearest[:, :d].amin(dim=0) + 4 * d + 1).tolist()
    if math.prod(widths) >= 2**63:
        raise SettingError("the CRF's deviations are too small for this picture", "raise `bilateral_rgb`")
    return torch.tensor([*(math.prod(widths[:k]) for k in range(d)), 0], device=nearest.device)


def _blurs(points: Tensor, directions: Tensor, dtype: torch.dtype) -> list[Sums]:
    """(1/2, 1, 1/2) along each direction, for points of the lattice by their sorted keys ``(M,)``."""
    own, blurs = torch.arange(len(points), device=points.device), []
    for direction in directions:
        rows, weights = [own], [torch.ones_like(own, dtype=dtype)]
        for wanted in (points + direction, points - direction):
            there = torch.searchsorted(points, wanted).clamp_max(len(points) - 1)
            rows.append(there)
            weights.append((points[there] == wanted).to(dtype) / 2)
        blurs.append(Sums(torch.stack(rows, dim=1).int(), torch.stack(weights, dim=1)))
    return blurs
