"""What the slices of some published simulations will be, decided before the first is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cosmogan.errors import UserError
from cosmogan.slices import SliceMetadata
from cosmogan.units import Cosmology, parse_length
from data_tools.published.base import PublishedFile, Realisation, Request
from data_tools.published.quantity import Survey, decide, survey
from data_tools.published.slabs import Conversion
from data_tools.published.tables import COSMOLOGY_NAMES

# A thickness given by hand may differ from box / slabs by its rounding.
_THICKNESS_ROUNDING = 1e-4
# Means over a box, of simulations with the same number of particles, differ by rounding only.
_MEAN_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the slices of all realisations will be.

    Parameters
    ----------
    metadata
        Of the slice file.
    n_slices
        In all.
    first
        Conversion of the first realisation; that of another has its own mean.
    notes
        What was found out, for people.
    """

    metadata: SliceMetadata
    n_slices: int
    first: Conversion
    notes: tuple[str, ...]


def make_plan(
    sources: Sequence[tuple[PublishedFile, Realisation]],
    request: Request,
    *,
    slabs: int | None,
    smoothing: float,
    store: str | None,
    memory: float,
) -> Plan:
    """Decide what the slices of all realisations will be, going by the first.

    Parameters
    ----------
    sources
        Files and realisations in them, in order.
    request
        What the user says about the files.
    slabs, smoothing, store
        As in `data_tools.published.convert.convert`.
    memory
        Bytes for the pieces being worked on.

    Raises
    ------
    UserError
        If the realisations do not fit together, or what is asked for cannot be made of them.
    """
    file, one = sources[0]
    n_pixels = one.values.shape[1]
    for _, other in sources[1:]:
        if other.values.shape[1:] != one.values.shape[1:] or other.conditions.keys() != one.conditions.keys():
            raise UserError(
                f"{one.values.array.name} and {other.values.array.name} cannot share a slice file: they differ in "
                "shape or in the names of their parameters"
            )
    cosmology = _cosmology(file.cosmology, request.cosmology, [other for _, other in sources])
    cut = None if request.thickness is None else parse_length(request.thickness, cosmology.h)
    depth = _depth(file, one, slabs, cut)
    if smoothing and not file.periodic:
        raise UserError(
            f"{file.path}: smoothing is periodic and these slices are not; leave --smoothing out, or smooth whole boxes"
        )
    seen = survey(one.values)
    quantity, why = decide(file, one, seen)
    if request.scale is not None and quantity != "scaled":
        raise UserError(f"{file.path}: --scale has no meaning for {quantity}; leave it out or say --quantity scaled")
    counts = quantity == "counts" and (store == "counts" or (store is None and not smoothing and not file.smoothed))
    if store == "counts" and (not counts or smoothing):
        raise UserError(
            f"{file.path}: {'smoothed counts' if counts else quantity} cannot be stored as counts, which are whole "
            "numbers; leave --store out"
        )
    draft = Conversion(
        quantity=quantity,
        scale=file.scale,
        mean=None,
        depth=depth,
        counts=counts,
        smoothing=smoothing,
        memory=memory,
    )
    first = replace(draft, mean=_box_mean(file, one, seen, draft))
    metadata = SliceMetadata(
        box_size=file.box_size,
        n_pixels=n_pixels,
        thickness=file.box_size * depth / n_pixels if file.thickness is None else file.thickness,
        redshift=file.redshift,
        quantity="counts" if counts else "density",
        mean_count=depth * first.mean if counts and first.mean is not None else None,
        smoothing=math.hypot(smoothing, file.smoothed),
        assignment=file.assignment,
        periodic=file.periodic,
        cosmology=cosmology,
    )
    per_cube = 3 * n_pixels // depth
    n_slices = sum(per_cube if file.layout == "cubes" else other.values.shape[0] for _, other in sources)
    notes = [f"values are {quantity}, {why}"]
    if first.mean is None:
        notes.append("densities are taken as they are, normalised by the mean of the box already")
    elif not _whole_box(file):
        known = "as known or asked" if file.mean is not None else "that of all there is of a realisation"
        notes.append(f"mean of the box: {first.mean:.6g}, {known}")
    return Plan(metadata=metadata, n_slices=n_slices, first=first, notes=tuple(notes))


def conversion_like_first(file: PublishedFile, one: Realisation, plan: Plan) -> Conversion:
    """Return the conversion of a realisation other than the first.

    Raises
    ------
    UserError
        If it is not of the same kind as the first.
    """
    seen = survey(one.values)
    quantity, _ = decide(file, one, seen)
    if quantity != plan.first.quantity:
        raise UserError(
            f"{one.values.array.name}: holds {quantity} and the files before it {plan.first.quantity}; convert them "
            "apart, or say what all are with --quantity"
        )
    mean = _box_mean(file, one, seen, plan.first)
    if plan.first.counts and not math.isclose(mean or 0.0, plan.first.mean or 0.0, rel_tol=_MEAN_ROUNDING):
        raise UserError(
            f"{one.values.array.name}: has {mean} particles per voxel and the first {plan.first.mean}; counts of one "
            "file share their mean, so write --store density"
        )
    return replace(plan.first, mean=mean)


def _box_mean(file: PublishedFile, one: Realisation, seen: Survey, conversion: Conversion) -> float | None:
    """Return the mean of the box in the unit of `positive` values; None for densities of what is not a whole box."""
    quantity = conversion.quantity
    mean = seen.mean if file.mean is None else file.mean
    if quantity in ("density", "delta"):
        if file.mean is None and not _whole_box(file):
            return None
        mean += quantity == "delta"
    elif quantity == "scaled" and file.mean is None:
        mean = survey(one.values, quantity, conversion.scale).mean
    if mean <= 0:
        held = (
            "holds nothing but zeros" if seen.low == seen.high == 0 else f"has a mean of {mean:g}; expected one above 0"
        )
        raise UserError(f"{one.values.array.name}: {held}")
    return mean


def _whole_box(file: PublishedFile) -> bool:
    return file.layout == "cubes" and file.periodic


def _depth(file: PublishedFile, one: Realisation, slabs: int | None, thickness: float | None) -> int:
    """Return how many planes of a file make a slice, from the number of slabs or their thickness in Mpc/h."""
    side = one.values.shape[1]
    if file.layout == "slices":
        if slabs is not None:
            raise UserError(f"{file.path}: holds slices, which are as thick as they are; --slabs is for cubes")
        return 1
    if thickness is not None:
        if slabs is not None:
            raise UserError("slabs and thickness say the same thing; give one of them")
        slabs = max(1, round(file.box_size / thickness))
        if not math.isclose(slabs * thickness, file.box_size, rel_tol=_THICKNESS_ROUNDING):
            raise UserError(f"thickness {thickness:g} Mpc/h: does not divide the box of {file.box_size:g} Mpc/h")
    if slabs is None:
        return 1
    if slabs < 1 or side % slabs:
        raise UserError(f"slabs {slabs}: does not divide the {side} voxels along a side of {file.path}")
    return side // slabs


def _cosmology(base: Cosmology, asked: Cosmology, realisations: Sequence[Realisation]) -> Cosmology:
    """Return what all realisations share; what differs stands in the conditions."""
    shared = base.known()
    for name, ours in COSMOLOGY_NAMES.items():
        values = {one.conditions[name] for one in realisations if name in one.conditions}
        if len(values) == 1:
            shared[ours] = values.pop()
        elif values:
            shared.pop(ours, None)
    return Cosmology(**(shared | asked.known()))
