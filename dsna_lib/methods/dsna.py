"""DSNA: decoupled spatial neural attention, and the two heads that the paper holds against it.

The maps are those of :mod:`dsna_lib.maps`: expansive A, discriminative S, and merged (Eq. 11),
T = p-hat A + (1 - p-hat) S. The single stream is the discriminative branch alone (Sec. IV-B), conventional attention
the class-agnostic map of Eq. 1-4.

Source: Zhang et al., "Decoupled Spatial Neural Attention for Weakly Supervised Semantic Segmentation".
"""

from __future__ import annotations

from dsna_lib import paper
from dsna_lib.config.attention import HeadConfig
from dsna_lib.maps import MAP_KINDS
from dsna_lib.methods.base import MapMethod

DECOUPLED = HeadConfig()
DSNA = {
    kind: MapMethod(f"DSNA, {kind}", DECOUPLED, kind, besides=MAP_KINDS, paper=paper.MIOU[f"DSNA, {kind}"])
    for kind in MAP_KINDS
}
SINGLE_STREAM = MapMethod("single stream", HeadConfig("single_stream"), "discriminative")
CONVENTIONAL = MapMethod("conventional attention", HeadConfig("conventional", dropout=0.0), "expansive")
