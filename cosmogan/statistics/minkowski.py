"""Minkowski functionals of the regions above a density: area, boundary and Euler characteristic."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.reuse import once_per_tensor

# Thresholds below a pixel are counted in one byte.
_MOST_THRESHOLDS = 255


def minkowski_functionals(fields: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """Area, boundary length and Euler characteristic of the pixels above each threshold, on the torus.

    Pixels are closed unit squares: they belong to one region when they share an edge or a corner. Edges run along the
    axes, so that the boundary of an isotropic region comes out longer than the true one by 4 / pi.

    Parameters
    ----------
    fields
        Shape ``(n_slices, n_pixels, n_pixels)``, periodic.
    thresholds
        Increasing, shape ``(n_thresholds,)``, on the device of ``fields``.

    Returns
    -------
        Shape ``(n_slices, 3, n_thresholds)``, float64, per pixel: the share of pixels above the threshold, the number
        of pixel edges between above and below, and vertices minus edges plus faces.

    Raises
    ------
    ValueError
        If the thresholds do not increase or are more than 255.

    Examples
    --------
    One pixel above: area 1, boundary 4, Euler characteristic 4 - 4 + 1 = 1.

    >>> field = torch.zeros(1, 4, 4)
    >>> field[0, 1, 2] = 1.0
    >>> (16 * minkowski_functionals(field, torch.tensor([0.5])))[0, :, 0].tolist()
    [1.0, 4.0, 1.0]
    """
    if len(thresholds) > _MOST_THRESHOLDS or bool((thresholds.diff() <= 0).any()):
        raise ValueError(f"thresholds: expected at most {_MOST_THRESHOLDS} increasing numbers, got {thresholds}")
    # How many thresholds lie below each pixel: all that is needed, and small.
    passed = torch.bucketize(fields.contiguous(), thresholds.to(fields.dtype)).to(torch.uint8)
    down, right = (torch.maximum(passed, passed.roll(-1, dim)) for dim in (1, 2))
    # An edge or a vertex belongs to the region when any pixel that it touches does.
    faces = _count_above(passed, len(thresholds))
    edges = _count_above(down, len(thresholds)) + _count_above(right, len(thresholds))
    vertices = _count_above(torch.maximum(down, down.roll(-1, 2)), len(thresholds))
    # Four edges to a face; those inside the region are shared by two.
    boundary = 2 * edges - 4 * faces
    return torch.stack([faces, boundary, vertices - edges + faces], 1) / fields[0].numel()


def _count_above(passed: torch.Tensor, n_thresholds: int) -> torch.Tensor:
    """Return how many cells of each slice lie above each threshold, shape ``(n_slices, n_thresholds)``, float64."""
    n_slices, n_bins = len(passed), n_thresholds + 1
    place = passed.flatten(1) + n_bins * torch.arange(n_slices, device=passed.device, dtype=torch.int32)[:, None]
    counts = torch.bincount(place.flatten(), minlength=n_slices * n_bins).reshape(n_slices, n_bins)
    return counts.double().flip(1).cumsum(1).flip(1)[:, 1:]


class AbstractMinkowski(AbstractStatistic):
    """One Minkowski functional of the regions above a density, as a function of that density.

    Parameters
    ----------
    low, high
        Densities 1 + delta between which thresholds are spaced logarithmically.
    per_decade
        Thresholds per factor of ten.

    Attributes
    ----------
    order
        0 for the area, 1 for the boundary, 2 for the Euler characteristic.
    close_to_zero
        Share of the curve's largest value below which a relative difference says nothing.
    """

    x_label: ClassVar[str] = r"threshold $1 + \delta$"
    log_y: ClassVar[bool] = False
    order: ClassVar[int]
    close_to_zero: ClassVar[float]

    def __init__(self, *, low: float = 0.1, high: float = 1e2, per_decade: int = 5) -> None:
        self._edges = np.geomspace(low, high, round(np.log10(high / low) * per_decade) + 1)

    @abstractmethod
    def unit(self, metadata: SliceMetadata) -> float:
        """Return what the functional per pixel is multiplied by to get ``y_units``."""

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return edges half way, in the logarithm, between the thresholds."""
        return self._edges

    def judged(self, metadata: SliceMetadata, reference: np.ndarray) -> np.ndarray:
        """Return the thresholds at which the curve is not close to zero."""
        return np.abs(reference) >= self.close_to_zero * np.abs(reference).max()

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return f"thresholds where the curve is above {self.close_to_zero:g} of its largest value"

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Return the functional at the middle of each bin."""
        return _functionals(fields, tuple(self.centres(metadata).tolist()))[:, self.order] * self.unit(metadata)


@once_per_tensor
def _functionals(fields: torch.Tensor, thresholds: tuple[float, ...]) -> torch.Tensor:
    return minkowski_functionals(fields, torch.tensor(thresholds, dtype=torch.float64, device=fields.device))


class BoundaryLength(AbstractMinkowski):
    """Length of the boundary of the regions above a density, per area.

    Counted along pixel edges, hence 4 / pi longer than a smooth contour; equally so in mocks and simulation. Large for
    thin filaments and for noise.

    Parameters
    ----------
    low, high, per_decade
        Thresholds as for `AbstractMinkowski`.
    """

    name: ClassVar[str] = "boundary_length"
    threshold: ClassVar[float] = 0.03
    title: ClassVar[str] = "Boundary length"
    y_label: ClassVar[str] = "boundary per area"
    y_units: ClassVar[str] = "h/Mpc"
    order: ClassVar[int] = 1
    close_to_zero: ClassVar[float] = 0.05

    def unit(self, metadata: SliceMetadata) -> float:
        """Return the inverse of a pixel's side, h/Mpc."""
        return metadata.n_pixels / metadata.box_size


class EulerCharacteristic(AbstractMinkowski):
    """Euler characteristic of the regions above a density: regions minus holes, per slice.

    Sees what power spectrum and histogram do not: filaments join the peaks of a Gaussian field and enclose voids.

    Parameters
    ----------
    low, high, per_decade
        Thresholds as for `AbstractMinkowski`.
    """

    name: ClassVar[str] = "euler_characteristic"
    threshold: ClassVar[float] = 0.05
    title: ClassVar[str] = "Euler characteristic"
    y_label: ClassVar[str] = "regions - holes per slice"
    order: ClassVar[int] = 2
    # The curve changes its sign.
    close_to_zero: ClassVar[float] = 0.2

    def unit(self, metadata: SliceMetadata) -> float:
        """Return the number of pixels of a slice."""
        return float(metadata.n_pixels**2)
