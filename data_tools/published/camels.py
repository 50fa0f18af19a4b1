"""The CAMELS Multifield Dataset (Villaescusa-Navarro et al. 2022, arXiv:2109.10915): maps and grids with parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.files.arrays import AbstractArray, Field, NpyArray
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request, cubes, stack
from data_tools.published.tables import COSMOLOGY_NAMES, SEED, find_table, read_table

_NAME = re.compile(r"(Maps|Grids)_([A-Za-z]+)_(.+)_z=(\d+(?:\.\d+)?)\.npy")
_SETS = re.compile(r"(.*?)_?(LH|CV|1P|EX|BE|SB\d+)(?:_(\d+))?")
# Sides in Mpc/h of the boxes of each set; a name that holds L25 or L50 says it itself.
_BOXES = dict.fromkeys(("LH", "CV", "1P", "EX", "BE", "SB5", "SB7", "SB26", "SB28"), 25.0) | {"SB35": 50.0}
_BOX_IN_NAME = re.compile(r"(?:^|_)L(25|50)(?:n\d+)?(?:_|$)")
# Five slabs along each of three axes cover the box three times.
_SLABS = 5
_MAPS_PER_SIMULATION = 3 * _SLABS
# Of the sets whose simulations share them; what a table holds as well is the simulation's own.
_FIXED = dict.fromkeys(("LH", "CV", "EX", "BE", "SB5"), Cosmology(omega_b=0.049, h=0.6711, n_s=0.9624)) | {
    "SB7": Cosmology(h=0.6711, n_s=0.9624)
}
_SIX = ("Omega_m", "sigma8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")
# The simulation's own numbers, where the six above are factors of them.
_TWENTY_EIGHT = (
    "Omega_m",
    "sigma8",
    "WindEnergyIn1e51erg",
    "RadioFeedbackFactor",
    "VariableWindVelFactor",
    "RadioFeedbackReiorientationFactor",
    "Omega_b",
    "h",
    "n_s",
    "MaxSfrTimescale",
    "FactorForSofterEQS",
    "IMFslope",
    "SNII_MinMass_Msun",
    "ThermalWindFraction",
    "VariableWindSpecMomentum",
    "WindFreeTravelDensFac",
    "MinWindVel",
    "WindEnergyReductionFactor",
    "WindEnergyReductionMetallicity",
    "WindEnergyReductionExponent",
    "WindDumpFactor",
    "SeedBlackHoleMass",
    "BlackHoleAccretionFactor",
    "BlackHoleEddingtonFactor",
    "BlackHoleFeedbackFactor",
    "BlackHoleRadiativeEfficiency",
    "QuasarThreshold",
    "QuasarThresholdPower",
)
_THIRTY_FIVE = (
    *_TWENTY_EIGHT,
    "UVBH0beta",
    "UVBH0Deltaz",
    "UVBHepbeta",
    "UVBHepDeltaz",
    "SNIa_Rate_Norm",
    "SNIa_Rate_DTD_power",
    "SofteningComovingType01",
)
# Suites, sets and columns of tables that are published without a line of names, some with seeds as a last column.
_TABLES: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (
        ("IllustrisTNG", "SIMBA", "Astrid", "EAGLE", "SwiftEAGLE", "Swift-EAGLE", "Magneticum"),
        ("LH", "CV", "1P", "EX", "BE"),
        _SIX,
    ),
    (("Ramses",), ("CV", "1P", "SB5"), ("Omega_m", "sigma8", "A_SN1", "A_SN2", "A_AGN1", "A_AGN2")),
    (("Astrid",), ("SB7",), (*_SIX, "Omega_b")),
    (("IllustrisTNG",), ("1P", "BE", "SB28"), _TWENTY_EIGHT),
    (("IllustrisTNG",), ("1P", "CV", "SB35"), _THIRTY_FIVE),
)
# Fields that are a density of something; the others (velocities, temperatures, ...) have no overdensity.
_DENSITIES = ("Mtot", "Mcdm", "Mgas", "Mstar", "HI", "ne")
# (Msun/h) / (Mpc/h)^3.
_CRITICAL_DENSITY = 2.77536627e11


class CamelsFormat(AbstractFormat):
    """Maps ``(15 n, 256, 256)`` and grids ``(n, N, N, N)`` of n simulations, told apart by the name."""

    name = "camels"
    options = ("params", "columns")

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
        rows = [] if table is None else _rows(table, suites[-1], simulations, request, len(fields), n_body=n_body)
        cosmology = _FIXED.get(simulations, Cosmology())
        sized = _BOX_IN_NAME.search(suite)
        known_box = float(sized[1]) if sized else _BOXES.get(simulations)
        box = request.length("box_size", known_box, cosmology)
        thickness = request.length("thickness", box / _SLABS, cosmology) if kind == "Maps" else None
        realisations = tuple(
            Realisation(
                values=values,
                label=number,
                conditions=rows[number] if rows else {},
                expected_means=_expected(prefix, rows[number], cosmology, box / values.shape[1], thickness)
                if rows
                else (),
            )
            for number, values in enumerate(fields)
        )
        return PublishedFile(
            path=path,
            format_name=self.name,
            # Parameters of the feedback of one suite mean nothing in another; simulations without gas have none.
            holds=f"{prefix} of {'Nbody' if n_body else suite}",
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


def _rows(
    table: Path, suite: str, simulations: str, request: Request, n_rows: int, *, n_body: bool
) -> list[dict[str, float]]:
    suite = _BOX_IN_NAME.sub("", suite).strip("_")

    def known(n_columns: int) -> tuple[str, ...] | None:
        if n_body and n_columns == 2:
            return _SIX[:2]
        for suites, sets, columns in _TABLES:
            if suite in suites and simulations in sets and n_columns - len(columns) in (0, 1):
                return columns if n_columns == len(columns) else (*columns, SEED)
        return None

    rows = read_table(table, known, asked=request.columns, n_rows=n_rows)
    if not n_body:
        return rows
    return [{name: value for name, value in row.items() if name in COSMOLOGY_NAMES} for row in rows]


def _expected(
    prefix: str, row: Mapping[str, float], fixed: Cosmology, pixel: float, thickness: float | None
) -> tuple[float, ...]:
    """Return the mean of total or dark matter in Msun/h per (Mpc/h)^A, per (kpc/h)^A and per pixel or voxel."""
    omega_m, omega_b = row.get("Omega_m"), row.get("Omega_b", fixed.omega_b)
    if omega_m is None or prefix not in ("Mtot", "Mcdm") or (prefix == "Mcdm" and omega_b is None):
        return ()
    omega = omega_m - (omega_b or 0.0) * (prefix == "Mcdm")
    power = 3 if thickness is None else 2
    mean = omega * _CRITICAL_DENSITY * (1.0 if thickness is None else thickness)
    return mean, mean * 1e-3**power, mean * pixel**power
