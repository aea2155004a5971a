"""Every equation of the paper in plain NumPy, with loops, for one picture at a time.

Written from the paper's text and from the settled ambiguities, not from the library: tests hold the library
against it. Shapes are the paper's with channels first: X ``(D, h, w)``, maps ``(C, h, w)``, scores ``(C,)``.
"""

from __future__ import annotations

import math

import numpy as np

VOID = 255


def softplus_with_floor(x: float, epsilon: float = 0.1) -> float:
    """Eq. 7: F(x) = log(1 + exp(x)) + epsilon."""
    return math.log(1 + math.exp(x)) + epsilon


def places(x: np.ndarray) -> list[tuple[int, int]]:
    return [(i, j) for i in range(x.shape[-2]) for j in range(x.shape[-1])]


def dense_scores(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A 1x1 convolution: w_c^T x_ij + b_c at every place, for every class."""
    out = np.zeros((len(weight), *x.shape[1:]))
    for c in range(len(weight)):
        for i, j in places(x):
            out[c, i, j] = sum(weight[c, d] * x[d, i, j] for d in range(len(x))) + bias[c]
    return out


def attention_weights(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, epsilon: float = 0.1) -> np.ndarray:
    """Eq. 1-2 (one row of weights) and Eq. 5-6 (one row a class)."""
    logits = dense_scores(x, weight, bias)
    a = np.zeros_like(logits)
    for c in range(len(logits)):
        z = {(i, j): softplus_with_floor(logits[c, i, j], epsilon) for i, j in places(x)}
        total = sum(z.values())
        for i, j in places(x):
            a[c, i, j] = z[i, j] / total
    return a


def conventional(x, w, b, v, h, epsilon=0.1) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 1-4, with a applied once: scores ``(C,)`` and the attention map ``(1, h, w)``."""
    a = attention_weights(x, w, b, epsilon)
    pooled = np.zeros(len(x))
    for i, j in places(x):
        pooled += x[:, i, j] * a[0, i, j]  # Eq. 3, summed as in Eq. 4
    return np.array([sum(v[c, d] * pooled[d] for d in range(len(x))) + h[c] for c in range(len(v))]), a


def decoupled(x, w, b, v, h, epsilon=0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eq. 5-9: scores ``(C,)``, expansive a and discriminative s ``(C, h, w)``."""
    a, s = attention_weights(x, w, b, epsilon), dense_scores(x, v, h)
    scores = np.zeros(len(v))
    for c in range(len(v)):
        for i, j in places(x):
            scores[c] += s[c, i, j] * a[c, i, j]  # Eq. 8, summed as in Eq. 9
    return scores, a, s


def single_stream(x, v, h) -> tuple[np.ndarray, np.ndarray]:
    """The ablation: the spatial mean of s."""
    s = dense_scores(x, v, h)
    return np.array([sum(s[c, i, j] for i, j in places(x)) / len(places(x)) for c in range(len(v))]), s


def loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Eq. 10 for one picture: summed over classes."""
    total = 0.0
    for p, y in zip(scores, labels, strict=True):
        total -= y * math.log(1 / (1 + math.exp(-p))) + (1 - y) * math.log(math.exp(-p) / (1 + math.exp(-p)))
    return total


def min_max(plane: np.ndarray) -> np.ndarray:
    low, high = plane.min(), plane.max()
    return np.zeros_like(plane) if low == high else (plane - low) / (high - low)


def positive_part(plane: np.ndarray) -> np.ndarray:
    plane = np.maximum(plane, 0)
    return plane / plane.max() if plane.max() > 0 else plane


def merged(a: np.ndarray, s: np.ndarray, scores: np.ndarray, present=None, normalize_s=positive_part) -> np.ndarray:
    """Eq. 11, with the softmax over all classes or over the present ones."""
    taking_part = range(len(scores)) if present is None else present
    total = sum(math.exp(scores[c]) for c in taking_part)
    out = np.zeros_like(a)
    for c in range(len(scores)):
        p_hat = math.exp(scores[c]) / total if c in taking_part else 0.0
        out[c] = p_hat * min_max(a[c]) + (1 - p_hat) * normalize_s(s[c])
    return out


def bilinear(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resizing between pixel centers, the border repeated."""
    out, (h, w) = np.zeros(size), plane.shape
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, h - 1), min(left + 1, w - 1)
            upper = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
            lower = plane[below, left] * (1 - (x - left)) + plane[below, right] * (x - left)
            out[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return out


def pseudo_annotation(maps, features, labels, size, foreground=0.2, background=0.3) -> np.ndarray:
    """Sec. III-C: resize, min-max, threshold; the smallest region wins; unclaimed pixels are void."""
    regions = {c: min_max(bilinear(maps[c], size)) > foreground for c in labels}
    feature_sum = bilinear(features.sum(axis=0), size)
    cue, varies = min_max(feature_sum), feature_sum.max() > feature_sum.min()
    out = np.full(size, VOID, np.uint8)
    for i in range(size[0]):
        for j in range(size[1]):
            claims = [c for c in labels if regions[c][i, j]]
            if claims:
                # Among regions of one size the paper is silent; the later class wins.
                out[i, j] = min(claims, key=lambda c: (regions[c].sum(), -c)) + 1
            elif varies and cue[i, j] < background:  # a constant map gives no background
                out[i, j] = 0
    return out


def class_probabilities(annotation: np.ndarray, labels, num_classes: int, tau: float) -> np.ndarray:
    """Eq. 12-13; C_I includes the background."""
    present = {0} | {k + 1 for k in labels}
    z = np.zeros((num_classes + 1, *annotation.shape))
    for i, j in places(annotation):
        for c in range(num_classes + 1):
            if c not in present:
                z[c, i, j] = 0
            elif annotation[i, j] == VOID:
                z[c, i, j] = 1 / len(present)
            elif c == annotation[i, j]:
                z[c, i, j] = tau
            else:
                z[c, i, j] = (1 - tau) / (len(present) - 1)
    return z


def scores_of_masks(prediction: np.ndarray, target: np.ndarray, num_classes: int) -> dict[str, list[float]]:
    """Eq. 14-16 per class by counting; a predicted void misses its true class and hits none."""
    out = {"iou": [], "precision": [], "recall": []}
    for c in range(num_classes):
        tp = fp = fn = 0
        for p, t in zip(prediction.ravel(), target.ravel(), strict=True):
            if t == VOID:
                continue
            tp += p == c and t == c
            fp += p == c and t != c
            fn += p != c and t == c
        out["iou"].append(tp / (tp + fp + fn) if tp + fp + fn else math.nan)
        out["precision"].append(tp / (tp + fp) if tp + fp else math.nan)
        out["recall"].append(tp / (tp + fn) if tp + fn else math.nan)
    return out


def class_activation_maps(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """CAM: sum_k w_ck X_kij."""
    return dense_scores(x, weight, np.zeros(len(weight)))


def grad_cam(x: np.ndarray, score, step: float = 1e-5) -> np.ndarray:
    """Grad-CAM of one class, whose score is a function of X; its slopes are central differences."""
    total = np.zeros(x.shape[1:])
    for k in range(len(x)):
        slopes = []
        for i, j in places(x):
            up, down = x.copy(), x.copy()
            up[k, i, j] += step
            down[k, i, j] -= step
            slopes.append((score(up) - score(down)) / (2 * step))
        total += sum(slopes) / len(slopes) * x[k]
    return np.maximum(total, 0)


def share_out(p: float, links: dict[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
    """Excitation Backprop, one unit: its P goes to those below in proportion to activation times positive weight."""
    total = sum(links.values())
    return {unit: p * link / total for unit, link in links.items()} if total > 0 else {}


def excitation_at_features(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """From a class unit with weights ``(D,)``, through the spatial mean, to P of X."""
    links = {(k, i, j): x[k, i, j] * max(weight[k], 0) / len(places(x)) for k in range(len(x)) for i, j in places(x)}
    p = np.zeros_like(x)
    for unit, received in share_out(1.0, links).items():
        p[unit] += received
    return p


def excitation_convolution(p: np.ndarray, a: np.ndarray, weight: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """From a convolution's output to its input a ``(D, h, w)``; weight ``(C, D, kh, kw)``."""
    below = np.zeros_like(a)
    for c in range(len(p)):
        for i, j in places(p):
            links = {}
            for k, m, n in np.ndindex(*weight.shape[1:]):
                y, x = i * stride + m - padding, j * stride + n - padding
                if 0 <= y < a.shape[1] and 0 <= x < a.shape[2]:
                    links[k, y, x] = a[k, y, x] * max(weight[c, k, m, n], 0)
            for unit, received in share_out(p[c, i, j], links).items():
                below[unit] += received
    return below


def excitation_max_pool(p: np.ndarray, a: np.ndarray, size: int) -> np.ndarray:
    """From the output of max pooling to its input: the winner takes all."""
    below = np.zeros_like(a)
    for c in range(len(p)):
        for i, j in places(p):
            window = [(c, i * size + m, j * size + n) for m in range(size) for n in range(size)]
            below[max(window, key=lambda unit: a[unit])] += p[c, i, j]
    return below


def gaussian(features: np.ndarray) -> np.ndarray:
    """k(f_i, f_j) of a dense CRF, normalized: (N, N) for features (N, d)."""
    kernel = np.array([[math.exp(-((f - g) ** 2).sum() / 2) for g in features] for f in features])
    n = kernel.sum(axis=1)
    return kernel / np.sqrt(np.outer(n, n))


def dense_crf(image: np.ndarray, unary: np.ndarray, params) -> np.ndarray:
    """Mean field of a dense CRF over all pairs of pixels: marginals (K, H, W) for energies (K, H, W)."""
    where = np.array(places(image[..., 0]), float)
    color = image.reshape(-1, 3).astype(float)
    smooth = gaussian(where / params.smooth_xy)
    appearance = gaussian(np.concatenate([where / params.bilateral_xy, color / params.bilateral_rgb], axis=1))
    energies = unary.reshape(len(unary), -1).astype(float)
    q = np.exp(-energies) / np.exp(-energies).sum(axis=0)
    for _ in range(params.iterations):
        same = params.smooth_weight * q @ smooth + params.bilateral_weight * q @ appearance
        likely = np.exp(same - energies - (same - energies).max(axis=0))
        q = likely / likely.sum(axis=0)
    return q.reshape(unary.shape)


def permutohedral(features: np.ndarray) -> np.ndarray:
    """The filter of the permutohedral lattice as a matrix (N, N), for features (N, d).

    By what the lattice is, and not by how its simplices are found: points are integer vectors up to multiples of
    (1, ..., 1), and the weight of one for a feature at y from it falls linearly to 0 as 1 - (max y - min y).
    """
    d = features.shape[1]
    scale = math.sqrt(2 / 3) * (d + 1)
    lifted = np.zeros((len(features), d + 1))
    for k in range(1, d + 1):
        lifted[:, :k] += features[:, k - 1 : k] * scale / math.sqrt(k * (k + 1))
        lifted[:, k] -= features[:, k - 1] * scale * k / math.sqrt(k * (k + 1))
    x = (lifted[:, :d] - lifted[:, d:]) / (d + 1)  # the last coordinate made 0
    sides = [range(math.floor(low), math.ceil(high) + 1) for low, high in zip(x.min(0), x.max(0), strict=True)]
    points = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, d)
    y = np.concatenate([x[:, None] - points, np.zeros((len(x), len(points), 1))], axis=2)
    weights = np.maximum(0, 1 - (y.max(axis=2) - y.min(axis=2)))
    points, weights = points[weights.any(axis=0)], weights[:, weights.any(axis=0)]
    number = {tuple(point): k for k, point in enumerate(points.tolist())}
    values = weights.T
    for step in (*np.eye(d, dtype=int), np.ones(d, dtype=int)):
        blurred = values.copy()
        for point, k in number.items():
            for neighbor in (tuple((point + step).tolist()), tuple((point - step).tolist())):
                if neighbor in number:
                    blurred[k] += values[number[neighbor]] / 2
        values = blurred
    return weights @ values
