"""Slices of a field, in pieces: memory is bounded by the piece, however large the field."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cosmogan.errors import UserError
from cosmogan.slices.smoothing import smooth
from data_tools.files.arrays import Field
from data_tools.published.quantity import positive

# Bytes read from a file at a time.
_PIECE = 2**25
# Bytes per pixel of a block while it is worked on: float64 of scaled values, float32 of densities and of the smoothed.
_BYTES_AT_WORK = 16


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """How values of a field become those of slices.

    Parameters
    ----------
    quantity, scale
        What the values are.
    mean
        Mean of the values over the whole box, after `data_tools.published.quantity.positive`; None to leave densities
        as they are.
    depth
        Planes summed (counts) or averaged (densities) to one slice.
    counts
        Whether the slices are counts.
    smoothing
        Sigma in pixels of a Gaussian applied to each slice, periodic, cut at 4 sigma.
    memory
        Bytes that a block may take.
    """

    quantity: str
    scale: float | None
    mean: float | None
    depth: int
    counts: bool
    smoothing: float
    memory: float

    def finish(self, planes: np.ndarray, name: str) -> np.ndarray:
        """Return slices of planes, shape ``(n * depth, N, N)`` to ``(n, N, N)``: counts, or 1 + delta in float32.

        Raises
        ------
        UserError
            If a value is outside the range of the quantity.
        """
        planes = positive(planes, self.quantity, self.scale, name)
        if self.depth > 1 or self.counts:
            shape = (-1, self.depth, *planes.shape[1:])
            planes = planes.reshape(shape).sum(axis=1, dtype=None if self.counts else np.float64)
        if self.counts:
            return planes.astype(np.int64, copy=False)
        norm = self.depth * (1.0 if self.mean is None else self.mean)
        density = (planes if norm == 1 else planes / np.asarray(norm, _wide(planes))).astype(np.float32, copy=False)
        return smooth(density, self.smoothing)

    def block(self, n_pixels: int, itemsize: int) -> int:
        """Return how many slices fit into the memory at once.

        Raises
        ------
        UserError
            If not even one does.
        """
        per_slice = n_pixels**2 * (self.depth * (2 * itemsize + 8) + _BYTES_AT_WORK)
        number = int(self.memory // per_slice)
        if number < 1:
            raise UserError(
                f"memory: one slice of {n_pixels} x {n_pixels} pixels needs {per_slice / 1e9:.2g} GB; allow more with "
                "--memory"
            )
        return number


def slabs_of_cube(values: Field, conversion: Conversion) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cut a cube along its three axes.

    Parameters
    ----------
    values
        The cube.
    conversion
        How its values become those of slices.

    Yields
    ------
        ``(axis, number of the first slab, slices)``, with the other two axes in their order.

    Raises
    ------
    UserError
        If the file is damaged or a value is out of range.
    """
    side = values.shape[0]
    block = conversion.block(side, values.array.dtype.itemsize) * conversion.depth
    for axis in range(3):
        for start in range(0, side, block):
            planes = _planes(values, axis, start, min(start + block, side))
            yield axis, start // conversion.depth, conversion.finish(planes, values.array.name)


def slices_of_stack(values: Field, conversion: Conversion) -> Iterator[np.ndarray]:
    """Read a stack of slices.

    Yields
    ------
        Slices, in order.

    Raises
    ------
    UserError
        If the file is damaged or a value is out of range.
    """
    block = conversion.block(values.shape[1], values.array.dtype.itemsize)
    for start in range(0, values.shape[0], block):
        planes = values.read(slice(start, min(start + block, values.shape[0])))
        yield conversion.finish(planes, values.array.name)


def _planes(values: Field, axis: int, start: int, stop: int) -> np.ndarray:
    """Return planes normal to an axis, in front; the file is read along its first axis, a piece at a time."""
    n, side, _ = values.shape
    chosen = [slice(None), slice(None), slice(None)]
    chosen[axis] = slice(start, stop)
    dtype = values.array.dtype.newbyteorder("=")
    planes = np.empty((stop - start, side, side), dtype)
    rows = range(start, stop) if axis == 0 else range(n)
    step = max(1, _PIECE // (side * side * dtype.itemsize))
    for first in range(rows.start, rows.stop, step):
        last = min(first + step, rows.stop)
        part = np.moveaxis(values.read(slice(first, last), *chosen[1:]), axis, 0)
        if axis == 0:
            planes[first - start : last - start] = part
        else:
            planes[:, first:last] = part
    return planes


def _wide(values: np.ndarray) -> np.dtype[np.floating]:
    """Return the type to divide in: that of the values, at least float32."""
    return np.result_type(values.dtype, np.float32)
