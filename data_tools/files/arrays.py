"""Arrays on disk, read in pieces: NumPy files, archives of them and HDF5 data sets, as strangers' files allow it."""

from __future__ import annotations

import math
import os
import tokenize
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.hdf5 import Part, open_file, parts_of, require_filters

Index = tuple[int | slice, ...]

# Attributes of packed values, with what holds where there is none, and attributes that say which values are missing.
_PACKED_BY = {"scale_factor": 1.0, "add_offset": 0.0}
_ABSENT_BY = ("_FillValue", "missing_value", "valid_range", "valid_min", "valid_max")

# Arrays named in a message at most.
_LISTED = 8
# Largest array taken from an .npz archive, which can only be unpacked into memory as a whole.
_LARGEST_UNPACKED = 2**31
# What NumPy raises on headers and data that are none.
_NPY_ERRORS = (ValueError, OSError, EOFError, OverflowError, MemoryError, TypeError, SyntaxError, tokenize.TokenError)
_NPZ_ERRORS = (*_NPY_ERRORS, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, RuntimeError)
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError)


class AbstractArray(ABC):
    """An array of numbers in a file.

    Parameters
    ----------
    name
        File and place in it, for messages.
    shape, dtype
        As in NumPy.

    Raises
    ------
    UserError
        If the array does not hold real numbers, or is empty.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise UserError(f"{name}: holds values of type {dtype}; expected integers or real numbers of up to 64 bits")
        if not all(shape) or not shape:
            raise UserError(f"{name}: has shape {shape}, which holds nothing")
        self.name = name
        self.shape = shape
        self.dtype = dtype
        # Whether values are scaled from stored numbers, by attributes of the file.
        self.packed = False

    def read(self, index: Index) -> np.ndarray:
        """Return a part in the machine's byte order.

        Raises
        ------
        UserError
            If the file is damaged there.
        """
        try:
            part = self._read(index)
        except UserError:
            raise
        except (*_HDF5_ERRORS, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{self.name}: cannot be read ({reason}); copy or download the file again") from None
        return part.astype(part.dtype.newbyteorder("="), copy=False)

    @abstractmethod
    def _read(self, index: Index) -> np.ndarray:
        """Return a part that is not tied to the file."""


class NpyArray(AbstractArray):
    """The array of an ``.npy`` file, mapped only while a part is read so that memory holds no more than the part.

    Raises
    ------
    UserError
        If the file is no such file, is cut short or holds Python objects.
    """

    def __init__(self, path: Path) -> None:
        try:
            with open(path, "rb") as stream:
                shape, dtype = _npy_header(stream)
                missing = math.prod(shape) * dtype.itemsize - (path.stat().st_size - stream.tell())
            if missing > 0:
                raise UserError(
                    f"{path}: is cut short by {missing} bytes of its {shape} {dtype}; copy or download it again"
                )
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except UserError:
            raise
        except _NPY_ERRORS as error:
            raise UserError(f"{path}: is not a whole .npy file of numbers ({_first_line(error)})") from None
        if not isinstance(mapped, np.memmap):
            raise UserError(f"{path}: has shape {mapped.shape}; expected an array")
        super().__init__(str(path), mapped.shape, mapped.dtype)
        self._path = path
        self._offset = mapped.offset
        self._order: Any = "F" if mapped.flags.f_contiguous and not mapped.flags.c_contiguous else "C"

    def _read(self, index: Index) -> np.ndarray:
        mapped = np.memmap(self._path, self.dtype, "r", self._offset, self.shape, self._order)
        return np.array(mapped[index], copy=True, subok=False)


class NpzArray(AbstractArray):
    """One array of an ``.npz`` archive, unpacked into memory.

    Raises
    ------
    UserError
        If there is no such array, it is damaged or too large to be unpacked.
    """

    def __init__(self, path: Path, member: str) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                packed = archive.getinfo(f"{member}.npy")
                if packed.file_size > _LARGEST_UNPACKED:
                    raise UserError(
                        f"{path}: {member} unpacks to {packed.file_size / 1e9:.1f} GB, and an archive is unpacked in "
                        "memory; save the array with np.save and convert the .npy file"
                    )
                with archive.open(packed) as stream:
                    shape, dtype = _npy_header(stream)
                    if math.prod(shape) * dtype.itemsize > packed.file_size:
                        raise UserError(f"{path}: {member} is cut short; copy or download the file again")
                with archive.open(packed) as stream:
                    self._values = np.lib.format.read_array(stream, allow_pickle=False)
        except UserError:
            raise
        except _NPZ_ERRORS as error:
            raise UserError(f"{path}: {member} is not a whole array of numbers ({_first_line(error)})") from None
        super().__init__(f"{path}: {member}", self._values.shape, self._values.dtype)

    def _read(self, index: Index) -> np.ndarray:
        return np.array(self._values[index])


class Hdf5Array(AbstractArray):
    """A data set of an HDF5 file.

    Raises
    ------
    UserError
        If there is no such data set, or parts of it are elsewhere or were never written: HDF5 returns zeros for those.
    """

    def __init__(self, path: Path, dataset: str) -> None:
        self._path = path
        self._dataset = dataset
        with open_hdf5(path) as handle:
            found = hdf5_member(handle, dataset)
            if not isinstance(found, h5py.Dataset):
                held = listed(hdf5_shapes(path)) or ", ".join(sorted(handle)) or "nothing"
                raise UserError(f"{path}: has no data set {dataset!r}; it holds {held}")
            name = f"{path}: {dataset}"
            try:
                shape, dtype = found.shape, found.dtype
                require_filters(found, path)
                incomplete = bool(found.external) or _unwritten(found, path)
            except _HDF5_ERRORS as error:
                raise UserError(f"{name}: cannot be read ({_first_line(error)})") from None
        super().__init__(name, shape or (), dtype)
        self._packing = _packing(path, dataset)
        self.packed = self._packing.packed
        self.dtype = np.dtype(np.float64) if self.packed else self._packing.unsigned or self.dtype
        if incomplete:
            raise UserError(
                f"{name}: was never written to the end, or keeps values in other files that are not there; give a "
                "whole file"
            )

    def _read(self, index: Index) -> np.ndarray:
        with open_hdf5(self._path) as handle:
            stored = self._packing.stored(handle[self._dataset][index])
        values = self._packing.values(stored)
        if any(test(stored, values).any() for test in self._packing.absent.values()):
            raise self._holes()
        return values

    def _holes(self) -> UserError:
        """Return the refusal of a data set with missing values: how many, the first of them and why."""
        number, first = 0, ""
        for plane in range(self.shape[0]):
            with open_hdf5(self._path) as handle:
                stored = self._packing.stored(handle[self._dataset][plane : plane + 1])
            values = self._packing.values(stored)
            absent = {name: test(stored, values) for name, test in self._packing.absent.items()}
            missing = np.any(list(absent.values()), axis=0)
            number += int(missing.sum())
            if not first and missing.any():
                place = tuple(map(int, np.argwhere(missing)[0]))
                why = next(name for name, mask in absent.items() if mask[place])
                first = f"({', '.join(map(str, (plane, *place[1:])))}), stored as {stored[place]:g}, by its {why}"
        return UserError(
            f"{self.name}: {number} of {math.prod(self.shape)} values are missing, the first at {first}; a density "
            "with holes is no whole box: fill them, or give a field without"
        )


_Test = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class _Packing:
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


def _packing(path: Path, dataset: str) -> _Packing:
    """Read what a data set says of its values."""
    place = f"{path}: {dataset}"
    with open_hdf5(path) as handle:
        found = handle[dataset]
        kind = found.dtype.newbyteorder("=")
        try:
            said = {
                name: np.asarray(found.attrs[name]).ravel()
                for name in (*_PACKED_BY, *_ABSENT_BY)
                if name in found.attrs
            }
            unsigned = str(np.asarray(found.attrs.get("_Unsigned", "false")).ravel()[0]).strip("b'\"").lower() == "true"
            netcdf = "_NCProperties" in handle.attrs or any(name in found.attrs for name in _NETCDF_MARKS)
        except (*_HDF5_ERRORS, IndexError) as error:
            raise UserError(f"{place}: its attributes cannot be read ({_first_line(error)})") from None
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
    return _Packing(packed=packed, scale=scale, offset=offset, unsigned=as_unsigned, absent=absent)


@dataclass(frozen=True)
class Field:
    """Some planes of an array: a cube, or a stack of slices.

    Parameters
    ----------
    array
        The array on disk.
    shape
        ``(n, n_pixels, n_pixels)``.
    place
        Turns the three slices of a part of the field into an index of the array.
    """

    array: AbstractArray
    shape: tuple[int, int, int]
    place: Callable[[slice, slice, slice], Index]

    def read(self, first: slice, second: slice = slice(None), third: slice = slice(None)) -> np.ndarray:
        """Return a part of the field.

        Raises
        ------
        UserError
            If the file is damaged there.
        """
        return self.array.read(self.place(first, second, third))


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading, with the filters of ``hdf5plugin`` where that is installed.

    Raises
    ------
    UserError
        If it is not one, or damaged.
    """
    try:
        return open_file(path)
    except _HDF5_ERRORS as error:
        raise UserError(f"{path}: is not a whole HDF5 file ({_first_line(error)})") from None


def hdf5_member(group: h5py.Group, name: str) -> object:
    """Return what a name stands for; None where it is missing or its link leads nowhere or in circles."""
    try:
        return group.get(name)
    except _HDF5_ERRORS:
        return None


def hdf5_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the places and shapes of the data sets of an HDF5 file, in groups too.

    Raises
    ------
    UserError
        If it is not one, or damaged.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def look(group: h5py.Group, place: str, above: tuple[Any, ...]) -> None:
        # A link may lead back to a group that holds it.
        for name in group:
            member = hdf5_member(group, name)
            if isinstance(member, h5py.Dataset):
                shapes[place + name] = member.shape or ()
            elif isinstance(member, h5py.Group) and member.id not in above:
                look(member, f"{place}{name}/", (*above, member.id))

    with open_hdf5(path) as handle:
        try:
            look(handle, "", (handle["/"].id,))
        except _HDF5_ERRORS as error:
            raise UserError(f"{path}: is a damaged HDF5 file ({_first_line(error)})") from None
    return shapes


def listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return names and shapes of arrays, for messages."""
    names = [f"{name} {shape}" for name, shape in shapes.items()]
    return ", ".join(names[:_LISTED]) + (f", and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the arrays in an ``.npz`` archive.

    Raises
    ------
    UserError
        If it is not one.
    """
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as stream:
                        shapes[name.removesuffix(".npy")] = _npy_header(stream)[0]
    except _NPZ_ERRORS as error:
        raise UserError(f"{path}: is not a whole .npz file of numbers ({_first_line(error)})") from None
    return shapes


def require_file(path: Path) -> None:
    """Refuse what is not a readable file with something in it.

    Raises
    ------
    UserError
        Saying why.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"{path}: {reason}") from None
    if not path.is_file():
        raise UserError(f"{path}: is not a file; expected an .npy, .npz or HDF5 file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no permission to read it")
    if status.st_size == 0:
        raise UserError(f"{path}: is empty; expected an .npy, .npz or HDF5 file")


def _unwritten(dataset: h5py.Dataset, path: Path) -> bool:
    if dataset.is_virtual:
        # HDF5 returns fill values for a part that is not there.
        parts = list(parts_of(dataset, path))
        return sum(part.n_points for part in parts) != dataset.size or any(_missing(part) for part in parts)
    if dataset.chunks is None:
        return bool(dataset.id.get_storage_size() < dataset.size * dataset.dtype.itemsize)
    expected = math.prod(-(-n // chunk) for n, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return bool(dataset.id.get_num_chunks() < expected)


def _missing(part: Part) -> bool:
    try:
        with open_file(part.file) as handle:
            held = handle.get(part.dataset)
            if not isinstance(held, h5py.Dataset) or part.shape_problem(held.shape):
                return True
            require_filters(held, part.file)
            return _unwritten(held, part.file)
    except _HDF5_ERRORS as error:
        if isinstance(error, UserError):
            raise
        return True


def _npy_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
