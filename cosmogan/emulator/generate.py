"""Emulator to mock slice file: streamed, in several processes, and slice i a function of (seed, i) alone.

A run that ends early, however it ends, continues when the same command is run again (`ResumableWriter`), and the file
is that of an uninterrupted run, byte for byte. Several processes need no message passing: each makes its shard, and
whoever finds all of them done writes the index that ties them together.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from cosmogan import __version__
from cosmogan.checks import require_least, require_seed
from cosmogan.emulator.conditions import parse_conditions
from cosmogan.emulator.emulator import Emulator
from cosmogan.emulator.mock_run import MockRun
from cosmogan.errors import UserError
from cosmogan.machine.devices import choose_device
from cosmogan.machine.processes import run_processes
from cosmogan.machine.ranks import find_local_rank, find_rank
from cosmogan.slices import SliceMetadata
from cosmogan.slices.shards import Shard, parse_compression
from cosmogan.slices.writer import stored_dtype
from cosmogan.units import parse_length

_LARGEST_COUNT = 2**16 - 1


def generate(
    emulator: str,
    *,
    out: str,
    n: int | None = None,
    seed: int = 0,
    pixels: int | None = None,
    box_size: str | None = None,
    conditions: str | None = None,
    slices_per_box: int | None = None,
    like: str | None = None,
    quantity: str = "density",
    mean_count: float | None = None,
    dtype: str | None = None,
    compression: str = "none",
    shards: int | None = None,
    shard: str | None = None,
    batch_size: int = 64,
    device: str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    overwrite: bool = False,
) -> Path:
    """Write a file of mock slices.

    Slice i depends on the emulator, the seed and i only; on a CPU bit for bit, whatever the batch size and the number
    of processes. However a run ends, the same command run again continues after the last whole slice. Ranks of
    torchrun, mpirun and srun write a shard each; an index under the name of the output ties them together.

    Parameters
    ----------
    emulator
        Emulator file, or the name of a shipped one.
    out
        Slice file to write; with shards, the index of mocks_00000-of-00016.h5 and its like.
    n
        Number of slices.
    seed
        Seed of the mocks, 0 to 2147483647. It is their realisation number, but where slices are cut from boxes, whose
        numbers these are.
    pixels
        Pixels along a side of larger slices, with pixels of the same size, where the network allows it.
    box_size
        The same as a length with its unit, such as "2000 Mpc".
    conditions
        Parameters of the slices, such as "Omega_m=0.3,sigma_8=0.8", for emulators that were trained with some.
    slices_per_box
        Slices taken of each box, spread over it, for emulators that start from simulated boxes; by default all, slab by
        slab along three axes. Fewer resemble each other less and cost more.
    like
        Slice file of `cosmogan simulate`: mocks of those very boxes, slice by slice, for emulators that start from
        simulated boxes. `cosmogan validate --paired` compares them.
    quantity
        "density", or "counts": Poisson numbers of particles whose mean is the density times --mean-count.
    mean_count
        Particles per pixel averaged over the box, for counts.
    dtype
        "float32" or "float16" (half the size, rounded by at most 0.05%) for densities.
    compression
        "none", "gzip" or "lzf": one compressed slice per chunk, packed when all are made.
    shards
        Number of processes on this machine, each with its shard.
    shard
        Make this shard only, such as 3/16, counted from 0: for job arrays.
    batch_size
        Slices computed at a time on a GPU.
    device
        Device: "cpu", "cuda:1", or "cuda", where ranks share the GPUs of their node; "auto" takes a GPU where there is
        one.
    precision
        "float32", or "bfloat16" for the body of the network: faster where the processor has it, with other bits.
    overwrite
        Replace existing files, and unfinished ones of other commands.

    Returns
    -------
        The file written: the index once all shards are there, until then the shard.

    Raises
    ------
    UserError
        If the emulator is unknown or damaged, the output exists or is being written, the numbers of shards do not fit,
        or the disk is too small.
    SystemExit
        With code 143 after SIGTERM; what is done is kept.
    """
    path = Path(out)
    require_seed(seed)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected the name of a file to write")
    share, processes, device = _find_share(shards, shard, str(choose_device(device)))
    model = _resized(Emulator.load(emulator, device=device, precision=precision), pixels, box_size)
    if conditions is not None:
        model = model.given(**parse_conditions(conditions))
    if like is not None:
        model = model.like(like)
    if slices_per_box is not None:
        model = model.spread(slices_per_box)
    if n is None:
        n = None if model.boxes is None else model.boxes.n_slices
        if n is None:
            raise UserError("-n: expected the number of slices")
    require_least(1, n=n)
    model.within(range(n))
    metadata = _metadata(model.metadata, quantity, mean_count)
    noted = {"command": "cosmogan generate", **model.provenance}
    job: dict[str, str | int | float] = {
        "emulator_sha256": noted.pop("emulator_sha256"),
        "seed": seed,
        "n": n,
        "n_pixels": metadata.n_pixels,
        "quantity": quantity,
        "dtype": stored_dtype(metadata, dtype).name,
        "compression": parse_compression(compression) or "none",
        "device": torch.device(device).type,
        "precision": precision,
        "cosmogan": __version__,
        "torch": str(torch.__version__),
    }
    job |= {f"condition {name}": value for name, value in sorted(model.given_conditions.items())}
    if slices_per_box is not None:
        job["slices_per_box"] = slices_per_box
    if model.boxes is not None and model.boxes.seeds is not None:
        job["like_seeds"] = ",".join(map(str, model.boxes.seeds))
    if mean_count is not None:
        job["mean_count"] = mean_count
    if job["device"] != "cpu":
        job["batch_size"] = batch_size
    run = MockRun(model, path, metadata, job, noted, batch_size, overwrite)
    if share is None and processes == 1:
        return run.write(None)
    some = share or Shard(0, processes)
    some.slices(n, block=model.block_size)
    if run.is_complete(some):
        print(f"{path}: is complete already", file=sys.stderr)
        return path
    if share is not None:
        run.write(share)
    else:
        options = {
            "n": n,
            "out": out,
            "seed": seed,
            "pixels": pixels,
            "box_size": box_size,
            "conditions": conditions,
            "slices_per_box": slices_per_box,
            "like": like,
            "quantity": quantity,
            "mean_count": mean_count,
            "dtype": dtype,
            "compression": compression,
            "batch_size": batch_size,
            "precision": precision,
            "overwrite": overwrite,
        }
        threads = max(1, torch.get_num_threads() // processes)
        devices = [_spread(device, one.number) for one in some.siblings()]
        arguments = [(emulator, f"{i}/{processes}", devices[i], threads, options) for i in range(processes)]
        run_processes(_make_shard, arguments, what="shard")
    return run.tie(some) or some.file(path)


def _make_shard(emulator: str, shard: str, device: str, threads: int, options: Mapping[str, Any]) -> None:
    torch.set_num_threads(threads)
    generate(emulator, shard=shard, device=device, **options)


def _resized(model: Emulator, pixels: int | None, box_size: str | None) -> Emulator:
    """Return the emulator at the size asked for, and say what not to trust of its slices."""
    if pixels is not None and box_size is not None:
        raise UserError("pixels, box_size: give one of them; pixels keep their size")
    length = None if box_size is None else parse_length(box_size, model.metadata.cosmology.h)
    model = model.resized(pixels, box_size=length)
    if model.warning and multiprocessing.parent_process() is None:
        print(f"note: {model.warning}", file=sys.stderr)
    return model


def _metadata(metadata: SliceMetadata, quantity: str, mean_count: float | None) -> SliceMetadata:
    """Return what the slices to write are, made by an emulator of densities."""
    if quantity == "counts" and mean_count is None:
        raise UserError("quantity counts: add --mean-count, the number of particles per pixel averaged over the box")
    if quantity != "counts" and mean_count is not None:
        raise UserError("mean_count: is for --quantity counts only")
    if mean_count is not None and mean_count > _LARGEST_COUNT:
        raise UserError(
            f"mean_count: expected at most {_LARGEST_COUNT}, up to which counts are stored, found {mean_count:g}"
        )
    return replace(metadata, quantity=quantity, mean_count=mean_count)


def _find_share(shards: int | None, shard: str | None, device: str) -> tuple[Shard | None, int, str]:
    """Return the shard of this process (None for all slices), how many processes to start, and the device to use."""
    rank, ranks = find_rank(os.environ)
    if shard is not None:
        if shards is not None:
            raise UserError("shards, shard: give one of them; --shard 3/16 says how many there are")
        return Shard.parse(shard), 1, device
    if ranks > 1:
        if shards not in (None, ranks):
            raise UserError(
                f"shards: {shards} asked for by each of {ranks} ranks; leave it out, each rank writes one shard"
            )
        return Shard(rank, ranks), 1, _spread(device, find_local_rank(os.environ))
    if shards is not None:
        Shard(0, shards)
    return None, shards or 1, device


def _spread(device: str, number: int) -> str:
    """Return the GPU of one of several processes of a machine."""
    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{number % count}" if count else device
