"""The logarithm, standardised."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cosmogan.transforms.base import AbstractTransform
from cosmogan.transforms.tables import thin


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
