"""What generators that end in a field share: filter, point transform, rounding to particles, smoothing.

Filter and point transform are tables, fitted to the training slices before training or after it (`refit`); the network
is what comes before them.
"""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cosmogan.checks import require_least, require_positive
from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractGenerator, cached_slices, full_precision
from cosmogan.networks.particles import mean_rounded, rounded
from cosmogan.networks.refit import Refit
from cosmogan.networks.smoothing import gaussian_kernel, smooth
from cosmogan.networks.unet import COARSENING
from cosmogan.slices import SliceMetadata
from cosmogan.statistics.power_spectrum import RadialBins, power_spectrum, radial_bins
from cosmogan.transforms import interpolate, thin

# So many times as many where there is a GPU: slices of 256 x 256 pixels of 70 Mpc/h scatter by 100% in P(k), and 32 of
# them say little.
_MORE_ON_GPU = 16
# Mocks at once.
BATCH = 32
# Of the mean density, where it depends on itself.
_MEAN_ITERATIONS = 3
# 1 + delta below which pixels are not told apart.
_LEAST_DENSITY = 1e-6


class AbstractFieldGenerator(AbstractGenerator):
    """Latents to a field; the field through filter, point transform, rounding and smoothing to 1 + delta.

    Parameters
    ----------
    n_pixels
        Pixels along a side, a multiple of 8.
    smoothing
        Sigma in pixels of the Gaussian that closes the network.
    mean_count
        Particles per pixel at the mean density, where pixels are rounded to whole numbers of them.
    rounding
        Share of the rounding that is chance.
    limit
        Corrections x become ``x / sqrt(1 + (x / limit)^2)``; no limit if None.
    n_conditions
        Conditions per slice.
    tails
        As for `AbstractGenerator`.

    Raises
    ------
    UserError
        If a number is out of its range.
    """

    emits_density = True
    # Pixels of mocks that the field is normalised over.
    CALIBRATION_PIXELS = 2**21
    # Of a refit, where small deviations count: slices of 70 Mpc/h scatter by 100% in P(k) whatever their pixels, so
    # there are never fewer than so many unless memory (20 bytes per pixel) ends; on a GPU as many as that allows. P(k)
    # of so many still has an error of 2 to 3%, which the fit takes for the network's.
    REFIT_PIXELS, REFIT_MAPS, REFIT_LARGEST = 2**26, 4096, 2**28
    prior_wavenumber: Tensor
    field_log_power: Tensor
    kernel: Tensor
    target_power: Tensor
    target_log_quantiles: Tensor
    target_pixels: Tensor
    mean_density: Tensor

    def __init__(
        self,
        n_pixels: int,
        *,
        smoothing: float,
        mean_count: float | None,
        rounding: float,
        limit: float | None,
        n_conditions: int,
        tails: float | None,
    ) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions, tails=tails)
        self.mean_count, self.limit, self.rounding = mean_count, limit, rounding
        require_positive("a number of particles", null=True, mean_count=mean_count)
        require_positive("a largest correction", null=True, limit=limit)
        if not 0 <= rounding <= 1:
            raise UserError(f"rounding: expected a share between 0 and 1, found {rounding}")
        if rounding < 1 and mean_count is None:
            raise UserError(
                f"rounding: {rounding} of what is rounded to particles, but mean_count is null; set that too"
            )
        self._require_multiple("n_pixels", n_pixels)
        self.set_smoothing(smoothing)

    @staticmethod
    def _require_multiple(name: str, side: int) -> None:
        if side % COARSENING:
            raise UserError(f"{name}: this generator needs a multiple of {COARSENING}, found {side}")

    def set_smoothing(self, smoothing: float) -> None:
        """Take over the smoothing of the data, sigma in pixels."""
        self.smoothing = smoothing
        kernel = gaussian_kernel(smoothing)
        if "kernel" in self._buffers:
            kernel = kernel.to(self.kernel.device)
        self.register_buffer("kernel", kernel, persistent=False)

    # What `Refit` changes and compares with.

    @property
    @abstractmethod
    def point_table(self) -> Tensor:
        """Values of the point transform, shape ``(n,)``, float32; increasing, changed in place by `Refit`."""

    @property
    @abstractmethod
    def point_places(self) -> Tensor:
        """Values of the field that the `point_table` belongs to, shape ``(n,)``."""

    @property
    @abstractmethod
    def refit_knots(self) -> Tensor:
        """Values of the field at which a refit may move the point transform, shape ``(n_knots,)``, float64."""

    @property
    @abstractmethod
    def target_probability(self) -> Tensor:
        """Shares of the pixels below the `target_log_quantiles`, shape ``(n,)``, float64."""

    @property
    def target_log_power(self) -> Tensor | None:
        """P(k) of ln(1 + delta + .05) of the training slices, in `bins`, where a refit is to fit it too."""
        return None

    @abstractmethod
    def corrected(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return the field of the network, not filtered, shape ``(n, side, side)``."""

    @abstractmethod
    def rounding_noise(self, latent: Tensor) -> Tensor:
        """Return the noise of the latents that decides the rounding, shape ``(n, 1 or 0, side, side)``."""

    @abstractmethod
    def normalise(self, fields: list[Tensor]) -> list[Tensor]:
        """Take the normalisations from filtered fields, batches ``(n, side, side)``, and return these normalised."""

    @abstractmethod
    def drawn(self, n_maps: int, *, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Iterate over batches of latents and conditions."""

    @abstractmethod
    def _unsmoothed(self, field: Tensor) -> Tensor:
        """Return the density, up to its mean, before rounding and smoothing."""

    def corrected_in_pieces(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """As `corrected`, on a CPU for so few slices at a time that its caches hold them."""
        at_a_time = cached_slices(self.n_pixels) if latent.device.type == "cpu" else len(latent)
        parts = [slice(first, first + at_a_time) for first in range(0, len(latent), at_a_time)]
        return torch.cat([self.corrected(latent[p], None if conditions is None else conditions[p]) for p in parts])

    def bent(self, correction: Tensor) -> Tensor:
        """Return corrections of any shape, bent at the `limit`."""
        if self.limit is None:
            return correction
        return correction * torch.rsqrt(1 + (correction / self.limit).square())

    def filtered(self, name: str, field: Tensor) -> Tensor:
        """Multiply the modes of ``(n, side, side)`` by the root of ``exp(<name>_log_power)``; always float32."""
        with full_precision(field.device.type):
            field = field.float()
            amplitude = self._amplitude(name, field.shape[-1], torch.fft.rfftfreq)
            return torch.fft.irfft2(torch.fft.rfft2(field) * amplitude, s=field.shape[-2:])

    def _amplitude(self, name: str, side: int, frequencies: Callable[..., Tensor]) -> Tensor:
        """Return a filter over the whole plane (``fftfreq``) or the half plane (``rfftfreq``)."""
        device = self.field_log_power.device
        kx, ky = torch.fft.fftfreq(side, device=device), frequencies(side, device=device)
        wavenumber = torch.hypot(kx[:, None], ky[None, :])
        return torch.exp(0.5 * interpolate(wavenumber, self.prior_wavenumber, getattr(self, f"{name}_log_power")))

    def to_density(self, field: Tensor, rounding: Tensor) -> Tensor:
        """Take a normalised field through point transform, rounding and smoothing to 1 + delta; always float32.

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

    def _set_mean_density(self, fields: list[Tensor], mean: float = 1.0) -> None:
        """Choose the number that densities of normalised fields are divided by, so that their mean is ``mean``."""
        # Smoothing does not change the mean, and rounding does not if all of it is chance.
        if self.mean_count is None or self.rounding == 1:
            means = torch.stack([self._unsmoothed(f).double().mean() for f in fields])
            self.mean_density.copy_(means.mean() / mean)
            return
        self.mean_density.fill_(1.0)
        counts = [self._unsmoothed(f) * self.mean_count for f in fields]
        # Else the mean to divide by depends on itself.
        for _ in range(_MEAN_ITERATIONS):
            means = torch.stack([mean_rounded(c / self.mean_density, self.rounding).double().mean() for c in counts])
            self.mean_density.mul_(means.mean() / (mean * self.mean_count))

    def calibrate(self, *, seed: int) -> None:
        """Normalise field and mean density over a set of mocks.

        Conditions are drawn as wide as they were in training: on average over them the mean density is right.
        """
        drawn = self.drawn(self._n_maps(self.CALIBRATION_PIXELS), seed=seed)
        self.normalise([self.filtered("field", self.corrected_in_pieces(*each)) for each in drawn])

    def require_particles(self, metadata: SliceMetadata) -> None:
        """Refuse slices whose pixels cannot be whole numbers of particles, where pixels are rounded to them."""
        if self.mean_count is not None and metadata.assignment != "NGP":
            raise UserError(
                f"model.generator.mean_count: the slices are made by {metadata.assignment}, so that their pixels are "
                "no whole numbers of particles; set it to null"
            )

    @torch.no_grad()
    def refit(self, *, seed: int, n_mocks: int | None = None, power_only: bool = False) -> None:
        """Fit a filter of the corrected field and the point transform to the mocks of the trained network.

        Training holds P(k) and pixels only as well as single batches show them. What the network starts from is left as
        it is: the network drowns what is changed there, and fine structure, which the smoothing hides from P(k) but not
        from the eye, would go with it. Takes minutes on a CPU and says on standard error how far it is. With
        `power_only` the point transform stays as it is.
        """
        if not self.target_pixels:
            raise UserError("this emulator does not hold the statistics of its training slices; train it anew to refit")
        if n_mocks is not None:
            require_least(BATCH, "mocks", refit=n_mocks)
        n_pixels = max(self.REFIT_PIXELS, self.REFIT_MAPS * self.n_pixels**2)
        n_pixels = self.REFIT_LARGEST if self.kernel.is_cuda else min(n_pixels, self.REFIT_LARGEST)
        n_maps = max(BATCH, n_pixels // self.n_pixels**2) if n_mocks is None else n_mocks
        n_maps -= n_maps % BATCH
        what, those = ("P(k)", "that") if power_only else ("P(k) and pixel distribution", "those")
        print(f"refit: {what} of {n_maps:,} mocks to {those} of the training slices", file=sys.stderr)
        Refit(self, n_maps=n_maps, seed=seed, power_only=power_only).run()

    def _n_maps(self, n_pixels: int, *, least: int = BATCH) -> int:
        """Return how many slices have so many pixels, or `_MORE_ON_GPU` times as many."""
        more = _MORE_ON_GPU if self.kernel.is_cuda else 1
        return max(least, more * n_pixels // self.n_pixels**2)

    def bins(self, device: torch.device) -> RadialBins:
        """Return the bins of P(k) that the generator is fitted in."""
        return radial_bins(self.n_pixels, to_corner=True).to(device)

    def _register_tables(self, n_quantiles: int) -> None:
        """Make room for the filter and for what the training slices have."""
        # Spectra against |k| in cycles per pixel, up to the corner of the plane.
        self.register_buffer("prior_wavenumber", torch.linspace(0, math.sqrt(0.5), self.n_pixels))
        # ln of what the power of the corrected field is multiplied by, against the same |k|; 0 until `refit`.
        self.register_buffer("field_log_power", torch.zeros(self.n_pixels))
        n_bins = self.bins(torch.device("cpu")).n_bins
        self.register_buffer("target_power", torch.ones(n_bins, dtype=torch.float64))
        self.register_buffer("target_log_quantiles", torch.zeros(n_quantiles, dtype=torch.float64))
        self.register_buffer("target_pixels", torch.zeros((), dtype=torch.int64))
        # Set by `calibrate`.
        self.register_buffer("mean_density", torch.ones(()))

    def take_targets(self, density: Tensor) -> None:
        """Keep P(k) and the quantiles of the pixels of training slices, 1 + delta, shape ``(n, side, side)``."""
        thinned = thin(density)
        self.target_power.copy_(mean_power(density, self.bins(density.device)))
        self.target_log_quantiles.copy_(log_quantiles(thinned, self.target_probability))
        self.target_pixels.fill_(thinned.numel())


def mean_power(fields: Tensor, bins: RadialBins) -> Tensor:
    """Return the mean P(k) of fields ``(n, side, side)`` in units of the pixel area, shape ``(n_bins,)``."""
    total = torch.zeros(bins.n_bins, dtype=torch.float64, device=fields.device)
    for block in fields.split(128):
        total += power_spectrum(block - 1, bins.n_pixels, bins=bins).sum(0)
    return total / len(fields)


def log_quantiles(density: Tensor, probability: Tensor) -> Tensor:
    """Return the logarithm of the density below which such shares of the pixels lie, shape of ``probability``."""
    pixels = density.flatten().sort().values
    rank = (probability * (len(pixels) - 1)).clamp(0, len(pixels) - 1)
    below = rank.long().clamp(max=len(pixels) - 2)
    return torch.log(
        torch.lerp(pixels[below].double(), pixels[below + 1].double(), rank - below).clamp_min(_LEAST_DENSITY)
    )
