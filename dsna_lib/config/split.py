"""Splits of a user's own pictures."""

from __future__ import annotations

from dsna_lib.engine.fields import configuration, option


@configuration
class SplitConfig:
    """How :func:`dsna_lib.data.folder.draw_splits` shares out pictures."""

    share: float = option(0.2, "share of the pictures that becomes val; the others are train", 0, 1, ends=False)
    seed: int = option(0, "seed of the draw", low=0)
