"""The CAMELS Multifield Dataset (Villaescusa-Navarro et al. 2022, arXiv:2109.10915): maps and grids with parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.files.arrays import AbstractArray, Field, NpyArray
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request, cubes, stack
from data_tools.published.tables import find_table, read_table

_NAME = re.compile(r"(Maps|Grids)_([A-Za-z]+)_(.+)_z=(\d+(?:\.\d+)?)\.npy")
_SETS = re.compile(r"(.*?)_?(LH|CV|1P|EX|BE|SB\d+)(?:_(\d+))?")
_BOX = 25.0
# Five slabs along each of three axes cover the box three times.
_SLABS = 5
_MAPS_PER_SIMULATION = 3 * _SLABS
# Shared by all simulations of the latin hypercube; Omega_m and sigma8 stand in the table.
_COSMOLOGY = Cosmology(omega_b=0.049, h=0.6711, n_s=0.9624)
_COLUMNS = ("Omega_m", "sigma8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
# Fields that are a density of something; the others (velocities, temperatures, ...) have no overdensity.
_DENSITIES = ("Mtot", "Mcdm", "Mgas", "Mstar", "HI", "ne")
# (Msun/h) / (Mpc/h)^3.
_CRITICAL_DENSITY = 2.77536627e11


class CamelsFormat(AbstractFormat):
    """Maps ``(15 n, 256, 256)`` and grids ``(n, N, N, N)`` of n simulations, told apart by the name."""

    name = "camels"

    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return whether the name is that of a file of maps or grids."""
        return contents.kind == "npy" and _NAME.fullmatch(path.name) is not None

    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Find the simulations and their parameters."""
        match = _NAME.fullmatch(path.name)
        sets = _SETS.fullmatch(match[3]) if match else None
        if match is None or sets is None:
            raise UserError(
                f"{path}: its name says neither what it holds nor of which simulations; expected one such as "
                "Maps_Mtot_IllustrisTNG_LH_z=0.00.npy or Grids_Mcdm_SIMBA_LH_128_z=0.00.npy"
            )
        kind, prefix, suite, simulations = match[1], match[2], sets[1], sets[2]
        if prefix not in _DENSITIES:
            raise UserError(f"{path}: holds {prefix}, which is no density; slices are made of {', '.join(_DENSITIES)}")
        array = NpyArray(path)
        fields = _map_fields(array) if kind == "Maps" else _grid_fields(array)
        if sets[3] is not None and int(sets[3]) != fields[0].shape[1]:
            raise UserError(f"{path}: has {fields[0].shape[1]} voxels along a side and its name says {sets[3]}")
        # An N-body simulation has two parameters; the other columns are those of its hydrodynamic twin.
        n_body = "Nbody" in suite
        suites = [suite, suite.replace("Nbody", "").strip("_")] if n_body else [suite]
        names = [name for one in suites for name in (f"params_{simulations}_{one}.txt", f"params_{one}.txt")]
        table = find_table(path, request.params, [path.with_name(name) for name in names])
        columns = _COLUMNS[:2] if n_body else _COLUMNS
        rows = [] if table is None else read_table(table, columns, n_rows=len(fields), further=not n_body)
        cosmology = _COSMOLOGY if simulations in ("LH", "CV") else Cosmology(h=_COSMOLOGY.h)
        box = request.length("box_size", _BOX, cosmology)
        thickness = request.length("thickness", box / _SLABS, cosmology) if kind == "Maps" else None
        realisations = tuple(
            Realisation(
                values=values,
                label=number,
                conditions=rows[number] if rows else {},
                expected_means=_expected(prefix, rows[number], box / values.shape[1], thickness) if rows else (),
            )
            for number, values in enumerate(fields)
        )
        return PublishedFile(
            path=path,
            format_name=self.name,
            layout="slices" if kind == "Maps" else "cubes",
            box_size=box,
            thickness=thickness,
            redshift=float(match[4]),
            quantity="mass",
            cosmology=cosmology,
            realisations=realisations,
            notes=(
                f"{prefix} of {suite}, set {simulations}, divided by the mean of each simulation's "
                + ("15 maps, which cover its box three times" if kind == "Maps" else "grid"),
                "no parameters, as asked" if table is None else f"parameters {', '.join(rows[0])} from {table}",
            ),
        )


def _map_fields(array: AbstractArray) -> list[Field]:
    if len(array.shape) != 3 or array.shape[1] != array.shape[2] or array.shape[0] % _MAPS_PER_SIMULATION:
        raise UserError(
            f"{array.name}: has shape {array.shape}; expected (15 n, N, N), 15 maps of each simulation in order"
        )
    return [
        stack(array, first, first + _MAPS_PER_SIMULATION) for first in range(0, array.shape[0], _MAPS_PER_SIMULATION)
    ]


def _grid_fields(array: AbstractArray) -> list[Field]:
    if len(array.shape) != 4 or len(set(array.shape[1:])) != 1:
        raise UserError(f"{array.name}: has shape {array.shape}; expected (n, N, N, N), a grid for each simulation")
    return cubes(array)


def _expected(prefix: str, row: Mapping[str, float], pixel: float, thickness: float | None) -> tuple[float, ...]:
    """Return the mean of total or dark matter in Msun/h per (Mpc/h)^A, per (kpc/h)^A and per pixel or voxel."""
    omega = {"Mtot": row["Omega_m"], "Mcdm": row["Omega_m"] - (_COSMOLOGY.omega_b or 0.0)}.get(prefix)
    if omega is None:
        return ()
    power = 3 if thickness is None else 2
    mean = omega * _CRITICAL_DENSITY * (1.0 if thickness is None else thickness)
    return mean, mean * 1e-3**power, mean * pixel**power
