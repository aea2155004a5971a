"""The list of all methods: the rows that tables choose from, in the order in which they print them."""

from __future__ import annotations

from collections.abc import Sequence

from dsna_lib.engine.fields import nearest
from dsna_lib.methods import adversarial_erasing, dsna, scribble_sup, sec
from dsna_lib.methods.augmented_feedback import AF_SS
from dsna_lib.methods.base import Method, MethodError
from dsna_lib.methods.bfbp import BFBP
from dsna_lib.methods.bottom_up_top_down import BOTTOM_UP_TOP_DOWN
from dsna_lib.methods.box_sup import BOX_SUP
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.dcsm import DCSM
from dsna_lib.methods.em_adapt import EM_ADAPT
from dsna_lib.methods.excitation_backprop import CONTRASTIVE_EXCITATION_BACKPROP, EXCITATION_BACKPROP
from dsna_lib.methods.full_supervision import FULL_SUPERVISION
from dsna_lib.methods.grad_cam import GRAD_CAM
from dsna_lib.methods.mil_fcn import MIL_FCN
from dsna_lib.methods.two_phase import TWO_PHASE
from dsna_lib.methods.whats_the_point import WHATS_THE_POINT

MINING = (CAM, GRAD_CAM, EXCITATION_BACKPROP, CONTRASTIVE_EXCITATION_BACKPROP, dsna.CONVENTIONAL, *dsna.DSNA.values())
TABLE_III: tuple[Method, ...] = (*sec.ROWS, *adversarial_erasing.ROWS, *dsna.DSNA.values(), MIL_FCN, FULL_SUPERVISION)
# Others of Table IV that are told image labels alone, in its order.
LABELS_ALONE: tuple[Method, ...] = (EM_ADAPT, BFBP, DCSM, AF_SS, TWO_PHASE, BOTTOM_UP_TOP_DOWN)
# Beside those of the paper's table: CAM's annotations are those of AE's first step, the others it does not segment.
_OURS: tuple[Method, ...] = (CAM, *sec.ROWS, sec.FLOORED, *adversarial_erasing.ROWS, *MINING, dsna.SINGLE_STREAM)
# Told by a person where objects are: the first block of Table IV.
INTERACTIVE: tuple[Method, ...] = (*scribble_sup.ROWS, WHATS_THE_POINT, BOX_SUP)
METHODS = {method.title: method for method in (*_OURS, *INTERACTIVE, *LABELS_ALONE, *TABLE_III)}


def select(titles: Sequence[str] = ()) -> list[Method]:
    """Methods by title; those of Table III, the ceiling last, where none is named.

    Raises:
        MethodError: an unknown title; the message lists those there are.
    """
    for title in titles:
        if title not in METHODS:
            raise MethodError(f"there is no method {title!r}{nearest(title, METHODS)}; there is {'; '.join(METHODS)}")
    return [method for method in METHODS.values() if method.title in titles or (not titles and method in TABLE_III)]
