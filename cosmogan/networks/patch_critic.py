"""Our critic: patches of slices, or whole ones with periodic convolutions; it compares the slices of a batch."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractCritic, full_precision
from cosmogan.networks.conditions import Conditioning
from cosmogan.networks.convolution import CircularConvolution


class PatchCritic(AbstractCritic):
    """Strided convolutions to 4 x 4, minibatch standard deviation, linear score; no normalisation layers.

    Parameters
    ----------
    n_pixels
        Pixels along a side of a slice.
    patch
        Side of the patches it sees, 8 times a power of two; slices of the same or a smaller side are seen whole, with
        periodic convolutions.
    width
        Channels at half resolution.
    n_conditions
        Conditions per slice.

    References
    ----------
    Minibatch standard deviation: Karras et al. 2018, arXiv:1710.10196, section 3.
    """

    def __init__(self, n_pixels: int, patch: int = 64, width: int = 64, n_conditions: int = 0) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions)
        self.patch = min(patch, n_pixels)
        n_strided = round(math.log2(self.patch / 8))
        if self.patch != 8 * 2**n_strided:
            raise UserError(f"patch: the critic needs 8 times a power of two pixels, found {self.patch}")
        # A patch has no other side to go on at.
        convolution = CircularConvolution if self.patch == n_pixels else partial(nn.Conv2d, kernel_size=3, padding=1)
        channels = [width * min(2**level, 4) for level in range(n_strided + 1)]
        layers: list[nn.Module] = [convolution(4, width), nn.LeakyReLU(0.2)]
        for n_in, n_out in pairwise(channels):
            layers += [convolution(n_in, n_out, stride=2), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.conditioning = Conditioning(n_conditions, width)
        self.head = nn.Sequential(
            convolution(channels[-1] + 1, channels[-1]),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(channels[-1] * 16, 1),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def patch_pixels(self) -> int:
        """Side of the patches that the critic sees."""
        return self.patch

    def forward(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return scores ``(n,)`` of network values ``(n, patch, patch)``."""
        planes = self._planes(values, conditions)
        spread = torch.sqrt(planes.to(values.dtype).var(0, unbiased=False) + 1e-8).mean().to(planes.dtype)
        spread = spread.expand(len(planes), 1, *planes.shape[-2:])
        joined = self.head[:-1](torch.cat([planes, spread], 1))
        with full_precision(values.device.type):
            return self.head[-1](joined.to(values.dtype)).squeeze(1)

    def features(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the means over places of the last convolution's activations: slices have no preferred origin."""
        return self._planes(values, conditions).to(values.dtype).mean((2, 3))

    def _planes(self, values: Tensor, conditions: Tensor | None) -> Tensor:
        patches = functional.pixel_unshuffle(values.unsqueeze(1), 2)
        first = self.body[:2](patches.contiguous(memory_format=torch.channels_last))
        return self.body[2:](self.conditioning(first, conditions))
