"""Single photographs: what is decided beside the files, which the tests of the commands look at."""

import numpy as np
import torch

from dsna_lib.book import photos
from dsna_lib.data import read_image
from dsna_lib.maps import PictureMaps


def test_free_photographs_come_with_their_classes(tmp_path):
    pictures = photos.free(tmp_path / "new")
    shown = {record.id: [pictures.class_names[label] for label in record.labels] for record in pictures.records}
    assert shown == {
        "cat": ["cat"],
        "astronaut": ["person"],
        "motorcycle": ["motorbike"],
        "grace_hopper": ["person"],
    }
    assert all(read_image(record.image).std() > 10 for record in pictures.records)
    assert all(record.mask is None for record in pictures.records)


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
