"""Tables of parameters, one row per simulation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.files.arrays import require_file

# Far above any table of parameters: 2000 rows of 30 columns are 1.5 MB.
_LARGEST_TABLE = 2**26
# Our names of parameters that are part of the background cosmology.
COSMOLOGY_NAMES = {"Omega_m": "omega_m", "Omega_b": "omega_b", "h": "h", "sigma8": "sigma8", "n_s": "n_s", "w0": "w0"}


def find_table(path: Path, asked: str | None, candidates: Sequence[Path]) -> Path | None:
    """Return the table of parameters that belongs to a file.

    Parameters
    ----------
    path
        The file.
    asked
        What the user says: a table, ``"none"`` or None.
    candidates
        Where it lies as published.

    Returns
    -------
        None when the user wants none.

    Raises
    ------
    UserError
        If there is none in these places.
    """
    if asked == "none":
        return None
    if asked is not None:
        require_file(Path(asked))
        return Path(asked)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    places = " or ".join(str(candidate) for candidate in candidates)
    raise UserError(
        f"{path}: its table of parameters, {places}, is not there; put it there, name it with --params FILE, or give "
        "--params none to go without parameters"
    )


def read_table(
    path: Path, columns: Sequence[str], *, n_rows: int | None = None, further: bool = False
) -> list[dict[str, float]]:
    """Read a table of numbers.

    Parameters
    ----------
    path
        Text file, one row per simulation.
    columns
        Names of the first columns.
    n_rows
        How many rows there must be, where that is known.
    further
        Whether columns beyond these are kept, as ``parameter_7`` for the seventh.

    Returns
    -------
        One dictionary per row.

    Raises
    ------
    UserError
        If the table is damaged, has too few columns, another number of rows or impossible values.
    """
    require_file(path)
    if path.stat().st_size > _LARGEST_TABLE:
        raise UserError(f"{path}: is {path.stat().st_size / 1e6:.0f} MB large; expected a table of parameters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = np.loadtxt(path, ndmin=2)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: is not a table of numbers ({str(error).splitlines()[0]})") from None
    if values.shape[1] < len(columns) or not len(values):
        raise UserError(
            f"{path}: has {len(values)} rows of {values.shape[1]} columns; expected {', '.join(columns)} in each"
        )
    if n_rows is not None and len(values) != n_rows:
        raise UserError(f"{path}: has {len(values)} rows; expected {n_rows}, one per simulation of the file")
    names = [*columns, *(f"parameter_{i + 1}" for i in range(len(columns), values.shape[1] if further else 0))]
    rows = [dict(zip(names, map(float, row), strict=False)) for row in values]
    for number, row in enumerate(rows):
        check_parameters(f"{path}: row {number}", row)
    return rows


def check_parameters(place: str, parameters: Mapping[str, float]) -> None:
    """Refuse parameters that no simulation has.

    Raises
    ------
    UserError
        Naming the first.
    """
    for name, value in parameters.items():
        if not np.isfinite(value):
            raise UserError(f"{place}: {name} is {value}; expected a number")
    try:
        Cosmology(**{ours: parameters[name] for name, ours in COSMOLOGY_NAMES.items() if name in parameters})
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
