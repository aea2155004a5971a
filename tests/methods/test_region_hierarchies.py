"""AF-MCG: hierarchies and pairs by hand, and boundaries as drawn; what is made of proposals is AF-SS's test."""

from __future__ import annotations

import numpy as np

from dsna_lib.methods.cam import CAM
from dsna_lib.methods.region_hierarchies import AF_MCG, _boundaries, grouped, proposals

ROW = np.arange(4).repeat(2)[None].repeat(3, axis=0)  # four regions side by side, 0 0 1 1 2 2 3 3


def named(members: np.ndarray) -> set[str]:
    return {"".join(map(str, np.flatnonzero(row))) for row in members}


def test_the_weakest_boundary_goes_first() -> None:
    """Boundaries of 1, 3 and 2: 0 and 1 become one, then 2 and 3. Of three regions side by side, two pairs touch."""
    strength = np.array([0, 1, 1, 3, 3, 2, 2, 0.0])[None].repeat(3, axis=0)
    boundaries = {pair: tuple(values) for pair, values in _boundaries(ROW, strength).items()}
    assert boundaries == {(0, 1): (3, 3), (1, 2): (9, 3), (2, 3): (6, 3)}
    wanted = {"0", "1", "2", "3", "01", "23", "0123"} | {"12", "012"}
    assert named(grouped(ROW, strength)) == wanted
    strength = np.array([0, 3, 3, 1, 1, 2, 2, 0.0])[None].repeat(3, axis=0)
    assert named(grouped(ROW, strength)) == {"0", "1", "2", "3", "12", "123", "0123", "01", "23", "012"}


def test_a_boundary_of_two_parts_is_their_mean() -> None:
    """0 and 1 merge. What parts them from 2 is 4 along one pixel and 1 along two: 2, so that 2 and 3 merge at 1.9."""
    labels = np.array([[0, 2, 2, 3], [1, 2, 2, 3], [1, 2, 2, 3]])
    values = {(0, 1): (0.0, 1), (0, 2): (4.0, 1), (1, 2): (2.0, 2), (2, 3): (1.9 * 3, 3)}
    strength = np.array([[4, 4, 1.9, 1.9], [1, 1, 1.9, 1.9], [1, 1, 1.9, 1.9]])
    strength[0, 0], strength[0, 1] = -1 + 0, 9 - 0  # 4 between them, and (-1 + 1) / 2 = 0 below
    found = {pair: tuple(each) for pair, each in _boundaries(labels, strength).items()}
    assert found.keys() == values.keys()
    np.testing.assert_allclose([found[pair] for pair in values], list(values.values()))
    merged = grouped(labels, strength)[4:7]
    assert [named(row[None]) for row in merged] == [{"01"}, {"23"}, {"0123"}]
    strength[:, 2:] = 3.1  # 2 is less
    strength[0, 1], strength[1:, 1] = 9 - 1.2, 1
    merged = grouped(labels, strength)[4:7]
    assert [named(row[None]) for row in merged] == [{"01"}, {"012"}, {"0123"}]


def test_a_drawn_object_is_a_proposal() -> None:
    """Two halves of a bright square, on ground that is cut in two: the square is proposed, each proposal once."""
    image = np.full((40, 40, 3), 60, np.uint8)
    image[10:30, 10:30] = 220
    labels = np.zeros((40, 40), int)
    labels[:, 20:] = 1
    labels[10:30, 10:20], labels[10:30, 20:30] = 2, 3
    found = proposals(image, labels)
    assert {"23", "01"} <= named(found)
    assert len(np.unique(found, axis=0)) == len(found)
    assert named(proposals(image, np.zeros((40, 40), int))) == {"0"}


def test_its_row() -> None:
    assert (AF_MCG.title, AF_MCG.paper) == ("AF-MCG", 54.3)
    assert AF_MCG.trains == CAM.trains
