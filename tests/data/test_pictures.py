"""Pictures of every form become 8-bit RGB, masks keep their numbers, and randomness depends on the place alone."""

from __future__ import annotations

import os
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from dsna_lib.data import PictureError, Pictures, Record, pictures, read_image, read_mask, transforms, write_mask
from dsna_lib.data.pictures import DataError, checked_names, palette, subset, without_masks
from dsna_lib.engine.files import write_atomically

RGB = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def saved(tmp_path: Path, image: Image.Image, name: str = "picture.png", **options) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_what_is_no_file_is_refused_unread(read):
    with pytest.raises(PictureError, match="^/dev/null: is a pipe or a device, which may never end; name a file$"):
        read("/dev/null")


# Records


@pytest.mark.parametrize("name", ["../escaped", "../../escaped", "a/../../b", "/tmp/escaped", "..", ".", ""])
def test_an_id_that_leads_out_of_a_folder_is_refused(name):
    with pytest.raises(DataError, match=r"^shots/odd.jpg: what is named after its id '.*' would lie outside its"):
        Record(name, Path("shots/odd.jpg"), ())


@pytest.mark.parametrize("name", ["a", "2007/000032", "..a", "a..b", "...", ".a"])
def test_other_ids_are_taken_as_they_are(name):
    assert Record(name, Path("odd.jpg"), ()).id == name


# Pictures


def test_rgb_is_read_as_it_is(tmp_path):
    got = read_image(saved(tmp_path, Image.fromarray(RGB)))
    assert got.dtype == np.uint8
    assert got.flags.writeable
    np.testing.assert_array_equal(got, RGB)
    np.testing.assert_array_equal(read_image(str(tmp_path / "picture.png")), RGB)


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_becomes_three_equal_channels(tmp_path, mode):
    image = Image.fromarray(RGB).convert("L").convert(mode)
    got = read_image(saved(tmp_path, image))
    assert got.shape == (7, 5, 3)
    np.testing.assert_array_equal(got, np.repeat(np.array(image.convert("L"))[..., None], 3, axis=2))


def test_palette(tmp_path):
    image = Image.fromarray(RGB).quantize(200)
    np.testing.assert_array_equal(read_image(saved(tmp_path, image)), np.array(image.convert("RGB")))


def test_transparency_is_laid_on_white(tmp_path):
    alpha = np.full((7, 5, 1), 255, np.uint8)
    alpha[0], alpha[1] = 0, 128
    got = read_image(saved(tmp_path, Image.fromarray(np.concatenate([RGB, alpha], axis=2))))
    assert (got[0] == 255).all()
    np.testing.assert_allclose(got[1], RGB[1] * (128 / 255) + 255 * (127 / 255), atol=1)
    np.testing.assert_array_equal(got[2:], RGB[2:])


def test_a_transparent_palette_color_and_a_transparent_grey(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert read_image(saved(tmp_path, image, transparency=0))[0].tolist() == [[255] * 3, [40, 50, 60]]
    grey = saved(tmp_path, Image.fromarray(np.array([[7, 9]], np.uint8)), "grey.png", transparency=7)
    assert read_image(grey)[0].tolist() == [[255] * 3, [9] * 3]


def test_cmyk(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "red.jpg", quality=95)
    got = read_image(path)
    assert got.shape == (8, 8, 3)
    np.testing.assert_allclose(got.reshape(-1, 3).mean(axis=0), [255, 0, 0], atol=3)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_high_byte(tmp_path, suffix):
    values = np.array([[0, 256, 32896, 65535]], np.uint16)
    got = read_image(saved(tmp_path, Image.fromarray(values), f"deep.{suffix}"))
    assert got.shape == (1, 4, 3)
    assert got[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (got == got[..., :1]).all()


def test_integers_and_floats(tmp_path):
    big = np.array([[0, 100_000, 200_000]], np.int32)
    assert read_image(saved(tmp_path, Image.fromarray(big), "big.tif"))[0, :, 0].tolist() == [0, 128, 255]
    small = np.array([[0, 100, 255]], np.float32)
    assert read_image(saved(tmp_path, Image.fromarray(small), "float.tif"))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("orientation, turn", [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_the_cameras_rotation_is_applied(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = read_image(saved(tmp_path, Image.fromarray(RGB), exif=exif))
    np.testing.assert_array_equal(got, np.rot90(RGB, turn))


def test_one_pixel(tmp_path):
    assert read_image(saved(tmp_path, Image.new("RGB", (1, 1), (1, 2, 3)))).tolist() == [[[1, 2, 3]]]


def test_twenty_megapixels(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (5472, 3648), (10, 200, 30)), "large.jpg")
    started = time.monotonic()
    item = Pictures([Record("large", path, (0,))], ("cat",), transforms.train(32))[0]
    assert item["image"].shape == (3, 32, 32)
    assert time.monotonic() - started < 30


def broken(tmp_path: Path) -> dict[str, Path]:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    made = {"missing": tmp_path / "missing.jpg", "folder": tmp_path / "folder.jpg"}
    made["folder"].mkdir()
    for suffix in ("jpg", "png"):
        whole = saved(tmp_path, Image.fromarray(noise), f"whole.{suffix}").read_bytes()
        made[f"truncated {suffix}"] = tmp_path / f"cut.{suffix}"
        made[f"truncated {suffix}"].write_bytes(whole[: len(whole) // 2])
    for name, content in {"empty": b"", "text": b"no picture, just words\n", "header": b"\x89PNG\r\n\x1a\n"}.items():
        made[name] = tmp_path / f"{name}.png"
        made[name].write_bytes(content)
    return made


@pytest.mark.parametrize("kind", ["truncated jpg", "truncated png", "empty", "text", "header", "folder", "missing"])
def test_what_cannot_be_read_is_named(tmp_path, kind):
    path = broken(tmp_path)[kind]
    words = "no such picture" if kind == "missing" else "cannot be read as a picture"
    with pytest.raises(PictureError, match=f"{path.name}: {words}") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_a_decompression_bomb(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (300, 300)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for read in (read_image, read_mask):
        with pytest.raises(PictureError, match="picture.png: over 0 megapixels; scale it down first"):
            read(path)


# Masks

INDICES = np.array([[0, 1, 2], [20, 21, 255]], np.uint8)


def test_masks_keep_their_numbers(tmp_path):
    write_mask(tmp_path / "new" / "mask.png", INDICES)
    np.testing.assert_array_equal(read_mask(tmp_path / "new" / "mask.png"), INDICES)
    np.testing.assert_array_equal(read_mask(tmp_path / "new" / "mask.png", size=(2, 3)), INDICES)
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "all.png", every)
    np.testing.assert_array_equal(read_mask(tmp_path / "all.png"), every)


def test_masks_are_palette_pictures_in_vocs_colors(tmp_path):
    write_mask(tmp_path / "mask.png", INDICES)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image.convert("RGB")), palette()[INDICES])


def test_masks_that_are_grey_or_have_two_values(tmp_path):
    np.testing.assert_array_equal(read_mask(saved(tmp_path, Image.fromarray(INDICES))), INDICES)
    two = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert read_mask(saved(tmp_path, two)).tolist() == [[0, 1]]


def test_masks_in_vocs_colors_are_read_as_classes(tmp_path):
    every = np.arange(256, dtype=np.uint8).reshape(4, 64)
    np.testing.assert_array_equal(read_mask(saved(tmp_path, Image.fromarray(palette()[every]))), every)
    path = saved(tmp_path, Image.fromarray(palette()[INDICES]))
    np.testing.assert_array_equal(read_mask(path, (2, 3), 21), INDICES)
    with pytest.raises(PictureError, match="picture.png: holds class 21, the data knows 0 to 20"):
        read_mask(path, num_classes=20)


def test_colors_that_are_no_class_are_named(tmp_path):
    colors = palette()[INDICES]
    colors[0, 0], colors[1, 1] = (255, 0, 16), (129, 0, 0)
    with pytest.raises(PictureError, match="no class of VOC's palette, #810000, #ff0010; save it as class indices"):
        read_mask(saved(tmp_path, Image.fromarray(colors)))


def grey_png(path: Path, bits: int, rows: list[bytes], width: int) -> Path:
    """A grey PNG of few bits a pixel, which Pillow does not write itself."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, len(rows), bits, 0, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(
    "bits, row, indices", [(1, 0b10100000, [1, 0]), (2, 0b01110000, [1, 3]), (4, 0b00101111, [2, 15])]
)
def test_masks_of_few_bits_keep_their_numbers(tmp_path, bits, row, indices):
    assert read_mask(grey_png(tmp_path / "mask.png", bits, [bytes([row])], 2)).tolist() == [indices]


def test_a_mask_with_a_class_beyond_those_of_the_data_is_named(tmp_path, data):
    write_mask(tmp_path / "mask.png", np.array([[0, 3, 255]]))
    assert read_mask(tmp_path / "mask.png", num_classes=3).tolist() == [[0, 3, 255]]
    with pytest.raises(PictureError, match="mask.png: holds class 3, the data knows 0 to 2"):
        read_mask(tmp_path / "mask.png", num_classes=2)
    write_mask(data.records[2].mask, np.full((22, 30), 4))
    with pytest.raises(PictureError, match="p2.png: holds class 4, the data knows 0 to 3"):
        data.with_transform(None, masks=True)[2]


# Classes


@pytest.mark.parametrize("names", [[], "cat", ["cat", "cat"], ["cat", ""], ["cat", 1], {"cat": 1}, None])
def test_classes_that_are_no_list_of_different_names(names):
    with pytest.raises(DataError, match="here must be a list of different names, not "):
        checked_names(names, "here")


def test_as_many_classes_as_a_mask_can_hold():
    names = [f"class {k}" for k in range(255)]
    assert checked_names(names[:254], "here") == tuple(names[:254])
    for refused in (lambda: checked_names(names, "here"), lambda: Pictures([], tuple(names))):
        with pytest.raises(DataError, match="has 255 classes, and masks hold 254"):
            refused()


def test_bad_masks_are_named(tmp_path):
    with pytest.raises(PictureError, match=r"a mask holds class indices \(palette or grey\) or VOC's colors, .* RGBA"):
        read_mask(saved(tmp_path, Image.fromarray(RGB).convert("RGBA")))
    with pytest.raises(PictureError, match="gone.png: no such mask"):
        read_mask(tmp_path / "gone.png")
    write_mask(tmp_path / "cut.png", np.random.default_rng(0).integers(0, 256, (64, 64)))
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    for name, content in {"empty.png": b"", "text.png": b"no mask", "cut.png": None}.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError, match=f"{name}: cannot be read as a mask"):
            read_mask(tmp_path / name)
    write_mask(tmp_path / "mask.png", INDICES)
    with pytest.raises(PictureError, match=r"mask.png: the mask is 3 x 2, its picture 2 x 3 \(width x height\)"):
        read_mask(tmp_path / "mask.png", (3, 2))


def test_the_palette_is_vocs():
    colors = palette()
    assert colors.shape == (256, 3)
    assert colors.dtype == np.uint8
    first = [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
        (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128),
        (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
    ]  # fmt: skip
    assert [tuple(c) for c in colors[:21].tolist()] == first
    assert colors[255].tolist() == [224, 224, 192]
    assert len({tuple(c) for c in colors.tolist()}) == 256


# Writing


def test_a_failed_write_keeps_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"before"))

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="cannot write .*file: No space left on device") as caught:
        write_atomically(path, fail)
    assert caught.value.errno == 28
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(ZeroDivisionError):
        write_atomically(path, lambda file: 1 / 0)
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot write .*mask.png: "):
        write_mask(tmp_path / "file" / "mask.png", INDICES)


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="cannot write .*mask.png: Permission denied"):
        write_mask(tmp_path / "mask.png", INDICES)
    tmp_path.chmod(0o700)


# The data set


@pytest.fixture
def data(tmp_path) -> Pictures:
    records = []
    for k in range(6):
        image = np.random.default_rng(k).integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)
        path = saved(tmp_path, Image.fromarray(image), f"p{k}.png")
        write_mask(tmp_path / "masks" / f"p{k}.png", np.full((20 + k, 30), k % 3))
        records.append(Record(f"p{k}", path, (k % 3,) if k else (0, 2), tmp_path / "masks" / f"p{k}.png"))
    return Pictures(records, ("cat", "cow", "dog"))


def test_items(data):
    item = data[0]
    assert set(item) == {"index", "id", "image", "labels"}
    assert (item["index"], item["id"]) == (0, "p0")
    assert isinstance(item["image"], tv_tensors.Image)
    assert item["image"].dtype == torch.uint8
    assert item["image"].shape == (3, 20, 30)
    np.testing.assert_array_equal(item["image"].permute(1, 2, 0), read_image(data.records[0].image))
    assert item["labels"].dtype == torch.float32
    assert item["labels"].tolist() == [1, 0, 1]
    assert (len(data), data.num_classes, repr(data)) == (6, 3, "Pictures(6 pictures, 3 classes)")


def test_masks_are_read_only_when_asked_for(data, monkeypatch):
    item = data.with_transform(None, masks=True)[1]
    assert isinstance(item["mask"], tv_tensors.Mask)
    assert item["mask"].shape == (21, 30)
    assert item["mask"].unique().tolist() == [1]
    monkeypatch.setattr(pictures, "read_mask", lambda *_: pytest.fail("read a mask"))
    assert "mask" not in data[1]
    blind = without_masks(data)
    assert all(record.mask is None for record in blind.records)
    blind.masks = True
    with pytest.raises(PictureError, match="p1.png: has no mask, and one was asked for"):
        blind[1]


def test_a_mask_of_another_size_is_named(data):
    write_mask(data.records[2].mask, np.zeros((4, 6)))
    with pytest.raises(PictureError, match="p2.png: the mask is 6 x 4, its picture 30 x 22"):
        data.with_transform(None, masks=True)[2]


def test_select_subset_and_targets(data):
    chosen = data.select(["p3", "p1"])
    assert [record.id for record in chosen.records] == ["p3", "p1"]
    with pytest.raises(KeyError, match="no picture 'p9' in Pictures"):
        data.select(["p9"])
    assert [record.id for record in subset(data, 2).records] == ["p0", "p1"]
    assert subset(data, None) is data
    assert data.targets().tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert Pictures([Record("x", Path("x"), ())], ("cat",)).targets().tolist() == [[0]]


def random_crops(data: Pictures, seed: int = 0) -> Pictures:
    return data.with_transform(transforms.train(16), seed=seed)


def test_randomness_depends_on_seed_epoch_and_place_only(data):
    first, again = random_crops(data), random_crops(data)
    torch.manual_seed(1)
    drawn = first[2]["image"]
    torch.manual_seed(2)
    again[5], again[0]
    assert torch.equal(drawn, again[2]["image"])
    again.set_epoch(1)
    assert not torch.equal(drawn, again[2]["image"])
    again.set_epoch(0)
    assert torch.equal(drawn, again[2]["image"])
    assert not torch.equal(drawn, random_crops(data, seed=1)[2]["image"])


def test_reading_leaves_the_random_state_alone(data):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    random_crops(data)[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_workers_change_nothing_in_any_epoch(data):
    crops = random_crops(data)
    loaders = [
        torch.utils.data.DataLoader(crops, batch_size=4, num_workers=n, persistent_workers=n > 0) for n in (0, 1)
    ]
    epochs = []
    for epoch in (0, 1):
        crops.set_epoch(epoch)
        alone, shared = (torch.cat([batch["image"] for batch in loader]) for loader in loaders)
        assert torch.equal(alone, shared)
        epochs.append(alone)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize(("top", "dtype"), [(1.0, np.float32), (255.0, np.float32), (65535, np.uint16)])
def test_deep_pictures_are_scaled_by_the_range_of_their_values(tmp_path, top, dtype):
    path = tmp_path / "deep.tif"
    Image.fromarray((np.array([[0.0, 0.5, 1.0]]) * top).astype(dtype)).save(path)
    assert read_image(path)[0, :, 0].tolist() in ([0, 127, 255], [0, 128, 255])


def test_pictures_that_are_kept_are_read_once_and_again_when_they_change(tmp_path, monkeypatch):
    reads, read = [], pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path: reads.append(path) or read(path))
    path = saved(tmp_path, Image.fromarray(RGB))
    kept = Pictures([Record("picture", path, (0,))], ("cat",), keep=True)
    first = kept[0]["image"]
    assert torch.equal(kept[0]["image"], first)
    assert len(reads) == 1
    saved(tmp_path, Image.fromarray(255 - RGB))
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert torch.equal(kept[0]["image"], 255 - first)
    path.unlink()
    with pytest.raises(PictureError, match="no such picture"):
        kept[0]
