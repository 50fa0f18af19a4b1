"""Lengths, wave numbers and the background cosmology; inside the package every length is comoving Mpc/h."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields

from cosmogan.errors import UserError

_LENGTH = re.compile(r"\s*([-+0-9.eE]+)\s*([kMG])pc\s*(/\s*h)?\s*")
_MEGAPARSECS = {"k": 1e-3, "M": 1.0, "G": 1e3}


@dataclass(frozen=True, kw_only=True)
class Cosmology:
    """Parameters of a flat w0-CDM universe; ``None`` where a source does not say.

    Parameters
    ----------
    omega_m, omega_b
        Density of matter and of baryons today, in units of the critical density.
    h
        Hubble constant in units of 100 km/s/Mpc.
    sigma8
        Linear rms of the matter overdensity in spheres of 8 Mpc/h at redshift 0.
    n_s
        Slope of the primordial power spectrum.
    w0
        Dark energy equation of state.
    """

    omega_m: float | None = None
    omega_b: float | None = None
    h: float | None = None
    sigma8: float | None = None
    n_s: float | None = None
    w0: float | None = None

    def __post_init__(self) -> None:
        for name in ("omega_m", "omega_b", "h", "sigma8", "n_s"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(f"cosmology: {name} must be positive and finite, got {value}")
        for name, low, high in (("h", 0.1, 3.0), ("sigma8", 0.01, 10.0), ("n_s", 0.1, 3.0)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"cosmology: expected {name} of {low:g} to {high:g}, got {value:g}")
        if self.omega_m is not None and self.omega_m > 1:
            raise UserError(f"cosmology: omega_m must not exceed 1 (a flat universe), got {self.omega_m}")

    def known(self) -> dict[str, float]:
        """Return the parameters that are known, by name."""
        return {name: float(value) for name, value in asdict(self).items() if value is not None}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all parameters."""
        return tuple(field.name for field in fields(cls))


# The run of Rodriguez et al. 2018 (arXiv:1801.09070), as in the L-PICOLA run files of that group.
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
RODRIGUEZ2018 = Cosmology(omega_m=0.276, omega_b=0.045, h=0.7, sigma8=0.811, n_s=0.961)


def parse_length(text: str | float, h: float | None = None) -> float:
    """Read a length with its unit.

    Parameters
    ----------
    text
        Length such as ``"500 Mpc"``, ``"350 Mpc/h"`` or ``"70000 kpc/h"``.
    h
        Hubble constant in units of 100 km/s/Mpc; needed only for lengths without ``/h``.

    Returns
    -------
        The length in Mpc/h.

    Raises
    ------
    UserError
        If the unit is missing or unknown, the number is not positive, or ``h`` is needed and unknown.

    Examples
    --------
    >>> parse_length("500 Mpc", h=0.7)
    350.0
    >>> parse_length("350 Mpc/h")
    350.0
    """
    match = _LENGTH.fullmatch(str(text))
    try:
        number = float(match[1]) if match else math.nan
    except ValueError:
        number = math.nan
    if match is None or not math.isfinite(number) or number <= 0:
        raise UserError(
            f"length {str(text)!r}: expected a positive number with its unit, such as '500 Mpc' or '350 Mpc/h'"
        )
    length = number * _MEGAPARSECS[match[2]]
    if match[3]:
        return length
    if h is None:
        raise UserError(f"length {text!r}: the Hubble constant h is unknown here, so give it in Mpc/h")
    # 12 digits: 500 * 0.7 must be 350, so that box sizes written by hand compare equal.
    return float(f"{length * h:.12g}")


def format_length(length: float, h: float | None = None) -> str:
    """Return a length in Mpc/h as text, in Mpc as well where ``h`` is known.

    Examples
    --------
    >>> format_length(350.0, h=0.7)
    '350 Mpc/h (500 Mpc)'
    """
    text = f"{length:.6g} Mpc/h"
    return text if h is None else f"{text} ({length / h:.6g} Mpc)"


def fundamental_wavenumber(box_size: float) -> float:
    """Return ``2 pi / L`` in h/Mpc for a box of side ``box_size`` in Mpc/h."""
    return 2 * math.pi / box_size


def nyquist_wavenumber(box_size: float, n_pixels: int) -> float:
    """Return ``pi N / L`` in h/Mpc for ``n_pixels`` along a side of ``box_size`` in Mpc/h."""
    return math.pi * n_pixels / box_size


def parse_bytes(text: str, *, name: str = "memory") -> float:
    """Read an amount of memory with its unit.

    Parameters
    ----------
    text
        Size such as ``"2 GB"``.
    name
        Name of the argument, for the message.

    Raises
    ------
    UserError
        If the unit is missing or unknown, or the number is not positive.

    Examples
    --------
    >>> parse_bytes("2 GB"), parse_bytes("512MiB")
    (2000000000.0, 536870912.0)
    """
    match = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*([A-Za-z]+)\s*", str(text))
    try:
        number = float(match[1]) * _BYTES[match[2]] if match else math.nan
    except (KeyError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise UserError(f"{name} {str(text)!r}: expected a number with its unit ({', '.join(_BYTES)}), such as '2 GB'")
    return number
