"""The density fields of Quijote (Villaescusa-Navarro et al. 2020, arXiv:1909.05273)."""

from __future__ import annotations

import re
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.files.arrays import NpyArray
from data_tools.published.base import AbstractFormat, Contents, PublishedFile, Realisation, Request, cube
from data_tools.published.tables import find_table, read_table

_NAME = re.compile(r"df_m_(\d+)(?:_(NGP|CIC|TSC|PCS))?_z=(\d+(?:\.\d+)?)\.npy")
_BOX = 1000.0
_FIDUCIAL = Cosmology(omega_m=0.3175, omega_b=0.049, h=0.6711, sigma8=0.834, n_s=0.9624)
_SETS_OF_FIDUCIAL = ("fiducial", "fiducial_HR", "fiducial_LR", "fiducial_ZA")
_FIVE = ("Omega_m", "Omega_b", "h", "n_s", "sigma8")
# Columns of the tables of each set, which have one name for all.
_COLUMNS = {
    "latin_hypercube": _FIVE,
    "latin_hypercube_HR": _FIVE,
    "latin_hypercube_nwLH": (*_FIVE, "M_nu", "w0"),
    "latin_hypercube_EQ": ("f_NL_equilateral", "Omega_m", "h", "n_s", "sigma8"),
    "latin_hypercube_LC": ("f_NL_local",),
}
_TABLE = "latin_hypercube_params.txt"


class QuijoteFormat(AbstractFormat):
    """One cube per file, in folders ``COSMOLOGY/NUMBER/df_m_GRID_ASSIGNMENT_z=REDSHIFT.npy``.

    Whether delta or 1 + delta is stored is not documented; the values tell.
    """

    name = "quijote"
    options = ("params", "columns")

    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return whether the name is that of a density field."""
        return contents.kind == "npy" and _NAME.fullmatch(path.name) is not None

    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Read redshift and assignment from the name, number and cosmology from the folders."""
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise UserError(f"{path}: expected a name such as df_m_128_PCS_z=0.npy")
        array = NpyArray(path)
        values = cube(array)
        if values.shape[0] != int(match[1]):
            raise UserError(f"{path}: has {values.shape[0]} voxels along a side and its name says {match[1]}")
        folders = path.absolute().parts[-3:-1]
        label = int(folders[1]) if len(folders) == 2 and folders[1].isdecimal() else None
        simulations = folders[0] if label is not None else ""
        cosmology, conditions, note = _parameters(path, simulations, label, request)
        return PublishedFile(
            path=path,
            format_name=self.name,
            layout="cubes",
            box_size=request.length("box_size", _BOX, cosmology),
            redshift=float(match[3]),
            cosmology=cosmology,
            assignment=match[2] or "other",
            realisations=(
                Realisation(
                    values=values,
                    label=label,
                    conditions=conditions,
                ),
            ),
            notes=(note,),
        )


def _parameters(
    path: Path, simulations: str, label: int | None, request: Request
) -> tuple[Cosmology, dict[str, float], str]:
    """Return what is known of the cosmology, the conditions of this simulation, and a sentence on both."""
    if request.params is None and simulations in _SETS_OF_FIDUCIAL:
        return _FIDUCIAL, {}, f"fiducial cosmology of Quijote, going by the folder {simulations}"
    if request.params is None and simulations not in _COLUMNS:
        return Cosmology(), {}, "cosmology unknown: the folders do not say it; give --cosmology or --params"
    # Above the folder of the set lies, if any, the table of the set that came first.
    parents = path.absolute().parents[1 : 4 if _COLUMNS.get(simulations) is _FIVE else 2]
    candidates = [parent / _TABLE for parent in parents]
    table = find_table(path, request.params, candidates)
    if table is None:
        return Cosmology(), {}, "no parameters, as asked"
    columns = _COLUMNS.get(simulations, ())
    rows = read_table(table, lambda n: columns if n == len(columns) else None, asked=request.columns)
    if label is None or label >= len(rows):
        raise UserError(
            f"{path}: is simulation {'unknown' if label is None else label} by its folder; expected the number of one "
            f"of the {len(rows)} rows of {table}"
        )
    conditions = rows[label]
    return Cosmology(), conditions, f"parameters {', '.join(conditions)} from row {label} of {table}"
