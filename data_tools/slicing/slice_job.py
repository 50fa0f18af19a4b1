"""What all workers of a run of `cosmogan slice` must know: ranks, units of work, where their sums lie."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_tools.slicing.slabs import Ranges, SlabCounter
from data_tools.snapshots import AbstractSnapshot, open_snapshot

# What launchers call a run, where they do.
_RUNS = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "PMIX_NAMESPACE", "TORCHELASTIC_RUN_ID")


def name_run(environment: Mapping[str, str], ranks: int) -> str:
    """Return a name that all ranks of a run share, and another run hardly has."""
    if ranks == 1:
        return os.urandom(8).hex()
    return " ".join(environment.get(name, "") for name in _RUNS)


@dataclass(frozen=True, kw_only=True)
class SliceJob:
    """What all workers must know.

    Parameters
    ----------
    out
        The slice file.
    snapshots
        As the user named them.
    opening
        Further arguments of `open_snapshot`.
    slabs
        Arguments of `SlabCounter` but the mass unit and the ranges.
    weighted
        Whether masses count.
    passes
        Slabs of each pass.
    ranks, processes
        Number of ranks, and of processes in each.
    run
        As `name_run` has it.
    allow_partial
        Whether particles may lie in a part of the box.
    """

    out: Path
    snapshots: tuple[str, ...]
    opening: Mapping[str, Any]
    slabs: Mapping[str, Any]
    weighted: bool
    passes: tuple[Ranges, ...]
    ranks: int
    processes: int
    run: str
    allow_partial: bool = False

    @property
    def n_workers(self) -> int:
        """Number of processes that count."""
        return self.ranks * self.processes

    @property
    def folder(self) -> Path:
        """Where workers leave their sums."""
        return self.out.with_name(f"{self.out.name}.workers")

    def counter(self, source: AbstractSnapshot, ranges: Ranges) -> SlabCounter:
        """Return an empty counter for one pass over a snapshot."""
        unit = source.mass_scale() if self.weighted else None
        return SlabCounter(**self.slabs, mass_unit=unit, ranges=ranges)

    def files(self, source: AbstractSnapshot, snapshot: int, turn: int, worker: int) -> list[Path]:
        """Return the files of a snapshot that a worker counts in a pass."""
        n = len(source.files)
        first = (snapshot * len(self.passes) + turn) * n
        return [file for i, file in enumerate(source.files) if (first + i) % self.n_workers == worker]

    @cached_property
    def _key(self) -> str:
        files = [
            (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
            for path in self.snapshots
            for file in open_snapshot(path, **self.opening).files
        ]
        passes = [sorted(ranges.items()) for ranges in self.passes]
        settings = [files, dict(self.opening), dict(self.slabs), self.weighted, passes, self.ranks, self.processes]
        settings.append(self.run)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]

    def part(self, snapshot: int, turn: int, worker: int) -> Path:
        """Return where a worker leaves its sums of one pass over a snapshot."""
        return self.folder / f"{self._key}-snapshot{snapshot:04d}-pass{turn:03d}-worker{worker:04d}.h5"

    def sign(self, worker: int) -> Path:
        """Return the file that a worker touches as long as it lives; -1 for the one that adds up."""
        return self.folder / f"{self._key}-worker{worker:04d}.alive"
