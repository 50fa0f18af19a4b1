"""The two baselines: how each takes its function of the normal variable and its spectrum from training slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from scipy.special import ndtr, ndtri

from cosmogan.baselines.field import (
    NORMAL,
    PROBABILITY,
    TransformedGaussian,
    fit_spectrum,
    power_deviation,
    ring_mean,
    rings,
    table_moments,
)
from cosmogan.baselines.training import Training, symmetric_plane

# The copula of smoothed slices is fitted to its own slices: pixels per iteration.
_FIT_PIXELS = 2**23
_FIT_ITERATIONS = 6
_DAMPING = 0.7
_FIT_BATCH_PIXELS = 2**18
_N_QUANTILES = 401
# Pixels beyond a quantile below which it is not trusted.
_RARE = 3
_LARGEST_STRETCH = 16.0
_BISECTIONS = 40


@dataclass(frozen=True, eq=False, kw_only=True)
class FittedBaseline:
    """A baseline and how well it reproduces what it was fitted to.

    Parameters
    ----------
    field
        Field to draw slices from.
    power_deviation
        Largest relative deviation of the expected P(k) from the training slices', up to 0.9 of Nyquist.
    """

    field: TransformedGaussian
    power_deviation: float


def fit_lognormal(training: Training) -> FittedBaseline:
    """Fit a lognormal density (Coles & Jones 1991, MNRAS 248, 1) with the P(k) and the mean of the training slices.

    Smoothed slices are no function of a Gaussian field's pixels, so the lognormal field is the one before smoothing. Of
    counts it is the density from which Poisson numbers are drawn; the particle noise of densities is part of the field.

    Densities end at the largest that the training slices can hold. In a box of 70 Mpc/h a fifth of the variance of a
    lognormal field lies beyond, in pixels of which there is one in millions: P(k) of any set of slices that can be made
    would be too low.
    """
    target, window = training.unsmoothed_power(), training.window() ** 2
    mean_count = training.metadata.mean_count
    noise = 0.0 if mean_count is None else training.mean / mean_count / target.size
    # Particles on a lattice scatter less than Poisson numbers, so that nothing may be left of a mode.
    density = np.maximum(target - noise, 1e-3 * target)
    table = _lognormal(training.mean, density.sum(), training.largest_density())
    spectrum, expected = fit_spectrum(table, density)
    field = _field(training, spectrum, table * (mean_count or 1.0), poisson=mean_count is not None)
    return FittedBaseline(field=field, power_deviation=power_deviation((expected + noise) * window, training.power))


def fit_copula(training: Training) -> FittedBaseline:
    """Fit a Gaussian copula: the pixel distribution and the P(k) of the training slices, and Gaussian correlations.

    Slices without smoothing are a function of the pixels of a Gaussian field (NORTA, Cario & Nelson 1997): the function
    is the quantiles of the training pixels, the spectrum follows exactly. Smoothed slices are no such function: their
    power towards Nyquist would come out several times too large. There a function of the Gaussian field is smoothed
    first, the training quantiles raised to the power that gives the variance before smoothing; a second function, near
    the identity, then sets the distribution, and the spectrum is corrected for it by iteration.
    """
    quantiles = training.quantile(PROBABILITY)
    if not training.metadata.smoothing:
        spectrum, expected = fit_spectrum(quantiles, training.power)
        field = _field(training, spectrum, quantiles * (training.metadata.mean_count or 1.0))
        return FittedBaseline(field=field, power_deviation=power_deviation(expected, training.power))

    target, window = training.unsmoothed_power(), training.window() ** 2
    table = _stretched(quantiles, training.mean, target.sum())
    ring, side = rings(target), len(target)
    for _ in range(_FIT_ITERATIONS):
        spectrum, expected = fit_spectrum(table, target)
        field = _field(training, spectrum, table)
        field = _field(training, spectrum, table, remap=_fit_remap(field, training))
        # The same slices with and without the second function: their scatter cancels.
        made = expected * window * _power_ratio(field, training.mean)[ring]
        made *= training.power.sum() / made.sum()
        missing = ring_mean(training.power) / ring_mean(made)
        # The corner of the plane holds nothing after smoothing but what the second function puts there.
        missing[side // 2 :] = missing[side // 2 - 1]
        target = expected * missing[ring] ** _DAMPING
    return FittedBaseline(field=field, power_deviation=power_deviation(made, training.power))


METHODS: dict[str, Callable[[Training], FittedBaseline]] = {"lognormal": fit_lognormal, "copula": fit_copula}


def _field(
    training: Training,
    spectrum: np.ndarray,
    table: np.ndarray,
    *,
    remap: tuple[np.ndarray, np.ndarray] | None = None,
    poisson: bool = False,
) -> TransformedGaussian:
    return TransformedGaussian(metadata=training.metadata, spectrum=spectrum, table=table, remap=remap, poisson=poisson)


def _stretched(quantiles: np.ndarray, mean: float, variance: float) -> np.ndarray:
    """Return the quantiles to the power at which they have a variance, at the given mean."""
    return _of_variance(lambda power: quantiles**power, 1.0, _LARGEST_STRETCH, mean=mean, variance=variance)


def _lognormal(mean: float, variance: float, largest: float) -> np.ndarray:
    """Return the table of a lognormal variable of given mean and variance that ends at a largest value."""
    sigma = np.sqrt(np.log1p(variance / mean**2))
    return _of_variance(
        lambda s: np.minimum(mean * np.exp(s * NORMAL - 0.5 * s**2), largest),
        sigma,
        2 * sigma,
        mean=mean,
        variance=variance,
    )


def _of_variance(
    family: Callable[[float], np.ndarray], low: float, high: float, *, mean: float, variance: float
) -> np.ndarray:
    """Return the member of a family of tables, brought to a mean, that has a variance; the ends where none has."""

    def member(parameter: float) -> np.ndarray:
        table = family(parameter)
        return table * (mean / table_moments(table)[0])

    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if table_moments(member(middle))[1] > variance else (middle, high)
    return member(low)


def _noise(side: int) -> Iterator[np.ndarray]:
    """Iterate over white noise in pairs of opposite sign, in which fluctuations of the mean cancel."""
    random = np.random.default_rng(0)
    size = max(1, _FIT_BATCH_PIXELS // side**2)
    for _ in range(max(1, _FIT_PIXELS // (2 * size * side**2))):
        noise = random.standard_normal((size, side, side), dtype=np.float32)
        yield noise
        yield -noise


def _fit_remap(field: TransformedGaussian, training: Training) -> tuple[np.ndarray, np.ndarray]:
    """Return the function that gives the smoothed pixels of a field the distribution of the training pixels.

    Proportional beyond the quantiles that enough pixels lie beyond.
    """
    side = training.metadata.n_pixels
    made = np.concatenate([field.field(noise).astype(np.float32).ravel() for noise in _noise(side)])
    made.sort()
    reach = -ndtri(min(_RARE / min(len(made), training.n_slices * side**2), 0.25))
    probability = ndtr(np.linspace(-reach, reach, _N_QUANTILES))
    knots = made[(probability * (len(made) - 1)).astype(np.int64)].astype(np.float64)
    values = training.quantile(probability)
    # Knots must increase; equal quantiles, as of empty pixels, are one.
    keep = np.concatenate([[True], np.diff(knots) > 0]) & (knots > 0)
    knots, values = knots[keep], values[keep]
    far = 1e3
    return np.concatenate([[0], knots, [far * knots[-1]]]), np.concatenate([[0], values, [far * values[-1]]])


def _power_ratio(field: TransformedGaussian, mean: float) -> np.ndarray:
    """Return the power of a field's slices over that without its second function, per ring of `ring_mean`."""
    plain = TransformedGaussian(metadata=field.metadata, spectrum=field.spectrum, table=field.table)
    assert field.remap is not None
    powers = np.zeros((2, field.metadata.n_pixels, field.metadata.n_pixels // 2 + 1))
    for noise in _noise(field.metadata.n_pixels):
        before = plain.field(noise)
        for power, maps in zip(powers, (before, np.interp(before, *field.remap)), strict=True):
            power += (np.abs(scipy.fft.rfft2(maps - mean)) ** 2).sum(0)
    first, second = (ring_mean(symmetric_plane(power)) for power in powers)
    return second / first
