"""Networks on the torus: a slice through the whole box is periodic, and so is every layer here.

The generator starts from a spatial latent, with noise at every resolution; shifting the latent by one coarse cell
shifts the slice, and any number of cells makes a slice. The critic gives all slices that differ by such a shift the
same score.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosmogan.checks import require_least
from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractCritic, AbstractGenerator, full_precision
from cosmogan.networks.conditions import Conditioning
from cosmogan.networks.convolution import CircularConvolution
from cosmogan.networks.smoothing import gaussian_kernel, smooth
from cosmogan.slices import SliceMetadata
from cosmogan.transforms import AbstractTransform, thin

# Channels stop doubling at this many times the width.
_WIDEST = 8
_SLOPE = 0.2
# The critic's planes are halved to this side or the next above it.
_COARSEST = 4
# Below this, logarithms would be of shot noise alone.
_EMPTIEST = 1e-2
# Sigmas beyond which an untrained head must not raise a density.
_LARGEST = 15.0
_CALIBRATION_PIXELS, _CALIBRATION_BATCH = 2**21, 32


class PeriodicGenerator(AbstractGenerator):
    """Residual blocks of resizing and circular 3 x 3 convolutions, an exponential, and the smoothing of the data.

    Resizing and convolution instead of transposed convolution, which spoils the spectrum of small scales. Nearest
    neighbours, because they need no padding to be periodic and the convolution after them interpolates. The head
    makes ln(1 + delta) before the smoothing of the data, whose kernel is the last layer: without it, slices had a
    hundred times too much power next to the Nyquist frequency of smoothed data.

    The latent of a slice is one tensor over the cells of the coarsest plane: ``latent_channels`` numbers per cell that
    the first layer sees, and, folded into further channels, one plane of noise for each block at its own resolution.

    Parameters
    ----------
    n_pixels
        Pixels along a side, a multiple of ``2**n_levels``.
    width
        Channels at full resolution; twice as many at each coarser level, up to eight times.
    n_levels
        Blocks, each of which doubles the resolution. Structures much larger than ``2**n_levels`` pixels are known to
        few layers.
    latent_channels
        Numbers per coarsest cell.
    smoothing
        Sigma in pixels of the Gaussian that closes the network; taken from the data by `prepare`.
    n_conditions
        Conditions per slice.
    tails
        Degrees of freedom of Student's t for all of the latent; normal if None.

    Raises
    ------
    UserError
        If ``n_pixels`` is not a multiple of ``2**n_levels``.

    References
    ----------
    Spectra of transposed convolutions: Durall et al. 2020, arXiv:2003.01826. Noise at every resolution: Karras et
    al. 2019, arXiv:1812.04948.
    """

    emits_density = True
    location: Tensor
    scale: Tensor
    mean_density: Tensor
    kernel: Tensor

    def __init__(
        self,
        n_pixels: int,
        width: int = 16,
        n_levels: int = 4,
        latent_channels: int = 32,
        smoothing: float = 0.0,
        n_conditions: int = 0,
        tails: float | None = None,
    ) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions, tails=tails)
        require_least(1, n_levels=n_levels)
        self.width, self.n_levels, self.latent_channels = width, n_levels, latent_channels
        self.side_multiple = 2**n_levels
        if n_pixels < 1 or n_pixels % self.side_multiple:
            raise UserError(
                f"n_pixels: with {n_levels} levels this generator needs a multiple of {self.side_multiple}, "
                f"found {n_pixels}"
            )
        channels = [width * min(2**level, _WIDEST) for level in reversed(range(n_levels + 1))]
        self.enter = CircularConvolution(latent_channels, channels[0])
        self.conditioning = Conditioning(n_conditions, channels[0])
        self.blocks = nn.ModuleList(_Doubling(n_in, n_out) for n_in, n_out in pairwise(channels))
        self.leave = CircularConvolution(width, 1)
        self.apply(_initialise)
        # Mean and scatter of ln(1 + delta), taken from the training slices.
        self.register_buffer("location", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        # Set by `calibrate`.
        self.register_buffer("mean_density", torch.ones(()))
        self._set_smoothing(smoothing)

    def _set_smoothing(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self.register_buffer("kernel", gaussian_kernel(smoothing), persistent=False)

    def prepare(self, density: Tensor, *, transform: AbstractTransform, metadata: SliceMetadata, seed: int) -> None:
        """Take over smoothing, mean and scatter of the training slices."""
        self._set_smoothing(metadata.smoothing)
        logarithm = torch.log(thin(density).double().clamp_min(_EMPTIEST))
        self.location.copy_(logarithm.mean())
        self.scale.copy_(logarithm.std())

    @torch.no_grad()
    def calibrate(self, *, seed: int) -> None:
        """Measure the mean density of a set of mocks, which is 1 afterwards; with conditions, on average over them."""
        device, random = self.location.device, torch.Generator().manual_seed(seed)
        self.mean_density.fill_(1.0)
        means = []
        for _ in range(max(1, _CALIBRATION_PIXELS // (_CALIBRATION_BATCH * self.n_pixels**2))):
            latent = torch.randn(_CALIBRATION_BATCH, *self.latent_shape, generator=random).to(device)
            conditions = torch.randn(_CALIBRATION_BATCH, self.n_conditions, generator=random).to(device)
            means.append(self(latent, conditions if self.n_conditions else None).double().mean())
        self.mean_density.copy_(torch.stack(means).mean())

    @property
    def _planes(self) -> list[int]:
        """Channels of the latent: those of the coarsest plane, then those that each noise plane is folded into."""
        return [self.latent_channels, *(4**level for level in range(1, self.n_levels + 1))]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """``(n_channels, cells, cells)`` with ``cells = n_pixels / 2**n_levels``."""
        cells = self.n_pixels // 2**self.n_levels
        return (sum(self._planes), cells, cells)

    @property
    def bytes_per_pixel(self) -> int:
        """Memory per pixel while a slice is computed: measured at widths of 8, 16 and 32."""
        return 70 + 32 * self.width

    def resized(self, n_pixels: int) -> PeriodicGenerator:
        """Return this generator for slices of another side: all layers know pixels only."""
        other = copy.deepcopy(self)
        other.n_pixels = n_pixels
        return other

    def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return 1 + delta, shape ``(n, side, side)``, of latents ``(n, n_channels, cells, cells)``."""
        coarse, *folded = self.heavy_tails(latent).split(self._planes, 1)
        features = self.enter(coarse.contiguous(memory_format=torch.channels_last))
        features = self.conditioning(features, conditions)
        for level, (block, noise) in enumerate(zip(self.blocks, folded, strict=True), start=1):
            features = block(features, functional.pixel_shuffle(noise, 2**level))
        with full_precision(latent.device.type):
            values = self.leave(functional.leaky_relu(features.to(latent.dtype), _SLOPE)).squeeze(1)
            unsmoothed = torch.exp(self.location + self.scale * values.clamp(max=_LARGEST))
            # The batches of a training are too small to be divided by their means.
            return smooth(unsmoothed, self.kernel) / (1.0 if self.training else self.mean_density)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("n_pixels", "width", "n_levels", "latent_channels", "smoothing", "n_conditions", "tails")
        return {name: getattr(self, name) for name in names}


class PeriodicCritic(AbstractCritic):
    """Residual blocks of circular convolutions and pooling, means over places, minibatch standard deviation.

    Scores do not change when any slice is shifted by ``2**n_halvings`` pixels. Under other shifts the features of an
    untrained critic change by a third of their scatter between slices, because planes are averaged before they are
    thinned out; with strided convolutions it would be all of it. No normalisation layers, which gradient penalties
    forbid.

    Parameters
    ----------
    n_pixels
        Pixels along a side, at least 8; halved while at least 4 are left, so a multiple of that power of two.
    width
        Channels at half resolution; twice as many at each coarser level, up to eight times.
    n_conditions
        Conditions per slice.

    Raises
    ------
    UserError
        If ``n_pixels`` cannot be halved so often.

    References
    ----------
    Minibatch standard deviation: Karras et al. 2018, arXiv:1710.10196, section 3; here of the means over places, so
    that shifts do not hide that slices are equal.
    """

    def __init__(self, n_pixels: int, width: int = 32, n_conditions: int = 0) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions)
        self.n_halvings = max(n_pixels // _COARSEST, 1).bit_length() - 1
        if not self.n_halvings or n_pixels % 2**self.n_halvings:
            raise UserError(
                f"n_pixels: this critic halves a side while {_COARSEST} pixels are left; expected at least "
                f"{2 * _COARSEST}, and here a multiple of {2**self.n_halvings}, found {n_pixels}"
            )
        channels = [width * min(2**level, _WIDEST) for level in range(self.n_halvings)]
        self.enter = CircularConvolution(4, width)
        self.conditioning = Conditioning(n_conditions, width)
        self.blocks = nn.Sequential(*(_Halving(n_in, n_out) for n_in, n_out in pairwise(channels)))
        self.head = nn.Sequential(
            nn.Linear(channels[-1] + 1, channels[-1]), nn.LeakyReLU(_SLOPE), nn.Linear(channels[-1], 1)
        )
        self.apply(_initialise)

    def forward(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return scores ``(n,)`` of network values ``(n, n_pixels, n_pixels)``."""
        features = self.features(values, conditions)
        with full_precision(values.device.type):
            spread = torch.sqrt(features.var(0, unbiased=False) + 1e-8).mean()
            return self.head(torch.cat([features, spread.expand(len(features), 1)], 1)).squeeze(1)

    def features(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the means over places of the last block's activations, ``(n, n_features)``."""
        planes = functional.pixel_unshuffle(values.unsqueeze(1), 2)
        first = self.enter(planes.contiguous(memory_format=torch.channels_last))
        last = self.blocks(self.conditioning(first, conditions))
        return functional.leaky_relu(last.to(values.dtype), _SLOPE).mean((2, 3))


class _Doubling(nn.Module):
    """Residual block to twice the resolution, with one plane of noise of learned strength between its layers."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.skip = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, bias=False)
        self.first, self.second = CircularConvolution(n_in, n_out), CircularConvolution(n_out, n_out)
        self.strength = nn.Parameter(torch.zeros(n_out, 1, 1))

    def forward(self, features: Tensor, noise: Tensor) -> Tensor:
        inner = self.first(_doubled(functional.leaky_relu(features, _SLOPE)))
        inner = inner + (self.strength * noise).to(inner.dtype)
        inner = self.second(functional.leaky_relu(inner, _SLOPE))
        # The variance of a sum of two equal ones.
        return (inner + _doubled(self.skip(features)).to(inner.dtype)) * math.sqrt(0.5)


class _Halving(nn.Module):
    """Residual block to half the resolution; planes are averaged, not picked, where they are thinned out."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.skip = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, bias=False)
        self.first, self.second = CircularConvolution(n_in, n_in), CircularConvolution(n_in, n_out)

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.leaky_relu(self.first(functional.leaky_relu(features, _SLOPE)), _SLOPE)
        inner = self.second(functional.avg_pool2d(inner, 2))
        return (inner + self.skip(functional.avg_pool2d(features, 2))) * math.sqrt(0.5)


def _doubled(planes: Tensor) -> Tensor:
    return functional.interpolate(planes, scale_factor=2)


def _initialise(module: nn.Module) -> None:
    """Let every layer keep the variance of what it is given."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        linear = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
        nn.init.kaiming_normal_(module.weight, a=1.0 if linear else _SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
