r"""Attention maps: normalization, merging (Eq. 11), and one forward pass a picture.

.. math:: T_c = \hat p_c A_c + (1 - \hat p_c) S_c

with A and S normalized per picture and class, and :math:`\hat p` the softmax of the class scores, or the sigmoid of
a single class's. A small score goes with a difficult, often small object, and moves the weight to the discriminative
map S.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib.attention import AttentionOutput
from dsna_lib.data import transforms
from dsna_lib.data.pictures import PictureError, Pictures
from dsna_lib.engine.devices import reader_count
from dsna_lib.engine.errors import RunError, SettingError
from dsna_lib.engine.sizes import scaled

MAP_KINDS = ("expansive", "discriminative", "merged")


def min_max(maps: Tensor) -> Tensor:
    """Scale each map ``(..., h, w)`` to 0..1 over its last two axes; a constant map gives zeros.

    Example:
        >>> min_max(torch.tensor([[1.0, 3.0]]))
        tensor([[0., 1.]])
    """
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def positive_part(maps: Tensor) -> Tensor:
    """Drop negative scores, then divide each map ``(..., h, w)`` by its maximum over the last two axes, to 0..1.

    A discriminative map is a score with a meaningful zero: below it a place speaks against the class. Min-max
    would lift those places to middling values. A map without a positive score gives zeros.
    """
    maps = maps.clamp_min(0)
    return maps / maps.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def score_weight(scores: Tensor, present: Tensor | None = None) -> Tensor:
    """p-hat of Eq. 11, ``(..., C)`` in 0..1: the softmax of the class scores ``(..., C)``, which are logits.

    It is taken over all classes, or over those for which `present` ``(..., C)`` is true, and 0 for the others. Over the
    present classes alone, a picture with one label would always get 1 and never use its discriminative map. Where
    there is one class in all, it is the sigmoid for the same reason.
    """
    absent = torch.zeros_like(scores, dtype=torch.bool) if present is None else ~present.bool()
    scores = scores.masked_fill(absent, -torch.inf)
    chances = scores.sigmoid() if scores.shape[-1] == 1 else scores.softmax(dim=-1)
    return chances.masked_fill(absent, 0)  # the softmax over no class at all is no number


def merge(
    expansive: Tensor,
    discriminative: Tensor,
    scores: Tensor,
    present: Tensor | None = None,
    normalize_discriminative: Callable[[Tensor], Tensor] = positive_part,
) -> Tensor:
    """Eq. 11: merge both maps of each class, weighted by its share of the softmax, to ``(..., C, h, w)`` in 0..1.

    Args:
        expansive: ``(..., C, h, w)`` attention weights a, raw or normalized.
        discriminative: ``(..., C, h, w)`` dense scores s, raw or normalized.
        scores, present: ``(..., C)`` logits p, and what :func:`score_weight` says.
        normalize_discriminative: :func:`positive_part` (default) or :func:`min_max`.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if expansive.shape != discriminative.shape or scores.shape != expansive.shape[:-2]:
        raise ValueError(
            f"expansive {tuple(expansive.shape)} and discriminative {tuple(discriminative.shape)} must have one shape "
            f"(..., C, h, w), and scores {tuple(scores.shape)} its (..., C)"
        )
    p_hat = score_weight(scores, present)[..., None, None]
    return p_hat * min_max(expansive) + (1 - p_hat) * normalize_discriminative(discriminative)  # Eq. 11


def similarities(maps: Tensor) -> Tensor:
    """How alike maps are: the cosine of each pair of K maps ``(K, h, w)``, ``(K (K - 1) / 2,)``.

    It is 1 for maps that differ by a factor, and 0 where one is zero wherever the other is not. Maps of classes that
    stand in different places of a picture should have little in common.

    Example:
        >>> similarities(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[3.0, 0.0]]]))
        tensor([0., 1., 0.])
    """
    directions = functional.normalize(maps.flatten(1), dim=1)
    first, second = torch.triu_indices(len(maps), len(maps), 1, device=maps.device)
    return (directions[first] * directions[second]).sum(dim=1)


def from_output(output: AttentionOutput) -> dict[str, Tensor]:
    """The normalized maps that an attention head's output holds, each ``(N, C, h, w)`` float32 in 0..1.

    There is ``"discriminative"`` and, where the head has an expansive map, ``"expansive"`` and ``"merged"``.
    """
    s = output.discriminative.float()
    if output.expansive is None:
        return {"discriminative": positive_part(s)}
    a = output.expansive.float().expand_as(s)
    return {"expansive": min_max(a), "discriminative": positive_part(s), "merged": merge(a, s, output.scores.float())}


# Model, pictures (N, 3, H, W), classes present (N, C) bool -> the model's output; kind -> maps (N, C, h, w) in 0..1.
MapMaker = Callable[[nn.Module, Tensor, Tensor], tuple[AttentionOutput, dict[str, Tensor]]]


def attention_maps(model: nn.Module, pictures: Tensor, present: Tensor) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """The usual map maker: one forward pass, and :func:`from_output`. The maps do not depend on the classes present."""
    output = model(pictures)
    return output, from_output(output)


class PictureMaps(NamedTuple):
    """What one forward pass says of one picture."""

    #: place in the data set
    index: int  # type: ignore[assignment]  # which hides the tuple's method of that name
    size: tuple[int, int]  #: ``(height, width)`` of the picture on disk, in pixels
    maps: dict[str, Tensor]  #: kind to ``(C, h, w)`` in 0..1
    features: Tensor  #: ``(D, h, w)``
    scores: Tensor  #: ``(C,)`` logits


@torch.no_grad()
def iterate_maps(
    model: nn.Module,
    pictures: Pictures,
    indices: list[int] | None = None,
    size: int = 224,
    batch_size: int = 16,
    precision: str = "no",
    workers: int = 0,
    failed: dict[str, str] | None = None,
    maker: MapMaker = attention_maps,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Iterator[PictureMaps]:
    """The maps of each readable picture, in order: all kinds and all classes from one forward pass.

    Args:
        model: an attention model; it runs on the device where it is.
        pictures, indices: a data set, and which of its pictures in which order; None for all.
        size: pictures are resized to this square for the network, in pixels.
        batch_size: pictures a forward pass; lower it when memory runs out.
        precision: ``"no"`` or ``"bf16"``.
        workers: processes that read pictures.
        failed: collects id to reason of pictures that cannot be read; without it they raise.
        maker: makes the maps of a batch; another method's, such as :func:`dsna_lib.methods.cams.cam_maps`, gives its
            own kinds.
        scales, flip: average maps, features and scores over these multiples of `size`, and over mirror images, on
            the grid of the first scale: as many forward passes.

    Raises:
        PictureError: an unreadable picture, where `failed` is None.
        SettingError: the pictures have other classes than the model, or a size that its backbone cannot take.
        RunError: out of memory; the message says what to lower.
    """
    known = getattr(getattr(model, "config", None), "class_names", ()) or pictures.class_names
    if tuple(known) != pictures.class_names:
        ours, theirs = (
            f"{len(names)} classes ({', '.join(names[:3])}, ...)" for names in (known, pictures.class_names)
        )
        raise SettingError(
            f"the model knows {ours}, the pictures have {theirs}", "use a model that learned from their kind"
        )
    device = next(model.parameters()).device
    loader = torch.utils.data.DataLoader(
        _Reader(pictures, [round(scaled(size, scale)) for scale in scales], failed is not None),
        sampler=range(len(pictures)) if indices is None else indices,
        batch_size=batch_size,
        num_workers=reader_count(workers),
        collate_fn=list,
    )
    model.eval()
    for items in loader:
        if failed is not None:
            failed |= {item["id"]: item["error"] for item in items if "error" in item}
        items = [item for item in items if "error" not in item]
        if not items:
            continue
        views = [torch.stack(images) for images in zip(*(item["images"] for item in items), strict=True)]
        present = torch.stack([item["labels"] for item in items]).to(device) > 0
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                made = [_viewed(maker, model, view.to(device), present, False) for view in views]
                made += [_viewed(maker, model, view.to(device), present, True) for view in views if flip]
        except torch.OutOfMemoryError as error:
            said = f"out of memory with {len(items)} pictures of {size} pixels"
            raise RunError(said, "lower `batch_size`, `size` or `scales`") from error
        scores = torch.stack([scores for scores, _ in made]).mean(dim=0)
        grid = made[0][1]["features"].shape[-2:]
        grids = {name: mean_on_grid([grids[name] for _, grids in made], grid) for name in made[0][1]}
        features = grids.pop("features")
        for place, item in enumerate(items):
            own = {kind: batch_maps[place] for kind, batch_maps in grids.items()}
            yield PictureMaps(item["index"], item["size"], own, features[place], scores[place])


def _viewed(
    maker: MapMaker, model: nn.Module, batch: Tensor, present: Tensor, mirrored: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Scores ``(N, C)``; maps ``(N, C, h, w)`` and ``"features"`` of a batch or its mirror image, turned back."""
    batch = batch.flip(-1) if mirrored else batch
    output, maps = maker(model, batch.contiguous(memory_format=torch.channels_last), present)
    assert output.features is not None, "a map maker's output comes from a whole model"
    grids = maps | {"features": output.features.float()}
    return output.scores.float(), {name: grid.flip(-1) if mirrored else grid for name, grid in grids.items()}


def mean_on_grid(several: Sequence[Tensor], grid: Sequence[int]) -> Tensor:
    """The mean of maps ``(N, K, h, w)`` of several sizes, each resized bilinearly to a grid (height, width)."""
    if len(several) == 1:
        return several[0]
    return torch.stack([functional.interpolate(maps, tuple(grid), mode="bilinear") for maps in several]).mean(dim=0)


class _Reader(torch.utils.data.Dataset):
    """Pictures at the network's sizes, with their own size beside them; optionally errors as items."""

    def __init__(self, pictures: Pictures, sizes: Sequence[int], tolerant: bool) -> None:
        self.pictures, self.tolerant = pictures.with_transform(None), tolerant
        self.shrink = [transforms.inference(size) for size in sizes]

    def __getitem__(self, index: int) -> dict[str, Any]:
        try:
            item = self.pictures[index]
        except PictureError as error:
            if not self.tolerant:
                raise
            return {"id": self.pictures.records[index].id, "error": str(error)}
        image = item["image"]
        return item | {"size": tuple(image.shape[-2:]), "images": [shrink(image) for shrink in self.shrink]}
