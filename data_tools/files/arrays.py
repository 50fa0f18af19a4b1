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
from data_tools.files.packing import packing_of

Index = tuple[int | slice, ...]

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
        with open_hdf5(path) as handle:
            self._packing = packing_of(handle, dataset, name)
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
