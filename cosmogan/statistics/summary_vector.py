"""Numbers per slice that a classifier of summary statistics learns from, by octave of k and by threshold of density.

Of ln(1 + delta + .05), in which voids count as much as peaks: its power, and the shape of the distribution of its
values after a sharp band-pass or low-pass. Of the density: the share of pixels above a threshold, and the length of the
boundary of what is above.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.power_spectrum import radial_bins

# In units of the mean density; keeps the logarithm of empty pixels finite.
LOG_OFFSET = 0.05
# Quantiles of a filtered field in units of its standard deviation.
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
# 1 + delta, in steps of about a factor of two.
THRESHOLDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
# Keeps the logarithm of nothing finite.
_TINY = 1e-12
# Slices transformed at a time.
_AT_A_TIME = 256
# Rings of P(k) in the vector of all, equal in ln k.
_RINGS_PER_OCTAVE = 3


def octaves(metadata: SliceMetadata) -> list[tuple[float, float]]:
    """Return the ends of the octaves of k, h/Mpc, from the Nyquist wave number down to the fundamental one.

    The lowest is the rest, and may be shorter.
    """
    edges = [metadata.nyquist]
    while edges[-1] / 2 > 1.2 * metadata.fundamental:
        edges.append(edges[-1] / 2)
    # The fundamental mode itself belongs to the lowest.
    edges.append(0.99 * metadata.fundamental)
    return list(zip(edges[1:], edges[:-1], strict=True))[::-1]


def filtered_features(density: np.ndarray, metadata: SliceMetadata, low: float, high: float) -> np.ndarray:
    """Return numbers on ln(1 + delta + .05), with waves from ``low`` to ``high`` only.

    Parameters
    ----------
    density
        1 + delta, shape ``(n, side, side)``.
    metadata
        Metadata of the slices.
    low, high
        Wave numbers, h/Mpc.

    Returns
    -------
        Shape ``(n, 13)``, float64: ln of the variance, skewness, kurtosis, ln of the mean fourth power of the gradient
        over the squared mean of its square, smallest and largest value and seven quantiles in units of the standard
        deviation.
    """
    side = density.shape[-1]
    k_1d = 2 * np.pi / metadata.box_size * np.fft.fftfreq(side, 1 / side)
    k = np.hypot(k_1d[:, None], np.abs(k_1d[: side // 2 + 1]))
    passed = (k >= low) & (k <= high)
    parts = []
    for block in _blocks(density):
        modes = fft.rfft2(np.log(block.astype(np.float32) + np.float32(LOG_OFFSET))) * passed
        field = fft.irfft2(modes, s=(side, side))
        field -= field.mean((1, 2), keepdims=True)
        scale = np.sqrt(np.maximum((field * field).mean((1, 2), dtype=np.float64), _TINY))
        field /= scale[:, None, None].astype(field.dtype)
        slopes = [np.square(np.roll(field, 1, axis) - field) for axis in (1, 2)]
        second = sum(s.mean((1, 2), dtype=np.float64) for s in slopes)
        fourth = sum((s * s).mean((1, 2), dtype=np.float64) for s in slopes)
        steep = fourth / np.maximum(second**2, _TINY)
        pixels = field.reshape(len(field), -1)
        ranks = [round(share * (pixels.shape[1] - 1)) for share in _QUANTILES]
        quantiles = np.partition(pixels, ranks, axis=1)[:, ranks]
        squares = pixels * pixels
        columns = [
            2 * np.log(scale),
            (squares * pixels).mean(1, dtype=np.float64),
            (squares * squares).mean(1, dtype=np.float64),
            np.log(np.maximum(steep, _TINY)),
            pixels.min(1),
            pixels.max(1),
        ]
        parts.append(np.column_stack([*columns, quantiles]))
    return np.concatenate(parts)


def threshold_features(density: np.ndarray, threshold: float) -> np.ndarray:
    """Return the share of pixels above a threshold and the length of their boundary.

    Parameters
    ----------
    density
        1 + delta, shape ``(n, side, side)``, periodic.
    threshold
        In units of the mean density.

    Returns
    -------
        Shape ``(n, 3)``: share of the pixels, sides between pixels above and below per pixel, and isolated ones: the
        share of pixels above whose four neighbours are all below.
    """
    parts = []
    for block in _blocks(density):
        above = block > threshold
        sides = [above != np.roll(above, 1, axis) for axis in (1, 2)]
        alone = above.copy()
        for axis in (1, 2):
            for step in (1, -1):
                alone &= ~np.roll(above, step, axis)
        columns = [above.mean((1, 2)), sum(s.mean((1, 2)) for s in sides), alone.mean((1, 2))]
        parts.append(np.column_stack(columns))
    return np.concatenate(parts)


def power_features(density: np.ndarray) -> np.ndarray:
    """Return ln P of 1 + delta and of ln(1 + delta + .05) in rings of equal width in ln k.

    Returns
    -------
        Shape ``(n, 2 n_rings)``, in units of pixels.
    """
    side = density.shape[-1]
    bins = radial_bins(side)
    centres = bins.centres.numpy()
    index, weight = bins.index.numpy(), bins.weight.numpy()
    # Ring of P(k) -> ring of equal width in ln k.
    coarse = np.floor(_RINGS_PER_OCTAVE * np.log2(centres / centres[0]) + 1e-9).astype(int)
    coarse = np.append(np.unique(coarse, return_inverse=True)[1], -1)[index]
    n_rings = int(coarse.max()) + 1
    inside = coarse >= 0
    flat = np.where(inside, coarse, n_rings)
    number = np.bincount(flat, weight, minlength=n_rings + 1)[:n_rings]
    parts = []
    for block in _blocks(density):
        columns = []
        for field in (block.astype(np.float64), np.log(block.astype(np.float64) + LOG_OFFSET)):
            squares = (np.abs(fft.rfft2(field)) ** 2).reshape(len(block), -1) * weight
            sums = np.stack([np.bincount(flat, row, minlength=n_rings + 1)[:n_rings] for row in squares])
            columns.append(np.log(np.maximum(sums / number / side**2, _TINY)))
        parts.append(np.concatenate(columns, 1))
    return np.concatenate(parts)


def _blocks(density: np.ndarray) -> list[np.ndarray]:
    n_parts = max(1, math.ceil(len(density) / _AT_A_TIME))
    return np.array_split(density, n_parts)
