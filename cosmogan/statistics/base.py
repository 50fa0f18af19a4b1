"""The frame of a summary statistic: what a new file in this folder has to give, and what it gets for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch

from cosmogan.slices import SliceMetadata


class AbstractStatistic(ABC):
    """A vector of numbers per slice, one per bin.

    A statistic is one file with one subclass that gives `edges` and `per_slice`. Mean, covariance, bootstrap over
    realisations, merging of shards and the sum over processes come from `cosmogan.statistics.accumulator`; the
    comparison of two files, figure and report row from `cosmogan.validation`. The other methods have defaults.

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
            What the pixels are.

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

    def distances(self, mocks: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        """Return named numbers, units in the name, that compare two means of shape ``(n_bins,)``: 0 for equal ones."""
        return {}
