"""The frame of a summary statistic: what a new file in this folder has to give, and what it gets for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch

from cosmogan.slices import SliceMetadata


class AbstractStatistic(ABC):
    """A vector of numbers per slice, one per bin.

    A statistic is one file with one subclass that gives `edges` and `per_slice`, and its line in `listed.py`. Mean,
    covariance and bootstrap over realisations come from `cosmogan.statistics.accumulator`; the comparison of two files,
    figure and report row from `cosmogan.validation`. The other methods have defaults.

    Attributes
    ----------
    name
        Key in the report's JSON and start of file names.
    title
        Heading for people.
    x_label, x_units, y_label, y_units
        Axes of the figure; ``""`` for a dimensionless axis. Labels may hold matplotlib's ``$...$``.
    log_x, log_y
        Whether the axes are logarithmic.
    discrete
        Whether bins have no order, such as pairs of scales: drawn as points, not as a line.
    correlated
        Whether correlations and variance between slices are compared as well as the means.
    threshold
        Relative difference of the means that is always allowed; 0 for none.
    smallest_side
        Least pixels along a side that the statistic needs.
    family, family_title
        Name and heading of the statistics that closeness takes as one, such as all shapes of triangles; None for one
        that stands alone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    x_label: ClassVar[str]
    x_units: ClassVar[str] = ""
    y_label: ClassVar[str]
    y_units: ClassVar[str] = ""
    log_x: ClassVar[bool] = True
    log_y: ClassVar[bool] = True
    discrete: ClassVar[bool] = False
    correlated: ClassVar[bool] = False
    threshold: ClassVar[float] = 0.0
    smallest_side: ClassVar[int] = 4
    family: ClassVar[str | None] = None
    family_title: ClassVar[str] = ""

    def applies(self, metadata: SliceMetadata) -> bool:
        """Return whether the statistic says something about such slices."""
        return metadata.n_pixels >= self.smallest_side

    @abstractmethod
    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the edges of the bins, shape ``(n_bins + 1,)``, in ``x_units``; the outermost may be infinite."""

    @abstractmethod
    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Measure each slice on its own.

        Parameters
        ----------
        fields
            1 + delta, dimensionless, shape ``(n_slices, n_pixels, n_pixels)``, float32 or float64, on any device.
        metadata
            Metadata of the slices.

        Returns
        -------
            Shape ``(n_slices, n_bins)``, float64, in ``y_units``; NaN in bins that hold nothing in any slice.
        """

    def centres(self, metadata: SliceMetadata) -> np.ndarray:
        """Return where each bin is drawn, shape ``(n_bins,)``, in ``x_units``; NaN for a bin without a place."""
        edges = self.edges(metadata)
        with np.errstate(invalid="ignore"):
            middle = np.sqrt(edges[:-1] * edges[1:]) if self.log_x else 0.5 * (edges[:-1] + edges[1:])
        return np.where(np.isfinite(middle) & ((middle > 0) | (not self.log_x)), middle, np.nan)

    def n_modes(self, metadata: SliceMetadata) -> np.ndarray | None:
        """Return the number of independent samples per bin and slice, shape ``(n_bins,)``, where that is known."""
        return None

    def judged(self, metadata: SliceMetadata, reference: np.ndarray) -> np.ndarray:
        """Return which bins enter the summary numbers, bool of shape ``(n_bins,)``, given the reference's mean."""
        return np.isfinite(reference) & (reference != 0)

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return "all bins"

    def counted(self, reference: np.ndarray, judged: np.ndarray, *, n_slices: int) -> tuple[np.ndarray, str]:
        """Return which bins hold enough for their largest difference to mean something, and the same in words.

        Parameters
        ----------
        reference
            Mean of the simulation, shape ``(n_bins,)``.
        judged
            Bins that `judged` names, bool, shape ``(n_bins,)``.
        n_slices
            Slices of the simulation.
        """
        return judged, self.judged_text()

    def distances(self, mocks: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        """Return named numbers, units in the name, that compare two means of shape ``(n_bins,)``: 0 for equal ones."""
        return {}
