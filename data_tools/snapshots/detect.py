"""Find out which format a snapshot has."""

from __future__ import annotations

import os
from pathlib import Path

from cosmogan.errors import UserError
from data_tools.snapshots.base import AbstractSnapshot
from data_tools.snapshots.gadget_binary import GadgetBinarySnapshot
from data_tools.snapshots.gadget_hdf5 import GadgetHdf5Snapshot

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_snapshot(path: str | Path, *, length_unit: str | None = None, box_size: str | None = None) -> AbstractSnapshot:
    """Open a snapshot of any known format: GADGET HDF5 or GADGET binary (format 1 and 2), in one or several files.

    Parameters
    ----------
    path
        The file, any one of several files, or their common name without the number (``snap_000`` for ``snap_000.0``,
        ``snap_000.1``, ...).
    length_unit
        The file's unit of length, such as ``"kpc/h"``; None to take it from the file or from the size of its box.
    box_size
        Side of the box with its unit, for files that do not say.

    Returns
    -------
        The snapshot with its header read.

    Raises
    ------
    UserError
        If the file is missing, empty, truncated, of an unknown format, or its header cannot be right.
    """
    first = _first_file(Path(path))
    if not os.access(first, os.R_OK):
        raise UserError(f"{first}: no permission to read it")
    with open(first, "rb") as stream:
        head = stream.read(8)
    if not head:
        raise UserError(f"{first}: is empty; expected a snapshot")
    if head == _HDF5_SIGNATURE:
        return GadgetHdf5Snapshot(first, length_unit=length_unit, box_size=box_size)
    if GadgetBinarySnapshot.recognises(head):
        return GadgetBinarySnapshot(first, length_unit=length_unit, box_size=box_size)
    raise UserError(
        f"{first}: is neither an HDF5 file nor a GADGET binary; expected a snapshot in one of these formats"
    )


def _first_file(path: Path) -> Path:
    if path.is_file():
        return path
    for candidate in (path.with_name(path.name + ".0"), path.with_name(path.name + ".0.hdf5")):
        if candidate.is_file():
            return candidate
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected a snapshot file")
    raise UserError(f"{path}: no such file")
