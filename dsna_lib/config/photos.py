"""How single photographs are shown. Chosen by eye on three of them with the models that ship; no number uses it."""

# Side of the square for the attention model. Training crops 224 pixels out of pictures whose shorter side is 224 to
# 336, so objects are larger there than in a whole picture at 224: the scale of training gives finer maps.
PICTURE_SIZE = 320
# Longer side of heat maps, overlay and CRF, in pixels: the CRF's parameters are for pictures of about 500.
MAX_SIDE = 1024
# The shipped model's maps fade slowly, and at the paper's 0.2 they spill over.
SHOWN_THRESHOLD = 0.4
# A segmentation network knows objects at the size at which VOC's pictures, 500 pixels wide, showed them.
SEGMENTED_SIDE = 500
# And the one that ships learned them at about half of that: from crops of 225 pixels, to be quick on a CPU.
SHIPPED_SCALES = (0.45, 0.6, 0.75)
