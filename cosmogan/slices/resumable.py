"""Slice files whose writing survives being killed at any moment, and continues where it stopped.

Until the last slice is there no HDF5 file exists. Pixels go to ``<name>.part``, at the place that they will have in the
finished file, and the SHA-256 of each slice to ``<name>.journal``, after one line that says what is being written. A
slice is done when the checksum in the journal is that of the pixels in the part, so that neither a kill at any moment
nor pages lost with their machine can pass for a slice. The head of the file is written last, then the file gets its
name. Head and pixels are functions of their input: a resumed file has the bytes of an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.hdf5 import open_file
from cosmogan.machine.lock import OutputLock
from cosmogan.slices.layout import AXIS_NOT_APPLICABLE, CHECKSUM_SIZE, CHECKSUMS, checksums
from cosmogan.slices.metadata import SliceMetadata
from cosmogan.slices.writer import SliceWriter, as_stored, require_absent, stored_dtype, write_head
from cosmogan.text import os_reason

# Bytes of pixels read at a time.
_BLOCK_BYTES = 2**24


class ResumableWriter:
    """Write a slice file of a known number of slices whose labels are known too; use as a context manager.

    Whatever ends it early, an exception too, leaves ``<name>.part`` and ``<name>.journal``; the next writer of the
    same job continues after the last slice that is whole (`n_done`).

    Parameters
    ----------
    path
        File to write.
    metadata
        Metadata of the slices.
    n_slices
        Total number.
    realisation, axis, position
        Labels, one per slice or one for all.
    job
        Everything that decides the content: plain values by name. It becomes part of the provenance.
    provenance
        Further entries of the provenance.
    dtype, compression
        Storage as for `SliceWriter`. A compressed file is packed at the end, out of the plain part.
    overwrite
        Whether an existing file, or the part of another job, may be replaced.

    Raises
    ------
    UserError
        On entry, if the file exists, a part belongs to another job, or another process writes it.
    """

    def __init__(
        self,
        path: str | Path,
        metadata: SliceMetadata,
        *,
        n_slices: int,
        realisation: int | np.ndarray,
        axis: int | np.ndarray = AXIS_NOT_APPLICABLE,
        position: float | np.ndarray = math.nan,
        job: Mapping[str, str | int | float],
        provenance: Mapping[str, Any] | None = None,
        dtype: str | None = None,
        compression: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".part")
        self.journal = self.path.with_name(self.path.name + ".journal")
        self.metadata, self.n_slices = metadata, n_slices
        labels = {"realisation": realisation, "axis": axis, "position": position}
        self._labels = {name: np.broadcast_to(values, n_slices) for name, values in labels.items()}
        self.dtype = stored_dtype(metadata, dtype)
        self.n_done = 0
        self._is_appending = False
        self._slice_bytes = metadata.n_pixels**2 * self.dtype.itemsize
        self._job, self._provenance = dict(job), {**(provenance or {}), **job}
        self._compression, self._overwrite = compression, overwrite
        self._lock = OutputLock(self.path)
        self._offset = self._header_size = 0
        self._pixels = self._sums = -1

    def __enter__(self) -> ResumableWriter:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._lock)
            require_absent(self.path, overwrite=self._overwrite)
            try:
                self._offset = self._write_head(None)
                self._resume()
            except (OSError, RuntimeError) as error:
                raise UserError(f"{self.path}: cannot be written ({os_reason(error)})") from None
            stack.pop_all()
        return self

    def _resume(self) -> None:
        """Open part and journal, and count the slices that are whole."""
        header = json.dumps({"pixels_at": self._offset, **self._job}).encode() + b"\n"
        self._header_size = len(header)
        known = b""
        if self.journal.exists() and self.partial.exists():
            with open(self.journal, "rb") as stream:
                known = stream.readline()
        if known.endswith(b"\n") and known != header and not self._overwrite:
            raise UserError(
                f"{self.partial}: was begun by another command ({_differences(known, header)}); "
                "repeat that one to finish it, or add --overwrite to begin anew"
            )
        if known != header:
            if self.partial.exists():
                print(f"{self.path}: an earlier run was interrupted; starting over", file=sys.stderr)
            self.journal.unlink(missing_ok=True)
            self.partial.unlink(missing_ok=True)
            self.partial.touch()
            self.journal.write_bytes(header)
        self._pixels, self._sums = (os.open(path, os.O_RDWR) for path in (self.partial, self.journal))
        per_block = max(1, _BLOCK_BYTES // self._slice_bytes)
        while self.n_done < self.n_slices:
            wanted = min(per_block, self.n_slices - self.n_done)
            found = self._stored(self.n_done, wanted)
            sums = os.pread(self._sums, len(found) * CHECKSUM_SIZE, self._header_size + self.n_done * CHECKSUM_SIZE)
            n_sums = len(sums) // CHECKSUM_SIZE
            rows = np.frombuffer(sums, np.uint8, n_sums * CHECKSUM_SIZE).reshape(n_sums, CHECKSUM_SIZE)
            same = (checksums(found[:n_sums]) == rows).all(1)
            n_same = len(same) if same.all() else int(np.argmin(same))
            self.n_done += n_same
            if n_same < wanted:
                break

    def _stored(self, start: int, n: int) -> np.ndarray:
        """Return up to ``n`` slices from the part, fewer at its end."""
        data = os.pread(self._pixels, n * self._slice_bytes, self._offset + start * self._slice_bytes)
        whole = len(data) // self._slice_bytes
        side = self.metadata.n_pixels
        return np.frombuffer(data[: whole * self._slice_bytes], self.dtype).reshape(whole, side, side)

    def append(self, slices: np.ndarray) -> None:
        """Add slices after those already there.

        Parameters
        ----------
        slices
            Shape ``(n, n_pixels, n_pixels)``, in the file's quantity.

        Raises
        ------
        UserError
            If a value cannot be stored or the disk is full.
        """
        if self._is_appending:
            # Slices after one that failed would come into its place.
            raise RuntimeError(f"{self.path}: slices cannot be added after some that failed")
        self._is_appending = True
        stored = as_stored(slices, self.dtype, self.path)
        start, stop = self.n_done, self.n_done + len(stored)
        assert stop <= self.n_slices
        try:
            _write_all(self._pixels, np.ascontiguousarray(stored).tobytes(), self._offset + start * self._slice_bytes)
            _write_all(self._sums, checksums(stored).tobytes(), self._header_size + start * CHECKSUM_SIZE)
        except OSError as error:
            raise UserError(
                f"{self.path}: writing slices {start}:{stop} failed ({os_reason(error)}); "
                f"{start} slices are kept: make room and run the same command again to continue"
            ) from None
        self.n_done, self._is_appending = stop, False

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.n_done == self.n_slices:
                self._finish()
            else:
                # Not needed for a kill, only for a machine that goes down.
                for descriptor in (self._pixels, self._sums):
                    with contextlib.suppress(OSError):
                        os.fsync(descriptor)
        # HDF5 may raise either.
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{self.path}: could not be completed ({os_reason(error)}); run the same command again to continue"
            ) from None
        finally:
            for descriptor in (self._pixels, self._sums):
                os.close(descriptor)
            self._lock.__exit__(None, None, None)

    def _finish(self) -> None:
        os.fsync(self._pixels)
        if self._compression is None:
            sums = os.pread(self._sums, self.n_slices * CHECKSUM_SIZE, self._header_size)
            self._write_head(np.frombuffer(sums, np.uint8).reshape(-1, CHECKSUM_SIZE))
            os.fsync(self._pixels)
            os.replace(self.partial, self.path)
        else:
            os.replace(self._packed(), self.path)
            self.partial.unlink()
        self.journal.unlink()

    def _packed(self) -> Path:
        """Write the pixels of the part to a compressed file and return its name."""
        packed = self.path.with_name(self.path.name + ".packed")
        with SliceWriter(
            packed,
            self.metadata,
            n_slices=self.n_slices,
            provenance=self._provenance,
            overwrite=True,
            dtype=self.dtype.name,
            compression=self._compression,
            with_checksums=True,
        ) as writer:
            per_block = max(1, _BLOCK_BYTES // self._slice_bytes)
            for start in range(0, self.n_slices, per_block):
                block = self._stored(start, min(per_block, self.n_slices - start))
                rows = slice(start, start + len(block))
                realisation, axis, position = (values[rows] for values in self._labels.values())
                writer.append(block, realisation=realisation, axis=axis, position=position)
        return packed

    def _write_head(self, sums: np.ndarray | None) -> int:
        """Return where the pixels of the file begin; with checksums, write all but the pixels to the part.

        HDF5 makes a file with a hole for the pixels, and what is around the hole is copied.
        """
        model = self.path.with_name(self.path.name + ".head")
        shape = (self.n_slices, self.metadata.n_pixels, self.metadata.n_pixels)
        try:
            with open_file(model, "w") as file:
                write_head(
                    file, self.metadata, n_slices=self.n_slices, provenance=self._provenance, with_checksums=True
                )
                # Written in any case: HDF5 gives a place to what is written.
                file[CHECKSUMS][:] = 0 if sums is None else sums
                for name, values in self._labels.items():
                    file[name][:] = values
                settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                settings.set_obj_track_times(False)
                kind, space = h5py.h5t.py_create(self.dtype), h5py.h5s.create_simple(shape)
                begin = int(h5py.h5d.create(file.id, b"slices", kind, space, dcpl=settings).get_offset())
            if sums is not None:
                assert begin == self._offset
                end = begin + self.n_slices * self._slice_bytes
                with open(model, "rb") as stream:
                    for start, stop in ((0, begin), (end, model.stat().st_size)):
                        stream.seek(start)
                        _write_all(self._pixels, stream.read(stop - start), start)
        finally:
            model.unlink(missing_ok=True)
        return begin


def _write_all(descriptor: int, data: bytes, position: int) -> None:
    rest = memoryview(data)
    while rest:
        n = os.pwrite(descriptor, rest, position)
        rest, position = rest[n:], position + n


def _differences(known: bytes, ours: bytes) -> str:
    """Return in words how two jobs differ."""
    try:
        theirs, mine = json.loads(known), json.loads(ours)
    except ValueError:
        return "its journal is damaged"
    names = [name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)]
    if names == ["pixels_at"]:
        return "its head has another length; was the emulator's file renamed, or HDF5 replaced?"
    names = [name for name in names if name != "pixels_at"]
    return ", ".join(f"{name} {theirs.get(name)} and not {mine.get(name)}" for name in names)
