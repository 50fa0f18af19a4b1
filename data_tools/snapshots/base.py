"""What every snapshot format offers: a header in Mpc/h, its files, and particles in a stream."""

from __future__ import annotations

import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

import numpy as np

from cosmogan.errors import UserError
from data_tools.snapshots.coverage import MOST_EXTENT, Coverage
from data_tools.snapshots.header import TYPE_NAMES, Options, SnapshotHeader

# Particles read at a time: 24 MB of float64 positions.
CHUNK = 2**20
# Positions may leave the box by rounding: float32 resolves 6e-8 of the box, codes that add a drift lose a digit or two.
ROUNDING = 1e-5
# Types that are matter; the seventh are neutrinos, which theory counts apart.
MATTER = range(6)
# Masses that differ by less are equal but for rounding.
MASS_ROUNDING = 1e-5
# Masses of a short place; such places in a file, and files, that a share of the mass is estimated from.
_SHORT, _SOME_BLOCKS, _SOME_FILES = 4096, 8, 8
# How far a reach of positions may be from a unit's multiple of the box to be taken for that unit.
_UNIT_ROUNDING = 0.02


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
    # Types that are read, and the number of particles of each type there is; none where a format knows no types.
    types: tuple[int, ...] = ()
    n_per_type: Mapping[int, int] = MappingProxyType({})

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
        coverage: Coverage | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Stream positions and masses.

        Parameters
        ----------
        chunk
            Particles at a time, at most.
        weights
            Read masses too.
        files
            Some of `files`, for sharing them out among processes; None for all.
        slab
            Keep only particles with ``low <= position < high`` (Mpc/h) along an axis. Formats with an index of places
            read no more of the file than needed.
        coverage
            Filled in with what is read, for callers that call `require_whole` themselves; by default that happens here,
            once all files are read.

        Yields
        ------
            Positions, shape ``(n, 3)``, comoving Mpc/h, wrapped into ``[0, box_size]`` up to rounding, and masses,
            shape ``(n,)``, in the file's unit of mass (the same in all files), positive; None without `weights`.

        Raises
        ------
        UserError
            If a file is damaged, a position is not finite, positions reach over more than the box, masses are asked for
            and missing, particles are missing, or they fill only a part of the box.
        """
        unit = self.header.length_unit
        slab_in_file = None if slab is None else Slab(slab.axis, slab.low / unit, slab.high / unit)
        seen = self.coverage() if coverage is None else coverage
        for path in self.files if files is None else files:
            row = 0
            with sentences(path):
                for block, masses in self._read_file(path, chunk, weights=weights, slab=slab_in_file):
                    # Half precision keeps its digits only as long as nothing is computed in it.
                    block = _single(block)
                    positions = block if unit == 1 else block * block.dtype.type(unit)
                    outside = self._outside(positions, path, seen)
                    if slab is None:
                        seen.add(positions, row)
                        row += len(positions)
                    if outside:
                        positions = np.mod(positions, positions.dtype.type(self.header.box_size))
                    if masses is not None:
                        masses = _single(masses)
                        require_masses(masses, path)
                    if slab is not None:
                        inside = slab.contains(positions, self.header.box_size)
                        positions, masses = positions[inside], None if masses is None else masses[inside]
                    yield positions, masses
        if coverage is None and slab is None and (files is None or set(files) == set(self.files)):
            self.require_whole(seen)

    def coverage(self, seed: int = 0) -> Coverage:
        """Return an empty record of where the particles are; see `Coverage` for the seed."""
        return Coverage(box_size=self.header.box_size, n_particles=self.header.n_particles, seed=seed)

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

    def _outside(self, positions: np.ndarray, path: Path, seen: Coverage) -> int:
        """Return how many particles lie outside of the box by more than rounding, all of them where it may be."""
        box = self.header.box_size
        low, high = positions.min(initial=math.inf), positions.max(initial=-math.inf)
        # NaN compares false with everything, so this catches it too.
        if len(positions) == 0 or (-ROUNDING * box <= low and high <= (1 + ROUNDING) * box):
            return 0
        bad = ~np.isfinite(positions).all(axis=1)
        if bad.any():
            first = seen.n_particles
            raise UserError(
                f"{path}: positions of {bad.sum()} particles are NaN or infinite (among particles "
                f"{first}-{first + len(positions) - 1}); the file is damaged, copy or write it again"
            )
        seen.reach(positions)
        if seen.extent > MOST_EXTENT * box or low < -box or high > 2 * box:
            raise self._too_far(path, seen)
        n_outside = int(((positions < -ROUNDING * box) | (positions > (1 + ROUNDING) * box)).any(axis=1).sum())
        seen.n_outside += n_outside
        return n_outside

    def _reach(self, seen: Coverage) -> str:
        """Return where positions lie."""
        ends = [(f"{low:.6g}", f"{high:.6g}") for low, high in zip(seen.low, seen.high, strict=True)]
        reach = [f"from {low} to {high} along {axis}" for (low, high), axis in zip(ends, "xyz", strict=True)]
        if len(set(ends)) == 1:
            reach = ["from {} to {}".format(*ends[0])]
        return f"positions reach {', '.join(reach)} Mpc/h"

    def _too_far(self, path: Path, seen: Coverage) -> UserError:
        box = f"but the box is {self.header.box_size:.6g} Mpc/h wide"
        way_out = self._other_unit(seen) or "; if the box is another, give it with --box-size"
        return UserError(f"{path}: {self._reach(seen)}, {box}{way_out}")

    def _other_unit(self, seen: Coverage) -> str:
        """Return a clause on the unit in which the positions would fill the box, if there is one."""
        unit, h = self.header.length_unit, self.header.cosmology.h or 1.0
        for factor in (1e3, 1e-3, h, 1 / h):
            if factor != 1 and np.allclose(seen.high - seen.low, factor * self.header.box_size, rtol=_UNIT_ROUNDING):
                return (
                    f"; they would fill it if their unit of length were {unit / factor:.4g} Mpc/h and not {unit:.4g} "
                    f"({self.header.unit_source}): give it with --length-unit, and the box with --box-size"
                )
        return ""

    def require_whole(self, seen: Coverage, *, allow_partial: bool = False) -> None:
        """Make sure that all particles have been read and lie all over the box.

        Parameters
        ----------
        seen
            What all processes together have read.
        allow_partial
            Whether they may lie in a part of the box.

        Raises
        ------
        UserError
            If some are missing, they fill only a part of the box, or reach over more than the box.
        """
        if seen.n_particles != self.header.n_particles:
            raise UserError(
                f"{self.path}: the header announces {self.header.n_particles} particles and the files hold "
                f"{seen.n_particles}; a part of the snapshot is missing"
            )
        if seen.n_outside and not seen.may_be_wrapped():
            raise self._too_far(self.path, seen)
        empty = seen.empty_share()
        if empty and not allow_partial:
            others = [kind for kind in self.n_per_type if kind in MATTER and kind not in self.types]
            hint = f". Matter of other types ({name_types(others)}) counts with --types all-matter" if others else ""
            raise UserError(
                f"{self.path}: {100 * empty:.3g}% of the volume is empty: {self._reach(seen)}, and slices need "
                f"particles all over a periodic box, here of {self.header.box_size:.6g} Mpc/h{self._other_unit(seen)}"
                f"{hint}. If a part of a box is meant, add --allow-partial"
            )

    def mass_range(self) -> tuple[float, float] | None:
        """Return the least and the largest mass of the particles, None where the snapshot holds none.

        Looks at masses until two differ by more than rounding; then these are returned.

        Raises
        ------
        UserError
            If a file is damaged.
        """
        low, high = math.inf, -math.inf
        for kind in self.types:
            table = self._table_mass(kind)
            for path in [self.path] if table is not None else self.files:
                with sentences(path):
                    for block in [np.array([table])] if table is not None else self._mass_blocks(path, kind):
                        low, high = min(low, float(block.min())), max(high, float(block.max()))
                        if not np.isfinite(block).all():
                            require_masses(block, path)
                        if high - low > MASS_ROUNDING * high:
                            return low, high
        return None if low > high else (low, high)

    def mass_scale(self) -> float:
        """Return a typical mass: the largest of some of each type.

        Raises
        ------
        UserError
            If a file is damaged or holds no masses.
        """
        if not self.types:
            raise UserError(no_masses(self.path, "plain positions come without"))
        scale = 0.0
        for kind in self.types:
            some = self._some_masses(kind)
            if some is None:
                raise UserError(no_masses(self.path, f"of type {kind}"))
            require_masses(some, self.path)
            scale = max(scale, float(some.max()))
        return scale

    def _some_masses(self, kind: int) -> np.ndarray | None:
        """Return masses of a type from places spread over the snapshot, None where there are none."""
        table = self._table_mass(kind)
        if table is not None:
            return np.array([table])
        some = self.files[:: -(-len(self.files) // _SOME_FILES)]
        # The type may be missing in these.
        for files in (some, [path for path in self.files if path not in some]):
            blocks = [b for path in files for b in self._mass_blocks(path, kind, n_blocks=_SOME_BLOCKS)]
            if blocks:
                return np.concatenate(blocks)
        return None

    def matter(self) -> dict[int, float] | None:
        """Return the share of the mass in each type, estimated from some files where masses differ; None if unknown.

        Types without masses, such as tracers, are no matter and left out.

        Raises
        ------
        UserError
            If a file is damaged.
        """
        totals: dict[int, float] = {}
        for kind, n in self.n_per_type.items():
            some = self._some_masses(kind)
            if some is not None:
                totals[kind] = float(some.mean(dtype=np.float64)) * n
        whole = sum(totals.values())
        # Negated, so that NaN is caught.
        if not 0 < whole < math.inf or any(kind not in totals for kind in self.types):
            return None
        return {kind: total / whole for kind, total in totals.items()}

    def total_mass(self) -> float | None:
        """Return the mass of all types of matter in the file's unit, estimated from some files; None if unknown.

        Raises
        ------
        UserError
            If a file is damaged.
        """
        parts = {kind: self._some_masses(kind) for kind in self.n_per_type if kind in MATTER}
        known = [
            float(some.mean(dtype=np.float64)) * self.n_per_type[kind]
            for kind, some in parts.items()
            if some is not None
        ]
        return sum(known) or None

    def has_masses(self, kind: int) -> bool:
        """Return whether particles of a type have masses.

        Raises
        ------
        UserError
            If a file is damaged.
        """
        return self._some_masses(kind) is not None

    def _table_mass(self, kind: int) -> float | None:
        """Return the one mass that all particles of a type have, as the header says; None where it does not."""
        return None

    def _mass_blocks(self, path: Path, kind: int, *, n_blocks: int | None = None) -> Iterator[np.ndarray]:
        """Yield the masses of a type in one file: all, or some from short places spread over the file."""
        yield from ()


class AbstractSnapshotFormat(AbstractSnapshot):
    """A format of snapshots on disk: one file here, a final subclass, its line in `FORMATS` of `detect.py`."""

    @abstractmethod
    def __init__(self, path: Path, options: Options) -> None:
        """Read the header.

        Raises
        ------
        UserError
            If the file is damaged, or its header cannot be right.
        """

    @staticmethod
    @abstractmethod
    def recognises(path: Path, head: bytes) -> bool:
        """Return whether a file is in this format, given its first 8 bytes, too; earlier formats have been asked."""


def _single(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float32) if numbers.dtype.itemsize == 2 else numbers


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


def require_masses(masses: np.ndarray, path: Path) -> None:
    """Make sure that masses are positive numbers.

    Raises
    ------
    UserError
        If they are not.
    """
    # Negated, so that NaN is caught.
    if not (masses.min(initial=math.inf) > 0 and masses.max(initial=1.0) < math.inf):
        raise UserError(
            f"{path}: holds masses that are not positive numbers; write it again, or count all particles alike with "
            "--weights number if their masses are known to be equal"
        )


def no_masses(path: Path, where: str) -> str:
    """Return the sentence on a snapshot without the masses that are asked for."""
    return f"{path}: holds no masses ({where}); if all particles have the same mass, count them with --weights number"


def mass_places(n: int, n_blocks: int | None) -> list[tuple[int, int]]:
    """Return rows of ``n`` masses to read, as ``(first, beyond the last)``: all, or so many short places."""
    if n_blocks is None or n <= n_blocks * _SHORT:
        return [(start, min(start + CHUNK, n)) for start in range(0, n, CHUNK)]
    return [(n * i // n_blocks, n * i // n_blocks + _SHORT) for i in range(n_blocks)]


def name_types(kinds: Sequence[int]) -> str:
    """Return types of particles as people call them."""
    return ", ".join(
        f"{TYPE_NAMES[kind]} (type {kind})" if kind < len(TYPE_NAMES) else f"type {kind}" for kind in kinds
    )


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
    """Return all files of a snapshot, given any one of them, or a link to it.

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
    if path.is_symlink() and pattern.fullmatch(path.name):
        # Where all files are linked, what they lead to may have any names.
        with suppress(UserError):
            return _numbered_files(path, n_files, pattern=pattern, example=example)
    # A link to one file stands for all of them.
    path = path.resolve() if path.is_symlink() else path
    return _numbered_files(path, n_files, pattern=pattern, example=example)


def _numbered_files(path: Path, n_files: int, *, pattern: re.Pattern[str], example: str) -> list[Path]:
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
