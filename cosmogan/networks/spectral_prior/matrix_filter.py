"""A filter without Fourier transforms, for runtimes that have none."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class MatrixFilter(nn.Module):
    """Filter of a periodic plane without Fourier transforms: products with the matrix ``cas(2 pi j k / side)``.

    The Hartley transform along both axes diagonalises a filter that is even along each of them.

    Parameters
    ----------
    amplitude
        Amplitude of the modes of the whole plane, shape ``(side, side)``, in the order of ``fftfreq``.

    References
    ----------
    Bracewell 1983, JOSA 73, 1832.
    """

    amplitude: Tensor
    hartley: Tensor

    def __init__(self, amplitude: Tensor) -> None:
        super().__init__()
        side = len(amplitude)
        places = torch.arange(side)
        angle = 2 * math.pi / side * (places[:, None] * places % side).double()
        self.register_buffer("amplitude", amplitude)
        self.register_buffer("hartley", ((torch.cos(angle) + torch.sin(angle)) / math.sqrt(side)).to(amplitude))

    def forward(self, noise: Tensor) -> Tensor:
        """Return the filtered planes ``(n, side, side)``."""
        return self.hartley @ ((self.hartley @ noise @ self.hartley) * self.amplitude) @ self.hartley
