"""What a comparison of two slice files found; plain data, no files, no figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic


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
    distances
        The statistic's own distances between the two means, such as divergences in nats.
    """

    median: float
    maximum: float
    x_of_maximum: float
    n_bins: int
    within_5_percent: int
    within_20_percent: int
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


def summarise(relative: np.ndarray, x: np.ndarray, judged: np.ndarray, distances: dict[str, float]) -> Summary:
    """Boil a relative difference per bin down to a few numbers.

    Parameters
    ----------
    relative
        Relative difference, shape ``(n_bins,)``, dimensionless.
    x
        Where the bins are, shape ``(n_bins,)``.
    judged
        Which bins count, bool, shape ``(n_bins,)``.
    distances
        Passed on.
    """
    # A bin that is not finite where the reference is counts as infinitely wrong, never as absent.
    size = np.abs(relative[judged])
    size = np.where(np.isnan(size), np.inf, size)
    if not len(size):
        return Summary(
            median=math.nan,
            maximum=math.nan,
            x_of_maximum=math.nan,
            n_bins=0,
            within_5_percent=0,
            within_20_percent=0,
            distances=distances,
        )
    return Summary(
        median=float(np.median(size)),
        maximum=float(size.max()),
        x_of_maximum=float(x[judged][np.argmax(size)]),
        n_bins=len(size),
        within_5_percent=int((size <= 0.05).sum()),
        within_20_percent=int((size <= 0.20).sum()),
        distances=distances,
    )


def rms_summary(summaries: Sequence[Summary]) -> Summary:
    """Return one summary that stands for all splits: rms of sizes, mean of counts."""

    def rms(values: Sequence[float]) -> float:
        return float(np.sqrt(np.mean(np.square(values))))

    return Summary(
        median=rms([s.median for s in summaries]),
        maximum=rms([s.maximum for s in summaries]),
        x_of_maximum=math.nan,
        n_bins=summaries[0].n_bins,
        within_5_percent=round(float(np.mean([s.within_5_percent for s in summaries]))),
        within_20_percent=round(float(np.mean([s.within_20_percent for s in summaries]))),
        distances={name: rms([s.distances[name] for s in summaries]) for name in summaries[0].distances},
    )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether one statistic of the mocks is as close to the simulation as asked.

    Parameters
    ----------
    outcome
        ``"pass"``, ``"fail"``, or ``"unknown"``.
    allowed
        The larger of the threshold and of the simulation-against-simulation floor.
    text
        The same in words.
    """

    outcome: Literal["pass", "fail", "unknown"]
    allowed: float
    text: str

    @property
    def passed(self) -> bool:
        """Whether the outcome is a pass; unknown is none."""
        return self.outcome == "pass"


def judge(entry: StatisticComparison, *, threshold: float = 0.05) -> Verdict:
    """Pass a statistic if the median absolute relative difference is at most the threshold or the floor.

    Nobody can ask mocks to be nearer to the simulation than the simulation is to itself, hence the floor: the median of
    the same difference between halves of the reference. Without finite numbers to judge it fails. Above the threshold
    with a reference of one realisation, which has no floor, it is unknown.

    Parameters
    ----------
    entry
        The comparison.
    threshold
        Relative difference always allowed.
    """
    floor = None if entry.floor_summary is None else entry.floor_summary.median
    allowed = threshold if floor is None or not floor > threshold else floor
    median = entry.summary.median
    if not math.isfinite(median):
        return Verdict(outcome="fail", allowed=allowed, text="fail: no bins to judge")
    if median <= allowed:
        reason = "threshold" if allowed == threshold else "simulation's own"
        return Verdict(outcome="pass", allowed=allowed, text=f"pass: {median:.1%} <= {allowed:.1%} ({reason})")
    if floor is None:
        text = f"unknown: {median:.1%} > {allowed:.1%}, and one realisation has no floor"
        return Verdict(outcome="unknown", allowed=allowed, text=text)
    return Verdict(outcome="fail", allowed=allowed, text=f"fail: {median:.1%} > {allowed:.1%}")
