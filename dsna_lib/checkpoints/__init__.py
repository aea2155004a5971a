"""The small networks that come with the package; MODEL_CARD.md says what they are and where they fail."""

from pathlib import Path

ATTENTION = Path(__file__).parent / "efficientnet_lite0_voc.pth"
SEGMENTATION = Path(__file__).parent / "efficientnet_lite0_voc_segmentation.pth"
# Of the recipe of drawn pictures, by the head; the single stream without dropout is CAM's classifier.
HEADS = ("decoupled", "single_stream", "conventional")
DRAWN = {head: Path(__file__).parent / f"efficientnet_lite0_drawn_{head}.pth" for head in HEADS}
