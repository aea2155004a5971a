"""Saliency maps for methods that are told of them: a user's own, or those of a network that learned them elsewhere.

Where a data set has gray maps of its pictures, they are used as they are, from 0 to 1. Where it has a set of other
pictures with masks of one class, whatever is salient, the recipe's usual segmentation network learns that class, and
saliency is how likely it is at each pixel. All methods that need saliency share this one network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from dsna_lib.data.marks import Hints
from dsna_lib.data.pictures import Record, read_image
from dsna_lib.methods.base import Stage
from dsna_lib.methods.turns import EarlierNetwork


class Saliency(NamedTuple):
    """How salient each pixel is, without a class."""

    of: Callable[[Record], np.ndarray]  #: a picture's map ``(H, W)`` in 0..1
    #: what the maps depend on beside the help itself: the identity of a network's answers; None for given ones
    source: dict[str, Any] | None


def saliency(stage: Stage) -> Saliency:
    """The saliency maps of a stage's pictures; a network is trained where they are not given."""
    told = stage.help["saliency"]
    if isinstance(told, Hints):
        return Saliency(lambda record: told[record.id] / 255, None)
    network = EarlierNetwork(stage, told)
    return Saliency(lambda record: network.likely(read_image(record.image))[1], network.identity)
