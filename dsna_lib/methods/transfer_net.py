r"""TransferNet: how attention becomes a mask is learned on other classes, and holds for these.

A classifier's attention A to a class says roughly where it is. To turn it into a mask one has to know what objects
look like, and not which one it is: a decoder that is never told the class learns it from the masks of *other* classes.
Of the class it sees nothing but the attention, and that *densified*: how much alike each place u is to what is attended
to, whatever the scale of A,

.. math:: z_c = \sum_u A_{c,u} X_u, \qquad s_{c,u} = \frac{z_c \cdot X_u}{\|z_c\| \, \|X_u\|}

with X the backbone's features. The decoder minimizes the binary cross-entropy on the mask of each class that a picture
of the others shows. On the training pictures it is given the attention to the classes of the image label, and a pixel
takes the class that is likeliest there, if that is likelier than not.

Source: Hong, Oh, Lee and Han, "Learning Transferrable Knowledge for Semantic Segmentation with Deep Convolutional
Neural Network", CVPR 2016.

Decided here:

- *Attention* is the positive part of CAM over its maximum, by the classifier that CAM's, SEC's and AE's rows share; for
  the other classes by a head of the same kind that is trained on its features, which stay as they are. Theirs
  multiplies features with an embedding of the class.
- *Decoder.* A convolution of A and s, then up to finer features, whose projections show it where edges are: two grids
  where the backbone has them. Theirs is a mirrored VGG-16, and sees s alone.
- *Schedule.* That of the classifiers, in as many steps, for head and decoder.
- *The row's own network* learns from these masks, where TransferNet's answer is the decoder's with its CRF.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dsna_lib import training
from dsna_lib.annotate import resize
from dsna_lib.attention import AttentionModel
from dsna_lib.backbones import Backbone
from dsna_lib.data import transforms
from dsna_lib.data.pictures import VOID, Record, read_image
from dsna_lib.engine import devices, runs
from dsna_lib.maps import positive_part
from dsna_lib.methods.base import LABELS, Help, Stage
from dsna_lib.methods.cam import CAM, cam
from dsna_lib.methods.learned import learn
from dsna_lib.methods.table_iv import printed
from dsna_lib.methods.turns import combined, in_as_many_steps, with_masks

CHANNELS = 32


def densified(attention: Tensor, features: Tensor) -> Tensor:
    """How much alike each place is to what is attended to: ``(N, C, h, w)`` in -1..1, 0 where nothing is.

    Args:
        attention: ``(N, C, h, w)``, from 0 on.
        features: ``(N, D, h, w)``.
    """
    attended = functional.normalize(torch.einsum("nchw,ndhw->ncd", attention, features), dim=2)
    return torch.einsum("ncd,ndhw->nchw", attended, functional.normalize(features, dim=1))


class Decoder(nn.Module):
    """From attention to masks, the same for all classes.

    Args:
        widths: channels of the features of finer grids than that of attention, the finest first.
        channels: its own.
    """

    def __init__(self, widths: Sequence[int], channels: int = CHANNELS) -> None:
        super().__init__()
        self.start = nn.Conv2d(2, channels, 3, padding=1)
        self.projections = nn.ModuleList(nn.Conv2d(width, channels // 4, 1) for width in reversed(widths))
        self.steps = nn.ModuleList(nn.Conv2d(channels + channels // 4, channels, 3, padding=1) for _ in widths)
        self.last = nn.Conv2d(channels, 1, 1)

    def forward(self, attention: Tensor, alike: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """Attention and densified attention ``(N, C, h, w)``, and finer features, to logits ``(N, C, H, W)``."""
        count, classes = attention.shape[:2]
        x = functional.relu(self.start(torch.stack([attention, alike], dim=2).flatten(0, 1)))
        for level, projection, step in zip(reversed(finer), self.projections, self.steps, strict=True):
            seen = projection(level).repeat_interleave(classes, dim=0)
            up = functional.interpolate(x, level.shape[-2:], mode="bilinear")
            x = functional.relu(step(torch.cat([up, seen], dim=1)))
        return self.last(x).unflatten(0, (count, classes)).squeeze(2)


class Transfer(nn.Module):
    """A decoder on a classifier that does not learn.

    Args:
        model: whose backbone it has.
        head: the classifier whose attention is decoded, on features of that backbone.
        decoder: None for a new one; seed torch first.
    """

    def __init__(self, model: AttentionModel, head: nn.Module, decoder: Decoder | None = None) -> None:
        super().__init__()
        assert isinstance(model.backbone, Backbone)
        self.classifier = AttentionModel(model.backbone, head).requires_grad_(False)
        if decoder is None:
            finer = model.backbone.pyramid(torch.zeros(1, 3, 65, 65, device=model.backbone.mean.device))[-3:-1]
            decoder = Decoder([level.shape[1] for level in finer])
        self.decoder = decoder

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures ``(N, 3, H, W)`` in 0..1 to logits of the masks of all classes ``(N, C, h, w)``."""
        assert isinstance(self.classifier.backbone, Backbone)
        with torch.no_grad():
            *finer, features = self.classifier.backbone.pyramid(pictures)[-3:]
            attention = positive_part(cam(self.classifier, features))
            alike = densified(attention, features.float())
        return self.decoder(attention, alike, finer)


def mask_loss(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """The binary cross-entropy of the classes that each picture shows, averaged over places that are not void.

    Args:
        logits: ``(N, C, h, w)``.
        batch: with ``mask`` ``(N, H, W)`` and ``labels`` ``(N, C)``.
    """
    masks = functional.interpolate(batch["mask"][:, None].float(), logits.shape[-2:], mode="nearest-exact")
    own = masks == torch.arange(1, logits.shape[1] + 1, device=masks.device)[:, None, None]
    counted = (masks != VOID) & (batch["labels"] > 0)[..., None, None]
    losses = functional.binary_cross_entropy_with_logits(logits.float(), own.float(), reduction="none")
    return (losses * counted).sum() / counted.sum().clamp_min(1)


def learned_decoder(stage: Stage, model: AttentionModel, file: Path) -> tuple[Decoder, str]:
    """The decoder that other classes' masks teach, trained or as it was, and its file's digest.

    Args:
        model, file: the classifier of the data set's own classes.
    """
    told, device = stage.help["other_masks"], devices.choose_device(stage.training.device)
    others = with_masks(told)
    schedule = in_as_many_steps(stage.training, stage.mining, others)
    # On the same features: they start from the classifier's backbone, and none of it is trained.
    start = {**asdict(CAM.head), "class_names": others.class_names, "weights": str(file), "train_last": 0}
    head, trained = training.train_once(replace(stage.model, **start), others, schedule)
    torch.manual_seed(schedule.seed)
    network = Transfer(model, head.head.to(device))
    identity = {"classifiers": [runs.file_digest(path) for path in (file, trained.folder / "model.pth")]}
    digest = learn(replace(stage, training=schedule), network, others, mask_loss, identity, __name__, masks=True)
    return network.decoder, digest


@dataclass(frozen=True)
class TransferNet:
    """See :class:`dsna_lib.methods.base.Method`."""

    title: str = "TransferNet"
    needs: frozenset[Help] = LABELS | {"other_masks"}
    paper: float | None = printed("TransferNet")
    trains: frozenset[str] = CAM.trains | {"other classes"}

    def __str__(self) -> str:
        return self.title

    def annotate(self, stage: Stage) -> Path:
        """Decoded attention; no CRF: where objects end is what the decoder has learned."""
        model, file = stage.train(CAM.head)
        decoder, digest = learned_decoder(stage, model, file)
        network, shrink = Transfer(model, model.head, decoder).eval(), transforms.inference(stage.maps.size)
        device = next(decoder.parameters()).device

        @torch.no_grad()
        def label(record: Record) -> np.ndarray:
            image = read_image(record.image)
            logits = network(shrink(torch.from_numpy(image).permute(2, 0, 1))[None].to(device))[0]
            own = resize(logits[list(record.labels)], image.shape[:2])
            return combined(own.sigmoid().cpu().numpy(), record.labels)

        return stage.annotate_each("annotate", label, {"model": runs.file_digest(file), "decoder": digest}, __name__)

    def loss(self, stage: Stage) -> None:
        """The cross-entropy."""


TRANSFER_NET = TransferNet()
