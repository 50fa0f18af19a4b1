"""Fully connected networks, as in the first GANs: for teaching, and for densities whose equilibrium is known.

With ``n_pixels: 1`` a slice is one number, and the pair plays for a density on the real line. Unlike Goodfellow et al.
2014 (arXiv:1406.2661), with rectifier and sigmoid units in the generator, maxout and dropout in the critic, all hidden
units are rectifiers, leaky in the critic, and outputs are linear: no transform of ours needs the unit interval, and the
optimum of a game without dropout is known.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from cosmogan.checks import require_least
from cosmogan.networks.base import AbstractCritic, AbstractGenerator, full_precision
from cosmogan.networks.conditions import Conditioning

_SLOPE = 0.2


class MLPGenerator(AbstractGenerator):
    """Linear layers with ReLU between them; it knows nothing of neighbouring pixels.

    Parameters
    ----------
    n_pixels
        Pixels along a side.
    latent_size
        Length of the latent vector.
    width
        Units of a hidden layer.
    n_hidden
        Hidden layers, at least one.
    n_conditions
        Conditions per slice.
    tails
        Degrees of freedom of Student's t for the latent vector; normal if None.

    Raises
    ------
    UserError
        If a number is below 1.
    """

    def __init__(
        self,
        n_pixels: int,
        latent_size: int = 100,
        width: int = 512,
        n_hidden: int = 2,
        n_conditions: int = 0,
        tails: float | None = None,
    ) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions, tails=tails)
        require_least(1, n_pixels=n_pixels, latent_size=latent_size, width=width, n_hidden=n_hidden)
        self.latent_size, self.width, self.n_hidden = latent_size, width, n_hidden
        self.enter = nn.Linear(latent_size, width)
        self.conditioning = Conditioning(n_conditions, width)
        self.hidden = nn.Sequential(nn.ReLU(), *_layers([width] * n_hidden, nn.ReLU))
        self.leave = nn.Linear(width, n_pixels**2)
        self.apply(_initialise)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """``(latent_size,)``."""
        return (self.latent_size,)

    def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return network values ``(n, n_pixels, n_pixels)`` of latents ``(n, latent_size)``."""
        hidden = self.hidden(self.conditioning(self.enter(self.heavy_tails(latent)), conditions))
        with full_precision(latent.device.type):
            return self.leave(hidden.to(latent.dtype)).unflatten(1, (self.n_pixels, self.n_pixels))

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("n_pixels", "latent_size", "width", "n_hidden", "n_conditions", "tails")
        return {name: getattr(self, name) for name in names}


class MLPCritic(AbstractCritic):
    """Linear layers with LeakyReLU between them; the score is a logit.

    Parameters
    ----------
    n_pixels
        Pixels along a side.
    width
        Units of a hidden layer.
    n_hidden
        Hidden layers, at least one.
    n_conditions
        Conditions per slice.

    Raises
    ------
    UserError
        If a number is below 1.
    """

    def __init__(self, n_pixels: int, width: int = 512, n_hidden: int = 2, n_conditions: int = 0) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions)
        require_least(1, n_pixels=n_pixels, width=width, n_hidden=n_hidden)
        self.enter = nn.Linear(n_pixels**2, width)
        self.conditioning = Conditioning(n_conditions, width)
        self.hidden = nn.Sequential(nn.LeakyReLU(_SLOPE), *_layers([width] * n_hidden, lambda: nn.LeakyReLU(_SLOPE)))
        self.head = nn.Linear(width, 1)
        self.apply(_initialise)

    def forward(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return scores ``(n,)`` of network values ``(n, n_pixels, n_pixels)``."""
        features = self.features(values, conditions)
        with full_precision(values.device.type):
            return self.head(features).squeeze(1)

    def features(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the activations of the last hidden layer, ``(n, width)``."""
        return self.hidden(self.conditioning(self.enter(values.flatten(1)), conditions)).to(values.dtype)


def _layers(widths: list[int], activation: Any) -> list[nn.Module]:
    return [module for n_in, n_out in pairwise(widths) for module in (nn.Linear(n_in, n_out), activation())]


def _initialise(module: nn.Module) -> None:
    """Let every layer keep the variance of what it is given; with biases, for rectifiers of one number bend at them."""
    if isinstance(module, nn.Linear):
        nn.init.kaiming_normal_(module.weight, a=_SLOPE)
        nn.init.normal_(module.bias, std=0.1)
