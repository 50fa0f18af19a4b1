"""Packed and missing values, by the attributes that netCDF and the CF conventions give data sets in HDF5 files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError

# Attributes of packed values, with what holds where there is none, and attributes that say which values are missing.
_PACKED_BY = {"scale_factor": 1.0, "add_offset": 0.0}
_ABSENT_BY = ("_FillValue", "missing_value", "valid_range", "valid_min", "valid_max")

_Test = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Packing:
    """What the attributes of a data set say of its values, by the conventions of climate and forecast files (CF).

    Parameters
    ----------
    packed
        Whether values are ``scale * number + offset`` of the stored numbers.
    scale, offset
        Of packed values.
    unsigned
        Type that signed integers stand for.
    absent
        What tells, by the name of the attribute, from stored numbers and values which of them stand for no value.
    """

    packed: bool
    scale: float
    offset: float
    unsigned: np.dtype[Any] | None
    absent: Mapping[str, _Test]

    def stored(self, part: np.ndarray) -> np.ndarray:
        """Return stored numbers as what they stand for, in the machine's byte order."""
        part = part.astype(part.dtype.newbyteorder("="), copy=False)
        return part if self.unsigned is None else part.view(self.unsigned)

    def values(self, stored: np.ndarray) -> np.ndarray:
        """Return the values of stored numbers."""
        return stored.astype(np.float64) * self.scale + self.offset if self.packed else stored


_DEFAULT_FILL = "default fill of netCDF"
# What netCDF writes where nothing was written, by type; it never does so for single bytes.
_NETCDF_FILL: dict[str, int | float] = {
    "i2": -32767,
    "u2": 65535,
    "i4": -2147483647,
    "u4": 4294967295,
    "i8": -9223372036854775806,
    "u8": 18446744073709551614,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}
# Attributes that the netCDF library leaves in a file or on its variables.
_NETCDF_MARKS = ("_Netcdf4Dimid", "_Netcdf4Coordinates", "DIMENSION_LIST")


def packing_of(handle: h5py.File, dataset: str, place: str) -> Packing:
    """Read what a data set says of its values.

    Parameters
    ----------
    handle
        The file.
    dataset
        Name of the data set.
    place
        File and data set, for messages.

    Raises
    ------
    UserError
        If an attribute is not what its convention says.
    """
    found = handle[dataset]
    kind = found.dtype.newbyteorder("=")
    try:
        said = {
            name: np.asarray(found.attrs[name]).ravel() for name in (*_PACKED_BY, *_ABSENT_BY) if name in found.attrs
        }
        unsigned = str(np.asarray(found.attrs.get("_Unsigned", "false")).ravel()[0]).strip("b'\"").lower() == "true"
        netcdf = "_NCProperties" in handle.attrs or any(name in found.attrs for name in _NETCDF_MARKS)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{place}: its attributes cannot be read ({str(error).splitlines()[0]})") from None
    for name, given in said.items():
        number = {"valid_range": 2, "missing_value": max(1, given.size)}.get(name, 1)
        if given.dtype.kind not in "iuf" or given.size != number:
            expected = {"valid_range": "two numbers", "missing_value": "numbers"}.get(name, "one number")
            raise UserError(f"{place}: its attribute {name} is {given.tolist()}; expected {expected}")
    scale, offset = (float(said[name][0]) if name in said else default for name, default in _PACKED_BY.items())
    if not (math.isfinite(scale) and scale != 0 and math.isfinite(offset)):
        raise UserError(
            f"{place}: its attributes scale_factor and add_offset are {scale:g} and {offset:g}; expected numbers, the "
            "first other than 0"
        )
    if netcdf and "_FillValue" not in said and kind.str[1:] in _NETCDF_FILL:
        said[_DEFAULT_FILL] = np.array([_NETCDF_FILL[kind.str[1:]]], kind)
    as_unsigned = np.dtype(f"u{kind.itemsize}") if unsigned and kind.kind == "i" else None
    packed = not said.keys().isdisjoint(_PACKED_BY)

    def meant(given: np.ndarray) -> list[int | float]:
        # Attributes of the stored type share its sign.
        given = given.astype(given.dtype.newbyteorder("="))
        return given.view(as_unsigned).tolist() if as_unsigned is not None and given.dtype == kind else given.tolist()

    def equal(number: int | float) -> _Test:
        if math.isnan(number):
            return lambda stored, values: np.isnan(values)
        if kind.kind == "f":
            return lambda stored, values: stored == kind.type(number)
        if float(number).is_integer():
            return lambda stored, values: stored == int(number)
        return lambda stored, values: values == number

    def outside(low: int | float, high: int | float, given: np.dtype[Any]) -> _Test:
        # Bounds of real type on packed integers are those of the values.
        if packed and kind.kind in "iu" and given.kind == "f":
            return lambda stored, values: (values < low) | (values > high)
        return lambda stored, values: (stored < low) | (stored > high)

    def any_of(tests: list[_Test]) -> _Test:
        return lambda stored, values: np.any([test(stored, values) for test in tests], axis=0)

    absent: dict[str, _Test] = {}
    for name in said.keys() - _PACKED_BY.keys():
        numbers = meant(said[name])
        if name in ("_FillValue", "missing_value", _DEFAULT_FILL):
            absent[name] = any_of([equal(number) for number in numbers])
        else:
            low, high = {"valid_min": (numbers[0], math.inf), "valid_max": (-math.inf, numbers[0])}.get(name, numbers)
            absent[name] = outside(low, high, said[name].dtype)
    return Packing(packed=packed, scale=scale, offset=offset, unsigned=as_unsigned, absent=absent)
