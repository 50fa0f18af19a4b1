"""Bispectrum of slices for equilateral and isosceles triangles of wave vectors, by products of ring-filtered fields."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy.fft import next_fast_len

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.units import fundamental_wavenumber

# Isosceles triangles need the third ring, which ends at 4 fundamentals, a third of 12 pixels.
SMALLEST_SIDE = 12


def triangle_rings(n_pixels: int) -> np.ndarray:
    """Return edges of rings a factor of sqrt(2) apart, rounded to whole numbers, up to a third of the pixels.

    Longer wave vectors would close triangles across the edge of the Fourier plane, which no triangle of the sky does.

    Parameters
    ----------
    n_pixels
        Pixels along a side.

    Returns
    -------
        Shape ``(n_rings + 1,)``, int64, units of the fundamental; lower edges are inclusive.

    Raises
    ------
    ValueError
        If no ring fits: fewer than 6 pixels.

    Examples
    --------
    >>> triangle_rings(64).tolist()
    [1, 2, 3, 4, 6, 8, 11, 16]
    """
    if n_pixels < 6:
        raise ValueError(f"n_pixels: expected at least 6 pixels along a side for any triangle, got {n_pixels}")
    steps = np.rint(2 ** (0.5 * np.arange(2 * math.log2(n_pixels)))).astype(np.int64)
    return np.unique(steps[3 * steps <= n_pixels])


def bispectrum(delta: torch.Tensor, box_size: float, legs: np.ndarray, thirds: np.ndarray) -> torch.Tensor:
    r"""Bispectrum of each slice for isosceles triangles, averaged over all that fall into a triple of rings.

    Convention: :math:`B(k_1, k_2, k_3) = L^4 N^{-6} \langle \mathrm{Re}\, \delta_{k_1} \delta_{k_2} \delta_{k_3}
    \rangle` over closed triangles, :math:`\delta_k` the plain FFT, as P(k) in `power_spectrum`. White noise with third
    central moment :math:`\kappa_3` has :math:`B = \kappa_3 (L/N)^4`; :math:`\delta + f \delta^2` with a Gaussian
    :math:`\delta` of power P has :math:`B = 2 f (P_1 P_2 + P_2 P_3 + P_3 P_1)` to first order in f. Shot noise is not
    subtracted and no window is divided out.

    The sum over triangles is that over pixels of the product of three fields, each of one ring (Scoccimarro 2000, ApJ
    544, 597), taken on the coarsest grid on which it is exact.

    Parameters
    ----------
    delta
        Overdensity with respect to the mean of the whole box, dimensionless, shape
        ``(n_slices, n_pixels, n_pixels)``.
    box_size
        Side of the slice, comoving Mpc/h.
    legs
        Rings of the two equal sides: lower (inclusive) and upper (exclusive) edge, shape ``(n_triangles, 2)``, whole
        numbers of fundamentals.
    thirds
        Rings of the third side, likewise.

    Returns
    -------
        Shape ``(n_slices, n_triangles)``, float64, (Mpc/h)^4. NaN where no triangle closes.

    Raises
    ------
    ValueError
        If the slices are not square, ``box_size`` is not positive, or a ring ends beyond a third of the pixels.
    """
    if delta.ndim != 3 or delta.shape[1] != delta.shape[2]:
        raise ValueError(f"delta: expected shape (n_slices, n_pixels, n_pixels), got {tuple(delta.shape)}")
    if not (math.isfinite(box_size) and box_size > 0):
        raise ValueError(f"box_size: expected a positive length in Mpc/h, got {box_size}")
    n_pixels = delta.shape[-1]
    if 3 * max(np.max(legs), np.max(thirds)) > n_pixels:
        raise ValueError(f"legs, thirds: expected rings up to {n_pixels // 3}, a third of the pixels, got {legs}")
    modes = torch.fft.rfft2(delta.double())
    found = []
    for leg, third in zip(legs.tolist(), thirds.tolist(), strict=True):
        # NaN where nothing closes.
        n_triangles = _n_triangles(tuple(leg), tuple(third)) or math.nan
        found.append(_triangle_sum(modes, leg, third) * (box_size**4 / n_pixels**6 / n_triangles))
    return torch.stack(found, 1)


def _triangle_sum(modes: torch.Tensor, leg: tuple[int, int], third: tuple[int, int]) -> torch.Tensor:
    """Return the sum of products over all closed triangles in these rings, shape ``(n_slices,)``."""
    # No component of a wave vector reaches the upper edge: on this grid no sum of three wraps around.
    size = next_fast_len(max(2 * (leg[1] - 1) + third[1], 2 * max(leg[1], third[1]) - 1), real=True)
    field = _ring_field(modes, leg, size)
    other = field if leg == third else _ring_field(modes, third, size)
    return (field * field * other).mean((1, 2))


def _ring_field(modes: torch.Tensor, ring: tuple[int, int], size: int) -> torch.Tensor:
    """Return the sum of the waves of one ring on ``size`` x ``size`` points, given a half plane of rfft2."""
    reach = ring[1] - 1
    rows, columns = torch.arange(-reach, reach + 1), torch.arange(reach + 1)
    squared = rows[:, None] ** 2 + columns**2
    # In integers: a floating length on an edge would change its ring.
    inside = ((squared >= ring[0] ** 2) & (squared < ring[1] ** 2)).to(modes.device)
    chosen = modes.new_zeros(len(modes), size, size // 2 + 1)
    chosen[:, rows % size, : reach + 1] = modes[:, rows % modes.shape[1], : reach + 1] * inside
    return torch.fft.irfft2(chosen, s=(size, size), norm="forward")


@lru_cache(maxsize=256)
def _n_triangles(leg: tuple[int, int], third: tuple[int, int]) -> int:
    """Return the number of closed triangles, counting every order and direction."""
    side = 2 * max(leg[1], third[1])
    ones = torch.ones(1, side, side // 2 + 1, dtype=torch.complex128)
    return round(float(_triangle_sum(ones, leg, third)))


class AbstractBispectrum(AbstractStatistic):
    """Bispectrum of the overdensity for one shape of triangle, against the length of its two equal sides.

    What a power spectrum cannot tell from a Gaussian field: zero on average there, positive where waves add up to
    clumps. Its scatter from slice to slice is large, because few clumps make most of it.
    """

    x_label: ClassVar[str] = "$k$"
    x_units: ClassVar[str] = "h/Mpc"
    y_units: ClassVar[str] = "(Mpc/h)^4"
    smallest_side: ClassVar[int] = SMALLEST_SIDE
    family: ClassVar[str | None] = "bispectrum"
    family_title: ClassVar[str] = "Bispectrum"

    @abstractmethod
    def rings(self, n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rings of the equal sides and of the third side, as `bispectrum` takes them."""

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the edges of the rings of the equal sides, h/Mpc."""
        legs, _ = self.rings(metadata.n_pixels)
        return np.append(legs[:, 0], legs[-1, 1]) * metadata.fundamental

    def centres(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the mean k of the wave vectors of each ring, h/Mpc."""
        legs, _ = self.rings(metadata.n_pixels)
        side = np.arange(-metadata.n_pixels, metadata.n_pixels + 1)
        squared = (side[:, None] ** 2 + side**2).ravel()
        lengths = [np.sqrt(squared[(squared >= low**2) & (squared < high**2)]).mean() for low, high in legs]
        return np.array(lengths) * fundamental_wavenumber(metadata.box_size)

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Return B of each slice, (Mpc/h)^4; see `bispectrum`."""
        # 1 + delta is normalised by the whole box, so no slice mean is taken out.
        return bispectrum(fields.double() - 1, metadata.box_size, *self.rings(metadata.n_pixels))

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return "all rings up to a third of the pixels"


class EquilateralBispectrum(AbstractBispectrum):
    """Bispectrum B(k, k, k)."""

    name: ClassVar[str] = "bispectrum_equilateral"
    threshold: ClassVar[float] = 0.10
    title: ClassVar[str] = "Bispectrum, equilateral"
    y_label: ClassVar[str] = "$B(k, k, k)$"

    def rings(self, n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the same rings for all sides."""
        edges = triangle_rings(n_pixels)
        legs = np.stack([edges[:-1], edges[1:]], 1)
        return legs, legs


class IsoscelesBispectrum(AbstractBispectrum):
    """Bispectrum B(k, k, k/2): how strongly a wave modulates those half as long."""

    name: ClassVar[str] = "bispectrum_isosceles"
    threshold: ClassVar[float] = 0.10
    title: ClassVar[str] = "Bispectrum, isosceles"
    y_label: ClassVar[str] = "$B(k, k, k/2)$"

    def rings(self, n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rings and for the third side those two steps, a factor of 2, below."""
        legs, _ = EquilateralBispectrum().rings(n_pixels)
        if len(legs) < 3:
            raise ValueError(f"n_pixels: expected at least {SMALLEST_SIDE} pixels along a side, got {n_pixels}")
        return legs[2:], legs[:-2]
