"""Our generator: a Gaussian field of fitted spectrum, corrected by a U-Net, made positive and smoothed as the data are.

The prior carries the large scales and the network the shapes, so that a few minutes on a CPU give a cosmic web. All
layers are periodic, hence slices of any size (a multiple of 8) can be made; shifting the latent by 8 pixels shifts the
slice.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cosmogan.checks import require_least, require_positive
from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractGenerator, cached_slices, full_precision
from cosmogan.networks.particles import mean_rounded, rounded
from cosmogan.networks.smoothing import gaussian_kernel, smooth
from cosmogan.networks.spectral_prior.fit import fit_prior
from cosmogan.networks.spectral_prior.matrix_filter import MatrixFilter
from cosmogan.networks.spectral_prior.refit import SpectralRefit
from cosmogan.networks.spectral_prior.unet import COARSENING, UNet
from cosmogan.slices import SliceMetadata
from cosmogan.statistics.power_spectrum import RadialBins, radial_bins
from cosmogan.transforms import AbstractTransform, interpolate

# So many times as many where there is a GPU: slices of 256 x 256 pixels of 70 Mpc/h scatter by 100% in P(k), and 32 of
# them say little.
_MORE_ON_GPU = 16
# Mocks at once.
_BATCH = 32
# Knots of the point transform out to so many sigma, where a million pixels end.
_N_KNOTS, _REACH = 191, 4.75
# Of the mean density, where it depends on itself.
_MEAN_ITERATIONS = 3


class SpectralPriorGenerator(AbstractGenerator):
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

    emits_density = True
    side_multiple = COARSENING
    # Pixels of mocks per iteration of the fit before training, and of mocks that the field is normalised over.
    FIT_PIXELS, CALIBRATION_PIXELS = 2**21, 2**21
    # Of a refit, where small deviations count: slices of 70 Mpc/h scatter by 100% in P(k) whatever their pixels, so
    # there are never fewer than so many unless memory (20 bytes per pixel) ends; on a GPU as many as that allows. P(k)
    # of so many still has an error of 2 to 3%, which the fit takes for the network's.
    REFIT_PIXELS, REFIT_MAPS, REFIT_LARGEST = 2**26, 4096, 2**28
    prior_wavenumber: Tensor
    prior_log_power: Tensor
    field_log_power: Tensor
    normal: Tensor
    log_field: Tensor
    kernel: Tensor
    target_power: Tensor
    target_log_quantiles: Tensor
    target_pixels: Tensor
    log_power: Tensor
    field_mean: Tensor
    field_std: Tensor
    mean_density: Tensor

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
        super().__init__(n_pixels, n_conditions=n_conditions, tails=tails)
        self.width, self.training_pixels = width, training_pixels or n_pixels
        self.mean_count, self.limit, self.rounding = mean_count, limit, rounding
        require_positive("a number of particles", null=True, mean_count=mean_count)
        require_positive("a largest correction", null=True, limit=limit)
        if not 0 <= rounding <= 1:
            raise UserError(f"rounding: expected a share between 0 and 1, found {rounding}")
        if rounding < 1 and mean_count is None:
            raise UserError(
                f"rounding: {rounding} of what is rounded to particles, but mean_count is null; set that too"
            )
        for name in ("n_pixels", "training_pixels"):
            if getattr(self, name) % COARSENING:
                raise UserError(f"{name}: this generator needs a multiple of {COARSENING}, found {getattr(self, name)}")
        self.network = UNet(width, n_conditions)
        # Set by `portable` only.
        self.matrices: nn.ModuleDict | None = None
        # Spectrum of the prior against |k| in cycles per pixel, up to the corner of the plane.
        self.register_buffer("prior_wavenumber", torch.linspace(0, math.sqrt(0.5), n_pixels))
        self.register_buffer("prior_log_power", torch.zeros(n_pixels))
        # ln of what the power of the corrected field is multiplied by, against the same |k|; 0 until `refit`.
        self.register_buffer("field_log_power", torch.zeros(n_pixels))
        # Point transform: normal value -> ln of the unsmoothed field.
        self.register_buffer("normal", torch.linspace(-_REACH, _REACH, _N_KNOTS))
        self.register_buffer("log_field", torch.linspace(-_REACH, _REACH, _N_KNOTS) - 0.5)
        # Of the training slices, and what was fitted to them, kept for `refit`.
        n_bins = self.bins(torch.device("cpu")).n_bins
        self.register_buffer("target_power", torch.ones(n_bins, dtype=torch.float64))
        self.register_buffer("target_log_quantiles", torch.zeros(_N_KNOTS, dtype=torch.float64))
        self.register_buffer("target_pixels", torch.zeros((), dtype=torch.int64))
        self.register_buffer("log_power", torch.zeros(n_bins, dtype=torch.float64))
        # Set by `calibrate`.
        self.register_buffer("field_mean", torch.zeros(()))
        self.register_buffer("field_std", torch.ones(()))
        self.register_buffer("mean_density", torch.ones(()))
        self._set_smoothing(smoothing)

    def _set_smoothing(self, smoothing: float) -> None:
        self.smoothing = smoothing
        kernel = gaussian_kernel(smoothing).to(self.log_field.device)
        self.register_buffer("kernel", kernel, persistent=False)

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
        return self.to_density((field - mean) / std, latent[:, 2:])

    def corrected(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the prior with the network's correction, not filtered, shape ``(n, side, side)``."""
        prior, noise = self.color(latent[:, 0]), self.heavy_tails(latent[:, 1])
        # The body may be in bfloat16; prior and correction are added in float32.
        body = self.network.leave.weight.dtype
        correction = self.network(prior.to(body), noise.to(body), conditions).to(prior.dtype)
        if self.limit is not None:
            correction = correction * torch.rsqrt(1 + (correction / self.limit).square())
        return prior + correction

    def calibrate(self, *, seed: int) -> None:
        """Normalise the field to zero mean and unit variance, and the mean density to 1, over a set of mocks.

        Conditions are drawn as wide as they were in training: on average over them the mean density is 1.
        """
        drawn = self.drawn(self._n_maps(self.CALIBRATION_PIXELS), seed=seed)
        self.normalise([self.filtered("field", self.corrected_in_pieces(*each)) for each in drawn])

    def corrected_in_pieces(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """As `corrected`, on a CPU for so few slices at a time that its caches hold them."""
        at_a_time = cached_slices(self.n_pixels) if latent.device.type == "cpu" else len(latent)
        parts = [slice(first, first + at_a_time) for first in range(0, len(latent), at_a_time)]
        return torch.cat([self.corrected(latent[p], None if conditions is None else conditions[p]) for p in parts])

    def normalise(self, fields: list[Tensor]) -> list[Tensor]:
        """Take the normalisations from filtered fields, batches ``(n, side, side)``, and return these normalised."""
        sums = torch.stack([torch.stack([f.mean(), f.square().mean()]) for f in map(Tensor.double, fields)]).mean(0)
        self.field_mean.copy_(sums[0])
        self.field_std.copy_((sums[1] - sums[0].square()).sqrt())
        normalised = [((f.double() - sums[0]) / self.field_std).float() for f in fields]
        # Smoothing does not change the mean, and rounding does not if all of it is chance.
        if self.mean_count is None or self.rounding == 1:
            self.mean_density.copy_(torch.stack([self._unsmoothed(f).double().mean() for f in normalised]).mean())
            return normalised
        self.mean_density.fill_(1.0)
        counts = [self._unsmoothed(f) * self.mean_count for f in normalised]
        # Else the mean to divide by depends on itself.
        for _ in range(_MEAN_ITERATIONS):
            means = [mean_rounded(c / self.mean_density, self.rounding).double().mean() for c in counts]
            self.mean_density.mul_(torch.stack(means).mean() / self.mean_count)
        return normalised

    def color(self, noise: Tensor) -> Tensor:
        """Give white noise ``(n, side, side)`` the spectrum of the prior; always float32."""
        return self.filtered("prior", noise)

    def filtered(self, name: str, field: Tensor) -> Tensor:
        """Multiply the modes of ``(n, side, side)`` by the root of ``exp(<name>_log_power)``; always float32."""
        with full_precision(field.device.type):
            field = field.float()
            if self.matrices is not None:
                return self.matrices[name](field)
            amplitude = self._amplitude(name, field.shape[-1], torch.fft.rfftfreq)
            return torch.fft.irfft2(torch.fft.rfft2(field) * amplitude, s=field.shape[-2:])

    def _amplitude(self, name: str, side: int, frequencies: Callable[..., Tensor]) -> Tensor:
        """Return a filter over the whole plane (``fftfreq``) or the half plane (``rfftfreq``)."""
        device = self.prior_log_power.device
        kx, ky = torch.fft.fftfreq(side, device=device), frequencies(side, device=device)
        wavenumber = torch.hypot(kx[:, None], ky[None, :])
        return torch.exp(0.5 * interpolate(wavenumber, self.prior_wavenumber, getattr(self, f"{name}_log_power")))

    def to_density(self, field: Tensor, rounding: Tensor) -> Tensor:
        """Take a nearly normal field through point transform, rounding and smoothing to 1 + delta; always float32.

        Parameters
        ----------
        field
            Shape ``(n, side, side)``.
        rounding
            Normal noise that decides which pixels are rounded up, shape ``(n, 1, side, side)``; ``(n, 0, side, side)``
            without a `mean_count`.
        """
        with full_precision(field.device.type):
            unsmoothed = self._unsmoothed(field) / self.mean_density
            if self.mean_count is not None:
                counts = rounded(unsmoothed * self.mean_count, rounding[:, 0].float(), self.rounding)
                unsmoothed = counts / self.mean_count
            return smooth(unsmoothed, self.kernel)

    def _unsmoothed(self, field: Tensor) -> Tensor:
        return torch.exp(interpolate(field.float(), self.normal, self.log_field))

    def prepare(self, density: Tensor, *, transform: AbstractTransform, metadata: SliceMetadata, seed: int) -> None:
        """Fit spectrum and point transform so that the mocks of the untrained network have the data's P(k) and pixels.

        Raises
        ------
        UserError
            If `mean_count` is set and the slices hold no whole numbers of particles.
        """
        if self.mean_count is not None and metadata.assignment != "NGP":
            raise UserError(
                f"model.generator.mean_count: the slices are made by {metadata.assignment}, so that their pixels are "
                "no whole numbers of particles; set it to null"
            )
        self._set_smoothing(metadata.smoothing)
        fit_prior(self, density, transform=transform, n_maps=self._n_maps(self.FIT_PIXELS, least=16), seed=seed)

    @torch.no_grad()
    def refit(self, *, seed: int, n_mocks: int | None = None, power_only: bool = False) -> None:
        """Fit a filter of the corrected field and the point transform to the mocks of the trained network.

        Training holds P(k) and pixels only as well as single batches show them. The prior is left as it is: the network
        drowns what is changed in it, and fine structure, which the smoothing hides from P(k) but not from the eye,
        would go with it. Takes minutes on a CPU and says on standard error how far it is. With `power_only`
        the point transform stays as it is.
        """
        if not self.target_pixels:
            raise UserError("this emulator does not hold the statistics of its training slices; train it anew to refit")
        if n_mocks is not None:
            require_least(_BATCH, "mocks", refit=n_mocks)
        n_pixels = max(self.REFIT_PIXELS, self.REFIT_MAPS * self.n_pixels**2)
        n_pixels = self.REFIT_LARGEST if self.log_field.is_cuda else min(n_pixels, self.REFIT_LARGEST)
        n_maps = max(_BATCH, n_pixels // self.n_pixels**2) if n_mocks is None else n_mocks
        n_maps -= n_maps % _BATCH
        what, those = ("P(k)", "that") if power_only else ("P(k) and pixel distribution", "those")
        print(f"refit: {what} of {n_maps:,} mocks to {those} of the training slices", file=sys.stderr)
        SpectralRefit(self, n_maps=n_maps, seed=seed, power_only=power_only).run()

    def _n_maps(self, n_pixels: int, *, least: int = _BATCH) -> int:
        """Return how many slices have so many pixels, or `_MORE_ON_GPU` times as many."""
        more = _MORE_ON_GPU if self.log_field.is_cuda else 1
        return max(least, more * n_pixels // self.n_pixels**2)

    def drawn(self, n_maps: int, *, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Iterate over batches of latents and conditions."""
        device = self.prior_log_power.device
        random = torch.Generator(device).manual_seed(seed)
        for _ in range(n_maps // _BATCH):
            latent = torch.randn(_BATCH, *self.latent_shape, generator=random, device=device)
            conditions = torch.randn(_BATCH, self.n_conditions, generator=random, device=device)
            yield latent, conditions if self.n_conditions else None

    def bins(self, device: torch.device) -> RadialBins:
        """Return the bins of P(k) that the generator is fitted in."""
        return radial_bins(self.n_pixels, to_corner=True).to(device)

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
