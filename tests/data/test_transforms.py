"""Picture and mask move together, masks keep their numbers, padding is void, pictures end in 0..1."""

from __future__ import annotations

import pytest
import torch
from torchvision import tv_tensors

from dsna_lib.data import transforms


def pair(height: int = 40, width: int = 60) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """A white square on black, and the same square as class 7 in the mask."""
    square = torch.zeros(height, width, dtype=torch.uint8)
    square[10:30, 8:28] = 1
    return tv_tensors.Image((square * 255).expand(3, -1, -1).clone()), tv_tensors.Mask(square * 7)


@pytest.mark.parametrize("scales", [(1.0, 1.5), (0.5, 0.9), (2.0, 2.0)])
def test_picture_and_mask_move_together_and_masks_stay_masks(scales):
    transform = transforms.train(32, scales)
    seen = set()
    for seed in range(25):
        torch.manual_seed(seed)
        image, mask = transform(*pair())
        assert image.shape == (3, 32, 32)
        assert mask.shape == (32, 32)
        assert image.dtype == torch.float32
        assert mask.dtype == torch.uint8
        assert 0 <= image.min() <= image.max() <= 1
        assert set(mask.unique().tolist()) <= {0, 7, 255}
        seen |= set(mask.unique().tolist())
        # Only the square's border, one pixel wide after antialiasing, may differ.
        inside = mask == 7
        assert ((image[0] > 0.5) == inside).float().mean() > 0.9
    assert seen == ({0, 7, 255} if scales[0] < 1 else {0, 7})


def test_padding_is_void_in_the_mask_and_black_in_the_picture():
    torch.manual_seed(0)
    image, mask = (
        tv_tensors.Image(torch.full((3, 20, 20), 200, dtype=torch.uint8)),
        tv_tensors.Mask(torch.ones(20, 20, dtype=torch.uint8)),
    )
    image, mask = transforms.train(32, (0.5, 0.5))(image, mask)
    assert (mask == 1).sum() == 16 * 16
    assert (mask == 255).sum() == 32 * 32 - 16 * 16
    assert torch.equal(image[0] == 0, mask == 255)


def test_without_a_mask():
    out = transforms.train(32)(pair()[0])
    image = out[0] if isinstance(out, list | tuple) else out
    assert image.shape == (3, 32, 32)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (400, 3)])
def test_odd_sizes(size):
    image = tv_tensors.Image(torch.randint(0, 256, (3, *size), dtype=torch.uint8))
    mask = tv_tensors.Mask(torch.zeros(size, dtype=torch.uint8))
    image, mask = transforms.train(16)(image, mask)
    assert image.shape == (3, 16, 16)
    assert mask.shape == (16, 16)


def test_rescaling_stays_within_its_range_and_keeps_the_aspect():
    rescale = transforms.RandomRescale(20, (1.0, 2.0))
    sides = set()
    for seed in range(30):
        torch.manual_seed(seed)
        image, mask = rescale(*pair())
        assert image.shape[-2:] == mask.shape
        height, width = mask.shape
        assert 20 <= height <= 40
        assert width == pytest.approx(1.5 * height, abs=1)
        sides.add(height)
    assert len(sides) > 8


def test_about_half_of_the_pictures_are_flipped():
    image = tv_tensors.Image(torch.zeros(3, 16, 16, dtype=torch.uint8))
    image[..., :8] = 255
    flipped = 0
    for seed in range(100):
        torch.manual_seed(seed)
        out = transforms.train(16, (1.0, 1.0))(image, tv_tensors.Mask(torch.zeros(16, 16, dtype=torch.uint8)))[0]
        flipped += bool(out[0, 0, -1] > 0.5)
    assert 30 < flipped < 70


@pytest.mark.parametrize("size, expected", [(24, (24, 24)), ((24, 36), (24, 36))])
def test_inference_sees_the_whole_picture_at_one_size(size, expected):
    image, mask = transforms.inference(size)(*pair())
    assert image.shape == (3, *expected)
    assert image.dtype == torch.float32
    assert image.max() == 1
    assert set(mask.unique().tolist()) == {0, 7}
    assert torch.equal(transforms.inference(size)(pair()[0]), image)


def test_a_strip_does_not_explode():
    strip = tv_tensors.Image(torch.zeros(3, 1, 5000, dtype=torch.uint8))
    height, width = transforms.RandomRescale(32, (1.0, 1.0))(strip)[0].shape[-2:]
    assert (height, width) == (1, 16 * 32)
    assert transforms.train(32)(strip)[0].shape == (3, 32, 32)


def test_resized_crops_hold_a_share_of_the_picture_and_its_mask_alike():
    """Each of 300 columns has its own grey, so a crop tells which of them it holds."""
    columns = torch.arange(240, dtype=torch.uint8)
    image = tv_tensors.Image(columns.expand(3, 160, 240).clone())
    mask = tv_tensors.Mask(columns.expand(160, 240).clone())
    torch.manual_seed(0)
    seen = []
    for _ in range(50):
        crop, labels = transforms.resized(32, (0.2, 0.4))(image, mask)
        assert crop.shape == (3, 32, 32)
        assert (labels.float() - 255 * crop[0]).abs().max() < 8
        width = 255 * (crop[0].max() - crop[0].min()).item() * 32 / 31
        seen.append((width, crop[0, 0, 0] > crop[0, 0, -1]))
    # A box of that share whose sides are as 3:4 to 4:3 is so wide:
    area = 160 * 240
    assert all((0.2 * area * 0.75) ** 0.5 - 9 < width < (0.4 * area / 0.75) ** 0.5 + 9 for width, _ in seen)
    assert len({turned.item() for _, turned in seen}) == 2


@pytest.mark.parametrize("transform", [transforms.train(16), transforms.resized(16), transforms.inference(16)])
def test_a_plain_tensor_is_scaled_like_a_picture(transform):
    plain = torch.full((3, 20, 24), 255, dtype=torch.uint8)
    out = transform(plain)
    out = out[0] if isinstance(out, list) else out
    assert out.dtype == torch.float32
    assert out.max() == 1


def test_jitter_changes_colors_and_no_mask():
    image = tv_tensors.Image(torch.full((3, 16, 16), 100, dtype=torch.uint8))
    image[0] = 160
    mask = tv_tensors.Mask(torch.randint(0, 8, (16, 16), dtype=torch.uint8))
    colors = []
    for seed in range(30):
        torch.manual_seed(seed)
        shown, labels = transforms.whole(16, 0.5)(image, mask)
        assert torch.equal(labels.sort().values, mask.sort().values)  # but for the flip
        assert torch.equal(shown, shown[:, :1, :1].expand_as(shown))
        colors.append(shown[:, 0, 0])
    brightness = torch.stack(colors).mean(dim=1)
    assert brightness.min() < 0.35 < 0.6 < brightness.max()
    red = torch.stack([(color[0] - color[2]) / color.sum() for color in colors])
    assert red.max() - red.min() > 0.05  # saturation and hue, too
    for transform in (transforms.train, transforms.resized, transforms.whole):
        assert "ColorJitter" in str(transform(16, jitter=0.1))
        assert "ColorJitter" not in str(transform(16))
