"""Polygons are filled exactly, whichever way round they are given."""

import numpy as np

from dsna_lib.data.minivoc import canvas


def test_polygon_fill_by_hand():
    """A square from (1, 1) to (3, 4) covers 2 x 3 pixels; a shape off the canvas covers none."""
    square = np.array([(1, 1), (3, 1), (3, 4), (1, 4)]) * 16
    for points in (square, square[::-1]):
        box, inside = canvas._inside(points, 6, 5)
        filled = np.zeros((6, 5), bool)
        filled[box] = inside
        assert filled.sum() == 6
        assert filled[1:4, 1:3].all()
    for shift in (-200, 200):
        assert not canvas._inside(square + shift, 6, 5)[1].any()
