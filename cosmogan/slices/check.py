"""Looking at slice files: what is wrong with one, and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cosmogan.errors import UserError
from cosmogan.slices.layout import AXIS_NOT_APPLICABLE, FORMAT_VERSION, value_problem
from cosmogan.slices.reader import SliceReader
from cosmogan.units import format_length

# Bytes of pixels read at a time.
_BLOCK_BYTES = 2**26
# Characters of one entry of the provenance that a summary shows.
_LONGEST_SHOWN = 80


def check_slices(path: str | Path, *, pixels: bool = True) -> list[str]:
    """Look for everything that can be wrong with a slice file, reading all of it once.

    Parameters
    ----------
    path
        A slice file.
    pixels
        Whether to look at the slices too, and not only at what stands beside them.

    Returns
    -------
        One sentence per problem; empty for a good file.
    """
    path = Path(path)
    try:
        reader = SliceReader(path)
    except UserError as error:
        return [str(error)]
    problems = []
    with reader:
        if reader.n_slices == 0:
            problems.append(f"{path}: /slices is empty; expected at least one slice")
        known_axis = np.isin(reader.axis, (0, 1, 2, AXIS_NOT_APPLICABLE))
        if not known_axis.all():
            problems.append(f"{path}: /axis holds {reader.axis[~known_axis][0]}; expected 0, 1, 2 or 255")
        outside = (reader.position < 0) | (reader.position >= reader.metadata.box_size)
        if reader.metadata.periodic and outside.any():
            problems.append(
                f"{path}: /position holds {reader.position[outside][0]:g}; "
                f"expected values in [0, {reader.metadata.box_size:g}) Mpc/h or NaN"
            )
        for name, values in reader.conditions.items():
            if not np.isfinite(values).all():
                first = int(np.argmax(~np.isfinite(values)))
                problems.append(f"{path}: /conditions/{name} holds {values[first]} at slice {first}; expected a number")
        if not pixels:
            return problems
        try:
            size = max(1, _BLOCK_BYTES // (reader.metadata.n_pixels**2 * reader.dtype.itemsize))
            for start in range(0, reader.n_slices, size):
                block = reader.stored(start, min(start + size, reader.n_slices))
                problem = pixel_problem(reader, start, block)
                if problem is not None:
                    problems.append(problem)
                    break
        except UserError as error:
            problems.append(str(error))
    return problems


def pixel_problem(reader: SliceReader, start: int, stored: np.ndarray, *, verify: bool = True) -> str | None:
    """Return a sentence on the first of some stored slices that is damaged or holds no densities; None for good ones.

    Parameters
    ----------
    reader
        Reader of their file.
    start
        Number of the first of them.
    stored
        The slices, as `SliceReader.stored` returns them.
    verify
        Whether to compare them with their checksums.
    """
    damage = reader.damage(start, stored) if verify else None
    if damage is not None:
        return damage
    problem = value_problem(stored, offset=start)
    if problem is None:
        return None
    return f"{reader.path}: /slices holds {problem}; densities are 1 + delta >= 0; was the inverse transform skipped?"


def describe_slices(path: str | Path) -> str:
    """Return a summary of a slice file for people, with lengths in Mpc/h and Mpc.

    Raises
    ------
    UserError
        As `SliceReader`.
    """
    with SliceReader(path) as reader:
        meta, h = reader.metadata, reader.metadata.cosmology.h
        counts = np.unique(reader.realisation, return_counts=True)[1]
        rows = {
            "slices": f"{reader.n_slices} of {meta.n_pixels} x {meta.n_pixels} pixels",
            "box size": format_length(meta.box_size, h),
            "thickness": format_length(meta.thickness, h),
            "k range": f"{meta.fundamental:.4g} - {meta.nyquist:.4g} h/Mpc (fundamental - Nyquist)",
            "redshift": f"{meta.redshift:g}",
            "quantity": meta.quantity + ("" if meta.mean_count is None else f", mean {meta.mean_count:g} per pixel"),
            "smoothing": f"{meta.smoothing:g} pixels",
            "assignment": meta.assignment + (", periodic" if meta.periodic else ", not periodic"),
            "realisations": _count_text(counts),
            "cosmology": ", ".join(f"{k} {v:g}" for k, v in meta.cosmology.known().items()) or "unknown",
            "conditions": ", ".join(_range_text(k, v, reader.condition_units) for k, v in reader.conditions.items())
            or "none",
            "provenance": ", ".join(f"{k}: {_short(v)}" for k, v in reader.provenance.items()) or "unknown",
        }
        if "not_trustworthy" in reader.provenance:
            rows["warning"] = str(reader.provenance["not_trustworthy"])
    return "\n".join([f"{path}: slice file, version {FORMAT_VERSION}"] + [f"  {k:13s} {v}" for k, v in rows.items()])


def _range_text(name: str, values: np.ndarray, units: Mapping[str, str]) -> str:
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return f"{name} {span}" + (f" {units[name]}" if name in units else "")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def _count_text(counts: np.ndarray) -> str:
    if not len(counts):
        return "none"
    low, high = counts.min(), counts.max()
    return f"{len(counts)} with {low if low == high else f'{low} to {high}'} slices each"
