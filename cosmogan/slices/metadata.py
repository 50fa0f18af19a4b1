"""What the pixels of a set of slices are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from cosmogan.checks import require_least, require_positive
from cosmogan.errors import UserError
from cosmogan.slices.layout import DTYPES
from cosmogan.units import Cosmology, fundamental_wavenumber, nyquist_wavenumber

# Schemes by which particles are spread over pixels; "other" for one that is none of these, or unknown.
ASSIGNMENTS = ("NGP", "CIC", "TSC", "PCS", "other")
_MUST_AGREE = ("box_size", "n_pixels", "thickness", "redshift", "quantity", "smoothing", "periodic")


@dataclass(frozen=True, kw_only=True)
class SliceMetadata:
    """What the pixels of a set of slices are.

    Parameters
    ----------
    box_size
        Comoving side of the square slice, Mpc/h.
    n_pixels
        Pixels along a side.
    thickness
        Comoving depth of a slice, Mpc/h.
    redshift
        Redshift of the snapshot.
    quantity
        ``"density"``: 1 + delta, normalised by the mean of the whole box; ``"counts"``: particles per pixel.
    mean_count
        Particles per pixel averaged over the whole box; only for counts.
    smoothing
        Sigma in pixels of the Gaussian that was applied, cut at 4 sigma, periodic; 0 for none.
    assignment
        Scheme by which particles were spread over pixels: ``"NGP"``, ``"CIC"``, ``"TSC"``, ``"PCS"``, or ``"other"``
        for a scheme that is none of these or unknown.
    periodic
        True when a slice spans the full periodic box.
    cosmology
        Parameters of the simulation, as far as known.

    Raises
    ------
    UserError
        If a value is outside its range.
    """

    box_size: float
    n_pixels: int
    thickness: float
    redshift: float = 0.0
    quantity: str = "density"
    mean_count: float | None = None
    smoothing: float = 0.0
    assignment: str = "NGP"
    periodic: bool = True
    cosmology: Cosmology = field(default_factory=Cosmology)

    def __post_init__(self) -> None:
        require_positive("a length in Mpc/h", box_size=self.box_size, thickness=self.thickness)
        require_least(1, n_pixels=self.n_pixels)
        if not (math.isfinite(self.redshift) and self.redshift > -1):
            raise UserError(f"redshift must be above -1, found {self.redshift}")
        if self.quantity not in DTYPES:
            raise UserError(f"quantity must be 'density' or 'counts', found {self.quantity!r}")
        if (self.quantity == "counts") != (self.mean_count is not None):
            raise UserError("mean_count must be given for quantity='counts' and for no other")
        if self.mean_count is not None:
            require_positive("a number of particles", mean_count=self.mean_count)
        require_least(0, "pixels", smoothing=self.smoothing)
        if self.assignment not in ASSIGNMENTS:
            raise UserError(f"assignment must be one of {', '.join(ASSIGNMENTS)}, found {self.assignment!r}")

    @property
    def pixel_size(self) -> float:
        """Side of a pixel, Mpc/h."""
        return self.box_size / self.n_pixels

    @property
    def fundamental(self) -> float:
        """Smallest wave number of a slice, h/Mpc."""
        return fundamental_wavenumber(self.box_size)

    @property
    def nyquist(self) -> float:
        """Nyquist wave number of a slice, h/Mpc."""
        return nyquist_wavenumber(self.box_size, self.n_pixels)

    def differences(self, other: SliceMetadata) -> list[str]:
        """Return one clause for each property in which two sets of slices cannot be compared."""
        clauses = []
        for name in _MUST_AGREE:
            mine, theirs = getattr(self, name), getattr(other, name)
            close = math.isclose(mine, theirs, rel_tol=1e-6) if isinstance(mine, float) else mine == theirs
            if not close:
                clauses.append(f"{name} {_with_unit(name, mine)} against {_with_unit(name, theirs)}")
        return clauses

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, as JSON takes them; the inverse of `from_dict`."""
        return asdict(self) | {"cosmology": self.cosmology.known()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SliceMetadata:
        """Build from the result of `to_dict`."""
        return cls(**{**values, "cosmology": Cosmology(**values["cosmology"])})


def _with_unit(name: str, value: object) -> str:
    unit = {"box_size": " Mpc/h", "thickness": " Mpc/h", "smoothing": " pixels"}.get(name, "")
    return f"{value:.7g}{unit}" if isinstance(value, float) else f"{value}{unit}"
