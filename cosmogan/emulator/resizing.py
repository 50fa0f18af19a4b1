"""Slices larger than those of the training: which sizes there are, what they are, and what of them not to trust."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from cosmogan.checks import require_positive
from cosmogan.errors import UserError
from cosmogan.machine.memory import available_memory
from cosmogan.slices import SliceMetadata
from cosmogan.text import decimal_bytes
from cosmogan.units import format_length

# Rounding of a length that went through a unit and back.
_ROUNDING = 1e-6


def resized_metadata(
    trained: SliceMetadata, multiple: int | None, *, n_pixels: int | None = None, box_size: float | None = None
) -> SliceMetadata:
    """Return the metadata of larger slices with pixels of the same size.

    Parameters
    ----------
    trained
        Metadata of the training slices.
    multiple
        Sides in pixels must be multiples of this; None where the network makes one size only.
    n_pixels
        Wanted pixels along a side; this or ``box_size``, or neither for the trained size.
    box_size
        Wanted comoving side, Mpc/h.

    Raises
    ------
    UserError
        If there are no such slices; the message names the nearest that there are.
    """
    if n_pixels is not None and box_size is not None:
        raise UserError("n_pixels and box_size: expected one of them, as the pixels keep their size")
    side: float = trained.n_pixels
    if n_pixels is not None:
        name, side = f"n_pixels {n_pixels}", n_pixels
    elif box_size is not None:
        require_positive("a length in Mpc/h", box_size=box_size)
        side = box_size / trained.pixel_size
        if abs(side - round(side)) < _ROUNDING * side:
            side = round(side)
        name = f"box_size {format_length(box_size, trained.cosmology.h)}, {side:.6g} pixels"
    if side == trained.n_pixels:
        return trained
    own = f"{trained.n_pixels} pixels, {format_length(trained.box_size, trained.cosmology.h)}"
    if multiple is None:
        raise UserError(
            f"{name}: this network makes slices of one size only, {own}; `SpectralPriorGenerator` and "
            "`PeriodicGenerator` are free"
        )
    if side < trained.n_pixels:
        raise UserError(f"{name}: is smaller than the slices of the training, {own}; make those and use a part of them")
    if not trained.periodic:
        raise UserError(f"{name}: the training slices were not periodic, so that larger ones mean nothing")
    if side % multiple:
        below = int(side // multiple) * multiple
        nearest = " and ".join(
            f"{near} pixels, {format_length(near * trained.pixel_size, trained.cosmology.h)},"
            for near in (below, below + multiple)
        )
        raise UserError(f"{name}: expected a multiple of {multiple} pixels; {nearest} are the nearest")
    return replace(trained, n_pixels=int(side), box_size=int(side) * trained.pixel_size)


def require_memory(n_pixels: int, bytes_per_pixel: int, *, root: Path = Path("/")) -> None:
    """Refuse slices for which the system or the batch job would end the process: Linux promises memory it has not got.

    Parameters
    ----------
    n_pixels
        Pixels along a side.
    bytes_per_pixel
        Memory that the network needs.
    root
        Folder as in `available_memory`.

    Raises
    ------
    UserError
        If one slice needs more than this process may take.
    """
    needed, there = n_pixels**2 * bytes_per_pixel, available_memory(root)
    if needed > there:
        largest = math.isqrt(there // bytes_per_pixel)
        raise UserError(
            f"n_pixels {n_pixels}: computing a slice needs {decimal_bytes(needed)} of memory and this process "
            f"may take {decimal_bytes(there)}, enough for {largest} pixels along a side"
        )


def untrusted(metadata: SliceMetadata, trained: SliceMetadata) -> str:
    """Return in one sentence what of larger slices is not to be trusted; empty where they are not larger."""
    if metadata.box_size <= trained.box_size:
        return ""
    length = format_length(trained.box_size, trained.cosmology.h)
    return (
        f"modes longer than the trained box of {length}, k < {trained.fundamental:.4g} h/Mpc, are extrapolated: "
        "no simulation that the network was fitted to had them"
    )
