"""What a segmentation network learns from: the loss on its grid, and annotations, which are checked first."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dsna_lib.data import Pictures, Record, read_image, read_mask, write_mask
from dsna_lib.engine.runs import data_digest
from dsna_lib.segmentation.training import (
    AnnotationError,
    labels_at_cell_centers,
    segmentation_loss,
    with_annotations,
)

# --- the loss


@pytest.mark.parametrize(
    "full, cells", [((321, 321), (41, 41)), ((9, 17), (2, 3)), ((23, 27), (4, 6)), ((3, 4), (6, 4))]
)
def test_the_label_of_a_cell_is_that_of_the_pixel_at_its_center(full, cells):
    masks = np.random.default_rng(0).integers(0, 256, (2, *full), dtype=np.uint8)
    rows, columns = (np.rint(np.linspace(0, side - 1, n)).astype(int) for side, n in zip(full, cells, strict=True))
    got = labels_at_cell_centers(torch.from_numpy(masks), cells)
    assert got.dtype == torch.uint8
    np.testing.assert_array_equal(got, masks[:, rows][:, :, columns])


def test_the_centers_of_a_crop_are_every_8th_pixel():
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 321, 321), dtype=np.uint8))
    assert torch.equal(labels_at_cell_centers(masks, (41, 41)), masks[:, ::8, ::8])


def examples(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (2, 4, 3, 5) and masks (2, 17, 33) with a third of the pixels void, not evenly over the two."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(0, 2, (2, 4, 3, 5)))
    masks = rng.integers(0, 4, (2, 17, 33)).astype(np.uint8)
    masks[rng.random(masks.shape) < np.array([0.1, 0.6])[:, None, None]] = 255
    return logits, torch.from_numpy(masks)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_mean_cross_entropy_of_labeled_cells(seed):
    logits, masks = examples(seed)
    terms = []
    for n, row, column in np.ndindex(2, 3, 5):
        label = int(masks[n, 8 * row, 8 * column])
        if label != 255:
            scores = logits[n, :, row, column].numpy()
            terms.append(np.log(np.exp(scores).sum()) - scores[label])
    assert 0 < len(terms) < 30
    assert segmentation_loss(logits, masks).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_void_cells_take_no_part():
    logits, masks = examples()
    void = (masks[:, ::8, ::8] == 255)[:, None].expand_as(logits)
    assert 0 < void.sum() < void.numel()
    logits.requires_grad_()
    loss = segmentation_loss(logits, masks)
    loss.backward()
    assert (logits.grad[void] == 0).all()
    assert (logits.grad[~void] != 0).all()
    moved = torch.where(void, 50.0, logits.detach())
    assert torch.equal(segmentation_loss(moved, masks), loss)
    assert not torch.equal(segmentation_loss(torch.where(~void, logits.detach() * 2, logits), masks), loss)


def test_labels_between_the_centers_take_no_part():
    logits, masks = examples()
    other = torch.full_like(masks, 99)
    other[:, ::8, ::8] = masks[:, ::8, ::8]
    assert torch.equal(segmentation_loss(logits, other), segmentation_loss(logits, masks))


def test_nothing_but_void_gives_zero():
    logits = examples()[0].requires_grad_()
    loss = segmentation_loss(logits, torch.full((2, 17, 33), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_half_precision_logits_are_not_summed_in_half_precision():
    logits, masks = examples()
    loss = segmentation_loss(logits.bfloat16(), masks)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, segmentation_loss(logits.bfloat16().float(), masks))


@pytest.mark.parametrize("label", [4, 254])
def test_a_class_that_the_network_does_not_know_is_refused(label):
    logits, masks = examples()
    masks[1, 16, 32] = label
    with pytest.raises(ValueError, match=f"a mask holds class {label}, and the network knows 0 to 3"):
        segmentation_loss(logits, masks)


@pytest.mark.parametrize("shape", [(17, 33), (2, 1, 17, 33), (3, 17, 33)])
def test_masks_of_another_shape_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"logits \(2, 4, 3, 5\) and masks .* must be \(N, C \+ 1, h, w\), \(N, H, W\)"
    ):
        segmentation_loss(examples()[0], torch.zeros(shape, dtype=torch.uint8))


# --- annotations to learn from


@pytest.fixture
def folder(tmp_path, split):
    """Annotations of all pictures: their true masks, mirrored, so that they can be told from them."""
    for record in split.records:
        write_mask(tmp_path / "made" / f"{record.id}.png", read_mask(record.mask)[:, ::-1])
    return tmp_path / "made"


def test_annotations_take_the_place_of_the_masks(split, folder):
    split.records[1] = replace(split.records[1], part=Path("part.png"))
    lessons = with_annotations(split, folder)
    assert [(r.id, r.image, r.labels) for r in lessons.records] == [(r.id, r.image, r.labels) for r in split.records]
    assert [r.mask for r in lessons.records] == [folder / f"{r.id}.png" for r in split.records]
    assert {r.part for r in lessons.records} == {None}
    assert lessons.class_names == split.class_names
    for record in split.records:
        record.mask.unlink()
    item = lessons.with_transform(None, masks=True)[0]
    np.testing.assert_array_equal(item["mask"], read_mask(folder / "p00.png"))


def test_missing_annotations_are_counted_and_named(split, folder):
    for name in ("p01", "p02", "p04", "p05", "p07"):
        (folder / f"{name}.png").unlink()
    message = (
        f"{folder}: 5 of 8 pictures have no annotation to learn from: p01, p02, p04 and 2 more; "
        "annotate them, or leave them out with `skip_missing`"
    )
    with pytest.raises(AnnotationError) as error:
        with_annotations(split, folder)
    assert str(error.value) == message
    assert [r.id for r in with_annotations(split, folder, skip_missing=True).records] == ["p00", "p03", "p06"]


def test_void_annotations_are_named_like_missing_ones(split, folder):
    write_mask(folder / "p03.png", np.full_like(read_mask(folder / "p03.png"), 255))
    (folder / "p06.png").unlink()
    with pytest.raises(AnnotationError, match=r"2 of 8 .*: p03 \(void everywhere\), p06; annotate them"):
        with_annotations(split, folder)
    kept = [r.id for r in with_annotations(split, folder, skip_missing=True).records]
    assert kept == ["p00", "p01", "p02", "p04", "p05", "p07"]


@pytest.mark.parametrize("skip", [False, True])
def test_a_folder_without_any_annotation_is_refused(split, tmp_path, skip):
    with pytest.raises(AnnotationError, match=r"8 of 8 .*: p00, p01, p02 and 5 more; is this the right folder\?"):
        with_annotations(split, tmp_path / "elsewhere", skip)


def spoil(path: Path, how: str) -> None:
    mask = read_mask(path)
    if how == "class":
        mask[2, 3] = 4
        write_mask(path, mask)
    elif how == "size":
        write_mask(path, mask[:-1])
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "text":
        path.write_text("no picture")
    else:
        Image.fromarray(mask).convert("RGB").save(path)


@pytest.mark.parametrize(
    "how, words",
    [
        ("class", "p02.png: holds class 4, the data knows 0 to 3"),
        ("size", "p02.png: the mask is 26 x 21, its picture 26 x 22"),
        ("truncated", "p02.png: cannot be read as a mask"),
        ("text", "p02.png: cannot be read as a mask"),
        ("color", r"p02.png: holds colors that are no class of VOC's palette, #"),
    ],
)
@pytest.mark.parametrize("skip", [False, True])
def test_annotations_that_cannot_be_used_are_refused(split, folder, how, words, skip):
    """Even where others may be missing: something went wrong with them."""
    spoil(folder / "p02.png", how)
    (folder / "p05.png").unlink()
    with pytest.raises(AnnotationError, match=f"^1 of 8 annotations cannot be used: .*{words}"):
        with_annotations(split, folder, skip)


def test_several_bad_annotations_are_counted(split, folder):
    for record in split.records[:5]:
        spoil(folder / f"{record.id}.png", "class")
    with pytest.raises(AnnotationError, match=r"5 of 8 .*p00.*p01.*p02.png: holds class 4.* and 2 more$"):
        with_annotations(split, folder)


def test_an_unreadable_picture_is_named(split, folder):
    split.records[4].image.write_bytes(b"")
    with pytest.raises(AnnotationError, match="1 of 8 .*p04.png: cannot be read as a picture"):
        with_annotations(split, folder)


def test_a_picture_that_is_no_file_is_refused_unread(split, folder):
    split.records[4].image.unlink()
    split.records[4].image.symlink_to("/dev/null")
    with pytest.raises(AnnotationError, match="1 of 8 .*p04.png: is a pipe or a device"):
        with_annotations(split, folder)


@pytest.mark.parametrize("orientation, turned", [(1, False), (3, False), (5, True), (6, True), (8, True)])
def test_an_annotation_has_the_size_of_the_upright_picture(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (12, 8)).save(tmp_path / "a.jpg", exif=exif)
    pictures = Pictures([Record("a", tmp_path / "a.jpg", (0,))], ("cat",))
    height, width = read_image(tmp_path / "a.jpg").shape[:2]
    assert (height, width) == ((12, 8) if turned else (8, 12))
    write_mask(tmp_path / "a.png", np.zeros((height, width), np.uint8))
    assert len(with_annotations(pictures, tmp_path)) == 1
    write_mask(tmp_path / "a.png", np.zeros((width, height), np.uint8))
    with pytest.raises(AnnotationError, match="a.png: the mask is"):
        with_annotations(pictures, tmp_path)


def test_the_digest_is_over_the_masks_content(split, folder):
    first = data_digest(with_annotations(split, folder), masks=True)
    shutil.copytree(folder, folder.with_name("copy"))
    assert data_digest(with_annotations(split, folder.with_name("copy")), masks=True) == first
    mask = read_mask(folder / "p07.png")
    mask[0, 0] = 3
    write_mask(folder / "p07.png", mask)
    assert data_digest(with_annotations(split, folder), masks=True) != first
