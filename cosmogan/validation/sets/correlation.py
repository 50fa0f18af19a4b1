"""How the bins of a statistic vary together from slice to slice: mocks, reference, and the reference with itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cosmogan.statistics.accumulator import Accumulator, correlation_matrix
from cosmogan.validation.score import Score

VARIANCE_TITLE = "Variance of P(k) between slices"
RMS_TITLE = "Correlation matrix of P(k)"


@dataclass(frozen=True, eq=False, kw_only=True)
class CorrelationComparison:
    """Covariance between slices, mocks against reference.

    The numbers are taken over the judged bins. Both floors are those between disjoint sets of the simulation's
    realisations, rms over splits, and NaN where there are no such sets. Noise of a correlation from n slices is about
    ``1 / sqrt(n)``, so halves differ by ``2 / sqrt(n)`` even if all boxes are alike.

    Parameters
    ----------
    mocks, reference
        Correlation matrices over all slices, shape ``(n_bins, n_bins)``; NaN for bins that do not vary.
    rms_difference, rms_floor
        Root mean square difference of the elements off the diagonal.
    variance, variance_floor
        Median over bins of the ratio of variances, mocks to reference, minus 1: negative for mocks that vary too
        little.
    noise_over_floor
        Ratio of how far mocks and reference scatter about each other to how far the sets of the floor do, whose numbers
        of realisations are others.
    """

    mocks: np.ndarray
    reference: np.ndarray
    rms_difference: float
    rms_floor: float
    variance: float
    variance_floor: float
    noise_over_floor: float

    def scores(self, name: str) -> tuple[Score, Score]:
        """Return what is judged, with names that begin with that of the statistic; sigmas in units of the noise."""
        named = (
            (f"{name}_variance", VARIANCE_TITLE, abs(self.variance), self.variance_floor, "relative"),
            (f"{name}_correlation", RMS_TITLE, self.rms_difference, self.rms_floor, ""),
        )
        first, second = (
            Score(
                name=key,
                title=title,
                value=value,
                floor=None if math.isnan(floor) else floor,
                sigmas=value / (self.noise_over_floor * floor) if floor > 0 else None,
                units=units,
            )
            for key, title, value, floor, units in named
        )
        return first, second


def compare_correlations(
    mocks: Accumulator,
    reference: Accumulator,
    judged: np.ndarray,
    *,
    itself: Accumulator | None = None,
    sets: tuple[int, int] | None = None,
    seed: int,
) -> CorrelationComparison:
    """Compare the covariances between slices of two sets.

    Parameters
    ----------
    mocks, reference
        Sums over the slices of the two files.
    judged
        Which bins count, bool, shape ``(n_bins,)``.
    itself
        Sums over the simulations that give the floor; the reference by default.
    sets
        Realisations in the two sets of the floor; halves by default.
    seed
        Seed of the splits where not all are made.
    """
    ours, theirs = mocks.covariance(), reference.covariance()
    itself = reference if itself is None else itself
    n = itself.n_realisations
    n_first, n_second = (n // 2, n - n // 2) if sets is None else sets
    covariances = itself.disjoint_covariances(n_first, n_second, seed=seed)
    numbers = [_differences(a, b, itself.mean(), judged) for a, b in covariances]
    rms_floor, variance_floor = np.sqrt(np.mean(np.square(numbers), axis=0)) if numbers else (math.nan, math.nan)
    rms_difference, variance = _differences(ours, theirs, reference.mean(), judged)
    return CorrelationComparison(
        mocks=correlation_matrix(ours, reference.mean()),
        reference=correlation_matrix(theirs, reference.mean()),
        rms_difference=rms_difference,
        rms_floor=float(rms_floor),
        variance=variance,
        variance_floor=float(variance_floor),
        noise_over_floor=noise_over_floor(mocks, reference, itself, (n_first, n_second)) if numbers else math.nan,
    )


def noise_over_floor(mocks: Accumulator, reference: Accumulator, itself: Accumulator, sets: tuple[int, int]) -> float:
    """Return how far mocks and reference scatter about each other, over how far the sets of the floor do.

    Parameters
    ----------
    mocks, reference, itself
        Sums over the slices of the two files, and of the simulations that give the floor.
    sets
        Realisations in the two sets of the floor.
    """
    # Slices of a generator are counted as if so many made a realisation: they scatter less than that.
    alone = mocks.n_slices * itself.n_realisations / itself.n_slices if mocks.n_realisations == 1 else 1
    noise = math.hypot(max(mocks.n_realisations, alone) ** -0.5, reference.n_realisations**-0.5)
    return noise / math.hypot(sets[0] ** -0.5, sets[1] ** -0.5)


def _differences(
    covariance: np.ndarray, other: np.ndarray, mean: np.ndarray, judged: np.ndarray
) -> tuple[float, float]:
    """Return the rms difference of correlations off the diagonal and the median ratio of variances minus 1."""
    if judged.sum() < 2:
        return math.nan, math.nan
    chosen = np.ix_(judged, judged)
    difference = (correlation_matrix(covariance, mean) - correlation_matrix(other, mean))[chosen]
    off_diagonal = difference[~np.eye(len(difference), dtype=bool)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.diag(covariance)[judged] / np.diag(other)[judged]
    return float(np.sqrt(np.mean(off_diagonal**2))), float(np.median(ratio) - 1)
