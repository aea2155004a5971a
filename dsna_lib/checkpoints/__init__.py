"""The small networks that come with the package; MODEL_CARD.md says what they are and where they fail."""

from pathlib import Path

FOLDER = Path(__file__).parent
ATTENTION = FOLDER / "efficientnet_lite0_voc.pth"
SEGMENTATION = FOLDER / "efficientnet_lite0_voc_segmentation.pth"
DRAWN_SEGMENTATION = FOLDER / "efficientnet_lite0_drawn_segmentation.pth"  # of Table III: DSNA, merged, seed 0
LICENSE = "MIT; the backbone's ImageNet weights: Apache-2.0"
# Of the recipe of drawn pictures, by head and dropout rate; the single stream without dropout is CAM's classifier.
DRAWN = {
    ("decoupled", 0.0): FOLDER / "efficientnet_lite0_drawn_dropout_0.pth",
    ("decoupled", 0.3): FOLDER / "efficientnet_lite0_drawn_dropout_03.pth",
    ("decoupled", 0.5): FOLDER / "efficientnet_lite0_drawn_decoupled.pth",
    ("decoupled", 0.7): FOLDER / "efficientnet_lite0_drawn_dropout_07.pth",
    ("single_stream", 0.5): FOLDER / "efficientnet_lite0_drawn_single_stream.pth",
    ("single_stream", 0.0): FOLDER / "efficientnet_lite0_drawn_cam.pth",
    ("conventional", 0.0): FOLDER / "efficientnet_lite0_drawn_conventional.pth",
}


def find(name: str) -> Path:
    """The file of a model: one that comes with the package by its name, such as ``efficientnet_lite0_voc``, or a path.

    Example:
        >>> find("efficientnet_lite0_voc") == ATTENTION
        True
    """
    shipped = FOLDER / f"{name}.pth"
    return shipped if shipped.is_file() else Path(name)
