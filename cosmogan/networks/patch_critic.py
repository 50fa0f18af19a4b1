"""Our critic: patches of slices, or whole ones with periodic convolutions; it compares the slices of a batch."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from cosmogan.checks import require_positive
from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractCritic, full_precision
from cosmogan.networks.conditions import Conditioning
from cosmogan.networks.convolution import CircularConvolution
from cosmogan.networks.particles import whole_counts
from cosmogan.networks.smoothing import gaussian_kernel, sharpen
from cosmogan.slices import SliceMetadata

# Slices in which whole numbers of particles are looked for.
_LOOKED_AT = 128
# Channels between moments and score, and what keeps the logarithm of no variance finite.
_MOMENTS_WIDTH, _LEAST_VARIANCE = 128, 1e-4


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
    moments
        Whether mean and variance of the input and of all feature maps, which do not depend on where in a slice things
        are, reach the score by layers of their own.
    mean_count
        Particles per pixel at the mean density, for slices that are whole numbers of particles (nearest grid point)
        before smoothing. The critic then sees ``ln(1 + n) - ln(1 + mean_count)`` of these numbers n beside the network
        values: of waves of two pixels, smoothing by one pixel leaves 1% of the amplitude, and what differs there is out
        of its sight. None for the network values alone. The generator must have the same.
    pairs
        Whether the critic also sees what a slice adds to the network values of its start, for generators that start
        from a simulation. Slices of one box scatter by more than what there is to learn; of two with the same start,
        a real one and a mock, it sees the difference.

    Raises
    ------
    UserError
        If ``patch`` is not 8 times a power of two, or ``mean_count`` not positive.

    References
    ----------
    Minibatch standard deviation: Karras et al. 2018, arXiv:1710.10196, section 3.
    """

    kernel: Tensor

    def __init__(
        self,
        n_pixels: int,
        patch: int = 64,
        width: int = 64,
        n_conditions: int = 0,
        moments: bool = False,
        mean_count: float | None = None,
        pairs: bool = False,
    ) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions)
        self.pairs = pairs
        require_positive(where="model.critic", null=True, mean_count=mean_count)
        self.mean_count = mean_count
        # Of the smoothing; set by `prepare`.
        self.register_buffer("kernel", torch.ones(1), persistent=False)
        self.patch = min(patch, n_pixels)
        n_strided = round(math.log2(self.patch / 8))
        if self.patch != 8 * 2**n_strided:
            raise UserError(f"patch: the critic needs 8 times a power of two pixels, found {self.patch}")
        # A patch has no other side to continue at.
        convolution = CircularConvolution if self.patch == n_pixels else partial(nn.Conv2d, kernel_size=3, padding=1)
        channels = [width * min(2**level, 4) for level in range(n_strided + 1)]
        layers: list[nn.Module] = [convolution(4 * self.n_planes, width), nn.LeakyReLU(0.2)]
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
        self.moments = None
        if moments:
            n_moments = 2 * (self.n_planes + sum(channels))
            self.moments = nn.Sequential(
                nn.Linear(n_moments, _MOMENTS_WIDTH), nn.LeakyReLU(0.2), nn.Linear(_MOMENTS_WIDTH, 1)
            )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def patch_pixels(self) -> int:
        """Side of the patches that the critic sees."""
        return self.patch

    def prepare(self, density: Tensor, *, metadata: SliceMetadata) -> None:
        """Take the smoothing that hides the particles.

        Raises
        ------
        UserError
            If `mean_count` is set and the slices hold no whole numbers of particles.
        """
        if self.mean_count is None:
            return
        self.kernel = gaussian_kernel(metadata.smoothing).to(density.device)
        whole_counts(
            density[:_LOOKED_AT],
            self.kernel,
            mean_count=self.mean_count,
            way_out="set mean_count of generator and critic to the particles per pixel, or that of the critic to null",
        )

    @property
    def n_planes(self) -> int:
        """Network values, and with them particles and what differs from the start."""
        return 1 + (self.mean_count is not None) + self.pairs

    def shown(self, density: Tensor, values: Tensor, start: Tensor | None = None) -> Tensor:
        """Return the network values; beside them particles before the smoothing, and what differs from the start."""
        planes = [values]
        if self.mean_count is not None:
            counts = self.mean_count * sharpen(density, self.kernel)
            # No particle comes back as a small number of either sign, and has a gradient all the same.
            particles = torch.log((1 + counts).clamp_min(0.5)).to(values.dtype) - math.log1p(self.mean_count)
            planes.append(particles)
        if self.pairs:
            assert start is not None
            planes.append(values - start)
        return torch.stack(planes, 1) if len(planes) > 1 else values

    def forward(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return scores ``(n,)`` of network values ``(n, patch, patch)``, or of ``(n, n_planes, patch, patch)``."""
        values = values.reshape(len(values), self.n_planes, *values.shape[-2:])
        maps = self._maps(values, conditions)
        planes = maps[-1]
        spread = torch.sqrt(planes.to(values.dtype).var(0, unbiased=False) + 1e-8).mean().to(planes.dtype)
        spread = spread.expand(len(planes), 1, *planes.shape[-2:])
        joined = self.head[:-1](torch.cat([planes, spread], 1))
        with full_precision(values.device.type):
            score = self.head[-1](joined.to(values.dtype)).squeeze(1)
            if self.moments is not None:
                score = score + self.moments(_moments([values, *maps], values.dtype)).squeeze(1)
            return score

    def features(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the means over places of the last convolution's activations: slices have no preferred origin."""
        values = values.reshape(len(values), self.n_planes, *values.shape[-2:])
        return self._maps(values, conditions)[-1].to(values.dtype).mean((2, 3))

    def _maps(self, values: Tensor, conditions: Tensor | None) -> list[Tensor]:
        """Return the activations of all convolutions of the body."""
        patches = functional.pixel_unshuffle(values, 2)
        first = self.body[:2](patches.contiguous(memory_format=torch.channels_last))
        maps = [self.conditioning(first, conditions)]
        for i in range(2, len(self.body), 2):
            maps.append(self.body[i : i + 2](maps[-1]))
        return maps


def _moments(maps: list[Tensor], dtype: torch.dtype) -> Tensor:
    """Return means and logarithms of variances over places, shape ``(n, n_moments)``."""
    moments = []
    for each in maps:
        variance, mean = torch.var_mean(each.to(dtype), (2, 3), correction=0)
        moments += [mean, torch.log(variance + _LEAST_VARIANCE)]
    return torch.cat(moments, 1)
