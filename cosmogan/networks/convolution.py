"""Periodic planes: margins, convolution and doubling, each with the gradient that costs least.

torch's own circular padding works in the other memory format, whatever comes in; differentiated step by step, margins
and interpolation made a quarter of the work of a GPU and half of its launches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional


class CircularConvolution(nn.Conv2d):
    """``nn.Conv2d`` with a periodic margin; the same numbers and the same weights as ``padding_mode="circular"``.

    Parameters
    ----------
    n_in, n_out
        Channels.
    kernel_size, stride, padding
        Arguments of ``nn.Conv2d``; ``padding`` is the width of the margin.
    """

    def __init__(self, n_in: int, n_out: int, kernel_size: int = 3, *, stride: int = 1, padding: int = 1) -> None:
        super().__init__(n_in, n_out, kernel_size, stride=stride, padding=padding)

    def forward(self, features: Tensor) -> Tensor:
        """Return the convolution of features ``(n, n_in, side, side)``."""
        return functional.conv2d(with_margin(features, int(self.padding[0])), self.weight, self.bias, self.stride)


def with_margin(features: Tensor, margin: int) -> Tensor:
    """Return features ``(n, channels, side, side)`` with a periodic margin of so many pixels, channels last."""
    if torch.is_grad_enabled() and features.requires_grad:
        widened: Tensor = _Margin.apply(features, margin)
        return widened
    # Channels last: margins are whole rows of memory. Not by copies into place, as where there are gradients: a graph
    # exported to ONNX took five times as long by them, and its file was twice as large (box500-64).
    rows = features.permute(0, 2, 3, 1)
    rows = torch.cat([rows[:, -margin:], rows, rows[:, :margin]], 1)
    rows = torch.cat([rows[:, :, -margin:], rows, rows[:, :, :margin]], 2)
    return rows.permute(0, 3, 1, 2)


def doubled(features: Tensor) -> Tensor:
    """Return periodic features ``(n, channels, side, side)`` at twice the resolution, interpolated linearly."""
    if torch.is_grad_enabled() and features.requires_grad:
        finer: Tensor = _Doubling.apply(features)
        return finer
    return functional.interpolate(with_margin(features, 1), scale_factor=2, mode="bilinear")[:, :, 2:-2, 2:-2]


class _Margin(Function):
    """Adds a periodic margin."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, margin: int) -> Tensor:
        ctx.margin = m = margin
        n, channels, height, width = features.shape
        wide = features.new_empty(n, height + 2 * m, width + 2 * m, channels).permute(0, 3, 1, 2)
        columns = slice(m, m + width)
        wide[:, :, m:-m, columns] = features
        wide[:, :, :m, columns], wide[:, :, -m:, columns] = features[:, :, -m:], features[:, :, :m]
        wide[..., :m], wide[..., -m:] = wide[..., width : width + m], wide[..., m : 2 * m]
        return wide

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Folding.apply(gradients[0], ctx.margin), None


class _Folding(Function):
    """Adds a margin to the pixels that it repeats: what `_Margin` is transposed."""

    @staticmethod
    def forward(ctx: Any, wide: Tensor, margin: int) -> Tensor:
        ctx.margin = m = margin
        inner = wide[:, :, m:-m, m:-m].clone(memory_format=torch.channels_last)
        # Where a margin lies in the wide plane, the pixels of the plane beside it, and those that it repeats.
        sides = ((slice(None, m), slice(-m, None)), (slice(m, -m), slice(None)), (slice(-m, None), slice(None, m)))
        for i, (from_row, to_row) in enumerate(sides):
            for j, (from_column, to_column) in enumerate(sides):
                if (i, j) != (1, 1):
                    inner[:, :, to_row, to_column] += wide[:, :, from_row, from_column]
        return inner

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Margin.apply(gradients[0], ctx.margin), None


class _Doubling(Function):
    """Interpolates linearly; the gradient of torch's interpolation adds up number by number, in any order on a GPU."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        with torch.no_grad():
            return doubled(features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Halving.apply(gradients[0])


class _Halving(Function):
    """`_Doubling` transposed: taps of 1, 3, 3 and 1 quarters, as three means of neighbours, one after another."""

    @staticmethod
    def forward(ctx: Any, fine: Tensor) -> Tensor:
        with torch.no_grad():
            means = functional.avg_pool2d(functional.avg_pool2d(with_margin(fine, 1), 2, 1), 2, 1)
            return functional.avg_pool2d(means, 2, 2, divisor_override=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Doubling.apply(gradients[0])
