"""How much different slices of one set are alike: what a collapsed generator cannot hide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.cross_spectrum import are_alike
from cosmogan.validation.score import Score

COHERENCE_NAME = "coherence"
COHERENCE_TITLE = "Coherence of different slices"


@dataclass(frozen=True, eq=False, kw_only=True)
class CoherenceComparison:
    """Cross power spectrum of pairs of different slices over their power spectrum: 0 if independent, 1 for copies.

    Arrays have shape ``(n_bins,)``; NaN where there is no power. Pairs are those of
    `cosmogan.statistics.cross_spectrum.distant_pairs`.

    Parameters
    ----------
    mocks, reference
        Mean X(k) over mean P(k).
    mocks_error, reference_error
        One standard deviation: between realisations, at least that of independent pairs; NaN for a single pair.
    mocks_median, reference_median
        Medians of these over the judged bins.
    mocks_n_pairs, reference_n_pairs
        Number of pairs.
    expected_error
        Scatter, at most, of the median over as many pairs of the reference as there are of mocks; NaN where
        not known.
    alike
        Whether the mocks are more coherent than the reference by 0.05 and by four times what as many pairs of the
        reference would scatter by in one bin.
    """

    mocks: np.ndarray
    reference: np.ndarray
    mocks_error: np.ndarray
    reference_error: np.ndarray
    mocks_median: float
    reference_median: float
    mocks_n_pairs: int
    reference_n_pairs: int
    expected_error: float
    alike: bool

    def score(self) -> Score:
        """Return what is judged: the median beyond that of the reference."""
        excess = self.mocks_median - self.reference_median
        return Score(
            name=COHERENCE_NAME,
            title=COHERENCE_TITLE,
            value=abs(excess),
            floor=abs(self.reference_median),
            sigmas=abs(excess) / self.expected_error if self.expected_error > 0 else None,
        )


def compare_coherence(
    mocks: Accumulator, reference: Accumulator, judged: np.ndarray, *, n_bootstrap: int, seed: int
) -> CoherenceComparison:
    """Compare how much the slices of two sets are alike among themselves.

    Parameters
    ----------
    mocks, reference
        Sums from `cosmogan.statistics.cross_spectrum.measure_pairs`.
    judged
        Which bins count, bool, shape ``(n_bins,)``.
    n_bootstrap, seed
        Draws of realisations for the errors.
    """
    ours, our_error = _coherence(mocks, n_bootstrap, seed)
    theirs, their_error = _coherence(reference, n_bootstrap, seed + 1)
    our_median, their_median = (
        float(np.median(values[judged])) if judged.any() else math.nan for values in (ours, theirs)
    )
    excess = our_median - their_median
    # What as many pairs of the reference would scatter by: copies make the mocks' own error large.
    expected = their_error * math.sqrt(1 + reference.n_slices / mocks.n_slices)
    error = float(np.median(expected[judged])) if judged.any() else math.nan
    return CoherenceComparison(
        mocks=ours,
        reference=theirs,
        mocks_error=our_error,
        reference_error=their_error,
        mocks_median=our_median,
        reference_median=their_median,
        mocks_n_pairs=mocks.n_slices,
        reference_n_pairs=reference.n_slices,
        expected_error=error,
        alike=are_alike(excess, error),
    )


def _coherence(accumulator: Accumulator, n_bootstrap: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    cross, power = np.split(accumulator.mean(), 2)
    error = np.fmax(accumulator.error_of_mean(n_bootstrap, seed=seed), accumulator.error_of_mean_slices())
    with np.errstate(divide="ignore", invalid="ignore"):
        return cross / power, error[: len(cross)] / power
