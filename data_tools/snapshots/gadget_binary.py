"""GADGET binary snapshots, format 1 and 2, either byte order, in one or several files.

A file is a sequence of Fortran records: a 4-byte length, the data, the length again. Format 2 puts a 16-byte record
with a 4-letter name before each block. The block of positions follows the header (GADGET-2 user guide, section 6).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, final

import numpy as np

from cosmogan.errors import UserError
from cosmogan.units import Cosmology
from data_tools.snapshots.base import (
    AbstractSnapshot,
    Slab,
    SnapshotHeader,
    check_redshift,
    resolve_lengths,
    sibling_files,
)

# Dark matter.
PARTICLE_TYPE = 1
_HEADER_BYTES = 256
_LABEL_BYTES = 8
_NUMBER = re.compile(r"(.*\.)\d+()")


@dataclass(frozen=True)
class _FileHeader:
    """The 256-byte header of one file, and how to read on."""

    order: str
    format: int
    n_this_file: tuple[int, ...]
    n_total: tuple[int, ...]
    redshift: float
    n_files: int
    box_size: float
    omega_m: float
    h: float


@final
class GadgetBinarySnapshot(AbstractSnapshot):
    """A snapshot in the binary format of GADGET-1/2 (also L-PICOLA, N-GenIC); dark matter (type 1) only."""

    def __init__(self, path: Path, *, length_unit: str | None = None, box_size: str | None = None) -> None:
        self.path = path
        with open(path, "rb") as stream:
            first = _read_header(stream, path)
        n_particles = first.n_total[PARTICLE_TYPE]
        if n_particles == 0:
            raise UserError(f"{path}: holds no dark matter particles (Npart_total[{PARTICLE_TYPE}] is 0)")
        known = {"omega_m": first.omega_m, "h": first.h}
        cosmology = Cosmology(**{name: value for name, value in known.items() if value > 0})
        unit, box, source = resolve_lengths(
            path, first.box_size, length_unit=length_unit, box_size=box_size, h=cosmology.h, stated=None
        )
        self.header = SnapshotHeader(
            box_size=box,
            redshift=check_redshift(path, first.redshift),
            n_particles=n_particles,
            cosmology=cosmology,
            length_unit=unit,
            unit_source=source,
        )
        self._first = first
        self.files = sibling_files(path, first.n_files, pattern=_NUMBER, example="snapshot.0")

    @staticmethod
    def recognises(head: bytes) -> bool:
        """Return whether a file that begins with these 8 bytes looks like a GADGET binary."""
        return _byte_order(head[:4]) is not None

    def _read_file(
        self, path: Path, chunk: int, *, weights: bool, slab: Slab | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with open(path, "rb") as stream:
            header = _read_header(stream, path)
            if header.n_total != self._first.n_total or header.box_size != self._first.box_size:
                raise UserError(
                    f"{path}: belongs to another snapshot than {self.path.name} (particles {header.n_total}, "
                    f"BoxSize {header.box_size:g} against {self._first.n_total}, {self._first.box_size:g})"
                )
            if sum(header.n_this_file):
                for block in _read_block(stream, header, chunk, path):
                    yield block, None


def _byte_order(first_bytes: bytes) -> str | None:
    for order in "<>":
        if len(first_bytes) == 4 and struct.unpack(order + "i", first_bytes)[0] in (_HEADER_BYTES, _LABEL_BYTES):
            return order
    return None


def _read_exactly(stream: BinaryIO, n_bytes: int, path: Path, what: str) -> bytes:
    data = stream.read(n_bytes)
    if len(data) != n_bytes:
        raise UserError(f"{path}: is cut short in {what}; copy or write it again")
    return data


def _read_header(stream: BinaryIO, path: Path) -> _FileHeader:
    start = _read_exactly(stream, 4, path, "its header")
    order = _byte_order(start)
    if order is None:
        raise UserError(f"{path}: is not a GADGET binary file; expected its first record to be the header")
    version = 1
    if struct.unpack(order + "i", start)[0] == _LABEL_BYTES:
        version = 2
        label = _read_exactly(stream, 12, path, "its header")[:4]
        if label != b"HEAD":
            raise UserError(f"{path}: its first block is {label!r}; expected b'HEAD' in a GADGET format-2 file")
        start = _read_exactly(stream, 4, path, "its header")
        if struct.unpack(order + "i", start)[0] != _HEADER_BYTES:
            raise UserError(f"{path}: its header record is damaged; expected a length of {_HEADER_BYTES} bytes")
    raw = _read_exactly(stream, _HEADER_BYTES, path, "its header")
    if _read_exactly(stream, 4, path, "its header") != start:
        raise UserError(f"{path}: its header record is damaged; its two lengths differ")
    fields = struct.unpack_from(order + "6i6d2d2i6I2i4d2i6I", raw)
    high_words = fields[30:36]
    # Npart_total_HW was added late; older writers leave other things there, and then the low words alone are right.
    plausible = all(word < 2**16 for word in high_words)
    n_total = tuple(low + (high << 32 if plausible else 0) for low, high in zip(fields[16:22], high_words, strict=True))
    return _FileHeader(
        order=order,
        format=version,
        n_this_file=fields[0:6],
        n_total=n_total,
        redshift=fields[13],
        n_files=max(1, fields[23]),
        box_size=fields[24],
        omega_m=fields[25],
        h=fields[27],
    )


def _read_block(stream: BinaryIO, header: _FileHeader, chunk: int, path: Path) -> Iterator[np.ndarray]:
    """Yield the positions of the dark matter in one file, behind its header."""
    if header.format == 2:
        label = _read_exactly(stream, 16, path, "the name of its second block")[4:8]
        if label != b"POS ":
            raise UserError(f"{path}: its second block is {label!r}; expected b'POS '")
    n_all = sum(header.n_this_file)
    length = struct.unpack(header.order + "I", _read_exactly(stream, 4, path, "its positions"))[0]
    # Record lengths are 32-bit and wrap around beyond 4 GB; single and double precision both occur.
    kind = next((size for size in (4, 8) if length == 3 * size * n_all % 2**32), None)
    if kind is None:
        raise UserError(
            f"{path}: its block of positions has {length} bytes; expected {12 * n_all} (float32) or {24 * n_all} "
            f"(float64) for the {n_all} particles that its header announces. The file is damaged"
        )
    dtype = np.dtype(f"{header.order}f{kind}")
    n_before, n_wanted = sum(header.n_this_file[:PARTICLE_TYPE]), header.n_this_file[PARTICLE_TYPE]
    data_start = stream.tell()
    end = stream.seek(0, 2)
    if end < data_start + 3 * kind * n_all + 4:
        raise UserError(
            f"{path}: is cut short in its positions ({end} bytes; expected {data_start + 3 * kind * n_all + 4} or "
            "more); copy or write it again"
        )
    stream.seek(data_start + 3 * kind * n_before)
    for start in range(0, n_wanted, chunk):
        n = min(chunk, n_wanted - start)
        block = np.frombuffer(_read_exactly(stream, 3 * kind * n, path, "its positions"), dtype).reshape(n, 3)
        yield block.astype(dtype.newbyteorder("="), copy=False)
    stream.seek(data_start + 3 * kind * n_all)
    if struct.unpack(header.order + "I", _read_exactly(stream, 4, path, "its positions"))[0] != length:
        raise UserError(f"{path}: its block of positions is damaged; the two lengths of the record differ")
