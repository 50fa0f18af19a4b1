"""Power spectrum of slices: modes sorted into rings on the integer lattice, averaged over the full plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.units import fundamental_wavenumber

Binning = Literal["linear", "log", "rodriguez2018"]

# Edges, not bins: np.logspace(..., 50) in the analysis code of Rodriguez et al. 2018 (arXiv:1801.09070).
_RODRIGUEZ2018_EDGES = 50
# Pixels transformed at a time on a CPU: the modes of 4 slices of 256 x 256 stay in its cache.
_PIXELS_AT_A_TIME = 2**18
# Close to Nyquist the pixel window and the missing corners of the plane distort P(k); codes are compared below this.
TRUSTED_NYQUIST_FRACTION = 0.9


@dataclass(frozen=True, eq=False, kw_only=True)
class RadialBins:
    """Which ring each Fourier mode of a square slice belongs to; built once by `radial_bins` and used for every batch.

    Lengths of wave vectors are in units of the fundamental wave number ``2 pi / L``, so one object serves all box
    sizes.

    Parameters
    ----------
    n_pixels
        Pixels along a side.
    binning
        Binning as given to `radial_bins`.
    edges
        Edges of the rings, shape ``(n_bins + 1,)``, float64, units of the fundamental; lower edges are inclusive.
    centres
        Mean length of the wave vectors of each ring (for ``"rodriguez2018"`` the middle of the ring), shape
        ``(n_bins,)``, float64, units of the fundamental; NaN for an empty ring.
    index
        Ring of each mode of the half plane of ``rfft2``, shape ``(n_pixels * (n_pixels // 2 + 1),)``, int64; modes in
        no ring carry ``n_bins``.
    weight
        Number of times that each of these modes occurs in the full plane, 1 or 2, same shape, float64.
    n_plane
        Modes of the full plane per ring, shape ``(n_bins,)``, float64. For a Gaussian field ``n_plane`` times the
        measured over the true power of one slice follows chi squared with ``n_plane`` degrees of freedom.
    n_modes
        Independent modes per ring (a wave vector and its opposite are one), shape ``(n_bins,)``, float64.
    """

    n_pixels: int
    binning: str
    edges: torch.Tensor
    centres: torch.Tensor
    index: torch.Tensor
    weight: torch.Tensor
    n_plane: torch.Tensor
    n_modes: torch.Tensor

    @property
    def n_bins(self) -> int:
        """Number of rings."""
        return len(self.n_plane)

    def wavenumbers(self, box_size: float) -> torch.Tensor:
        """Return the k of each ring in h/Mpc, shape ``(n_bins,)``, for a box of side ``box_size`` in Mpc/h."""
        return self.centres * fundamental_wavenumber(box_size)

    def to(self, device: torch.device | str) -> RadialBins:
        """Return the same bins with their tensors on another device."""
        moved: dict[str, Any] = {
            name: v.to(device) if isinstance(v, torch.Tensor) else v for name, v in vars(self).items()
        }
        return RadialBins(**moved)


@lru_cache(maxsize=32)
def radial_bins(
    n_pixels: int, binning: Binning = "linear", *, n_bins: int | None = None, to_corner: bool = False
) -> RadialBins:
    """Sort the Fourier modes of a square slice into rings, in integer arithmetic.

    A mode ``(n_x, n_y)`` is placed by ``n_x^2 + n_y^2``: floating lengths that fall on an edge would move modes between
    rings and change single rings by up to 15%. The mean mode ``(0, 0)`` is in no ring.

    Parameters
    ----------
    n_pixels
        Pixels along a side.
    binning
        ``"linear"``: edges at multiples of the fundamental. ``"log"``: edges at those multiples that come nearest to
        equal steps in the logarithm, so no ring is empty. ``"rodriguez2018"``: 50 logarithmic edges from the
        fundamental to the corner, with k the middle of the ring; several rings are empty. Averages are over the full
        plane in all cases: analysis codes of that lineage average over the half plane of ``rfft2``, in which modes
        along one axis weigh double; as unbiased, but different in a single slice.
    n_bins
        Rings aimed at by ``"log"`` (fewer at small n, where edges coincide), 20 if not given; for no other binning.
    to_corner
        Go on to the corner of the plane, ``sqrt(2)`` times Nyquist, instead of stopping at Nyquist.

    Returns
    -------
        The rings; the same object for the same arguments, on the CPU.

    Raises
    ------
    ValueError
        If ``n_pixels`` is below 4, ``binning`` is unknown or ``n_bins`` does not apply.
    """
    if n_pixels < 4:
        raise ValueError(f"n_pixels: expected at least 4 pixels along a side, got {n_pixels}")
    if n_bins is not None and (binning != "log" or n_bins < 1):
        raise ValueError(f"n_bins: a positive number for binning='log' only, got {n_bins} for {binning!r}")
    half = n_pixels // 2
    corner_squared = 2 * half**2
    # The first integer length above the corner closes the last ring.
    last = math.isqrt(corner_squared) + 1 if to_corner else half
    if binning == "linear":
        edges = np.arange(1.0, last + 1)
        thresholds = (edges**2).astype(np.int64)
    elif binning == "log":
        edges = np.unique(np.rint(np.geomspace(1, last, (n_bins or 20) + 1)))
        thresholds = (edges**2).astype(np.int64)
    elif binning == "rodriguez2018":
        edges = np.geomspace(1, math.sqrt(corner_squared), _RODRIGUEZ2018_EDGES)
        thresholds = np.ceil(edges**2).astype(np.int64)
        # The corner itself belongs to the last ring, as in np.histogram; the first edge is 1 whatever the rounding.
        thresholds[0], thresholds[-1] = 1, corner_squared + 1
    else:
        raise ValueError(f"binning: expected 'linear', 'log' or 'rodriguez2018', got {binning!r}")

    rows = np.rint(np.fft.fftfreq(n_pixels, 1 / n_pixels)).astype(np.int64)
    columns = np.arange(half + 1)
    squared = (rows[:, None] ** 2 + columns**2).ravel()
    n_rings = len(edges) - 1
    index = np.searchsorted(thresholds, squared, side="right") - 1
    index[(squared < thresholds[0]) | (squared >= thresholds[-1])] = n_rings

    # Columns 0 and, for even N, N/2 hold both a mode and its opposite; the others stand for two modes.
    alone = (columns == 0) | (2 * columns == n_pixels)
    weight = np.broadcast_to(np.where(alone, 1.0, 2.0), (n_pixels, half + 1)).ravel()
    own_opposite = ((2 * rows % n_pixels == 0)[:, None] & (2 * columns % n_pixels == 0)).ravel()

    def per_ring(values: np.ndarray) -> np.ndarray:
        return np.bincount(index, values, minlength=n_rings + 1)[:n_rings]

    n_plane = per_ring(weight)
    with np.errstate(invalid="ignore"):
        mean_length = per_ring(weight * np.sqrt(squared)) / n_plane
    middle = np.where(n_plane > 0, 0.5 * (edges[:-1] + edges[1:]), np.nan)
    return RadialBins(
        n_pixels=n_pixels,
        binning=binning,
        edges=torch.from_numpy(edges),
        centres=torch.from_numpy(middle if binning == "rodriguez2018" else mean_length),
        index=torch.from_numpy(index),
        weight=torch.from_numpy(weight.copy()),
        n_plane=torch.from_numpy(n_plane),
        n_modes=torch.from_numpy(0.5 * (n_plane + per_ring(own_opposite.astype(np.float64)))),
    )


def power_spectrum(delta: torch.Tensor, box_size: float, *, bins: RadialBins | None = None) -> torch.Tensor:
    r"""Power spectrum of each slice, averaged over direction.

    Convention: :math:`P(k) = L^2 N^{-4} \langle |\mathrm{FFT}(\delta)|^2 \rangle`, so white noise of variance
    :math:`\sigma^2` has :math:`P = \sigma^2 (L/N)^2`, and the sum of P over all modes of the plane is
    :math:`L^2 \, \mathrm{var}(\delta)`. Shot noise is not subtracted and no window is divided out. The transform runs
    in the precision of ``delta`` (at least float32), the sums in float64; differentiable.

    Parameters
    ----------
    delta
        Overdensity with respect to the mean of the whole box, not of the slice, dimensionless, shape
        ``(n_slices, n_pixels, n_pixels)``.
    box_size
        Side of the slice, comoving Mpc/h.
    bins
        Rings from `radial_bins`, on the device of ``delta``; by default linear rings up to Nyquist.

    Returns
    -------
        Shape ``(n_slices, n_bins)``, float64, (Mpc/h)^2. Empty bins are NaN.

    Raises
    ------
    ValueError
        If the slices are not square, ``box_size`` is not positive or ``bins`` belongs to another number of pixels.

    Examples
    --------
    >>> x = torch.arange(16) * 2 * torch.pi / 16
    >>> wave = torch.cos(3 * x).expand(1, 16, 16)
    >>> power = power_spectrum(wave, 100.0)
    >>> [round(float(p), 3) for p in power[0]]
    [0.0, 0.0, 250.0, 0.0, 0.0, 0.0, 0.0]
    """
    return ring_means(delta, box_size, bins)


def ring_means(
    delta: torch.Tensor, box_size: float, bins: RadialBins | None, *, second: torch.Tensor | None = None
) -> torch.Tensor:
    """Average the product of the modes of two slices, or the square of those of one, over rings.

    Parameters
    ----------
    delta, box_size, bins
        Slices, side and rings, as for `power_spectrum`.
    second
        Shape of ``delta``; ``delta`` itself if not given.

    Returns
    -------
        As `power_spectrum`; the real part for two slices.

    Raises
    ------
    ValueError
        As `power_spectrum`.
    """
    if delta.ndim != 3 or delta.shape[1] != delta.shape[2]:
        raise ValueError(f"delta: expected shape (n_slices, n_pixels, n_pixels), got {tuple(delta.shape)}")
    if not (math.isfinite(box_size) and box_size > 0):
        raise ValueError(f"box_size: expected a positive length in Mpc/h, got {box_size}")
    n_pixels = delta.shape[-1]
    if bins is None:
        bins = radial_bins(n_pixels).to(delta.device)
    if bins.n_pixels != n_pixels:
        raise ValueError(f"bins: made for {bins.n_pixels} pixels along a side, but the slices have {n_pixels}")
    step = max(1, _PIXELS_AT_A_TIME // n_pixels**2 if delta.device.type == "cpu" else len(delta))
    parts = [(part, None) for part in delta.split(step)]
    if second is not None:
        parts = list(zip(delta.split(step), second.split(step), strict=True))
    rings = torch.cat([_ring_sums(part, other, bins) for part, other in parts])
    return rings * (box_size**2 / n_pixels**4) / bins.n_plane


def _ring_sums(delta: torch.Tensor, second: torch.Tensor | None, bins: RadialBins) -> torch.Tensor:
    """Return sums over the full plane, shape ``(n_slices, n_bins)``, float64."""
    modes = _modes(delta)
    other = modes if second is None else _modes(second)
    products = modes * other
    # Rows n_x and -n_x lie in the same rings: half of the half plane is left.
    half = bins.n_pixels // 2
    quarter = products[:, : half + 1]
    quarter[:, 1 : bins.n_pixels - half] += products[:, half + 1 :].flip(1)
    weight, index = (values.view(bins.n_pixels, -1)[: half + 1].flatten() for values in (bins.weight, bins.index))
    weighted = (quarter[..., 0] + quarter[..., 1]).flatten(1) * weight
    return weighted.new_zeros(len(delta), bins.n_bins + 1).index_add(1, index, weighted)[:, : bins.n_bins]


def _modes(delta: torch.Tensor) -> torch.Tensor:
    """Return real and imaginary parts of the half plane, shape ``(n_slices, n_pixels, n_pixels // 2 + 1, 2)``."""
    # There is no 16-bit FFT of general size.
    modes = torch.fft.rfft2(delta if delta.dtype == torch.float64 else delta.float())
    return torch.view_as_real(modes).double()


class PowerSpectrum(AbstractStatistic):
    """Power spectrum P(k) of the overdensity.

    Parameters
    ----------
    binning, n_bins, to_corner
        Rings as for `radial_bins`.
    """

    name: ClassVar[str] = "power_spectrum"
    threshold: ClassVar[float] = 0.03
    title: ClassVar[str] = "Power spectrum P(k)"
    x_label: ClassVar[str] = "$k$"
    x_units: ClassVar[str] = "h/Mpc"
    y_label: ClassVar[str] = "$P(k)$"
    y_units: ClassVar[str] = "(Mpc/h)^2"
    correlated: ClassVar[bool] = True

    def __init__(self, binning: Binning = "linear", *, n_bins: int | None = None, to_corner: bool = False) -> None:
        self.binning: Binning = binning
        self.n_bins = n_bins
        self.to_corner = to_corner

    def bins(self, metadata: SliceMetadata) -> RadialBins:
        """Return the rings used for slices of this kind."""
        return radial_bins(metadata.n_pixels, self.binning, n_bins=self.n_bins, to_corner=self.to_corner)

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the edges of the rings, h/Mpc."""
        return self.bins(metadata).edges.numpy() * metadata.fundamental

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Return P(k) of each slice, (Mpc/h)^2; see `power_spectrum`."""
        # 1 + delta is normalised by the whole box, so no slice mean is taken out.
        return power_spectrum(fields.double() - 1, metadata.box_size, bins=self.bins(metadata).to(fields.device))

    def centres(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the mean k of each ring, h/Mpc; for ``"rodriguez2018"`` its middle."""
        return self.bins(metadata).wavenumbers(metadata.box_size).numpy()

    def n_modes(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the number of independent modes per ring and slice."""
        return self.bins(metadata).n_modes.numpy()

    def judged(self, metadata: SliceMetadata, reference: np.ndarray) -> np.ndarray:
        """Return the rings that hold power and lie below 0.9 of the Nyquist wave number."""
        below = self.edges(metadata)[1:] <= TRUSTED_NYQUIST_FRACTION * metadata.nyquist * (1 + 1e-12)
        return super().judged(metadata, reference) & below

    def judged_text(self) -> str:
        """Return in words which rings enter the summary numbers."""
        return f"k up to {TRUSTED_NYQUIST_FRACTION:g} of Nyquist"
