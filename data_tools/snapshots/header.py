"""What a snapshot says about itself, what the user says, and what follows: lengths, redshift, cosmology."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cosmogan.errors import UserError
from cosmogan.units import Cosmology, parse_length

# Beyond these a unit is wrong; boxes larger than the last are taken for none without a unit.
_SMALLEST_BOX, _LARGEST_BOX, _LARGEST_UNSAID_BOX = 0.5, 1e5, 5e4
# Below this BoxSize alone says nothing: positions may be in units of the box.
_SMALLEST_UNSAID_BOX = 5.0
# Units that a BoxSize without one may be in, Mpc or Mpc/h.
_CANDIDATES = {"Mpc": 1.0, "kpc": 1e-3}
# Critical density over h^2 in 1e10 Msun/h per (Mpc/h)^3: the unit of mass of nearly all codes of the GADGET family.
CRITICAL_DENSITY = 27.7536627
# A unit is wrong if the matter in the box would be so many times more, or less, than the header's Omega_m; where the
# header has none, than 0.3. Units of mass differ by powers of 10, those of volume by 10^9: a margin of 10 would let
# masses in Msun/h and lengths in kpc/h pass for 10^10 Msun/h and Mpc/h.
_CONTRADICTION, _USUAL_OMEGA_M = 3.0, 0.3
MPC_IN_CM = 3.085678e24
# Codes differ in how many digits of a parsec they write.
_PARSEC_ROUNDING = 2e-3
# Types of the GADGET family; the seventh is SWIFT's.
TYPE_NAMES = ("gas", "dark matter", "type-2", "type-3", "star", "black hole", "neutrino")
# Outside of this a header is damaged, not daring.
_HUBBLE_RANGE = (0.2, 2.0)
_LARGEST_REDSHIFT = 1e5
# By how much the scale factor and 1 / (1 + z) may differ: single precision, printed numbers.
_TIME_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user says beside the file.

    Parameters
    ----------
    length_unit
        The file's unit of length, such as ``"kpc/h"``; None to take it from the file.
    box_size
        Side of the box with its unit; None to take it from the file.
    redshift
        Of the particles; None to take it from the file.
    particle_type
        Which particles to read, 0-5 in the GADGET family (0 gas, 1 dark matter, 4 stars), 6 SWIFT's neutrinos.
    """

    length_unit: str | None = None
    box_size: str | None = None
    redshift: float | None = None
    particle_type: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.particle_type < len(TYPE_NAMES):
            raise UserError(
                f"particle_type {self.particle_type}: expected 0 to {len(TYPE_NAMES) - 1}; 1 is dark matter"
            )


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


def resolve_lengths(
    path: Path,
    box_in_file: float,
    *,
    options: Options,
    h: float | None,
    stated: float | None,
    mass: Callable[[], float | None] = lambda: None,
    omega_m: float | None = None,
    per_h: bool = True,
) -> tuple[float, float, str]:
    """Decide the unit of length and the side of the box.

    Where neither the file nor the user says the unit, the matter in the box does: the masses of its particles make up
    the header's Omega_m in one unit only.

    Parameters
    ----------
    path
        For messages.
    box_in_file
        BoxSize in the file's unit; 0 where missing.
    options
        What the user says.
    h
        Hubble constant, for lengths without ``/h``.
    stated
        The file's own statement of its unit in Mpc/h, or None.
    mass
        Mass of all particles in the file's unit of mass, or None where it is not known; called only where the user says
        no unit.
    omega_m
        Of the header, or None.
    per_h
        Whether lengths without a stated unit are in kpc/h or Mpc/h, not kpc or Mpc.

    Returns
    -------
        The unit in Mpc/h, the box in Mpc/h, and where the unit comes from.

    Raises
    ------
    UserError
        If either stays unknown or they contradict each other.
    """
    length_unit, box_size = options.length_unit, options.box_size
    if not math.isfinite(box_in_file) or box_in_file < 0:
        if box_size is None:
            raise UserError(
                f"{path}: BoxSize is {box_in_file:g}; expected a positive length. Give --box-size '500 Mpc'"
            )
        box_in_file = 0.0
    asked_box = None if box_size is None else parse_length(box_size, h)
    if length_unit is not None:
        # "kpc/h" is as good as "1 kpc/h".
        text = length_unit if any(c.isdigit() for c in length_unit) else f"1 {length_unit}"
        unit, source = parse_length(text, h), "as asked"
    elif stated is not None:
        unit, source = stated, "stated in the file"
        _require_no_other_unit(path, stated, box_in_file, mass(), omega_m)
    elif asked_box is not None and box_in_file > 0:
        unit, source = asked_box / box_in_file, "from --box-size"
        # Rounding of a box size given by hand must not become a unit of 0.99999 Mpc/h.
        unit = next((nice for nice in (1.0, 1e-3) if math.isclose(unit, nice, rel_tol=1e-3)), unit)
    elif box_in_file == 0:
        raise UserError(
            f"{path}: the header has no usable BoxSize; give it with --box-size '500 Mpc', and the unit of the "
            "positions with --length-unit, such as kpc/h"
        )
    else:
        unit, source = _unsaid_unit(path, box_in_file, mass(), omega_m, h=None if per_h else h)
    if asked_box is None and box_in_file == 0:
        raise UserError(f"{path}: the header has no usable BoxSize; give it with --box-size '500 Mpc'")
    box = float(f"{box_in_file * unit:.12g}")
    if asked_box is not None:
        if box_in_file > 0 and not math.isclose(asked_box, box, rel_tol=1e-3):
            raise UserError(
                f"{path}: --box-size says {asked_box:g} Mpc/h and the header {box_in_file:g} in units of "
                f"{unit:g} Mpc/h ({source}), which is {box:g} Mpc/h; leave --box-size out or correct --length-unit"
            )
        box = asked_box
    if not _SMALLEST_BOX <= box <= _LARGEST_BOX:
        raise UserError(
            f"{path}: the box would be {box:g} Mpc/h wide (header {box_in_file:g}, unit {unit:g} Mpc/h, {source}); "
            f"expected {_SMALLEST_BOX:g} to {_LARGEST_BOX:g} Mpc/h. Correct --length-unit or --box-size"
        )
    return unit, box, source


def _fits(mass: float | None, box: float, omega_m: float | None) -> tuple[float, bool]:
    """Return the Omega_m that a mass, 1e10 Msun/h, makes in a box, Mpc/h, and whether it may be the header's."""
    found = (mass or 0.0) / (CRITICAL_DENSITY * box**3) if box > 0 else 0.0
    return found, 1 / _CONTRADICTION < found / (omega_m or _USUAL_OMEGA_M) < _CONTRADICTION


def _unsaid_unit(
    path: Path, box_in_file: float, mass: float | None, omega_m: float | None, *, h: float | None
) -> tuple[float, str]:
    """Return the one unit, Mpc/h, that neither the size of the box nor the matter in it contradicts, and why.

    Lengths are per h, or free of it where ``h`` is given.
    """
    per_h = "" if h else "/h"
    units = {f"{name}{per_h}": unit * (h or 1.0) for name, unit in _CANDIDATES.items()}
    possible = {
        name: unit for name, unit in units.items() if _SMALLEST_BOX <= box_in_file * unit <= _LARGEST_UNSAID_BOX
    }
    fits = {name: unit for name, unit in units.items() if _fits(mass, box_in_file * unit, omega_m)[1]}
    # Masses that fit no unit of length are in another unit of mass and say nothing.
    left = [unit for name, unit in possible.items() if not fits or name in fits]
    if len(left) == 1 and fits:
        found, _ = _fits(mass, box_in_file * left[0], omega_m)
        return left[0], f"by the masses, which make Omega_m {found:.3g}"
    if len(left) == 1 and box_in_file * left[0] >= _SMALLEST_UNSAID_BOX:
        return left[0], f"by BoxSize {box_in_file:g}"
    if box_in_file < _SMALLEST_UNSAID_BOX:
        raise UserError(
            f"{path}: BoxSize is {box_in_file:g} without a unit, and its masses do not decide which it is; give the "
            "side of the box with its unit, such as --box-size '350 Mpc/h', if positions are in units of it, or say "
            f"--length-unit Mpc{per_h}"
        )
    boxes = " or ".join(f"{box_in_file * _CANDIDATES[name[:3]]:g} Mpc{per_h}" for name in possible or units)
    raise UserError(
        f"{path}: BoxSize is {box_in_file:g} without a unit, which may be {boxes}, and its masses do not decide; say "
        f"which with --length-unit kpc{per_h} or --length-unit Mpc{per_h}"
    )


def _require_no_other_unit(
    path: Path, stated: float, box_in_file: float, mass: float | None, omega_m: float | None
) -> None:
    """Refuse a stated unit where masses make a universe in another one, a thousand times larger or smaller.

    Masses that fit neither are in another unit of mass and say nothing.
    """
    found, right = _fits(mass, box_in_file * stated, omega_m)
    for other in (stated * 1e3, stated * 1e-3):
        instead, fits = _fits(mass, box_in_file * other, omega_m)
        if fits and not right:
            expected = f"; the header says {omega_m:.3g}" if omega_m else ""
            raise UserError(
                f"{path}: states a unit of length of {stated:.4g} Mpc/h, in which its masses make Omega_m {found:.3g}, "
                f"and in {other:.4g} Mpc/h they make {instead:.3g}{expected}; say which is right with --length-unit, "
                "such as kpc/h"
            )


def unit_from_cm(path: Path, cm: float, *others: float) -> float:
    """Return a unit of length in Mpc, exactly 1 or 0.001 where that is meant.

    Parameters
    ----------
    path
        For messages.
    cm
        As the file states it.
    others
        Other readings of the same number, for codes that differ.

    Raises
    ------
    UserError
        If none of them is a decimal multiple of a parsec.
    """
    for length in (cm, *others):
        power = round(math.log10(length / MPC_IN_CM)) if 0 < length < math.inf else 0
        unit = float(f"1e{power}")
        if math.isclose(length / MPC_IN_CM, unit, rel_tol=_PARSEC_ROUNDING):
            return unit
    raise UserError(
        f"{path}: its unit of length is {cm:g} cm, which is neither kpc (3.0857e21) nor Mpc (3.0857e24); "
        "say what it is with --length-unit kpc/h or the like"
    )


def resolve_redshift(path: Path, in_file: float | None, *, scale_factor: float | None, asked: float | None) -> float:
    """Decide the redshift.

    Parameters
    ----------
    path
        For messages.
    in_file
        As the file says, or None.
    scale_factor
        As the file says, for comparison, and for files without a redshift; None or 0 where it does not.
    asked
        What the user says; beats the file.

    Raises
    ------
    UserError
        If it stays unknown, cannot be, or the file contradicts itself.
    """
    if in_file is None and scale_factor and scale_factor > 0:
        in_file = 1 / scale_factor - 1
    redshift = in_file if asked is None else asked
    if redshift is None:
        raise UserError(f"{path}: does not say its redshift; give it with --redshift, such as --redshift 0")
    if not -1 < redshift < _LARGEST_REDSHIFT:
        raise UserError(
            f"{path}: Redshift is {redshift:g}; expected a number from 0 to {_LARGEST_REDSHIFT:g}. If the header is "
            "wrong, give the right one with --redshift"
        )
    # Negated, so that NaN is caught.
    if asked is None and scale_factor and not abs(scale_factor * (1 + redshift) - 1) < _TIME_ROUNDING:
        raise UserError(
            f"{path}: the header contradicts itself: Redshift is {redshift:g} and the scale factor (Time) "
            f"{scale_factor:g}, expected {1 / (1 + redshift):g}; say which is right with --redshift"
        )
    # Codes that step in the scale factor write 2e-16 for 0.
    return 0.0 if abs(redshift) < 1e-6 else redshift


def known_cosmology(path: Path, values: Mapping[str, float]) -> Cosmology:
    """Return the parameters that a file says; 0 stands for unknown.

    Raises
    ------
    UserError
        If a value cannot be.
    """
    known = {name: value for name, value in values.items() if value != 0}
    h = known.get("h", 1.0)
    if not _HUBBLE_RANGE[0] <= h <= _HUBBLE_RANGE[1]:
        raise UserError(
            f"{path}: HubbleParam is {h:g}; expected h = H0 / (100 km/s/Mpc), about 0.7. Correct the header"
        )
    try:
        return Cosmology(**known)
    except UserError as error:
        raise UserError(f"{path}: {error}. Correct the header") from None


def require_particles(path: Path, n_per_type: Sequence[int], particle_type: int) -> int:
    """Return the number of particles of a type in all files.

    Raises
    ------
    UserError
        If there are none.
    """
    n_particles = n_per_type[particle_type] if particle_type < len(n_per_type) else 0
    if n_particles <= 0:
        others = [f"{kind} ({n} {TYPE_NAMES[kind]} particles)" for kind, n in enumerate(n_per_type[:7]) if n > 0]
        raise UserError(
            f"{path}: holds no {TYPE_NAMES[particle_type]} particles (type {particle_type}); it has "
            + (f"--particle-type {', '.join(others)}" if others else "none of any type")
        )
    return n_particles
