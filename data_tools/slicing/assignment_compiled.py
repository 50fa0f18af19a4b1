"""The inner loops of `data_tools.slicing.assignment` compiled by numba.

Every expression has its twin there, in the same order, so that both give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        # No folder for the cache can be written: compile anew in each process.
        return njit(nogil=True)(function)


@_compiled
def _wrapped(cell: int, n: int) -> int:
    return cell if 0 <= cell < n else cell % n


@_compiled
def nearest(x: np.ndarray, scale: float, n: int, bits: int, cells: np.ndarray, weights: np.ndarray) -> None:
    """Fill in the cell of each particle."""
    for i in range(len(x)):
        cells[i, 0] = _wrapped(math.floor(x[i] * scale), n)


@_compiled
def cloud(x: np.ndarray, scale: float, n: int, bits: int, cells: np.ndarray, weights: np.ndarray) -> None:
    """Fill in the two cells that each particle reaches, and its weights there."""
    one, unit = 2**bits, 2.0**bits
    for i in range(len(x)):
        u = x[i] * scale - 0.5
        low = math.floor(u)
        right = int((u - low) * unit + 0.5)
        cells[i, 0], weights[i, 0] = _wrapped(low, n), one - right
        cells[i, 1], weights[i, 1] = _wrapped(low + 1, n), right


@_compiled
def triangle(x: np.ndarray, scale: float, n: int, bits: int, cells: np.ndarray, weights: np.ndarray) -> None:
    """Fill in the three cells that each particle reaches, and its weights there."""
    one, unit = 2**bits, 2.0**bits
    for i in range(len(x)):
        u = x[i] * scale
        low = math.floor(u)
        beyond = u - low
        left = int(0.5 * ((1 - beyond) * (1 - beyond)) * unit + 0.5)
        right = int(0.5 * (beyond * beyond) * unit + 0.5)
        cells[i, 0], weights[i, 0] = _wrapped(low - 1, n), left
        cells[i, 1], weights[i, 1] = _wrapped(low, n), one - left - right
        cells[i, 2], weights[i, 2] = _wrapped(low + 1, n), right


@_compiled
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
    """Add the products of weights to the cells."""
    points, weighted, n_deposits = cells_i.shape[1], len(masses) > 0, 0
    places = np.empty(len(slabs) * points * points, np.uint64)
    deposits = np.empty(len(places), np.int64)
    for particle in range(len(slabs)):
        row = rows[slabs[particle, 0]]
        if row >= 0:
            for a in range(points):
                line = (row * pixels + cells_i[particle, a]) * pixels
                for b in range(points):
                    weight = weights_i[particle, a] * weights_j[particle, b]
                    if weighted:
                        weight = int(masses[particle] * weight + 0.5)
                    places[n_deposits] = line + cells_j[particle, b]
                    deposits[n_deposits] = weight
                    n_deposits += 1
    # Short, so that the processor waits for many places in memory at once.
    for deposit in range(n_deposits):
        flat[places[deposit]] += deposits[deposit]
