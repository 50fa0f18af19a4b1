"""Convolution of periodic fields, faster than torch's own circular padding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class CircularConvolution(nn.Conv2d):
    """``nn.Conv2d`` with a periodic margin; the same numbers and the same weights as ``padding_mode="circular"``.

    torch pads in the other memory format, whatever comes in, and differentiates that in dozens of small copies: a
    training step of the spectral prior takes a sixth longer.

    Parameters
    ----------
    n_in, n_out
        Channels.
    kernel_size, stride, padding
        As of ``nn.Conv2d``; ``padding`` is the width of the margin.
    """

    def __init__(self, n_in: int, n_out: int, kernel_size: int = 3, *, stride: int = 1, padding: int = 1) -> None:
        super().__init__(n_in, n_out, kernel_size, stride=stride, padding=padding)

    def forward(self, features: Tensor) -> Tensor:
        """Return the convolution of features ``(n, n_in, side, side)``."""
        margin = int(self.padding[0])
        # Channels last: margins are whole rows of memory.
        rows = features.permute(0, 2, 3, 1)
        rows = torch.cat([rows[:, -margin:], rows, rows[:, :margin]], 1)
        rows = torch.cat([rows[:, :, -margin:], rows, rows[:, :, :margin]], 2)
        return functional.conv2d(rows.permute(0, 3, 1, 2), self.weight, self.bias, self.stride)
