"""A relative difference per bin, boiled down to what people read and verdicts judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


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
        Median and largest of the absolute relative difference; NaN without bins.
    expected, spread
        Mean and standard deviation of `median` for perfect mocks, whose difference is the scatter of realisations and
        slices alone; NaN where that scatter is not known.
    """

    x_low: float
    x_high: float
    n_bins: int
    median: float
    maximum: float
    expected: float = math.nan
    spread: float = math.nan

    @property
    def sigmas(self) -> float:
        """By how many standard deviations the median exceeds that of perfect mocks; NaN where not known."""
        if self.spread > 0:
            return (self.median - self.expected) / self.spread
        return math.nan


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A relative difference per bin, boiled down over the judged bins that are finite.

    Parameters
    ----------
    median, maximum
        Median and largest of the absolute relative difference; NaN without bins.
    x_of_maximum
        Place of the largest difference, in the units of x.
    n_bins
        Number of bins judged.
    within_5_percent, within_20_percent
        Number of them that differ by at most that.
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


def split_in_thirds(edges: np.ndarray, x: np.ndarray, judged: np.ndarray, *, log_x: bool) -> np.ndarray:
    """Say which third of the judged range each bin belongs to.

    Parameters
    ----------
    edges
        Shape ``(n_bins + 1,)``.
    x
        Places of the bins, shape ``(n_bins,)``; a bin without a place (NaN) belongs to the end it reaches to.
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
    relative: np.ndarray,
    edges: np.ndarray,
    x: np.ndarray,
    third: np.ndarray,
    distances: dict[str, float],
    *,
    noise: np.ndarray | None = None,
    stretch: float = 1.0,
) -> Summary:
    """Boil a relative difference per bin down to a few numbers.

    Parameters
    ----------
    relative
        Relative difference, shape ``(n_bins,)``, dimensionless.
    edges, x
        Shapes ``(n_bins + 1,)`` and ``(n_bins,)``, in the statistic's x units.
    third
        Third of each bin, from `split_in_thirds`; bins with -1 do not count.
    distances
        Distances to pass on.
    noise
        Draws of the relative difference that perfect mocks would show, shape ``(n_draws, n_bins)``, if known.
    stretch
        Factor of its standard deviations, because they are not known well.
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
        expected = spread = math.nan
        if noise is not None and len(members):
            medians = np.median(np.abs(noise[:, members]), axis=1)
            expected, spread = float(medians.mean()), stretch * float(medians.std())
        return Third(
            x_low=float(low),
            x_high=float(high),
            n_bins=len(members),
            median=median,
            maximum=maximum,
            expected=expected,
            spread=spread,
        )

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
