"""What every published format offers: fields, what their numbers are, and what is known of the simulations."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from cosmogan.errors import UserError
from cosmogan.units import Cosmology, parse_length
from data_tools.files.arrays import AbstractArray, Field, Index

# What the numbers of a file may be; `docs/convert.md` says how each becomes 1 + delta.
QUANTITIES = ("counts", "density", "delta", "mass", "scaled")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a look at a file shows: enough to recognise its format.

    Parameters
    ----------
    kind
        ``"npy"``, ``"npz"`` or ``"hdf5"``.
    names
        Of the arrays in an archive, of the members of an HDF5 file's root; empty for ``.npy``.
    shape
        Of the array in an ``.npy`` file; empty for others.
    """

    kind: str
    names: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user says about a file; None where the format is to say it.

    Parameters
    ----------
    box_size, thickness
        Lengths with their unit; the thickness is that of the slices of a stack.
    redshift
        Which of several redshifts, or the redshift of a file that does not say.
    quantity
        One of `QUANTITIES`.
    scale
        The a of s(x) = 2x / (x + a) - 1 for scaled values.
    mean
        Mean over the whole box in the file's unit, for fields that do not cover it.
    layout
        ``"cubes"`` or ``"slices"``, where the shape does not tell.
    dataset
        Name of the array in an HDF5 file or archive.
    params
        Table of parameters per simulation; ``"none"`` to go without.
    columns
        Names of its columns in order, such as ``"Omega_m,sigma8"``, where the table does not say them.
    assignment, periodic, smoothed
        As in the slice file, for what the file already is.
    slices_per_realisation
        How many slices of a stack come from one simulation each.
    cosmology
        Parameters that the file does not say.
    """

    box_size: str | None = None
    thickness: str | None = None
    redshift: float | None = None
    quantity: str | None = None
    scale: float | None = None
    mean: float | None = None
    layout: str | None = None
    dataset: str | None = None
    params: str | None = None
    columns: str | None = None
    assignment: str | None = None
    periodic: bool | None = None
    smoothed: float | None = None
    slices_per_realisation: int | None = None
    cosmology: Cosmology = field(default_factory=Cosmology)

    def length(self, name: str, default: float | None, cosmology: Cosmology) -> float:
        """Return ``box_size`` or ``thickness`` in Mpc/h.

        Parameters
        ----------
        name
            Which of the two.
        default
            What the file says, Mpc/h; None where it does not.
        cosmology
            For lengths without ``/h``.

        Raises
        ------
        UserError
            If it is not a length, or neither the user nor the file says it.
        """
        text = getattr(self, name)
        if text is not None:
            return parse_length(text, cosmology.h if self.cosmology.h is None else self.cosmology.h)
        if default is None:
            option = f"--{name.replace('_', '-')}"
            raise UserError(
                f"the file does not say its {name.replace('_', ' ')}; give it, such as {option} '350 Mpc/h'"
            )
        return default

    def require_redshift(self) -> float:
        """Return the redshift that the user says.

        Raises
        ------
        UserError
            If none was given.
        """
        if self.redshift is None:
            raise UserError("the file does not say its redshift; give it, such as --redshift 0")
        return self.redshift


@dataclass(frozen=True, kw_only=True)
class Realisation:
    """One simulation in a file.

    Parameters
    ----------
    values
        Its cube or its slices.
    label
        Its number; None where the file does not say.
    conditions
        Its parameters, by name.
    expected_means
        Means that its values have by theory, one for each unit they may be in; empty where nothing is known.
    """

    values: Field
    label: int | None = None
    conditions: Mapping[str, float] = field(default_factory=dict)
    expected_means: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file, opened and understood.

    Parameters
    ----------
    path, format_name
        Which file, in which format.
    holds
        Field and code, where files of one format differ in them; files of others cannot share a slice file.
    layout
        ``"cubes"`` or ``"slices"``.
    box_size
        Side of a cube or slice, Mpc/h.
    thickness
        Depth of a slice, Mpc/h; None for cubes.
    redshift
        Of the simulations.
    quantity
        One of `QUANTITIES`, or None where the values have to tell.
    quantities
        Those that files of the format hold, where the values have to tell.
    asked
        Whether the quantity is the user's word, which needs no proof.
    scale, mean
        As in `Request`.
    cosmology
        Parameters that all simulations share.
    assignment, periodic, smoothed
        What the file already is, as in the slice file.
    realisations
        The simulations.
    notes
        What was assumed, for people.
    """

    path: Path
    format_name: str
    holds: str = ""
    layout: str
    box_size: float
    thickness: float | None = None
    redshift: float
    quantity: str | None = None
    quantities: tuple[str, ...] = QUANTITIES
    asked: bool = False
    scale: float | None = None
    mean: float | None = None
    cosmology: Cosmology = field(default_factory=Cosmology)
    assignment: str = "other"
    periodic: bool = True
    smoothed: float = 0.0
    realisations: tuple[Realisation, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("box_size", "thickness", "mean", "scale"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UserError(f"{self.path}: {name} is {value:g}; expected a positive number")


class AbstractFormat(ABC):
    """A published format."""

    # The word for `--format`.
    name: ClassVar[str]
    # Fields of `Request` that mean something for this format and not for every format.
    options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def recognises(self, path: Path, contents: Contents) -> bool:
        """Return whether the file is in this format, by its name and contents."""

    @abstractmethod
    def open(self, path: Path, contents: Contents, request: Request) -> PublishedFile:
        """Read all but the fields, as published; what the request overrules is seen to by `open_published`.

        Raises
        ------
        UserError
            If the file is not what the format says, or something must be given by the user.
        """


def cube(array: AbstractArray) -> Field:
    """Return an array as a cube.

    Raises
    ------
    UserError
        If its shape is not that of a cube.
    """
    if len(array.shape) != 3 or len(set(array.shape)) != 1 or array.shape[0] < 2:
        raise UserError(f"{array.name}: has shape {array.shape}; expected a cube (n, n, n)")
    side = array.shape[0]
    return Field(array, (side, side, side), lambda a, b, c: (a, b, c))


def cubes(array: AbstractArray) -> list[Field]:
    """Return an array of shape ``(m, n, n, n)`` as m cubes."""
    side = array.shape[1]

    def numbered(number: int) -> Field:
        return Field(array, (side, side, side), lambda a, b, c: (number, a, b, c))

    return [numbered(number) for number in range(array.shape[0])]


def stack(array: AbstractArray, start: int, stop: int, *, channel: bool = False) -> Field:
    """Return planes ``start:stop`` of an array of slices.

    Parameters
    ----------
    array
        Shape ``(n, N, N)``, or ``(n, 1, N, N)``.
    start, stop
        Which planes.
    channel
        Whether there is a second axis of length 1.
    """

    def place(a: slice, b: slice, c: slice) -> Index:
        planes = slice(start + (a.start or 0), stop if a.stop is None else start + a.stop)
        return (planes, 0, b, c) if channel else (planes, b, c)

    side = array.shape[-1]
    return Field(array, (stop - start, side, side), place)
