"""SWIFT HDF5 snapshots: one file, distributed files, or the virtual file that SWIFT writes beside these.

Like GADGET's, with other units: nothing contains h, lengths are comoving. Particles are sorted into the cells of a mesh
that covers the box; ``/Cells`` says where in the file each cell is, so a slab is read without the rest of the box.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.hdf5 import signature_offset
from data_tools.files.hdf5 import attributes, missing_sources, number, open_hdf5, reading
from data_tools.snapshots.base import ROUNDING, Slab, sibling_files
from data_tools.snapshots.gadget_family import (
    NUMBERED,
    AbstractFamilySnapshot,
    file_count,
    require_header,
    total_particles,
)
from data_tools.snapshots.header import (
    TYPE_NAMES,
    Options,
    SnapshotHeader,
    known_cosmology,
    require_particles,
    resolve_lengths,
    resolve_redshift,
    unit_from_cm,
)
from data_tools.snapshots.scalings import Scaling, read_scaling

_LENGTH_UNIT = "Unit length in cgs (U_L)"
_COSMOLOGY_NAMES = {"omega_m": "Omega_m", "omega_b": "Omega_b", "h": "h", "w0": "w_0"}


@final
class SwiftSnapshot(AbstractFamilySnapshot):
    """A snapshot written by SWIFT; particles of one type."""

    def __init__(self, path: Path, options: Options) -> None:
        with open_hdf5(path) as handle:
            header = require_header(handle, path)
            parameters, units = attributes(handle, "Cosmology", path), attributes(handle, "Units", path)
            parts = _parts(handle, path)
        self._remember(header, path, options.particle_type)
        if number(parameters, "Cosmological run", path) == 0:
            raise UserError(f"{path}: is no cosmological run, so it has no comoving box and no redshift")
        cosmology = known_cosmology(
            path, {ours: number(parameters, theirs, path) or 0.0 for ours, theirs in _COSMOLOGY_NAMES.items()}
        )
        self.files = parts or sibling_files(
            path, file_count(header, path), pattern=NUMBERED, example="snap_0000.0.hdf5"
        )
        scaling = None if options.length_unit else read_scaling([path, *self.files], self._type)
        stated = None if scaling is None else _length_unit(units, scaling, cosmology.h, path)
        unit, box, source = resolve_lengths(path, self._box_in_file, options=options, h=cosmology.h, stated=stated)
        self.header = SnapshotHeader(
            box_size=box,
            redshift=resolve_redshift(
                path,
                number(header, "Redshift", path),
                scale_factor=number(header, "Scale-factor", path),
                asked=options.redshift,
            ),
            n_particles=require_particles(path, total_particles(header, path), self._type),
            cosmology=cosmology,
            length_unit=unit,
            unit_source=source,
        )

    @staticmethod
    def recognises(path: Path, head: bytes) -> bool:
        """Return whether an HDF5 file has SWIFT's units, or names it as its code."""
        if signature_offset(path) is None:
            return False
        with open_hdf5(path) as handle:
            if _LENGTH_UNIT in attributes(handle, "Units", path):
                return True
            codes = [attributes(handle, group, path).get("Code", "") for group in ("Code", "Header")]
        return any(np.asarray(code).reshape(-1)[:1].astype(str).tolist() == ["SWIFT"] for code in codes)

    def _rows_of(
        self, handle: h5py.File, header: Mapping[str, Any], n: int, slab: Slab, path: Path
    ) -> list[tuple[int, int]]:
        everything = [(0, n)]
        if "Cells" not in handle:
            return everything
        kind = f"PartType{self._type}"
        with reading(path, "/Cells"):
            cells = handle["Cells"]
            if any(f"{name}/{kind}" not in cells for name in ("Counts", "OffsetsInFile")):
                return everything
            first = cells[f"OffsetsInFile/{kind}"][:].astype(np.int64)
            beyond = first + cells[f"Counts/{kind}"][:].astype(np.int64)
            if f"MinPositions/{kind}" in cells and f"MaxPositions/{kind}" in cells:
                low, high = (cells[f"{end}Positions/{kind}"][:, slab.axis] for end in ("Min", "Max"))
            else:
                # Particles may have drifted by a cell since they were sorted.
                reach = 1.5 * float(cells["Meta-data"].attrs["size"][slab.axis])
                centres = cells["Centres"][:, slab.axis]
                low, high = centres - reach, centres + reach
            here = beyond > first
            if f"Files/{kind}" in cells:
                # Distributed files list the cells of all files.
                here &= cells[f"Files/{kind}"][:] == (number(header, "ThisFile", path) or 0)
            table = np.stack([first, beyond, _touches(low, high, slab, self._box_in_file)], axis=1)[here]
        table = table[np.argsort(table[:, 0])]
        # Cells that do not cover the file without gaps and overlaps cannot be trusted.
        if not np.array_equal(np.append(table[:, 0], n), np.append(0, table[:, 1])):
            return everything
        return _joined([(int(start), int(stop)) for start, stop, wanted in table if wanted])


def _length_unit(units: Mapping[str, Any], scaling: Scaling, h: float | None, path: Path) -> float:
    """Return the unit of length in Mpc/h."""
    unit_in_cm = number(units, _LENGTH_UNIT, path)
    if unit_in_cm is None or (h is None and not scaling.per_h):
        missing = f"{_LENGTH_UNIT!r} in /Units" if unit_in_cm is None else "'h' in /Cosmology"
        raise UserError(
            f"{path}: {missing} is missing, and lengths need it; give the unit of length with --length-unit, such as "
            "'0.7 Mpc/h' for Mpc at h = 0.7"
        )
    unit = unit_from_cm(path, unit_in_cm)
    if scaling.unit not in (None, unit):
        raise UserError(
            f"{path}: /Units states a unit of length of {unit_in_cm:g} cm and {scaling.place} one of {scaling.cm:g} "
            "cm; say which is right with --length-unit"
        )
    # SWIFT's own lengths are free of h.
    return unit if scaling.per_h else unit * (h or 1.0)


def _touches(low: np.ndarray, high: np.ndarray, slab: Slab, box: float) -> np.ndarray:
    """Return which intervals meet a slab of a periodic box, nearly at least; both may reach beyond it."""
    low, high = low - ROUNDING * box, high + ROUNDING * box
    return np.any([(low + turn < slab.high) & (high + turn >= slab.low) for turn in (-box, 0.0, box)], axis=0)


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join sorted ranges that follow one another."""
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return joined


def _parts(handle: h5py.File, path: Path) -> list[Path]:
    """Return the files behind a virtual snapshot, whichever types they hold; none for a real one."""
    parts: dict[Path, None] = {}
    for kind in range(len(TYPE_NAMES)):
        name = f"PartType{kind}/Coordinates"
        with reading(path, f"/{name}"):
            data = handle.get(name)
            if not isinstance(data, h5py.Dataset) or not data.is_virtual:
                continue
            found, missing = missing_sources(data, path)
        parts |= dict.fromkeys(found)
        if missing:
            raise UserError(
                f"{missing[0]}: no such file; the virtual snapshot {path.name} consists of {len(parts)} files"
            )
    return list(parts)
