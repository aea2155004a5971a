"""The list of all methods: the rows that tables choose from, in the order in which they print them."""

from __future__ import annotations

from collections.abc import Sequence

from dsna_lib.engine.fields import nearest
from dsna_lib.methods import adversarial_erasing, dsna, scribble_sup, sec
from dsna_lib.methods.affinity_net import AFFINITY_NET
from dsna_lib.methods.augmented_feedback import AF_SS
from dsna_lib.methods.base import Method, MethodError
from dsna_lib.methods.bfbp import BFBP
from dsna_lib.methods.bottom_up_top_down import BOTTOM_UP_TOP_DOWN
from dsna_lib.methods.box_sup import BOX_SUP
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.co_segmentation import CO_SEGMENTATION
from dsna_lib.methods.crawled_video import CRAWLED_VIDEO
from dsna_lib.methods.dcsm import DCSM
from dsna_lib.methods.dcsp import DCSP_METHOD
from dsna_lib.methods.dsrg import DSRG
from dsna_lib.methods.em_adapt import EM_ADAPT
from dsna_lib.methods.excitation_backprop import CONTRASTIVE_EXCITATION_BACKPROP, EXCITATION_BACKPROP
from dsna_lib.methods.full_supervision import FULL_SUPERVISION
from dsna_lib.methods.grad_cam import GRAD_CAM
from dsna_lib.methods.guided_labeling import GUIDED_LABELING
from dsna_lib.methods.irn import IRN_METHOD
from dsna_lib.methods.mil_fcn import MIL_FCN
from dsna_lib.methods.mining_pixels import MINING_PIXELS
from dsna_lib.methods.prohibitive_segmentation import AE_PSL
from dsna_lib.methods.region_hierarchies import AF_MCG
from dsna_lib.methods.seam import SEAM_METHOD
from dsna_lib.methods.stc import STC_METHOD
from dsna_lib.methods.transfer_net import TRANSFER_NET
from dsna_lib.methods.two_phase import TWO_PHASE
from dsna_lib.methods.webly import WEBLY_SUPERVISED
from dsna_lib.methods.whats_the_point import WHATS_THE_POINT

MINING = (CAM, GRAD_CAM, EXCITATION_BACKPROP, CONTRASTIVE_EXCITATION_BACKPROP, dsna.CONVENTIONAL, *dsna.DSNA.values())
TABLE_III: tuple[Method, ...] = (*sec.ROWS, *adversarial_erasing.ROWS, *dsna.DSNA.values(), MIL_FCN, FULL_SUPERVISION)
# Beside those of the paper's table: CAM's annotations are those of AE's first step, the others it does not segment.
_OURS: tuple[Method, ...] = (CAM, *sec.ROWS, sec.FLOORED, *adversarial_erasing.ROWS, *MINING, dsna.SINGLE_STREAM)
# The blocks of Table IV: told by a person where objects are; told of other pictures, or by a saliency detector (the
# paper has AF-MCG and AE-PSL there for what theirs were told, and here they need image labels alone); and told image
# labels alone, where MIL-FCN, SEC and DSNA belong, too.
INTERACTIVE: tuple[Method, ...] = (*scribble_sup.ROWS, WHATS_THE_POINT, BOX_SUP)
_BY_SALIENCY = GUIDED_LABELING, DCSP_METHOD, MINING_PIXELS, AE_PSL
_BY_OTHERS = STC_METHOD, CO_SEGMENTATION, WEBLY_SUPERVISED, CRAWLED_VIDEO, TRANSFER_NET
EXTERNAL: tuple[Method, ...] = (*_BY_OTHERS, AF_MCG, *_BY_SALIENCY)
LABELS_ALONE: tuple[Method, ...] = (EM_ADAPT, BFBP, DCSM, AF_SS, TWO_PHASE, BOTTOM_UP_TOP_DOWN)
TABLE_IV: tuple[Method, ...] = (
    *INTERACTIVE,
    *EXTERNAL,
    MIL_FCN,
    *LABELS_ALONE[:3],
    sec.ROWS[-1],
    *LABELS_ALONE[3:],
    dsna.DSNA["merged"],
    FULL_SUPERVISION,
)
# After the paper, oldest first; all from image labels alone.
LATER: tuple[Method, ...] = (DSRG, AFFINITY_NET, IRN_METHOD, SEAM_METHOD)
METHODS = {method.title: method for method in (*_OURS, *TABLE_IV[:-2], *LATER, *TABLE_III)}


def select(titles: Sequence[str] = ()) -> list[Method]:
    """Methods by title; those of Table III, the ceiling last, where none is named.

    Raises:
        MethodError: an unknown title; the message lists those there are.
    """
    for title in titles:
        if title not in METHODS:
            raise MethodError(f"there is no method {title!r}{nearest(title, METHODS)}; there is {'; '.join(METHODS)}")
    return [method for method in METHODS.values() if method.title in titles or (not titles and method in TABLE_III)]
