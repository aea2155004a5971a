r"""Bottom-up, top-down and smoothness cues: what adds to a score, where attention comes down to, and where edges are.

*Bottom-up*, activations rise to scores of classes: how much a place adds to that of class c is its class activation map
(:mod:`dsna_lib.methods.cam`). *Top-down*, a walk from the class goes back down the network, each step with the
probability that the unit below was the reason; the marginal probability P of a place is its attention
(:mod:`dsna_lib.methods.excitation_backprop`). Both are evidence of the same label, so their energies add up,

.. math:: \psi_c(u) = -\log M^+_c(u) - \log P_c(u), \qquad T_c(u) = M^+_c(u) \, P_c(u)

and a place needs both. *Smoothness* is a conditional random field, whose edges move outlines to those of the picture.

Source: Roy and Todorovic, "Combining Bottom-Up, Top-Down, and Smoothness Cues for Weakly Supervised Image
Segmentation", CVPR 2017 (*Anirban et al.* in Table IV); we know of no public code. Decided here:

- *Parts that stand in.* CAM's classifier for their bottom-up network, and Excitation Backprop for their conditional
  likelihoods of activations, which it resembles.
- *Smoothness.* The table's dense CRF, on annotations; theirs, a recurrent network, is learned with the rest end to end.
- *Weights.* Equal ones, where theirs are learned; the thresholds are the table's.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from dsna_lib.attention import AttentionModel
from dsna_lib.maps import positive_part
from dsna_lib.methods.cam import cam
from dsna_lib.methods.excitation_backprop import propagate
from dsna_lib.methods.explain import Passed, explaining
from dsna_lib.methods.table_iv import printed


def explain_both(model: AttentionModel, features: Tensor, passed: Passed, wanted: Tensor) -> Tensor:
    """T up to a factor a map, on the grid of X: an :data:`~dsna_lib.methods.explain.Explainer`."""
    attended = propagate(model, features, passed, wanted)
    return positive_part(cam(model, features)) * attended


BOTTOM_UP_TOP_DOWN = replace(
    explaining("Anirban et al.", "bottom_up_top_down", explain_both), paper=printed("Anirban et al.")
)
