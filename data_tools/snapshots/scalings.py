"""What a data set of positions states about its own numbers: powers of the scale factor and of h, and a unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cosmogan.errors import UserError
from data_tools.files.hdf5 import attributes, number, open_hdf5, reading
from data_tools.snapshots.header import unit_from_cm

# As the codes of the GADGET family (AREPO, GADGET-4, GIZMO, EAGLE), SWIFT, and its tools call them.
_A_POWERS = ("a_scaling", "a-scale-exponent", "a-scale exponent", "aexp-scale-exponent")
_H_POWERS = ("h_scaling", "h-scale-exponent", "h-scale exponent")
_CGS = ("to_cgs", "CGSConversionFactor", "Conversion factor to CGS (not including cosmological corrections)")
_PHYSICAL = "Value stored as physical"
_WAY_OUT = "If positions are comoving all the same, say their unit with --length-unit"


class Scaling(NamedTuple):
    """What a data set states.

    Parameters
    ----------
    place
        Name of the data set, for messages.
    per_h
        Whether lengths are per h; None where it does not say.
    unit
        Unit of length in Mpc or Mpc/h; None where it does not say.
    cm
        The same as it is written.
    """

    place: str
    per_h: bool | None
    unit: float | None
    cm: float | None


def read_scaling(files: Sequence[Path], particle_type: int) -> Scaling:
    """Return what the positions of a type state, from the first file that has some.

    Raises
    ------
    UserError
        If they are not comoving, the power of h is none that lengths have, or a file cannot be read.
    """
    place = f"PartType{particle_type}/Coordinates"
    for path in files:
        with open_hdf5(path) as handle:
            with reading(path, f"/{place}"):
                missing = place not in handle
            if missing:
                continue
            values = attributes(handle, place, path)
        power_a, power_h, cm = (_first(values, names, path) for names in (_A_POWERS, _H_POWERS, _CGS))
        if power_a not in (None, 1.0):
            raise UserError(
                f"{path}: /{place} is not comoving (power {power_a:g} of the scale factor; expected 1). {_WAY_OUT}"
            )
        if number(values, _PHYSICAL, path):
            raise UserError(f"{path}: /{place} is not comoving ({_PHYSICAL!r} is set). {_WAY_OUT}")
        if power_h not in (None, 0.0, -1.0):
            raise UserError(f"{path}: /{place} has the power {power_h:g} of h; expected -1 (per h) or 0")
        # Codes write 0 for a factor that they do not know.
        unit = unit_from_cm(path, cm) if cm else None
        return Scaling(f"/{place}", None if power_h is None else power_h == -1, unit, cm)
    return Scaling(f"/{place}", None, None, None)


def _first(values: Mapping[str, Any], names: Sequence[str], path: Path) -> float | None:
    return next((number(values, name, path) for name in names if name in values), None)
