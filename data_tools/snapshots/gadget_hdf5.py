"""GADGET HDF5 snapshots (GADGET-2/3/4, AREPO, IllustrisTNG, CAMELS, Quijote, and our own), in one or several files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from cosmogan.errors import UserError
from cosmogan.hdf5 import open_file, signature_offset
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
    CRITICAL_DENSITY,
    MPC_IN_CM,
    Options,
    SnapshotHeader,
    known_cosmology,
    require_particles,
    resolve_lengths,
    resolve_redshift,
    unit_from_cm,
)
from data_tools.snapshots.scalings import Scaling, read_scaling

_DARK_MATTER = 1
# Our own names of parameters, and those of the codes.
_COSMOLOGY_NAMES = {
    "omega_m": ("Omega0", "omega_m", "Omega_Matter", "OmegaMatter"),
    "h": ("HubbleParam", "h"),
    "omega_b": ("omega_b", "OmegaBaryon", "Omega_Baryon"),
    "sigma8": ("sigma8", "Sigma8"),
    "n_s": ("n_s",),
}
_LENGTH_UNIT, _GIZMO_UNIT = "UnitLength_in_cm", "UnitLength_In_CGS"


@final
class GadgetHdf5Snapshot(AbstractFamilySnapshot):
    """A snapshot in the HDF5 layout of the GADGET family; particles of one type."""

    def __init__(self, path: Path, options: Options) -> None:
        with open_hdf5(path) as handle:
            header = require_header(handle, path)
            parameters, units = attributes(handle, "Parameters", path), attributes(handle, "Units", path)
        self._remember(header, path, options.particle_type)
        found = parameters | header
        cosmology = known_cosmology(
            path,
            {
                ours: number(found, next((name for name in theirs if name in found), ours), path) or 0.0
                for ours, theirs in _COSMOLOGY_NAMES.items()
            },
        )
        self.files = sibling_files(path, file_count(header, path), pattern=NUMBERED, example="snap_000.0.hdf5")
        stated, per_h = None, True
        if not options.length_unit:
            scaling = read_scaling(self.files, self._type)
            groups = {"Parameters": parameters, "Units": units}
            stated = _stated_unit(header, groups, scaling, cosmology.h, path)
            per_h = scaling.per_h is not False
        unit, box, source = resolve_lengths(
            path,
            self._box_in_file,
            options=options,
            h=cosmology.h,
            stated=stated,
            mass=self.total_mass,
            omega_m=cosmology.omega_m,
            per_h=per_h,
        )
        seed = number(header, "seed", path)
        self.header = SnapshotHeader(
            box_size=box,
            redshift=resolve_redshift(
                path,
                number(header, "Redshift", path),
                scale_factor=_scale_factor(header, cosmology, path),
                asked=options.redshift,
            ),
            n_particles=require_particles(path, total_particles(header, path), self._type),
            cosmology=cosmology,
            # Labels of realisations are 32-bit.
            seed=int(seed) if seed is not None and 0 <= seed < 2**31 else None,
            length_unit=unit,
            unit_source=source,
        )

    @staticmethod
    def recognises(path: Path, head: bytes) -> bool:
        """Return whether it is an HDF5 file."""
        return signature_offset(path) is not None


def _scale_factor(header: Mapping[str, Any], cosmology: Cosmology, path: Path) -> float | None:
    """Return the scale factor that a header says."""
    for name in ("Scale-factor", "ExpansionFactor"):
        if name in header:
            return number(header, name, path)
    time = number(header, "Time", path)
    if "Redshift" in header or time is None:
        return time
    # Without a redshift it may be a time: of a run without a cosmology.
    return time if cosmology.omega_m and 0 < time <= 1 else None


def _stated_unit(
    header: Mapping[str, Any], groups: Mapping[str, Mapping[str, Any]], scaling: Scaling, h: float | None, path: Path
) -> float | None:
    """Return the unit of length in Mpc/h that header, parameters and data set state, None where none does.

    Raises
    ------
    UserError
        If they contradict each other.
    """
    if scaling.per_h is False and h is None:
        raise UserError(
            f"{path}: {scaling.place} is free of h, and the header does not say h; give the unit with --length-unit, "
            "such as '0.7 Mpc/h' for Mpc at h = 0.7"
        )
    stated = [
        (f"{_LENGTH_UNIT} of /{group}", cm, unit_from_cm(path, cm))
        for group, values in ({"Header": header} | dict(groups)).items()
        if (cm := number(values, _LENGTH_UNIT, path))
    ]
    if cm := number(header, _GIZMO_UNIT, path):
        # GIZMO divides its unit by h here, as 4.4e21 cm for kpc/h at h = 0.7; others copy the name and do not.
        stated.append((f"{_GIZMO_UNIT} of /Header", cm, unit_from_cm(path, cm, cm * (h or 1.0))))
    if scaling.unit and scaling.cm:
        stated.append((scaling.place, scaling.cm, scaling.unit))
    for place, cm, unit in stated[1:]:
        if unit != stated[0][2]:
            raise UserError(
                f"{path}: {stated[0][0]} states a unit of length of {stated[0][1]:g} cm and {place} one of {cm:g} cm; "
                "say which is right with --length-unit"
            )
    # Units of the GADGET family are comoving and per h, unless the data set says otherwise.
    factor = (h or 1.0) if scaling.per_h is False else 1.0
    return stated[0][2] * factor if stated else None


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
    masses[_DARK_MATTER] = omega_m * CRITICAL_DENSITY * box_size**3 / n
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
