"""Exponential moving average of a generator's weights."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, *, decay: float) -> None:
    """Move the weights of ``average`` towards those of ``current``; buffers are copied.

    Parameters
    ----------
    average, current
        Modules of the same structure.
    decay
        Share of the old average that is kept.
    """
    for mean, weight in zip(average.parameters(), current.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for copied, buffer in zip(average.buffers(), current.buffers(), strict=True):
        copied.copy_(buffer)
