"""The mean of one statistic: mocks against reference, and the simulation against itself."""

from __future__ import annotations

import math

import numpy as np

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.comparison import StatisticComparison
from cosmogan.validation.scatter import scatter_of_mean, small_number_factor
from cosmogan.validation.sets.correlation import compare_correlations
from cosmogan.validation.sets.forecast import compare_forecasts
from cosmogan.validation.summary import rms_summary, split_in_thirds, summarise


def compare_statistic(
    statistic: AbstractStatistic,
    mocks: Accumulator,
    reference: Accumulator,
    metadata: SliceMetadata,
    *,
    floor: Accumulator | None = None,
    independent: bool = False,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> StatisticComparison:
    """Compare what was accumulated of one statistic; see `StatisticComparison` for the result.

    Parameters
    ----------
    statistic
        Statistic that was measured.
    mocks, reference
        Sums over the slices of the two files.
    metadata
        Metadata of the slices.
    floor
        Sums over further simulations, from which floor and errors are taken where they have more realisations.
    independent
        Whether mocks of one realisation are independent slices, as from a generator.
    n_bootstrap, seed
        Draws and their seed, as for `cosmogan.validation.compare.compare`.
    """
    edges, x = statistic.edges(metadata), statistic.centres(metadata)
    mock_mean, reference_mean = mocks.mean(), reference.mean()
    judged = statistic.judged(metadata, reference_mean)
    third = split_in_thirds(edges, x, judged, log_x=statistic.log_x)
    if floor is None or floor.n_realisations <= reference.n_realisations:
        itself, itself_is = reference, "reference"
    else:
        itself, itself_is = floor, "floor"
    ours = scatter_of_mean(
        mocks,
        others=itself,
        others_are="floor" if itself_is == "floor" else "reference",
        independent=independent,
        n_draws=n_bootstrap,
        seed=seed,
    )
    theirs = scatter_of_mean(reference, others=floor, n_draws=n_bootstrap, seed=seed + 1)
    difference = mock_mean - reference_mean

    n_first, n_second = floor_sets(mocks, reference, itself)
    first, second = itself.disjoint_means(n_first, n_second, seed=seed)
    itself_mean = itself.mean()
    against_itself = [
        summarise(_relative(a - b, itself_mean), edges, x, third, statistic.distances(a, b))
        for a, b in zip(first, second, strict=True)
    ]
    # Slices of a single box do not say how far boxes scatter.
    known = theirs.source != "slices"
    noise = _relative(ours.draws + theirs.draws, reference_mean) if known else None
    summary = summarise(
        _relative(difference, reference_mean),
        edges,
        x,
        third,
        statistic.distances(mock_mean, reference_mean),
        noise=noise,
        stretch=small_number_factor(theirs.n_realisations),
    )
    floor_summary = rms_summary(against_itself) if against_itself else None
    correlation = forecast = None
    sets, n_modes = (n_first, n_second), statistic.n_modes(metadata)
    if statistic.correlated:
        correlation = compare_correlations(mocks, reference, judged, itself=itself, sets=sets, seed=seed)
    if isinstance(statistic, PowerSpectrum) and n_modes is not None:
        forecast = compare_forecasts(
            mocks,
            reference,
            judged,
            edges=edges,
            wavenumbers=x,
            n_modes=n_modes,
            itself=itself,
            sets=sets,
            seed=seed,
        )
    return StatisticComparison(
        statistic=statistic,
        edges=edges,
        x=x,
        n_modes=n_modes,
        judged=judged,
        mocks=mock_mean,
        reference=reference_mean,
        mocks_scatter=mocks.scatter(),
        reference_scatter=reference.scatter(),
        mocks_error=ours.error,
        reference_error=theirs.error,
        mocks_error_from=ours.source,
        reference_error_from=theirs.source,
        ratio=_relative(difference, reference_mean),
        sigmas=_relative(difference, np.hypot(ours.error, theirs.error)),
        floor=np.sqrt(np.mean(_relative(first - second, itself_mean) ** 2, axis=0)) if len(first) else None,
        n_splits=len(first),
        floor_sets=(n_first, n_second) if len(first) else (0, 0),
        summary=summary,
        floor_summary=floor_summary,
        correlation=correlation,
        forecast=forecast,
    )


def floor_sets(mocks: Accumulator, reference: Accumulator, itself: Accumulator) -> tuple[int, int]:
    """Return how many realisations the two sets have that show what the simulation differs from itself by.

    The first stands for the mocks: as many slices, but at most half of what there is. The second stands for the
    reference: what is left, and not more than that.

    Parameters
    ----------
    mocks, reference, itself
        Sums over the slices; ``itself`` is what the sets are taken from.
    """
    n = itself.n_realisations
    wanted = math.ceil(mocks.n_slices * n / itself.n_slices)
    first = min(wanted, n // 2)
    second = n - first if itself is reference else min(n - first, reference.n_realisations)
    return first, second


def _relative(difference: np.ndarray, scale: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return difference / scale
