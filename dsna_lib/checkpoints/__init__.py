"""The two small networks that come with the package; MODEL_CARD.md says what they are and where they fail."""

from pathlib import Path

ATTENTION = Path(__file__).parent / "efficientnet_lite0_voc.pth"
SEGMENTATION = Path(__file__).parent / "efficientnet_lite0_voc_segmentation.pth"
