"""Positions without a header: a ``.npy`` file, or a data set in any HDF5 file; the user says box and redshift."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

import h5py
import numpy as np

from cosmogan.errors import UserError
from data_tools.files.hdf5 import open_hdf5, particle_data, reading, rows
from data_tools.snapshots.base import AbstractSnapshotFormat, Slab, no_masses, read_numbers
from data_tools.snapshots.header import Options, SnapshotHeader, resolve_lengths, resolve_redshift

NPY_SIGNATURE = b"\x93NUMPY"
_NUMBER = re.compile(r"[\s\-+0-9.eE]*")


class _NpyLayout(NamedTuple):
    """Where the numbers of a ``.npy`` file of shape ``(n, 3)`` are."""

    n: int
    dtype: np.dtype
    start: int
    by_column: bool


@final
class ArraySnapshot(AbstractSnapshotFormat):
    """Positions of shape ``(n, 3)`` in a ``.npy`` file or in a data set of an HDF5 file."""

    def __init__(self, path: Path, options: Options, *, dataset: str | None = None) -> None:
        self.path = path
        self.files = [path]
        self._dataset = dataset
        n = _read_layout(path).n if dataset is None else _dataset_rows(path, dataset)
        if n == 0:
            raise UserError(f"{path}: holds no particles")
        if options.box_size is None:
            raise UserError(
                f"{path}: plain positions come without their box; give its side with --box-size '350 Mpc/h', and "
                "--length-unit if the positions are in another unit than that"
            )
        # The unit in which the user writes the box is that of the positions, unless told otherwise.
        length_unit = options.length_unit or _NUMBER.sub("", options.box_size, count=1)
        unit, box, source = resolve_lengths(
            path,
            0.0,
            options=Options(length_unit=length_unit, box_size=options.box_size),
            h=None,
            stated=None,
        )
        self.header = SnapshotHeader(
            box_size=box,
            redshift=resolve_redshift(path, None, scale_factor=None, asked=options.redshift),
            n_particles=n,
            length_unit=unit,
            unit_source=source if options.length_unit else "that of --box-size",
        )

    @staticmethod
    def recognises(path: Path, head: bytes) -> bool:
        """Return whether it is a ``.npy`` file."""
        return head.startswith(NPY_SIGNATURE)

    def _read_file(
        self, path: Path, chunk: int, *, weights: bool, slab: Slab | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        if weights:
            raise UserError(no_masses(path, "plain positions come without"))
        n = self.header.n_particles
        if self._dataset is None:
            layout = _read_layout(path)
            with open(path, "rb") as stream:
                for start in range(0, n, chunk):
                    yield _npy_rows(stream, layout, start, min(start + chunk, n), path), None
        else:
            with open_hdf5(path) as handle:
                data = particle_data(handle, self._dataset, (n, 3), path)
                for start in range(0, n, chunk):
                    yield rows(data, start, min(start + chunk, n), path), None


def _read_layout(path: Path) -> _NpyLayout:
    with open(path, "rb") as stream:
        try:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, by_column, dtype = read(stream)
        # numpy evaluates the header as a Python expression, which fails in as many ways as there are typing errors.
        except Exception as error:
            reason = str(error).split("\n")[0]
            raise UserError(f"{path}: is not a readable .npy file ({reason}); copy or write it again") from None
        start, size = stream.tell(), os.fstat(stream.fileno()).st_size
    if len(shape) != 2 or shape[1] != 3 or dtype not in ("f4", "f8", ">f4", ">f8"):
        raise UserError(
            f"{path}: holds {dtype} of shape {shape}; expected positions, float32 or float64 of shape (n, 3)"
        )
    if size != start + math.prod(shape) * dtype.itemsize:
        raise UserError(
            f"{path}: has {size} bytes, and its header announces {start + math.prod(shape) * dtype.itemsize}; "
            "copy or write it again"
        )
    return _NpyLayout(shape[0], dtype, start, by_column)


def _npy_rows(stream: BinaryIO, layout: _NpyLayout, start: int, stop: int, path: Path) -> np.ndarray:
    # Read, not mapped into memory: a file that shrinks meanwhile is an error then, not a crash.
    n = stop - start
    if layout.by_column:
        columns = [_npy_numbers(stream, layout, axis * layout.n + start, n, path) for axis in range(3)]
        return np.stack(columns, axis=1)
    return _npy_numbers(stream, layout, 3 * start, 3 * n, path).reshape(n, 3)


def _npy_numbers(stream: BinaryIO, layout: _NpyLayout, start: int, n: int, path: Path) -> np.ndarray:
    stream.seek(layout.start + start * layout.dtype.itemsize)
    return read_numbers(stream, layout.dtype, n, path)


def _dataset_rows(path: Path, name: str) -> int:
    with open_hdf5(path) as handle, reading(path, f"/{name}"):
        data = handle.get(name)
        if not isinstance(data, h5py.Dataset):
            raise UserError(f"{path}: has no data set /{name}; expected positions of shape (n, 3) there")
        if data.ndim != 2 or data.shape[1] != 3:
            raise UserError(f"{path}: /{name} has shape {data.shape}; expected positions of shape (n, 3)")
        return int(data.shape[0])
