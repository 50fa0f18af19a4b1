"""A critic that is an autoencoder: what it cannot reproduce is not real. For the energy-based objective."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractCritic, full_precision
from cosmogan.networks.conditions import Conditioning
from cosmogan.networks.convolution import CircularConvolution

_WIDEST = 4
_SLOPE = 0.2


class AutoencoderCritic(AbstractCritic):
    """Score: minus the mean squared error per pixel with which a slice is reproduced from a short code.

    Strided circular convolutions to the code, nearest-neighbour resizing and circular convolutions back, so that shifts
    by ``2**n_halvings`` pixels change no score. No minibatch standard deviation: slices are reproduced one by one.

    Parameters
    ----------
    n_pixels
        Pixels along a side, a multiple of ``2**n_halvings``.
    width
        Channels at half resolution; twice and four times as many below.
    n_halvings
        Halvings from the slice to the plane of the code.
    code_channels
        Numbers of the code per cell of that plane; 32 numbers for 256 pixels with the defaults.
    n_conditions
        Conditions per slice.

    Raises
    ------
    UserError
        If ``n_pixels`` is not a multiple of ``2**n_halvings``, or that is below 2.

    References
    ----------
    Zhao, Mathieu & LeCun 2017, arXiv:1609.03126.
    """

    scores_energies = True

    def __init__(
        self, n_pixels: int, width: int = 32, n_halvings: int = 4, code_channels: int = 32, n_conditions: int = 0
    ) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions)
        if n_halvings < 1 or n_pixels < 1 or n_pixels % 2**n_halvings:
            raise UserError(
                f"n_pixels: with {n_halvings} halvings, at least 1, this critic needs a multiple of "
                f"{2**n_halvings}, found {n_pixels}"
            )
        channels = [width * min(2**level, _WIDEST) for level in range(n_halvings)]
        self.enter = CircularConvolution(4, width)
        self.conditioning = Conditioning(n_conditions, width)
        layers: list[nn.Module] = [nn.LeakyReLU(_SLOPE)]
        for n_in, n_out in pairwise(channels):
            # Four taps: they lie evenly about the two pixels that become one.
            layers += [CircularConvolution(n_in, n_out, 4, stride=2), nn.LeakyReLU(_SLOPE)]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(channels[-1], code_channels, 1))
        layers = [nn.Conv2d(code_channels, channels[-1], 1), nn.LeakyReLU(_SLOPE)]
        for n_in, n_out in pairwise(reversed(channels)):
            layers += [nn.Upsample(scale_factor=2), CircularConvolution(n_in, n_out), nn.LeakyReLU(_SLOPE)]
        self.decoder = nn.Sequential(*layers)
        self.leave = CircularConvolution(width, 4)
        self.apply(_initialise)

    def forward(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return scores ``(n,)``, never positive, of network values ``(n, n_pixels, n_pixels)``."""
        return -(self.reproduce(values, conditions) - values).square().mean((1, 2))

    def reproduce(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return what is left of network values after the code, same shape."""
        decoded = self.decoder(self._code(values, conditions))
        with full_precision(values.device.type):
            return functional.pixel_shuffle(self.leave(decoded.to(values.dtype)), 2).squeeze(1)

    def features(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the code, ``(n, code_channels * cells**2)``."""
        return self._code(values, conditions).flatten(1).to(values.dtype)

    def _code(self, values: Tensor, conditions: Tensor | None) -> Tensor:
        planes = functional.pixel_unshuffle(values.unsqueeze(1), 2)
        first = self.enter(planes.contiguous(memory_format=torch.channels_last))
        return self.encoder(self.conditioning(first, conditions))


def _initialise(module: nn.Module) -> None:
    """Let every layer keep the variance of what it is given."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
