"""Bottom-up and top-down cues: their product, place by place."""

from __future__ import annotations

import tiny
import torch

from dsna_lib.attention import AttentionModel, SingleStreamAttention
from dsna_lib.methods.bottom_up_top_down import BOTTOM_UP_TOP_DOWN
from dsna_lib.methods.cam import CAM, cam
from dsna_lib.methods.excitation_backprop import excitation_backprop


def test_a_place_needs_both() -> None:
    torch.manual_seed(0)
    model = AttentionModel(tiny.backbone(), SingleStreamAttention(8, 3, dropout=0)).eval()
    pictures, present = torch.rand(2, 3, 32, 32), torch.tensor([[True, False, True], [False, True, False]])
    output, made = BOTTOM_UP_TOP_DOWN.maker(model, pictures, present)
    up, down = cam(model, output.features), excitation_backprop(model, pictures)
    for n, c in present.nonzero().tolist():
        want = torch.where(up[n, c] > 0, up[n, c] * down[n, c], 0)
        torch.testing.assert_close(made["bottom_up_top_down"][n, c], want / want.max())
        assert 0 < (want > 0).float().mean() < 1
    assert not made["bottom_up_top_down"][~present].any()


def test_its_row() -> None:
    assert (BOTTOM_UP_TOP_DOWN.title, BOTTOM_UP_TOP_DOWN.paper) == ("Anirban et al.", 52.8)
    assert BOTTOM_UP_TOP_DOWN.trains == CAM.trains
