"""The discriminative part is small, colors tell no more than the family, and a texture suggests the class."""

import numpy as np
import pytest

from dsna_lib.data.minivoc import animals
from dsna_lib.data.minivoc.canvas import Dice


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
    """The same dice give relatives the same color: it does not tell the class."""
    bodies = []
    for name in animals.FAMILIES[family]:
        sheet = animals._drawn(name, 32.0, 5)
        counts = np.bincount(sheet.canvas.ravel(), minlength=len(sheet.paints))
        body = [color for _, (color, part) in sorted(zip(counts, sheet.paints, strict=True), reverse=True) if not part]
        bodies.append(body[1])  # behind the unpainted sheet, the largest paint is the coat
    assert len(set(bodies)) == 1


@pytest.mark.parametrize("name", animals.CLASS_NAMES)
def test_most_animals_of_a_class_wear_its_usual_texture(name):
    """Told from how many pieces it is made of, without the dice that the drawing throws."""
    pieces = {11: "stripes", 34: "fur or spots", 84: "scales"}
    worn = []

    class Counting:
        def fill(self, *_, on):
            worn[-1] += 1

    for key in range(400):
        worn.append(0)
        animals._texture(Counting(), Dice(key), name, (100, 100, 100), body=1)
    usual = {"fur": "fur or spots", "spots": "fur or spots"}
    texture = animals._TEXTURES[animals.FAMILIES[animals.FAMILY_OF[name]].index(name)]
    shares = {kind: np.mean([pieces[count] == kind for count in worn]) for kind in pieces.values()}
    expected = 0.85 if texture in usual else 0.775  # two textures of four look alike in this count
    assert shares[usual.get(texture, texture)] == pytest.approx(expected, abs=0.06)
    assert all(share > 0.03 for share in shares.values())
