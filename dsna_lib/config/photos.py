"""How single photographs are shown; no number uses it."""

from dsna_lib.config.recipe import MapConfig

# As the attention model that ships is measured, by its recipe: photographs-cpu.
SHOWN = MapConfig(size=256, scales=(1.0, 1.5), flip=True)
# Longer side of heat maps, overlay and CRF, in pixels: the CRF's parameters are for pictures of about 500.
MAX_SIDE = 1024
# A segmentation network knows objects at the size at which VOC's pictures, 500 pixels wide, showed them.
SEGMENTED_SIDE = 500
# And the one that ships learned them at about half of that: from crops of 225 pixels, to be quick on a CPU.
SHIPPED_SCALES = (0.45, 0.6, 0.75)
