"""What the baselines take from a file of simulation slices: mean, power of every mode, and distribution of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata, SliceReader
from cosmogan.slices.smoothing import smooth

# Pixels read at a time: 16 MB in double precision.
_BLOCK_PIXELS = 2**21
# Pixels are sorted into bins by the leading bits of their float32: 14 of the mantissa, so bins are 6e-5 wide.
_DROPPED_BITS = 9
_N_BINS = 2**31 >> _DROPPED_BITS
# Share of a mode's power that must have survived the smoothing for the rest to be told from rounding in float32.
_RESOLVED = 1e-8


@dataclass(frozen=True, eq=False, kw_only=True)
class Training:
    """Measured properties of a set of slices; densities 1 + delta.

    Parameters
    ----------
    metadata
        Metadata of the slices.
    n_slices
        Number of slices measured.
    mean
        Mean density: 1 where the slices cover whole boxes.
    power
        Mean power of every mode of the plane of ``fft2``, shape ``(n_pixels, n_pixels)``, in units in which it sums to
        the variance of the pixels. The entry of the mean mode is the variance of the mean of slices.
    values, cumulative
        Pixel values that occur, increasing, and the share of the pixels up to and including each, shape
        ``(n_values,)``. Values closer than 6e-5 of themselves are one.
    """

    metadata: SliceMetadata
    n_slices: int
    mean: float
    power: np.ndarray
    values: np.ndarray
    cumulative: np.ndarray

    def quantile(self, probability: np.ndarray) -> np.ndarray:
        """Return the pixel value below which a share of the pixels lies; the largest one for a share of 1."""
        place = np.searchsorted(self.cumulative, probability, side="left")
        return self.values[np.minimum(place, len(self.values) - 1)]

    def unsmoothed_power(self) -> np.ndarray:
        """Return `power` before the smoothing that the metadata state.

        Modes that the smoothing left nothing of are given the least power among the others: they return as nothing.
        """
        window = self.window() ** 2
        resolved = window > _RESOLVED
        power = self.power / np.where(resolved, window, 1.0)
        return np.where(resolved, power, power[resolved].min())

    def largest_density(self) -> float:
        """Return the density of a single pixel that smoothed is the densest of all."""
        return float(self.values[-1] / self._smoothed_spike().max())

    def window(self) -> np.ndarray:
        """Return the Fourier transform of the smoothing kernel on the plane of ``fft2``; 1 without smoothing."""
        return np.asarray(scipy.fft.fft2(self._smoothed_spike()).real)

    def _smoothed_spike(self) -> np.ndarray:
        spike = np.zeros_like(self.power)
        spike[0, 0] = 1.0
        return smooth(spike, self.metadata.smoothing)


def measure_training(reader: SliceReader) -> Training:
    """Read a slice file once, in bounded memory.

    Powers are averaged over the eight symmetries of a square, which slices of an isotropic universe have.

    Raises
    ------
    UserError
        If the slices are fewer than two, not periodic, all constant or hold values that no density has.
    """
    metadata, side = reader.metadata, reader.metadata.n_pixels
    if not metadata.periodic:
        raise UserError(f"{reader.path}: slices are cut out of a larger box; baselines need slices that are periodic")
    if reader.n_slices < 2:
        raise UserError(
            f"{reader.path}: holds {reader.n_slices} slice{'' if reader.n_slices == 1 else 's'}; expected at least 2 "
            "to fit to, and some hundreds for errors of some per cent"
        )
    counts, sums = np.zeros(_N_BINS, np.int64), np.zeros(_N_BINS)
    power, total = np.zeros((side, side // 2 + 1)), 0.0
    size = max(1, _BLOCK_PIXELS // side**2)
    for start in range(0, reader.n_slices, size):
        block = reader.density(start, min(start + size, reader.n_slices))
        bad = ~np.isfinite(block) | (block < 0)
        if bad.any():
            first = start + int(np.argmax(bad.any(axis=(1, 2))))
            raise UserError(f"{reader.path}: slice {first} holds values that no density has; see `cosmogan check`")
        # The bits of positive floats increase with their value; adding zero removes the sign of a negative zero.
        place = (block + np.float32(0)).ravel().view(np.uint32) >> _DROPPED_BITS
        occupied, inverse, number = np.unique(place, return_inverse=True, return_counts=True)
        counts[occupied] += number
        sums[occupied] += np.bincount(inverse, block.ravel())
        total += block.sum(dtype=np.float64)
        power += (np.abs(scipy.fft.rfft2(block.astype(np.float64))) ** 2).sum(0)
    mean = total / (reader.n_slices * side**2)
    power /= reader.n_slices * side**4
    power[0, 0] = max(power[0, 0] - mean**2, 0.0)
    plane = symmetric_plane(power)
    held = counts > 0
    # Rounding of the largest modes is all that a set of constant slices has.
    if held.sum() < 2 or plane.sum() - plane[0, 0] <= 1e-12 * mean**2:
        raise UserError(f"{reader.path}: all slices are constant, so there is nothing to fit to")
    return Training(
        metadata=metadata,
        n_slices=reader.n_slices,
        mean=mean,
        power=plane,
        values=sums[held] / counts[held],
        cumulative=np.cumsum(counts[held]) / counts.sum(),
    )


def symmetric_plane(half: np.ndarray) -> np.ndarray:
    """Return the full plane of ``fft2``, averaged over reflections and transposition, from the half of ``rfft2``."""
    side = len(half)
    # Index of the opposite wave number.
    opposite = -np.arange(side) % side
    plane = np.concatenate([half, half[opposite][:, 1 : (side + 1) // 2][:, ::-1]], axis=1)
    plane = 0.5 * (plane + plane[:, opposite])
    plane = 0.5 * (plane + plane[opposite])
    return 0.5 * (plane + plane.T)
