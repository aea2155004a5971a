"""Learning to segment: from annotations, from the truth, or by a loss that needs neither."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import Field, asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from dsna_lib import diagnostics, training
from dsna_lib.backbones import weights_digest, weights_name
from dsna_lib.config.segmentation import SegmentationConfig
from dsna_lib.config.training import SegmentationTraining
from dsna_lib.data import transforms
from dsna_lib.data.pictures import VOID, PictureError, Pictures, read_mask, without_masks
from dsna_lib.engine import devices, runs
from dsna_lib.engine.errors import DsnaError, SettingError, first_few
from dsna_lib.engine.files import refuse_special
from dsna_lib.engine.runs import Run
from dsna_lib.metrics import ConfusionMatrix
from dsna_lib.segmentation import networks
from dsna_lib.segmentation.networks import SegmentationModel

STAGE = "segmentation"  # of runs


class AnnotationError(DsnaError, ValueError):
    """Annotations that cannot be learned from; the message counts and names them."""


class Loss(Protocol):
    """What a segmentation network minimizes: a frozen dataclass, so that its fields tell one run from another."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    whole_pictures: ClassVar[bool]  #: it uses image labels, which speak of whole pictures and not of crops
    needs_masks: ClassVar[bool]  #: the batch must hold ``mask``

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits ``(N, C + 1, h, w)`` and a batch with ``image``, ``labels`` and perhaps ``mask`` to a scalar."""
        ...


@dataclass(frozen=True)
class CrossEntropy:
    """:func:`segmentation_loss` of the batch's masks: the usual loss."""

    whole_pictures: ClassVar[bool] = False
    needs_masks: ClassVar[bool] = True

    def __call__(self, logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """From logits and a batch with ``mask`` to a scalar."""
        return segmentation_loss(logits, batch["mask"])


def labels_at_cell_centers(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks ``(..., H, W)`` on a network's grid ``(..., *size)``: the label of the pixel at the center of each cell.

    The first and the last cell are centered on the picture's border pixels: 321 pixels on 41 cells are every 8th.

    Example:
        >>> labels_at_cell_centers(torch.arange(9).view(1, 9).expand(9, 9), (2, 2))
        tensor([[0, 8],
                [0, 8]])
    """
    rows, columns = (
        torch.linspace(0, full - 1, cells, device=masks.device).round().long()
        for full, cells in zip(masks.shape[-2:], size, strict=True)
    )
    return masks[..., rows[:, None], columns]


def segmentation_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy on the network's grid, averaged over the labeled cells of the batch; 0 where all are void.

    Args:
        logits: ``(N, C + 1, h, w)``.
        masks: ``(N, H, W)`` uint8: 0 background, 1..C classes, 255 void, which takes no part.

    Raises:
        ValueError: the shapes do not belong together, or a mask holds a class that the network does not know.
    """
    if masks.ndim != 3 or len(masks) != len(logits):
        shapes = f"logits {tuple(logits.shape)} and masks {tuple(masks.shape)}"
        raise ValueError(f"{shapes} must be (N, C + 1, h, w), (N, H, W)")
    targets = labels_at_cell_centers(masks, logits.shape[-2:]).long()
    strange = targets[(targets >= logits.shape[1]) & (targets != VOID)]
    if strange.numel():
        raise ValueError(f"a mask holds class {int(strange[0])}, and the network knows 0 to {logits.shape[1] - 1}")
    total = functional.cross_entropy(logits.float(), targets, ignore_index=VOID, reduction="sum")
    return total / (targets != VOID).sum().clamp_min(1)


def with_annotations(pictures: Pictures, folder: str | Path, skip_missing: bool = False) -> Pictures:
    """The pictures with annotations in place of their masks, checked before anything is trained.

    Args:
        pictures, folder: the folder has an ``ID.png`` for every picture.
        skip_missing: leave out pictures whose annotation is missing or void everywhere, instead of refusing.

    Raises:
        AnnotationError: annotations that are missing or void everywhere (unless skipped), damaged, of another size than
            their picture, or with a class that is none of `pictures`'; the message counts and names them.
    """
    kept, absent, wrong, total = [], [], [], len(pictures)
    for record in pictures.records:
        path = Path(folder) / f"{record.id}.png"
        if not path.is_file():
            absent.append(record.id)
            continue
        try:
            mask = read_mask(path, _size(record.image), pictures.num_classes)
        except PictureError as error:
            wrong.append(str(error))
            continue
        if (mask == VOID).all():
            absent.append(f"{record.id} (void everywhere)")
        else:
            kept.append(replace(record, mask=path, part=None))
    if wrong:
        raise AnnotationError(f"{len(wrong)} of {total} annotations cannot be used: {first_few(wrong, separator='; ')}")
    if absent and not (skip_missing and kept):
        said = f"{folder}: {len(absent)} of {total} pictures have no annotation to learn from: {first_few(absent)}"
        hint = "annotate them, or leave them out with `skip_missing`" if kept else "is this the right folder?"
        raise AnnotationError(said, hint)
    return pictures.with_records(kept)


def _size(path: Path) -> tuple[int, int]:
    """A picture's upright (height, width), from its header alone."""
    refuse_special(path, PictureError)
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return image.size if turned else image.size[::-1]
    except OSError as error:
        raise PictureError(f"{path}: cannot be read as a picture ({error})") from error


def train_segmentation(
    model: SegmentationModel,
    pictures: Pictures,
    config: SegmentationTraining,
    folder: str | Path,
    loss: Loss | None = None,
) -> Path:
    """Train a segmentation network, which is changed in place; for errors see :func:`dsna_lib.training.fit`.

    Args:
        pictures: with masks where the loss needs them, see :func:`with_annotations`; their transform is replaced by
            the random training transform.
        config: the schedule; a loss that uses image labels is shown whole pictures, whatever it says. On pictures that
            it holds out, :func:`mean_iou` is measured on the way, unless the loss needs no masks.
        folder: for checkpoints and ``metrics.jsonl``. An unfinished run with the same loss in it is resumed.
        loss: another one than :class:`CrossEntropy`, such as :class:`dsna_lib.methods.sec.SECLoss`.
    """
    loss = CrossEntropy() if loss is None else loss
    config = replace(config, crops="whole") if loss.whole_pictures else config
    if devices.is_main_process():
        runs.claim_folder(folder, STAGE, loss=_described(loss)[1], training=config.identity())
    learned, held = diagnostics.hold_out(pictures, config.held_out)
    augmented = learned.with_transform(training.augmentation(config), seed=config.seed, masks=loss.needs_masks)

    def iou_of(network: SegmentationModel) -> dict[str, float]:
        return {"mean_iou": mean_iou(network, held, config.held_out_size or config.crop)}

    measure = iou_of if len(held) and loss.needs_masks else None
    with training.remembering(model, config):
        return training.fit(model, augmented, _groups(model, config), loss, config, folder, measure)


@torch.no_grad()
def mean_iou(model: SegmentationModel, pictures: Pictures, size: int) -> float:
    """How well a network repeats masks or annotations, on its own grid: in 0..1, over classes with background.

    The model is left in evaluation mode; the pictures are shown whole, as squares of `size` pixels.
    """
    matrix = ConfusionMatrix(pictures.num_classes + 1)
    device = next(model.parameters()).device
    shown = pictures.with_transform(transforms.inference(size), masks=True)
    model.eval()
    for batch in DataLoader(shown, batch_size=8):
        logits = model(batch["image"].to(device, memory_format=torch.channels_last)).cpu()
        matrix.update(logits.argmax(dim=1), labels_at_cell_centers(batch["mask"], logits.shape[-2:]))
    return round(float(matrix.mean_iou), 4)


def _groups(model: SegmentationModel, config: SegmentationTraining) -> list[dict[str, Any]]:
    """DeepLab's four groups: pretrained and new layers, each with weights and biases."""
    pretrained: list[nn.Module] = [model.backbone]
    new = model.head
    if model.config is not None and model.config.pretrained_head:
        assert isinstance(new, nn.Sequential), "a decoder starts anew"
        pretrained, new = [model.backbone, new[:-1]], new[-1:]
    groups: list[dict[str, Any]] = []
    for layers, rate in ((nn.ModuleList(pretrained), config.backbone_rate), (new, config.head_rate)):
        learning = [(name, p) for name, p in layers.named_parameters() if p.requires_grad]
        biases = [p for name, p in learning if name.endswith("bias")]
        weights = [p for name, p in learning if not name.endswith("bias")]
        groups += [{"params": weights, "lr": rate}, {"params": biases, "lr": 2 * rate, "weight_decay": 0.0}]
    return groups


def train_once(
    model: SegmentationConfig,
    pictures: Pictures,
    config: SegmentationTraining,
    folder: str | Path | None = None,
    loss: Loss | None = None,
) -> tuple[SegmentationModel, Run]:
    """Train a segmentation network, resume an unfinished run, or load the finished one.

    It goes as in :func:`dsna_lib.training.train_once`, with the report of :func:`examine`.

    Args:
        model, config, folder: as there.
        pictures: with the masks to learn from, where the loss needs any.
        loss: see :func:`train_segmentation`; another one is another run.

    Raises:
        AnnotationError: pictures without a mask, and the loss needs them.
        SettingError: a loss of your own whose source cannot be read.
    """
    loss = CrossEntropy() if loss is None else loss
    config = replace(config, crops="whole") if loss.whole_pictures else config
    pictures = pictures if loss.needs_masks else without_masks(pictures)
    bare = [record.id for record in pictures.records if record.mask is None]
    if loss.needs_masks and bare:
        raise AnnotationError(f"{len(bare)} of {len(pictures)} pictures have no mask to learn from: {first_few(bare)}")

    def work(folder: Path) -> dict[str, Any]:
        torch.manual_seed(config.seed)
        network = networks.create(model)
        train_segmentation(network, pictures, config, folder, loss)
        report = examine(network, pictures, config.crop)
        if devices.is_main_process():
            networks.save(network, folder / "model.pth")
        return training.read_log(folder)[-1] | report | {"curve": training.read_curve(folder, "mean_iou")}

    modules, described = _described(loss)
    identity = {
        "model": asdict(model) | {"weights": weights_name(model.weights)},
        "weights": weights_digest(model.backbone, model.weights),
        "data": {"digest": runs.data_digest(pictures, masks=loss.needs_masks), "pictures": len(pictures)},
        "training": config.identity(),
        "loss": described,
    }
    run = runs.complete(runs.open_run(STAGE, identity, __name__, *modules, folder=folder), work)
    return networks.load(run.folder / "model.pth", pictures.class_names), run


def _described(loss: Loss) -> tuple[list[str], dict[str, Any]]:
    """What tells a loss from others: its module, where that is one of this package, and its name, fields and code."""
    kind = type(loss)
    described: dict[str, Any] = {kind.__name__: asdict(loss)}
    if kind.__module__.split(".")[0] == runs.PACKAGE.name:
        return [kind.__module__], described
    try:
        return [], described | {"code": inspect.getsource(kind.__call__)}  # one of your own, in a notebook say
    except (OSError, TypeError):
        said = f"the source of the loss {kind.__name__} cannot be read, which tells its runs from others'"
        raise SettingError(said, "write it into a file or a notebook") from None


@torch.no_grad()
def examine(model: SegmentationModel, pictures: Pictures, size: int, count: int = 16) -> dict[str, Any]:
    """Whether a network has collapsed: what it answers to some of its own training pictures.

    The model is left in evaluation mode; `count` pictures, evenly spread, are shown whole, as squares of `size` pixels.

    Returns:
        ``examined`` (pictures), ``classes_shown`` (how many classes their masks hold, or their image labels where there
        are no masks, with background), ``classes_answered`` (how many are the answer anywhere), ``channels`` of the
        head's hidden layer with the largest share of ``silent`` ones (never above 0 in any of the pictures; both None
        where there is no hidden layer), and ``warnings``: sentences that name what is wrong, if anything is.
    """
    shown = diagnostics.spread(pictures, count).with_transform(transforms.inference(size))
    device = next(model.parameters()).device
    answers: set[int] = set()
    highest: dict[nn.Module, Tensor] = {}  # hidden layer to the highest value of each channel in any picture

    def note(layer: nn.Module, _: Any, values: Tensor) -> None:
        peak = values.amax(dim=(0, 2, 3))
        highest[layer] = torch.maximum(highest.get(layer, peak), peak)

    hidden = [layer for layer in model.head.modules() if isinstance(layer, nn.ReLU)]
    hooks = [layer.register_forward_hook(note) for layer in hidden]
    model.eval()
    for place in range(len(shown)):
        answers.update(model(shown[place]["image"][None].to(device)).argmax(dim=1).unique().tolist())
    for hook in hooks:
        hook.remove()
    asked: set[int] = set()
    for record in shown.records:  # the classes of its mask, or background and its image labels where it has none
        labeled = {0, *(label + 1 for label in record.labels)}
        asked |= labeled if record.mask is None else set(np.unique(read_mask(record.mask)).tolist()) - {VOID}
    warnings = []
    if len(answers) == 1 and len(asked) > 1:
        name = ("background", *pictures.class_names)[min(answers)]
        warnings.append(f"the network answers {name} everywhere in {len(shown)} of its training pictures")
    worst = max((peak <= 0 for peak in highest.values()), key=lambda silent: silent.float().mean(), default=None)
    channels, silent = (None, None) if worst is None else (len(worst), int(worst.sum()))
    if worst is not None and 2 * worst.sum() > len(worst):
        warnings.append(f"{silent} of {channels} channels of the head are silent in {len(shown)} training pictures")
    counts = {"examined": len(shown), "classes_shown": len(asked), "classes_answered": len(answers)}
    return counts | {"channels": channels, "silent": silent, "warnings": warnings}
