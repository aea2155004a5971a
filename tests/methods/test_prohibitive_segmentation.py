"""AE-PSL: the auxiliary mask by hand, the loss in NumPy, and that its classifier is asked and not taught."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tiny
import torch

from dsna_lib.attention import AttentionModel, SingleStreamAttention
from dsna_lib.methods.adversarial_erasing import ROWS
from dsna_lib.methods.prohibitive_segmentation import AE_PSL, ProhibitiveLoss, auxiliary


@pytest.fixture
def model() -> AttentionModel:
    torch.manual_seed(0)
    return AttentionModel(tiny.backbone(), SingleStreamAttention(8, 3, dropout=0))


def test_the_auxiliary_mask_by_hand() -> None:
    """Of 0.3, 0.5 and 0.2: the weights 1, v and 1 let the background win once v is below 0.6."""
    f = torch.tensor([0.3, 0.5, 0.2]).log().view(1, 3, 1, 1).expand(1, 3, 1, 2)
    assert [auxiliary(f, torch.tensor([[v, 1.0]])).unique().tolist() for v in (0.9, 0.61, 0.59)] == [[1], [1], [0]]
    sure = torch.tensor([0.01, 0.98, 0.01]).log().view(1, 3, 1, 1)
    assert auxiliary(sure, torch.tensor([[0.11, 0.0]])).item() == 1
    assert auxiliary(sure, torch.tensor([[0.09, 0.0]])).item() == 0  # 0.0882 would win, and is prohibited


def test_the_loss_against_numpy(model: AttentionModel) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 3, 3)) * 2
    masks = np.where(rng.random((2, 3, 3)) < 0.3, 255, rng.integers(0, 4, (2, 3, 3))).astype(np.uint8)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        found = model.eval()(images).scores.sigmoid().numpy()
    found[0, 1] = 0.05
    loss = ProhibitiveLoss("digest", 16, model)
    assert loss.found(images)[0, 0].item() == pytest.approx(found[0, 0], abs=1e-6)
    f = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    total, count, guessed = 0.0, 0, 0.0
    for n, y, x in np.ndindex(2, 3, 3):
        weights = [1, *(v if v >= 0.1 else 0 for v in found[n])]
        guessed -= np.log(f[n, np.argmax(weights * f[n, :, y, x]), y, x]) / 18
        if masks[n, y, x] != 255:
            total, count = total - np.log(f[n, masks[n, y, x], y, x]), count + 1
    vars(loss)["model"] = lambda pictures: model(pictures)._replace(scores=torch.logit(torch.from_numpy(found)))
    vars(loss)["model"].to = lambda device: vars(loss)["model"]
    given = torch.from_numpy(logits), {"mask": torch.from_numpy(masks), "image": images}
    assert loss(*given).item() == pytest.approx(total / count + guessed, rel=1e-5)


def test_the_classifier_does_not_learn_and_is_known_by_its_file(model: AttentionModel) -> None:
    loss = ProhibitiveLoss("abc", 32, model.train())
    assert not model.training
    batch = {"mask": torch.zeros(1, 17, 17, dtype=torch.uint8), "image": torch.rand(1, 3, 17, 17)}
    loss(torch.zeros(1, 4, 5, 5, requires_grad=True), batch).backward()
    assert all(p.grad is None for p in model.parameters())
    assert json.loads(json.dumps(asdict(loss))) == {"classifier": "abc", "size": 32, "threshold": 0.1}


def test_its_row_is_the_third_step_and_a_loss() -> None:
    assert (AE_PSL.title, AE_PSL.paper, AE_PSL.trains) == ("AE-PSL", 55.0, ROWS[2].trains)
    assert replace(AE_PSL, title=ROWS[2].title, paper=ROWS[2].paper).__dict__ == ROWS[2].__dict__
