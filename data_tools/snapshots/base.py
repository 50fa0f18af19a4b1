"""What every snapshot format offers: a header in Mpc/h and positions in a stream."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cosmogan.errors import UserError
from cosmogan.units import Cosmology, parse_length

# Particles read at a time: 24 MB of float64 positions.
CHUNK = 2**20
# Positions may leave the box by rounding: float32 resolves 6e-8 of the box, codes that add a drift lose a digit or two.
ROUNDING = 1e-5
# Boxes are 5 Mpc/h to 10 Gpc/h in practice. A BoxSize without a unit is taken for Mpc/h below the first number, for
# kpc/h from the second on, and is asked for in between, where 5 Gpc/h and 5 Mpc/h look alike.
_LARGEST_MPC = 4000.0
_SMALLEST_KPC = 15000.0
# So many particles that do not reach across so much of the box are not spread over it: wrong unit, box or selection.
_ENOUGH = 1000
_FILLED = 0.9


@dataclass(frozen=True, kw_only=True)
class SnapshotHeader:
    """What a snapshot says about itself.

    Parameters
    ----------
    box_size
        Side of the periodic box, comoving Mpc/h.
    redshift
        Redshift of the particles.
    n_particles
        Number of particles of the chosen type in all files of the snapshot.
    cosmology
        As far as the file says.
    seed
        Of the initial conditions, where the file says; labels the realisation.
    length_unit
        The file's unit of length in Mpc/h.
    unit_source
        Where the unit comes from, for people.
    """

    box_size: float
    redshift: float
    n_particles: int
    cosmology: Cosmology = field(default_factory=Cosmology)
    seed: int | None = None
    length_unit: float = 1.0
    unit_source: str = "stated in the file"


class Slab(NamedTuple):
    """Part of a box between two planes, ``low <= position < high`` along ``axis``; may reach across the boundary."""

    axis: int
    low: float
    high: float

    def contains(self, positions: np.ndarray, box_size: float) -> np.ndarray:
        """Return which of the positions, shape ``(n, 3)``, lie in the slab of a periodic box: bool, shape ``(n,)``."""
        return np.mod(positions[:, self.axis] - np.float64(self.low), box_size) < self.high - self.low


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
            Some of `files`, for sharing them out among processes; None for all. The caller then compares the sum over
            all processes with ``header.n_particles``, which is checked here only for all files at once.
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
            self._require_whole(n_seen, lowest, highest)

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
            "say the unit with --length_unit, such as kpc/h, or the box with --box_size"
        )

    def _require_whole(self, n_seen: int, low: float, high: float) -> None:
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
                "all over a periodic box. Say the unit with --length_unit, or the box with --box_size"
            )


def _require_masses(masses: np.ndarray, path: Path) -> None:
    # Negated, so that NaN is caught.
    if not (masses.min(initial=math.inf) > 0 and masses.max(initial=1.0) < math.inf):
        raise UserError(f"{path}: holds masses that are not positive numbers; leave weights out, or write it again")


def resolve_lengths(
    path: Path,
    box_in_file: float,
    *,
    length_unit: str | None,
    box_size: str | None,
    h: float | None,
    stated: float | None,
) -> tuple[float, float, str]:
    """Decide the unit of length and the side of the box.

    Parameters
    ----------
    path
        For messages.
    box_in_file
        BoxSize in the file's unit; 0 where missing.
    length_unit, box_size
        What the user says, or None.
    h
        Hubble constant, for lengths without ``/h``.
    stated
        The file's own statement of its unit in Mpc/h, or None.

    Returns
    -------
        The unit in Mpc/h, the box in Mpc/h, and where the unit comes from.

    Raises
    ------
    UserError
        If either stays unknown or they contradict each other.
    """
    if not math.isfinite(box_in_file) or box_in_file < 0:
        raise UserError(f"{path}: BoxSize is {box_in_file:g}; expected a positive length. Give --box_size '500 Mpc'")
    asked_box = None if box_size is None else parse_length(box_size, h)
    if length_unit is not None:
        # "kpc/h" is as good as "1 kpc/h".
        text = length_unit if any(c.isdigit() for c in length_unit) else f"1 {length_unit}"
        unit, source = parse_length(text, h), "as asked"
    elif stated is not None:
        unit, source = stated, "stated in the file"
    elif asked_box is not None and box_in_file > 0:
        unit, source = asked_box / box_in_file, "from --box_size"
        # Rounding of a box size given by hand must not become a unit of 0.99999 Mpc/h.
        unit = next((nice for nice in (1.0, 1e-3) if math.isclose(unit, nice, rel_tol=1e-3)), unit)
    elif box_in_file == 0:
        raise UserError(f"{path}: the header has no BoxSize; give it with --box_size '500 Mpc', and --length_unit")
    elif box_in_file <= _LARGEST_MPC:
        unit, source = 1.0, f"guessed from BoxSize {box_in_file:g}"
    elif box_in_file >= _SMALLEST_KPC:
        unit, source = 1e-3, f"guessed from BoxSize {box_in_file:g}"
    else:
        raise UserError(
            f"{path}: BoxSize is {box_in_file:g} without a unit, which may be kpc/h or Mpc/h; "
            "say which with --length_unit kpc/h or --length_unit Mpc/h"
        )
    if asked_box is None and box_in_file == 0:
        raise UserError(f"{path}: the header has no BoxSize; give it with --box_size '500 Mpc'")
    box = float(f"{box_in_file * unit:.12g}")
    if asked_box is not None:
        if box_in_file > 0 and not math.isclose(asked_box, box, rel_tol=1e-3):
            raise UserError(
                f"{path}: --box_size says {asked_box:g} Mpc/h and the header {box_in_file:g} in units of "
                f"{unit:g} Mpc/h ({source}), which is {box:g} Mpc/h; leave --box_size out or correct --length_unit"
            )
        box = asked_box
    return unit, box, source


def check_redshift(path: Path, redshift: float) -> float:
    """Return the redshift, or refuse one that cannot be.

    Raises
    ------
    UserError
        If it is not finite or not above -1.
    """
    if not (math.isfinite(redshift) and redshift > -1):
        raise UserError(f"{path}: Redshift is {redshift:g}; expected a number above -1. The header is damaged")
    # Codes that step in the scale factor write 2e-16 for 0.
    return 0.0 if abs(redshift) < 1e-6 else redshift


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
    files = [path.with_name(f"{match[1]}{i}{match[2]}") for i in range(n_files)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{missing[0]}: no such file; the snapshot {path.name} consists of {n_files} files")
    return files
