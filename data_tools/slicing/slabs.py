"""Slabs along the axes: counts or masses of particles in them, in whole numbers, and the slices made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NoReturn

import numpy as np

from cosmogan.errors import UserError
from cosmogan.slices import SliceWriter, density_from_counts
from cosmogan.slices.smoothing import smooth
from data_tools.slicing.assignment import assign, weight_bits

# Sums of weights stay below 2**62, so that no pixel overflows; masses may exceed those of the first particles by this.
_LARGEST_SUM_BITS = 62
_MASS_HEADROOM_BITS = 10
# Bytes of one block of finished slices.
_BLOCK_BYTES = 16 * 2**20

# For each axis, the first of the kept slabs and the one behind the last.
Ranges = Mapping[int, tuple[int, int]]


class SlabCounter:
    """Particles in slabs along the axes, each slab a grid of pixels.

    Slab ``i`` of ``n`` holds the positions in ``[i, i + 1) * box_size / n``; positions outside the box are wrapped, so
    every particle counts exactly once along each axis. In the plane of the slab it goes to the pixels by `assignment`.

    Parameters
    ----------
    box_size
        Side of the box, in the unit of the positions.
    pixels, slabs
        Pixels along the side of a slice, and slabs along an axis.
    every
        Keep slabs 0, ``every``, 2 ``every``, ... only.
    assignment
        "NGP", "CIC" or "TSC".
    n_particles
        At most this many particles will come; sets the resolution of weights so that sums cannot overflow.
    mass_unit
        A typical mass, if particles come with masses; sums of masses are resolved to ``2**-(51 - log2 n_particles)``
        of it. None to count particles.
    ranges
        The part of the kept slabs to look at, for each axis; all along the three axes by default.

    Raises
    ------
    UserError
        If there is no such assignment.
    """

    def __init__(
        self,
        *,
        box_size: float,
        pixels: int,
        slabs: int,
        every: int = 1,
        assignment: str = "NGP",
        n_particles: int = 2**32 - 1,
        mass_unit: float | None = None,
        ranges: Ranges | None = None,
    ) -> None:
        self.box_size, self.pixels, self.slabs, self.every = box_size, pixels, slabs, every
        self.assignment = assignment
        self.bits = weight_bits(assignment, n_particles)
        self.mass_unit = mass_unit
        self.n_particles = 0
        # Sum of all weights, in the unit of the grids.
        self.total = 0
        self._mass_bits = _LARGEST_SUM_BITS - _MASS_HEADROOM_BITS - n_particles.bit_length()
        n_kept = number_kept(slabs, every)
        self.ranges = dict(ranges) if ranges is not None else dict.fromkeys(range(3), (0, n_kept))
        whole = [axis for axis, kept in self.ranges.items() if kept == (0, n_kept)]
        dtype = grid_dtype(assignment, n_particles, weighted=mass_unit is not None)
        # One cube serves three axes where a slab is a whole number of pixels deep and the cube is no larger.
        counts = assignment == "NGP" and mass_unit is None
        self._share = counts and len(whole) == 3 and pixels % slabs == 0 and pixels <= 3 * n_kept
        if self._share:
            # Slabs one pixel deep, normal to axis 0.
            self._targets = {0: np.zeros((pixels, pixels, pixels), dtype)}
            self._rows = {0: np.arange(pixels)}
        else:
            self._targets = {
                axis: np.zeros((stop - start, pixels, pixels), dtype) for axis, (start, stop) in self.ranges.items()
            }
            self._rows = {axis: self._rows_of(start, stop) for axis, (start, stop) in self.ranges.items()}

    def _rows_of(self, start: int, stop: int) -> np.ndarray:
        rows = np.full(self.slabs, -1)
        rows[np.arange(start, stop) * self.every] = np.arange(stop - start)
        return rows

    @property
    def grids(self) -> list[np.ndarray]:
        """The sums so far; those of counters with the same parameters may be added."""
        return list(self._targets.values())

    @property
    def mean(self) -> float:
        """Mean of a pixel over the whole box, in the unit of the grids."""
        return self.total / (self.slabs * self.pixels**2)

    def add(self, positions: np.ndarray, masses: np.ndarray | None = None) -> None:
        """Count particles at ``positions``, shape ``(n, 3)``, with their masses, shape ``(n,)``, if masses count.

        Raises
        ------
        UserError
            If the masses are so different that their sum has no room.
        """
        weights = None
        if self.mass_unit is None:
            total = len(positions) << 2 * self.bits
        else:
            assert masses is not None
            scaled = masses.astype(np.float64) * (2.0**self._mass_bits / self.mass_unit)
            if not scaled.sum() < 2.0**_LARGEST_SUM_BITS:
                self._refuse()
            # Whole numbers: their sum is the same in any order.
            total = int((scaled + 0.5).astype(np.int64).sum())
            weights = scaled * 2.0 ** (-2 * self.bits)
        self.grow(len(positions), total)
        assign(
            self._targets,
            self._rows,
            positions,
            weights,
            assignment=self.assignment,
            bits=self.bits,
            box_size=self.box_size,
        )

    def grow(self, n_particles: int, total: int) -> None:
        """Account for particles, before they are in the grids.

        Raises
        ------
        UserError
            If the sum of all weights has no room.
        """
        self.n_particles += n_particles
        self.total += total
        if self.total > 2**_LARGEST_SUM_BITS:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self.mass_unit is None:
            raise UserError("more particles come than the header of the snapshot announces; copy or write it again")
        raise UserError(
            f"masses exceed the largest of those looked at first more than {2**_MASS_HEADROOM_BITS}-fold on average, "
            "so that their sum has no room; are they damaged?"
        )

    def counts(self, axis: int, start: int | None = None, stop: int | None = None) -> np.ndarray:
        """Return the kept slabs normal to ``axis``, or a part of those in its range.

        Returns
        -------
            Shape ``(stop - start, pixels, pixels)``: uint32 particles per pixel, or int64 sums of weights.
        """
        first, behind = self.ranges[axis]
        start, stop = first if start is None else start, behind if stop is None else stop
        if not self._share:
            return self._targets[axis][start - first : stop - first]
        depth = self.pixels // self.slabs
        slabs = np.moveaxis(self._targets[0], axis, 0).reshape(self.slabs, depth, self.pixels, self.pixels)
        return slabs[start * self.every : stop * self.every : self.every].sum(axis=1, dtype=slabs.dtype)


def grid_dtype(assignment: str, n_particles: int, *, weighted: bool) -> np.dtype[np.uint32] | np.dtype[np.int64]:
    """Return the type of the sums in a `SlabCounter`."""
    if assignment == "NGP" and not weighted and n_particles < 2**32:
        return np.dtype(np.uint32)
    return np.dtype(np.int64)


def number_kept(slabs: int, every: int) -> int:
    """Return how many slabs remain if every ``every``-th is kept, the first among them."""
    return -(-slabs // every)


def plan_passes(axes: list[int], n_kept: int, *, slab_bytes: int, memory: float, at_least: int = 1) -> list[Ranges]:
    """Share the slabs out among passes over the particles.

    Parameters
    ----------
    axes, n_kept
        Axes, and slabs kept along each.
    slab_bytes
        Memory of one slab.
    memory
        For the slabs of one pass, bytes; must hold one.
    at_least
        Number of passes.

    Returns
    -------
        For each pass the slabs along each axis; as few passes as fit, of equal size up to one slab, in order.
    """
    n_slabs = len(axes) * n_kept
    n_passes = min(n_slabs, max(at_least, math.ceil(n_slabs / max(1, memory // slab_bytes))))
    edges = [n_slabs * i // n_passes for i in range(n_passes + 1)]
    passes: list[Ranges] = []
    for low, high in pairwise(edges):
        parts = ((axis, (max(low - i * n_kept, 0), min(high - i * n_kept, n_kept))) for i, axis in enumerate(axes))
        passes.append({axis: (start, stop) for axis, (start, stop) in parts if start < stop})
    return passes


def append_slabs(writer: SliceWriter, counter: SlabCounter, *, realisation: int) -> None:
    """Write the slabs of one realisation along the axes, in the quantity and smoothing of the writer's metadata.

    Raises
    ------
    UserError
        If the slices cannot be written.
    """
    thickness = counter.box_size / counter.slabs
    for axis, start, slices in _finished_slabs(counter, writer):
        position = np.arange(start, start + len(slices)) * counter.every * thickness
        writer.append(slices, realisation=realisation, axis=axis, position=position)


def _finished_slabs(counter: SlabCounter, writer: SliceWriter) -> Iterator[tuple[int, int, np.ndarray]]:
    metadata = writer.metadata
    step = max(1, _BLOCK_BYTES // (8 * counter.pixels**2))
    for axis, (first, behind) in counter.ranges.items():
        for start in range(first, behind, step):
            slices = counter.counts(axis, start, min(start + step, behind))
            if metadata.quantity == "density":
                slices = density_from_counts(slices, counter.mean)
                slices = smooth(slices, metadata.smoothing)
            yield axis, start, slices
