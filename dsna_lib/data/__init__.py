"""Data sets: PASCAL VOC (`voc`), the embedded drawn set (`minivoc`) and a user's own pictures (`folder`).

All three return the same thing, a :class:`~dsna_lib.data.pictures.Pictures` data set.
"""

from dsna_lib.data.pictures import PictureError, Pictures, Record, read_image, read_mask, write_mask

__all__ = ["PictureError", "Pictures", "Record", "read_image", "read_mask", "write_mask"]
