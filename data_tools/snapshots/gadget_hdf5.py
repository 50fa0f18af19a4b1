"""GADGET HDF5 snapshots (GADGET-2/3/4, AREPO, IllustrisTNG, CAMELS, Quijote, and our own), in one or several files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.snapshots.base import (
    AbstractSnapshot,
    Slab,
    SnapshotHeader,
    check_redshift,
    resolve_lengths,
    sibling_files,
)

# Dark matter.
PARTICLE_TYPE = 1
MPC_IN_CM = 3.085678e24
# Critical density over h^2 in 1e10 Msun/h per (Mpc/h)^3, for MassTable.
_CRITICAL_DENSITY = 27.7536627
_HEADER_NAMES = {"omega_m": "Omega0", "h": "HubbleParam"}
_NUMBER = re.compile(r"(.*\.)\d+(\.(?:hdf5|h5))")


@final
class GadgetHdf5Snapshot(AbstractSnapshot):
    """A snapshot in the HDF5 layout of the GADGET family; dark matter (``PartType1``) only."""

    def __init__(self, path: Path, *, length_unit: str | None = None, box_size: str | None = None) -> None:
        self.path = path
        with _open(path) as handle:
            header = _attributes(handle, "Header", path)
            parameters = dict(handle["Parameters"].attrs) if "Parameters" in handle else {}
            if _is_swift(handle):
                raise UserError(
                    f"{path}: was written by SWIFT, whose lengths are free of h; expected a GADGET HDF5 file. "
                    "Convert it, or write GADGET files"
                )
            units = dict(handle["Units"].attrs) if "Units" in handle else {}
        self._n_files = int(_scalar(header, "NumFilesPerSnapshot", path, default=1))
        n_particles = _total_particles(header, path)
        known = {
            name: _scalar(parameters | header, _HEADER_NAMES.get(name, name), path, default=math.nan)
            for name in ("omega_m", "h", "omega_b", "sigma8", "n_s")
        }
        cosmology = Cosmology(**{name: value for name, value in known.items() if math.isfinite(value) and value > 0})
        unit_in_cm = _scalar(header | parameters | units, "UnitLength_in_cm", path, default=math.nan)
        # Units of the GADGET family are comoving and per h, so 3.085678e21 cm means kpc/h; rounded to whole digits
        # because codes differ in how many of a parsec they write.
        stated = float(f"{unit_in_cm / MPC_IN_CM:.5g}") if math.isfinite(unit_in_cm) else None
        unit, box, source = resolve_lengths(
            path,
            _box_in_file(header, path),
            length_unit=length_unit,
            box_size=box_size,
            h=cosmology.h,
            stated=stated,
        )
        seed = _scalar(header, "seed", path, default=math.nan)
        self.header = SnapshotHeader(
            box_size=box,
            redshift=check_redshift(path, _scalar(header, "Redshift", path)),
            n_particles=n_particles,
            cosmology=cosmology,
            seed=int(seed) if math.isfinite(seed) else None,
            length_unit=unit,
            unit_source=source,
        )
        self.files = sibling_files(path, self._n_files, pattern=_NUMBER, example="snap_000.0.hdf5")

    def _read_file(
        self, path: Path, chunk: int, *, weights: bool, slab: Slab | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with _open(path) as handle:
            expected = _counts(_attributes(handle, "Header", path), "NumPart_ThisFile", path)[PARTICLE_TYPE]
            name = f"PartType{PARTICLE_TYPE}/Coordinates"
            if name not in handle:
                if expected == 0:
                    return
                raise UserError(f"{path}: data set /{name} is missing; the header announces {expected} particles")
            data = handle[name]
            if data.shape != (expected, 3) or data.dtype.kind != "f":
                raise UserError(
                    f"{path}: /{name} is {data.dtype} {data.shape}; expected floats of shape ({expected}, 3), "
                    "as the header announces. Copy or write the file again"
                )
            for start in range(0, expected, chunk):
                try:
                    block = data[start : start + chunk]
                except (OSError, RuntimeError) as error:
                    raise UserError(
                        f"{path}: /{name} cannot be read from particle {start} on ({error}); the file is damaged, "
                        "or compressed with a filter that needs a plug-in (pip install hdf5plugin)"
                    ) from None
                yield block, None


def write_gadget_hdf5(
    path: Path,
    positions: np.ndarray,
    *,
    box_size: float,
    redshift: float,
    cosmology: Cosmology,
    seed: int,
    attributes: Mapping[str, Any],
) -> None:
    """Write a snapshot; the final name appears only when all of it is there.

    Parameters
    ----------
    path
        File to write; an existing one is replaced.
    positions
        Shape ``(n, 3)``, float32, comoving Mpc/h.
    box_size
        Side of the box, Mpc/h.
    redshift, cosmology, seed
        For the header.
    attributes
        Further attributes of ``/Provenance``.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    n = len(positions)
    total = np.zeros(6, np.uint64)
    total[PARTICLE_TYPE] = n
    masses = np.zeros(6)
    omega_m = cosmology.omega_m or 0.0
    masses[PARTICLE_TYPE] = omega_m * _CRITICAL_DENSITY * box_size**3 / n
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w") as handle:
            handle.create_group("Header").attrs.update(
                {
                    "BoxSize": box_size,
                    "NumPart_ThisFile": total.astype(np.uint32),
                    "NumPart_Total": (total & 0xFFFFFFFF).astype(np.uint32),
                    "NumPart_Total_HighWord": (total >> 32).astype(np.uint32),
                    "NumFilesPerSnapshot": 1,
                    "MassTable": masses,
                    "Redshift": redshift,
                    "Time": 1 / (1 + redshift),
                    "OmegaLambda": 1 - omega_m,
                    "seed": seed,
                    "length_unit": "comoving Mpc/h",
                }
                | {_HEADER_NAMES.get(name, name): value for name, value in cosmology.known().items()}
            )
            handle.create_group("Units").attrs.update({"UnitLength_in_cm": MPC_IN_CM})
            handle.create_group("Provenance").attrs.update(dict(attributes))
            handle.create_dataset(f"PartType{PARTICLE_TYPE}/Coordinates", data=positions)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({os.strerror(error.errno) if error.errno else error})") from None
    finally:
        partial.unlink(missing_ok=True)


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            raise UserError(f"{path}: is cut short; copy or write it again") from None
        raise UserError(f"{path}: is not a readable HDF5 file ({error})") from None


def _attributes(handle: h5py.File, group: str, path: Path) -> dict[str, Any]:
    if group not in handle:
        raise UserError(
            f"{path}: has no group /{group}; expected a GADGET HDF5 snapshot. "
            "Slice files and cubes are not snapshots: see `cosmogan convert`"
        )
    return dict(handle[group].attrs)


def _is_swift(handle: h5py.File) -> bool:
    code = handle["Code"].attrs.get("Code", b"") if "Code" in handle else b""
    return code in (b"SWIFT", "SWIFT")


def _scalar(attributes: Mapping[str, Any], name: str, path: Path, *, default: float | None = None) -> float:
    if name not in attributes:
        if default is None:
            raise UserError(f"{path}: attribute {name} of /Header is missing; expected a GADGET HDF5 snapshot")
        return default
    try:
        return float(np.asarray(attributes[name]).reshape(-1)[0])
    except (ValueError, TypeError, IndexError):
        raise UserError(f"{path}: attribute {name} is {attributes[name]!r}; expected a number") from None


def _box_in_file(header: Mapping[str, Any], path: Path) -> float:
    sides = np.atleast_1d(header.get("BoxSize", 0.0)).astype(float)
    if not np.allclose(sides, sides[0], rtol=1e-6):
        raise UserError(f"{path}: BoxSize is {sides.tolist()}; expected a cube")
    return float(sides[0])


def _counts(header: Mapping[str, Any], name: str, path: Path) -> list[int]:
    counts = np.atleast_1d(header.get(name, []))
    if len(counts) <= PARTICLE_TYPE or counts.dtype.kind not in "iu":
        raise UserError(f"{path}: {name} of /Header is {header.get(name)!r}; expected a count per particle type")
    return [int(count) for count in counts]


def _total_particles(header: Mapping[str, Any], path: Path) -> int:
    total = _counts(header, "NumPart_Total", path)[PARTICLE_TYPE]
    if "NumPart_Total_HighWord" in header:
        total += _counts(header, "NumPart_Total_HighWord", path)[PARTICLE_TYPE] << 32
    if total == 0:
        raise UserError(f"{path}: holds no dark matter particles (NumPart_Total[{PARTICLE_TYPE}] is 0)")
    return total
