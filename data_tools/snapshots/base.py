"""What every snapshot format offers: a header in Mpc/h, its files, and particles in a stream."""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cosmogan.errors import UserError
from data_tools.snapshots.header import SnapshotHeader

# Particles read at a time: 24 MB of float64 positions.
CHUNK = 2**20
# Positions may leave the box by rounding: float32 resolves 6e-8 of the box, codes that add a drift lose a digit or two.
ROUNDING = 1e-5
# So many particles that do not reach across so much of the box are not spread over it: wrong unit, box or selection.
_ENOUGH = 1000
_FILLED = 0.9


class Slab(NamedTuple):
    """Part of a box between two planes, ``low <= position < high`` along ``axis``; may reach across the boundary."""

    axis: int
    low: float
    high: float

    def contains(self, positions: np.ndarray, box_size: float) -> np.ndarray:
        """Return which of the positions, shape ``(n, 3)``, lie in the slab of a periodic box: bool, shape ``(n,)``."""
        wrapped = np.mod(positions[:, self.axis].astype(np.float64), box_size)
        # A tiny negative number wraps to the very end of the box, which belongs to no slab.
        wrapped = np.minimum(wrapped, np.nextafter(box_size, 0.0))
        inside = np.zeros(len(wrapped), bool)
        for turn in (-box_size, 0.0, box_size):
            if self.low < box_size + turn and self.high > turn:
                inside |= (self.low <= wrapped + turn) & (wrapped + turn < self.high)
        return inside


class AbstractSnapshot(ABC):
    """A snapshot opened for reading: its header, its files, and the particles of one type in a stream."""

    path: Path
    header: SnapshotHeader
    files: list[Path]

    @abstractmethod
    def _read_file(
        self, path: Path, chunk: int, *, weights: bool, slab: Slab | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield positions, shape ``(n, 3)``, and masses, shape ``(n,)``, of one file in the file's units.

        Masses are None without ``weights``. Particles outside ``slab`` (file's unit) may be left out, no others.
        """

    def particles(
        self,
        chunk: int = CHUNK,
        *,
        weights: bool = False,
        files: Sequence[Path] | None = None,
        slab: Slab | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Stream positions and masses.

        Parameters
        ----------
        chunk
            Particles at a time, at most.
        weights
            Read masses too.
        files
            Some of `files`, for sharing them out among processes; None for all. The caller then calls `require_whole`
            with what all processes have read, which happens here only for all files at once.
        slab
            Keep only particles with ``low <= position < high`` (Mpc/h) along an axis. Formats with an index of places
            read no more of the file than needed.

        Yields
        ------
            Positions, shape ``(n, 3)``, comoving Mpc/h, within ``[0, box_size]`` up to rounding, and masses, shape
            ``(n,)``, in the file's unit of mass (the same in all files), positive; None without `weights`.

        Raises
        ------
        UserError
            If a file is damaged, a position is not finite or lies outside the box, masses are asked for and missing,
            particles are missing, or they fill only a part of the box.
        """
        unit = self.header.length_unit
        slab_in_file = None if slab is None else Slab(slab.axis, slab.low / unit, slab.high / unit)
        n_seen, lowest, highest = 0, math.inf, -math.inf
        for path in self.files if files is None else files:
            with sentences(path):
                for block, masses in self._read_file(path, chunk, weights=weights, slab=slab_in_file):
                    positions = block if unit == 1 else block * block.dtype.type(unit)
                    low, high = self._require_inside(positions, path, n_seen)
                    lowest, highest = min(lowest, low), max(highest, high)
                    n_seen += len(positions)
                    if masses is not None:
                        _require_masses(masses, path)
                    if slab is not None:
                        inside = slab.contains(positions, self.header.box_size)
                        positions, masses = positions[inside], None if masses is None else masses[inside]
                    yield positions, masses
        if slab is None and (files is None or set(files) == set(self.files)):
            self.require_whole(n_seen, lowest, highest)

    def positions(
        self, chunk: int = CHUNK, *, files: Sequence[Path] | None = None, slab: Slab | None = None
    ) -> Iterator[np.ndarray]:
        """Stream positions alone; see `particles`.

        Raises
        ------
        UserError
            As `particles`.
        """
        for positions, _ in self.particles(chunk, files=files, slab=slab):
            yield positions

    def _require_inside(self, positions: np.ndarray, path: Path, n_before: int) -> tuple[float, float]:
        box = self.header.box_size
        low, high = float(positions.min(initial=math.inf)), float(positions.max(initial=-math.inf))
        # NaN compares false with everything, so this catches it too.
        if len(positions) == 0 or (-ROUNDING * box <= low and high <= (1 + ROUNDING) * box):
            return low, high
        if not np.isfinite(positions).all():
            n_bad = int((~np.isfinite(positions)).any(axis=1).sum())
            raise UserError(
                f"{path}: positions of {n_bad} particles are NaN or infinite (among particles "
                f"{n_before}-{n_before + len(positions) - 1}); the file is damaged, copy or write it again"
            )
        raise UserError(
            f"{path}: positions reach from {low:.6g} to {high:.6g} Mpc/h, but the box is {box:.6g} Mpc/h wide "
            f"(unit of length {self.header.length_unit:g} Mpc/h, {self.header.unit_source}); "
            "say the unit with --length-unit, such as kpc/h, or the box with --box-size"
        )

    def require_whole(self, n_seen: int, low: float, high: float) -> None:
        """Make sure that all particles have been read and lie all over the box.

        Parameters
        ----------
        n_seen
            Particles read, in all processes together.
        low, high
            Smallest and largest of their coordinates, Mpc/h.

        Raises
        ------
        UserError
            If some are missing, or they fill only a part of the box.
        """
        if n_seen != self.header.n_particles:
            raise UserError(
                f"{self.path}: the header announces {self.header.n_particles} particles and the files hold {n_seen}; "
                "a part of the snapshot is missing"
            )
        box = self.header.box_size
        if n_seen >= _ENOUGH and high - low < _FILLED * box:
            raise UserError(
                f"{self.path}: positions reach from {low:.6g} to {high:.6g} Mpc/h, but the box is {box:.6g} Mpc/h wide "
                f"(unit of length {self.header.length_unit:g} Mpc/h, {self.header.unit_source}); slices need particles "
                "all over a periodic box. Say the unit with --length-unit, or the box with --box-size"
            )


@contextmanager
def sentences(path: Path) -> Iterator[None]:
    """Turn errors of the operating system (permissions, broken disks) into one sentence.

    Raises
    ------
    UserError
        In their place.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise UserError(f"{path}: cannot be read ({reason})") from None


def _require_masses(masses: np.ndarray, path: Path) -> None:
    # Negated, so that NaN is caught.
    if not (masses.min(initial=math.inf) > 0 and masses.max(initial=1.0) < math.inf):
        raise UserError(f"{path}: holds masses that are not positive numbers; use --weights number, or write it again")


def read_numbers(stream: BinaryIO, dtype: np.dtype, n: int, path: Path) -> np.ndarray:
    """Read numbers from where a file is, shape ``(n,)``, in the machine's byte order.

    Raises
    ------
    UserError
        If the file ends before.
    """
    data = np.empty(n, dtype)
    if stream.readinto(data.view(np.uint8)) != data.nbytes:  # type: ignore[attr-defined]
        raise UserError(f"{path}: is cut short in its particles; copy or write it again")
    return data.astype(dtype.newbyteorder("="), copy=False)


def sibling_files(path: Path, n_files: int, *, pattern: re.Pattern[str], example: str) -> list[Path]:
    """Return all files of a snapshot, given any one of them.

    Parameters
    ----------
    path
        One of the files.
    n_files
        How many its header announces.
    pattern
        Matches a whole name; its two groups are what stands before and after the number.
    example
        Such a name, for the message.

    Raises
    ------
    UserError
        If the name carries no number or a file is missing.
    """
    if n_files <= 1:
        return [path]
    match = pattern.fullmatch(path.name)
    if match is None:
        raise UserError(
            f"{path}: is one of {n_files} files of a snapshot, but its name carries no number such as "
            f"{example!r}, so the others cannot be found; give them their original names"
        )
    files = []
    # One by one: a damaged header may announce 2^31 files.
    for i in range(n_files):
        files.append(path.with_name(f"{match[1]}{i}{match[2]}"))
        if not files[-1].is_file():
            raise UserError(
                f"{files[-1]}: {why_not_a_file(files[-1])}; the snapshot {path.name} consists of {n_files} files"
            )
    return files


def why_not_a_file(path: Path) -> str:
    """Return what is wrong with a path that is not a readable file, for messages."""
    if path.is_symlink():
        return "is a symbolic link that leads nowhere or round in a circle"
    return "is not a file" if path.exists() else "no such file"
