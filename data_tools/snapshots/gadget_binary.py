"""GADGET binary snapshots, format 1 and 2, either byte order, in one or several files; GADGET-4's own header, too.

A file is a sequence of Fortran records: a 4-byte length, the data, the length again. Format 2 puts a 16-byte record
with a 4-letter name before each block. Positions, velocities, numbers and masses follow the header in this order
(GADGET-2 user guide, section 6); some codes end the file earlier. GADGET-4 has another header, unless it is compiled
with GADGET2_HEADER: counts of 64 bits, and no cosmology.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, final

import numpy as np

from cosmogan.errors import UserError
from data_tools.snapshots.base import AbstractSnapshotFormat, Slab, mass_places, no_masses, read_numbers, sibling_files
from data_tools.snapshots.header import (
    CRITICAL_DENSITY,
    Options,
    SnapshotHeader,
    known_cosmology,
    require_particles,
    resolve_lengths,
    resolve_redshift,
)

_HEADER_BYTES = 256
# Header of GADGET-4 by its length, for as many types of particles: their numbers in the file and in all, and masses;
# time, redshift and box; number of files; two numbers of trees.
_GADGET4_HEADERS = {24 * n + 48: (n, f"{n}q{n}q{n}d3di4x2q") for n in (6, 7, 8)}
# By how much mass and number of the particles may miss Omega_m, in printed numbers.
_MASS_ROUNDING = 1e-2
_LABEL_BYTES = 8
_NUMBERED = re.compile(r"(.*\.)\d+()")
_POSITIONS, _MASSES = b"POS ", b"MASS"
# What follows the header where blocks have no names.
_ORDER = (_POSITIONS, b"VEL ", b"ID  ", _MASSES)


@dataclass(frozen=True)
class _FileHeader:
    """The header of one file, and how to read on."""

    order: str
    format: int
    n_bytes: int
    n_this_file: tuple[int, ...]
    mass_table: tuple[float, ...]
    n_total: tuple[int, ...]
    scale_factor: float
    redshift: float
    n_files: int
    box_size: float
    omega_m: float
    h: float

    def identity(self) -> str:
        """Return what all files of a snapshot share."""
        return (
            f"{self.n_total} particles of mass {self.mass_table} at redshift {self.redshift} in {self.n_files} files, "
            f"BoxSize {self.box_size}"
        )


class _Block(NamedTuple):
    """Numbers of one block in a file: where they begin, and their type."""

    start: int
    dtype: np.dtype


@final
class GadgetBinarySnapshot(AbstractSnapshotFormat):
    """A snapshot in the binary format of GADGET-1/2 (also L-PICOLA, N-GenIC); particles of one type."""

    def __init__(self, path: Path, options: Options) -> None:
        self.path = path
        self._type = options.particle_type
        with open(path, "rb") as stream:
            first = _read_header(stream, path)
        n_particles = require_particles(path, first.n_total, self._type)
        cosmology = known_cosmology(path, {"omega_m": first.omega_m, "h": first.h})
        self._first = first
        self.types = (self._type,)
        self.n_per_type = {kind: n for kind, n in enumerate(first.n_total) if n > 0}
        self.files = sibling_files(path, first.n_files, pattern=_NUMBERED, example="snapshot.0")
        unit, box, source = resolve_lengths(
            path,
            first.box_size,
            options=options,
            h=cosmology.h,
            stated=None,
            mass=self.total_mass,
            omega_m=cosmology.omega_m,
        )
        self.header = SnapshotHeader(
            box_size=box,
            redshift=resolve_redshift(path, first.redshift, scale_factor=first.scale_factor, asked=options.redshift),
            n_particles=n_particles,
            cosmology=cosmology,
            length_unit=unit,
            unit_source=source,
        )

    @staticmethod
    def recognises(path: Path, head: bytes) -> bool:
        """Return whether it begins with a Fortran record: a header, whole or not, the name of a block, or another."""
        return _byte_order(head[:4]) is not None or _first_record(path) is not None

    def _read_file(
        self, path: Path, chunk: int, *, weights: bool, slab: Slab | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        with open(path, "rb") as stream:
            header = _read_header(stream, path)
            if header.identity() != self._first.identity():
                raise UserError(
                    f"{path}: belongs to another snapshot than {self.path.name} ({header.identity()}; expected "
                    f"{self._first.identity()})"
                )
            n = header.n_this_file[self._type]
            if n == 0:
                return
            positions = _find_positions(stream, header, self._type, path)
            masses = _find_masses(stream, header, self._type, path) if weights else None
            if weights and masses is None:
                raise UserError(no_masses(path, "neither in its header nor as a block"))
            for start in range(0, n, chunk):
                n_rows = min(chunk, n - start)
                block = _read_numbers(stream, positions, 3 * start, 3 * n_rows, path).reshape(n_rows, 3)
                if isinstance(masses, _Block):
                    yield block, _read_numbers(stream, masses, start, n_rows, path)
                else:
                    yield block, None if masses is None else np.full(n_rows, masses)

    def _table_mass(self, kind: int) -> float | None:
        mass = self._first.mass_table[kind]
        return mass if mass > 0 else None

    def _mass_blocks(self, path: Path, kind: int, *, n_blocks: int | None = None) -> Iterator[np.ndarray]:
        with open(path, "rb") as stream:
            header = _read_header(stream, path)
            n = header.n_this_file[kind]
            masses = _find_masses(stream, header, kind, path) if n else None
            if isinstance(masses, float):
                yield np.array([masses])
            elif masses is not None:
                for start, stop in mass_places(n, n_blocks):
                    yield _read_numbers(stream, masses, start, stop - start, path)


def _first_record(path: Path) -> str | None:
    """Return the byte order of the Fortran record that a file begins with; None for a file that begins with none."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        for order in "<>":
            stream.seek(0)
            raw = stream.read(4)
            length = struct.unpack(order + "I", raw)[0] if len(raw) == 4 else 0
            if 0 < length <= size - 8:
                stream.seek(4 + length)
                if stream.read(4) == raw:
                    return order
    return None


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
    order = _byte_order(start) or _first_record(path)
    if order is None:
        raise UserError(f"{path}: is not a GADGET binary file; expected its first record to be the header")
    version = 1
    if struct.unpack(order + "i", start)[0] == _LABEL_BYTES:
        version = 2
        label = _read_exactly(stream, 12, path, "its header")
        if label[:4] != b"HEAD" or label[8:] != start:
            raise UserError(f"{path}: its first block is {label[:4]!r}; expected b'HEAD' in a GADGET format-2 file")
        start = _read_exactly(stream, 4, path, "its header")
    length = struct.unpack(order + "I", start)[0]
    raw = stream.read(length) if length <= os.fstat(stream.fileno()).st_size else b""
    if len(raw) < length or (end := stream.read(4)) == b"":
        raise UserError(f"{path}: is cut short in its header; copy or write it again")
    if end != start:
        raise UserError(f"{path}: its header record is damaged; its two lengths differ")
    if length in _GADGET4_HEADERS:
        return _gadget4_header(raw, order, version, path)
    if length != _HEADER_BYTES:
        raise UserError(
            f"{path}: its header has {length} bytes, where that of a GADGET-1 or -2 binary has {_HEADER_BYTES} and "
            f"those of GADGET-4 {', '.join(map(str, _GADGET4_HEADERS))}: it is a wider header, or no header; write the "
            "snapshot as HDF5 (SnapFormat 3)"
        )
    fields = struct.unpack_from(order + "6i6d2d2i6I2i4d2i6I", raw)
    high_words = fields[30:36]
    # Npart_total_HW was added late; older writers leave other things there, and then the low words alone are right.
    plausible = all(word < 2**16 for word in high_words)
    n_total = tuple(low + (high << 32 if plausible else 0) for low, high in zip(fields[16:22], high_words, strict=True))
    n_this_file, n_files = fields[0:6], fields[23]
    if not any(n_total) and n_files in (0, 1):
        # Runs of isolated systems leave the totals 0.
        n_total = n_this_file
    n_total = _without_high_word(n_total, n_this_file, fields)
    _require_counts(n_this_file, n_total, n_files, path)
    return _FileHeader(
        order=order,
        format=version,
        n_bytes=_HEADER_BYTES,
        n_this_file=n_this_file,
        mass_table=fields[6:12],
        n_total=n_total,
        scale_factor=fields[12],
        redshift=fields[13],
        # Writers of one file leave 0 here.
        n_files=max(1, n_files),
        box_size=fields[24],
        omega_m=fields[25],
        h=fields[27],
    )


def _gadget4_header(raw: bytes, order: str, version: int, path: Path) -> _FileHeader:
    n_types, layout = _GADGET4_HEADERS[len(raw)]
    fields = struct.unpack(order + layout, raw)
    n_this_file, n_total, mass_table = (fields[i * n_types : (i + 1) * n_types] for i in range(3))
    scale_factor, redshift, box_size, n_files = fields[3 * n_types : 3 * n_types + 4]
    _require_counts(n_this_file, n_total, n_files, path)
    return _FileHeader(
        order=order,
        format=version,
        n_bytes=len(raw),
        n_this_file=n_this_file,
        mass_table=mass_table,
        n_total=n_total,
        scale_factor=scale_factor,
        redshift=redshift,
        n_files=max(1, n_files),
        box_size=box_size,
        omega_m=0.0,
        h=0.0,
    )


def _require_counts(n_this_file: tuple[int, ...], n_total: tuple[int, ...], n_files: int, path: Path) -> None:
    too_many = any(here > total for here, total in zip(n_this_file, n_total, strict=True))
    if min(n_this_file) < 0 or too_many or n_files < 0:
        raise UserError(
            f"{path}: its header is damaged: it announces {list(n_this_file)} particles per type in this file and "
            f"{list(n_total)} in all of {n_files} files"
        )


def _without_high_word(n_total: tuple[int, ...], n_this_file: tuple[int, ...], fields: tuple) -> tuple[int, ...]:
    """Return totals of N-GenIC's initial conditions as others write them.

    For more than 2^32 particles it has the high word of dark matter's number in the place of the next type's.
    """
    mass, box, omega_m = fields[7], fields[24], fields[25]
    word = n_total[2]
    if not 0 < word < 2**16 or any(n_total[3:]) or n_total[0] or n_this_file[2] or fields[8] or not (mass and omega_m):
        return n_total
    whole = n_total[1] + (word << 32)
    omega = whole * mass / (CRITICAL_DENSITY * box**3) if box > 0 else 0.0
    # In Mpc/h or kpc/h.
    fits = any(math.isclose(omega * factor, omega_m, rel_tol=_MASS_ROUNDING) for factor in (1.0, 1e9))
    return (n_total[0], whole, 0, *n_total[3:]) if fits else n_total


def _find_positions(stream: BinaryIO, header: _FileHeader, particle_type: int, path: Path) -> _Block:
    n_all = sum(header.n_this_file)
    found = _find_record(stream, header, _POSITIONS, path, "its positions", 3 * n_all)
    if found is None:
        raise UserError(f"{path}: has no block 'POS '; is cut short in its positions, copy or write it again")
    start, length = found
    dtype = _number_type(header, length, 3 * n_all, path, "positions")
    return _Block(start + 3 * dtype.itemsize * sum(header.n_this_file[:particle_type]), dtype)


def _find_masses(stream: BinaryIO, header: _FileHeader, particle_type: int, path: Path) -> _Block | float | None:
    """Return the masses of a type in one file, or the one mass that all its particles have; None where unknown."""
    if header.mass_table[particle_type] != 0:
        return header.mass_table[particle_type]
    n_individual = [n if mass == 0 else 0 for n, mass in zip(header.n_this_file, header.mass_table, strict=True)]
    found = _find_record(stream, header, _MASSES, path, "its masses", sum(n_individual))
    if found is None:
        return None
    start, length = found
    dtype = _number_type(header, length, sum(n_individual), path, "masses")
    return _Block(start + dtype.itemsize * sum(n_individual[:particle_type]), dtype)


def _number_type(header: _FileHeader, length: int, n: int, path: Path, what: str) -> np.dtype:
    for size in (4, 8):
        if length == size * n:
            return np.dtype(f"{header.order}f{size}")
    raise UserError(
        f"{path}: its block of {what} has {length} bytes; expected {4 * n} (float32) or {8 * n} (float64) for the "
        f"{sum(header.n_this_file)} particles that its header announces. The file is damaged"
    )


def _find_record(
    stream: BinaryIO, header: _FileHeader, name: bytes, path: Path, what: str, n_numbers: int
) -> tuple[int, int] | None:
    """Return start and length of the data of a block behind the header, None where there is no such block."""
    size = os.fstat(stream.fileno()).st_size
    # The header's record, and its name and that of the first block in format 2, have two lengths of 4 bytes each.
    position = header.n_bytes + 8 if header.format == 1 else header.n_bytes + 8 + 16
    n_blocks = 0
    while position < size:
        if header.format == 2:
            stream.seek(position)
            label = _read_exactly(stream, 16, path, what)[4:8]
            position += 16
        else:
            label = _ORDER[n_blocks] if n_blocks < len(_ORDER) else b""
        expected = n_numbers if label == name else 0
        length = _record_length(stream, header, position, size, path, what if label == name else "a block", expected)
        if label == name:
            return position + 4, length
        position += length + 8
        n_blocks += 1
    return None


def _record_length(
    stream: BinaryIO, header: _FileHeader, position: int, size: int, path: Path, what: str, n_numbers: int
) -> int:
    stream.seek(position)
    raw = _read_exactly(stream, 4, path, what)
    stated = struct.unpack(header.order + "I", raw)[0]
    length = stated
    # Lengths are 32-bit and wrap around beyond 4 GB; the second one stands behind the true end.
    while position + 8 + length <= size:
        stream.seek(position + 4 + length)
        if stream.read(4) == raw:
            return length
        length += 2**32
    if n_numbers and stated not in (4 * n_numbers % 2**32, 8 * n_numbers % 2**32):
        _number_type(header, stated, n_numbers, path, what.removeprefix("its "))
    if position + 8 + stated > size:
        raise UserError(
            f"{path}: is cut short in {what} ({size} bytes; expected {position + 8 + stated} or more); copy or write "
            "it again"
        )
    raise UserError(f"{path}: is damaged in {what}; the two lengths of the record differ")


def _read_numbers(stream: BinaryIO, block: _Block, start: int, n: int, path: Path) -> np.ndarray:
    stream.seek(block.start + start * block.dtype.itemsize)
    return read_numbers(stream, block.dtype, n, path)
