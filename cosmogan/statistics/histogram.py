"""Pixel histogram of 1 + delta, the distances between two histograms, and the tail: the histogram summed from above."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from scipy.special import rel_entr

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic

# Share of the reference's pixels below which a bin is too sparse to enter the summary: 0.7 pixels of 256 x 256.
_SPARSE = 1e-5
# An empty bin counts as if it held this share of the pixels; far below one pixel of any set of slices.
_EMPTY = 1e-12
# Pixels beyond the 0.01th and the 99.99th percentile are too few for a bin to count for closeness.
_RAREST_PIXELS = 1e-4
# Pixels per slice of the reference above a threshold below which it is too sparse to enter the summary, as for peaks.
_SPARSE_TAIL = 0.1


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
    # 32 bits suffice and halve what is moved through memory.
    place = torch.bucketize(pixels.double(), edges.double(), right=True, out_int32=True)
    place += n_bins * torch.arange(n_slices, device=place.device, dtype=torch.int32)[:, None]
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
    return float(np.sum(rel_entr(p[held], np.where(q > 0, q, _EMPTY)[held])))


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


def wasserstein(p: np.ndarray, q: np.ndarray, edges: np.ndarray) -> float:
    r"""Wasserstein-1 distance :math:`\int |F_p(x) - F_q(x)|\, dx` between two histograms, in the units of ``edges``.

    How far a pixel's value has to be moved, on average, to make one distribution of the other. At the edges the
    cumulative distributions F are known; between them they count as straight lines. What lies in a bin without an end
    counts as if it lay at its beginning.

    Parameters
    ----------
    p, q
        Shares per bin, shape ``(n_bins,)``; normalised here.
    edges
        Increasing edges of the bins, shape ``(n_bins + 1,)``; the last may be infinite.

    Raises
    ------
    ValueError
        As `kl_divergence`, or if the number of edges does not fit.

    Examples
    --------
    >>> wasserstein(np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.0, 1.0, 2.0]))
    1.0
    """
    p, q = _normalised(p, "p"), _normalised(q, "q")
    if not len(p) == len(q) == len(edges) - 1:
        raise ValueError(f"p, q: expected {len(edges) - 1} bins, as the edges have, got {len(p)} and {len(q)}")
    apart = np.concatenate([[0.0], np.cumsum(p - q)])
    low, high = apart[:-1], apart[1:]
    size = np.abs(low) + np.abs(high)
    # Where a line crosses zero it leaves two triangles in place of a trapezium.
    area = 0.5 * np.where(low * high < 0, (low**2 + high**2) / np.where(size > 0, size, 1), size)
    ended = np.isfinite(edges[1:])
    return float(np.sum(area[ended] * np.diff(edges)[ended]))


def _log_edges(low: float, high: float, per_decade: int) -> np.ndarray:
    if not 0 < low < high or per_decade < 1:
        raise ValueError(f"low, high, per_decade: expected 0 < low < high, got {low}, {high}, {per_decade}")
    return np.geomspace(low, high, max(1, round(per_decade * math.log10(high / low))) + 1)


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
    threshold: ClassVar[float] = 0.04
    title: ClassVar[str] = "Pixel histogram"
    x_label: ClassVar[str] = r"$1 + \delta$"
    y_label: ClassVar[str] = "share of pixels per bin"

    def __init__(self, *, low: float = 1e-2, high: float = 1e4, per_decade: int = 10) -> None:
        self._inner = _log_edges(low, high, per_decade)

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the edges of 1 + delta, from 0 to infinity."""
        return self._edges()

    def _edges(self) -> np.ndarray:
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

    def counted(self, reference: np.ndarray, judged: np.ndarray, *, n_slices: int) -> tuple[np.ndarray, str]:
        """Return the bins that hold a pixel from the 0.01th to the 99.99th percentile of the simulation."""
        below = np.concatenate([[0.0], np.cumsum(reference)])
        inside = (below[1:] > _RAREST_PIXELS) & (below[:-1] < 1 - _RAREST_PIXELS) & (reference > 0)
        return inside, f"percentiles {100 * _RAREST_PIXELS:g} to {100 - 100 * _RAREST_PIXELS:g}"

    def distances(self, mocks: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        """Return distances between two mean histograms; the units stand in their names."""
        return {
            "D(reference||mocks), nats": kl_divergence(reference, mocks),
            "D(mocks||reference), nats": kl_divergence(mocks, reference),
            "Jensen-Shannon, nats": jensen_shannon(mocks, reference),
            "Wasserstein-1, 1 + delta": wasserstein(mocks, reference, self._edges()),
        }


class Tail(AbstractStatistic):
    """Share of the pixels at or above a density, out to the densest pixels: the upper end of `Histogram`, summed.

    A bin of the histogram that holds few pixels says little, and one that mocks leave empty beyond their densest pixel
    is one of many; in the sum from above every threshold beyond that pixel is off by 100%. The thresholds are fixed and
    those of `Histogram`; with the default they end far above any pixel of a simulation.

    Parameters
    ----------
    low, high
        Lowest and highest threshold, 1 + delta.
    per_decade
        Thresholds per factor of 10.
    """

    name: ClassVar[str] = "tail"
    # Of rare pixels, down to some hundred of them.
    threshold: ClassVar[float] = 0.10
    title: ClassVar[str] = "Cumulative tail"
    x_label: ClassVar[str] = r"threshold $1 + \delta$"
    y_label: ClassVar[str] = "share of pixels above"

    def __init__(self, *, low: float = 1.0, high: float = 1e4, per_decade: int = 10) -> None:
        self._thresholds = _log_edges(low, high, per_decade)

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return edges half way, in the logarithm, between the thresholds."""
        half = math.sqrt(self._thresholds[1] / self._thresholds[0])
        return np.append(self._thresholds / half, self._thresholds[-1] * half)

    def centres(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the thresholds."""
        return self._thresholds.copy()

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Return the share of pixels at or above each threshold."""
        shares = histogram(fields, torch.from_numpy(self._thresholds).to(fields.device))
        return shares.flip(1).cumsum(1).flip(1)[:, 1:]

    def judged(self, metadata: SliceMetadata, reference: np.ndarray) -> np.ndarray:
        """Return the thresholds with at least one pixel above them in ten slices of the reference."""
        return reference * metadata.n_pixels**2 >= _SPARSE_TAIL

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return f"thresholds with at least {_SPARSE_TAIL:g} pixels above per slice"
