"""Guide labels: each of the ways in which seeds and salient components meet."""

from __future__ import annotations

import numpy as np

from dsna_lib import crf
from dsna_lib.data.pictures import VOID
from dsna_lib.methods.guided_labeling import guide, share_out


def picture(*rows: str) -> np.ndarray:
    """Digits are classes, dots nothing."""
    return np.array([[0 if each == "." else int(each) for each in row] for row in rows], np.uint8)


def never(inside: np.ndarray, labels: list[int]) -> np.ndarray:
    raise AssertionError("a component of one class is not shared out")


def test_a_component_takes_the_class_of_its_seeds_which_end_where_it_ends():
    """A second seed of the class lies apart from the first, and is not cut off."""
    seeds = picture("...22..", ".2....2", ".......")
    salient = picture("1111...", "1111...", "1111...") == 1
    assert (guide(seeds, salient, never) == picture("2222...", "2222..2", "2222...")).all()


def test_a_seed_apart_stays_and_a_component_without_one_is_void():
    seeds, salient = picture("3...", "...."), picture("...1", "...1") == 1
    wanted = picture("3...", "....")
    wanted[:, 3] = VOID
    assert (guide(seeds, salient, never) == wanted).all()


def test_corners_do_not_join_components():
    seeds, salient = picture("2..", "..."), picture("1..", ".1.") == 1
    found = guide(seeds, salient, never)
    assert (found[0, 0], found[1, 1]) == (2, VOID)


def test_a_component_of_several_classes_is_shared_out_and_nothing_else_is():
    seeds, salient = picture("1..2.3", "......"), picture("1111..", "......") == 1
    given = []

    def share(inside: np.ndarray, labels: list[int]) -> np.ndarray:
        given.append((inside.tolist(), labels))
        return np.full_like(inside, 2)

    found = guide(seeds, salient, share)
    assert given == [([[1, VOID, VOID, 2, VOID, VOID], [VOID] * 6], [0, 1])]
    assert (found == picture("2222.3", "......")).all()


def test_the_crf_shares_a_component_out_along_an_edge():
    """Half of the picture is red, half is blue; each half has a seed."""
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :18, 0], image[:, 18:, 2] = 255, 255
    seeds = np.full((20, 30), VOID, np.uint8)
    seeds[5:15, 2:8], seeds[5:15, 24:28] = 3, 1
    found = share_out(image, 4, 0.7, "sec", seeds, [0, 2])
    assert (found[:, :18] == 3).all()
    assert (found[:, 18:] == 1).all()


def test_the_background_takes_no_part_in_that(monkeypatch):
    """Eq. 12-13 for three classes, the first of which is taken away."""
    monkeypatch.setattr(crf, "refine", lambda image, likely, params: likely)
    likely = share_out(np.zeros((1, 2, 3), np.uint8), 4, 0.7, "sec", np.array([[3, VOID]], np.uint8), [0, 2])
    wanted = np.zeros((5, 2))
    wanted[1], wanted[3] = (0.15 / 0.85, 1 / 2), (0.7 / 0.85, 1 / 2)
    np.testing.assert_allclose(likely[:, 0], wanted, rtol=1e-6)
