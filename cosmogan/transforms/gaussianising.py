"""The map that makes training pixels normally distributed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cosmogan.transforms.base import AbstractTransform
from cosmogan.transforms.tables import interpolate, thin


class GaussianisingTransform(AbstractTransform):
    """``y = Phi^-1(F(x))`` with the empirical distribution F of the training pixels.

    Both directions interpolate one table of (ln(x + epsilon), y) linearly, so that one is the exact inverse of the
    other, and continue linearly beyond its ends: a power law in the tail.

    Parameters
    ----------
    n_knots
        Length of the table; its knots are equally spaced in y.
    epsilon
        Offset in units of the mean density, so that empty pixels stay finite.
    """

    log_density: Tensor
    normal: Tensor

    def __init__(self, n_knots: int = 513, epsilon: float = 1e-4) -> None:
        super().__init__()
        if n_knots < 3 or not epsilon > 0:
            raise ValueError(f"expected n_knots >= 3 and epsilon > 0, got {n_knots} and {epsilon}")
        self.n_knots, self.epsilon = n_knots, epsilon
        ramp = torch.linspace(-5, 5, n_knots)
        self.register_buffer("log_density", ramp.clone())
        self.register_buffer("normal", ramp.clone())

    def fit(self, density: Tensor) -> None:
        """Tabulate the quantiles of the training pixels."""
        pixels = torch.log(thin(density).double() + self.epsilon).flatten().sort().values
        # The outermost knots leave ten pixels beyond them.
        reach = -math.sqrt(2) * torch.erfinv(torch.tensor(2 * min(10.5 / len(pixels), 0.25) - 1.0)).item()
        normal = torch.linspace(-reach, reach, self.n_knots, dtype=torch.float64, device=pixels.device)
        rank = torch.special.ndtr(normal) * (len(pixels) - 1)
        below = rank.long().clamp(max=len(pixels) - 2)
        quantiles = torch.lerp(pixels[below], pixels[below + 1], rank - below)
        # Equal quantiles (empty pixels) are spread by the least slope that float32 can invert.
        quantiles = quantiles.float()
        least = 1e-5 * torch.arange(self.n_knots, device=pixels.device)
        self.log_density.copy_(torch.cummax(quantiles - least, 0).values + least)
        self.normal.copy_(normal)

    def forward(self, density: Tensor) -> Tensor:
        """Return values that are normally distributed over the training pixels."""
        return interpolate(torch.log(density + self.epsilon), self.log_density, self.normal)

    def inverse(self, values: Tensor) -> Tensor:
        """Return 1 + delta."""
        return (torch.exp(interpolate(values, self.normal, self.log_density)) - self.epsilon).clamp_min(0)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"n_knots": self.n_knots, "epsilon": self.epsilon}
