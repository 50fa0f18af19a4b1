"""How far the mean of a set of slices may be from the truth: errors, and draws of what noise alone does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from cosmogan.statistics.accumulator import Accumulator

Source = Literal["realisations", "floor", "reference", "slices"]
# Errors from two or three realisations are guesses, but many bins share in them.
_LEAST_FREEDOM = 3
_SIGMAS = 3.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Scatter:
    """Of the mean over a set of slices.

    Parameters
    ----------
    error
        One standard deviation, shape ``(n_bins,)``, in the statistic's units; NaN for a single slice.
    draws
        Deviations of the mean, shape ``(n_draws, n_bins)``, in the same units, with the correlations between bins.
    source
        Place where the scatter was seen: between the set's own realisations, between those of the simulations given for
        the floor or of the reference, or between single slices taken as independent.
    n_realisations
        Number of realisations that the scatter was seen in; 0 for slices.
    """

    error: np.ndarray
    draws: np.ndarray
    source: Source
    n_realisations: int


def scatter_of_mean(
    held: Accumulator,
    *,
    others: Accumulator | None = None,
    others_are: Source = "floor",
    independent: bool = False,
    n_draws: int,
    seed: int,
) -> Scatter:
    """Estimate the scatter of the mean of a set.

    Slabs of one box share its large scales, so errors are taken between realisations, of the set itself or of a larger
    set of the same kind. Two realisations that agree by chance must not claim to know a mean exactly: the error of
    independent slices is a lower limit.

    Parameters
    ----------
    held
        Sums over the set.
    others, others_are
        Simulations of the same kind, used where they have more realisations than the set.
    independent
        Whether a set of one realisation is one of independent slices, as from a generator.
    n_draws, seed
        Number of draws, and their seed.
    """
    n = held.n_realisations
    few = others is not None and others.n_realisations > max(n, 1) and not (independent and n > 1)
    if n == 1 and independent:
        return _between_slices(held, n_draws, seed)
    if few and others is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = np.nan_to_num(held.mean() / others.mean(), posinf=1.0, neginf=1.0)
        draws, source, seen = others.mean_draws(n_draws, n, seed=seed) * scale, others_are, others.n_realisations
    elif n > 1:
        draws, source, seen = held.mean_draws(n_draws, n, seed=seed), "realisations", n
    else:
        return _between_slices(held, n_draws, seed)
    error = np.sqrt(np.mean(draws**2, axis=0))
    least = np.fmax(error, held.error_of_mean_slices())
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = draws * np.where(error > 0, least / error, 1.0)
    return Scatter(error=least, draws=draws, source=source, n_realisations=seen)


def small_number_factor(n_realisations: int) -> float:
    """Return by how much three standard deviations from so few realisations reach further than those of many.

    Student's t against the normal distribution, with one degree of freedom less than realisations and at least 3.

    Parameters
    ----------
    n_realisations
        Number of realisations that an error was taken from; 0 for one that is known well.

    Examples
    --------
    >>> [round(small_number_factor(n), 2) for n in (6, 12, 100)]
    [1.84, 1.28, 1.03]
    """
    if n_realisations == 0:
        return 1.0
    freedom = max(n_realisations - 1, _LEAST_FREEDOM)
    return float(stats.t.isf(stats.norm.sf(_SIGMAS), freedom) / _SIGMAS)


def _between_slices(held: Accumulator, n_draws: int, seed: int) -> Scatter:
    covariance = held.covariance() / held.n_slices
    if held.n_slices < 2:
        draws = np.full((n_draws, held.n_bins), math.nan)
        return Scatter(error=held.error_of_mean_slices(), draws=draws, source="slices", n_realisations=0)
    known = np.isfinite(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance[np.ix_(known, known)])
    normal = np.random.default_rng(seed).standard_normal((n_draws, int(known.sum())))
    draws = np.full((n_draws, held.n_bins), math.nan)
    draws[:, known] = (normal * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return Scatter(error=held.error_of_mean_slices(), draws=draws, source="slices", n_realisations=0)
