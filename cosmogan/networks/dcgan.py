"""The networks of the paper: a DCGAN sized from the number of pixels.

Rodriguez et al. 2018 (arXiv:1801.09070); four strided layers, so that 256 x 256 pixels meet at 16 x 16 x 512.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractCritic, AbstractGenerator, full_precision
from cosmogan.networks.conditions import Conditioning

_N_LAYERS = 4
_INITIAL_STD = 0.02


class DCGANGenerator(AbstractGenerator):
    """Linear layer, then four transposed convolutions with BatchNorm and ReLU; tanh or linear output.

    Parameters
    ----------
    n_pixels
        Pixels along a side, a multiple of 16.
    latent_size
        Length of the latent vector: 200 in the paper, 100 in its Wasserstein variant.
    width
        Channels next to the image; eight times as many at the coarsest layer.
    bounded
        Whether a tanh closes the network, as the paper's transform to [-1, 1) needs; false for other transforms.
    n_conditions
        Conditions per slice.
    tails
        Degrees of freedom of Student's t for the latent vector; normal if None.

    Raises
    ------
    UserError
        If ``n_pixels`` is not a multiple of 16.
    """

    def __init__(
        self,
        n_pixels: int,
        latent_size: int = 200,
        width: int = 64,
        bounded: bool = True,
        n_conditions: int = 0,
        tails: float | None = None,
    ) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions, tails=tails)
        self.latent_size, self.width, self.bounded = latent_size, width, bounded
        self.base_pixels = _coarsest(n_pixels)
        channels = [width * 2**level for level in reversed(range(_N_LAYERS))]
        self.project = nn.Linear(latent_size, channels[0] * self.base_pixels**2)
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU()]
        for wide, narrow in pairwise(channels):
            layers += [_upsampling(wide, narrow), nn.BatchNorm2d(narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, _upsampling(channels[-1], 1))
        self.conditioning = Conditioning(n_conditions, channels[0])
        self.apply(_initialise)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """``(latent_size,)``."""
        return (self.latent_size,)

    def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return network values ``(n, n_pixels, n_pixels)`` of latents ``(n, latent_size)``."""
        coarse = self.project(self.heavy_tails(latent)).unflatten(1, (-1, self.base_pixels, self.base_pixels))
        # Behind the BatchNorm, which would take away what all slices of a batch have in common.
        features = self.layers[1:-1](self.conditioning(self.layers[0](coarse), conditions))
        with full_precision(latent.device.type):
            values = self.layers[-1](features.to(latent.dtype)).squeeze(1)
            return torch.tanh(values) if self.bounded else values

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("n_pixels", "latent_size", "width", "bounded", "n_conditions", "tails")
        return {name: getattr(self, name) for name in names}


class DCGANCritic(AbstractCritic):
    """Four strided convolutions, each with LeakyReLU then BatchNorm, and a linear layer; the score is a logit.

    Parameters
    ----------
    n_pixels
        Pixels along a side, a multiple of 16.
    width
        Channels of the first layer; eight times as many in the last.
    normalisation
        ``"batch"`` as in the paper, or ``"none"``, which objectives with a gradient penalty need.
    n_conditions
        Conditions per slice.

    Raises
    ------
    UserError
        If ``n_pixels`` is not a multiple of 16.
    """

    def __init__(
        self,
        n_pixels: int,
        width: int = 64,
        normalisation: Literal["batch", "none"] = "batch",
        n_conditions: int = 0,
    ) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions)
        base_pixels = _coarsest(n_pixels)
        channels = [1] + [width * 2**level for level in range(_N_LAYERS)]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(channels):
            layers += [nn.Conv2d(narrow, wide, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
            if normalisation == "batch":
                layers.append(nn.BatchNorm2d(wide))
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * base_pixels**2, 1))
        self.conditioning = Conditioning(n_conditions, channels[1])
        # Layers before the conditions: those of the first convolution.
        self._n_first = 3 if normalisation == "batch" else 2
        self.apply(_initialise)

    def forward(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return scores ``(n,)`` of network values ``(n, n_pixels, n_pixels)``."""
        flat = self.layers[-2](self._planes(values, conditions))
        with full_precision(values.device.type):
            return self.layers[-1](flat.to(values.dtype)).squeeze(1)

    def features(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the means over places of the last convolution's activations, ``(n, 8 width)``."""
        return self._planes(values, conditions).to(values.dtype).mean((2, 3))

    def _planes(self, values: Tensor, conditions: Tensor | None) -> Tensor:
        first = self.layers[: self._n_first](values.unsqueeze(1))
        return self.layers[self._n_first : -2](self.conditioning(first, conditions))


def _coarsest(n_pixels: int) -> int:
    side, remainder = divmod(n_pixels, 2**_N_LAYERS)
    if remainder or not side:
        raise UserError(f"n_pixels: the DCGAN needs a multiple of {2**_N_LAYERS}, found {n_pixels}")
    return side


def _upsampling(n_in: int, n_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(n_in, n_out, 5, stride=2, padding=2, output_padding=1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=_INITIAL_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
