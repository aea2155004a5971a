"""The embedded data set."""

from __future__ import annotations

from dsna_lib.engine.fields import configuration, option

SMALLEST = 48  # pixels: in smaller pictures no animal shows its part


@configuration
class DrawnConfig:
    """What :func:`dsna_lib.data.minivoc.files.make` draws; the same on every machine for a seed."""

    seed: int = option(0, "seed of the drawings", low=0)
    train: int = option(1000, "number of training pictures", low=1)
    val: int = option(100, "number of validation pictures", low=0)
    size: int = option(224, "longer side of a picture in pixels", low=SMALLEST)
    workers: int = option(1, "processes that draw; the pictures do not depend on it", low=1)


@configuration
class HelpConfig:
    """What :func:`dsna_lib.data.minivoc.help_files.make_help` draws beside points, scribbles and boxes."""

    saliency: int = option(200, "number of pictures with masks of whatever is salient", low=1)
    web: int = option(400, "number of pictures of one animal, a fifth of them with a wrong label", low=1)
    videos: int = option(60, "number of clips", low=1)
    frames: int = option(8, "frames of a clip", low=2, high=24)
    other_masks: int = option(200, "number of pictures with masks of other animals", low=1)
