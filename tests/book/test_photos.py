"""Single photographs: what is decided beside the files, which the tests of the commands look at."""

import numpy as np
import torch

from dsna_lib.book import photos
from dsna_lib.maps import PictureMaps


def test_predicted_labels():
    def of(*scores):
        return photos.predicted_labels(PictureMaps(0, (1, 1), {}, torch.zeros(1, 1, 1), torch.tensor(scores)))

    assert of(-1.0, 0.5, 2.0) == (1, 2)
    assert of(-3.0, -1.0, -2.0) == (1,)


def test_a_class_that_is_not_in_the_picture_is_questioned():
    shown = {"picture": "a", "folder": "b", "share": {"background": 0.5, "cat": 0.2}, "probability": {"cat": 0.02}}
    assert "2% sure: is it there?" in photos.summary(shown)
    assert "is it there?" not in photos.summary(shown | {"probability": {"cat": 0.8}})


def test_reduced_keeps_small_pictures():
    image = np.zeros((40, 56, 3), np.uint8)
    assert photos.reduced(image, 56) is image
    assert photos.reduced(image, 0) is image
    assert photos.reduced(image, 28).shape == (20, 28, 3)
