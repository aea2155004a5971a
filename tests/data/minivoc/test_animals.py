"""The telling part is small, and without it an animal tells no more than its family."""

import numpy as np
import pytest

from dsna_lib.data.minivoc import animals


@pytest.mark.parametrize("name", animals.CLASS_NAMES)
def test_the_part_is_small(name):
    shares = []
    for key in range(8):
        sheet = animals._drawn(name, 32.0, key)
        counts = np.bincount(sheet.canvas.ravel(), minlength=len(sheet.paints))
        shares.append(counts[[part for _, part in sheet.paints]].sum() / counts[1:].sum())
    assert 0.08 < np.mean(shares) < 0.16


@pytest.mark.parametrize("family", animals.FAMILIES)
def test_a_family_shares_its_bodies(family):
    """The same dice give relatives the same coat: without its part, an animal does not tell its class."""
    bodies = []
    for name in animals.FAMILIES[family]:
        sheet = animals._drawn(name, 32.0, 5)
        counts = np.bincount(sheet.canvas.ravel(), minlength=len(sheet.paints))
        body = [color for _, (color, part) in sorted(zip(counts, sheet.paints, strict=True), reverse=True) if not part]
        bodies.append(body[1])  # behind the unpainted sheet, the largest paint is the coat
    assert len(set(bodies)) == 1
