"""A Gaussian field taken through a monotone function of its pixels: expected power, fitted spectrum, samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.special import ndtr

from cosmogan.checks import require_least
from cosmogan.seeds import slice_stream
from cosmogan.slices import SliceMetadata
from cosmogan.slices.smoothing import smooth
from cosmogan.statistics.power_spectrum import TRUSTED_NYQUIST_FRACTION

# The function of the normal variable is a table of equal steps out to 8 sigma.
_REACH = 8.0
_N_TABLE = 2**17
_EDGES = np.linspace(-_REACH, _REACH, _N_TABLE + 1)
NORMAL = 0.5 * (_EDGES[1:] + _EDGES[:-1])
PROBABILITY = ndtr(NORMAL)
_WEIGHT = np.diff(ndtr(_EDGES))
_WEIGHT = 0.5 * (_WEIGHT + _WEIGHT[::-1])
# Terms of the series in the correlation; what is missing of the variance joins the last one.
_N_HERMITE = 200
_MAX_ITERATIONS = 100
_CONVERGED = 1e-4
_LARGEST_COUNT = np.iinfo(np.uint16).max


@dataclass(frozen=True, eq=False, kw_only=True)
class TransformedGaussian:
    """Slices ``remap(smooth(table(g)))`` of a Gaussian field g of unit variance.

    Parameters
    ----------
    metadata
        Metadata of the slices.
    spectrum
        Power of every mode of g on the plane of ``fft2``, sum 1.
    table
        Values at `NORMAL`.
    remap
        Knots and values of a function of the smoothed pixels, interpolated linearly.
    poisson
        Draw counts around the field, which is then in particles per pixel.
    """

    metadata: SliceMetadata
    spectrum: np.ndarray
    table: np.ndarray
    remap: tuple[np.ndarray, np.ndarray] | None = None
    poisson: bool = False

    def sample(self, n: int, *, seed: int, first: int = 0) -> np.ndarray:
        """Make slices ``first`` to ``first + n`` of a seed.

        The noise of slice i is the first standard normal numbers, float32, of
        ``numpy.random.Generator(numpy.random.Philox(key=seed, counter=[0, 0, 0, i]))``, as in an emulator; Poisson
        numbers follow.

        Returns
        -------
            In the quantity of the metadata, shape ``(n, n_pixels, n_pixels)``.

        Raises
        ------
        UserError
            If ``n`` is not positive, or seed or first is negative.
        """
        require_least(1, n=n)
        require_least(0, seed=seed, first=first)
        side = self.metadata.n_pixels
        counts = self.metadata.quantity == "counts"
        out = np.empty((n, side, side), np.uint16 if counts else np.float32)
        # One at a time: the rounding of a transform may depend on how many are made together.
        for row, i in zip(out, range(first, first + n), strict=True):
            random = slice_stream(seed, i)
            field = self.field(random.standard_normal((side, side), dtype=np.float32))
            if self.poisson:
                field = random.poisson(field)
            row[:] = np.minimum(np.rint(field), _LARGEST_COUNT) if counts else field
        return out

    def field(self, noise: np.ndarray) -> np.ndarray:
        """Return the pixels made of white noise of shape ``(..., n_pixels, n_pixels)``, before any Poisson draw."""
        smoothed = smooth(look_up(self.table, color(noise, self.spectrum)), self.metadata.smoothing)
        return smoothed if self.remap is None else np.interp(smoothed, *self.remap)


def color(noise: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Give white noise a spectrum of sum 1 (plane of ``fft2``), in the precision of the noise."""
    side = noise.shape[-1]
    amplitude = (side * np.sqrt(spectrum[:, : side // 2 + 1])).astype(noise.dtype)
    return np.asarray(scipy.fft.irfft2(scipy.fft.rfft2(noise) * amplitude, s=(side, side)))


def look_up(table: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the values of a table (`NORMAL`) at normal numbers; steps, so that discrete values stay what they are."""
    place = ((normal + _REACH) * (_N_TABLE / (2 * _REACH))).astype(np.int32)
    return table[np.clip(place, 0, _N_TABLE - 1)]


def table_moments(table: np.ndarray) -> tuple[float, float]:
    """Return mean and variance of a table (`NORMAL`) of a standard normal variable."""
    mean = float(_WEIGHT @ table)
    return mean, float(_WEIGHT @ (table - mean) ** 2)


def fit_spectrum(table: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Find the Gaussian field whose transform has a given power.

    Pixels of correlation :math:`\rho` become pixels of covariance :math:`\sum_{n \geq 1} c_n^2 \rho^n` with the
    Hermite coefficients :math:`c_n` of the table (Mehler 1866). On the lattice of pixels this is exact, and the power
    expected of any spectrum is two Fourier transforms away. The inverse is exact unless it asks for negative power;
    then, from the positive part, powers are multiplied by what is missing until they no longer change.

    Parameters
    ----------
    table
        Values at `NORMAL`.
    target
        Wanted power on the plane of ``fft2``. Its sum is that of the table's variance, or else is brought to it.

    Returns
    -------
    spectrum
        Of the Gaussian field, sum 1.
    expected
        Power of the transformed field; it differs from the target where that is impossible.
    """
    side = len(target)
    target = target * (table_moments(table)[1] / target.sum())
    squares = _hermite_squares(table)
    fold = np.minimum(np.arange(side), side - np.arange(side))
    rho = np.linspace(-1, 1, 20001)
    covariance = scipy.fft.ifft2(target).real * side**2
    inverted = np.interp(covariance, np.polynomial.polynomial.polyval(rho, squares), rho)
    spectrum = scipy.fft.fft2(inverted).real
    spectrum = np.maximum(spectrum, 1e-9 * spectrum.max())
    previous = np.inf
    for _ in range(_MAX_ITERATIONS):
        spectrum = spectrum / spectrum.sum()
        quarter = (scipy.fft.ifft2(spectrum).real * side**2)[: side // 2 + 1, : side // 2 + 1]
        made = np.polynomial.polynomial.polyval(quarter, squares)
        expected = scipy.fft.fft2(made[fold][:, fold]).real / side**2
        off = power_deviation(expected, target)
        if off < _CONVERGED or abs(previous - off) < _CONVERGED * off:
            break
        previous = off
        missing = target / np.where(expected > 0, expected, target)
        spectrum = spectrum * np.clip(missing, 0.1, 10) ** 0.7
    return spectrum, expected


def rings(plane: np.ndarray) -> np.ndarray:
    """Return for each mode of the plane of ``fft2`` the number of its ring, the integer part of its length in k_F."""
    wavenumber = np.rint(scipy.fft.fftfreq(len(plane), 1 / len(plane))).astype(np.int64)
    return np.sqrt(wavenumber[:, None] ** 2 + wavenumber**2).astype(np.int64)


def ring_mean(plane: np.ndarray) -> np.ndarray:
    """Return the mean of each ring of `rings`; the first holds the mean mode alone."""
    ring = rings(plane).ravel()
    return np.bincount(ring, plane.ravel()) / np.bincount(ring)


def power_deviation(power: np.ndarray, target: np.ndarray) -> float:
    """Return the largest relative deviation of P(k) in rings from k_F to 0.9 of Nyquist, where P(k) is trusted."""
    last = int(TRUSTED_NYQUIST_FRACTION * (len(target) // 2))
    ratio = ring_mean(power)[1:last] / ring_mean(target)[1:last]
    return float(np.abs(ratio - 1).max(initial=0.0))


def _hermite_squares(table: np.ndarray) -> np.ndarray:
    """Return the squared coefficients of a table in normalised Hermite polynomials, shape ``(n + 1,)``; 0 for the mean.

    The table is a sum of steps, and the coefficients of a step are known.
    """
    edges = _EDGES[1:-1]
    steps = np.diff(table) * np.exp(-0.5 * edges**2) / np.sqrt(2 * np.pi)
    before, polynomial = np.zeros_like(edges), np.ones_like(edges)
    squares = np.zeros(_N_HERMITE + 1)
    for n in range(1, _N_HERMITE + 1):
        squares[n] = (steps @ polynomial) ** 2 / n
        before, polynomial = polynomial, (edges * polynomial - np.sqrt(n - 1) * before) / np.sqrt(n)
    squares[-1] += max(table_moments(table)[1] - squares.sum(), 0.0)
    return squares
