"""How a training goes: pictures held out for a learning curve, and whether a classifier has collapsed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from dsna_lib.attention import AttentionModel
from dsna_lib.data import transforms
from dsna_lib.data.pictures import Pictures
from dsna_lib.metrics import average_precision


def hold_out(pictures: Pictures, share: float) -> tuple[Pictures, Pictures]:
    """Split pictures into those to learn from and a share that is kept aside; it may be empty.

    The class that is seldom among those kept aside gives the next one, as long as half of its pictures are left to
    learn from: a mean over classes is noise where a rare class is measured on one picture or two. Pictures without any
    class count as one of their own: of a single class, only they tell how well it is recognized.
    """
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0)).numpy()
    classes = pictures.targets().numpy().astype(bool)[order]
    shown = np.column_stack([classes, ~classes.any(axis=1)])  # (pictures, classes + 1)
    held = np.zeros(len(pictures), bool)
    for _ in range(round(share * len(pictures))):
        counts = shown[held].sum(0)
        free = counts < shown.sum(0) // 2
        if not free.any():
            break
        needy = np.where(free, counts, len(pictures)).argmin()
        held[np.argmax(shown[:, needy] & ~held)] = True
    aside = set(order[held])
    learned = [record for place, record in enumerate(pictures.records) if place not in aside]
    kept = [record for place, record in enumerate(pictures.records) if place in aside]
    return pictures.with_records(learned), pictures.with_records(kept)


def spread(pictures: Pictures, count: int) -> Pictures:
    """At most `count` of the pictures, evenly spread: they may lie sorted by their classes."""
    total, count = len(pictures), min(count, len(pictures))
    places = [(2 * part + 1) * total // (2 * count) for part in range(count)]  # the middles of equal parts
    return pictures.with_records([pictures.records[place] for place in places])


def tells_apart(pictures: Pictures) -> bool:
    """Whether some of the pictures show a class and others do not: else any order of them is a perfect one."""
    shown = pictures.targets().mean(dim=0) if len(pictures) else torch.zeros(0)
    return bool(((shown > 0) & (shown < 1)).any())


@torch.no_grad()
def mean_average_precision(model: AttentionModel, pictures: Pictures, size: int = 224) -> float:
    """Of the classes that the pictures show, in 0..1; see :func:`dsna_lib.metrics.average_precision`.

    The model is left in evaluation mode; the pictures are shown whole, as squares of `size` pixels.
    """
    device = next(model.parameters()).device
    loader = DataLoader(pictures.with_transform(transforms.inference(size)), batch_size=16)
    model.eval()
    batches = (batch["image"].to(device, memory_format=torch.channels_last) for batch in loader)
    scores = torch.cat([model(batch).scores.float().cpu() for batch in batches])
    known = average_precision(scores, pictures.targets())
    return round(float(np.nanmean(known)), 4)


@torch.no_grad()
def examine(model: AttentionModel, pictures: Pictures, count: int = 32) -> dict[str, Any]:
    """Whether a classifier has collapsed: what it answers to some of its own training pictures.

    The model is left in evaluation mode; `count` pictures, evenly spread, are shown whole.

    Returns:
        ``examined`` (pictures), ``classes_shown`` (how many classes their labels name), ``classes_answered`` (how many
        are the first choice of any picture), and ``warnings``: sentences that name what is wrong, if anything is.
    """
    shown = spread(pictures, count).with_transform(transforms.inference(224))
    device = next(model.parameters()).device
    model.eval()
    answers = {int(model(shown[k]["image"][None].to(device)).scores.argmax()) for k in range(len(shown))}
    labels = [set(record.labels) for record in shown.records]
    wrong = sum(bool(named) and not answers & named for named in labels)
    warnings = []
    if len(answers) == 1 and wrong > len(shown) / 10:  # where nearly all pictures show one class, it may be right
        name = pictures.class_names[min(answers)]
        warnings.append(f"the classifier answers {name} to all of {len(shown)} training pictures, {wrong} without it")
    counts = {"examined": len(shown), "classes_shown": len(set().union(*labels)), "classes_answered": len(answers)}
    return counts | {"warnings": warnings}
