"""Published cubes, maps and arrays to slices: the command ``cosmogan convert``."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cosmogan.errors import UserError
from cosmogan.slices import ASSIGNMENTS, SliceWriter, require_absent
from cosmogan.units import Cosmology, format_length, parse_bytes
from data_tools.published.base import QUANTITIES, PublishedFile, Realisation, Request
from data_tools.published.detect import open_published
from data_tools.published.plan import Plan, conversion_like_first, make_plan
from data_tools.published.slabs import Conversion, slabs_of_cube, slices_of_stack

_SELECT = re.compile(r"(\d*):(\d*)")
_MUST_AGREE = (
    "format_name",
    "holds",
    "layout",
    "box_size",
    "thickness",
    "redshift",
    "assignment",
    "periodic",
    "smoothed",
    "scale",
)
_LARGEST_COUNT = np.iinfo(np.uint16).max
_LARGEST_LABEL = np.iinfo(np.int32).max


def convert(
    inputs: list[str],
    *,
    out: str,
    format: str | None = None,
    slabs: int | None = None,
    smoothing: float = 0.0,
    store: str | None = None,
    select: str | None = None,
    realisation: list[int] | None = None,
    quantity: str | None = None,
    scale: float | None = None,
    mean: float | None = None,
    box_size: str | None = None,
    thickness: str | None = None,
    redshift: float | None = None,
    cosmology: str | None = None,
    params: str | None = None,
    columns: str | None = None,
    dataset: str | None = None,
    layout: str | None = None,
    slices_per_realisation: int | None = None,
    assignment: str | None = None,
    periodic: bool | None = None,
    smoothed: float | None = None,
    memory: str = "1 GB",
    overwrite: bool = False,
) -> Path:
    """Turn published cubes, maps and arrays into slices.

    Formats are recognised by name and contents; what was assumed is said on the way. docs/convert.md has the list.

    Parameters
    ----------
    inputs
        Files of one format: .npy, .npz or HDF5.
    out
        Slice file to write.
    format
        "3dcosmo", "camels", "cosmoflow", "quijote", "feder", "cosmogan-pytorch", "cosmogan" or "plain"; by default as
        recognised.
    slabs
        Slabs along each axis of a cube; as many as voxels by default. Must divide them.
    smoothing
        Sigma in pixels of a Gaussian applied to each slice, periodic, cut at 4 sigma; 0 for none.
    store
        "counts" or "density"; by default counts stay counts unless they are smoothed.
    select
        Which realisations of a file with several, such as "0:10".
    realisation
        A number for each realisation, by which slices are later split into training and test sets; by default from the
        files, or 0, 1, 2, ... where they do not say.
    quantity
        What the values are: "counts", "density" (1 + delta), "delta", "mass" (a density in any unit) or "scaled"
        (2x / (x + a) - 1); by default as the format has it, or detected where that leaves no doubt.
    scale
        The a of scaled values.
    mean
        Mean of the values over the whole box, for slices or crops that do not cover it; of scaled values, of what they
        were before.
    box_size
        Side of the box, or of the slices, with its unit, such as "500 Mpc".
    thickness
        Depth of the slices of a stack, with its unit; for cubes, depth of the slabs instead of their number.
    redshift
        Which of several redshifts, or the redshift of files that do not say.
    cosmology
        Parameters that files do not say, such as "omega_m=0.3 h=0.7".
    params
        Table of parameters per simulation; "none" to go without where a format has one.
    columns
        Names of the columns of that table in order, such as "Omega_m,sigma8", where neither its first line nor the
        format says them.
    dataset
        Name of the array in a plain HDF5 file or archive.
    layout
        "cubes" or "slices" for plain arrays whose shape does not tell.
    slices_per_realisation
        How many consecutive slices of a plain stack come from one simulation each; all by default.
    assignment
        How particles were spread over pixels: "NGP", "CIC", "TSC", "PCS" or "other".
    periodic
        Whether slices span a whole periodic box.
    smoothed
        Sigma in pixels of a Gaussian that the file has already.
    memory
        For the pieces being worked on, such as "4 GB"; a cube that fits is read fewest times.
    overwrite
        Replace an existing file.

    Returns
    -------
        The slice file.

    Raises
    ------
    UserError
        If a file cannot be read, something about it is in doubt, files do not belong together, or the slices cannot be
        written.
    """
    if not inputs:
        raise UserError("inputs: expected at least one file")
    _require_one_of("quantity", quantity, QUANTITIES)
    _require_one_of("store", store, ("counts", "density"))
    _require_one_of("layout", layout, ("cubes", "slices"))
    _require_one_of("assignment", assignment, ASSIGNMENTS)
    for name, value in (("scale", scale), ("mean", mean)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"{name} must be a positive number, got {value}")
    for name, value in (("smoothing", smoothing), ("smoothed", smoothed)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UserError(f"{name} must be a sigma >= 0 in pixels, got {value}")
    require_absent(Path(out), overwrite=overwrite)
    request = Request(
        box_size=box_size,
        thickness=thickness,
        redshift=redshift,
        quantity=quantity,
        scale=scale,
        mean=mean,
        layout=layout,
        dataset=dataset,
        params=params,
        columns=columns,
        assignment=assignment,
        periodic=periodic,
        smoothed=smoothed,
        slices_per_realisation=slices_per_realisation,
        cosmology=_parse_cosmology(cosmology),
    )
    files = [open_published(Path(path), format, request) for path in inputs]
    for other in files[1:]:
        _require_alike(files[0], other)
    sources = [(file, one) for file in files for one in _selected(file, select)]
    plan = make_plan(sources, request, slabs=slabs, smoothing=smoothing, store=store, memory=parse_bytes(memory))
    labels = _labels([one for _, one in sources], realisation)
    notes = tuple(dict.fromkeys((*plan.notes, *(note for file in files for note in file.notes))))
    for note in (_summary(files[0], plan, len(sources)), *notes):
        print(note, file=sys.stderr)
    provenance = {
        "command": "cosmogan convert",
        "cosmogan": version("cosmogan"),
        "format": files[0].format_name,
        "inputs": ",".join(Path(path).name for path in inputs),
        "notes": "; ".join(notes),
    }
    conditions = dict.fromkeys(sources[0][1].conditions, "")
    with SliceWriter(
        out, plan.metadata, n_slices=plan.n_slices, provenance=provenance, conditions=conditions, overwrite=overwrite
    ) as writer:
        for number, ((file, one), label) in enumerate(
            zip(tqdm(sources, desc="convert", unit="realisation"), labels, strict=True)
        ):
            conversion = plan.first if number == 0 else conversion_like_first(file, one, plan)
            _append(writer, file, one, conversion, label)
    return Path(out)


def _append(writer: SliceWriter, file: PublishedFile, one: Realisation, conversion: Conversion, label: int) -> None:
    name = one.values.array.name
    if file.layout == "slices":
        for slices in slices_of_stack(one.values, conversion):
            _require_countable(slices, conversion, name)
            writer.append(slices, realisation=label, conditions=one.conditions)
        return
    thickness = writer.metadata.thickness
    for axis, first, slices in slabs_of_cube(one.values, conversion):
        _require_countable(slices, conversion, name)
        positions = (first + np.arange(len(slices))) * thickness
        writer.append(slices, realisation=label, axis=axis, position=positions, conditions=one.conditions)


def _require_countable(slices: np.ndarray, conversion: Conversion, name: str) -> None:
    if conversion.counts and slices.max() > _LARGEST_COUNT:
        raise UserError(
            f"{name}: a pixel holds {slices.max()} particles and counts are stored up to {_LARGEST_COUNT}; "
            "write --store density"
        )


def _selected(file: PublishedFile, select: str | None) -> tuple[Realisation, ...]:
    if select is None:
        return file.realisations
    match = _SELECT.fullmatch(select)
    if match is None:
        raise UserError(f"select {select!r}: expected a range such as 0:10")
    number = len(file.realisations)
    start, stop = int(match[1] or 0), int(match[2] or number)
    if not start < stop <= number:
        raise UserError(f"select {select!r}: {file.path} holds realisations 0:{number}")
    return file.realisations[start:stop]


def _labels(realisations: Sequence[Realisation], asked: list[int] | None) -> list[int]:
    found = [one.label for one in realisations if one.label is not None]
    # Some with and some without a number: no number can be told from a made-up one.
    labels = (
        asked if asked is not None else found if len(found) == len(realisations) else list(range(len(realisations)))
    )
    if len(labels) != len(realisations):
        raise UserError(
            f"realisation: {len(labels)} numbers for {len(realisations)} realisations; expected one for each"
        )
    first: dict[int, Realisation] = {}
    for label, one in zip(labels, realisations, strict=True):
        if not 0 <= label <= _LARGEST_LABEL:
            raise UserError(f"{one.values.array.name}: realisation {label} is not within 0 and {_LARGEST_LABEL}")
        if label in first:
            raise UserError(
                f"{first[label].values.array.name} and {one.values.array.name} are both realisation {label}; slices "
                "are split by this number, so give each simulation its own with --realisation"
            )
        first[label] = one
    return labels


def _parse_cosmology(text: str | None) -> Cosmology:
    values: dict[str, float] = {}
    for word in (text or "").replace(",", " ").split():
        name, _, number = word.partition("=")
        if name not in Cosmology.names():
            raise UserError(
                f"cosmology {text!r}: expected words such as omega_m=0.3; the names are {', '.join(Cosmology.names())}"
            )
        try:
            values[name] = float(number)
        except ValueError:
            raise UserError(f"cosmology {text!r}: {number!r} is not a number") from None
    return Cosmology(**values)


def _require_alike(first: PublishedFile, other: PublishedFile) -> None:
    for name in _MUST_AGREE:
        mine, theirs = getattr(first, name), getattr(other, name)
        if mine != theirs:
            raise UserError(
                f"{first.path} and {other.path} cannot share a slice file: {name} {mine} against {theirs}. Convert "
                "them into separate files"
            )
    if first.cosmology != other.cosmology:
        raise UserError(
            f"{first.path} and {other.path} cannot share a slice file: their cosmologies differ. Convert them into "
            "separate files"
        )


def _require_one_of(name: str, value: str | None, words: Sequence[str]) -> None:
    if value is not None and value not in words:
        raise UserError(f"{name} {value!r}: expected one of {', '.join(words)}")


def _summary(file: PublishedFile, plan: Plan, n_realisations: int) -> str:
    meta = plan.metadata
    return (
        f"{file.format_name}: {n_realisations} realisation{'s' if n_realisations > 1 else ''}, {plan.n_slices} slices "
        f"of {meta.n_pixels} x {meta.n_pixels} pixels, {format_length(meta.box_size, meta.cosmology.h)} wide, "
        f"{format_length(meta.thickness, meta.cosmology.h)} thick, at redshift {meta.redshift:g}"
    )
