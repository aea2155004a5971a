"""TransferNet: densified attention and the loss by hand, and a decoder that does not know classes."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import tiny_experiments
import torch
from tiny_experiments import RECIPE

from dsna_lib.attention import AttentionModel, SingleStreamAttention
from dsna_lib.data.pictures import VOID
from dsna_lib.methods.base import prepare
from dsna_lib.methods.cam import CAM
from dsna_lib.methods.transfer_net import TRANSFER_NET, Decoder, Transfer, densified, learned_decoder, mask_loss


def test_densified_attention_is_how_much_alike_places_are_to_what_is_attended_to():
    """Features of four places: (1, 0), (0, 2), (3, 3), (0, 0); attended to are the first and the second, or nothing."""
    features = torch.tensor([[[[1.0, 0, 3, 0]], [[0.0, 2, 3, 0]]]])
    attention = torch.tensor([[[[1.0, 0, 0, 0]], [[0.5, 0.25, 0, 0]], [[0.0, 0, 0, 0]]]])
    half = 0.5**0.5
    wanted = torch.tensor([[[[1.0, 0, half, 0]], [[half, half, 1, 0]], [[0.0, 0, 0, 0]]]])
    torch.testing.assert_close(densified(attention, features), wanted)


def test_the_loss_counts_classes_that_are_shown_where_nothing_is_void():
    """Classes 1 and 2 of three are shown, on four places of which one is void."""
    masks = torch.tensor([[[0, 1], [2, VOID]]], dtype=torch.uint8)
    logits = torch.tensor([[0.0, 1.0, 2.0, 9.0], [-1.0, 0.5, 3.0, 9.0], [7.0, 7.0, 7.0, 7.0]]).view(1, 3, 2, 2)
    own = np.array([[0, 1, 0], [0, 0, 1]])
    chances = 1 / (1 + np.exp(-np.array([[0.0, 1.0, 2.0], [-1.0, 0.5, 3.0]])))
    wanted = -np.log(np.where(own, chances, 1 - chances)).mean()
    batch = {"mask": masks, "labels": torch.tensor([[1.0, 1.0, 0.0]])}
    assert mask_loss(logits, batch).item() == pytest.approx(wanted, rel=1e-6)
    assert mask_loss(logits, batch | {"labels": torch.zeros(1, 3)}).item() == 0


def test_a_decoder_does_not_know_the_class():
    """With the heads of two classes exchanged, so are their masks, and nothing else; nor does it know how many."""
    torch.manual_seed(0)
    model, decoder = AttentionModel(tiny.backbone(), SingleStreamAttention(8, 3, dropout=0)).eval(), Decoder([8])
    other = SingleStreamAttention(8, 2, dropout=0)
    with torch.no_grad():
        for name in ("weight", "bias"):
            kept = getattr(model.head.discriminative, name)
            getattr(other.discriminative, name).copy_(kept[[2, 0]])
    pictures = torch.rand(2, 3, 32, 32)
    found, swapped = (Transfer(model, head, decoder)(pictures) for head in (model.head, other))
    assert found.shape == (2, 3, 16, 16)
    torch.testing.assert_close(swapped, found[:, [2, 0]])
    assert (found[:, 0] - found[:, 2]).abs().max() > 1e-3


def test_the_decoder_learns_and_the_classifier_does_not(tmp_path, monkeypatch):
    tiny_experiments.use(monkeypatch, tmp_path / "runs")
    pictures = tiny.helped_pictures(tmp_path / "data")
    stage = prepare(TRANSFER_NET, RECIPE, pictures, pictures, 0)
    model, file = stage.train(CAM.head)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    decoder, digest = learned_decoder(stage, model, file)
    assert tiny.same(model.state_dict(), before)
    torch.manual_seed(stage.training.seed)
    untrained = Transfer(model, model.head).decoder
    assert not tiny.same(decoder.state_dict(), untrained.state_dict())
    again, same = learned_decoder(stage, model, file)
    assert same == digest
    assert tiny.same(again.state_dict(), decoder.state_dict())
