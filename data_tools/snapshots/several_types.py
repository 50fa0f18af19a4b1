"""Particles of several types of one snapshot in one stream, such as all matter of a run with gas."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np

from cosmogan.errors import UserError
from data_tools.snapshots.base import AbstractSnapshot, Slab

# What the user says for all types that are matter and have masses.
ALL_MATTER = "all-matter"


@final
class SeveralTypes(AbstractSnapshot):
    """Several types of one snapshot, file by file, type by type.

    Parameters
    ----------
    parts
        The snapshot opened for each type; at least one.

    Raises
    ------
    UserError
        If the types state different units of length.
    """

    def __init__(self, parts: Sequence[AbstractSnapshot]) -> None:
        self._parts = parts
        first = parts[0]
        for part in parts[1:]:
            mine, theirs = first.header.length_unit, part.header.length_unit
            if not math.isclose(mine, theirs):
                raise UserError(
                    f"{first.path}: states a unit of length of {mine:.4g} Mpc/h for type {first.types[0]} and of "
                    f"{theirs:.4g} Mpc/h for type {part.types[0]}; say which is right with --length-unit"
                )
        self.path, self.files, self.n_per_type = first.path, first.files, first.n_per_type
        self.types = tuple(kind for part in parts for kind in part.types)
        self.header = replace(first.header, n_particles=sum(part.header.n_particles for part in parts))

    def _read_file(
        self, path: Path, chunk: int, *, weights: bool, slab: Slab | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for part in self._parts:
            yield from part._read_file(path, chunk, weights=weights, slab=slab)

    def _table_mass(self, kind: int) -> float | None:
        return self._parts[0]._table_mass(kind)

    def _mass_blocks(self, path: Path, kind: int, *, n_blocks: int | None = None) -> Iterator[np.ndarray]:
        yield from self._parts[0]._mass_blocks(path, kind, n_blocks=n_blocks)
