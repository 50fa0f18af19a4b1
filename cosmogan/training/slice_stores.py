"""Where the slices of a training set lie: in the memory of the device, in that of the host, or in their file.

All three give the same bits for the same places in the set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from cosmogan.errors import UserError
from cosmogan.machine.memory import available_memory
from cosmogan.slices import SliceReader, density_from_counts, pixel_problem
from cosmogan.text import decimal_bytes

# Share of the free memory that "auto" takes for slices; the rest is for networks and their activations, or for the
# rest of the program and the cache of the file system.
DEVICE_SHARE = 0.3
HOST_SHARE = 0.5
# Pixels read at a time, as float32.
_READ_BYTES = 2**26
# Threads that read from a file: HDF5 lets one read at a time, while the other one looks at pixels.
_N_READERS = 2
# Batches read ahead of the training.
_N_AHEAD = 4

Memory = Literal["auto", "device", "host", "file"]
Item = TypeVar("Item")
Result = TypeVar("Result")


class AbstractStore(ABC):
    """A set of slices, as 1 + delta, from which any may be taken."""

    # Batches to fetch in the background before they are asked for.
    n_ahead = 0

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of slices."""

    @abstractmethod
    def take(self, index: np.ndarray) -> Tensor:
        """Return the slices at the given places, shape ``(len(index), side, side)``, float32."""


class MemoryStore(AbstractStore):
    """Slices in memory.

    Parameters
    ----------
    density
        1 + delta, shape ``(n, side, side)``, on the host or on the device.
    pinned
        Whether slices taken from the host are put where a GPU fetches them without making the host wait.
    """

    def __init__(self, density: Tensor, *, pinned: bool = False) -> None:
        self.density, self._pinned = density, pinned

    def __len__(self) -> int:
        return len(self.density)

    def take(self, index: np.ndarray) -> Tensor:
        """Return the slices at the given places."""
        places = to_device(torch.from_numpy(index), self.density.device)
        out = torch.empty((len(index), *self.density.shape[1:]), device=self.density.device, pin_memory=self._pinned)
        # Twice as fast as plain indexing.
        return torch.index_select(self.density, 0, places, out=out)


class FileStore(AbstractStore):
    """Slices in their file, read when they are taken, in the order of the file.

    Pixels are looked at as in `load`; checksums are not, which would take longer than reading: `cosmogan check` does.

    Parameters
    ----------
    path
        Slice file.
    rows
        Its slices that make up the set.
    pinned
        Choice as in `MemoryStore`.
    """

    n_ahead = _N_AHEAD

    def __init__(self, path: Path, rows: np.ndarray, *, pinned: bool = False) -> None:
        self._reader, self._rows, self._pinned = SliceReader(path), rows, pinned

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, index: np.ndarray) -> Tensor:
        """Return the slices at the given places.

        Raises
        ------
        UserError
            If the file is damaged or a pixel is not a density.
        """
        side = self._reader.metadata.n_pixels
        out = torch.empty((len(index), side, side), pin_memory=self._pinned)
        rows = self._rows[index]
        for place in np.argsort(rows):
            row = int(rows[place])
            out[place] = torch.from_numpy(_read(self._reader, row, row + 1, verify=False)[0])
        return out


def load(path: Path, rows: np.ndarray, *, device: torch.device | str = "cpu") -> Tensor:
    """Read slices into memory, with no more than a block of them on the way.

    Parameters
    ----------
    path
        Slice file.
    rows
        Numbers of the slices, increasing.
    device
        Device to read to.

    Returns
    -------
        1 + delta, shape ``(len(rows), side, side)``, float32.

    Raises
    ------
    UserError
        If the file is damaged or a pixel is not a density.
    """
    with SliceReader(path) as reader:
        side = reader.metadata.n_pixels
        density = torch.empty((len(rows), side, side), device=device)
        longest = max(1, _READ_BYTES // (4 * side * side))
        # Neighbours in the file are read together.
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            for start in range(0, len(run), longest):
                part = run[start : start + longest]
                block = _read(reader, int(rows[part[0]]), int(rows[part[-1]]) + 1, verify=True)
                density[part[0] : part[-1] + 1] = torch.from_numpy(block)
    return density


def sample(rows: np.ndarray, label: np.ndarray, limit: int, *, seed: int) -> np.ndarray:
    """Return at most ``limit`` rows: of each realisation the same share, drawn at random.

    As many realisations as the limit allows are kept, because they differ by more than slices of one do.

    Parameters
    ----------
    rows
        Numbers of slices, increasing.
    label
        Their realisations.
    limit
        Number of slices to keep.
    seed
        Seed of the draw.

    Returns
    -------
        Increasing; all rows if they are not more than the limit.
    """
    if len(rows) <= limit:
        return rows
    random = np.random.default_rng([seed, len(rows)])
    rank = np.empty(len(rows))
    for realisation in np.unique(label):
        own = np.flatnonzero(label == realisation)
        rank[own] = (random.permutation(len(own)) + 0.5) / len(own)
    return rows[np.sort(np.argsort(rank, kind="stable")[:limit])]


def choose_memory(wanted: Memory, n_bytes: int, *, device: torch.device, n_processes: int = 1) -> Memory:
    """Return where slices are to lie: ``"device"``, ``"host"`` or ``"file"``, the first that has room.

    Parameters
    ----------
    wanted
        Choice of the user.
    n_bytes
        Size of the set as float32.
    device
        Device of the networks.
    n_processes
        Processes on this machine that hold the set.

    Raises
    ------
    UserError
        If the user asks for a device that is not there or has no room.
    """
    if wanted not in ("auto", "device"):
        return wanted
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    if wanted == "device":
        if device.type == "cpu":
            raise UserError("data.memory: 'device' is for runs on a GPU, and this one is on the CPU; use 'auto'")
        if device.type == "cuda" and n_bytes > free:
            raise UserError(
                f"data.memory: 'device': the training slices take {decimal_bytes(n_bytes)} and {decimal_bytes(free)} "
                "of the GPU are free; use 'auto'"
            )
        return "device"
    if n_bytes <= DEVICE_SHARE * free:
        return "device"
    return "host" if n_bytes * n_processes <= HOST_SHARE * available_memory() else "file"


def fetch_ahead(fetch: Callable[[Item], Result], items: Iterable[Item], n_ahead: int) -> Generator[Result, None, None]:
    """Yield ``fetch(item)`` in order, having begun with ``n_ahead`` more in background threads; with none if 0."""
    if not n_ahead:
        yield from map(fetch, items)
        return
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(_N_READERS, thread_name_prefix="slices") as pool:
        try:
            for item in items:
                pending.append(pool.submit(fetch, item))
                if len(pending) > n_ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor of the host without waiting for the device."""
    return (
        tensor.contiguous().pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
    )


def _read(reader: SliceReader, start: int, stop: int, *, verify: bool) -> np.ndarray:
    """Return slices as 1 + delta, float32, having looked at their pixels and, to ``verify``, at their checksums."""
    stored = reader.stored(start, stop)
    problem = pixel_problem(reader, start, stored, verify=verify)
    if problem is not None:
        raise UserError(problem)
    if reader.metadata.mean_count is None:
        return stored.astype(np.float32, copy=False)
    return density_from_counts(stored, reader.metadata.mean_count)
