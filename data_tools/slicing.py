"""Particles to slabs to pixels: one streaming pass, all three axes, memory bounded by the grid of the result."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata, SliceWriter, density_from_counts, require_absent
from cosmogan.units import Cosmology, format_length, parse_length
from data_tools.snapshots import AbstractSnapshot, SnapshotHeader, open_snapshot

# Where the Gaussian is cut, in sigma: part of the definition of `smoothing` in the slice file.
_TRUNCATE = 4.0
# A thickness given by hand may differ from box / slabs by its rounding.
_THICKNESS_ROUNDING = 1e-4


class SlabCounter:
    """Counts of particles in slabs along all three axes, by nearest grid point.

    Cell ``i`` of ``n`` holds the positions in ``[i, i + 1) * box_size / n``; positions outside the box are wrapped, so
    every particle counts exactly once along each axis.

    Parameters
    ----------
    box_size
        Side of the box, in the unit of the positions.
    pixels, slabs
        Pixels along the side of a slice, and slabs along an axis.
    """

    def __init__(self, *, box_size: float, pixels: int, slabs: int) -> None:
        self.box_size = box_size
        self.pixels = pixels
        self.slabs = slabs
        self.n_particles = 0
        # One cube serves the three axes where a slab is a whole number of pixels deep and it is no larger.
        self._share = pixels % slabs == 0 and pixels <= 3 * slabs
        shape = (pixels, pixels, pixels) if self._share else (slabs, pixels, pixels)
        self._grids = [np.zeros(shape, np.uint32) for _ in range(1 if self._share else 3)]

    def add(self, positions: np.ndarray) -> None:
        """Count particles at ``positions``, shape ``(n, 3)``."""
        self.n_particles += len(positions)
        pixel = self._cells(positions, self.pixels)
        if self._share:
            _count(self._grids[0], *pixel)
            return
        slab = self._cells(positions, self.slabs)
        for axis, grid in enumerate(self._grids):
            first, second = (pixel[other] for other in range(3) if other != axis)
            _count(grid, slab[axis], first, second)

    def counts(self, axis: int) -> np.ndarray:
        """Return particles per pixel of the slabs normal to ``axis``, shape ``(slabs, pixels, pixels)``, uint32."""
        if not self._share:
            return self._grids[axis]
        depth = self.pixels // self.slabs
        cube = np.moveaxis(self._grids[0], axis, 0).reshape(self.slabs, depth, self.pixels, self.pixels)
        return cube.sum(axis=1, dtype=np.uint32)

    def _cells(self, positions: np.ndarray, n: int) -> list[np.ndarray]:
        columns = []
        for column in positions.T:
            # In float64: a float32 product can round up into the next cell.
            cell = np.floor(column * np.float64(n / self.box_size)).astype(np.int64)
            if len(cell) and (cell.min() < 0 or cell.max() >= n):
                cell %= n
            columns.append(cell)
        return columns


def slice_snapshots(
    snapshots: list[str],
    *,
    out: str,
    pixels: int,
    slabs: int | None = None,
    thickness: str | None = None,
    smoothing: float = 0.0,
    quantity: str = "density",
    realisation: list[int] | None = None,
    box_size: str | None = None,
    length_unit: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Cut N-body snapshots into slices along all three axes.

    Particles are counted in the nearest pixel; densities are normalised by the mean of the whole box.

    Parameters
    ----------
    snapshots
        Snapshot files, one per realisation: GADGET HDF5 or binary (of several files, any one or their common name).
    out
        Slice file to write.
    pixels
        Pixels along the side of a slice.
    slabs
        Number of equal slabs that cover the box along each axis; as many as pixels if neither this nor `thickness` is
        given.
    thickness
        Depth of a slab instead of their number, with its unit, such as "1.953125 Mpc"; must divide the box.
    smoothing
        Sigma in pixels of a Gaussian applied to each slice, periodic, cut at 4 sigma; 0 for none. Densities only.
    quantity
        "density" (1 + delta) or "counts" (particles per pixel).
    realisation
        A number for each snapshot, by which slices are later split into training and test sets; by default the seed in
        its header, or 0, 1, 2, ... where there is none.
    box_size
        Side of the box with its unit, such as "500 Mpc", for snapshots that do not say.
    length_unit
        Unit of length of the snapshots, such as "kpc/h", where they do not say.
    overwrite
        Replace an existing file.

    Returns
    -------
        The slice file.

    Raises
    ------
    UserError
        If a snapshot cannot be read, snapshots differ in box, redshift or cosmology, the slabs do not divide the box,
        or the file cannot be written.
    """
    if not snapshots:
        raise UserError("snapshots: expected at least one file")
    require_absent(Path(out), overwrite=overwrite)
    sources = [open_snapshot(path, length_unit=length_unit, box_size=box_size) for path in snapshots]
    header = sources[0].header
    for source in sources[1:]:
        _require_alike(sources[0], source)
    labels = _labels(sources, realisation)
    print(
        f"box {format_length(header.box_size, header.cosmology.h)}, {header.n_particles} particles; "
        f"unit of length {header.length_unit:g} Mpc/h, {header.unit_source}",
        file=sys.stderr,
    )
    n_slabs = resolve_slabs(header.box_size, pixels=pixels, slabs=slabs, thickness=thickness, h=header.cosmology.h)
    metadata = slice_metadata(header, pixels=pixels, slabs=n_slabs, smoothing=smoothing, quantity=quantity)

    provenance = {
        "command": "cosmogan slice",
        "cosmogan": version("cosmogan"),
        "snapshots": ",".join(Path(path).name for path in snapshots),
        "seeds": ",".join(map(str, labels)),
    }
    with SliceWriter(
        out, metadata, n_slices=3 * n_slabs * len(sources), provenance=provenance, overwrite=overwrite
    ) as writer:
        for source, label in zip(tqdm(sources, desc="slice", unit="snapshot"), labels, strict=True):
            counter = SlabCounter(box_size=header.box_size, pixels=pixels, slabs=n_slabs)
            for block in source.positions():
                counter.add(block)
            append_slabs(writer, counter, realisation=label)
    return Path(out)


def resolve_slabs(box_size: float, *, pixels: int, slabs: int | None, thickness: str | None, h: float | None) -> int:
    """Return the number of slabs along an axis.

    Parameters
    ----------
    box_size
        Mpc/h.
    pixels
        The number of slabs if neither of the next two is given.
    slabs, thickness
        As in `slice_snapshots`.
    h
        For a thickness without ``/h``.

    Raises
    ------
    UserError
        If both are given, a number is not positive, or the thickness does not divide the box.
    """
    for name, value in (("pixels", pixels), ("slabs", slabs)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if thickness is None:
        return pixels if slabs is None else slabs
    if slabs is not None:
        raise UserError("slabs and thickness say the same thing; give one of them")
    depth = parse_length(thickness, h)
    number = max(1, round(box_size / depth))
    if not math.isclose(number * depth, box_size, rel_tol=_THICKNESS_ROUNDING):
        nearest = " or ".join(
            f"{format_length(box_size / n, h)} (slabs {n})"
            for n in sorted({max(1, math.floor(box_size / depth)), math.ceil(box_size / depth)})
        )
        raise UserError(
            f"thickness {thickness!r}: does not divide the box of {format_length(box_size, h)}; nearest are {nearest}"
        )
    return number


def slice_metadata(
    header: SnapshotHeader, *, pixels: int, slabs: int, smoothing: float, quantity: str
) -> SliceMetadata:
    """Return what the pixels of a snapshot's slices are.

    Raises
    ------
    UserError
        If a value is outside its range, or counts are to be smoothed.
    """
    if quantity == "counts" and smoothing:
        raise UserError(
            f"smoothing {smoothing:g} of counts: smoothed counts are not whole numbers; use quantity density, "
            "or smoothing 0"
        )
    return SliceMetadata(
        box_size=header.box_size,
        n_pixels=pixels,
        thickness=header.box_size / slabs,
        redshift=header.redshift,
        quantity=quantity,
        mean_count=header.n_particles / (slabs * pixels**2) if quantity == "counts" else None,
        smoothing=smoothing,
        assignment="NGP",
        periodic=True,
        cosmology=header.cosmology,
    )


def append_slabs(writer: SliceWriter, counter: SlabCounter, *, realisation: int) -> None:
    """Write the slabs of one realisation along the three axes, in the quantity and smoothing of the writer's metadata.

    Raises
    ------
    UserError
        If the slices cannot be written.
    """
    positions = np.arange(counter.slabs) * (counter.box_size / counter.slabs)
    for axis, slices in _finished_slabs(counter, writer.metadata):
        writer.append(slices, realisation=realisation, axis=axis, position=positions)


def _finished_slabs(counter: SlabCounter, metadata: SliceMetadata) -> Iterator[tuple[int, np.ndarray]]:
    mean = counter.n_particles / (counter.slabs * counter.pixels**2)
    for axis in range(3):
        slices = counter.counts(axis)
        if metadata.quantity == "density":
            slices = density_from_counts(slices, mean)
            if metadata.smoothing:
                sigma = (0.0, metadata.smoothing, metadata.smoothing)
                slices = gaussian_filter(slices, sigma, mode="wrap", truncate=_TRUNCATE)
        yield axis, slices


def _count(grid: np.ndarray, first: np.ndarray, second: np.ndarray, third: np.ndarray) -> None:
    cell = (first * grid.shape[1] + second) * grid.shape[2] + third
    np.add.at(grid.reshape(-1), cell, np.uint32(1))


def _require_alike(first: AbstractSnapshot, other: AbstractSnapshot) -> None:
    clauses = [
        f"{name} {mine:.7g} against {theirs:.7g}"
        for name, mine, theirs in _comparable(first.header, other.header)
        if not math.isclose(mine, theirs, rel_tol=1e-5, abs_tol=1e-5)
    ]
    if clauses:
        raise UserError(
            f"{first.path} and {other.path} cannot share a slice file: they differ in {', '.join(clauses)}. "
            "Slice them into separate files"
        )


def _comparable(mine: SnapshotHeader, theirs: SnapshotHeader) -> Iterator[tuple[str, float, float]]:
    yield "box size (Mpc/h)", mine.box_size, theirs.box_size
    yield "redshift", mine.redshift, theirs.redshift
    yield "number of particles", mine.n_particles, theirs.n_particles
    for name in Cosmology.names():
        pair: tuple[Any, Any] = getattr(mine.cosmology, name), getattr(theirs.cosmology, name)
        # A file that does not say is taken to agree.
        if None not in pair:
            yield name, *pair


def _labels(sources: list[AbstractSnapshot], realisation: list[int] | None) -> list[int]:
    if realisation is None:
        seeds = [source.header.seed for source in sources]
        labels = [seed for seed in seeds if seed is not None]
        if len(labels) < len(sources):
            labels = list(range(len(sources)))
    else:
        labels = realisation
    if len(labels) != len(sources):
        raise UserError(f"realisation: {len(labels)} numbers for {len(sources)} snapshots; expected one for each")
    for i, label in enumerate(labels):
        if label in labels[:i]:
            raise UserError(
                f"{sources[labels.index(label)].path} and {sources[i].path} are both realisation {label}; slices are "
                "split by this number, so give each simulation its own with --realisation"
            )
    return labels
