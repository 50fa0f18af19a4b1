"""What every map between pixel and network values offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


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
