"""Networks of a method's own, neither a classifier of the table nor a segmentation network: trained once, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsna_lib import training
from dsna_lib.data.pictures import Pictures
from dsna_lib.engine import devices, runs
from dsna_lib.engine.files import write_atomically
from dsna_lib.methods.base import Stage


def learn(
    stage: Stage,
    network: nn.Module,
    pictures: Pictures,
    loss_of: Callable[[Any, dict[str, Tensor]], Tensor],
    identity: Mapping[str, Any],
    *modules: str,
    masks: bool = False,
) -> str:
    """Train a network in place on the classifiers' schedule, go on with it, or read what it has learned.

    Args:
        stage: whose schedule and device it takes.
        network: its ``backbone`` learns at the backbone's rate, all else at the heads'.
        pictures, masks: what it learns from, and whether by masks.
        loss_of: its output and a batch to a scalar.
        identity, modules: what it starts from, and entry modules of its code, as in
            :meth:`dsna_lib.methods.base.Stage.folder`.

    Returns:
        The digest of its weights; it is in evaluation mode.

    Raises:
        TrainingError: see :func:`dsna_lib.training.fit`.
    """
    schedule, groups = stage.training, []
    for rate, of_backbone in ((stage.training.backbone_rate, True), (stage.training.head_rate, False)):
        named = network.named_parameters()
        chosen = [p for name, p in named if p.requires_grad and name.startswith("backbone.") == of_backbone]
        groups.append({"params": chosen, "lr": rate})

    def work(folder: Path) -> dict[str, Any]:
        shown = pictures.with_transform(training.augmentation(schedule), seed=schedule.seed, masks=masks)
        training.fit(network, shown, groups, loss_of, schedule, folder)
        if devices.is_main_process():
            write_atomically(folder / "weights.pth", partial(torch.save, network.state_dict()))
        return training.read_log(folder)[-1]

    known = {
        "data": {"digest": runs.data_digest(pictures, masks=masks), "pictures": len(pictures)},
        "training": schedule.identity(),
    }
    path = runs.complete(runs.open_run("train", known | dict(identity), __name__, *modules), work).folder
    network.load_state_dict(torch.load(path / "weights.pth", map_location="cpu", weights_only=True))
    network.to(devices.choose_device(schedule.device)).eval()
    return runs.file_digest(path / "weights.pth")
