"""What GADGET's HDF5 snapshots and SWIFT's have in common: the header and the particles of each file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from data_tools.files.hdf5 import (
    attributes,
    counts,
    cube_side,
    number,
    numbers,
    open_hdf5,
    particle_data,
    reading,
    rows,
)
from data_tools.snapshots.base import AbstractSnapshotFormat, Slab, mass_places, no_masses

# Names of masses; the second is that of SWIFT's black holes.
_MASSES = ("Masses", "DynamicalMasses")
_POSITIONS = ("Coordinates", "IntCoordinates")
NUMBERED = re.compile(r"(.*\.)\d+(\.(?:hdf5|h5))")


class AbstractFamilySnapshot(AbstractSnapshotFormat):
    """A snapshot with ``/Header`` and ``/PartType0`` to ``/PartType6``; particles of one type.

    Constructors call `_remember` with the header of the file that was given.
    """

    _type: int
    _identity: str
    _box_in_file: float
    _table: np.ndarray | None

    def _remember(self, header: Mapping[str, Any], path: Path, particle_type: int) -> None:
        self.path = path
        self._type = particle_type
        self._identity = _identity(header, path)
        self._box_in_file = cube_side(header, path)
        self.types = (particle_type,)
        self.n_per_type = {kind: n for kind, n in enumerate(total_particles(header, path)) if n > 0}
        self._table = numbers(header, "MassTable", path)

    def _rows_of(
        self, handle: h5py.File, header: Mapping[str, Any], n: int, slab: Slab, path: Path
    ) -> list[tuple[int, int]]:
        """Return the rows of a file that hold a slab, and maybe others, as ``(first, beyond the last)``."""
        return [(0, n)]

    def _read_file(
        self, path: Path, chunk: int, *, weights: bool, slab: Slab | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with open_hdf5(path) as handle:
            header = require_header(handle, path)
            if _identity(header, path) != self._identity:
                raise UserError(
                    f"{path}: belongs to another snapshot than {self.path.name} ({_identity(header, path)}; expected "
                    f"{self._identity})"
                )
            in_file = counts(header, "NumPart_ThisFile", path)
            if in_file is None:
                raise UserError(f"{path}: attribute NumPart_ThisFile of /Header is missing")
            n = in_file[self._type] if self._type < len(in_file) else 0
            group = f"PartType{self._type}"
            with reading(path, f"/{group}"):
                empty = n == 0 and not any(f"{group}/{name}" in handle for name in _POSITIONS)
                if empty:
                    return
                scale = 1.0
                if f"{group}/Coordinates" not in handle and f"{group}/IntCoordinates" in handle:
                    # GADGET-4 with OUTPUT_COORDINATES_AS_INTEGERS: the whole range of the integer is the box.
                    positions = particle_data(handle, f"{group}/IntCoordinates", (n, 3), path, kind="u")
                    scale = self._box_in_file / 2.0 ** (8 * positions.dtype.itemsize)
                else:
                    positions = particle_data(handle, f"{group}/Coordinates", (n, 3), path)
                masses = _require_masses(handle, header, self._type, n, path) if weights else None
            for first, last in [(0, n)] if slab is None else self._rows_of(handle, header, n, slab, path):
                for start in range(first, last, chunk):
                    stop = min(start + chunk, last)
                    block = rows(positions, start, stop, path)
                    yield block if scale == 1 else block * scale, _mass_rows(masses, start, stop, path)

    def _table_mass(self, kind: int) -> float | None:
        if self._table is None or not self._table[kind : kind + 1].sum() > 0:
            return None
        with open_hdf5(self.path) as handle:
            if any(f"PartType{kind}/{name}" in handle for name in _MASSES):
                return None
        return float(self._table[kind])

    def _mass_blocks(self, path: Path, kind: int, *, n_blocks: int | None = None) -> Iterator[np.ndarray]:
        with open_hdf5(path) as handle:
            header = require_header(handle, path)
            in_file = counts(header, "NumPart_ThisFile", path) or []
            n = in_file[kind] if kind < len(in_file) else 0
            masses = _masses(handle, header, kind, n, path) if n else None
            if isinstance(masses, float):
                yield np.array([masses])
            elif masses is not None:
                for start, stop in mass_places(n, n_blocks):
                    yield rows(masses, start, stop, path)


def require_header(handle: h5py.File, path: Path) -> dict[str, Any]:
    """Return the attributes of ``/Header``.

    Raises
    ------
    UserError
        If the file is no snapshot.
    """
    header = attributes(handle, "Header", path)
    if "NumPart_Total" not in header:
        raise UserError(
            f"{path}: has no group /Header with the attribute NumPart_Total; expected a GADGET or SWIFT HDF5 snapshot. "
            f"For positions in any other HDF5 file give {path.name}:/name/of/the/data/set with --box-size and "
            "--redshift; slice files and cubes are no snapshots: see `cosmogan convert`"
        )
    return header


def total_particles(header: Mapping[str, Any], path: Path) -> list[int]:
    """Return the number of particles per type in all files of a snapshot.

    Raises
    ------
    UserError
        If the header does not say.
    """
    low, high = counts(header, "NumPart_Total", path) or [], counts(header, "NumPart_Total_HighWord", path) or []
    # Writers differ in how many types they list; those that one list lacks have none.
    total = [n + (word << 32) for n, word in zip_longest(low, high, fillvalue=0)]
    if not any(total) and number(header, "NumFilesPerSnapshot", path) in (None, 0.0, 1.0):
        # Runs of isolated systems leave the totals 0.
        return counts(header, "NumPart_ThisFile", path) or total
    return total


def file_count(header: Mapping[str, Any], path: Path) -> int:
    """Return NumFilesPerSnapshot, 1 where missing.

    Raises
    ------
    UserError
        If it is no count.
    """
    n_files = number(header, "NumFilesPerSnapshot", path)
    if n_files is None or n_files == 0:
        return 1
    if not (1 <= n_files < 2**31 and n_files == int(n_files)):
        raise UserError(f"{path}: NumFilesPerSnapshot is {n_files:g}; expected 1 or more. The header is damaged")
    return int(n_files)


def _identity(header: Mapping[str, Any], path: Path) -> str:
    """Return what all files of a snapshot share."""
    masses = numbers(header, "MassTable", path)
    return (
        f"{total_particles(header, path)} particles of mass {None if masses is None else masses.tolist()} at redshift "
        f"{number(header, 'Redshift', path)}, BoxSize {cube_side(header, path)}"
    )


def _masses(
    handle: h5py.File, header: Mapping[str, Any], particle_type: int, n: int, path: Path
) -> h5py.Dataset | float | None:
    """Return the data set of the masses of a type, or the one mass that all of them have; None where there is none."""
    for name in _MASSES:
        if f"PartType{particle_type}/{name}" in handle:
            return particle_data(handle, f"PartType{particle_type}/{name}", (n,), path)
    table = numbers(header, "MassTable", path)
    if table is None or table[particle_type : particle_type + 1].sum() == 0:
        return None
    return float(table[particle_type])


def _require_masses(
    handle: h5py.File, header: Mapping[str, Any], particle_type: int, n: int, path: Path
) -> h5py.Dataset | float:
    masses = _masses(handle, header, particle_type, n, path)
    if masses is None:
        name = f"/PartType{particle_type}/{_MASSES[0]}"
        raise UserError(no_masses(path, f"neither MassTable of /Header nor {name}"))
    return masses


def _mass_rows(masses: h5py.Dataset | float | None, start: int, stop: int, path: Path) -> np.ndarray | None:
    if masses is None:
        return None
    return np.full(stop - start, masses) if isinstance(masses, float) else rows(masses, start, stop, path)
