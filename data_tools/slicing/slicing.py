"""Particles to slabs to pixels: one stream over the snapshots, memory bounded by a budget, all three axes."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cosmogan.errors import UserError
from cosmogan.machine.memory import memory_limit
from cosmogan.machine.ranks import find_rank
from cosmogan.slices import SliceMetadata, SliceWriter, require_absent
from cosmogan.units import Cosmology, format_length, parse_bytes, parse_length
from data_tools.slicing.assignment import ASSIGNMENTS, compiled_loops
from data_tools.slicing.phases import SAME_PHASES, Phases
from data_tools.slicing.slabs import SlabCounter, append_slabs, grid_dtype, number_kept, plan_passes
from data_tools.slicing.slice_job import SliceJob, name_run
from data_tools.slicing.workers import Team
from data_tools.snapshots import AbstractSnapshot, Coverage, SnapshotHeader, open_snapshot
from data_tools.snapshots.base import MASS_ROUNDING, MATTER, name_types

__all__ = ["SlabCounter", "append_slabs", "resolve_slabs", "slice_metadata", "slice_snapshots"]

# A thickness given by hand may differ from box / slabs by its rounding.
_THICKNESS_ROUNDING = 1e-4
# Program, particles in hand and finished slices of one process, measured: benchmarks/speed/slicing.py.
_BYTES_PROCESS = 0.35e9
# For the slabs of one process, and the share of all memory that processes take at most.
_DEFAULT_MEMORY = 1.65e9
_DEFAULT_SHARE = 0.8


def slice_snapshots(
    snapshots: list[str],
    *,
    out: str,
    pixels: int,
    slabs: int | None = None,
    thickness: str | None = None,
    every: int = 1,
    axes: str = "xyz",
    assignment: str = "NGP",
    weights: str = "auto",
    smoothing: float = 0.0,
    quantity: str = "density",
    realisation: list[int] | None = None,
    particle_type: int = 1,
    types: str | None = None,
    redshift: float | None = None,
    box_size: str | None = None,
    length_unit: str | None = None,
    allow_partial: bool = False,
    allow_same_phases: bool = False,
    processes: int = 1,
    memory: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Cut N-body snapshots into slices.

    The box is cut into slabs along each axis, and the particles of each slab are assigned to pixels; densities are
    normalised by the mean of the whole box. Snapshots are streamed: memory does not depend on their size. Under
    torchrun, srun or mpirun the ranks share the files out among themselves. The result has the same bits for any number
    of processes and ranks.

    Parameters
    ----------
    snapshots
        Snapshot files, one per realisation: GADGET HDF5 or binary, SWIFT, or plain positions (of several files, any one
        or their common name).
    out
        Slice file to write.
    pixels
        Pixels along the side of a slice.
    slabs
        Number of equal slabs that cover the box along each axis; as many as pixels if neither this nor `thickness` is
        given.
    thickness
        Depth of a slab instead of their number, with its unit, such as "1.953125 Mpc"; must divide the box.
    every
        Keep one of so many slabs, so that those kept do not touch: `slabs` 1000 with 2 gives the 500 slices along each
        axis of Rodriguez et al. 2018.
    axes
        Axes to cut along: any of x, y and z.
    assignment
        How a particle is shared among pixels: "NGP" (the nearest), "CIC" (the four nearest, linearly) or "TSC" (the
        nine nearest).
    weights
        "auto" (by mass where masses differ), "mass", or "number": all particles alike, whatever their masses.
    smoothing
        Sigma in pixels of a Gaussian applied to each slice, periodic, cut at 4 sigma; 0 for none. Densities only.
    quantity
        "density" (1 + delta) or "counts" (particles per pixel; NGP only).
    realisation
        A number for each snapshot, by which slices are later split into training and test sets; by default the seed in
        its header, or 0, 1, 2, ... where there is none. Runs of the same initial conditions share one.
    particle_type
        Which particles: 0 gas, 1 dark matter, 4 stars, as the codes number them.
    types
        Several types instead: "all-matter" (types 0 to 5 as far as they have masses), or numbers such as "0,1".
    redshift
        For snapshots that do not say.
    box_size
        Side of the box with its unit, such as "500 Mpc", for snapshots that do not say.
    length_unit
        Unit of length of the snapshots, such as "kpc/h", where they do not say.
    allow_partial
        Take particles that fill only a part of the box; the file then says so.
    allow_same_phases
        Take runs of the same initial conditions for different realisations; the file then says so.
    processes
        Processes on this node that share the files; one for each core is best.
    memory
        For all of them together on a node, with its unit; by default 2 GB for each, and at most 0.8 of what the batch
        job or machine has. Where it does not hold all slabs, the snapshots are read several times.
    overwrite
        Replace an existing file.

    Returns
    -------
        The slice file.

    Raises
    ------
    UserError
        If a snapshot cannot be read or is not a whole box, snapshots differ in box, redshift or cosmology or are runs
        of the same initial conditions, the slabs do not divide the box, memory does not suffice, or the file cannot be
        written.
    """
    # What is there, and what is asked for.
    rank, ranks = find_rank(os.environ)
    if not snapshots:
        raise UserError("snapshots: expected at least one file")
    if processes < 1:
        raise UserError(f"processes must be at least 1, got {processes}")
    if rank == 0:
        require_absent(Path(out), overwrite=overwrite)
    opening: dict[str, Any] = {
        "length_unit": length_unit,
        "box_size": box_size,
        "redshift": redshift,
        "particle_type": particle_type,
        "types": types,
    }
    if types is not None and particle_type != 1:
        raise UserError(f"--types {types} and --particle-type {particle_type}: give one of them")
    sources = [open_snapshot(path, **opening) for path in snapshots]
    _require_distinct(snapshots, sources)
    header = sources[0].header
    for source in sources[1:]:
        _require_alike(sources[0], source)
    labels = _labels(sources, realisation)
    n_slabs = resolve_slabs(header.box_size, pixels=pixels, slabs=slabs, thickness=thickness, h=header.cosmology.h)
    axis_numbers = _parse_axes(axes)
    if assignment not in ASSIGNMENTS:
        raise UserError(f"assignment {assignment!r}: expected one of {', '.join(ASSIGNMENTS)}")
    if not 1 <= every <= n_slabs:
        raise UserError(f"every must lie between 1 and the number of slabs ({n_slabs}), got {every}")
    if weights not in ("auto", "number", "mass"):
        raise UserError(f"weights {weights!r}: expected 'auto', 'number' or 'mass'")
    weighted, why = _choose_weights(sources, weights)
    metadata = slice_metadata(
        header,
        pixels=pixels,
        slabs=n_slabs,
        smoothing=smoothing,
        quantity=quantity,
        assignment=assignment,
        weighted=weighted,
    )

    # Who does what.
    n_units = sum(len(source.files) for source in sources)
    n_kept = number_kept(n_slabs, every)
    # More processes than files share the slabs out; beyond those they would be idle.
    processes = processes if ranks > 1 else min(processes, n_units * len(axis_numbers) * n_kept)
    n_particles = max(source.header.n_particles for source in sources)
    slab_bytes = pixels**2 * grid_dtype(assignment, n_particles, weighted=weighted).itemsize
    passes = plan_passes(
        axis_numbers,
        n_kept,
        slab_bytes=slab_bytes,
        memory=_grid_bytes(memory, slab_bytes, holders=1 if ranks * processes == 1 else processes + 1),
        at_least=math.ceil(ranks * processes / n_units),
    )
    job = SliceJob(
        out=Path(out),
        snapshots=tuple(snapshots),
        opening=opening,
        slabs={
            "box_size": header.box_size,
            "pixels": pixels,
            "slabs": n_slabs,
            "every": every,
            "assignment": assignment,
            "n_particles": n_particles,
        },
        weighted=weighted,
        passes=tuple(passes),
        ranks=ranks,
        processes=processes,
        run=name_run(os.environ, ranks),
        allow_partial=allow_partial,
    )

    # The work.
    if rank > 0:
        with Team(job, rank) as team:
            team.finish()
        return Path(out)
    matter = _matter(sources[0])
    _announce(job, header)
    print(f"particles count by {'mass' if weighted else 'number'} ({why})\n{matter}", file=sys.stderr)
    if any(kind in MATTER and kind not in sources[0].types for kind in sources[0].n_per_type):
        print("matter of the types not used is left out; --types all-matter takes it in", file=sys.stderr)
    provenance = {
        "command": "cosmogan slice",
        "cosmogan": version("cosmogan"),
        "snapshots": ",".join(Path(path).name for path in snapshots),
        "seeds": ",".join(map(str, labels)),
        "weights": "mass" if weighted else "number",
        "weights_because": why,
        "particle_type": ",".join(map(str, sources[0].types)) or "unknown",
        "matter": matter,
    }
    n_slices = len(axis_numbers) * n_kept * len(sources)
    with (
        SliceWriter(out, metadata, n_slices=n_slices, provenance=provenance, overwrite=overwrite) as writer,
        Team(job, rank) as team,
        tqdm(total=len(passes) * header.n_particles * len(sources), unit=" particles", unit_scale=True) as bar,
    ):
        phases, doubts = Phases(), list[str]()
        for number, (source, label) in enumerate(zip(sources, labels, strict=True)):
            for turn in range(len(passes)):
                seen = source.coverage(number)
                # Not named, so that no two are in memory at once.
                append_slabs(
                    writer,
                    team.collect(source, number, turn, on_particles=bar.update, coverage=seen),
                    realisation=label,
                )
            if seen.n_outside:
                bar.write(f"{source.path}: {_wrapped_words(seen)}", file=sys.stderr)
            doubts += _partial_doubts(snapshots[number], seen)
            doubts += _phase_doubts(phases, snapshots, labels, number, seen, allowed=allow_same_phases)
        for doubt in doubts:
            bar.write(doubt, file=sys.stderr)
        if doubts:
            writer.record(not_trustworthy="; ".join(doubts))
    return Path(out)


def _choose_weights(sources: Sequence[AbstractSnapshot], asked: str) -> tuple[bool, str]:
    """Return whether masses count, and why."""
    if asked != "auto":
        return asked == "mass", "as asked"
    ranges = [source.mass_range() for source in sources]
    for source, found in zip(sources, ranges, strict=True):
        if found is not None and found[0] < found[1] * (1 - MASS_ROUNDING):
            return True, f"masses in {source.path.name} differ, as {found[0]:.4g} and {found[1]:.4g}"
    return False, "masses unknown" if None in ranges else "all masses are equal"


def _matter(source: AbstractSnapshot) -> str:
    """Return what share of the matter is of each type, and which are used."""
    if not source.n_per_type:
        return "types unknown"
    try:
        shares, of = source.matter(), "mass"
    except UserError:
        # Another type than those asked for may be damaged.
        shares = None
    if shares is None:
        whole = sum(source.n_per_type.values())
        shares, of = {kind: n / whole for kind, n in source.n_per_type.items()}, "particles"
    words = [
        f"{100 * share:.3g}% {name_types([kind])}{'' if kind in source.types else ', not used'}"
        for kind, share in shares.items()
    ]
    return f"of the {of} {'; '.join(words)}"


def _wrapped_words(seen: Coverage) -> str:
    share = 100 * seen.n_outside / seen.n_particles
    reach = f"from {seen.low.min():.6g} to {seen.high.max():.6g}"
    return f"{share:.2g}% of the particles lie outside [0, {seen.box_size:g}] ({reach} Mpc/h) and are wrapped into it"


def _partial_doubts(name: str, seen: Coverage) -> list[str]:
    empty = seen.empty_share()
    return [f"{100 * empty:.3g}% of the volume of {Path(name).name} is empty (--allow-partial)"] if empty else []


def _phase_doubts(
    phases: Phases, snapshots: Sequence[str], labels: Sequence[int], number: int, seen: Coverage, *, allowed: bool
) -> list[str]:
    """Return what to say of a snapshot that has the initial conditions of an earlier one and another number."""
    same = {other: r for other, r in phases.add(seen).items() if labels[other] != labels[number]}
    if same and not allowed:
        other, correlation = next(iter(same.items()))
        raise UserError(
            f"{snapshots[other]} and {snapshots[number]} grew from the same initial conditions: their coarse densities "
            f"correlate by {correlation:.2f}, those of independent runs by less than {SAME_PHASES:g}. They are one "
            "realisation; leave one out, give both one number with --realisation, or add --allow-same-phases"
        )
    name = Path(snapshots[number]).name
    return [f"{Path(snapshots[other]).name} and {name} have the same initial conditions" for other in same]


def _announce(job: SliceJob, header: SnapshotHeader) -> None:
    print(
        f"box {format_length(header.box_size, header.cosmology.h)}, {header.n_particles} particles; "
        f"unit of length {header.length_unit:g} Mpc/h, {header.unit_source}",
        file=sys.stderr,
    )
    if len(job.passes) > 1:
        print(f"snapshots are read {len(job.passes)} times", file=sys.stderr)
    if job.ranks > 1:
        print(f"{job.ranks} ranks of {job.processes} processes share the files", file=sys.stderr)
    if compiled_loops() is None:
        print(
            "numba is not installed; with it (pip install 'cosmogan[fast]') this runs about twice as fast",
            file=sys.stderr,
        )


def _parse_axes(axes: str) -> list[int]:
    numbers = sorted({"xyz".find(letter) for letter in axes})
    if not numbers or numbers[0] < 0 or len(numbers) < len(axes):
        raise UserError(f"axes {axes!r}: expected some of the letters x, y and z, such as 'xyz' or 'z'")
    return numbers


def _grid_bytes(memory: str | None, slab_bytes: int, *, holders: int, root: Path = Path("/")) -> float:
    """Return the memory for the slabs that each of the holders has: the processes, and one that adds up."""
    if memory is None:
        # Of what the job may take at all, not of what is free now: the same command again takes the same passes.
        share = _DEFAULT_SHARE * memory_limit(root) / holders - _BYTES_PROCESS
        return max(min(_DEFAULT_MEMORY, share), slab_bytes)
    budget = parse_bytes(memory)
    grid_bytes = budget / holders - _BYTES_PROCESS
    if grid_bytes < slab_bytes:
        least = holders * (slab_bytes + _BYTES_PROCESS) / 1e9
        raise UserError(
            f"memory {memory!r}: too little for one slab and the programs themselves ({_BYTES_PROCESS / 1e9:.1f} GB "
            f"each); expected at least '{least + 0.05:.1f} GB'"
        )
    return grid_bytes


def resolve_slabs(box_size: float, *, pixels: int, slabs: int | None, thickness: str | None, h: float | None) -> int:
    """Return the number of slabs along an axis.

    Parameters
    ----------
    box_size
        Mpc/h.
    pixels
        The number of slabs if neither of the next two is given.
    slabs, thickness
        As in `slice_snapshots`.
    h
        For a thickness without ``/h``.

    Raises
    ------
    UserError
        If both are given, a number is not positive, or the thickness does not divide the box.
    """
    for name, value in (("pixels", pixels), ("slabs", slabs)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if thickness is None:
        return pixels if slabs is None else slabs
    if slabs is not None:
        raise UserError("slabs and thickness say the same thing; give one of them")
    depth = parse_length(thickness, h)
    number = max(1, round(box_size / depth))
    if not math.isclose(number * depth, box_size, rel_tol=_THICKNESS_ROUNDING):
        nearest = " or ".join(
            f"{format_length(box_size / n, h)} (slabs {n})"
            for n in sorted({max(1, math.floor(box_size / depth)), math.ceil(box_size / depth)})
        )
        raise UserError(
            f"thickness {thickness!r}: does not divide the box of {format_length(box_size, h)}; nearest are {nearest}"
        )
    return number


def slice_metadata(
    header: SnapshotHeader,
    *,
    pixels: int,
    slabs: int,
    smoothing: float,
    quantity: str,
    assignment: str = "NGP",
    weighted: bool = False,
) -> SliceMetadata:
    """Return what the pixels of a snapshot's slices are.

    Raises
    ------
    UserError
        If a value is outside its range, or counts are to be smoothed.
    """
    if quantity == "counts" and smoothing:
        raise UserError(
            f"smoothing {smoothing:g} of counts: smoothed counts are not whole numbers; use quantity density, "
            "or smoothing 0"
        )
    if quantity == "counts" and (assignment != "NGP" or weighted):
        why = "masses" if weighted else f"assignment {assignment}"
        raise UserError(
            f"counts with {why} are not whole numbers; use quantity density"
            + ("" if weighted else ", or assignment NGP")
        )
    return SliceMetadata(
        box_size=header.box_size,
        n_pixels=pixels,
        thickness=header.box_size / slabs,
        redshift=header.redshift,
        quantity=quantity,
        mean_count=header.n_particles / (slabs * pixels**2) if quantity == "counts" else None,
        smoothing=smoothing,
        assignment=assignment,
        periodic=True,
        cosmology=header.cosmology,
    )


def _require_distinct(snapshots: Sequence[str], sources: Sequence[AbstractSnapshot]) -> None:
    """Refuse a simulation that is named twice, as by a pattern that matches all files of one snapshot."""
    seen: dict[Path, str] = {}
    for name, source in zip(snapshots, sources, strict=True):
        for file in source.files:
            other = seen.setdefault(file.resolve(), name)
            if other != name:
                raise UserError(
                    f"{other} and {name} belong to one snapshot, which would count as two simulations; "
                    "name one file of each snapshot"
                )
        if list(snapshots).count(name) > 1:
            raise UserError(f"{name}: is named twice and would count as two simulations; name each snapshot once")


def _require_alike(first: AbstractSnapshot, other: AbstractSnapshot) -> None:
    clauses = [
        f"{name} {mine:.7g} against {theirs:.7g}"
        for name, mine, theirs in _comparable(first.header, other.header)
        if not math.isclose(mine, theirs, rel_tol=1e-5, abs_tol=1e-5)
    ]
    if clauses:
        raise UserError(
            f"{first.path} and {other.path} cannot share a slice file: they differ in {', '.join(clauses)}. "
            "Slice them into separate files"
        )


def _comparable(mine: SnapshotHeader, theirs: SnapshotHeader) -> Iterator[tuple[str, float, float]]:
    yield "box size (Mpc/h)", mine.box_size, theirs.box_size
    yield "redshift", mine.redshift, theirs.redshift
    yield "number of particles", mine.n_particles, theirs.n_particles
    for name in Cosmology.names():
        pair: tuple[Any, Any] = getattr(mine.cosmology, name), getattr(theirs.cosmology, name)
        # A file that does not say is taken to agree.
        if None not in pair:
            yield name, *pair


def _labels(sources: list[AbstractSnapshot], realisation: list[int] | None) -> list[int]:
    if realisation is None:
        seeds = [source.header.seed for source in sources]
        labels = [seed for seed in seeds if seed is not None]
        if len(labels) < len(sources):
            labels = list(range(len(sources)))
    else:
        labels = realisation
    if len(labels) != len(sources):
        raise UserError(f"realisation: {len(labels)} numbers for {len(sources)} snapshots; expected one for each")
    # Equal numbers by hand are meant.
    for i, label in enumerate(labels if realisation is None else []):
        if label in labels[:i]:
            raise UserError(
                f"{sources[labels.index(label)].path} and {sources[i].path} are both realisation {label} by the seeds "
                "in their headers; leave one out, or number them with --realisation: runs of the same initial "
                "conditions alike, others each by its own"
            )
    return labels
