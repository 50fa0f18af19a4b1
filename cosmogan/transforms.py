"""Pixel value to network value and back; fitted on training slices only."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

# Pixels that a fit sorts at most: half a gigabyte, quantiles to 1e-6.
_FITTED_PIXELS = 2**26


class AbstractTransform(nn.Module, ABC):
    """A monotone map of 1 + delta to the values that networks see.

    The fitted state is kept in buffers, so that it travels with the weights.
    """

    @abstractmethod
    def fit(self, density: Tensor) -> None:
        """Adapt to the training pixels 1 + delta, of any shape; most transforms take their scale from them."""

    @abstractmethod
    def forward(self, density: Tensor) -> Tensor:
        """Return the network values of 1 + delta, same shape."""

    @abstractmethod
    def inverse(self, values: Tensor) -> Tensor:
        """Return 1 + delta, never negative, of network values of the same shape."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor that build this transform again."""


class Rodriguez2018Transform(AbstractTransform):
    """The paper's map ``s(x) = 2 x / (x + a) - 1`` to [-1, 1).

    Parameters
    ----------
    a
        Pixel value that maps to zero, in units of the mean density; 4 particles in the paper's codes, i.e. 4 / 16.4 at
        500 Mpc and 4 / 2.05 at 100 Mpc.

    References
    ----------
    Rodriguez et al. 2018, arXiv:1801.09070.
    """

    # Largest s that float32 tells from 1 by ten steps; keeps the inverse finite.
    _LARGEST = 1 - 1e-6

    def __init__(self, a: float) -> None:
        super().__init__()
        if not a > 0:
            raise ValueError(f"a must be positive, got {a}")
        self.a = a

    def fit(self, density: Tensor) -> None:
        """Do nothing: the paper's map has no fitted state."""

    def forward(self, density: Tensor) -> Tensor:
        """Return values in [-1, 1)."""
        return 2 * density / (density + self.a) - 1

    def inverse(self, values: Tensor) -> Tensor:
        """Return 1 + delta; values are clamped to [-1, 1)."""
        bounded = values.clamp(-1, self._LARGEST)
        return self.a * (1 + bounded) / (1 - bounded)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"a": self.a}


class LogTransform(AbstractTransform):
    """``(ln(x + epsilon) - m) / s`` with the mean m and standard deviation s of the training pixels.

    Parameters
    ----------
    epsilon
        Offset in units of the mean density, so that empty pixels stay finite.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, epsilon: float = 1e-2) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {epsilon}")
        self.epsilon = epsilon
        self.register_buffer("location", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))

    def fit(self, density: Tensor) -> None:
        """Set mean and standard deviation of ``ln(x + epsilon)``."""
        logarithm = torch.log(thin(density).double() + self.epsilon)
        self.location.copy_(logarithm.mean())
        self.scale.copy_(logarithm.std().clamp_min(1e-6))

    def forward(self, density: Tensor) -> Tensor:
        """Return values of zero mean and unit variance over the training pixels."""
        return (torch.log(density + self.epsilon) - self.location) / self.scale

    def inverse(self, values: Tensor) -> Tensor:
        """Return 1 + delta."""
        return (torch.exp(values * self.scale + self.location) - self.epsilon).clamp_min(0)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"epsilon": self.epsilon}


class GaussianisingTransform(AbstractTransform):
    """``y = Phi^-1(F(x))`` with the empirical distribution F of the training pixels.

    Both directions interpolate one table of (ln(x + epsilon), y) linearly, so that one is the exact inverse of the
    other, and go on linearly beyond its ends: a power law in the tail.

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


def thin(density: Tensor) -> Tensor:
    """Return every n-th slice of ``(n_slices, side, side)``, so that not more than 2^26 pixels are left."""
    return density[:: max(1, -(-density.numel() // _FITTED_PIXELS))]


def interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Interpolate a table linearly and go on linearly beyond its ends; differentiable in ``x`` and ``values``.

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
