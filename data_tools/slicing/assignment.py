"""Mass assignment in the plane of a slab: nearest grid point, cloud in cell, triangular-shaped cloud, in whole numbers.

Weights are fractions of ``2**bits`` along each side of a pixel, rounded so that those of one particle add up exactly.
Sums of whole numbers do not depend on their order, so slices have the same bits for any number of processes, any order
of files, and with or without the compiled loops of `assignment_compiled`, which do the same arithmetic.

Cell ``i`` holds the positions in ``[i, i + 1)`` pixels for all three, and its centre is ``i + 1/2``
(Hockney & Eastwood 1988, section 5-3).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from cosmogan.errors import UserError

ASSIGNMENTS = ("NGP", "CIC", "TSC")
# Weights finer than this are finer than float32 positions in a box of 1000 pixels.
_MOST_BITS = 20
# Particles at a time: their cells and weights stay in the cache.
_BLOCK = 2**13
# Cells that a particle reaches along an axis.
_POINTS = {"NGP": 1, "CIC": 2, "TSC": 3}


def weight_bits(assignment: str, n_particles: int) -> int:
    """Return the bits of a weight along one side of a pixel.

    Parameters
    ----------
    assignment
        "NGP", "CIC" or "TSC".
    n_particles
        In the whole snapshot. The sum of all weights stays below 2^62, so no pixel can overflow.

    Raises
    ------
    UserError
        If there is no such assignment.
    """
    if assignment not in ASSIGNMENTS:
        raise UserError(f"assignment {assignment!r}: expected one of {', '.join(ASSIGNMENTS)}")
    return 0 if assignment == "NGP" else min(_MOST_BITS, (62 - n_particles.bit_length()) // 2)


@functools.cache
def compiled_loops() -> ModuleType | None:
    """Return the compiled loops, or None where numba is not installed."""
    try:
        import data_tools.slicing.assignment_compiled as loops
    except ImportError:
        return None
    return loops


def assign(
    grids: Mapping[int, np.ndarray],
    rows: Mapping[int, np.ndarray],
    positions: np.ndarray,
    masses: np.ndarray | None = None,
    *,
    assignment: str,
    bits: int,
    box_size: float,
    compiled: bool = True,
) -> None:
    """Add particles to the slabs normal to some axes.

    Parameters
    ----------
    grids
        For each axis, shape ``(n_rows, pixels, pixels)``, C-contiguous, unsigned or int64; changed in place.
    rows
        For each axis, the row of ``grids`` that holds a slab, or -1 for slabs to leave out: int64, shape ``(slabs,)``.
    positions
        Shape ``(n, 3)``, in the unit of ``box_size``; wrapped into the box.
    masses
        Shape ``(n,)``, float64, or None for 1. A deposit is the mass times the weights, rounded.
    assignment, bits
        As in `weight_bits`.
    box_size
        Side of the box.
    compiled
        Whether compiled loops are used where there are any; the result is the same.
    """
    loops: Any = (compiled_loops() if compiled else None) or sys.modules[__name__]
    stencil = {"NGP": loops.nearest, "CIC": loops.cloud, "TSC": loops.triangle}[assignment]
    pixels = next(iter(grids.values())).shape[-1]
    for start in range(0, len(positions), _BLOCK):
        part = slice(start, start + _BLOCK)
        # In float64 and the byte order of this machine: a float32 product can round up into the next cell.
        columns = positions[part].T.astype(np.float64, order="C")
        mass = np.empty(0) if masses is None else masses[part]
        n = columns.shape[1]
        cells, weights = (np.ones((3, n, _POINTS[assignment]), np.int64) for _ in range(2))
        slab = np.empty((n, 1), np.int64)
        for axis in range(3):
            stencil(columns[axis], pixels / box_size, pixels, bits, cells[axis], weights[axis])
        for axis, grid in grids.items():
            slabs = len(rows[axis])
            loops.nearest(columns[axis], slabs / box_size, slabs, 0, slab, slab)
            i, j = (other for other in range(3) if other != axis)
            loops.scatter(grid.reshape(-1), pixels, rows[axis], slab, cells[i], weights[i], cells[j], weights[j], mass)


def nearest(x: np.ndarray, scale: float, n: int, bits: int, cells: np.ndarray, weights: np.ndarray) -> None:
    """Fill in the cell of each particle.

    Parameters
    ----------
    x
        One coordinate of the particles, shape ``(n_particles,)``, float64.
    scale
        Cells per unit of length.
    n
        Cells along the axis.
    bits
        As in `weight_bits`.
    cells, weights
        To fill in, shape ``(n_particles, points)``, int64.
    """
    cells[:, 0] = np.floor(x * scale)
    _wrap(cells, n)


def cloud(x: np.ndarray, scale: float, n: int, bits: int, cells: np.ndarray, weights: np.ndarray) -> None:
    """Fill in the two cells that each particle reaches, and its weights there; see `nearest`."""
    u = x * scale - 0.5
    low = np.floor(u)
    weights[:, 1] = (u - low) * 2.0**bits + 0.5
    weights[:, 0] = 2**bits - weights[:, 1]
    cells[:, 0], cells[:, 1] = low, low + 1
    _wrap(cells, n)


def triangle(x: np.ndarray, scale: float, n: int, bits: int, cells: np.ndarray, weights: np.ndarray) -> None:
    """Fill in the three cells that each particle reaches, and its weights there; see `nearest`."""
    u = x * scale
    low = np.floor(u)
    beyond = u - low
    weights[:, 0] = 0.5 * ((1 - beyond) * (1 - beyond)) * 2.0**bits + 0.5
    weights[:, 2] = 0.5 * (beyond * beyond) * 2.0**bits + 0.5
    weights[:, 1] = 2**bits - weights[:, 0] - weights[:, 2]
    cells[:, 0], cells[:, 1], cells[:, 2] = low - 1, low, low + 1
    _wrap(cells, n)


def scatter(
    flat: np.ndarray,
    pixels: int,
    rows: np.ndarray,
    slabs: np.ndarray,
    cells_i: np.ndarray,
    weights_i: np.ndarray,
    cells_j: np.ndarray,
    weights_j: np.ndarray,
    masses: np.ndarray,
) -> None:
    """Add the products of weights to the cells.

    Parameters
    ----------
    flat
        The grid as one row, ``n_rows * pixels**2`` cells.
    pixels
        Along the side of a slice.
    rows
        The row of the grid that holds a slab, or -1.
    slabs
        Slab of each particle, shape ``(n_particles, 1)``.
    cells_i, weights_i, cells_j, weights_j
        Along the two sides of the slice, shape ``(n_particles, points)``.
    masses
        Shape ``(n_particles,)``, or empty for 1.
    """
    row = rows[slabs[:, 0]]
    kept = slice(None) if len(row) and row.min() >= 0 else np.flatnonzero(row >= 0)
    row = row[kept]
    for a in range(cells_i.shape[1]):
        line = (row * pixels + cells_i[kept, a]) * pixels
        for b in range(cells_j.shape[1]):
            weight = weights_i[kept, a] * weights_j[kept, b]
            if len(masses):
                weight = (masses[kept] * weight + 0.5).astype(np.int64)
            np.add.at(flat, line + cells_j[kept, b], weight.astype(flat.dtype))


def _wrap(cells: np.ndarray, n: int) -> None:
    if len(cells) and (cells.min() < 0 or cells.max() >= n):
        cells %= n
