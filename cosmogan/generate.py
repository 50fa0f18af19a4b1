"""Emulator to mock slice file: streamed, and slice i a function of (seed, i) alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from cosmogan import __version__
from cosmogan.emulator import Emulator, find_emulator
from cosmogan.errors import UserError
from cosmogan.slices import SliceWriter, require_absent

_LARGEST_SEED = 2**31 - 1


def generate(
    emulator: str,
    *,
    n: int,
    out: str,
    seed: int = 0,
    batch_size: int = 64,
    device: str = "cpu",
    overwrite: bool = False,
) -> Path:
    """Write a file of mock slices.

    Slice i depends on the seed and on i only, whatever the batch size. An interrupted run leaves nothing under the
    final name and starts over when it is repeated.

    Parameters
    ----------
    emulator
        Emulator file, or the name of a shipped one.
    n
        Number of slices.
    out
        Slice file to write.
    seed
        Of the mocks, 0 to 2147483647; it is their realisation number.
    batch_size
        Slices computed at a time on a GPU.
    device
        "cpu", "cuda" or "cuda:1".
    overwrite
        Replace an existing file.

    Returns
    -------
        The file written.

    Raises
    ------
    UserError
        If the emulator is unknown or damaged, the output exists or the disk is too small.
    """
    path = Path(out)
    if not 0 <= seed <= _LARGEST_SEED:
        raise UserError(f"seed: expected 0 to {_LARGEST_SEED}, found {seed}")
    require_absent(path, overwrite=overwrite)
    model = Emulator.load(emulator, device=device)
    metadata = model.metadata
    batches = model.blocks(n, seed=seed, batch_size=batch_size)
    needed = n * metadata.n_pixels**2 * 4
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{path}: {n} slices need {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free in {folder}; "
            "make fewer or write elsewhere"
        )
    if path.with_name(path.name + ".part").exists():
        print(f"{path}: an earlier run was interrupted; starting over", file=sys.stderr)
    file = find_emulator(emulator)
    provenance = {
        "command": "cosmogan generate",
        "cosmogan": __version__,
        "emulator": file.name,
        "emulator_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "emulator_training": json.dumps(model.training),
        "seed": seed,
    }
    with (
        SliceWriter(path, metadata, n_slices=n, provenance=provenance, overwrite=overwrite) as writer,
        tqdm(total=n, unit="slice", desc=path.name, disable=None) as bar,
    ):
        for block in batches:
            writer.append(block, realisation=seed)
            bar.update(len(block))
    return path
