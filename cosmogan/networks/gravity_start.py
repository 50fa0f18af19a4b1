"""Our generator that starts from gravity: a coarse simulation of the same phases, corrected by a U-Net.

What a thin slab inherits from the flow in three dimensions (how walls go together, rows of the particle lattice in
voids, which slices hold the clusters) is in the particles of few COLA steps; the network adds what the coarse force
lacks. So did NECOLA (Kaushal et al. 2022, arXiv:2111.02441) in three dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cosmogan.checks import require_least
from cosmogan.errors import UserError
from cosmogan.networks.base import full_precision
from cosmogan.networks.field import BATCH, AbstractFieldGenerator, mean_power
from cosmogan.networks.particles import whole_counts
from cosmogan.networks.refit import log_density
from cosmogan.networks.smoothing import smooth
from cosmogan.networks.unet import UNet
from cosmogan.slices import SliceMetadata
from cosmogan.transforms import AbstractTransform, interpolate

# Slab, the one below and the one above.
N_SLABS_SEEN = 3
# Planes of noise: for the network, and for the rounding.
_N_NOISE = 2
# The point transform knows ln(1 + n) up to half a million particles in a pixel; a refit moves it at so many places.
_LARGEST, _N_KNOTS, _N_REFITTED = 13.0, 261, 27
# Sigmas out to which quantiles of the pixels are kept, and their number.
_REACH, _N_QUANTILES = 4.75, 191
# Of the step that keeps numbers of particles positive, in 1 / ln(1 + n).
_STEEPNESS = 10.0
# Pixels of the slices in which whole numbers of particles are looked for.
_LOOKED_AT = 128
# Relative deviation of what is equal.
_ROUNDING = 1e-3
# Points of the table of linear P(k).
N_LINEAR = 1000


class StartSet(Protocol):
    """Starts that slices can be made from."""

    def __len__(self) -> int:
        """Return their number."""

    def take(self, index: np.ndarray) -> Tensor:
        """Return particles per pixel of slab, slab below and slab above, shape ``(n, 3, side, side)``, float32."""


class GravityStartGenerator(AbstractFieldGenerator):
    """A slab of a coarse simulation plus a U-Net's correction, rounded to particles and smoothed, to 1 + delta.

    The network sees ``ln(1 + n)`` of the slab and of its two neighbours, the logarithm of the smoothed slab, and noise.
    Its correction is added to ``ln(1 + n)`` of the slab, so that without one the start is copied, rows of the particle
    lattice in voids included. Starts are made by `cosmogan.emulator.starts`; a table of the linear power spectrum is
    part of the weights, so that samples need no Boltzmann code.

    Parameters
    ----------
    n_pixels
        Pixels along a side, a multiple of 8.
    start_particles
        Particles along a side of the coarse simulation. To learn from pairs of the same phases it must be that of the
        slices' simulations.
    start_steps
        Its COLA steps.
    start_mesh
        Its force cells along a side; as many as particles if None.
    width
        Channels at half resolution; twice as many below.
    smoothing
        Sigma in pixels of the Gaussian that closes the network; taken from the data by `prepare`.
    n_conditions
        Conditions per slice.
    mean_count
        Particles per pixel at the mean density; slices are whole numbers of them before smoothing.
    limit
        Corrections x become ``x / sqrt(1 + (x / limit)^2)``, in units of ln(1 + n); without a bound densities run away.
    rounding
        Share of the rounding that is chance, as for `SpectralPriorGenerator`.

    Raises
    ------
    UserError
        If a number is out of its range.
    """

    n_start_planes = N_SLABS_SEEN
    start_scale: Tensor
    linear_wavenumber: Tensor
    linear_power: Tensor
    log_power: Tensor
    count_places: Tensor
    count_table: Tensor
    normal: Tensor

    def __init__(
        self,
        n_pixels: int,
        start_particles: int = 128,
        start_steps: int = 5,
        start_mesh: int | None = None,
        width: int = 32,
        smoothing: float = 0.0,
        n_conditions: int = 0,
        mean_count: float = 8.0,
        limit: float | None = 3.0,
        rounding: float = 0.5,
    ) -> None:
        super().__init__(
            n_pixels,
            smoothing=smoothing,
            mean_count=mean_count,
            rounding=rounding,
            limit=limit,
            n_conditions=n_conditions,
            tails=None,
        )
        require_least(1, where="model.generator", start_steps=start_steps, start_particles=start_particles)
        self.start_particles, self.start_steps, self.start_mesh = start_particles, start_steps, start_mesh
        self.width = width
        self.network = UNet(width, n_conditions, n_planes=N_SLABS_SEEN + 2)
        self._register_tables(_N_QUANTILES)
        self.register_buffer("normal", torch.linspace(-_REACH, _REACH, _N_QUANTILES))
        # Point transform: ln(1 + n) -> ln(1 + n); the identity until `refit`.
        self.register_buffer("count_places", torch.linspace(-1.0, _LARGEST, _N_KNOTS))
        self.register_buffer("count_table", self.count_places.clone())
        # P(k) of ln(1 + delta + .05) of the training slices.
        self.register_buffer("log_power", torch.ones_like(self.target_power))
        # Particles of the data per particle of the start; set by `prepare`.
        self.register_buffer("start_scale", torch.ones(()))
        # Linear P(k) at redshift 0, (Mpc/h)^3 of h/Mpc; set by `cosmogan.emulator.starts`.
        self.register_buffer("linear_wavenumber", torch.zeros(N_LINEAR, dtype=torch.float64))
        self.register_buffer("linear_power", torch.zeros(N_LINEAR, dtype=torch.float64))
        # What `calibrate` and `refit` draw from, and the mean density of what they have drawn, batch by batch.
        self.starts: StartSet | None = None
        self._means_drawn: list[float] = []

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """``(5, n_pixels, n_pixels)``: particles in three slabs, noise for the network and noise for the rounding."""
        return (N_SLABS_SEEN + _N_NOISE, self.n_pixels, self.n_pixels)

    @property
    def point_table(self) -> Tensor:
        """ln(1 + n) before rounding."""
        return self.count_table

    @property
    def point_places(self) -> Tensor:
        """ln(1 + n) of the network."""
        return self.count_places

    @property
    def target_log_power(self) -> Tensor:
        """P(k) of ln(1 + delta + .05) of the training slices."""
        return self.log_power

    @property
    def refit_knots(self) -> Tensor:
        """From no particle to half a million."""
        return torch.linspace(0.0, _LARGEST, _N_REFITTED, dtype=torch.float64)

    @property
    def target_probability(self) -> Tensor:
        """Those of normal values out to 4.75 sigma."""
        return torch.special.ndtr(self.normal.double())

    def rounding_noise(self, latent: Tensor) -> Tensor:
        """Return the last plane."""
        return latent[:, -1:]

    def use_bfloat16(self) -> None:
        """Compute the U-Net's correction in bfloat16, all else in float32."""
        self.network.bfloat16()

    def start_density(self, starts: Tensor) -> Tensor:
        """Return 1 + delta of starts ``(n, 3, side, side)``, smoothed as the data are, shape ``(n, side, side)``."""
        return smooth(self._numbers(starts[:, 0]) / self._mean_count, self.kernel)

    @property
    def _mean_count(self) -> float:
        assert self.mean_count is not None
        return self.mean_count

    def _numbers(self, starts: Tensor) -> Tensor:
        """Return particles as numbers of the data's particles; whatever is given in their place is not negative."""
        return starts.clamp_min(0) * self.start_scale

    def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return 1 + delta, shape ``(n, side, side)``, of latents ``(n, 5, side, side)``."""
        field = self.corrected(latent, conditions)
        if not self.training:
            field = self.filtered("field", field)
        return self.to_density(field, self.rounding_noise(latent))

    def corrected(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return ln(1 + n) of the start with the network's correction, not filtered, shape ``(n, side, side)``."""
        with full_precision(latent.device.type):
            numbers = self._numbers(latent[:, :N_SLABS_SEEN].float())
            logarithms = torch.log1p(numbers)
            smoothed = log_density(smooth(numbers[:, 0] / self._mean_count, self.kernel))
            noise = latent[:, N_SLABS_SEEN].float()
            planes = torch.cat([logarithms, smoothed[:, None], noise[:, None]], 1)
        # The body may be in bfloat16; start and correction are added in float32.
        correction = self.network(planes.to(self.network.leave.weight.dtype), conditions).to(logarithms.dtype)
        return logarithms[:, 0] + self.bent(correction)

    def normalise(self, fields: list[Tensor]) -> list[Tensor]:
        """Give the first batches that were drawn last the mean density of their starts; the fields stay as they are."""
        mean = float(np.mean(self._means_drawn[: len(fields)]))
        self._set_mean_density(fields, mean)
        return fields

    def _unsmoothed(self, field: Tensor) -> Tensor:
        logarithm = interpolate(field.float(), self.count_places, self.count_table)
        return torch.expm1(functional.softplus(logarithm, beta=_STEEPNESS, threshold=50.0)) / self._mean_count

    def prepare(self, density: Tensor, *, transform: AbstractTransform, metadata: SliceMetadata, seed: int) -> None:
        """Take smoothing, P(k) and pixels of the slices.

        Raises
        ------
        UserError
            If the slices hold no whole numbers of particles.
        """
        self.require_particles(metadata)
        self.set_smoothing(metadata.smoothing)
        self.kernel = self.kernel.to(density.device)
        way_out = "set model.generator.mean_count to the particles per pixel, or take SpectralPriorGenerator"
        whole_counts(density[:_LOOKED_AT], self.kernel, mean_count=self._mean_count, way_out=way_out)
        self.take_targets(density)
        logarithms = torch.cat([log_density(block) for block in density.split(128)])
        self.log_power.copy_(mean_power(logarithms, self.bins(density.device)))
        n_slabs = round(metadata.box_size / metadata.thickness)
        self.start_scale.fill_(self._mean_count * self.n_pixels**2 * n_slabs / self.start_particles**3)

    def require_whole(self) -> None:
        """Refuse a `mean_count` other than that of starts with the particles of the slices' simulations.

        Raises
        ------
        UserError
            If a particle of the start is not one of the slices.
        """
        scale = float(self.start_scale)
        if abs(scale - 1) > _ROUNDING:
            raise UserError(
                f"model.generator.mean_count: the slices were simulated with {self._mean_count / scale:g} particles "
                f"per pixel, found {self._mean_count:g}"
            )

    def drawn(self, n_maps: int, *, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Iterate over batches of latents and conditions; starts in a random order, all before one comes again.

        Raises
        ------
        UserError
            If nobody has given the generator `starts`.
        """
        if self.starts is None:
            raise UserError("this emulator starts from simulations, and nobody has made some for it")
        device = self.kernel.device
        random = torch.Generator(device).manual_seed(seed)
        turns = -(-n_maps // len(self.starts))
        order = np.concatenate([np.random.default_rng([seed, i]).permutation(len(self.starts)) for i in range(turns)])
        self._means_drawn = []
        for first in range(0, n_maps - n_maps % BATCH, BATCH):
            starts = self.starts.take(order[first : first + BATCH]).to(device)
            self._means_drawn.append(float(self._numbers(starts[:, 0]).double().mean()) / self._mean_count)
            noise = torch.randn(BATCH, *self.noise_shape, generator=random, device=device)
            conditions = torch.randn(BATCH, self.n_conditions, generator=random, device=device)
            yield torch.cat([starts, noise], 1), conditions if self.n_conditions else None

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("n_pixels", "start_particles", "start_steps", "start_mesh", "width", "smoothing", "n_conditions")
        return {name: getattr(self, name) for name in (*names, "mean_count", "limit", "rounding")}
