"""Minkowski functionals of the regions above a density: area, boundary and Euler characteristic."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic

# Share of the curve's largest value below which a relative difference says nothing.
_CLOSE_TO_ZERO = 0.2


def minkowski_functionals(fields: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Area, boundary length and Euler characteristic of the pixels above each threshold, on the torus.

    Pixels are closed unit squares: they belong to one region when they share an edge or a corner. Edges run along the
    axes, so that the boundary of an isotropic region comes out longer than the true one by 4 / pi.

    Parameters
    ----------
    fields
        Shape ``(n_slices, n_pixels, n_pixels)``, periodic.
    thresholds
        Shape ``(n_thresholds,)``, on the device of ``fields``.

    Returns
    -------
        Shape ``(n_slices, 3, n_thresholds)``, float64, per pixel: the share of pixels above the threshold, the number
        of pixel edges between above and below, and vertices minus edges plus faces.

    Examples
    --------
    One pixel above: area 1, boundary 4, Euler characteristic 4 - 4 + 1 = 1.

    >>> field = torch.zeros(1, 4, 4)
    >>> field[0, 1, 2] = 1.0
    >>> (16 * minkowski_functionals(field, torch.tensor([0.5])))[0, :, 0].tolist()
    [1.0, 4.0, 1.0]
    """
    results = []
    for threshold in thresholds:
        above = fields > threshold
        below_right = above.roll(-1, 1).roll(-1, 2)
        down, right = above.roll(-1, 1), above.roll(-1, 2)
        faces = _count(above)
        # An edge or a vertex belongs to the region when any pixel that it touches does.
        edges = _count(above | down) + _count(above | right)
        vertices = _count(above | down | right | below_right)
        boundary = _count(above ^ down) + _count(above ^ right)
        results.append(torch.stack([faces, boundary, vertices - edges + faces], 1))
    return torch.stack(results, 2).double() / fields[0].numel()


def _count(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.sum((1, 2))


class EulerCharacteristic(AbstractStatistic):
    """Euler characteristic of the regions above a density: regions minus holes, per slice.

    Sees what power spectrum and histogram do not: filaments join the peaks of a Gaussian field and enclose voids.

    Parameters
    ----------
    low, high
        Densities 1 + delta between which thresholds are spaced logarithmically.
    per_decade
        Thresholds per factor of ten.
    """

    name: ClassVar[str] = "euler_characteristic"
    title: ClassVar[str] = "Euler characteristic"
    x_label: ClassVar[str] = r"threshold $1 + \delta$"
    y_label: ClassVar[str] = "regions - holes per slice"
    log_y: ClassVar[bool] = False

    def __init__(self, *, low: float = 0.1, high: float = 1e2, per_decade: int = 5) -> None:
        self._edges = np.geomspace(low, high, round(np.log10(high / low) * per_decade) + 1)

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return edges half way, in the logarithm, between the thresholds."""
        return self._edges

    def judged(self, metadata: SliceMetadata, reference: np.ndarray) -> np.ndarray:
        """Return the thresholds at which the curve is not close to one of its zeros."""
        return np.abs(reference) >= _CLOSE_TO_ZERO * np.abs(reference).max()

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return f"thresholds where the curve is above {_CLOSE_TO_ZERO:g} of its largest value"

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Return the Euler characteristic at the middle of each bin."""
        thresholds = torch.from_numpy(self.centres(metadata)).to(fields.device)
        return minkowski_functionals(fields, thresholds)[:, 2] * metadata.n_pixels**2
