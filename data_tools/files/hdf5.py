"""HDF5 as snapshots use it: attributes as numbers, rows of data sets, and every way a file can be damaged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.hdf5 import open_file, parts_of, require_filters, signature_offset

# For the last few compressed pieces of a data set (24 MB each in SWIFT), so that none is uncompressed twice.
_CACHE_BYTES = 2**26
# More than the longest superblock.
_SUPERBLOCK_BYTES = 96


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into one sentence.

    Raises
    ------
    UserError
        In place of h5py's errors.
    """
    try:
        yield
    except UserError:
        raise
    # What h5py raises depends on where in the file the damage is.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError) as error:
        reason = str(error).strip("'\"").split("\n")[0]
        raise UserError(
            f"{path}: {what} cannot be read ({reason}); the file is damaged, copy or write it again"
        ) from None


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    Raises
    ------
    UserError
        If it is not a complete HDF5 file.
    """
    try:
        handle = open_file(path, rdcc_nbytes=_CACHE_BYTES)
    except BlockingIOError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except OSError as error:
        if "truncated" in str(error):
            raise UserError(f"{path}: is cut short; copy or write it again") from None
        raise UserError(f"{path}: is not a readable HDF5 file ({error})") from None
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: is not a readable HDF5 file ({error})") from None
    try:
        _require_whole_file(path)
        yield handle
    finally:
        handle.close()


def _require_whole_file(path: Path) -> None:
    """Compare the length of a file with the one in its superblock; HDF5 itself refuses only shorter files."""
    user_block = signature_offset(path) or 0
    with open(path, "rb") as stream:
        stream.seek(user_block)
        start = stream.read(_SUPERBLOCK_BYTES)
    version, size_of_address = start[8], start[13] if start[8] < 2 else start[9]
    place = {0: 40, 1: 44, 2: 28, 3: 28}.get(version)
    if place is None or size_of_address != 8:
        return
    end = int.from_bytes(start[place : place + 8], "little")
    if end != path.stat().st_size:
        raise UserError(
            f"{path}: has {path.stat().st_size} bytes, and says that it has {end}; copy or write it again. If "
            "something was appended on purpose, h5repack makes a clean copy"
        )


def attributes(handle: h5py.File, group: str, path: Path) -> dict[str, Any]:
    """Return the attributes of a group, none if there is no such group.

    Raises
    ------
    UserError
        If they cannot be read.
    """
    with reading(path, f"group /{group}"):
        return dict(handle[group].attrs) if group in handle else {}


def numbers(values: Mapping[str, Any], name: str, path: Path) -> np.ndarray | None:
    """Return an attribute as float64, shape ``(n,)``, n at least 1; None where missing.

    Raises
    ------
    UserError
        If it is not made of numbers.
    """
    if name not in values:
        return None
    try:
        array = np.asarray(values[name]).astype(np.float64).reshape(-1)
    except (ValueError, TypeError):
        array = np.empty(0)
    if array.size == 0:
        raise UserError(f"{path}: attribute {name} is {values[name]!r}; expected a number")
    return array


def number(values: Mapping[str, Any], name: str, path: Path) -> float | None:
    """Return an attribute as one number; None where missing.

    Raises
    ------
    UserError
        If it is not a number.
    """
    array = numbers(values, name, path)
    return None if array is None else float(array[0])


def counts(values: Mapping[str, Any], name: str, path: Path) -> list[int] | None:
    """Return an attribute as a number of particles per type; None where missing.

    Raises
    ------
    UserError
        If it is not a list of counts.
    """
    if name not in values:
        return None
    array = np.atleast_1d(values[name])
    # Some writers make them floats, which hold whole numbers up to 2^53.
    if array.dtype.kind == "f" and (array == np.rint(array)).all() and array.max(initial=0) < 2.0**53:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min(initial=0) < 0:
        raise UserError(f"{path}: attribute {name} is {array.tolist()}; expected a count per particle type")
    return [int(count) for count in array]


def cube_side(header: Mapping[str, Any], path: Path) -> float:
    """Return BoxSize in the file's unit, 0 where missing.

    Raises
    ------
    UserError
        If the box is not a cube.
    """
    sides = numbers(header, "BoxSize", path)
    if sides is None:
        return 0.0
    if len(sides) > 1 and not np.allclose(sides, sides[0], rtol=1e-6):
        raise UserError(f"{path}: BoxSize is {sides.tolist()}; expected a cube")
    return float(sides[0])


def particle_data(handle: h5py.File, name: str, shape: tuple[int, ...], path: Path, *, kind: str = "f") -> h5py.Dataset:
    """Return a data set after checking that all of it is there.

    Parameters
    ----------
    handle, path
        The file.
    name
        Of the data set.
    shape
        Expected.
    kind
        Of number, as numpy's ``dtype.kind``.

    Raises
    ------
    UserError
        If it is missing, has another shape or type, was never written, or needs a filter that is not installed.
    """
    with reading(path, f"/{name}"):
        if name not in handle:
            raise UserError(f"{path}: data set /{name} is missing; the header announces {shape[0]} particles")
        data = handle[name]
        if not isinstance(data, h5py.Dataset) or data.shape != shape or data.dtype.kind != kind:
            found = f"{data.dtype} {data.shape}" if isinstance(data, h5py.Dataset) else "a group"
            what = "floats" if kind == "f" else "unsigned integers"
            raise UserError(
                f"{path}: /{name} is {found}; expected {what} of shape {shape}, as the header announces. "
                "Copy or write the file again"
            )
        require_filters(data, path)
        _require_written(data, path)
    return data


def rows(data: h5py.Dataset, start: int, stop: int, path: Path) -> np.ndarray:
    """Return some rows in the machine's byte order.

    Raises
    ------
    UserError
        If they cannot be read.
    """
    with reading(path, f"{data.name} from particle {start} on"):
        block = data[start:stop]
        return block.astype(block.dtype.newbyteorder("="), copy=False)


def missing_sources(data: h5py.Dataset, path: Path) -> tuple[list[Path], list[Path]]:
    """Return the files behind a virtual data set, and those of them that are missing."""
    sources = list(dict.fromkeys(part.file for part in parts_of(data, path)))
    return sources, [source for source in sources if not source.is_file()]


def _require_written(data: h5py.Dataset, path: Path) -> None:
    # HDF5 reads what was never written as zeros, without an error.
    if data.is_virtual:
        _require_sources(data, path)
    elif data.chunks is not None:
        n_chunks = math.prod(-(-n // chunk) for n, chunk in zip(data.shape, data.chunks, strict=True))
        if data.id.get_num_chunks() != n_chunks:
            raise UserError(
                f"{path}: {data.name} has {data.id.get_num_chunks()} of its {n_chunks} chunks; it was not written to "
                "the end. Copy or write the file again"
            )
    elif data.id.get_storage_size() < data.nbytes:
        raise UserError(f"{path}: {data.name} was never written; copy or write the file again")


def _require_sources(data: h5py.Dataset, path: Path) -> None:
    """Make sure that all data behind a virtual data set are there."""
    missing = missing_sources(data, path)[1]
    if missing:
        raise UserError(f"{missing[0]}: no such file; {path.name} refers to it for {data.name}")
    n_mapped = 0
    for part in parts_of(data, path):
        with open_hdf5(part.file) as handle, reading(part.file, part.dataset):
            held = handle.get(part.dataset)
            if not isinstance(held, h5py.Dataset) or part.shape_problem(held.shape):
                found = held.shape if isinstance(held, h5py.Dataset) else "nothing"
                raise UserError(f"{part.file}: holds {found} as {part.dataset}; {path.name} refers to more there")
            require_filters(held, part.file)
            _require_written(held, part.file)
        n_mapped += part.n_points
    if n_mapped != data.size:
        raise UserError(f"{path}: {data.name} is virtual, and {n_mapped} of its {data.size} numbers lie in other files")
