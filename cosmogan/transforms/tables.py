"""Piecewise-linear tables, and the share of the training pixels that they are fitted on."""

from __future__ import annotations

import torch
from torch import Tensor

# Pixels that a fit sorts at most: half a gigabyte, quantiles to 1e-6.
_FITTED_PIXELS = 2**26


def thin(density: Tensor) -> Tensor:
    """Return every n-th slice of ``(n_slices, side, side)``, so that not more than 2^26 pixels are left."""
    return density[:: max(1, -(-density.numel() // _FITTED_PIXELS))]


def interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Interpolate a table linearly and continue linearly beyond its ends; differentiable in ``x`` and ``values``.

    Parameters
    ----------
    x
        Any shape.
    knots, values
        Shape ``(n,)``; knots increase.

    Returns
    -------
        Same shape as ``x``.
    """
    right = torch.bucketize(x.detach().contiguous(), knots).clamp(1, len(knots) - 1)
    left = right - 1
    slopes = (values[1:] - values[:-1]) / (knots[1:] - knots[:-1])
    return values[left] + (x - knots[left]) * slopes[left]
