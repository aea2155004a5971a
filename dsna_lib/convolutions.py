"""A depthwise convolution that learns quickly on a CPU, and how it comes into a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight


class Depthwise(nn.Conv2d):
    """A depthwise convolution of stride 1, whose gradient for its input is one, too: by the mirrored kernel.

    It computes what ``nn.Conv2d`` does. Where the kernel is dilated, oneDNN's own gradient is some twenty times as slow
    on a CPU as the convolution itself; it made training EfficientNet-lite0 a third slower.

    Example:
        >>> layer = Depthwise(8, 8, 5, padding=4, dilation=2, groups=8)
        >>> layer(torch.rand(1, 8, 14, 14)).shape
        torch.Size([1, 8, 14, 14])
    """

    def forward(self, cells: Tensor) -> Tensor:
        """Cells ``(N, C, H, W)`` to ``(N, C, H, W)``, where the padding fits the kernel."""
        if cells.is_cpu and cells.requires_grad and torch.is_grad_enabled():
            made = _Depthwise.apply(cells, self.weight, self.padding, self.dilation)
            return made if self.bias is None else made + self.bias.view(-1, 1, 1)
        return super().forward(cells)


class _Depthwise(torch.autograd.Function):
    """In fp32 under autocast, too: the gradient for the weight is three times slower in bf16."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, cells: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(cells, weight)
        ctx.padding, ctx.dilation = padding, dilation
        return functional.conv2d(cells, weight, None, 1, padding, dilation, len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (cells, weight), padding, dilation = ctx.saved_tensors, ctx.padding, ctx.dilation
        of_cells = of_weight = None
        if ctx.needs_input_grad[0]:
            of_cells = functional.conv2d(gradient, weight.flip(2, 3), None, 1, padding, dilation, len(weight))
        if ctx.needs_input_grad[1]:
            of_weight = conv2d_weight(cells, weight.shape, gradient, 1, padding, dilation, len(weight))
        return of_cells, of_weight, None, None


def recast(network: nn.Module, name: str, kind: type[nn.Conv2d]) -> None:
    """Replace the convolution of that name within `network` by one of another kind, padded on both sides alike.

    It keeps its weights; with stride 1 it keeps its grid.
    """
    old = network.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    padding = tuple(d * (k - 1) // 2 for k, d in zip(old.kernel_size, old.dilation, strict=True))
    new = kind(
        old.in_channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        old.groups,
        bias=old.bias is not None,
        device="meta",
    )
    new.weight, new.bias = old.weight, old.bias
    network.set_submodule(name, new)
