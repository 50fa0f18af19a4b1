"""Our generator: a Gaussian field of fitted spectrum, corrected by a U-Net, made positive and smoothed as the data are.

The prior carries the large scales and the network the shapes, so that a few minutes on a CPU give a cosmic web. All
layers are periodic, hence slices of any size (a multiple of 8) can be made; shifting the latent by 8 pixels shifts the
slice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cosmogan.networks.base import full_precision
from cosmogan.networks.field import BATCH, AbstractFieldGenerator
from cosmogan.networks.spectral_prior.fit import fit_prior
from cosmogan.networks.spectral_prior.matrix_filter import MatrixFilter
from cosmogan.networks.unet import COARSENING, UNet
from cosmogan.slices import SliceMetadata
from cosmogan.transforms import AbstractTransform, interpolate

# Knots of the point transform out to so many sigma, where a million pixels end; and of what a refit changes of it.
_N_KNOTS, _REACH = 191, 4.75
_N_REFITTED, _REFIT_REACH = 24, 4.3


class SpectralPriorGenerator(AbstractFieldGenerator):
    """Coloured noise plus a U-Net's correction, through a point transform and the smoothing kernel, to 1 + delta.

    Parameters
    ----------
    n_pixels
        Pixels along a side, a multiple of 8.
    width
        Channels at half resolution; twice as many below.
    training_pixels
        Side of the fields made during training, a multiple of 8; the whole slice if None. Smaller fields save time
        where slices are large.
    smoothing
        Sigma in pixels of the Gaussian that closes the network; taken from the data by `prepare`.
    n_conditions
        Conditions per slice.
    tails
        Degrees of freedom of Student's t for the noise given to the network; normal if None. The noise that is coloured
        stays normal: the point transform, which makes the tail of the pixels, is fitted to a normal field.
    mean_count
        Particles per pixel at the mean density, for slices that are whole numbers of particles (nearest grid point)
        before smoothing: pixels are then rounded at random to whole numbers, up or down, with the same mean. At
        70 Mpc/h and eight particles per pixel, more than half of the pixels hold two particles or fewer. None, for
        other assignments: no rounding.
    rounding
        Share of the rounding that is chance: numbers nearer than ``(1 - rounding) / 2`` to a whole one become it
        surely. With 1 the mean of every pixel is kept, but no network can say where in a void the next particle is not,
        other than by pixels so far down that all others lose contrast.
    limit
        Corrections x become ``x / sqrt(1 + (x / limit)^2)``, in units of the prior's standard deviation; those of good
        emulators reach 3 to 6.5. The field is normalised, so that nothing else holds a few pixels at a hundred
        deviations back, and all others would become equal. No limit if None.

    Raises
    ------
    UserError
        If a side is not a multiple of 8, ``mean_count`` or ``limit`` not positive, ``rounding`` no share, or below
        1 without ``mean_count``.
    """

    side_multiple = COARSENING
    # Pixels of mocks per iteration of the fit before training.
    FIT_PIXELS = 2**21
    prior_log_power: Tensor
    normal: Tensor
    log_field: Tensor
    log_power: Tensor
    field_mean: Tensor
    field_std: Tensor

    def __init__(
        self,
        n_pixels: int,
        width: int = 32,
        training_pixels: int | None = None,
        smoothing: float = 0.0,
        n_conditions: int = 0,
        tails: float | None = None,
        mean_count: float | None = None,
        limit: float | None = None,
        rounding: float = 1.0,
    ) -> None:
        super().__init__(
            n_pixels,
            smoothing=smoothing,
            mean_count=mean_count,
            rounding=rounding,
            limit=limit,
            n_conditions=n_conditions,
            tails=tails,
        )
        self.width, self.training_pixels = width, training_pixels or n_pixels
        self._require_multiple("training_pixels", self.training_pixels)
        self.network = UNet(width, n_conditions)
        # Set by `portable` only.
        self.matrices: nn.ModuleDict | None = None
        self._register_tables(_N_KNOTS)
        # Spectrum of the prior.
        self.register_buffer("prior_log_power", torch.zeros(n_pixels))
        # Point transform: normal value -> ln of the unsmoothed field.
        self.register_buffer("normal", torch.linspace(-_REACH, _REACH, _N_KNOTS))
        self.register_buffer("log_field", torch.linspace(-_REACH, _REACH, _N_KNOTS) - 0.5)
        # What was fitted to the training slices.
        self.register_buffer("log_power", torch.zeros_like(self.target_power))
        # Set by `calibrate`.
        self.register_buffer("field_mean", torch.zeros(()))
        self.register_buffer("field_std", torch.ones(()))

    @property
    def point_table(self) -> Tensor:
        """Logarithm of the unsmoothed density."""
        return self.log_field

    @property
    def point_places(self) -> Tensor:
        """Normal values."""
        return self.normal

    @property
    def refit_knots(self) -> Tensor:
        """24 normal values out to 4.3 sigma."""
        return torch.linspace(-_REFIT_REACH, _REFIT_REACH, _N_REFITTED, dtype=torch.float64)

    @property
    def target_probability(self) -> Tensor:
        """Those of the normal values."""
        return torch.special.ndtr(self.normal.double())

    def rounding_noise(self, latent: Tensor) -> Tensor:
        """Return the third plane, if there is one."""
        return latent[:, 2:]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """``(2, n_pixels, n_pixels)``: noise to be coloured and noise for the network; a third one for rounding."""
        return (2 if self.mean_count is None else 3, self.n_pixels, self.n_pixels)

    @property
    def training_latent_shape(self) -> tuple[int, ...]:
        """As `latent_shape`, of ``training_pixels``."""
        return (self.latent_shape[0], self.training_pixels, self.training_pixels)

    @property
    def training_side(self) -> int:
        """``training_pixels``."""
        return self.training_pixels

    @property
    def bytes_per_pixel(self) -> int:
        """Memory per pixel while a slice is computed: measured at widths of 16, 32 and 64."""
        return 80 + 12 * self.width

    def resized(self, n_pixels: int) -> SpectralPriorGenerator:
        """Return this generator for slices of another side: the prior's table and all layers know pixels only."""
        other = copy.deepcopy(self)
        other.n_pixels = n_pixels
        return other

    def use_bfloat16(self) -> None:
        """Compute the U-Net's correction in bfloat16, all else in float32."""
        self.network.bfloat16()

    def portable(self) -> SpectralPriorGenerator:
        """Return a copy that colours by matrix products: ONNX runtimes differ in the Fourier transforms they have."""
        other = copy.deepcopy(self)
        other.matrices = nn.ModuleDict(
            {name: MatrixFilter(self._amplitude(name, self.n_pixels, torch.fft.fftfreq)) for name in ("prior", "field")}
        )
        return other

    def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return 1 + delta, shape ``(n, side, side)``, of latents ``(n, 2 or 3, side, side)``."""
        field = self.corrected(latent, conditions)
        if not self.training:
            field = self.filtered("field", field)
        # Mean and variance of the field would drift first; they are normalised as in a batch normalisation.
        mean, std = (field.mean(), field.std()) if self.training else (self.field_mean, self.field_std)
        return self.to_density((field - mean) / std, self.rounding_noise(latent))

    def corrected(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the prior with the network's correction, not filtered, shape ``(n, side, side)``."""
        prior, noise = self.color(latent[:, 0]), self.heavy_tails(latent[:, 1])
        # The body may be in bfloat16; prior and correction are added in float32.
        body = self.network.leave.weight.dtype
        correction = self.network(torch.stack([prior, noise], 1).to(body), conditions).to(prior.dtype)
        return prior + self.bent(correction)

    def normalise(self, fields: list[Tensor]) -> list[Tensor]:
        """Take the normalisations from filtered fields, batches ``(n, side, side)``, and return these normalised."""
        sums = torch.stack([torch.stack([f.mean(), f.square().mean()]) for f in map(Tensor.double, fields)]).mean(0)
        self.field_mean.copy_(sums[0])
        self.field_std.copy_((sums[1] - sums[0].square()).sqrt())
        normalised = [((f.double() - sums[0]) / self.field_std).float() for f in fields]
        self._set_mean_density(normalised)
        return normalised

    def color(self, noise: Tensor) -> Tensor:
        """Give white noise ``(n, side, side)`` the spectrum of the prior; always float32."""
        return self.filtered("prior", noise)

    def filtered(self, name: str, field: Tensor) -> Tensor:
        """Multiply the modes of ``(n, side, side)`` by the root of ``exp(<name>_log_power)``; always float32."""
        if self.matrices is None:
            return super().filtered(name, field)
        with full_precision(field.device.type):
            filtered: Tensor = self.matrices[name](field.float())
            return filtered

    def _unsmoothed(self, field: Tensor) -> Tensor:
        return torch.exp(interpolate(field.float(), self.normal, self.log_field))

    def prepare(self, density: Tensor, *, transform: AbstractTransform, metadata: SliceMetadata, seed: int) -> None:
        """Fit spectrum and point transform so that the mocks of the untrained network have the data's P(k) and pixels.

        Raises
        ------
        UserError
            If `mean_count` is set and the slices hold no whole numbers of particles.
        """
        self.require_particles(metadata)
        self.set_smoothing(metadata.smoothing)
        fit_prior(self, density, transform=transform, n_maps=self._n_maps(self.FIT_PIXELS, least=16), seed=seed)

    def drawn(self, n_maps: int, *, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Iterate over batches of latents and conditions."""
        device = self.prior_log_power.device
        random = torch.Generator(device).manual_seed(seed)
        for _ in range(n_maps // BATCH):
            latent = torch.randn(BATCH, *self.latent_shape, generator=random, device=device)
            conditions = torch.randn(BATCH, self.n_conditions, generator=random, device=device)
            yield latent, conditions if self.n_conditions else None

    def set_prior(self, log_power: Tensor) -> None:
        """Take over ``ln P`` of the prior in `bins`, up to a factor: the field has unit variance."""
        self.log_power.copy_(log_power)
        knots = self.bins(log_power.device).centres.float() / self.n_pixels
        table = interpolate(self.prior_wavenumber, knots, log_power.float())
        # Modes longer than the box: none were seen.
        table[self.prior_wavenumber < knots[0]] = log_power[0].float()
        self.prior_log_power.copy_(table)
        probe = torch.zeros(1, self.n_pixels, self.n_pixels, device=log_power.device)
        probe[0, 0, 0] = 1.0
        # The variance is the sum of squares of the filter's response to one spike.
        self.prior_log_power -= torch.log(self.color(probe).square().sum())

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("n_pixels", "width", "training_pixels", "smoothing", "n_conditions", "tails", "mean_count", "limit")
        return {name: getattr(self, name) for name in (*names, "rounding")}
