"""Pixel histogram of 1 + delta and the information distances between two histograms."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic

# Share of the reference's pixels below which a bin is too sparse to enter the summary: 0.7 pixels of 256 x 256.
_SPARSE = 1e-5
# An empty bin counts as if it held this share of the pixels; far below one pixel of any set of slices.
_EMPTY = 1e-12


def histogram(fields: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Share of the pixels of each slice in each bin.

    Parameters
    ----------
    fields
        Pixel values, shape ``(n_slices, n_pixels, n_pixels)``; NaN is counted with the highest values.
    edges
        Increasing edges, shape ``(n_edges,)``, on the device of ``fields``. Lower edges are inclusive. Values below the
        first and from the last edge on have bins of their own, so that nothing is lost.

    Returns
    -------
        Shape ``(n_slices, n_edges + 1)``, float64, dimensionless; each row sums to 1.

    Raises
    ------
    ValueError
        If a slice has no pixels.

    Examples
    --------
    >>> histogram(torch.tensor([[[0.0, 1.0], [1.5, 7.0]]]), torch.tensor([1.0, 2.0])).tolist()
    [[0.25, 0.5, 0.25]]
    """
    pixels = fields.flatten(1)
    if pixels.shape[1] == 0:
        raise ValueError(f"fields: expected slices with pixels, got shape {tuple(fields.shape)}")
    n_slices, n_bins = len(pixels), len(edges) + 1
    place = torch.bucketize(pixels.double(), edges.double(), right=True)
    place = place + n_bins * torch.arange(n_slices, device=place.device)[:, None]
    counts = torch.bincount(place.flatten(), minlength=n_slices * n_bins).reshape(n_slices, n_bins)
    return counts.double() / pixels.shape[1]


def kl_divergence(p: np.ndarray, q: np.ndarray) -> float:
    r"""Kullback-Leibler divergence :math:`D(p||q) = \sum p \ln(p/q)` in nats.

    With p the simulation and q the mocks it punishes missing variety, the other way round implausible pixels.

    Bins empty in p add nothing. Where q is empty and p is not the definition is infinite; such a q counts as 1e-12, so
    that a share s of the pixels in places where q has none costs about ``s ln(s / 1e-12)`` and the result stays finite.

    Parameters
    ----------
    p, q
        Shares per bin, shape ``(n_bins,)``; normalised here.

    Raises
    ------
    ValueError
        If the shapes differ, or one holds negative numbers, NaN or nothing at all.

    Examples
    --------
    >>> round(kl_divergence(np.array([0.5, 0.5]), np.array([0.25, 0.75])), 6)
    0.143841
    """
    p, q = _normalised(p, "p"), _normalised(q, "q")
    if p.shape != q.shape:
        raise ValueError(f"p and q: expected the same bins, got shapes {p.shape} and {q.shape}")
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / np.where(q > 0, q, _EMPTY)[held])))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence in nats: symmetric, between 0 and ln 2, finite whichever bins are empty.

    Parameters
    ----------
    p, q
        Shares per bin, shape ``(n_bins,)``; normalised here.

    Raises
    ------
    ValueError
        As `kl_divergence`.

    Examples
    --------
    >>> round(jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])), 6)
    0.693147
    """
    p, q = _normalised(p, "p"), _normalised(q, "q")
    middle = 0.5 * (p + q)
    return 0.5 * (kl_divergence(p, middle) + kl_divergence(q, middle))


def _normalised(shares: np.ndarray, name: str) -> np.ndarray:
    shares = np.asarray(shares, dtype=np.float64)
    total = shares.sum()
    if not (math.isfinite(total) and total > 0 and (shares >= 0).all()):
        raise ValueError(f"{name}: expected shares >= 0 of which some are positive, got sum {total}")
    return shares / total


class Histogram(AbstractStatistic):
    """Share of pixels in logarithmic bins of 1 + delta, with a bin for everything below and one for everything above.

    Parameters
    ----------
    low, high
        Range of 1 + delta covered by the logarithmic bins. Empty pixels (0) fall into the bin below ``low``.
    per_decade
        Bins per factor of 10.
    """

    name: ClassVar[str] = "histogram"
    title: ClassVar[str] = "Pixel histogram"
    x_label: ClassVar[str] = r"$1 + \delta$"
    y_label: ClassVar[str] = "share of pixels per bin"
    distance_units: ClassVar[str] = "nats"

    def __init__(self, *, low: float = 1e-2, high: float = 1e4, per_decade: int = 10) -> None:
        if not 0 < low < high or per_decade < 1:
            raise ValueError(f"low, high, per_decade: expected 0 < low < high, got {low}, {high}, {per_decade}")
        n_bins = max(1, round(per_decade * math.log10(high / low)))
        self._inner = np.geomspace(low, high, n_bins + 1)

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the edges of 1 + delta, from 0 to infinity."""
        return np.concatenate([[0.0], self._inner, [np.inf]])

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Return the share of pixels per bin; see `histogram`."""
        return histogram(fields, torch.from_numpy(self._inner).to(fields.device))

    def judged(self, metadata: SliceMetadata, reference: np.ndarray) -> np.ndarray:
        """Return the bins that hold at least 1e-5 of the reference's pixels."""
        return reference >= _SPARSE

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return f"bins with at least {_SPARSE:g} of the reference's pixels"

    def distances(self, mocks: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        """Return the divergences between two mean histograms, nats."""
        return {
            "D(reference||mocks)": kl_divergence(reference, mocks),
            "D(mocks||reference)": kl_divergence(mocks, reference),
            "Jensen-Shannon": jensen_shannon(mocks, reference),
        }
