"""Slice files in several parts: which slices are whose, the index that ties them together, and making them one.

Shard 3 of 16 of ``mocks.h5`` is the file ``mocks_00003-of-00016.h5``, a slice file like any other. The index
``mocks.h5`` is one too: its labels and checksums are its own, its pixels those of the shards beside it (an HDF5 virtual
data set), whose names, numbers of slices and checksums it lists in ``/shards``.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from cosmogan.errors import UserError
from cosmogan.files import written
from cosmogan.hdf5 import open_file
from cosmogan.slices import SliceReader, SliceWriter, require_absent
from cosmogan.slices.layout import CHECKSUMS, LABELS
from cosmogan.slices.writer import write_head

_NAME = re.compile(r"(?P<stem>.+)_(?P<number>\d{5})-of-(?P<total>\d{5})(?P<suffix>\.[^.]*)?")
_MOST_SHARDS = 99_999
# Bytes of pixels copied at a time.
_BLOCK_BYTES = 2**24


@dataclass(frozen=True)
class Shard:
    """One of several parts of a set of slices.

    Parameters
    ----------
    number, total
        Number of this one, 0 to ``total - 1``, and of all.

    Raises
    ------
    UserError
        If there is no such part.
    """

    number: int
    total: int

    def __post_init__(self) -> None:
        if not 1 <= self.total <= _MOST_SHARDS:
            raise UserError(f"shards: expected 1 to {_MOST_SHARDS}, found {self.total}")
        if not 0 <= self.number < self.total:
            raise UserError(
                f"shard {self.number}/{self.total}: the shards of {self.total} are numbered 0 to {self.total - 1}"
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Build from ``"3/16"``."""
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if found is None:
            raise UserError(f"shard {text!r}: expected a number and how many there are, such as 3/16, counted from 0")
        return cls(int(found[1]), int(found[2]))

    def file(self, index: Path) -> Path:
        """Return the file of this shard of ``mocks.h5``."""
        return index.with_name(f"{index.stem}_{self.number:05d}-of-{self.total:05d}{index.suffix}")

    def slices(self, n: int, *, block: int) -> range:
        """Return the slices of this shard of ``n`` slices that are made in blocks.

        Raises
        ------
        UserError
            If there are fewer blocks than shards.
        """
        n_blocks = -(-n // block)
        if self.total > n_blocks:
            raise UserError(
                f"shards: {n} slices, which are made in blocks of {block}, fill at most {n_blocks} shards; "
                f"found {self.total}"
            )
        first, last = (n_blocks * i // self.total for i in (self.number, self.number + 1))
        return range(first * block, min(n, last * block))

    def siblings(self) -> list[Shard]:
        """Return all shards of the set, this one among them."""
        return [Shard(i, self.total) for i in range(self.total)]


def write_index(path: Path, shards: Sequence[Path]) -> Path:
    """Tie shards together: write a slice file whose pixels are theirs; an existing one is replaced.

    Parameters
    ----------
    path
        File to write, in the folder of the shards.
    shards
        Files in the order of their slices.

    Returns
    -------
        The file written.

    Raises
    ------
    UserError
        If a shard is missing, damaged or of another set, or the index cannot be written.
    """
    readers = _heads(shards)
    provenance = {**_common_provenance(readers), "n_shards": len(readers)}
    sums = [_checksums_of(reader) for reader in readers]
    side, n = readers[0].metadata.n_pixels, sum(map(len, readers))
    layout = h5py.VirtualLayout((n, side, side), readers[0].dtype)
    done = 0
    for reader in readers:
        shape = (len(reader), side, side)
        layout[done : done + len(reader)] = h5py.VirtualSource(reader.path.name, "slices", shape)
        done += len(reader)
    # Several processes may find all shards done at the same time, and write the same.
    beside_name = f"{path.name}.{os.getpid()}.part"
    with written(path, RuntimeError, partial=beside_name) as beside, open_file(beside, "w") as file:
        write_head(file, readers[0].metadata, n_slices=n, provenance=provenance, with_checksums=True)
        for name in LABELS:
            file[name][:] = np.concatenate([getattr(reader, name) for reader in readers])
        file[CHECKSUMS][:] = np.concatenate(sums)
        file.create_virtual_dataset("slices", layout)
        table = file.create_group("shards")
        table["name"] = [reader.path.name for reader in readers]
        table["n_slices"] = np.array([len(reader) for reader in readers], np.int64)
        table["sha256"] = [hashlib.sha256(rows.tobytes()).hexdigest() for rows in sums]
    return path


def merge(inputs: list[str], *, out: str, compression: str = "none", overwrite: bool = False) -> Path:
    """Make one slice file of several.

    Shards are put into their order, and all of them must be there; other files stay in the order given. Slices that
    come with checksums are compared with them on the way.

    Parameters
    ----------
    inputs
        The index of sharded slices, or its shards, or any slice files of the same pixels.
    out
        Slice file to write.
    compression
        "none", "gzip" or "lzf": one compressed slice per chunk.
    overwrite
        Replace an existing file.

    Returns
    -------
        The file written.

    Raises
    ------
    UserError
        If a file is missing, damaged or of other pixels, or the output exists.
    """
    path = Path(out)
    require_absent(path, overwrite=overwrite)
    if any(path.resolve() == Path(name).resolve() for name in inputs):
        raise UserError(f"{path}: is one of the files to merge; choose another name")
    readers = _heads(_in_order([Path(name) for name in inputs]))
    first = readers[0]
    with SliceWriter(
        path,
        first.metadata,
        n_slices=sum(map(len, readers)),
        provenance=_common_provenance(readers),
        conditions={name: first.condition_units.get(name, "") for name in first.conditions},
        overwrite=overwrite,
        dtype=first.dtype.name,
        compression=parse_compression(compression),
        with_checksums=True,
    ) as writer:
        for reader in readers:
            with reader:
                _copy(reader, writer)
    return path


def parse_compression(name: str) -> str | None:
    """Return a compression as HDF5 knows it, None for none.

    Raises
    ------
    UserError
        If there is no such compression.
    """
    if name not in ("none", "gzip", "lzf"):
        raise UserError(f"compression: expected none, gzip or lzf, found {name!r}")
    return None if name == "none" else name


def _heads(paths: Sequence[Path]) -> list[SliceReader]:
    """Return readers of files, closed: there may be more of them than a process may have open."""
    readers = []
    for path in paths:
        with SliceReader(path) as reader:
            readers.append(reader)
    return readers


def _copy(reader: SliceReader, writer: SliceWriter) -> None:
    size = max(1, _BLOCK_BYTES // (reader.metadata.n_pixels**2 * reader.dtype.itemsize))
    for start in range(0, len(reader), size):
        stop = min(start + size, len(reader))
        block = reader.stored(start, stop)
        damage = reader.damage(start, block)
        if damage is not None:
            raise UserError(damage)
        writer.append(
            block,
            realisation=reader.realisation[start:stop],
            axis=reader.axis[start:stop],
            position=reader.position[start:stop],
            conditions={name: values[start:stop] for name, values in reader.conditions.items()},
        )


def _in_order(paths: list[Path]) -> list[Path]:
    """Return shards by number, all of them; other files as they are."""
    found = [_NAME.fullmatch(path.name) for path in paths]
    pairs = [(one, path) for one, path in zip(found, paths, strict=True) if one is not None]
    sets = {(path.parent, one["stem"], one["total"], one["suffix"]) for one, path in pairs}
    if len(pairs) < len(paths) or len(sets) > 1:
        return paths
    numbers = {int(one["number"]): path for one, path in pairs}
    total = int(pairs[0][0]["total"])
    missing = sorted(set(range(total)) - set(numbers))
    if missing:
        raise UserError(
            f"{paths[0]}: shard {missing[0]} of its {total} is not among the files to merge"
            + (f", nor are {len(missing) - 1} others" if len(missing) > 1 else "")
        )
    return [numbers[i] for i in range(total)]


def _common_provenance(readers: Sequence[SliceReader]) -> dict[str, Any]:
    """Return the provenance that files of the same pixels share, without that of the parts.

    Raises
    ------
    UserError
        If the files are of different pixels.
    """
    first = readers[0]
    for reader in readers[1:]:
        clauses = first.metadata.differences(reader.metadata)
        if first.dtype != reader.dtype:
            clauses.append(f"{first.dtype} against {reader.dtype}")
        if set(first.conditions) != set(reader.conditions):
            clauses.append(f"conditions {sorted(first.conditions)} against {sorted(reader.conditions)}")
        if clauses:
            raise UserError(f"{first.path} and {reader.path} do not belong together: {', '.join(clauses)}")
    shared = dict(first.provenance)
    for reader in readers[1:]:
        shared = {name: value for name, value in shared.items() if reader.provenance.get(name) == value}
    # What one part says against itself holds for the whole.
    doubts = dict.fromkeys(str(r.provenance["not_trustworthy"]) for r in readers if "not_trustworthy" in r.provenance)
    if doubts:
        shared["not_trustworthy"] = "; ".join(doubts)
    return {name: value for name, value in shared.items() if name not in ("shard", "n_shards")}


def _checksums_of(reader: SliceReader) -> np.ndarray:
    if reader.checksums is None:
        raise UserError(f"{reader.path}: has no checksums (/{CHECKSUMS}); write it again")
    return reader.checksums
