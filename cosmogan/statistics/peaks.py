"""Peaks and voids: local maxima and minima of a slice, sorted by height."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic

# Window of the maximum filter, as in Rodriguez et al. 2018 (arXiv:1801.09070).
_WINDOW = 5
# Of the Gaussian applied, in pixels, from which minima are voids rather than pixels without a particle.
_LEAST_SMOOTHING_OF_VOIDS = 1.0
# Peaks or voids per slice in the reference below which a bin is too sparse to enter the summary.
_SPARSE = 0.1
# Extrema that a bin must hold in all of the simulation to count for closeness.
_LEAST_EXTREMA = 500


def find_peaks(fields: torch.Tensor) -> torch.Tensor:
    """Mark the pixels that are the largest of the 5 x 5 pixels around them, with periodic neighbours.

    Of several equal pixels in one window the first is marked, row by row.

    Parameters
    ----------
    fields
        Shape ``(n_slices, n_pixels, n_pixels)``, at least 5 pixels along a side.

    Returns
    -------
        Bool, same shape.

    Raises
    ------
    ValueError
        If the slices are smaller than the window.
    """
    side = fields.shape[-1]
    if side < _WINDOW:
        raise ValueError(f"fields: expected at least {_WINDOW} pixels along a side, got {side}")
    reach = _WINDOW // 2
    padded = functional.pad(fields.unsqueeze(1), (reach,) * 4, mode="circular").squeeze(1)
    before, after = _largest(padded, -1, 0, reach), _largest(padded, -1, reach + 1, reach)
    across = torch.maximum(torch.maximum(before, after), padded[..., reach:-reach])
    here = slice(reach, -reach)
    # Of equal pixels the first counts, row by row: all before it in its window are smaller, none behind it is larger.
    earlier = torch.maximum(before[:, here], _largest(across, -2, 0, reach))
    later = torch.maximum(after[:, here], _largest(across, -2, reach + 1, reach))
    return (fields > earlier) & (fields >= later)


def _largest(padded: torch.Tensor, dim: int, start: int, length: int) -> torch.Tensor:
    """Return the largest of some neighbours of each pixel along one dimension, which gets shorter by the padding."""
    n = padded.shape[dim] - (_WINDOW - 1)
    found = padded.narrow(dim, start, n)
    for shift in range(start + 1, start + length):
        found = torch.maximum(found, padded.narrow(dim, shift, n))
    return found


class AbstractExtrema(AbstractStatistic):
    """Number of local extrema per slice against their height 1 + delta.

    Parameters
    ----------
    low, high
        Heights between which bins are logarithmic; one open bin on either side.
    per_decade
        Bins per factor of ten.
    """

    x_label: ClassVar[str] = r"height $1 + \delta$"
    smallest_side: ClassVar[int] = _WINDOW

    def __init__(self, *, low: float, high: float, per_decade: int) -> None:
        n_bins = round(np.log10(high / low) * per_decade)
        self._inner = np.geomspace(low, high, n_bins + 1)

    @abstractmethod
    def find(self, fields: torch.Tensor) -> torch.Tensor:
        """Mark the extrema: bool, the shape of ``fields``."""

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the edges of the bins in 1 + delta; the outermost are 0 and infinity."""
        return np.concatenate([[0.0], self._inner, [np.inf]])

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Return the number of extrema in each bin."""
        inner = torch.from_numpy(self._inner).to(fields.device)
        found, n_bins = self.find(fields), len(inner) + 1
        place = torch.bucketize(fields[found].double(), inner, right=True)
        place += n_bins * found.nonzero()[:, 0]
        counts = torch.bincount(place, minlength=len(fields) * n_bins)
        return counts.reshape(len(fields), n_bins).double()

    def judged(self, metadata: SliceMetadata, reference: np.ndarray) -> np.ndarray:
        """Return the bins with at least one extremum in ten slices."""
        return super().judged(metadata, reference) & (reference >= _SPARSE)

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return f"bins with at least {_SPARSE:g} {self.name} per slice"

    def counted(self, reference: np.ndarray, judged: np.ndarray, *, n_slices: int) -> tuple[np.ndarray, str]:
        """Return the bins with 500 extrema in the simulation: these scatter by 4.5% at least."""
        return reference * n_slices >= _LEAST_EXTREMA, f"bins with at least {_LEAST_EXTREMA} {self.name}"


class Peaks(AbstractExtrema):
    """Number of local maxima per slice against their height 1 + delta.

    Parameters
    ----------
    low, high, per_decade
        Bins as for `AbstractExtrema`.
    """

    name: ClassVar[str] = "peaks"
    threshold: ClassVar[float] = 0.05
    title: ClassVar[str] = "Peaks by height"
    y_label: ClassVar[str] = "peaks per slice"

    def __init__(self, *, low: float = 0.1, high: float = 1e3, per_decade: int = 5) -> None:
        super().__init__(low=low, high=high, per_decade=per_decade)

    def find(self, fields: torch.Tensor) -> torch.Tensor:
        """Mark the peaks; see `find_peaks`."""
        return find_peaks(fields)


class Voids(AbstractExtrema):
    """Number of local minima per slice against their depth, the density 1 + delta at the minimum.

    For fields smoothed by a pixel or more. Of the minima of bare counts (2 per pixel, 256 x 256 pixels of 70
    Mpc/h) nine in ten have an equal neighbour: most are plateaus of empty pixels larger than the window, counted as
    often as their shape along the rows has it. After smoothing by half a pixel 8% have, and two minima in three lie
    below ``low``; by one pixel 0.2% and one in ten.

    Parameters
    ----------
    low, high, per_decade
        Bins as for `AbstractExtrema`.
    """

    name: ClassVar[str] = "voids"
    threshold: ClassVar[float] = 0.05
    title: ClassVar[str] = "Voids by depth"
    y_label: ClassVar[str] = "voids per slice"

    def __init__(self, *, low: float = 1e-2, high: float = 10.0, per_decade: int = 5) -> None:
        super().__init__(low=low, high=high, per_decade=per_decade)

    def applies(self, metadata: SliceMetadata) -> bool:
        """Return whether slices are smooth enough for their minima to be no ties."""
        return super().applies(metadata) and metadata.smoothing >= _LEAST_SMOOTHING_OF_VOIDS

    def find(self, fields: torch.Tensor) -> torch.Tensor:
        """Mark the voids: the peaks of the field turned over."""
        return find_peaks(-fields)
