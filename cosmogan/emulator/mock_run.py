"""One run of `cosmogan generate`: its slices to files, and its shards to an index."""

from __future__ import annotations

import multiprocessing
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cosmogan.emulator.emulator import Emulator
from cosmogan.errors import UserError
from cosmogan.files import require_room
from cosmogan.machine.processes import TERMINATED, Termination
from cosmogan.seeds import COUNTS, slice_stream
from cosmogan.slices import AXIS_NOT_APPLICABLE, SliceMetadata, read_provenance, require_absent
from cosmogan.slices.resumable import ResumableWriter
from cosmogan.slices.shards import Shard, write_index

# Blocks that wait for the disk while the next ones are computed.
_MOST_WAITING = 4
# Entries of a job that only parts of a set of slices have.
_PARTS = ("shard", "n_shards")
# Bytes of labels and checksum that come with each slice.
_LABEL = 41


@dataclass(frozen=True)
class MockRun:
    """What all shards of a run share.

    Parameters
    ----------
    model, path, batch_size, overwrite
        Arguments of `generate`.
    metadata
        Metadata of the slices to write.
    job
        All that decides their content.
    provenance
        Further entries to note.
    """

    model: Emulator
    path: Path
    metadata: SliceMetadata
    job: Mapping[str, str | int | float]
    provenance: Mapping[str, Any]
    batch_size: int
    overwrite: bool

    def write(self, shard: Shard | None) -> Path:
        """Write all slices, or those of a shard, and return the file."""
        path = self.path if shard is None else shard.file(self.path)
        n, seed = int(self.job["n"]), int(self.job["seed"])
        indices = range(n) if shard is None else shard.slices(n, block=self.model.block_size)
        job = self.job if shard is None else {**self.job, "shard": f"{shard.number}/{shard.total}"}
        if _is_made_by(path, job):
            print(f"{path}: is complete already", file=sys.stderr)
            return path
        require_room(path, len(indices) * (self.metadata.n_pixels**2 * np.dtype(str(job["dtype"])).itemsize + _LABEL))
        labels = self.model.labels(indices)
        realisation, axis, position = (seed, AXIS_NOT_APPLICABLE, np.nan) if labels is None else labels
        compression = None if job["compression"] == "none" else str(job["compression"])
        with (
            ResumableWriter(
                path,
                self.metadata,
                n_slices=len(indices),
                realisation=realisation,
                axis=axis,
                position=position,
                job=job,
                provenance=self.provenance,
                dtype=str(job["dtype"]),
                compression=compression,
                overwrite=self.overwrite,
            ) as writer,
            tqdm(total=len(indices), initial=writer.n_done, unit="slice", desc=path.name, disable=None) as bar,
            Termination() as termination,
            ThreadPoolExecutor(1) as thread,
        ):
            n_resumed = writer.n_done
            if n_resumed:
                bar.write(f"{path}: continuing after slice {n_resumed} of {len(indices)}", file=sys.stderr)
            waiting: deque[Future[None]] = deque()
            for start, block in self._blocks(indices[n_resumed:]):
                waiting.append(thread.submit(self._put, writer, block, start))
                if len(waiting) > _MOST_WAITING:
                    waiting.popleft().result()
                bar.update(len(block))
                if termination.requested:
                    break
            for future in waiting:
                future.result()
        if writer.n_done < len(indices):
            print(
                f"cosmogan generate: stopped by SIGTERM with {writer.n_done} of {len(indices)} slices of {path} done; "
                "run the same command again to continue",
                file=sys.stderr,
            )
            raise SystemExit(TERMINATED)
        return path

    def _blocks(self, indices: range) -> Iterator[tuple[int, np.ndarray]]:
        """Iterate over numbers of first slices, and densities."""
        if not indices:
            return
        seed = int(self.job["seed"])
        blocks = self.model.blocks(len(indices), seed=seed, first=indices.start, batch_size=self.batch_size)
        start = indices.start
        for block in blocks:
            yield start, block
            start += len(block)

    def _put(self, writer: ResumableWriter, block: np.ndarray, start: int) -> None:
        if self.metadata.mean_count is not None:
            block = poisson_counts(block, self.metadata.mean_count, seed=int(self.job["seed"]), first=start)
        writer.append(block)

    def is_complete(self, some: Shard) -> bool:
        """Return whether the output is there in one piece; refuse, or remove, one of something else."""
        if _is_made_by(self.path, self.job):
            return True
        if not _is_made_by(self.path, {**self.job, "n_shards": some.total}):
            require_absent(self.path, overwrite=self.overwrite)
            self.path.unlink(missing_ok=True)
        return False

    def tie(self, some: Shard) -> Path | None:
        """Write the index if all shards are there, or say how many are."""
        files = [shard.file(self.path) for shard in some.siblings()]
        n_there = sum(file.exists() for file in files)
        if n_there < len(files):
            # Processes of --shards have a parent that waits for all of them.
            if multiprocessing.parent_process() is None:
                there = f"{n_there} of {len(files)} shards are there"
                print(f"{self.path}: {there}; it is written when all are", file=sys.stderr)
            return None
        for shard, file in zip(some.siblings(), files, strict=True):
            if not _is_made_by(file, {**self.job, "shard": f"{shard.number}/{shard.total}"}):
                # About to be replaced by the process whose shard it is.
                if self.overwrite:
                    return None
                raise UserError(
                    f"{file}: is a shard of another run; make it again with --overwrite or choose another name"
                )
        return write_index(self.path, files)


def poisson_counts(density: np.ndarray, mean_count: float, *, seed: int, first: int) -> np.ndarray:
    """Return numbers of particles whose mean is the density.

    Those of slice i come from ``numpy.random.Generator(numpy.random.Philox(key=seed, counter=[0, 0, 1, i]))``, whose
    numbers are none of those of the latents.

    Parameters
    ----------
    density
        1 + delta, shape ``(n, n_pixels, n_pixels)``.
    mean_count
        Particles per pixel at density 1.
    seed, first
        Seed, and number of the first slice.

    Returns
    -------
        Shape of ``density``, int64.
    """
    counts = np.empty(density.shape, np.int64)
    for i, one in enumerate(density):
        counts[i] = slice_stream(seed, first + i, COUNTS).poisson(mean_count * one.astype(np.float64))
    return counts


def _is_made_by(path: Path, job: Mapping[str, Any]) -> bool:
    """Return whether a file is the finished result of a job: whole, or the part that the job names."""
    if not path.is_file():
        return False
    try:
        found = read_provenance(path)
    except UserError:
        return False
    return {name: found.get(name) for name in (*job, *_PARTS)} == {**dict.fromkeys(_PARTS), **job}
