r"""Two-phase: a second network learns from what the first one does not look at, and both maps together are the object.

A classifier is content with the part of an object that tells its class best. *First phase*: one is trained as usual.
*Second phase*: another one is trained, from whose features everything is taken away that the first one lights up at,

.. math:: \tilde X_u = \begin{cases} 0 & \max_{c \in \hat C} H^1_{c,u} > \delta \\ X_u & \text{elsewhere} \end{cases},
    \qquad H_c = \max\big(H^1_c, H^2_c\big)

with :math:`H^k_c` the positive part of the class activation map of phase k, scaled to 0..1, the second one of
:math:`\tilde X`; :math:`\hat C` the classes that the first network finds in the picture, and :math:`\delta = 0.6`. The
first one is only asked, *inference conditional feedback*, and does not learn any more. Adversarial erasing
(:mod:`dsna_lib.methods.adversarial_erasing`) does the like to pixels.

Source: Kim, Cho, Yoo and Kweon, "Two-Phase Learning for Weakly Supervised Object Localization", ICCV 2017; we know of
no public code. Decided here:

- *Networks.* CAM's classifier twice, in place of a VGG-16 with convolutions for its fully connected layers; the second
  starts anew from the backbone's weights and the same seed. Features are suppressed at X, behind the backbone.
- *Classes found.* Those of a probability above one half, and at least the likeliest one.
- *Union.* The maximum of both maps. Where the first map of a class is small, a second one of its own scale counts in
  full: nothing tells how sure it is.
- *Threshold, background, CRF.* The table's, in place of theirs; the background cue is of the first network's features,
  since the second one's are cut out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsna_lib import attention
from dsna_lib.annotate import annotate_split
from dsna_lib.attention import AttentionModel, AttentionOutput
from dsna_lib.backbones import weights_digest, weights_name
from dsna_lib.diagnostics import examine
from dsna_lib.engine import devices, runs
from dsna_lib.maps import positive_part
from dsna_lib.methods.base import MapMethod, Stage, thresholds
from dsna_lib.methods.cam import cam
from dsna_lib.methods.explain import CLASSIFIER
from dsna_lib.methods.table_iv import printed
from dsna_lib.training import read_curve, read_log, remembering, train_attention

SUPPRESSED = 0.6  # delta


class SecondPhase(AttentionModel):
    """A classifier that sees features where another one is not sure.

    Args:
        model: whose backbone and head it has; they learn.
        first: of the first phase; it does not.
        threshold: delta.
    """

    def __init__(self, model: AttentionModel, first: AttentionModel, threshold: float = SUPPRESSED) -> None:
        super().__init__(model.backbone, model.head)
        self.config, self.threshold = model.config, threshold
        self.first = first.requires_grad_(False)
        first.backbone.train_last(0)  # type: ignore[operator]  # so that what it makes of a picture may be remembered

    def train(self, mode: bool = True) -> SecondPhase:
        """As usual, but the first phase stays in evaluation mode."""
        super().train(mode)
        self.first.eval()
        return self

    def forward(self, pictures: Tensor) -> AttentionOutput:
        """As any attention model; the features are those that are left."""
        features = self.backbone(pictures)
        with torch.no_grad():
            before = self.first(pictures)
            gone = suppressed(cam(self.first, before.features), before.scores, self.threshold)
        features = features * ~gone[:, None]
        return self.head(features)._replace(features=features)


def suppressed(maps: Tensor, scores: Tensor, threshold: float = SUPPRESSED) -> Tensor:
    """Where a class that was found is active: ``(N, h, w)`` bool, of raw maps ``(N, C, h, w)`` and logits ``(N, C)``.

    Example:
        >>> suppressed(torch.tensor([[[[2.0, 1.0]], [[0.0, 9.0]]]]), torch.tensor([[3.0, -3.0]])).tolist()
        [[[True, False]]]
    """
    found = (scores > 0) | (scores == scores.amax(dim=1, keepdim=True))
    return ((positive_part(maps.float()) > threshold) & found[..., None, None]).any(dim=1)


def united_maps(model: nn.Module, pictures: Tensor, present: Tensor) -> tuple[AttentionOutput, dict[str, Tensor]]:
    """A :data:`dsna_lib.maps.MapMaker` of the kind ``"two_phase"``, with the output of the first phase."""
    assert isinstance(model, SecondPhase)
    before, after = model.first(pictures), model(pictures)
    first, second = cam(model.first, before.features), cam(model, after.features)
    return before, {"two_phase": torch.maximum(positive_part(first), positive_part(second))}


@dataclass(frozen=True)
class TwoPhase(MapMethod):
    """See :class:`dsna_lib.methods.base.Method`."""

    @property
    def trains(self) -> frozenset[str]:
        """CAM's classifier, and one for what it leaves."""
        return super().trains | {"suppressed"}

    def annotate(self, stage: Stage) -> Path:
        """Train both, and annotate with their united maps."""
        first, file = stage.train(self.head)
        model, path = second_phase(stage, first, file)
        limits = thresholds(stage.annotation)

        def work(folder: Path) -> None:
            how: dict[str, Any] = asdict(stage.maps) | limits
            report = annotate_split(model, stage.pictures, folder, [self.kind], maker=self.maker, **how)
            report.raise_failures("annotated")

        models = [runs.file_digest(each) for each in (file, path)]
        identity = {"models": models, "suppressed": SUPPRESSED, "thresholds": limits}
        return stage.refine(stage.folder("annotate", work, identity, __name__) / self.kind)


def second_phase(stage: Stage, first: AttentionModel, file: Path) -> tuple[SecondPhase, Path]:
    """The network of the second phase, trained or as it was, and its file; `file` is that of the first one."""
    config = replace(stage.model, **asdict(CLASSIFIER))

    def work(folder: Path) -> dict[str, Any]:
        torch.manual_seed(stage.training.seed)
        model = attention.create(config)
        second = SecondPhase(model, first)
        with remembering(first, stage.training):
            train_attention(second, stage.mining, stage.training, folder)
        report = examine(second, stage.mining)
        if devices.is_main_process():
            attention.save(model, folder / "model.pth")
        return read_log(folder)[-1] | report | {"curve": read_curve(folder)}

    identity = {
        "model": asdict(config) | {"weights": weights_name(config.weights)},
        "weights": weights_digest(config.backbone, config.weights),
        "first": runs.file_digest(file),
        "suppressed": SUPPRESSED,
        "data": {"digest": runs.data_digest(stage.mining), "pictures": len(stage.mining)},
        "training": stage.training.identity(),
    }
    path = runs.complete(runs.open_run("train", identity, __name__), work).folder / "model.pth"
    device = devices.choose_device(stage.training.device)
    model = attention.load(path, stage.mining.class_names)
    return SecondPhase(model, first).to(device).eval(), path


TWO_PHASE = TwoPhase("Two-phase", CLASSIFIER, "two_phase", united_maps, paper=printed("Two-phase"))
