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
from torch.nn import functional
from tqdm import tqdm

from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractGenerator, full_precision
from cosmogan.networks.conditions import Conditioning
from cosmogan.networks.convolution import CircularConvolution
from cosmogan.networks.smoothing import gaussian_kernel, smooth
from cosmogan.slices import SliceMetadata
from cosmogan.statistics.power_spectrum import RadialBins, power_spectrum, radial_bins
from cosmogan.transforms import AbstractTransform, interpolate, thin

# Space-to-depth by 2 and two strided layers.
_COARSENING = 8
# Fit of the prior: pixels of mocks per iteration, iterations, and knots of the point transform out to 4.7 sigma, where
# a million pixels end.
_FIT_PIXELS = 2**21
_FIT_ITERATIONS = 32
_FIT_BATCH = 32
# As above for the trained network, whose small deviations count: 8,192 mocks of 64 x 64 pixels.
_REFIT_PIXELS = 2**25
_REFIT_ITERATIONS = 3
# Rounds behind those, in which the empty pixels are mapped; the spectrum follows in all but the last.
_REMAP_ITERATIONS = 2
# 1 + delta up to which the map acts fully, and from which on not at all. What it does to a peak that has been smoothed
# would have power where the smoothing has left none: 40% too much near the Nyquist frequency at 70 Mpc/h.
_REMAPPED = (0.5, 2.0)
# Pixels beyond a quantile below which it is not trusted, and their share in a refit. With eight rounds and without that
# share the variance of P(k) was off by 66% at 70 Mpc/h, with three and with it by 11%; each alone was not tried.
_RARE = 20
_RARE_SHARE = 1e-4
_CALIBRATION_PIXELS = 2**21
_N_KNOTS = 191
_REACH = 4.75


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

    Raises
    ------
    UserError
        If a side is not a multiple of 8.
    """

    emits_density = True
    side_multiple = _COARSENING
    prior_wavenumber: Tensor
    prior_log_power: Tensor
    normal: Tensor
    log_field: Tensor
    remap_log_density: Tensor
    remap_log_ratio: Tensor
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
    ) -> None:
        super().__init__(n_pixels, n_conditions=n_conditions, tails=tails)
        self.width, self.training_pixels = width, training_pixels or n_pixels
        for name in ("n_pixels", "training_pixels"):
            if getattr(self, name) % _COARSENING:
                raise UserError(
                    f"{name}: this generator needs a multiple of {_COARSENING}, found {getattr(self, name)}"
                )
        self.network = _UNet(width, n_conditions).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # Set by `portable` only.
        self.matrices: nn.Module | None = None
        # Spectrum of the prior against |k| in cycles per pixel, up to the corner of the plane.
        self.register_buffer("prior_wavenumber", torch.linspace(0, math.sqrt(0.5), n_pixels))
        self.register_buffer("prior_log_power", torch.zeros(n_pixels))
        # Point transform: normal value -> ln of the unsmoothed field.
        self.register_buffer("normal", torch.linspace(-_REACH, _REACH, _N_KNOTS))
        self.register_buffer("log_field", torch.linspace(-_REACH, _REACH, _N_KNOTS) - 0.5)
        # Last step, pixel by pixel: ln of the density -> ln of a factor; 0 until `refit`.
        self.register_buffer("remap_log_density", torch.linspace(-_REACH, _REACH, _N_KNOTS))
        self.register_buffer("remap_log_ratio", torch.zeros(_N_KNOTS))
        # Of the training slices, and what was fitted to them, kept for `refit`.
        n_bins = self._bins(torch.device("cpu")).n_bins
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
        self.register_buffer("kernel", gaussian_kernel(smoothing), persistent=False)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """``(2, n_pixels, n_pixels)``: white noise to be coloured, and noise for the network."""
        return (2, self.n_pixels, self.n_pixels)

    @property
    def training_latent_shape(self) -> tuple[int, ...]:
        """``(2, training_pixels, training_pixels)``."""
        return (2, self.training_pixels, self.training_pixels)

    @property
    def training_side(self) -> int:
        """``training_pixels``."""
        return self.training_pixels

    @property
    def bytes_per_pixel(self) -> int:
        """Memory per pixel while a slice is computed: measured at widths of 16, 32 and 64."""
        return 60 + 12 * self.width

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
        other.matrices = _MatrixFilter(self._amplitude(self.n_pixels, torch.fft.fftfreq))
        return other

    def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Return 1 + delta, shape ``(n, side, side)``, of latents ``(n, 2, side, side)``."""
        density = self._smooth_density(latent, conditions)
        return density if self.training else self._remap(density)

    def _smooth_density(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        field = self._field(latent, conditions)
        # Mean and variance of the field would drift first; they are normalised as in a batch normalisation.
        mean, std = (field.mean(), field.std()) if self.training else (self.field_mean, self.field_std)
        return self.to_density((field - mean) / std) / self.mean_density

    def _field(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        prior, noise = self.color(latent[:, 0]), self.heavy_tails(latent[:, 1])
        # The body may be in bfloat16; prior and correction are added in float32.
        body = self.network.leave.weight.dtype
        return prior + self.network(prior.to(body), noise.to(body), conditions).to(prior.dtype)

    def calibrate(self, *, seed: int) -> None:
        """Normalise the field to zero mean and unit variance, and the mean density to 1, over a set of mocks.

        Conditions are drawn as wide as they were in training: on average over them the mean density is 1.
        """
        n_maps = max(_FIT_BATCH, _CALIBRATION_PIXELS // self.n_pixels**2)
        fields = [self._field(*drawn).double() for drawn in self._drawn(n_maps, seed=seed)]
        sums = torch.stack([torch.stack([f.mean(), f.square().mean()]) for f in fields]).mean(0)
        self.field_mean.copy_(sums[0])
        self.field_std.copy_((sums[1] - sums[0].square()).sqrt())
        normalised = [((f - sums[0]) / self.field_std).float() for f in fields]
        self.mean_density.copy_(torch.stack([self.to_density(f).double().mean() for f in normalised]).mean())

    def color(self, noise: Tensor) -> Tensor:
        """Give white noise ``(n, side, side)`` the spectrum of the prior; always float32."""
        with full_precision(noise.device.type):
            noise = noise.float()
            if self.matrices is not None:
                return self.matrices(noise)
            amplitude = self._amplitude(noise.shape[-1], torch.fft.rfftfreq)
            return torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=noise.shape[-2:])

    def _amplitude(self, side: int, frequencies: Callable[..., Tensor]) -> Tensor:
        """Return the prior's filter over the whole plane (``fftfreq``) or the half plane (``rfftfreq``)."""
        device = self.prior_log_power.device
        kx, ky = torch.fft.fftfreq(side, device=device), frequencies(side, device=device)
        wavenumber = torch.hypot(kx[:, None], ky[None, :])
        return torch.exp(0.5 * interpolate(wavenumber, self.prior_wavenumber, self.prior_log_power))

    def to_density(self, field: Tensor) -> Tensor:
        """Take a nearly normal field through the point transform and the smoothing to 1 + delta; always float32."""
        with full_precision(field.device.type):
            unsmoothed = torch.exp(interpolate(field.float(), self.normal, self.log_field))
            return smooth(unsmoothed, self.kernel)

    def _remap(self, density: Tensor) -> Tensor:
        """Multiply each pixel by the factor that `refit` found for its density; always float32."""
        with full_precision(density.device.type):
            return density * torch.exp(interpolate(density.log(), self.remap_log_density, self.remap_log_ratio))

    def prepare(self, density: Tensor, *, transform: AbstractTransform, metadata: SliceMetadata, seed: int) -> None:
        """Fit spectrum and point transform so that the mocks of the untrained network have the data's P(k) and pixels.

        Both are corrected through the smoothing by damped iteration, since the spectrum of a Gaussian field is not that
        of its exponential.
        """
        self._set_smoothing(metadata.smoothing)
        bins = self._bins(density.device)
        thinned = thin(density)
        # Target: the spectrum and the quantiles of the training slices.
        self.target_power.copy_(_mean_power(density, bins))
        self.target_log_quantiles.copy_(_log_quantiles(thinned, torch.special.ndtr(self.normal.double())))
        self.target_pixels.fill_(thinned.numel())
        self.log_field.copy_(self.target_log_quantiles)
        self._set_prior(torch.log(_mean_power(transform(thinned), bins).clamp_min(1e-30)))
        n_maps = max(16, _FIT_PIXELS // self.n_pixels**2)
        random = torch.Generator(density.device).manual_seed(seed)
        for iteration in range(_FIT_ITERATIONS):
            noise = torch.randn(n_maps, self.n_pixels, self.n_pixels, generator=random, device=density.device)
            damping = 0.5 if iteration < _FIT_ITERATIONS // 2 else 0.2
            mocks = self.to_density(self.color(noise))
            self._correct_pixels(mocks, damping=damping)
            self._correct_power(mocks, damping=damping)

    @torch.no_grad()
    def refit(self, *, seed: int) -> None:
        """Fit spectrum of the prior and point transform again, to the trained network's mocks, and map empty pixels.

        Training holds P(k) and pixels only as well as single batches show them, and the point transform reaches empty
        pixels, in the wings of full ones, badly. Takes minutes on a CPU and says on standard error how far it is.
        """
        if not self.target_pixels:
            raise UserError("this emulator does not hold the statistics of its training slices; train it anew to refit")
        n_maps = max(_FIT_BATCH, _REFIT_PIXELS // self.n_pixels**2)
        n_rounds = _REFIT_ITERATIONS + _REMAP_ITERATIONS
        print(
            f"refit: P(k) and pixel distribution of the mocks to the training slices, {n_rounds} rounds of "
            f"{n_maps:,} mocks",
            file=sys.stderr,
        )
        self.remap_log_ratio.zero_()
        for n_done in tqdm(range(n_rounds), unit="round", desc="refit", disable=None):
            self.calibrate(seed=seed)
            # The same latents each time, so that the iteration settles.
            mocks = torch.cat([self._smooth_density(*each) for each in self._drawn(n_maps, seed=seed + 1)])
            if n_done < _REFIT_ITERATIONS:
                self._correct_pixels(mocks, damping=0.7, least_share=_RARE_SHARE)
                self._correct_power(mocks, damping=0.7)
            else:
                self._fit_remap(mocks)
                if n_done < n_rounds - 1:
                    self._correct_power(self._remap(mocks), damping=0.7)

    def _drawn(self, n_maps: int, *, seed: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Iterate over batches of latents and conditions."""
        device = self.prior_log_power.device
        random = torch.Generator().manual_seed(seed)
        for _ in range(n_maps // _FIT_BATCH):
            latent = torch.randn(_FIT_BATCH, *self.latent_shape, generator=random).to(device)
            conditions = torch.randn(_FIT_BATCH, self.n_conditions, generator=random).to(device)
            yield latent, conditions if self.n_conditions else None

    def _bins(self, device: torch.device) -> RadialBins:
        return radial_bins(self.n_pixels, to_corner=True).to(device)

    def _correct_pixels(self, mocks: Tensor, *, damping: float, least_share: float = 0.0) -> None:
        """Move the point transform against the deviation of the pixels of mocks from the target."""
        missing = self._missing_quantiles(mocks, least_share=least_share)[1]
        self.log_field.copy_(_monotone(self.log_field + damping * missing))
        # The mean of the whole box is 1 by definition.
        self.log_field -= torch.log(mocks.double().mean()).float()

    def _fit_remap(self, mocks: Tensor) -> None:
        """Set the map that takes the empty pixels of mocks to the target."""
        log_quantiles, missing = self._missing_quantiles(mocks, least_share=0.0)
        full, none = map(math.log, _REMAPPED)
        missing *= ((none - log_quantiles) / (none - full)).clamp(0, 1)
        # Knots must differ; those below the smallest density told apart do not count.
        self.remap_log_density.copy_(log_quantiles + 1e-5 * torch.arange(_N_KNOTS, device=missing.device))
        self.remap_log_ratio.copy_(missing)
        self.remap_log_ratio -= torch.log(self._remap(mocks).double().mean()).float()

    def _missing_quantiles(self, mocks: Tensor, *, least_share: float) -> tuple[Tensor, Tensor]:
        """Return ln of the quantiles of mocks, and what is to be added to reach the target."""
        probability = torch.special.ndtr(self.normal.double())
        log_quantiles = _log_quantiles(mocks, probability)
        missing = self.target_log_quantiles - log_quantiles
        # Quantiles that hardly a pixel lies beyond are biased; the table moves there as at the last one known.
        n_pixels = min(int(self.target_pixels), mocks.numel())
        beyond = torch.minimum(probability, 1 - probability)
        known = (beyond >= max(_RARE / n_pixels, least_share)).nonzero().flatten()
        places = torch.arange(len(missing), device=missing.device).clamp(known[0], known[-1])
        return log_quantiles.float(), missing[places].float()

    def _correct_power(self, mocks: Tensor, *, damping: float) -> None:
        """Move the spectrum of the prior against the deviation of P(k) of mocks from the target."""
        ratio = torch.log(self.target_power / _mean_power(mocks, self._bins(mocks.device))).clamp(-3, 3)
        self._set_prior(self.log_power + damping * ratio)

    def _set_prior(self, log_power: Tensor) -> None:
        """Take over ``ln P`` of the prior in the bins of the fit."""
        self.log_power.copy_(log_power)
        knots = self._bins(log_power.device).centres.float() / self.n_pixels
        table = interpolate(self.prior_wavenumber, knots, log_power.float())
        # Modes longer than the box: none were seen.
        table[self.prior_wavenumber < knots[0]] = log_power[0].float()
        self.prior_log_power.copy_(table)
        probe = torch.zeros(1, self.n_pixels, self.n_pixels, device=table.device)
        probe[0, 0, 0] = 1.0
        # Unit variance: the sum of squares of the filter's response to one spike.
        self.prior_log_power -= torch.log(self.color(probe).square().sum())

    def settings(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("n_pixels", "width", "training_pixels", "smoothing", "n_conditions", "tails")
        return {name: getattr(self, name) for name in names}


class _MatrixFilter(nn.Module):
    """Filter of a periodic plane without Fourier transforms: products with the matrix ``cas(2 pi j k / side)``.

    The Hartley transform along both axes diagonalises a filter that is even along each of them.

    Parameters
    ----------
    amplitude
        Of the modes of the whole plane, shape ``(side, side)``, in the order of ``fftfreq``.

    References
    ----------
    Bracewell 1983, JOSA 73, 1832.
    """

    amplitude: Tensor
    hartley: Tensor

    def __init__(self, amplitude: Tensor) -> None:
        super().__init__()
        side = len(amplitude)
        places = torch.arange(side)
        angle = 2 * math.pi / side * (places[:, None] * places % side).double()
        self.register_buffer("amplitude", amplitude)
        self.register_buffer("hartley", ((torch.cos(angle) + torch.sin(angle)) / math.sqrt(side)).to(amplitude))

    def forward(self, noise: Tensor) -> Tensor:
        return self.hartley @ ((self.hartley @ noise @ self.hartley) * self.amplitude) @ self.hartley


class _UNet(nn.Module):
    """Correction to the prior field; zero at the start."""

    def __init__(self, width: int, n_conditions: int) -> None:
        super().__init__()
        self.conditioning = Conditioning(n_conditions, width)
        self.enter = CircularConvolution(8, width)
        self.block1 = _ResidualBlock(width)
        self.down1 = _halving(width, 2 * width)
        self.block2 = _ResidualBlock(2 * width)
        self.down2 = _halving(2 * width, 2 * width)
        self.block3 = nn.Sequential(_ResidualBlock(2 * width), _ResidualBlock(2 * width))
        self.up2 = CircularConvolution(4 * width, 2 * width)
        self.up1 = CircularConvolution(3 * width, width)
        self.block4 = _ResidualBlock(width)
        self.leave = CircularConvolution(width, 4)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, prior: Tensor, noise: Tensor, conditions: Tensor | None) -> Tensor:
        fine = torch.cat([functional.pixel_unshuffle(f.unsqueeze(1), 2) for f in (prior, noise)], 1)
        fine = self.enter(fine.contiguous(memory_format=torch.channels_last))
        fine = self.block1(functional.silu(self.conditioning(fine, conditions)))
        middle = self.block2(functional.silu(self.down1(fine)))
        coarse = self.block3(functional.silu(self.down2(middle)))
        middle = functional.silu(self.up2(torch.cat([middle, functional.interpolate(coarse, scale_factor=2)], 1)))
        fine = functional.silu(self.up1(torch.cat([fine, functional.interpolate(middle, scale_factor=2)], 1)))
        fine = self.block4(fine)
        with full_precision(fine.device.type):
            return functional.pixel_shuffle(self.leave(fine.to(self.leave.weight.dtype)), 2).squeeze(1)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = CircularConvolution(width, width), CircularConvolution(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.second(functional.silu(self.first(features)))


def _halving(n_in: int, n_out: int) -> nn.Conv2d:
    # Four taps lie evenly about the two pixels that become one. Three would shift all towards one corner, and slices
    # would lean to one diagonal.
    return CircularConvolution(n_in, n_out, 4, stride=2)


def _mean_power(fields: Tensor, bins: RadialBins) -> Tensor:
    """Return the mean P(k) of fields ``(n, side, side)`` in units of the pixel area, shape ``(n_bins,)``."""
    total = torch.zeros(bins.n_bins, dtype=torch.float64, device=fields.device)
    for block in fields.split(128):
        total += power_spectrum(block - 1, bins.n_pixels, bins=bins).sum(0)
    return total / len(fields)


def _monotone(table: Tensor) -> Tensor:
    """Return an increasing table next to ``(n,)``: the mean of the bounds from either side.

    One bound alone would ratchet the noise of the sparse tail upwards at every iteration of the fit.
    """
    from_left = torch.cummax(table, 0).values
    from_right = torch.cummin(table.flip(0), 0).values.flip(0)
    return 0.5 * (from_left + from_right)


def _log_quantiles(density: Tensor, probability: Tensor) -> Tensor:
    pixels = density.flatten().sort().values
    rank = (probability * (len(pixels) - 1)).clamp(0, len(pixels) - 1)
    below = rank.long().clamp(max=len(pixels) - 2)
    return torch.log(torch.lerp(pixels[below].double(), pixels[below + 1].double(), rank - below).clamp_min(1e-6))
