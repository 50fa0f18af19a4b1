"""Slabs counted by several processes, on one node or on several: each takes some files, the first one adds up.

A unit of work is one file of one snapshot in one pass. Worker ``w`` of ``n`` takes every ``n``-th unit and writes its
sums to a folder beside the output; rank 0 waits for them. No message passing is needed, only a common file system. The
names of these files are derived from everything that determines their content (parameters, names, sizes and times of
the snapshots) and from the run, so that what a killed run left behind is never taken for ours.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from cosmogan.errors import UserError
from cosmogan.files import replaced
from cosmogan.hdf5 import open_file
from data_tools.slicing.slabs import SlabCounter
from data_tools.slicing.slice_job import SliceJob
from data_tools.snapshots import AbstractSnapshot, Coverage, open_snapshot

# Seconds without a sign of life after which another rank is given up, between two signs, and between two looks.
_PATIENCE, _SIGN, _LOOK = 600.0, 5.0, 0.05
# Sums of a worker that may wait to be fetched.
_MOST_WAITING = 2


class Team:
    """The worker processes of this rank, or none where one process does it all; use as a context manager.

    Parameters
    ----------
    job
        What to do.
    rank
        Of this process.
    """

    def __init__(self, job: SliceJob, rank: int) -> None:
        self.job, self.rank = job, rank
        # A fresh interpreter: forking one that runs threads (torch, HDF5) may hang.
        context = multiprocessing.get_context("spawn")
        self._members: list[tuple[Any, Connection]] = []
        for i in range(job.processes if job.n_workers > 1 else 0):
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(job, rank * job.processes + i, theirs))
            self._members.append((process, ours))

    def __enter__(self) -> Team:
        try:
            if self._members:
                self.job.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.job.folder}: cannot be written ({os.strerror(error.errno or 0)})") from None
        for process, _ in self._members:
            process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, _ in self._members:
            if kind is not None and process.pid is not None:
                process.terminate()
            process.join()
        if self._members and self.rank == 0:
            shutil.rmtree(self.job.folder, ignore_errors=True)

    def check(self) -> bool:
        """Return whether all processes have finished.

        Raises
        ------
        UserError
            If one has failed.
        """
        for process, channel in self._members:
            ended = process.exitcode is not None
            if channel.poll():
                try:
                    raise UserError(channel.recv())
                except EOFError:
                    pass
            if ended and process.exitcode != 0:
                raise UserError(
                    f"a worker process ended with exit code {process.exitcode}, perhaps for want of memory; run again "
                    "with fewer --processes or less --memory"
                )
        return all(process.exitcode is not None for process, _ in self._members)

    def finish(self) -> None:
        """Wait for the processes of this rank.

        Raises
        ------
        UserError
            If one fails.
        """
        while not self.check():
            time.sleep(_LOOK)

    def collect(
        self,
        source: AbstractSnapshot,
        snapshot: int,
        turn: int,
        *,
        on_particles: Callable[[int], object],
        coverage: Coverage | None = None,
    ) -> SlabCounter:
        """Return the sum over all workers of one pass over a snapshot.

        Parameters
        ----------
        source, snapshot
            The snapshot and its number.
        turn
            Which pass.
        on_particles
            Called with the number of particles that have been added.
        coverage
            Empty record of where the particles are, to fill in.

        Raises
        ------
        UserError
            If a file cannot be read, a worker fails or is not heard of, particles are missing, or they lie in a part
            of the box where that is not allowed.
        """
        counter = self.job.counter(source, self.job.passes[turn])
        seen = source.coverage(snapshot) if coverage is None else coverage
        if self.job.n_workers == 1:
            for positions, masses in source.particles(weights=self.job.weighted, coverage=seen):
                counter.add(positions, masses)
                on_particles(len(positions))
            source.require_whole(seen, allow_partial=self.job.allow_partial)
            return counter
        alive = _Pulse(self.job.sign(-1))
        for worker in range(self.job.n_workers):
            if self.job.files(source, snapshot, turn, worker):
                part = self.job.part(snapshot, turn, worker)
                self._wait_for(part, worker, alive)
                n_before = counter.n_particles
                _add_part(counter, seen, part)
                part.unlink()
                on_particles(counter.n_particles - n_before)
        source.require_whole(seen, allow_partial=self.job.allow_partial)
        return counter

    def _wait_for(self, part: Path, worker: int, alive: _Pulse) -> None:
        rank = worker // self.job.processes
        theirs = _Pulse(self.job.sign(worker))
        while not part.exists():
            self.check()
            alive.beat()
            if rank != self.rank and theirs.silence() > _PATIENCE:
                raise UserError(
                    f"rank {rank} of {self.job.ranks} has given no sign of life in {self.job.folder} for "
                    f"{_PATIENCE:.0f} s; see its own messages. All ranks need the same options and files; to run "
                    "alone, unset RANK, WORLD_SIZE and their like"
                )
            time.sleep(_LOOK)


class _Pulse:
    """Sign of life by the time of a file, seen by this process' own clock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: int | None = None
        self._since = time.monotonic()
        self._beaten = -_SIGN

    def beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten >= _SIGN:
            self._path.touch()
            self._beaten = now

    def silence(self) -> float:
        try:
            seen = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            seen = None
        if seen != self._last:
            self._last, self._since = seen, time.monotonic()
        return time.monotonic() - self._since


def _work(job: SliceJob, worker: int, channel: Connection) -> None:
    """Count the files of one worker; the body of its process."""
    # The parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    alive = _Pulse(job.sign(worker))

    def beat() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            sys.exit(1)
        alive.beat()

    try:
        waiting: list[Path] = []
        for snapshot, path in enumerate(job.snapshots):
            source = open_snapshot(path, **job.opening)
            for turn in range(len(job.passes)):
                # Without work left there is nothing to wait for: rank 0 may be done, and the folder gone.
                if job.files(source, snapshot, turn, worker):
                    waiting = _wait_for_room(job, waiting, beat)
                    waiting.append(count_share(job, worker, source, snapshot, turn, beat))
    except UserError as error:
        channel.send(str(error))
    except OSError as error:
        channel.send(f"{error.filename or job.folder}: {error.strerror or error}")


def _wait_for_room(job: SliceJob, waiting: Sequence[Path], beat: Callable[[], None]) -> list[Path]:
    """Return the sums not yet fetched, once there are few."""
    leader = _Pulse(job.sign(-1))
    while True:
        left = [part for part in waiting if part.exists()]
        if len(left) < _MOST_WAITING:
            return left
        beat()
        if leader.silence() > _PATIENCE:
            raise UserError(f"rank 0 has given no sign of life in {job.folder} for {_PATIENCE:.0f} s")
        time.sleep(_LOOK)


def count_share(
    job: SliceJob, worker: int, source: AbstractSnapshot, snapshot: int, turn: int, beat: Callable[[], None]
) -> Path:
    """Count a worker's files of a snapshot in one pass.

    Parameters
    ----------
    job
        What to do.
    worker
        Which worker.
    source, snapshot, turn
        The snapshot, its number, and that of the pass.
    beat
        Called for each block of particles.

    Returns
    -------
        Where the sums are.

    Raises
    ------
    UserError
        If a file cannot be read.
    """
    part = job.part(snapshot, turn, worker)
    if part.exists():
        return part
    files = job.files(source, snapshot, turn, worker)
    counter = job.counter(source, job.passes[turn])
    seen = source.coverage(snapshot)
    for positions, masses in source.particles(weights=job.weighted, files=files, coverage=seen):
        beat()
        counter.add(positions, masses)
    with replaced(part) as beside, open_file(beside, "w") as handle:
        # As text: a sum of weights has up to 63 bits.
        handle.attrs.update(n_particles=counter.n_particles, total=str(counter.total))
        for name, values in seen.state().items():
            handle[f"coverage/{name}"] = values
        for i, grid in enumerate(counter.grids):
            handle[f"grid{i}"] = grid
    return part


def _add_part(counter: SlabCounter, seen: Coverage, path: Path) -> None:
    """Add the sums of a worker."""
    with open_file(path) as handle:
        counter.grow(int(handle.attrs["n_particles"]), int(handle.attrs["total"]))
        seen.grow(handle["coverage"])
        for i, grid in enumerate(counter.grids):
            for row in range(len(grid)):
                grid[row] += handle[f"grid{i}"][row]
