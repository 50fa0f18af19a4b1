"""Where the particles of a snapshot lie: what of the periodic box is empty, and what lies outside of it.

A sample of the particles is counted on a coarse grid and along each axis while they stream past. An N-body box of so
many particles has no empty cells there; a slab, a sphere, a halo or a box that lacks a file has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# So many particles at least are looked at, all where there are fewer than twice as many.
_SAMPLE = 2**19
# Cells along the side of the coarse grid, and bins along an axis in one box.
GRID = 16
_BINS = 4096
_BINS_PER_CELL = _BINS // GRID
# Share of the cells that may be empty by the mean number in a cell: two to five times that of N-body boxes of 3 to 1000
# Mpc/h at redshift 0 (36 runs of 12^3 to 128^3 particles and their samples: at most 0.002, 0.012, 0.051 and 0.165).
_MOST_EMPTY = ((128, 0.01), (64, 0.03), (32, 0.1), (16, 0.25))
# The emptiest layer along an axis, of the box. N particles at random leave log(N) / N, in the clumps of 3 Mpc/h four
# times that; lattices leave up to N^(-1/3) between their planes.
_WIDEST_GAP, _RANDOM_GAPS, _LATTICE_GAPS = 0.01, 8.0, 2.0
# Of fewer particles it is not known whether they fill the box.
_LEAST_TO_WRAP = 512
# Particles at the ends of their reach over those farther in: at most so many where they drifted there, evenly 0.14.
_FEWER_OUTSIDE = 0.5
# Positions may reach over so much of the box more than its side before they are wrapped.
MOST_EXTENT = 1.1


class Coverage:
    """Counts of a sample of particles on a coarse grid and along each axis.

    Parameters
    ----------
    box_size
        Side of the box, in the unit of the positions.
    n_particles
        That will come; sets the sample.
    seed
        Of the sample. Two snapshots of particles in the same order need two, or their samples would be alike.

    Attributes
    ----------
    grid
        Sample in cells of the periodic box, shape ``(GRID, GRID, GRID)``.
    n_particles, n_outside
        Particles seen, and those of them outside of the box by more than rounding.
    low, high
        Reach of the particles along each axis, shape ``(3,)``.
    """

    def __init__(self, *, box_size: float, n_particles: int, seed: int = 0) -> None:
        self.box_size, self._seed = box_size, seed
        self._step = max(1, n_particles // _SAMPLE)
        self.grid = np.zeros((GRID, GRID, GRID), np.int64)
        # Three boxes in a row, ours in the middle.
        self._along = np.zeros((3, 3 * _BINS), np.int64)
        self.n_particles = self.n_outside = 0
        self.low, self.high = np.full(3, np.inf), np.full(3, -np.inf)

    def add(self, positions: np.ndarray, row: int) -> None:
        """Look at some particles.

        Parameters
        ----------
        positions
            Shape ``(n, 3)``, within one box of the box; not wrapped.
        row
            Place of the first of them in their file: the sample depends on it, and not on who reads the file.
        """
        self.n_particles += len(positions)
        # By column: numpy is slow along the rows of a narrow array, for picking and for extremes.
        columns = positions.T
        if self._step > 1:
            # One of each group, at random: particles may be sorted in any way, planes of a lattice among them.
            chosen = np.arange(0, len(positions), self._step)
            chosen += np.random.default_rng([self._seed, row]).integers(0, self._step, len(chosen))
            chosen = chosen[chosen < len(positions)]
            columns = np.stack([column[chosen] for column in columns])
        if columns.shape[1] == 0:
            return
        self.reach(columns.T)
        bins = np.floor(columns * columns.dtype.type(_BINS / self.box_size)).astype(np.int32)
        # The very end of the third box.
        bins = np.minimum(bins, 2 * _BINS - 1)
        for axis in range(3):
            self._along[axis] += np.bincount(bins[axis] + _BINS, minlength=3 * _BINS)
        x, y, z = (bins & (_BINS - 1)) // _BINS_PER_CELL
        self.grid += np.bincount((x * GRID + y) * GRID + z, minlength=GRID**3).reshape(self.grid.shape)

    def reach(self, positions: np.ndarray) -> None:
        """Extend `low` and `high` by positions, shape ``(n, 3)``."""
        for axis, column in enumerate(np.ascontiguousarray(positions.T)):
            self.low[axis] = min(self.low[axis], column.min())
            self.high[axis] = max(self.high[axis], column.max())

    def state(self) -> dict[str, np.ndarray]:
        """Return all counts, for `grow`."""
        n = np.array([self.n_particles, self.n_outside])
        return {"grid": self.grid, "along": self._along, "low": self.low, "high": self.high, "n": n}

    def grow(self, state: Mapping[str, Any]) -> None:
        """Add the `state` of another part of the same particles."""
        self.grid += state["grid"][:]
        self._along += state["along"][:]
        self.low, self.high = np.minimum(self.low, state["low"][:]), np.maximum(self.high, state["high"][:])
        n_particles, n_outside = (int(n) for n in state["n"][:])
        self.n_particles += n_particles
        self.n_outside += n_outside

    @property
    def extent(self) -> float:
        """Reach of the particles along the axis where it is longest, in the unit of the positions."""
        return float((self.high - self.low).max(initial=-np.inf))

    def empty_share(self) -> float:
        """Return the share of the box that is empty where an N-body box cannot be; 0 where it is filled.

        A halo is seen from 9 particles on, a layer of a tenth from 500, two empty octants from 128, one from 512, a
        tenth of the volume from 2048, and a hundredth from 8192 or, in places smaller than 1/64, from 65536.
        """
        n = int(self.grid.sum())
        share = max((self._gap(profile) for profile in self._wrapped()), default=0.0) if n else 0.0
        for side in (2, 4, 8, GRID):
            allowed = next((most for least, most in _MOST_EMPTY if n >= least * side**3), 1.0)
            empty = float((coarse(self.grid, side) == 0).mean())
            if empty > allowed:
                share = max(share, empty)
        return share

    def _gap(self, profile: np.ndarray) -> float:
        """Return the longest gap along an axis, of the box; 0 where particles at random or on a lattice leave one."""
        filled = np.flatnonzero(profile)
        gaps = np.sort(np.diff(filled, append=filled[0] + _BINS) - 1) / _BINS
        n = self.n_particles
        # Lattices leave many gaps of one size.
        random = max(_RANDOM_GAPS * np.log(n) / n, _LATTICE_GAPS * gaps[-3:][0])
        allowed = max(_WIDEST_GAP, min(random, _LATTICE_GAPS * n ** (-1 / 3)))
        return float(gaps[-1]) if gaps[-1] > allowed else 0.0

    def may_be_wrapped(self) -> bool:
        """Return whether positions outside lie there for another origin or by drift, and not in a larger box.

        Particles that drifted out of a periodic box get fewer towards the ends of their reach; in a larger box there
        are as many at its ends as farther in. Where positions reach over no more than the box, none would be counted
        on top of others.
        """
        if self.n_particles < _LEAST_TO_WRAP:
            return False
        beyond = ((self.high - self.low) / self.box_size - 1) * _BINS
        if beyond.max() <= 1:
            return True
        outer = inner = 0
        for axis in np.flatnonzero(beyond > 1):
            # A quarter of what both ends share, and the last quarter of it.
            width = int(np.ceil(beyond[axis] / 4))
            first, last = (int(np.floor(end[axis] * (_BINS / self.box_size))) + _BINS for end in (self.low, self.high))
            for counts in (self._along[axis][first:], self._along[axis][last::-1]):
                outer += int(counts[:width].sum())
                inner += int(counts[3 * width : 4 * width].sum())
        # With few particles there the difference is not seen.
        return outer < _FEWER_OUTSIDE * inner and inner - outer > 4 * inner**0.5

    def _wrapped(self) -> np.ndarray:
        return self._along.reshape(3, 3, _BINS).sum(axis=1)


def coarse(grid: np.ndarray, side: int) -> np.ndarray:
    """Return the sums of a cubic grid in ``side**3`` cells; ``side`` divides its own."""
    parts = len(grid) // side
    return grid.reshape(side, parts, side, parts, side, parts).sum(axis=(1, 3, 5))
