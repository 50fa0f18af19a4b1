"""Tables of parameters, one row per simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.files.arrays import require_file

# Far above any table of parameters: 2000 rows of 30 columns are 1.5 MB.
_LARGEST_TABLE = 2**26
# The name of columns that are no parameters.
SEED = "seed"
# Spellings of published tables, without case and underscores, of names that mean one thing everywhere.
_OURS = {
    "omegam": "Omega_m",
    "omega0": "Omega_m",
    "omegamatter": "Omega_m",
    "omegab": "Omega_b",
    "omegabaryon": "Omega_b",
    "hubbleparam": "h",
    "h": "h",
    "sigma8": "sigma8",
    "ns": "n_s",
    "w0": "w0",
    "w": "w0",
    "h0": "H0",
    "asn1": "A_SN1",
    "asn2": "A_SN2",
    "aagn1": "A_AGN1",
    "aagn2": "A_AGN2",
}
# Above it, a Hubble constant is in km/s/Mpc.
_LARGEST_H = 10.0
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
    path: Path, known: Callable[[int], Sequence[str] | None], *, asked: str | None = None, n_rows: int | None = None
) -> list[dict[str, float]]:
    """Read a table of numbers, one row per simulation.

    The columns are named by the user, else by the table's own first line, else by what is known of such a table. A
    first column of text, the names of simulations, and a column of seeds are left out: neither is a parameter.

    Parameters
    ----------
    path
        Text file.
    known
        Names of the columns of a published table that has so many columns of numbers, `SEED` for seeds; None where that
        is not known.
    asked
        Names of the columns in order, such as ``"Omega_m,sigma8"``, where the user says them.
    n_rows
        Number of rows that there must be, where that is known.

    Returns
    -------
        One dictionary per row.

    Raises
    ------
    UserError
        If the table is damaged, its columns are unknown, or it has another number of rows or impossible values.
    """
    words = _words(path)
    header = words.pop(0) if words and all(_number(word) is None for word in words[0]) else None
    if not words:
        raise UserError(f"{path}: is not a table of numbers (it has no rows)")
    named = all(_number(row[0]) is None for row in words)
    words = [row[named:] for row in words]
    width = len(words[0])
    if any(len(row) != width for row in words) or not width:
        raise UserError(f"{path}: is not a table of numbers (its rows have different numbers of columns)")
    values = [[_number(word) for word in row] for row in words]
    bad = next(((i, j) for i, row in enumerate(values) for j, value in enumerate(row) if value is None), None)
    if bad is not None:
        raise UserError(f"{path}: is not a table of numbers (row {bad[0]} holds {words[bad[0]][bad[1]]!r})")
    published = known(width)
    if published is not None and SEED in published:
        seeds = [row[published.index(SEED)] for row in values]
        published = published if all(float(seed or 0.0).is_integer() for seed in seeds) else None
    if header is None:
        header = _commented_names(path, published or ())
    if header is not None and named and len(header) == width + 1:
        header = header[1:]
    names = _column_names(path, width, None if asked is None else asked.replace(",", " ").split(), header, published)
    if n_rows is not None and len(values) != n_rows:
        raise UserError(f"{path}: has {len(values)} rows; expected {n_rows}, one per simulation of the file")
    rows = [
        {name: float(value or 0.0) for name, value in zip(names, row, strict=True) if name != SEED} for row in values
    ]
    for row in rows:
        # In km/s/Mpc it is far above 10.
        if (hubble := row.pop("H0", None)) is not None:
            row["h"] = hubble / 100 if hubble > _LARGEST_H else hubble
    for number, row in enumerate(rows):
        check_parameters(f"{path}: row {number}", row)
    return rows


def _lines(path: Path) -> list[str]:
    require_file(path)
    if path.stat().st_size > _LARGEST_TABLE:
        raise UserError(f"{path}: is {path.stat().st_size / 1e6:.0f} MB large; expected a table of parameters")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: is not a table of numbers ({str(error).splitlines()[0]})") from None


def _words(path: Path) -> list[list[str]]:
    """Return the words of all lines but comments."""
    rows = [line.split("#")[0].replace(",", " ").split() for line in _lines(path)]
    return [row for row in rows if row]


def _commented_names(path: Path, published: Sequence[str]) -> list[str] | None:
    """Return the words of the last comment that names a parameter; None if there is none."""
    parameters = {*_OURS, *(name.lower().replace("_", "") for name in published)} - {"h", "w"}
    comments = [line.strip().lstrip("#").replace(",", " ").split() for line in _lines(path) if line.lstrip()[:1] == "#"]
    found = [words for words in comments if any(word.lower().replace("_", "") in parameters for word in words)]
    return found[-1] if found else None


def _column_names(
    path: Path, width: int, asked: list[str] | None, header: list[str] | None, published: Sequence[str] | None
) -> list[str]:
    """Return our names of the columns: the user's, else the table's own, else those of the published table."""
    names = asked or header or published
    if names is None:
        raise UserError(
            f"{path}: has {width} columns and no line of names, and no published table that is known here has so many; "
            "say what they are, in order, with --columns Omega_m,sigma8,..., or give --params none"
        )
    if len(names) != width:
        whose = "--columns" if asked else "its line of names"
        raise UserError(
            f"{path}: has {width} columns and {whose} names {len(names)} ({', '.join(names)}); name each, in order, "
            "with --columns"
        )
    ours = [SEED if name.lower().endswith(SEED) else _OURS.get(name.lower().replace("_", ""), name) for name in names]
    if twice := next((name for name in ours if ours.count(name) > 1 and name != SEED), None):
        raise UserError(f"{path}: has two columns of {twice}; name them apart with --columns")
    return ours


def _number(word: str) -> float | None:
    # Python reads 1_0 as ten.
    if "_" in word:
        return None
    try:
        return float(word)
    except ValueError:
        return None


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
        known = Cosmology(**{ours: parameters[name] for name, ours in COSMOLOGY_NAMES.items() if name in parameters})
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    if known.omega_m is not None and known.omega_b is not None and known.omega_b >= known.omega_m:
        raise UserError(
            f"{place}: Omega_b is {known.omega_b:g} and Omega_m {known.omega_m:g}; baryons are a part of matter. Are "
            "the columns in another order?"
        )
