"""The smoothing of slices as the format defines it: a Gaussian sampled at the pixels, cut at 4 sigma, periodic."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

# Where the Gaussian is cut, in sigma: part of the definition of `smoothing` in the slice file.
TRUNCATE = 4.0


def gaussian_taps(sigma: float) -> np.ndarray:
    """Return the taps of a Gaussian of ``sigma`` pixels, shape ``(n_taps,)``, float64, with sum 1; one tap for 0."""
    reach = int(TRUNCATE * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2) if sigma else np.ones(1)
    return np.asarray(taps / taps.sum())


def smooth(fields: np.ndarray, sigma: float) -> np.ndarray:
    """Return fields smoothed along their last two axes.

    Parameters
    ----------
    fields
        Shape ``(..., n_pixels, n_pixels)``.
    sigma
        Pixels; 0 for none.
    """
    if not sigma:
        return fields
    sigmas = (0.0,) * (fields.ndim - 2) + (sigma, sigma)
    return np.asarray(gaussian_filter(fields, sigmas, mode="wrap", truncate=TRUNCATE))
