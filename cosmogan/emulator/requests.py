"""Which slices are asked for, and the arrays they come in: NumPy, torch, xarray, or one that is there already."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata

LARGEST_SEED = 2**64 - 1
LARGEST_INDEX = 2**63 - 1
_KINDS = ("numpy", "torch", "xarray")


@dataclass(frozen=True)
class MockBatch:
    """Some slices of an emulator and what they are.

    Parameters
    ----------
    slices
        1 + delta, float32, shape ``(n, n_pixels, n_pixels)``.
    indices
        Their numbers, shape ``(n,)``.
    seed
        Theirs; ``Emulator.sample(seed=seed, indices=indices)`` makes them again.
    metadata
        Metadata of the slices.
    """

    slices: np.ndarray
    indices: np.ndarray
    seed: int
    metadata: SliceMetadata


def numbers_of(n: int | None, first: int, indices: Iterable[int] | None) -> Sequence[int]:
    """Return the numbers of the slices that `Emulator.sample` is asked for.

    Raises
    ------
    UserError
        If there are none, too many ways of saying which, or numbers out of range.
    """
    if indices is None:
        if n is None:
            raise UserError("sample: expected n, the number of slices, or indices, their numbers")
        return consecutive(n, first)
    numbers = [_integer("indices", i) for i in indices]
    if first or n not in (None, len(numbers)):
        raise UserError(f"sample: indices ({len(numbers)} of them) stand instead of n and first; give one")
    require_between("n", len(numbers), 1, LARGEST_INDEX)
    for bound in (min(numbers), max(numbers)):
        require_between("indices", bound, 0, LARGEST_INDEX)
    return numbers


def consecutive(n: int, first: int) -> range:
    """Return ``first`` to ``first + n``, or raise `UserError` if there are no such slices."""
    require_between("n", n, 1, LARGEST_INDEX)
    # NumPy's integers would overflow.
    n = int(n)
    require_between("first", first, 0, LARGEST_INDEX - n)
    return range(int(first), int(first) + n)


def require_between(name: str, value: int, least: int, most: int) -> None:
    """Raise `UserError` if a number is not an integer or is out of range."""
    value = _integer(name, value)
    if not least <= value <= most:
        limit = f"at least {least}" if value < least else f"at most {most}"
        raise UserError(f"{name}: expected {limit}, found {value}")


def _integer(name: str, value: Any) -> int:
    """Return an integer of Python, NumPy or torch as one of Python; floats and truth values are none."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name}: expected an integer, found {value!r}") from None


def new_array(shape: tuple[int, ...], returns: str, device: torch.device) -> np.ndarray | torch.Tensor:
    """Return an empty float32 array to fill.

    Raises
    ------
    UserError
        If the kind is unknown, or xarray and not installed, or the memory is too small.
    """
    if returns not in _KINDS:
        raise UserError(f"returns: expected one of {', '.join(_KINDS)}, found {returns!r}")
    if returns == "xarray":
        _xarray()
    try:
        return torch.empty(shape, device=device) if returns == "torch" else np.empty(shape, np.float32)
    except (MemoryError, RuntimeError):
        raise UserError(
            f"sample: {shape[0]} slices of {shape[1]} x {shape[2]} pixels do not fit into the memory; "
            "ask for fewer, give a memory map as out, or use stream"
        ) from None


def require_room(out: Any, shape: tuple[int, ...]) -> None:
    """Refuse an array that slices of this shape cannot be written to.

    Raises
    ------
    UserError
        If shape or type do not fit.
    """
    if not (hasattr(out, "shape") and hasattr(out, "dtype")):
        raise UserError(f"out: expected an array, found {type(out).__name__}")
    if tuple(out.shape) != shape:
        raise UserError(f"out: expected shape {shape}, found {tuple(out.shape)}")
    floating = out.dtype.is_floating_point if isinstance(out, torch.Tensor) else np.dtype(out.dtype).kind == "f"
    if not floating:
        raise UserError(f"out: densities are floating point numbers; expected float32, found {out.dtype}")


def labelled(
    array: np.ndarray, numbers: Sequence[int], *, seed: int, metadata: SliceMetadata, provenance: dict[str, Any]
) -> Any:
    """Return slices as an xarray with coordinates in Mpc/h, metadata and provenance."""
    centres = (np.arange(metadata.n_pixels) + 0.5) * metadata.pixel_size
    place = {"units": "Mpc/h", "long_name": "comoving place of the pixel's centre"}
    # NetCDF takes neither dictionaries nor truth values nor None.
    known = {name: value for name, value in metadata.to_dict().items() if value is not None and name != "cosmology"}
    attributes = (
        provenance | known | {"periodic": int(metadata.periodic), "box_size_units": "Mpc/h", "units": "1", "seed": seed}
    )
    return _xarray().DataArray(
        array,
        dims=("index", "x", "y"),
        coords={"index": np.array(numbers), "x": ("x", centres, place), "y": ("y", centres, place)},
        name="density",
        attrs=attributes | {"long_name": "1 + delta", "cosmology": json.dumps(metadata.cosmology.known())},
    )


def _xarray() -> Any:
    try:
        import xarray
    except ImportError:
        raise UserError("returns='xarray': xarray is missing; pip install 'cosmogan[xarray]'") from None
    return xarray
