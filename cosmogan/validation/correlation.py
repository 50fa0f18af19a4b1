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

    The numbers are taken over the judged bins. Both floors are those between halves of the reference's realisations,
    rms over splits, and NaN where halves are not known. Noise of a correlation from n slices is about ``1 / sqrt(n)``,
    so halves differ by ``2 / sqrt(n)`` even if all boxes are alike.

    Parameters
    ----------
    mocks, reference
        Correlation matrices over all slices, shape ``(n_bins, n_bins)``; NaN for bins that do not vary.
    rms_difference, rms_floor
        Root mean square difference of the elements off the diagonal.
    variance, variance_floor
        Median over bins of the ratio of variances, mocks to reference, minus 1: negative for mocks that vary too
        little.
    """

    mocks: np.ndarray
    reference: np.ndarray
    rms_difference: float
    rms_floor: float
    variance: float
    variance_floor: float

    def scores(self, name: str) -> tuple[Score, Score]:
        """Return what is judged, with names that begin with that of the statistic.

        Halves of the simulation scatter about each other by the floor, two sets as large as the whole by a factor of
        sqrt(2) less: the standard deviation that mocks are held against.
        """
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
                sigmas=value * math.sqrt(2) / floor if floor > 0 else None,
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
        Of the simulations whose halves give the floor; the reference by default.
    seed
        Of the splits into halves where not all are made.
    """
    ours, theirs = mocks.covariance(), reference.covariance()
    itself = reference if itself is None else itself
    numbers = [_differences(a, b, itself.mean(), judged) for a, b in itself.half_covariances(seed=seed)]
    rms_floor, variance_floor = np.sqrt(np.mean(np.square(numbers), axis=0)) if numbers else (math.nan, math.nan)
    rms_difference, variance = _differences(ours, theirs, reference.mean(), judged)
    return CorrelationComparison(
        mocks=correlation_matrix(ours, reference.mean()),
        reference=correlation_matrix(theirs, reference.mean()),
        rms_difference=rms_difference,
        rms_floor=float(rms_floor),
        variance=variance,
        variance_floor=float(variance_floor),
    )


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
