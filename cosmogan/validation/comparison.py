"""What a comparison of two slice files found; plain data, no files, no figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.validation.score import SampleComparison, Score
from cosmogan.validation.sets.coherence import CoherenceComparison
from cosmogan.validation.sets.correlation import CorrelationComparison
from cosmogan.validation.sets.forecast import ForecastComparison
from cosmogan.validation.summary import Summary


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One of the two files of a comparison.

    Parameters
    ----------
    path
        Path as given.
    n_bytes, sha256
        Size and hash of the file.
    metadata
        Metadata of its slices.
    n_slices, n_realisations
        Number of slices, and of different realisations.
    mean_density
        Mean of 1 + delta over all slices.
    provenance
        Provenance as the file has it.
    """

    path: str
    n_bytes: int
    sha256: str
    metadata: SliceMetadata
    n_slices: int
    n_realisations: int
    mean_density: float
    provenance: dict[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class StatisticComparison:
    """One statistic of the mocks against the reference, all arrays of shape ``(n_bins,)`` unless said otherwise.

    Errors are one standard deviation of the mean. Relative numbers are relative to the reference's mean.

    Parameters
    ----------
    statistic
        Statistic that was measured; knows names and units.
    edges
        Shape ``(n_bins + 1,)``, in the statistic's x units.
    x
        Place where each bin is drawn; NaN for a bin without a place, such as the one from 0.
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
        ``"realisations"`` (bootstrap, at least the error of independent slices), ``"floor"`` (the same of the
        simulations given for the floor) or ``"slices"`` (taken as independent: right for a generator, too small for
        slabs of one simulation).
    ratio
        ``mocks / reference - 1``.
    sigmas
        Difference over the errors of both, added in squares.
    floor
        The **simulation against itself**: ``(set - other set) / reference``, rms over ``n_splits`` pairs of disjoint
        sets of realisations, the first with about as many slices as the mocks but at most half of them; None with a
        single realisation.
    n_splits
        Number of such pairs.
    floor_sets
        Realisations in the first and in the second set.
    summary
        Summary of the mocks against the reference.
    floor_summary
        Summary of the sets against each other, rms over splits; None with a single realisation.
    correlation
        Correlations, for a statistic whose bins are compared in them too, else None.
    coherence
        Coherence of different slices, beside the power spectrum of two files of at least two slices each, else None.
    forecast
        Errors of a fit with either covariance, beside the power spectrum, else None.
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
    floor_sets: tuple[int, int]
    summary: Summary
    floor_summary: Summary | None
    correlation: CorrelationComparison | None = None
    coherence: CoherenceComparison | None = None
    forecast: ForecastComparison | None = None

    @property
    def scores(self) -> tuple[Score, ...]:
        """What is judged beside the mean."""
        of_correlation = () if self.correlation is None else self.correlation.scores(self.statistic.name)
        return (*of_correlation, *(() if self.coherence is None else (self.coherence.score(),)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """Mock slices against a reference.

    Parameters
    ----------
    name
        Name of the mocks, such as ``"dcgan"``.
    mocks, reference
        The two files.
    floor_file
        Further simulations that floor and errors were taken from, or None.
    training
        The slices that the mocks were learnt from, or None.
    metadata
        Metadata of mocks and reference, as density.
    statistics
        One entry per statistic.
    training_statistics
        The same with the training slices as the reference; nothing where they are not known. Not judged: to agree with
        them is what the mocks were made for.
    samples
        Tests of the mocks as a set.
    notes
        Sentences a reader of the numbers must know.
    mocks_shown, reference_shown
        Some slices of each, 1 + delta, shape ``(n_shown, n_pixels, n_pixels)``, float32.
    """

    name: str = "mocks"
    mocks: InputFile
    reference: InputFile
    floor_file: InputFile | None = None
    training: InputFile | None = None
    metadata: SliceMetadata
    statistics: tuple[StatisticComparison, ...]
    training_statistics: tuple[StatisticComparison, ...] = ()
    samples: tuple[SampleComparison, ...] = ()
    notes: tuple[str, ...]
    mocks_shown: np.ndarray
    reference_shown: np.ndarray


def by_reference(comparisons: Sequence[Comparison]) -> list[list[Comparison]]:
    """Put comparisons with the same reference together, such as several sets of mocks of one box.

    Parameters
    ----------
    comparisons
        Comparisons in any order; that of their first appearance is kept.
    """
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault((comparison.reference.path, comparison.reference.sha256), []).append(comparison)
    return list(groups.values())
