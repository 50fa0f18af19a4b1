r"""Whether mocks are worth as many simulations downstream: errors of a fit to P(k), from either covariance matrix.

A survey fits parameters to P(k) with a covariance matrix, for which mocks are made. Here the fit is of an amplitude A
and a slope n about a pivot, :math:`P(k) \to A (k / k_p)^n P(k)` at A = 1 and n = 0, and its Fisher matrix is
:math:`F_{ij} = \partial_i P^T C^{-1} \partial_j P` with the covariance C between slices: once that of the mocks, once
that of the simulations, with the same mean P(k). An error that comes out too small is a claim that the data do not
support. It is reported, not judged: between halves of eight simulated boxes the ratio itself is off by some 10%.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from cosmogan.statistics.accumulator import Accumulator
from cosmogan.validation.sets.correlation import noise_over_floor

PARAMETERS = ("amplitude", "slope")
# Bins in log k aimed at; few, so that the matrix is known to some percent from a thousand slices.
N_BINS = 10
# The error of a parameter is uncertain by 1 / sqrt(2 n) of n slices beyond the bins: by 7% of ten slices per bin.
_SLICES_PER_BIN = 10
# Squared scatter over squared mean that sums in float64 cannot tell from none.
_NO_VARIANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class ForecastComparison:
    """Errors of amplitude and slope of P(k), fitted together, with the mocks' covariance against the simulations'.

    Numbers come in pairs: amplitude, slope. They are NaN, and `note` says why, where they cannot be given.

    Parameters
    ----------
    ratio
        Error from the mocks' covariance over that from the simulations': below 1 for mocks that vary too little.
    floor
        Typical deviation from 1 of the same ratio between disjoint sets of whole simulated boxes, rms over splits; NaN
        where there are no such sets.
    error
        One standard deviation of `ratio`: that of the floor, for the number of boxes there are.
    reference
        Errors from a single slice with the simulations' covariance, of ln A and of n.
    n_bins
        Bins of the covariance matrices.
    k_low, k_high, pivot
        Range and pivot, h/Mpc.
    note
        Sentence on what is missing; may be empty.
    """

    ratio: tuple[float, float]
    floor: tuple[float, float]
    error: tuple[float, float]
    reference: tuple[float, float]
    n_bins: int
    k_low: float
    k_high: float
    pivot: float
    note: str = ""


def compare_forecasts(
    mocks: Accumulator,
    reference: Accumulator,
    judged: np.ndarray,
    *,
    edges: np.ndarray,
    wavenumbers: np.ndarray,
    n_modes: np.ndarray,
    itself: Accumulator | None = None,
    sets: tuple[int, int] | None = None,
    n_bins: int = N_BINS,
    seed: int,
) -> ForecastComparison:
    r"""Compare the errors of amplitude and slope that two sets of slices promise.

    The rings that are judged are averaged, weighted by modes, to bins of nearly equal width in log k. The inverse of a
    covariance from n slices in p bins is too large by :math:`(n - 1) / (n - p - 2)` on average (Hartlap et al. 2007,
    arXiv:astro-ph/0608064), which is put right. What noise of the covariance adds to the scatter of the fitted
    parameters themselves (Percival et al. 2014, arXiv:1312.4841) is left out: with ten slices per bin or more it is a
    few per cent, and all but cancels in a ratio.

    Slices of one box are correlated: they are fewer independent ones than Hartlap's n counts, and their covariance is
    that of slices of many boxes only if there are many boxes. Errors and floor are therefore those between sets of
    whole boxes.

    Parameters
    ----------
    mocks, reference
        Sums of P(k) over the slices of the two files.
    judged
        Which rings count, bool, shape ``(n_rings,)``.
    edges, wavenumbers, n_modes
        Edges of the rings, shape ``(n_rings + 1,)``, their mean k, both in h/Mpc, and their independent modes per
        slice, shape ``(n_rings,)``.
    itself
        Sums over the simulations that give the floor; the reference by default.
    sets
        Realisations in the two sets of the floor; halves by default.
    n_bins
        Bins aimed at; fewer where rings are few.
    seed
        Seed of the splits where not all are made.
    """
    itself = reference if itself is None else itself
    mean = reference.mean()
    unknown = (math.nan, math.nan)
    rings = np.flatnonzero(judged)
    if len(rings) < len(PARAMETERS):
        return ForecastComparison(
            ratio=unknown,
            floor=unknown,
            error=unknown,
            reference=unknown,
            n_bins=len(rings),
            k_low=math.nan,
            k_high=math.nan,
            pivot=math.nan,
            note=f"P(k) is judged in {len(rings)} bins; an amplitude and a slope need {len(PARAMETERS)}.",
        )
    weights, k_low, k_high = _binned(rings, edges, n_modes, n_bins)
    pivot = math.sqrt(k_low * k_high)
    # dlnP/dlnA = 1 and dlnP/dn = ln(k / k_p) in each ring, before they are averaged.
    slope = np.log(np.where(judged, wavenumbers, pivot) / pivot)
    level = weights @ np.where(judged, mean, 0)
    responses = np.stack([level, weights @ np.where(judged, mean * slope, 0)])
    few = _too_few(mocks, reference, len(weights))

    def errors(covariance: np.ndarray, n_slices: float) -> np.ndarray:
        return _fisher_errors(weights @ _inside(covariance, judged) @ weights.T, responses, level, n_slices)

    ours = errors(mocks.covariance(), mocks.n_slices)
    theirs = errors(reference.covariance(), reference.n_slices)
    if not few and np.isnan(ours + theirs).any():
        few = "The covariance matrix of P(k) has no inverse; are slices copies of few, or is a bin constant?"
    floor, error = np.full(2, math.nan), np.full(2, math.nan)
    n = itself.n_realisations
    n_first, n_second = (n // 2, n - n // 2) if sets is None else sets
    share = itself.n_slices / n if n else 0.0
    if min(n_first, n_second) > 0 and min(n_first, n_second) * share >= _SLICES_PER_BIN * len(weights):
        deviations = [
            errors(one, n_first * share) / errors(other, n_second * share) - 1
            for one, other in itself.disjoint_covariances(n_first, n_second, seed=seed)
        ]
        if deviations:
            floor = np.sqrt(np.mean(np.square(deviations), axis=0))
            error = floor * noise_over_floor(mocks, reference, itself, (n_first, n_second))
    ratio = np.full(2, math.nan) if few else ours / theirs
    return ForecastComparison(
        ratio=_pair(ratio),
        floor=_pair(floor),
        error=_pair(error),
        reference=_pair(theirs),
        n_bins=len(weights),
        k_low=k_low,
        k_high=k_high,
        pivot=pivot,
        note=few,
    )


def _pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _too_few(mocks: Accumulator, reference: Accumulator, n_bins: int) -> str:
    """Return a sentence where slices are too few for the matrix, else nothing."""
    needed = _SLICES_PER_BIN * n_bins
    if min(mocks.n_slices, reference.n_slices) >= needed:
        return ""
    return (
        f"The covariance matrix of P(k) in {n_bins} bins needs {needed} slices for the errors of a fit; there are "
        f"{mocks.n_slices} mocks and {reference.n_slices} simulated ones."
    )


def _binned(rings: np.ndarray, edges: np.ndarray, n_modes: np.ndarray, n_bins: int) -> tuple[np.ndarray, float, float]:
    """Return weights that average rings to bins, shape ``(n_bins, n_rings)``, and the edges of all bins together."""
    ring_edges = np.append(edges[rings], edges[rings[-1] + 1])
    wanted = np.geomspace(ring_edges[0], ring_edges[-1], n_bins + 1)
    # Edges of rings nearest to equal steps in log k; at small k several are one.
    borders = np.unique(np.abs(np.log(ring_edges / wanted[:, None])).argmin(axis=1))
    weights = np.zeros((len(borders) - 1, len(n_modes)))
    for row, start, stop in zip(weights, borders[:-1], borders[1:], strict=True):
        members = rings[start:stop]
        row[members] = n_modes[members] / n_modes[members].sum()
    return weights, float(ring_edges[0]), float(ring_edges[-1])


def _inside(covariance: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """Return the covariance with rings left out that do not count, which may be NaN."""
    return np.where(np.logical_and.outer(judged, judged), covariance, 0)


def _fisher_errors(covariance: np.ndarray, responses: np.ndarray, level: np.ndarray, n_slices: float) -> np.ndarray:
    """Return the errors of the parameters, each with the other left free, shape ``(2,)``; NaN without an inverse."""
    n_bins = len(covariance)
    hartlap = (n_slices - n_bins - 2) / max(n_slices - 1, 1)
    # In units of the mean, because P(k) spans decades.
    relative, scaled = covariance / np.outer(level, level), responses / level
    if not np.isfinite(relative).all() or np.diag(relative).min() <= _NO_VARIANCE or hartlap <= 0:
        return np.full(len(responses), math.nan)
    try:
        fisher = hartlap * scaled @ linalg.cho_solve(linalg.cho_factor(relative), scaled.T)
        return np.sqrt(np.diag(linalg.inv(fisher)))
    except linalg.LinAlgError:
        return np.full(len(responses), math.nan)
