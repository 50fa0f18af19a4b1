"""How much different slices of a set resemble each other: multi-scale structural similarity of pairs."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from cosmogan.slices import AXIS_NOT_APPLICABLE

# Smaller slices are hardly larger than the window of the similarity.
SMALLEST_SIDE, _WINDOW = 16, 11
# Larger slices are averaged down to at most this many pixels: a quarter of the time at 256, and the smallest scale, of
# which sparse counts show shot noise alone, has a weight of 0.04.
_LARGEST_SIDE = 128
# Wang, Simoncelli & Bovik 2003, from fine to coarse.
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Pairs of one realisation lie along different axes or at least this share of the box apart.
_DISTANT = 0.25


def bounded(density: torch.Tensor) -> torch.Tensor:
    r"""Map 1 + delta from 0 to infinity onto -1 to 1: :math:`s(x) = (x - 1) / (x + 1)`.

    This is :math:`2 x / (x + a) - 1` of Rodriguez et al. 2018 with a = 1, the mean density, so that voids and clusters
    get half of the range each; a single cluster of x = 1000 then weighs no more than an empty pixel. Fixed, not
    fitted, hence the same for all sets; finite for empty pixels, where a logarithm needs a softening.

    Parameters
    ----------
    density
        1 + delta >= 0, dimensionless, any shape.
    """
    return (density - 1) / (density + 1)


def coarsened(density: torch.Tensor) -> torch.Tensor:
    """Average slices over whole numbers of pixels, down to at most 128 along a side.

    Parameters
    ----------
    density
        1 + delta, shape ``(n_slices, n_pixels, n_pixels)``. Rows and columns that fill no block are left out.
    """
    factor = math.ceil(density.shape[-1] / _LARGEST_SIDE)
    return density if factor == 1 else F.avg_pool2d(density, factor)


def structural_similarity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    r"""Multi-scale structural similarity (MS-SSIM) of pairs of slices, place by place: 1 for equal slices.

    Wang, Simoncelli & Bovik 2003, by torchmetrics, of `bounded` fields of range 2. There are five scales from 176
    pixels, four from 99, three from 44, two from 16; weights are those of the finest scales, normalised. A contrast
    term c enters as (1 + c) / 2: it is as often negative as positive between independent slices, and cutting it at
    zero, as usual, made a fifth of all pairs of N-body slices equal. Independent slices therefore have about 0.5.
    Windows that reach over a border see a reflection, so slices are not taken as periodic here.

    Parameters
    ----------
    first, second
        1 + delta, dimensionless, both of shape ``(n_pairs, n_pixels, n_pixels)``.

    Returns
    -------
        Shape ``(n_pairs,)``, float64.

    Raises
    ------
    ValueError
        If the shapes differ or a side has fewer than 16 pixels.

    Examples
    --------
    >>> slices = torch.rand(2, 32, 32)
    >>> structural_similarity(slices, slices).round(decimals=4).tolist()
    [1.0, 1.0]
    """
    if first.shape != second.shape or first.ndim != 3:
        raise ValueError(
            f"first, second: expected shape (n_pairs, n_pixels, n_pixels), got {tuple(first.shape)}, "
            f"{tuple(second.shape)}"
        )
    weights = _weights(first.shape[-1])
    similarity = multiscale_structural_similarity_index_measure(
        bounded(first)[:, None],
        bounded(second)[:, None],
        data_range=2.0,
        betas=weights,
        normalize="simple",
        reduction="none",
    )
    return similarity.double()


def _weights(n_pixels: int) -> tuple[float, ...]:
    if n_pixels < SMALLEST_SIDE:
        raise ValueError(f"first: expected slices of at least {SMALLEST_SIDE} pixels along a side, got {n_pixels}")
    # What torchmetrics asks for: more than 10 pixels after division by (n_scales - 1)^2.
    n_scales = max(n for n in range(2, len(_WEIGHTS) + 1) if n_pixels // (n - 1) ** 2 >= _WINDOW)
    total = sum(_WEIGHTS[:n_scales])
    return tuple(weight / total for weight in _WEIGHTS[:n_scales])


def unrelated(
    first: np.ndarray,
    second: np.ndarray,
    *,
    realisation: np.ndarray,
    axis: np.ndarray,
    position: np.ndarray,
    box_size: float,
) -> np.ndarray:
    """Say which pairs of slices have no structure in common.

    In a file of several realisations these are pairs from different ones. In a file of one they are all pairs, but for
    slabs (known axis and position) of the same axis less than a quarter of the periodic box apart.

    Parameters
    ----------
    first, second
        Indices, of shapes that broadcast.
    realisation, axis, position
        Labels of the slices as in a slice file, shape ``(n_slices,)`` each.
    box_size
        Side of the box, in the units of ``position``.

    Returns
    -------
        Bool, of the broadcast shape; False for a slice with itself.
    """
    if len(np.unique(realisation)) > 1:
        return realisation[first] != realisation[second]
    distance = np.abs(position[first] - position[second])
    distance = np.minimum(distance, box_size - distance)
    slabs = (axis[first] != AXIS_NOT_APPLICABLE) & (axis[first] == axis[second]) & np.isfinite(distance)
    return (first != second) & ~(slabs & (distance < _DISTANT * box_size))


def draw_pairs(n_slices: int, n_pairs: int, allowed: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw different pairs of different slices.

    Parameters
    ----------
    n_slices
        Number of slices to draw from.
    n_pairs
        Number of pairs at most; fewer if there are no more.
    allowed
        Which pairs may be drawn, bool, shape ``(n_slices, n_slices)``, symmetric.
    seed
        Seed of the draws.

    Returns
    -------
        Indices of the first and the second slices, shape ``(n_drawn,)`` each, the first the smaller.
    """
    first, second = np.nonzero(np.triu(allowed[:n_slices, :n_slices], 1))
    if len(first) > n_pairs:
        chosen = np.sort(np.random.default_rng(seed).choice(len(first), n_pairs, replace=False))
        first, second = first[chosen], second[chosen]
    return first, second


def units_of_slices(*, realisation: np.ndarray, axis: np.ndarray, position: np.ndarray, box_size: float) -> np.ndarray:
    """Give each slice the number of the independent part that it belongs to, for `error_of_pair_mean`.

    Slabs of the same realisation, axis and quarter of the box are one part; any other slice is one by itself.

    Parameters
    ----------
    realisation, axis, position
        Labels of the slices as in a slice file, shape ``(n_slices,)`` each.
    box_size
        Side of the box, in the units of ``position``.

    Returns
    -------
        Shape ``(n_slices,)``, numbered from 0.
    """
    slab = (axis != AXIS_NOT_APPLICABLE) & np.isfinite(position)
    quarter = np.floor(np.where(slab, position, 0.0) / (_DISTANT * box_size)).astype(np.int64)
    alone = np.where(slab, -1, np.arange(len(axis)))
    return np.unique(np.stack([realisation, axis, quarter, alone]), axis=1, return_inverse=True)[1].ravel()


def error_of_pair_mean(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    r"""Return one standard deviation of the mean over pairs that share their members.

    With residuals e of the pairs, their sums S over all pairs that hold a member and C over those that hold the same
    two, the variance of the mean is :math:`(\sum_{members} S^2 - \sum_{twos} C^2) / n_{pairs}^2`: all products of pairs
    with a member in common, each once (Aronow, Samii & Assenova 2015), times U (U - 1) / ((U - 2) (U - 3)) for U
    members, because the residuals are those from the sample's own mean. Unlike a bootstrap over pairs it knows that one
    unusual slice is in many of them; unlike one over slices it needs no pair of a slice with itself.

    Parameters
    ----------
    values
        One number per pair, shape ``(n_pairs,)``.
    first, second
        The members of each pair, from 0, shape ``(n_pairs,)``: slices, or larger parts that are independent.

    Returns
    -------
        NaN with fewer than two pairs; at least the error of as many independent values.
    """
    n_pairs = len(values)
    if n_pairs < 2:
        return math.nan
    residual = values - values.mean()
    independent = float((residual**2).sum())
    n_members = int(max(first.max(), second.max())) + 1
    different = first != second
    sums = np.bincount(first, residual, n_members) + np.bincount(second, residual * different, n_members)
    low, high = np.minimum(first, second)[different], np.maximum(first, second)[different]
    twos = np.unique(low * n_members + high, return_inverse=True)[1]
    shared = float((sums**2).sum()) - float((np.bincount(twos, residual[different]) ** 2).sum())
    n_present = len(np.unique(np.concatenate([first, second])))
    if n_present > 3:
        shared *= n_present * (n_present - 1) / ((n_present - 2) * (n_present - 3))
    return math.sqrt(max(shared, independent)) / n_pairs


def jackknife_error_of_pair_mean(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Return one standard deviation of the mean over pairs from leaving out one realisation after the other.

    Parameters
    ----------
    values
        One number per pair, shape ``(n_pairs,)``.
    first, second
        The realisations of the two slices of each pair, shape ``(n_pairs,)``.

    Returns
    -------
        NaN where fewer than three realisations leave pairs behind.
    """
    labels = np.unique(np.concatenate([first, second]))
    kept = [(first != label) & (second != label) for label in labels]
    if len(labels) < 3 or not all(mask.any() for mask in kept):
        return math.nan
    means = np.array([values[mask].mean() for mask in kept])
    return math.sqrt((len(labels) - 1) * float(means.var()))
