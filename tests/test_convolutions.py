"""Convolutions of our own compute what torch's do, and their gradients too."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from dsna_lib.convolutions import Depthwise, recast


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 2)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_depthwise_is_torchs(kernel, dilation, precision):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 4, kernel, padding="same", dilation=dilation, groups=4))
    theirs, cells = network[0], torch.randn(2, 4, 9, 8)
    recast(network, "0", Depthwise)
    ours = network[0]
    assert ours.weight is theirs.weight
    made = []
    for layer in (theirs, ours):
        given = cells.clone().requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            out = layer(given)
        made.append([out.float(), *torch.autograd.grad(out.float().square().sum(), [given, *layer.parameters()])])
    loose = {"rtol": 1e-4, "atol": 1e-4} if precision == torch.float32 else {"rtol": 0.05, "atol": 0.2}
    for got, wanted in zip(*reversed(made), strict=True):
        torch.testing.assert_close(got, wanted, **loose)


def test_depthwise_gradients_against_differences():
    layer = Depthwise(2, 2, 3, padding=2, dilation=2, groups=2, bias=False).double()
    assert gradcheck(layer, torch.rand(1, 2, 5, 6, dtype=torch.double, requires_grad=True))


def test_depthwise_goes_without_a_gradient_that_nobody_asks_for():
    layer = Depthwise(2, 2, 3, padding=1, groups=2).requires_grad_(requires_grad=False)
    cells = torch.rand(1, 2, 5, 5, requires_grad=True)
    (given,) = torch.autograd.grad(layer(cells).sum(), [cells])
    assert given.shape == cells.shape
    assert not layer(cells.detach()).requires_grad
