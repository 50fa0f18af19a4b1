"""The arrays that samples come in: NumPy, torch, xarray, or one that is there already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata

_KINDS = ("numpy", "torch", "xarray")


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


def convert(array: Any, returns: str, numbers: Sequence[int], seed: int, metadata: SliceMetadata) -> Any:
    """Return filled slices as they were asked for; xarray ones with coordinates in Mpc/h and the metadata."""
    if returns != "xarray":
        return array
    centres = (np.arange(metadata.n_pixels) + 0.5) * metadata.pixel_size
    place = {"units": "Mpc/h", "long_name": "comoving place of the pixel's centre"}
    # NetCDF takes neither dictionaries nor truth values nor None.
    known = {name: value for name, value in metadata.to_dict().items() if value is not None and name != "cosmology"}
    attributes = known | {"periodic": int(metadata.periodic), "box_size_units": "Mpc/h", "units": "1", "seed": seed}
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
