"""Cross power spectrum between different slices of a set: zero on average, unless they are copies of each other."""

from __future__ import annotations

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.slices import SliceReader
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.power_spectrum import PowerSpectrum, RadialBins, power_spectrum, ring_means

# Pixels of either half of the pairs handled at a time: 32 pairs of 256 x 256.
_PIXELS_AT_A_TIME = 2**21

# Independent slices have no coherence; a generator that draws from twenty templates has this much.
_ALIKE, _SURE = 0.05, 4.0


def are_alike(coherence: float, error: float) -> bool:
    """Return whether different slices of a set are too coherent to be independent: 5%, and four standard errors.

    Parameters
    ----------
    coherence, error
        Cross power over power of different slices beyond what is expected, and its standard error.
    """
    return coherence > _ALIKE and coherence > _SURE * error


def cross_power_spectrum(
    first: torch.Tensor, second: torch.Tensor, box_size: float, *, bins: RadialBins | None = None
) -> torch.Tensor:
    r"""Cross power spectrum of each pair of slices, averaged over direction; signed.

    Convention: :math:`X(k) = L^2 N^{-4} \langle \mathrm{Re}\, \mathrm{FFT}(a)\, \mathrm{FFT}(b)^* \rangle`, so that
    X of a slice with itself is its P(k) and that with its negative is -P(k). Differentiable.

    Parameters
    ----------
    first, second
        Overdensity with respect to the mean of the whole box, dimensionless, both of shape
        ``(n_pairs, n_pixels, n_pixels)``.
    box_size
        Side of the slice, comoving Mpc/h.
    bins
        Rings from `radial_bins`, on the device of ``first``; by default linear rings up to Nyquist.

    Returns
    -------
        Shape ``(n_pairs, n_bins)``, float64, (Mpc/h)^2. Empty bins are NaN.

    Raises
    ------
    ValueError
        If the shapes differ, or as `power_spectrum`.

    Examples
    --------
    >>> slices = torch.randn(2, 16, 16)
    >>> bool((cross_power_spectrum(slices, -slices, 100.0) < 0).all())
    True
    """
    if first.shape != second.shape:
        raise ValueError(f"second: expected the shape of first, {tuple(first.shape)}, got {tuple(second.shape)}")
    return ring_means(first, box_size, bins, second=second)


def distant_pairs(n_slices: int) -> tuple[np.ndarray, np.ndarray]:
    """Pair each slice of the first half of a file with the one half a file later.

    Neighbours in a file are often neighbouring slabs of one box and share its structure. Half a file away lies another
    realisation where a file holds several in turn, and the opposite side of the box, or another axis, where it holds
    one. Each slice is used once, so that pairs are independent if slices are; of an odd number the last stays out.

    Parameters
    ----------
    n_slices
        Number of slices.

    Returns
    -------
        Indices of the first and of the second slices, shape ``(n_slices // 2,)`` each.

    Raises
    ------
    ValueError
        If ``n_slices`` is negative.

    Examples
    --------
    >>> [part.tolist() for part in distant_pairs(5)]
    [[0, 1], [2, 3]]
    """
    if n_slices < 0:
        raise ValueError(f"n_slices: expected at least 0, got {n_slices}")
    first = np.arange(n_slices // 2)
    return first, first + n_slices // 2


def measure_pairs(reader: SliceReader, statistic: PowerSpectrum, *, device: torch.device | str = "cpu") -> Accumulator:
    """Measure the cross power spectrum of the pairs of `distant_pairs` of a file, in bounded memory.

    Parameters
    ----------
    reader
        An open slice file of at least two slices; counts are turned into 1 + delta.
    statistic
        Knows the rings.
    device
        Device to compute on.

    Returns
    -------
        Of ``2 n_bins`` values per pair: X(k), then the mean P(k) of the two slices, (Mpc/h)^2. Realisations are those
        of the first slices.

    Raises
    ------
    UserError
        If the file has fewer than two slices.
    """
    metadata = reader.metadata
    bins = statistic.bins(metadata).to(device)
    first, second = distant_pairs(reader.n_slices)
    if not len(first):
        raise UserError(f"{reader.path}: expected at least two slices for a pair, got {reader.n_slices}")
    accumulator = Accumulator(2 * bins.n_bins)
    step = max(1, _PIXELS_AT_A_TIME // metadata.n_pixels**2)
    for start in range(0, len(first), step):
        stop = min(start + step, len(first))
        one, other = (
            torch.from_numpy(reader.density(int(index[start]), int(index[stop - 1]) + 1)).to(device).double() - 1
            for index in (first, second)
        )
        cross = cross_power_spectrum(one, other, metadata.box_size, bins=bins)
        own = [power_spectrum(delta, metadata.box_size, bins=bins) for delta in (one, other)]
        accumulator.update(torch.cat([cross, 0.5 * (own[0] + own[1])], 1), reader.realisation[first[start:stop]])
    return accumulator
