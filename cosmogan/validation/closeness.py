"""How close two sets of slices are bin by bin: the numbers that papers quote, over bins that hold enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosmogan.validation.comparison import StatisticComparison

_SIGMAS = 2.0


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """The differences of one statistic over its bins.

    Parameters
    ----------
    name, title
        Name and heading of the statistic; those of the family, such as ``"bispectrum"``, where several count as one.
    bins
        Which bins count, in words.
    n_bins
        Number of these.
    median, maximum
        Median and largest of abs(mocks / simulation - 1) over these bins; NaN without bins, infinite where the mocks
        are not finite.
    floor_median, floor_maximum
        Median and largest of ``StatisticComparison.floor``, what disjoint sets of the simulation's realisations differ
        by; NaN where there are no such sets.
    within
        Share of the bins in which mocks and simulation differ by at most two standard deviations, those of both in
        squares; NaN where nobody knows how far realisations scatter.
    chi2
        Mean over bins of the squared difference in standard deviations; 1 is expected of perfect mocks. Bins that vary
        together, as those of P(k) do, scatter about it together.
    """

    name: str
    title: str
    bins: str
    n_bins: int
    median: float
    maximum: float
    floor_median: float
    floor_maximum: float
    within: float
    chi2: float


def closeness(entries: Sequence[StatisticComparison], *, n_slices: int) -> dict[str, Closeness]:
    """Return the closeness of each statistic by name; those of one family count as one.

    Parameters
    ----------
    entries
        Mocks against a simulation.
    n_slices
        Slices of the simulation.
    """
    groups: dict[str, list[StatisticComparison]] = {}
    for entry in entries:
        groups.setdefault(entry.statistic.family or entry.statistic.name, []).append(entry)
    return {name: _joined(name, members, n_slices) for name, members in groups.items()}


def _joined(name: str, entries: Sequence[StatisticComparison], n_slices: int) -> Closeness:
    found = [entry.statistic.counted(entry.reference, entry.judged, n_slices=n_slices) for entry in entries]
    counted, words = [bins for bins, _ in found], found[0][1]
    size = np.concatenate([np.abs(entry.ratio)[bins] for entry, bins in zip(entries, counted, strict=True)])
    # Mocks that are not finite where the simulation is are infinitely wrong, never absent.
    size = np.where(np.isnan(size), np.inf, size)
    floor = np.concatenate(
        [
            np.full(bins.sum(), math.nan) if entry.floor is None else entry.floor[bins]
            for entry, bins in zip(entries, counted, strict=True)
        ]
    )
    sigmas = np.concatenate([np.abs(entry.sigmas)[bins] for entry, bins in zip(entries, counted, strict=True)])
    known = len(sigmas) > 0 and all(entry.reference_error_from != "slices" for entry in entries)
    return Closeness(
        name=name,
        title=entries[0].statistic.family_title or entries[0].statistic.title,
        bins=words,
        n_bins=len(size),
        median=float(np.median(size)) if len(size) else math.nan,
        maximum=float(size.max()) if len(size) else math.nan,
        floor_median=float(np.median(floor)) if len(floor) else math.nan,
        floor_maximum=float(floor.max()) if len(floor) else math.nan,
        # A comparison with NaN is false: a bin that is not known is not within.
        within=float(np.mean(sigmas <= _SIGMAS)) if known else math.nan,
        chi2=float(np.mean(sigmas**2)) if known else math.nan,
    )
