r"""Segmentation networks: from pseudo-annotations to masks of pictures without any label (Sec. IV-A of the paper).

Two networks with one code path, both with a feature cell for every 8 pixels, so that a crop of 8k + 1 pixels has k + 1
cells and 321 have 41:

- DeepLab-LargeFOV on VGG-16 (Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
  CRFs", ICLR 2015): the last two pooling layers keep their stride at 1, conv5 is dilated by 2, fc6 is a 3x3 convolution
  dilated by 12 with 1024 channels.
- a ResNet-101 (or -50, or EfficientNet-lite0 for small machines) of output stride 8 with one 3x3 convolution dilated by
  12 and a classifier.

The loss is the cross-entropy on the network's own grid; a cell's label is that of the pixel at its center, and void
(255) takes no part. At test time a picture is shown at several scales, the class probabilities are averaged at its full
size, and a dense CRF follows its edges. No image label is read.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as pixels
from tqdm import tqdm

from dsna_lib import backbones, crf, model_files, training
from dsna_lib.annotate import Report
from dsna_lib.backbones import Backbone
from dsna_lib.data import PictureError, Pictures, read_image, read_mask, transforms, write_mask
from dsna_lib.data.pictures import VOID
from dsna_lib.training import TrainingConfig

STRIDE = 8
SCALES = (0.7, 1.0, 1.3)
KINDS = ("single", "multi", "crf")
FORMAT = "dsna-segmentation-1"
FC_CHANNELS = 1024  # of fc6 and fc7
# A class that is nowhere likelier than this takes no part in the CRF, whose time grows with the number of classes.
PLAUSIBLE = 0.05


class AnnotationError(ValueError):
    """Annotations that cannot be learned from; the message counts and names them."""


# --- networks ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentationConfig:
    """What a segmentation network is made of; a model file carries it.

    Attributes:
        class_names: names of the C classes, without background.
        backbone: ``"vgg16"`` (DeepLab-LargeFOV), ``"resnet101"``, ``"resnet50"`` or any timm model that offers output
            stride 8, or ``"efficientnet_lite0"``.
        channels: of the dilated convolution; None for 1024 (VGG-16), 128 (EfficientNet-lite0) or 512.
        dilation: of it, in cells of 8 pixels.
        dropout: rate.
        train_last: how many of the backbone's last stages learn; None for all.
        weights: of the backbone at the start: ``"imagenet"``, a file, or None for random ones.
        pretrained_head: VGG-16 only: fc6 and fc7 start from VGG-16's own, thinned out as DeepLab did, and count as
            pretrained. `weights` then has to hold them, as torchvision's file does.
    """

    class_names: tuple[str, ...]
    backbone: str = "efficientnet_lite0"
    channels: int | None = None
    dilation: int = 12
    dropout: float = 0.5
    train_last: int | None = None
    weights: str | None = "imagenet"
    pretrained_head: bool = False


class SegmentationModel(nn.Module):
    """A backbone of output stride 8 and a head: pictures in, a score for each cell and class out.

    Args:
        backbone: maps pictures ``(N, 3, H, W)`` in 0..1 to features ``(N, D, h, w)``.
        head: maps features to ``(N, C + 1, h, w)``.
    """

    def __init__(self, backbone: Backbone, head: nn.Sequential) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head
        self.config: SegmentationConfig | None = None

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)``, RGB in 0..1, to logits ``(N, C + 1, h, w)``; class 0 is background."""
        return self.head(self.backbone(pictures))


def create(config: SegmentationConfig) -> SegmentationModel:
    """Make a network. Its head starts from random weights: seed torch first.

    Raises:
        ValueError: unknown backbone, or one without output stride 8; a pretrained head that VGG-16 does not have.
        CheckpointError: the backbone's weights cannot be used.

    Example:
        >>> model = create(SegmentationConfig(("cat", "dog"), "vgg16", weights=None))
        >>> model(torch.rand(1, 3, 65, 65)).shape
        torch.Size([1, 3, 9, 9])
    """
    if config.pretrained_head and (config.backbone != "vgg16" or config.weights is None):
        given = f"backbone={config.backbone!r} with weights={config.weights!r}"
        raise ValueError(f"pretrained_head: only VGG-16's weights hold a head to start from, not {given}")
    backbone = _backbone(config)
    if config.backbone == "vgg16":
        layers = _fc6_and_fc7(backbone, config)
    else:
        usual = 128 if config.backbone == "efficientnet_lite0" else 512
        layers = _activated(_dilated(backbone, config, usual), config)
        nn.init.kaiming_normal_(layers[0].weight, nonlinearity="relu")
    classifier = nn.Conv2d(layers[0].out_channels, len(config.class_names) + 1, kernel_size=1)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    model = SegmentationModel(backbone, nn.Sequential(*layers, classifier)).eval()
    model.config = config
    return model.to(memory_format=torch.channels_last)


def _backbone(config: SegmentationConfig) -> Backbone:
    if config.backbone == "vgg16":
        backbone = _large_fov(backbones.create("vgg16", weights=config.weights))
    else:
        backbone = backbones.create(config.backbone, STRIDE, config.weights)
    if config.backbone == "efficientnet_lite0":
        # The attention model needs conv_head's activation (its channel sum is the background cue); this head does not.
        backbone.stages = backbone.stages[:-1]
        backbone.out_channels = 320
    backbone.train_last(config.train_last)
    for module in backbone.modules():  # its statistics are frozen, see Backbone; so are its scale and shift
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.requires_grad_(False)
    return backbone


def _large_fov(backbone: Backbone) -> Backbone:
    """VGG-16 with a cell every 8 pixels; no weight changes."""
    layers = list(backbone.stages)
    pools = [place for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    for number, place in enumerate(pools):
        layers[place] = nn.MaxPool2d(3, stride=2 if number < 3 else 1, padding=1)
    for layer in layers[pools[3] :]:  # conv5 sees what it saw before pool4 lost its stride
        if isinstance(layer, nn.Conv2d):
            layer.dilation, layer.padding = (2, 2), (2, 2)
    pool5 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), nn.AvgPool2d(3, stride=1, padding=1))
    backbone.stages = nn.Sequential(*layers, pool5)
    backbone.trained_stages, backbone.output_stride = len(backbone.stages), STRIDE
    return backbone


def _dilated(backbone: Backbone, config: SegmentationConfig, usual: int) -> nn.Conv2d:
    """The convolution with the large field of view."""
    d = config.dilation
    return nn.Conv2d(backbone.out_channels, config.channels or usual, 3, padding=d, dilation=d)


def _activated(convolution: nn.Conv2d, config: SegmentationConfig) -> list[nn.Module]:
    nn.init.zeros_(convolution.bias)
    return [convolution, nn.ReLU(inplace=True), nn.Dropout(config.dropout)]


def _fc6_and_fc7(backbone: Backbone, config: SegmentationConfig) -> list[nn.Module]:
    fc6 = _dilated(backbone, config, FC_CHANNELS)
    fc7 = nn.Conv2d(fc6.out_channels, fc6.out_channels, kernel_size=1)
    layers = [*_activated(fc6, config), *_activated(fc7, config)]
    for convolution in (fc6, fc7):  # features without BatchNorm are large: He's weights would diverge
        nn.init.normal_(convolution.weight, std=0.01)
    if config.pretrained_head:
        _thin_out(fc6, fc7, backbones.vgg16_classifier(config.weights))
    return layers


@torch.no_grad()
def _thin_out(fc6: nn.Conv2d, fc7: nn.Conv2d, whole: dict[str, Tensor]) -> None:
    """Put evenly spaced channels of VGG-16's fc6 and fc7 into ours, and of fc6's 7x7 places every third: 3x3.

    VGG-16's cells there are 32 pixels apart, so places 0, 3 and 6 are 96: 12 of our cells. The dilation is this number.
    """
    of, channels = len(whole["fc6.bias"]), fc6.out_channels
    if channels > of:
        raise ValueError(f"pretrained_head: VGG-16 has {of} channels to choose from, not {channels}")
    kept = torch.arange(channels) * (of // channels)
    fc6.weight.copy_(whole["fc6.weight"].view(-1, fc6.in_channels, 7, 7)[kept, :, ::3, ::3])
    fc7.weight.copy_(whole["fc7.weight"][kept][:, kept, None, None])
    fc6.bias.copy_(whole["fc6.bias"][kept])
    fc7.bias.copy_(whole["fc7.bias"][kept])


def save(model: SegmentationModel, path: str | Path, half: bool = False) -> None:
    """Write a model file; see :func:`dsna_lib.model_files.save`."""
    model_files.save(model, path, FORMAT, half)


def load(path: str | Path, class_names: Sequence[str] | None = None) -> SegmentationModel:
    """Read a model file that :func:`save` wrote; see :func:`dsna_lib.model_files.load`."""
    # The whole head is in the file: nothing is to be fetched for it.
    return model_files.load(
        path, FORMAT, SegmentationConfig, lambda config: create(replace(config, pretrained_head=False)), class_names
    )


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmentationTraining(TrainingConfig):
    """How to train a segmentation network. The defaults are the paper's; :meth:`quick` is for a CPU.

    New layers learn 10 times as fast as pretrained ones, and biases twice as fast as weights and without decay, as in
    DeepLab; `backbone_rate` and `head_rate` are those of the weights.

    Attributes:
        schedule: ``"step"``: divide the rates by 10 after `drop_after` epochs; ``"poly"``: let them fall as
            (1 - progress) ** 0.9.
        whole: show the whole picture, squeezed into the crop's square, instead of a random crop. Losses that use image
            labels need it: a label says nothing about a crop.
    """

    epochs: int = 12
    drop_after: int = 8
    crop: int = 321
    scales: tuple[float, float] = (0.75, 1.5)
    schedule: str = "step"
    whole: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule not in ("step", "poly"):
            raise ValueError(f"schedule={self.schedule!r}: choose 'step' or 'poly'")

    def rate_factor(self, epoch: float) -> float:
        """What the rates are multiplied by after this many epochs, a fraction for a step within one."""
        if self.schedule == "poly":
            return max(0.0, 1 - epoch / self.epochs) ** 0.9
        return super().rate_factor(epoch)


def shrink(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks ``(..., H, W)`` on a network's grid ``(..., *size)``: the label of the pixel at the center of each cell.

    The first and the last cell are centered on the picture's border pixels: 321 pixels on 41 cells are every 8th.

    Example:
        >>> shrink(torch.arange(9).view(1, 9).expand(9, 9), (2, 2))
        tensor([[0, 8],
                [0, 8]])
    """
    rows, columns = (
        torch.linspace(0, full - 1, cells, device=masks.device).round().long()
        for full, cells in zip(masks.shape[-2:], size, strict=True)
    )
    return masks[..., rows[:, None], columns]


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy on the network's grid, averaged over the labeled cells of the batch.

    Args:
        logits: ``(N, C + 1, h, w)``.
        masks: ``(N, H, W)`` uint8: 0 background, 1..C classes, 255 void, which takes no part.

    Returns:
        A scalar; 0 where everything is void.

    Raises:
        ValueError: the shapes do not belong together, or a mask holds a class that the network does not know.
    """
    if masks.ndim != 3 or len(masks) != len(logits):
        raise ValueError(
            f"logits {tuple(logits.shape)} and masks {tuple(masks.shape)} must be (N, C + 1, h, w), (N, H, W)"
        )
    targets = shrink(masks, logits.shape[-2:]).long()
    strange = targets[(targets >= logits.shape[1]) & (targets != VOID)]
    if strange.numel():
        raise ValueError(f"a mask holds class {int(strange[0])}, and the network knows 0 to {logits.shape[1] - 1}")
    total = functional.cross_entropy(logits.float(), targets, ignore_index=VOID, reduction="sum")
    return total / (targets != VOID).sum().clamp_min(1)


def annotated(pictures: Pictures, folder: str | Path, skip: bool = False) -> Pictures:
    """The pictures with a folder's annotations as their masks, checked before anything is trained.

    Args:
        pictures: their own masks are forgotten.
        folder: with ``ID.png`` for every picture.
        skip: leave out pictures whose annotation is missing or void everywhere, instead of refusing.

    Raises:
        AnnotationError: annotations that are missing or void everywhere (unless skipped), damaged, of another size than
            their picture, or with a class that is none of `pictures`'; the message counts and names them.
    """
    kept, absent, wrong = [], [], []
    for record in pictures.records:
        path = Path(folder) / f"{record.id}.png"
        if not path.is_file():
            absent.append(record.id)
            continue
        try:
            mask = read_mask(path, _size(record.image))
        except PictureError as error:
            wrong.append(str(error))
            continue
        strange = mask[(mask > pictures.num_classes) & (mask != VOID)]
        if strange.size:
            wrong.append(f"{path}: holds class {strange[0]}, the data knows 0 to {pictures.num_classes}")
        elif (mask == VOID).all():
            absent.append(f"{record.id} (void everywhere)")
        else:
            kept.append(replace(record, mask=path, part=None))
    total = len(pictures)
    if wrong:
        raise AnnotationError(f"{len(wrong)} of {total} annotations cannot be used: {_named(wrong, '; ')}")
    if absent and not (skip and kept):
        hint = "annotate them, or leave them out (--skip-missing)" if kept else "is this the right folder?"
        raise AnnotationError(
            f"{folder}: {len(absent)} of {total} pictures have no annotation to learn from: {_named(absent)}; {hint}"
        )
    return pictures.with_records(kept)


def _size(path: Path) -> tuple[int, int]:
    """A picture's upright (height, width), from its header alone."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return image.size if turned else image.size[::-1]
    except OSError as error:
        raise PictureError(f"{path}: cannot be read as a picture ({error})") from error


def _named(names: Sequence[str], separator: str = ", ") -> str:
    return separator.join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def annotations_digest(pictures: Pictures) -> str:
    """A digest over the content of all masks.

    Raises:
        AnnotationError: pictures without a mask.
    """
    bare = [record.id for record in pictures.records if record.mask is None]
    if bare:
        raise AnnotationError(f"{len(bare)} of {len(pictures)} pictures have no mask to learn from: {_named(bare)}")
    digest = hashlib.sha256()
    for record in pictures.records:
        digest.update(Path(record.mask).read_bytes())
    return digest.hexdigest()[:12]


# (logits (N, C + 1, h, w), batch) -> scalar; the batch has `image`, `labels` and `mask`.
Loss = Callable[[Tensor, dict[str, Tensor]], Tensor]


def train_segmentation(
    model: SegmentationModel,
    pictures: Pictures,
    config: SegmentationTraining,
    folder: str | Path,
    loss_of: Loss | None = None,
) -> Path:
    """Train a segmentation network on the masks of pictures: pseudo-annotations, or the truth for an upper bound.

    Args:
        model: it is changed in place.
        pictures: with masks, see :func:`annotated`; their transform is replaced by the random training transform.
        config: the schedule.
        folder: for checkpoints, ``metrics.jsonl`` and ``training.json``. An unfinished run in it is resumed.
        loss_of: another loss, such as :class:`dsna_lib.rivals.sec.SECLoss`; None for :func:`segmentation_loss`.

    Returns:
        The folder.

    Raises:
        TrainingError: see :func:`dsna_lib.training.fit`.
    """
    transform = transforms.whole(config.crop) if config.whole else transforms.train(config.crop, config.scales)
    augmented = pictures.with_transform(transform, seed=config.seed, masks=True)
    # Whole pictures differ by a mirror image at most: the frozen stages need not see them again each epoch.
    with model.backbone.remembering() if config.whole else nullcontext():
        return training.fit(model, augmented, _groups(model, config), loss_of or _plain_loss, config, folder)


def _plain_loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return segmentation_loss(logits, batch["mask"])


def _groups(model: SegmentationModel, config: SegmentationTraining) -> list[dict[str, Any]]:
    """DeepLab's four groups: pretrained and new layers, each with weights and biases."""
    pretrained, new = [model.backbone], [model.head]
    if model.config is not None and model.config.pretrained_head:
        pretrained, new = [model.backbone, model.head[:-1]], [model.head[-1]]
    groups = []
    for parts, rate in ((pretrained, config.backbone_rate), (new, config.head_rate)):
        learning = [(name, p) for part in parts for name, p in part.named_parameters() if p.requires_grad]
        biases = [p for name, p in learning if name.endswith("bias")]
        weights = [p for name, p in learning if not name.endswith("bias")]
        groups += [{"params": weights, "lr": rate}, {"params": biases, "lr": 2 * rate, "weight_decay": 0.0}]
    return groups


# --- inference --------------------------------------------------------------------------------------------------------


def probabilities(
    model: SegmentationModel,
    pictures: Tensor,
    scales: Sequence[float] = SCALES,
    flip: bool = False,
    precision: str = "no",
) -> Tensor:
    """How likely each class is at each pixel, averaged over scales (and the mirror image) at full size.

    Args:
        model: in evaluation mode; it runs on the device where it is.
        pictures: ``(N, 3, H, W)`` uint8, RGB.
        scales: multiples of the pictures' own size.
        flip: show each scale mirrored, too.
        precision: ``"no"`` or ``"bf16"``.

    Returns:
        ``(N, C + 1, H, W)`` float32, sums to 1 over classes.

    Raises:
        RuntimeError: out of memory; the message names the size.
    """
    return torch.stack(list(at_scales(model, pictures, scales, flip, precision).values())).mean(dim=0)


@torch.no_grad()
def at_scales(
    model: SegmentationModel, pictures: Tensor, scales: Sequence[float], flip: bool = False, precision: str = "no"
) -> dict[float, Tensor]:
    """:func:`probabilities` of each scale alone."""
    device, size = next(model.parameters()).device, pictures.shape[-2:]
    pictures = pixels.to_dtype(pictures.to(device), torch.float32, scale=True)
    found = {}
    try:
        for scale in scales:
            # Sides of 8k + 1 pixels put cells on the border pixels, where align_corners expects them.
            sides = [STRIDE * max(1, round((scale * side - 1) / STRIDE)) + 1 for side in size]
            shown = pixels.resize(pictures, sides, antialias=True).contiguous(memory_format=torch.channels_last)
            found[scale] = _shown(model, shown, size, precision)
            if flip:
                mirrored = _shown(model, shown.flip(-1), size, precision).flip(-1)
                found[scale] = (found[scale] + mirrored) / 2
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            height, width = size
            raise RuntimeError(
                f"out of memory with {len(pictures)} pictures of {width} x {height}: lower --batch-size or --max-side"
            ) from error
        raise
    return found


def _shown(model: SegmentationModel, pictures: Tensor, size: Sequence[int], precision: str) -> Tensor:
    with torch.autocast(pictures.device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits = model(pictures).float()
    return functional.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=True).softmax(dim=1)


def refined(image: np.ndarray, found: np.ndarray, params: crf.CRFParams | str = "segmentation") -> np.ndarray:
    """A mask that follows the picture's edges: the dense CRF on class probabilities.

    Args:
        image: ``(H, W, 3)`` uint8, raw RGB.
        found: ``(C + 1, H, W)`` in 0..1, any float type. Classes that are nowhere plausible take no part.
        params: parameters or the name of a preset.

    Returns:
        ``(H, W)`` uint8.
    """
    found = np.asarray(found, np.float32)
    plausible = found.max(axis=(1, 2)) >= min(PLAUSIBLE, 1 / len(found))
    return crf.refine(image, found * plausible[:, None, None], params)


def segment_split(
    model: SegmentationModel,
    pictures: Pictures,
    folder: str | Path,
    kinds: Iterable[str] = ("crf",),
    scales: Sequence[float] = SCALES,
    flip: bool = False,
    params: crf.CRFParams | str = "segmentation",
    batch_size: int = 1,
    precision: str = "no",
    workers: int = 0,
    processes: int = 1,
) -> Report:
    """Segment a split, one palette PNG a picture and kind: ``folder/KIND/ID.png``. Image labels are not read.

    What is there already is skipped: a killed run goes on at the next picture.

    Args:
        model: it runs on the device where it is.
        pictures: of any size; masks and labels are not read.
        folder: where to.
        kinds: of ``single`` (the middle one of `scales`), ``multi`` (all of them), ``crf`` (all, then the dense CRF).
        scales, flip: see :func:`probabilities`.
        params: of the CRF.
        batch_size: pictures read at a time; those of one size share a forward pass.
        precision: ``"no"`` or ``"bf16"``.
        workers: processes that read pictures.
        processes: processes that run the CRF; each needs about 0.5 GB.

    Returns:
        What was written, skipped and failed.

    Raises:
        ValueError: an unknown kind.
        ImportError: pydensecrf is not installed, and the CRF was asked for.
    """
    kinds = tuple(kinds)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ValueError(f"kinds={kinds}: choose from {', '.join(KINDS)}")
    report, todo = Report(), []
    path = {(r.id, kind): Path(folder) / kind / f"{r.id}.png" for r in pictures.records for kind in kinds}
    for place, record in enumerate(pictures.records):
        if all(path[record.id, kind].is_file() for kind in kinds):
            report.skipped.append(record.id)
        else:
            todo.append(place)
    with _Refiner(params, processes if "crf" in kinds else 0) as refiner:
        bar = tqdm(total=len(todo), leave=False, disable=None, unit="picture")
        for images, places in _of_one_size(pictures, todo, batch_size, workers, report):
            bar.update(len(places))
            found = _found(model, images, kinds, scales, flip, precision)
            for k, place in enumerate(places):
                name = pictures.records[place].id
                for kind in kinds:
                    if kind == "crf":
                        refiner.refine(images[k], found["multi"][k], path[name, kind])
                    else:
                        write_mask(path[name, kind], found[kind][k].argmax(dim=0).cpu().numpy())
                report.written.append(name)
    return report


def _found(
    model: SegmentationModel,
    images: Tensor,
    kinds: Sequence[str],
    scales: Sequence[float],
    flip: bool,
    precision: str,
) -> dict[str, Tensor]:
    several, middle = set(kinds) & {"multi", "crf"}, median_low(scales)
    each = at_scales(model, images, scales if several else (middle,), flip, precision)
    multi = {"multi": torch.stack([each[scale] for scale in scales]).mean(dim=0)} if several else {}
    return multi | ({"single": each[middle]} if "single" in kinds else {})


class _Images(torch.utils.data.Dataset):
    """Pictures as they are, or why one cannot be read."""

    def __init__(self, pictures: Pictures) -> None:
        self.paths = [record.image for record in pictures.records]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> tuple[int, Tensor | str]:
        try:
            return place, torch.from_numpy(read_image(self.paths[place])).permute(2, 0, 1)
        except PictureError as error:
            return place, str(error)


def _of_one_size(
    pictures: Pictures, todo: list[int], batch_size: int, workers: int, report: Report
) -> Iterator[tuple[Tensor, list[int]]]:
    """Pictures ``(n, 3, H, W)`` of one size each time, n at most `batch_size`, and their places."""
    loader = torch.utils.data.DataLoader(
        _Images(pictures), sampler=todo, batch_size=batch_size, num_workers=workers, collate_fn=list
    )
    for items in loader:
        for place, error in items:
            if isinstance(error, str):
                report.failed[pictures.records[place].id] = error
        readable = [item for item in items if not isinstance(item[1], str)]
        readable.sort(key=lambda item: tuple(item[1].shape))
        for _, group in groupby(readable, key=lambda item: tuple(item[1].shape)):
            places, images = zip(*group, strict=True)
            yield torch.stack(images), list(places)


class _Refiner:
    """Runs the CRF here or in other processes, and writes what comes out.

    The network goes on meanwhile; of pictures that wait, only a few are held in memory.
    """

    def __init__(self, params: crf.CRFParams | str, processes: int) -> None:
        self.params, self.processes = crf.preset(params), processes
        self.waiting: list[Future] = []
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Refiner:
        if self.processes:
            crf.require()
        if self.processes > 1:
            # A fresh server process, not a fork of this one: forking a process that runs threads may hang.
            self.pool = ProcessPoolExecutor(self.processes, multiprocessing.get_context("forkserver"))
        return self

    def refine(self, image: Tensor, found: Tensor, path: Path) -> None:
        job = (image.permute(1, 2, 0).contiguous().numpy(), found.half().cpu().numpy(), self.params, path)
        if self.pool is None:
            _refine_and_write(*job)
            return
        self.waiting.append(self.pool.submit(_refine_and_write, *job))
        self._wait(2 * self.processes)

    def _wait(self, left: int) -> None:
        try:
            while len(self.waiting) > left:
                self.waiting.pop(0).result()
        except BrokenProcessPool:
            raise RuntimeError(
                "a process of the CRF died (out of memory?); run again with fewer processes to go on"
            ) from None

    def __exit__(self, kind: Any, *_: Any) -> None:
        if self.pool is not None:
            try:
                if kind is None:
                    self._wait(0)
            finally:
                self.pool.shutdown(cancel_futures=True)


def _refine_and_write(image: np.ndarray, found: np.ndarray, params: crf.CRFParams, path: Path) -> None:
    write_mask(path, refined(image, found, params))


def server_archive(folder: str | Path, pictures: Pictures, path: str | Path) -> Path:
    """Pack masks as VOC's evaluation server takes them, for the test set, whose masks are not public.

    The networks start from ImageNet's weights, so this is competition 6 (training data of one's own choice).

    Args:
        folder: with ``ID.png`` for every picture.
        pictures: of the split.
        path: the archive, ``.tar.gz``.

    Returns:
        The archive: ``results/VOC2012/Segmentation/comp6_test_cls/ID.png``.

    Raises:
        AnnotationError: masks that are missing; the message counts and names them.
    """
    missing = [r.id for r in pictures.records if not (Path(folder) / f"{r.id}.png").is_file()]
    if missing:
        raise AnnotationError(f"{folder}: {len(missing)} of {len(pictures)} masks are missing: {_named(missing)}")
    with tarfile.open(path, "w:gz") as archive:
        for record in pictures.records:
            name = f"results/VOC2012/Segmentation/comp6_test_cls/{record.id}.png"
            archive.add(Path(folder) / f"{record.id}.png", arcname=name)
    return Path(path)
