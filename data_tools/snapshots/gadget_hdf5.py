"""GADGET HDF5 snapshots (GADGET-2/3/4, AREPO, IllustrisTNG, CAMELS, Quijote, and our own), in one or several files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from cosmogan.errors import UserError
from cosmogan.hdf5 import open_file
from cosmogan.units import Cosmology
from data_tools.files.hdf5 import attributes, number, open_hdf5
from data_tools.snapshots.base import sibling_files
from data_tools.snapshots.gadget_family import (
    NUMBERED,
    AbstractFamilySnapshot,
    file_count,
    require_header,
    total_particles,
)
from data_tools.snapshots.header import (
    MPC_IN_CM,
    Options,
    SnapshotHeader,
    known_cosmology,
    require_particles,
    resolve_lengths,
    resolve_redshift,
    unit_from_cm,
)

_DARK_MATTER = 1
# Critical density over h^2 in 1e10 Msun/h per (Mpc/h)^3, for MassTable.
_CRITICAL_DENSITY = 27.7536627
# Our own names of parameters, and those of the codes.
_COSMOLOGY_NAMES = {
    "omega_m": ("Omega0", "omega_m"),
    "h": ("HubbleParam", "h"),
    "omega_b": ("omega_b", "OmegaBaryon"),
    "sigma8": ("sigma8", "Sigma8"),
    "n_s": ("n_s",),
}


@final
class GadgetHdf5Snapshot(AbstractFamilySnapshot):
    """A snapshot in the HDF5 layout of the GADGET family; particles of one type."""

    def __init__(self, path: Path, options: Options) -> None:
        with open_hdf5(path) as handle:
            header = require_header(handle, path)
            parameters, units = attributes(handle, "Parameters", path), attributes(handle, "Units", path)
            coordinates = attributes(handle, f"PartType{options.particle_type}/Coordinates", path)
        self._remember(header, path, options.particle_type)
        found = parameters | header
        cosmology = known_cosmology(
            path,
            {
                ours: number(found, next((name for name in theirs if name in found), ours), path) or 0.0
                for ours, theirs in _COSMOLOGY_NAMES.items()
            },
        )
        unit_in_cm = number(header | parameters | units, "UnitLength_in_cm", path)
        if unit_in_cm is None and number(coordinates, "h_scaling", path) == -1:
            # AREPO and GADGET-4 state the unit of each data set.
            unit_in_cm = number(coordinates, "to_cgs", path)
        # Units of the GADGET family are comoving and per h, so 3.085678e21 cm means kpc/h.
        stated = unit_from_cm(path, unit_in_cm) if unit_in_cm is not None and options.length_unit is None else None
        unit, box, source = resolve_lengths(path, self._box_in_file, options=options, h=cosmology.h, stated=stated)
        seed = number(header, "seed", path)
        self.header = SnapshotHeader(
            box_size=box,
            redshift=resolve_redshift(
                path,
                number(header, "Redshift", path),
                scale_factor=number(header, "Time", path),
                asked=options.redshift,
            ),
            n_particles=require_particles(path, total_particles(header, path), self._type),
            cosmology=cosmology,
            # Labels of realisations are 32-bit.
            seed=int(seed) if seed is not None and 0 <= seed < 2**31 else None,
            length_unit=unit,
            unit_source=source,
        )
        self.files = sibling_files(path, file_count(header, path), pattern=NUMBERED, example="snap_000.0.hdf5")


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
    total[_DARK_MATTER] = n
    masses = np.zeros(6)
    omega_m = cosmology.omega_m or 0.0
    masses[_DARK_MATTER] = omega_m * _CRITICAL_DENSITY * box_size**3 / n
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_file(partial, "w") as handle:
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
                | {_COSMOLOGY_NAMES.get(name, (name,))[0]: value for name, value in cosmology.known().items()}
            )
            handle.create_group("Units").attrs.update({"UnitLength_in_cm": MPC_IN_CM})
            handle.create_group("Provenance").attrs.update(dict(attributes))
            handle.create_dataset(f"PartType{_DARK_MATTER}/Coordinates", data=positions)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({os.strerror(error.errno) if error.errno else error})") from None
    finally:
        partial.unlink(missing_ok=True)
