"""The dense CRF in PyTorch against loops over all pairs, against the lattice's definition, and against pydensecrf."""

from __future__ import annotations

import numpy as np
import numpy_reference as reference
import pytest
import skimage
import torch
from PIL import Image
from tiny import needs_pydensecrf

from dsna_lib import crf, mean_field
from dsna_lib.config.annotation import PRESETS, CRFParams
from dsna_lib.engine.errors import SettingError

SMALL = CRFParams(smooth_xy=1, bilateral_xy=4, bilateral_rgb=30, iterations=3)


def photograph(name: str, size: tuple[int, int]) -> np.ndarray:
    """A photograph of scikit-image, width x height."""
    return np.array(Image.fromarray(getattr(skimage.data, name)()).resize(size))


def energies(size: tuple[int, int], classes: int, seed: int = 0) -> np.ndarray:
    """Smooth blobs of belief, width x height: energies (K, H, W)."""
    coarse = np.random.default_rng(seed).normal(size=(classes, 6, 6)).astype(np.float32)
    logits = np.stack([np.asarray(Image.fromarray(2 * plane).resize(size)) for plane in coarse])
    return np.log(np.exp(logits).sum(axis=0)) - logits


@pytest.mark.parametrize("d, count, spread", [(1, 30, 2.0), (2, 60, 1.5), (3, 30, 0.8), (5, 12, 0.3)])
def test_the_lattice_is_what_it_is_defined_as(d, count, spread):
    features = np.random.default_rng(d).normal(size=(count, d)) * spread
    kernel = mean_field.lattice(torch.from_numpy(features))
    got = kernel(torch.eye(count, dtype=torch.float64))
    np.testing.assert_allclose(got, reference.permutohedral(features), atol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_corners_surround_their_feature(d):
    """Keys are linear in the coordinates: those of the corners, weighted, give that of the feature in between."""
    features = torch.randn(50, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    keys, weights, steps = mean_field.corners(features)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(50, dtype=torch.float64))
    strides = (steps[-1] - steps).double() / (d + 1)
    torch.testing.assert_close((weights * keys).sum(dim=1), (mean_field.elevate(features) * strides).sum(dim=1))


def test_distances_are_those_of_the_plane():
    """Lifting keeps angles; lengths grow by the deviation of the lattice's steps."""
    features = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lifted = mean_field.elevate(features)
    torch.testing.assert_close(lifted.sum(dim=1), torch.zeros(20, dtype=torch.float64))
    torch.testing.assert_close(torch.cdist(lifted, lifted), 4 * (2 / 3) ** 0.5 * torch.cdist(features, features))


@pytest.mark.parametrize("classes", [2, 3])
def test_summed_over_all_pairs_it_is_mean_field(classes):
    image, unary = photograph("astronaut", (11, 9)), energies((11, 9), classes)
    expected = reference.dense_crf(image, unary, SMALL)
    assert abs(expected - np.exp(-unary)).mean() > 0.02  # the rounds do something
    np.testing.assert_allclose(mean_field.marginals(image, unary, SMALL, exact=True), expected, atol=1e-5)


@needs_pydensecrf
def test_the_lattice_is_as_far_from_all_pairs_as_that_of_pydensecrf():
    image, unary = photograph("astronaut", (30, 24)), energies((30, 24), 3)
    exact, ours = (mean_field.marginals(image, unary, SMALL, exact=exact) for exact in (True, False))
    theirs = crf._by_pydensecrf(image, unary, SMALL)
    assert abs(theirs - exact).mean() > 1e-3  # an approximation
    assert abs(ours - exact).mean() == pytest.approx(abs(theirs - exact).mean(), abs=1e-5)


@needs_pydensecrf
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name, classes", [("astronaut", 2), ("chelsea", 4), ("coffee", 3)])
def test_photographs_get_the_marginals_of_pydensecrf(name, classes, preset):
    image, unary = photograph(name, (150, 101)), energies((150, 101), classes)
    ours = mean_field.marginals(image, unary, PRESETS[preset])
    theirs = crf._by_pydensecrf(image, unary, PRESETS[preset])
    assert ours.dtype == np.float32
    assert (ours.argmax(axis=0) == theirs.argmax(axis=0)).mean() >= 0.995
    assert abs(ours - theirs).mean() < 1e-4


def test_the_gradient_is_that_of_differences():
    generator = torch.Generator().manual_seed(0)
    features, unary = (torch.randn(6, n, dtype=torch.float64, generator=generator) for n in (2, 3))
    kernel = mean_field.normalized(mean_field.lattice(features), features)
    assert torch.autograd.gradcheck(
        lambda energies: mean_field.mean_field(energies, [(2.0, kernel)], 3), unary.requires_grad_()
    )


def test_autocast_does_not_lower_its_precision():
    image, unary = photograph("chelsea", (30, 20)), energies((30, 20), 3)
    with torch.autocast("cpu", torch.bfloat16):
        got = mean_field.marginals(image, unary, SMALL)
    np.testing.assert_array_equal(got, mean_field.marginals(image, unary, SMALL))


def test_it_is_deterministic_and_takes_read_only_pictures_of_any_memory_order():
    image, unary = photograph("chelsea", (30, 20)), energies((30, 20), 3)
    first = mean_field.marginals(image, unary, SMALL)
    other = np.asfortranarray(image)
    other.flags.writeable = False
    np.testing.assert_array_equal(mean_field.marginals(other, np.asfortranarray(unary), SMALL), first)


def test_without_rounds_the_marginals_are_those_of_the_energies():
    image, unary = photograph("chelsea", (30, 20)), energies((30, 20), 3)
    got = mean_field.marginals(image, unary, CRFParams(iterations=0))
    np.testing.assert_allclose(got, np.exp(-unary), atol=1e-6)


def test_deviations_below_what_the_lattice_can_number():
    with pytest.raises(SettingError, match=r"too small for this picture; raise `bilateral_rgb`"):
        mean_field.marginals(photograph("chelsea", (9, 9)), energies((9, 9), 2), CRFParams(bilateral_rgb=1e-4))
