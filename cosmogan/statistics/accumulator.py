"""Sums of a statistic over slices, by realisation: mean, covariance, bootstrap and halves in bounded memory."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch

# Every way to halve up to ten realisations is counted out (126 for nine or ten); beyond that as many are drawn.
_MAX_SPLITS = 126
# Above this number of realisations the products are summed over all: 127 bins take 129 kB per realisation.
_MAX_PRODUCTS = 256
# Squared scatter over squared mean that sums in float64 cannot tell from none.
_NO_VARIANCE = 1e-12


class Accumulator:
    """Float64 sums, products and counts of one statistic, per realisation.

    Independent slices come from independent simulations only: slabs of one box share its large-scale structure, and the
    offset of a box is nearly the same at all wave numbers. Errors are therefore taken between realisations.

    Parameters
    ----------
    n_bins
        Length of the statistic's vector.

    Raises
    ------
    ValueError
        If ``n_bins`` is not positive.
    """

    def __init__(self, n_bins: int) -> None:
        if n_bins < 1:
            raise ValueError(f"n_bins: expected at least 1, got {n_bins}")
        self.n_bins = n_bins
        self._sums: dict[int, np.ndarray] = {}
        # Under None: the sum over all realisations, once there are too many of them.
        self._products: dict[int | None, np.ndarray] = {}
        self._counts: dict[int, int] = {}

    @property
    def n_slices(self) -> int:
        """Number of slices added so far."""
        return sum(self._counts.values())

    @property
    def realisations(self) -> np.ndarray:
        """Labels of the realisations seen, sorted, shape ``(n_realisations,)``."""
        return np.array(sorted(self._counts), dtype=np.int64)

    @property
    def n_realisations(self) -> int:
        """Number of realisations seen."""
        return len(self._counts)

    def update(self, values: torch.Tensor | np.ndarray, realisation: torch.Tensor | np.ndarray | int) -> None:
        """Add slices.

        Parameters
        ----------
        values
            The statistic of each slice, shape ``(n_slices, n_bins)``, on any device.
        realisation
            Label of each slice, shape ``(n_slices,)``, or one for all.

        Raises
        ------
        ValueError
            If the shapes do not fit.
        """
        values = values.detach().cpu().double().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        values = values.astype(np.float64, copy=False)
        if values.ndim != 2 or values.shape[1] != self.n_bins:
            raise ValueError(f"values: expected shape (n_slices, {self.n_bins}), got {values.shape}")
        labels = np.asarray(realisation.cpu() if isinstance(realisation, torch.Tensor) else realisation)
        labels = np.broadcast_to(labels, (len(values),))
        for label in np.unique(labels):
            chosen = values[labels == label]
            key = int(label)
            self._sums[key] = self._sums.get(key, 0.0) + chosen.sum(0)
            self._counts[key] = self._counts.get(key, 0) + len(chosen)
            self._add_products(key, chosen.T @ chosen)

    def _add_products(self, label: int | None, products: np.ndarray) -> None:
        if None in self._products:
            label = None
        self._products[label] = self._products.get(label, 0.0) + products
        if len(self._products) > _MAX_PRODUCTS:
            self._products = {None: np.sum(list(self._products.values()), axis=0)}

    def disjoint_covariances(
        self, n_first: int, n_second: int, *, seed: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the covariances between slices of the pairs of sets of `disjoint_means`.

        Each set has its own mean. Nothing is given where there are no such sets, or with more than 256 realisations,
        whose products are not held apart.

        Parameters
        ----------
        n_first, n_second, seed
            Sizes of the sets and seed, as for `disjoint_means`.

        Yields
        ------
            Covariances of the first and the second set, shape ``(n_bins, n_bins)`` each; NaN for a set of one slice.
        """
        sums, counts = self._stacked()
        if None in self._products:
            return
        products = np.stack([self._products[label] for label in sorted(self._counts)])
        for sets in zip(*_disjoint_sets(len(counts), n_first, n_second, seed), strict=True):
            first, second = (
                _covariance(np.tensordot(share, products, 1), share @ sums, share @ counts) for share in sets
            )
            yield first, second

    def _stacked(self) -> tuple[np.ndarray, np.ndarray]:
        """Return sums ``(n_realisations, n_bins)`` and counts ``(n_realisations,)``, by label."""
        if not self._counts:
            raise ValueError("the accumulator is empty; call update first")
        labels = sorted(self._counts)
        return np.stack([self._sums[label] for label in labels]), np.array([self._counts[i] for i in labels], float)

    def mean(self) -> np.ndarray:
        """Return the mean over all slices, shape ``(n_bins,)``.

        Raises
        ------
        ValueError
            If there are no slices, as in all methods below.
        """
        sums, counts = self._stacked()
        return sums.sum(0) / counts.sum()

    def covariance(self) -> np.ndarray:
        """Return the covariance between bins over all slices, shape ``(n_bins, n_bins)``; NaN with a single slice."""
        sums, counts = self._stacked()
        return _covariance(np.sum(list(self._products.values()), axis=0), sums.sum(0), counts.sum())

    def scatter(self) -> np.ndarray:
        """Return the standard deviation of single slices, shape ``(n_bins,)``; NaN with a single slice."""
        return np.sqrt(np.maximum(np.diag(self.covariance()), 0))

    def bootstrap_means(self, n_samples: int, *, seed: int) -> np.ndarray:
        """Return means of realisations drawn with replacement, shape ``(n_samples, n_bins)``.

        With R realisations these scatter too little by ``sqrt((R - 1) / R)``; `error_of_mean` puts that right.

        Parameters
        ----------
        n_samples
            Number of draws.
        seed
            Seed of the draws.
        """
        sums, counts = self._stacked()
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=n_samples).astype(np.float64)
        return (drawn @ sums) / (drawn @ counts)[:, None]

    def error_of_mean(self, n_samples: int, *, seed: int) -> np.ndarray:
        """Return one standard deviation of the mean, shape ``(n_bins,)``, from a bootstrap over realisations.

        NaN with fewer than two realisations: see `error_of_mean_slices` for what is known then. With two or three the
        error is itself uncertain by half.

        Parameters
        ----------
        n_samples, seed
            Number of draws and their seed, as for `bootstrap_means`.
        """
        if self.n_realisations < 2 or n_samples < 2:
            return np.full(self.n_bins, np.nan)
        deviation = self.bootstrap_means(n_samples, seed=seed) - self.mean()
        few = math.sqrt(self.n_realisations / (self.n_realisations - 1))
        return np.sqrt(np.mean(deviation**2, axis=0)) * few

    def error_of_mean_slices(self) -> np.ndarray:
        """Return one standard deviation of the mean if all slices were independent, shape ``(n_bins,)``.

        True for the output of a generator; for slabs of one box it is too small by a factor of several.
        """
        return self.scatter() / math.sqrt(self.n_slices)

    def halves(self, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Split the realisations into two disjoint halves in many ways.

        With R realisations one half has ``R // 2`` of them and the other the rest; see `disjoint_means`.
        """
        size = self.n_realisations // 2
        return self.disjoint_means(size, self.n_realisations - size, seed=seed)

    def disjoint_means(self, n_first: int, n_second: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return means of pairs of disjoint sets of realisations, drawn in many ways.

        All different pairs of sets are made up to 126 (halves of 10 or 9 realisations), beyond that 126 are drawn.

        Parameters
        ----------
        n_first, n_second
            Realisations in either set.
        seed
            Seed of the draws where not all pairs are made.

        Returns
        -------
            Means of the first and of the second sets, each of shape ``(n_splits, n_bins)``; ``n_splits`` is 0 if a set
            is empty.

        Raises
        ------
        ValueError
            If there are fewer realisations than both sets hold.
        """
        sums, counts = self._stacked()
        first, second = _disjoint_sets(len(counts), n_first, n_second, seed)
        return (first @ sums) / (first @ counts)[:, None], (second @ sums) / (second @ counts)[:, None]

    def mean_draws(self, n_samples: int, n_realisations: int, *, seed: int) -> np.ndarray:
        """Return deviations of the mean of some realisations from the truth, shape ``(n_samples, n_bins)``.

        Drawn from the realisations held, with replacement, and stretched by ``sqrt(R / (R - 1))`` for the R of them.

        Parameters
        ----------
        n_samples
            Number of draws.
        n_realisations
            Size of the set whose mean is drawn; need not be the number held.
        seed
            Seed of the draws.

        Raises
        ------
        ValueError
            If fewer than two realisations are held: their scatter is not known.
        """
        sums, counts = self._stacked()
        n = len(counts)
        if n < 2:
            raise ValueError(f"expected at least 2 realisations, got {n}")
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(n_realisations, np.full(n, 1 / n), size=n_samples).astype(np.float64)
        means: np.ndarray = (drawn @ sums) / (drawn @ counts)[:, None]
        return (means - self.mean()) * math.sqrt(n / (n - 1))


def correlation_matrix(covariance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the correlation between bins, shape ``(n_bins, n_bins)``, between -1 and 1.

    Parameters
    ----------
    covariance
        Shape ``(n_bins, n_bins)``.
    mean
        Shape ``(n_bins,)``; says which variances are none but for rounding.

    Returns
    -------
        NaN for bins that do not vary.
    """
    variance = np.diag(covariance)
    scatter = np.sqrt(np.where(variance > _NO_VARIANCE * mean**2, variance, np.nan))
    return covariance / np.outer(scatter, scatter)


def _covariance(products: np.ndarray, sums: np.ndarray, count: float) -> np.ndarray:
    if count < 2:
        return np.full_like(products, np.nan)
    return (products - np.outer(sums, sums) / count) / (count - 1)


def _disjoint_sets(n: int, n_first: int, n_second: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of 0 and 1 that mark the first and the second sets, shape ``(n_splits, n)`` each, float64."""
    if n_first + n_second > n:
        raise ValueError(f"expected at least {n_first + n_second} realisations, got {n}")
    if min(n_first, n_second) < 1:
        return np.zeros((0, n)), np.zeros((0, n))
    # Two sets of one size make the same pair in either order.
    mirrored = n_first == n_second
    n_splits = math.comb(n, n_first) * math.comb(n - n_first, n_second) // (2 if mirrored else 1)
    if n_splits <= _MAX_SPLITS:
        pairs = [
            (first, second)
            for first in itertools.combinations(range(n), n_first)
            for second in itertools.combinations([i for i in range(n) if i not in first], n_second)
            if not mirrored or first[0] < second[0]
        ]
    else:
        rng = np.random.default_rng(seed)
        orders = [tuple(rng.permutation(n)) for _ in range(_MAX_SPLITS)]
        pairs = [(order[:n_first], order[n_first : n_first + n_second]) for order in orders]
    marked = np.zeros((2, len(pairs), n))
    for row, pair in enumerate(pairs):
        for side in (0, 1):
            marked[side, row, list(pair[side])] = 1
    return marked[0], marked[1]
