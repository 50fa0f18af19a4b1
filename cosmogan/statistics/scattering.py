"""Wavelet scattering coefficients: how strong the structure is at each scale, and how it is arranged at larger ones."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy.fft import next_fast_len

from cosmogan.slices import SliceMetadata
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.reuse import once_per_tensor

# Slices below have no scale, or no pair of scales.
SMALLEST_SIDE = 8
SMALLEST_SIDE_OF_PAIRS = 16
N_ORIENTATIONS = 4
# A tenth scale would need slices of 4096 pixels; a pair of scales is written with one digit each.
_MOST_SCALES = 9
# Points along a side of a filtered field over those that hold its band: the modulus reaches beyond.
_OVERSAMPLING = 1.25
# And at least: a mean over fewer points is poor, and more are cheap.
_LEAST_POINTS = 32
# Pixels handled at a time: 2 slices of 256 x 256; there are 16 fields of each for the second order.
_PIXELS_AT_A_TIME = 2**17
# Share of the first order below which the second is float32 rounding and has no direction.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False, kw_only=True)
class Scattering:
    """Scattering coefficients of some slices, averaged over orientations; all float64, in the units of the field.

    Parameters
    ----------
    first
        Coefficients of each scale, from the finest to the coarsest, shape ``(n_slices, n_scales)``.
    second
        Coefficients of each pair of `scale_pairs`, averaged over both orientations, shape ``(n_slices, n_pairs)``.
    parallel, perpendicular
        The same for equal orientations and for those at right angles.
    """

    first: torch.Tensor
    second: torch.Tensor
    parallel: torch.Tensor
    perpendicular: torch.Tensor


def scale_wavenumbers(n_pixels: int) -> np.ndarray:
    """Return the central wave numbers of the wavelets, from the finest scale to the coarsest.

    Wavelengths of 4, 8, 16, ... pixels, up to half of the slice. A wavelet covers an octave on either side, so that the
    finest ends at Nyquist, 2 pixels.

    Parameters
    ----------
    n_pixels
        Pixels along a side.

    Returns
    -------
        Shape ``(n_scales,)``, units of the fundamental; at most nine.

    Raises
    ------
    ValueError
        If there is none: fewer than 8 pixels.

    Examples
    --------
    >>> scale_wavenumbers(64).tolist()
    [16.0, 8.0, 4.0, 2.0]
    """
    if n_pixels < SMALLEST_SIDE:
        raise ValueError(f"n_pixels: expected at least {SMALLEST_SIDE} pixels along a side, got {n_pixels}")
    centres = n_pixels / 4 * 0.5 ** np.arange(_MOST_SCALES)
    return centres[centres >= 2]


def scale_pairs(n_pixels: int) -> list[tuple[int, int]]:
    """Return the pairs of a scale and a coarser one, as indices into `scale_wavenumbers`; the finest first."""
    n_scales = len(scale_wavenumbers(n_pixels))
    return [(fine, coarse) for fine in range(n_scales) for coarse in range(fine + 1, n_scales)]


def scattering(fields: torch.Tensor) -> Scattering:
    r"""Scattering coefficients of first and second order, periodic.

    First order: :math:`s_1(j) = \langle |x * \psi_{j,l}| \rangle`. Second order: :math:`s_2(j_1, j_2) = \langle |\,
    |x * \psi_{j_1,l_1}| * \psi_{j_2,l_2}| \rangle` with a coarser :math:`j_2`: how strongly the structure of one scale
    is gathered on a larger one (Mallat 2012, arXiv:1101.2286; Bruna & Mallat 2013, arXiv:1203.1513; in cosmology Cheng
    et al. 2020, arXiv:2006.08561). Averages are over pixels and four orientations l.

    The wavelets are those of the steerable pyramid (Portilla & Simoncelli 2000, Int. J. Comput. Vision 40, 49) on half
    of the Fourier plane, :math:`\hat\psi = \sqrt{32/5} \cos(\frac{\pi}{2} \log_2 (k / k_j)) \cos^3(\theta -
    \theta_l)` for :math:`k_j / 2 < k < 2 k_j` and :math:`|\theta - \theta_l| < \pi / 2`. Against the usual Morlet
    wavelets: their band ends, so that nothing folds at Nyquist and each scale has an exact coarser grid; their squares
    summed over orientations do not depend on direction and summed over scales not on k. The mean over orientations of
    :math:`\langle |x * \psi|^2 \rangle` is therefore the variance in the band, a sum of P(k), and
    :math:`s_1 = \sqrt{\pi / 4}` of its root for a Gaussian field. A wave :math:`a \cos(k_j x)` along an orientation has
    :math:`s_1 = \sqrt{32/5}\, (1 + \sqrt{1/2}) a / 8`.

    Each filtered field is computed on a grid with 1.25 times the points along a side that its band needs, at least 32.
    Its modulus has no band, so the mean over that grid differs from that over all pixels: for single slices of
    simulated counts, 256 pixels along a side, by up to 0.03% (first order), 0.1% (second) and 0.15% (parallel and
    perpendicular), in either direction.

    Parameters
    ----------
    fields
        Any real field, shape ``(n_slices, n_pixels, n_pixels)``. The transform runs in its precision, at least float32.

    Raises
    ------
    ValueError
        If the slices are not square or smaller than 8 pixels; with fewer than 16 there is one scale and no pair.

    Examples
    --------
    >>> x = 2 * torch.pi * torch.arange(32) / 32
    >>> wave = torch.cos(4 * x).expand(1, 32, 32)
    >>> [round(float(s), 3) for s in scattering(wave).first[0]]
    [0.0, 0.54, 0.0]
    """
    if fields.ndim != 3 or fields.shape[1] != fields.shape[2]:
        raise ValueError(f"fields: expected shape (n_slices, n_pixels, n_pixels), got {tuple(fields.shape)}")
    step = max(1, _PIXELS_AT_A_TIME // fields[0].numel()) if len(fields) else 1
    parts = [_scatter(part) for part in fields.split(step)]
    first, second = (torch.cat(part) for part in zip(*parts, strict=True))
    turn = torch.arange(N_ORIENTATIONS, device=fields.device)
    return Scattering(
        first=first.mean(2),
        second=second.mean((2, 3)),
        parallel=second[:, :, turn, turn].mean(2),
        perpendicular=second[:, :, turn, (turn + N_ORIENTATIONS // 2) % N_ORIENTATIONS].mean(2),
    )


def _scatter(fields: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return first and second order, ``(n_slices, n_scales, l)`` and ``(n_slices, n_pairs, l1, l2)``."""
    n_pixels = fields.shape[-1]
    centres = scale_wavenumbers(n_pixels).tolist()
    fields = fields if fields.dtype == torch.float64 else fields.float()
    # Wavelets do not see a constant; without it the rounding is that of the structure, and none for constant slices.
    modes = torch.fft.rfft2(fields - fields.amin((1, 2), keepdim=True), norm="forward")
    first, second = [], []
    for place, centre in enumerate(centres):
        modulus = _modulus(modes, centre, n_pixels)
        first.append(modulus.mean((-2, -1), dtype=torch.float64))
        if place + 1 < len(centres):
            inner = torch.fft.rfft2(modulus, norm="forward")
            for coarse in centres[place + 1 :]:
                second.append(_modulus(inner, coarse, n_pixels).mean((-2, -1), dtype=torch.float64))
    none = fields.new_zeros(len(fields), 0, N_ORIENTATIONS, N_ORIENTATIONS, dtype=torch.float64)
    return torch.stack(first, 1), torch.stack(second, 1) if second else none


def _modulus(modes: torch.Tensor, centre: float, n_pixels: int) -> torch.Tensor:
    """Return the modulus of fields filtered with the wavelets of one scale, given half planes of rfft2.

    Shape ``(..., n_orientations, size, size)`` for ``modes`` of shape ``(..., rows, columns)``.
    """
    size = min(n_pixels, max(_LEAST_POINTS, next_fast_len(math.ceil(4 * _OVERSAMPLING * centre))))
    wavelets = _wavelets(size, centre, modes.device, modes.real.dtype)
    filtered = torch.fft.ifft2(_centre_of_plane(modes, size).unsqueeze(-3) * wavelets, norm="forward")
    # Faster than abs, which guards against overflow.
    return (filtered.real.square() + filtered.imag.square()).sqrt()


def _centre_of_plane(half: torch.Tensor, size: int) -> torch.Tensor:
    """Return the modes of a real field that fit a coarser grid as a full plane, given a half plane of rfft2."""
    n_rows = half.shape[-2]
    rows = torch.fft.fftfreq(size, 1 / size, device=half.device).round().long()
    # The first columns up to Nyquist, and those of opposite modes behind them.
    right, left = half[..., rows % n_rows, : size // 2 + 1], half[..., -rows % n_rows, 1 : (size + 1) // 2]
    return torch.cat([right, left.flip(-1).conj()], -1)


@lru_cache(maxsize=32)
def _wavelets(size: int, centre: float, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the Fourier transforms of the wavelets of one scale, real, shape ``(n_orientations, size, size)``."""
    line = np.fft.fftfreq(size, 1 / size)
    length = np.hypot(line[:, None], line)
    octaves = np.abs(np.log2(np.where(length > 0, length, np.inf) / centre))
    radial = np.where(octaves < 1, np.cos(0.5 * np.pi * np.minimum(octaves, 1)), 0.0)
    angles = np.pi * np.arange(N_ORIENTATIONS)[:, None, None] / N_ORIENTATIONS
    along = np.maximum(np.cos(np.arctan2(line[:, None], line) - angles), 0)
    return torch.from_numpy(math.sqrt(32 / 5) * radial * along**3).to(device, dtype)


class AbstractScattering(AbstractStatistic):
    """One kind of scattering coefficients of ln(1 + density), with the density 1 + delta.

    Of the density itself a few clumps make most of any coefficient. The logarithm brings out filaments and voids, which
    P(k), peaks and tail hardly see; it is linear for nearly empty pixels, so that counts of zero have a value and no
    constant has to be chosen. For what the densest pixels do, see `Tail`.
    """

    smallest_side: ClassVar[int] = SMALLEST_SIDE

    def per_slice(self, fields: torch.Tensor, metadata: SliceMetadata) -> torch.Tensor:
        """Return the coefficients of each slice; see `scattering`."""
        return self.choose(_of_density(fields), metadata)

    @abstractmethod
    def choose(self, measured: Scattering, metadata: SliceMetadata) -> torch.Tensor:
        """Return what this statistic is about, shape ``(n_slices, n_bins)``."""


@once_per_tensor
def _of_density(fields: torch.Tensor) -> Scattering:
    return scattering(fields.log1p())


class ScatteringFirst(AbstractScattering):
    """Scattering coefficients of first order: strength of ln(1 + density) by scale, against the wavelets' central k."""

    name: ClassVar[str] = "scattering_first"
    threshold: ClassVar[float] = 0.03
    title: ClassVar[str] = "Scattering, first order"
    x_label: ClassVar[str] = "$k$"
    x_units: ClassVar[str] = "h/Mpc"
    y_label: ClassVar[str] = "$s_1(k)$"

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return edges half an octave around the central wave numbers, h/Mpc."""
        centres = self.centres(metadata)
        return np.append(centres, 2 * centres[-1]) / math.sqrt(2)

    def centres(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the central wave numbers, h/Mpc."""
        return scale_wavenumbers(metadata.n_pixels)[::-1] * metadata.fundamental

    def choose(self, measured: Scattering, metadata: SliceMetadata) -> torch.Tensor:
        """Return the first order, from small to large k."""
        return measured.first.flip(1)

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return "all scales"


class AbstractPairs(AbstractScattering):
    """A number per pair of scales, written as ``j1.j2``: 1.3 is structure of scale 1 arranged on scale 3.

    Scale j has a wavelength of 2^(j + 1) pixels. The axis is a list of pairs, not a quantity.
    """

    x_label: ClassVar[str] = "scales $j_1.j_2$, wavelength $2^{j + 1}$ pixels"
    discrete: ClassVar[bool] = True
    smallest_side: ClassVar[int] = SMALLEST_SIDE_OF_PAIRS
    log_x: ClassVar[bool] = False
    log_y: ClassVar[bool] = False

    def centres(self, metadata: SliceMetadata) -> np.ndarray:
        """Return the numbers ``j1.j2`` of the pairs."""
        pairs = scale_pairs(metadata.n_pixels)
        if not pairs:
            raise ValueError(
                f"n_pixels: expected at least {SMALLEST_SIDE_OF_PAIRS} pixels along a side for a pair of scales, "
                f"got {metadata.n_pixels}"
            )
        return np.array([(fine + 1) + (coarse + 1) / 10 for fine, coarse in pairs])

    def edges(self, metadata: SliceMetadata) -> np.ndarray:
        """Return edges half way between the pairs."""
        centres = self.centres(metadata)
        return np.concatenate([[centres[0] - 0.05], 0.5 * (centres[1:] + centres[:-1]), [centres[-1] + 0.05]])

    def judged_text(self) -> str:
        """Return in words which bins enter the summary numbers."""
        return "all pairs of scales"


class ScatteringSecond(AbstractPairs):
    """Scattering coefficients of second order over those of first: how unevenly structure is spread, by scale.

    The ratio is taken slice by slice, so that the amplitude drops out and no rich slice outweighs the others.
    """

    name: ClassVar[str] = "scattering_second"
    threshold: ClassVar[float] = 0.03
    title: ClassVar[str] = "Scattering, second order"
    y_label: ClassVar[str] = "$s_2(j_1, j_2) / s_1(j_1)$"

    def choose(self, measured: Scattering, metadata: SliceMetadata) -> torch.Tensor:
        """Return the ratio of second to first order; 0 where there is no structure."""
        first = measured.first[:, [fine for fine, _ in scale_pairs(metadata.n_pixels)]]
        return torch.where(first > 0, measured.second / first, 0.0)


class ScatteringElongation(AbstractPairs):
    """Scattering coefficients of second order for equal orientations over those at right angles.

    How elongated the structures are that a scale is arranged in: larger for a web of filaments than for a Gaussian
    field of the same power.
    """

    name: ClassVar[str] = "scattering_elongation"
    threshold: ClassVar[float] = 0.03
    title: ClassVar[str] = "Scattering, elongation"
    y_label: ClassVar[str] = r"$s_2^{\parallel} / s_2^{\perp}$"

    def choose(self, measured: Scattering, metadata: SliceMetadata) -> torch.Tensor:
        """Return the ratio of parallel to perpendicular; 1 where there is no structure."""
        first = measured.first[:, [fine for fine, _ in scale_pairs(metadata.n_pixels)]]
        held = measured.perpendicular > _ROUNDING * first
        return torch.where(held, measured.parallel / measured.perpendicular, 1.0)
