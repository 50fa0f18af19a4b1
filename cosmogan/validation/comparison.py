"""What a comparison of two slice files found; plain data, no files, no figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.validation.coherence import CoherenceComparison
from cosmogan.validation.correlation import CorrelationComparison


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One of the two files of a comparison.

    Parameters
    ----------
    path
        As given.
    n_bytes, sha256
        Size and hash of the file.
    metadata
        What its pixels are.
    n_slices, n_realisations
        How many slices, of how many different realisations.
    mean_density
        Mean of 1 + delta over all slices.
    provenance
        As the file has it.
    """

    path: str
    n_bytes: int
    sha256: str
    metadata: SliceMetadata
    n_slices: int
    n_realisations: int
    mean_density: float
    provenance: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Third:
    """A third of the judged range of x: large, middle or small scales of a power spectrum.

    Rings of equal width are dense at large k, so a median over all of them is blind to the largest scales.

    Parameters
    ----------
    x_low, x_high
        Outer edges of its bins, in the units of x; NaN without bins.
    n_bins
        Number of bins.
    median, maximum
        Of the absolute relative difference; NaN without bins.
    """

    x_low: float
    x_high: float
    n_bins: int
    median: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A relative difference per bin, boiled down over the judged bins that are finite.

    Parameters
    ----------
    median, maximum
        Of the absolute relative difference; NaN without bins.
    x_of_maximum
        Where the largest difference is, in the units of x.
    n_bins
        Number of bins judged.
    within_5_percent, within_20_percent
        How many of them differ by at most that.
    thirds
        The same for the lower, middle and upper third of the judged range (of ln x for a logarithmic axis).
    distances
        The statistic's own distances between the two sets, such as divergences in nats, and the numbers of
        `CorrelationComparison` and `CoherenceComparison`.
    """

    median: float
    maximum: float
    x_of_maximum: float
    n_bins: int
    within_5_percent: int
    within_20_percent: int
    thirds: tuple[Third, Third, Third]
    distances: dict[str, float]


@dataclass(frozen=True, eq=False, kw_only=True)
class StatisticComparison:
    """One statistic of the mocks against the reference, all arrays of shape ``(n_bins,)`` unless said otherwise.

    Errors are one standard deviation of the mean. Relative numbers are relative to the reference's mean.

    Parameters
    ----------
    statistic
        What was measured; knows names and units.
    edges
        Shape ``(n_bins + 1,)``, in the statistic's x units.
    x
        Where each bin is drawn; NaN for a bin without a place, such as the one from 0.
    n_modes
        Independent samples per bin and slice, or None.
    judged
        Bins that enter the summaries, bool.
    mocks, reference
        Means, in the statistic's y units.
    mocks_scatter, reference_scatter
        Standard deviation of single slices.
    mocks_error, reference_error
        Errors of the means.
    mocks_error_from, reference_error_from
        ``"realisations"`` (bootstrap, at least the error of independent slices) or ``"slices"`` (taken as independent:
        right for a generator, too small for slabs of one simulation).
    ratio
        ``mocks / reference - 1``.
    sigmas
        Difference over the errors of both, added in squares.
    floor
        The **simulation against itself**: ``(half - other half) / reference``, rms over ``n_splits`` splits of the
        reference's realisations into disjoint halves; None with a single realisation.
    n_splits
        Number of splits.
    full_over_half
        What the floor is multiplied by to get the difference that perfect mocks without noise of their own would show
        against the whole reference: 1/2 for equal halves. If the scatter between realisations is s, halves of R / 2
        differ by ``2 s / sqrt(R)``, R mocks from R realisations by ``s sqrt(2 / R)``, and endless mocks by
        ``s / sqrt(R)``. The floor is thus what two simulation campaigns of R / 2 boxes disagree by; `sigmas` is the
        test that takes the actual numbers into account.
    summary
        Of the mocks against the reference.
    floor_summary
        Of the halves against each other, rms over splits; None with a single realisation.
    correlation
        For a statistic whose bins are compared in their correlations too, else None.
    coherence
        Of different slices, beside the power spectrum of two files of at least two slices each, else None.
    """

    statistic: AbstractStatistic
    edges: np.ndarray
    x: np.ndarray
    n_modes: np.ndarray | None
    judged: np.ndarray
    mocks: np.ndarray
    reference: np.ndarray
    mocks_scatter: np.ndarray
    reference_scatter: np.ndarray
    mocks_error: np.ndarray
    reference_error: np.ndarray
    mocks_error_from: str
    reference_error_from: str
    ratio: np.ndarray
    sigmas: np.ndarray
    floor: np.ndarray | None
    n_splits: int
    full_over_half: float
    summary: Summary
    floor_summary: Summary | None
    correlation: CorrelationComparison | None = None
    coherence: CoherenceComparison | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """Mock slices against a reference.

    Parameters
    ----------
    mocks, reference
        The two files.
    metadata
        What the pixels of both are, as density.
    statistics
        One entry per statistic.
    notes
        Sentences a reader of the numbers must know.
    mocks_shown, reference_shown
        Some slices of each, 1 + delta, shape ``(n_shown, n_pixels, n_pixels)``, float32.
    """

    mocks: InputFile
    reference: InputFile
    metadata: SliceMetadata
    statistics: tuple[StatisticComparison, ...]
    notes: tuple[str, ...]
    mocks_shown: np.ndarray
    reference_shown: np.ndarray


def split_in_thirds(edges: np.ndarray, x: np.ndarray, judged: np.ndarray, *, log_x: bool) -> np.ndarray:
    """Say which third of the judged range each bin belongs to.

    Parameters
    ----------
    edges
        Shape ``(n_bins + 1,)``.
    x
        Where the bins are, shape ``(n_bins,)``; a bin without a place (NaN) belongs to the end it reaches to.
    judged
        Which bins count, bool, shape ``(n_bins,)``.
    log_x
        Whether the thirds are equal in ln x.

    Returns
    -------
        0, 1, 2, or -1 for a bin that is not judged; shape ``(n_bins,)``.
    """
    placed = judged & np.isfinite(x) & ((x > 0) | (not log_x))
    third = np.where(judged, 0, -1)
    third[judged & ~placed & ~np.isfinite(edges[1:])] = 2
    if placed.any():
        position = np.log(x[placed]) if log_x else x[placed]
        width = np.ptp(position)
        share = (position - position.min()) / width if width > 0 else np.zeros(len(position))
        third[placed] = np.minimum((3 * share).astype(int), 2)
    return third


def summarise(
    relative: np.ndarray, edges: np.ndarray, x: np.ndarray, third: np.ndarray, distances: dict[str, float]
) -> Summary:
    """Boil a relative difference per bin down to a few numbers.

    Parameters
    ----------
    relative
        Relative difference, shape ``(n_bins,)``, dimensionless.
    edges, x
        Shapes ``(n_bins + 1,)`` and ``(n_bins,)``, in the statistic's x units.
    third
        From `split_in_thirds`; bins with -1 do not count.
    distances
        Passed on.
    """
    # A bin that is not finite where the reference is counts as infinitely wrong, never as absent.
    size = np.abs(relative)
    size = np.where(np.isnan(size), np.inf, size)
    judged = third >= 0
    counted = size[judged]

    def one_third(number: int) -> Third:
        members = np.flatnonzero(third == number)
        median, maximum = _middle_and_largest(size[members])
        low, high = (edges[members[0]], edges[members[-1] + 1]) if len(members) else (math.nan, math.nan)
        return Third(x_low=float(low), x_high=float(high), n_bins=len(members), median=median, maximum=maximum)

    median, maximum = _middle_and_largest(counted)
    return Summary(
        median=median,
        maximum=maximum,
        x_of_maximum=float(x[judged][np.argmax(counted)]) if len(counted) else math.nan,
        n_bins=len(counted),
        within_5_percent=int((counted <= 0.05).sum()),
        within_20_percent=int((counted <= 0.20).sum()),
        thirds=(one_third(0), one_third(1), one_third(2)),
        distances=distances,
    )


def _middle_and_largest(size: np.ndarray) -> tuple[float, float]:
    return (float(np.median(size)), float(size.max())) if len(size) else (math.nan, math.nan)


def rms_summary(summaries: Sequence[Summary]) -> Summary:
    """Return one summary that stands for all splits: rms of sizes, mean of counts."""

    def rms(values: Sequence[float]) -> float:
        return float(np.sqrt(np.mean(np.square(values))))

    def one_third(number: int) -> Third:
        members = [s.thirds[number] for s in summaries]
        return replace(
            members[0],
            median=rms([third.median for third in members]),
            maximum=rms([third.maximum for third in members]),
        )

    return Summary(
        median=rms([s.median for s in summaries]),
        maximum=rms([s.maximum for s in summaries]),
        x_of_maximum=math.nan,
        n_bins=summaries[0].n_bins,
        within_5_percent=round(float(np.mean([s.within_5_percent for s in summaries]))),
        within_20_percent=round(float(np.mean([s.within_20_percent for s in summaries]))),
        thirds=(one_third(0), one_third(1), one_third(2)),
        distances={name: rms([s.distances[name] for s in summaries]) for name in summaries[0].distances},
    )
