"""Find out which format a snapshot has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cosmogan.errors import UserError
from data_tools.snapshots.arrays import ArraySnapshot
from data_tools.snapshots.base import (
    MATTER,
    AbstractSnapshot,
    AbstractSnapshotFormat,
    no_masses,
    sentences,
    why_not_a_file,
)
from data_tools.snapshots.gadget_binary import GadgetBinarySnapshot
from data_tools.snapshots.gadget_hdf5 import GadgetHdf5Snapshot
from data_tools.snapshots.header import TYPE_NAMES, Options
from data_tools.snapshots.several_types import ALL_MATTER, SeveralTypes
from data_tools.snapshots.swift import SwiftSnapshot

# In the order in which they are asked.
FORMATS: tuple[type[AbstractSnapshotFormat], ...] = (
    SwiftSnapshot,
    GadgetHdf5Snapshot,
    ArraySnapshot,
    GadgetBinarySnapshot,
)


def open_snapshot(
    path: str | Path,
    *,
    length_unit: str | None = None,
    box_size: str | None = None,
    redshift: float | None = None,
    particle_type: int = 1,
    types: str | None = None,
) -> AbstractSnapshot:
    """Open a snapshot of any known format, in one or several files.

    These are GADGET binary (format 1 and 2), GADGET HDF5 and its relatives, SWIFT, and plain positions of shape
    ``(n, 3)`` in a ``.npy`` file or in a data set of an HDF5 file.

    Parameters
    ----------
    path
        The file, any one of several files, or their common name without the number (``snap_000`` for ``snap_000.0``,
        ``snap_000.1``, ...); for plain positions in HDF5 with the data set, ``file.h5:/path/to/positions``.
    length_unit
        The file's unit of length, such as ``"kpc/h"``; None to take it from the file or from the size of its box.
    box_size
        Side of the box with its unit, for files that do not say.
    redshift
        For files that do not say, or say wrongly.
    particle_type
        Which particles to read: 0 gas, 1 dark matter, 4 stars, as the codes number them.
    types
        Several types instead: numbers such as "0,1", or "all-matter" for types 0 to 5 as far as they have masses.

    Returns
    -------
        The snapshot with its header read.

    Raises
    ------
    UserError
        If the file is missing, empty, truncated, of an unknown format, or its header cannot be right.
    """
    asked = _parse_types(types) if types is not None and types != ALL_MATTER else [particle_type]
    options = Options(length_unit=length_unit, box_size=box_size, redshift=redshift, particle_type=asked[0])
    with sentences(Path(path)):
        first = _open(Path(path), options)
        if types is None:
            return first
        if not first.n_per_type:
            raise UserError(f"{path}: plain positions know no types of particles; leave --types out")
        if types == ALL_MATTER:
            if not first.has_masses(asked[0]):
                raise UserError(no_masses(first.path, f"of type {asked[0]}"))
            # Tracers and the like are particles without masses.
            asked += [
                kind for kind in first.n_per_type if kind in MATTER and kind != asked[0] and first.has_masses(kind)
            ]
            asked.sort()
        return SeveralTypes([_open(Path(path), replace(options, particle_type=kind)) for kind in asked])


def _parse_types(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) < len(TYPE_NAMES) for word in words) or len(set(words)) < len(
        words
    ):
        raise UserError(
            f"types {text!r}: expected {ALL_MATTER!r} or numbers from 0 to {len(TYPE_NAMES) - 1} such as '0,1'; 0 is "
            "gas, 1 dark matter, 4 stars"
        )
    return sorted(int(word) for word in words)


def _open(path: Path, options: Options) -> AbstractSnapshot:
    first, dataset = _first_file(path)
    with open(first, "rb") as stream:
        head = stream.read(8)
    if not head:
        raise UserError(f"{first}: is empty; expected a snapshot")
    if dataset is not None:
        return ArraySnapshot(first, options, dataset=dataset)
    for kind in FORMATS:
        if kind.recognises(first, head):
            return kind(first, options)
    raise UserError(
        f"{first}: is neither an HDF5 file nor a GADGET binary nor a .npy file; expected a snapshot in one of these "
        "formats"
    )


def _first_file(path: Path) -> tuple[Path, str | None]:
    """Return a file of the snapshot, and the data set where one is named."""
    if path.is_file():
        return path, None
    for ending in (".0", ".hdf5", ".0.hdf5", ".h5", ".0.h5"):
        candidate = path.with_name(path.name + ending)
        if candidate.is_file():
            return candidate, None
    before, colon, dataset = str(path).rpartition(":")
    if colon and dataset.strip("/") and Path(before).is_file():
        return Path(before), dataset.strip("/")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected a snapshot file")
    raise UserError(f"{path}: {why_not_a_file(path)}")
