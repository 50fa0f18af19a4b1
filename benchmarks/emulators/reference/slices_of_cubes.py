"""Cut the slices that `run.py` trained on, or tests with, from the cubes that ``run.py --cubes`` left.

    python benchmarks/emulators/reference/slices_of_cubes.py work/cubes/256_nbody_350Mpc_?.h5 --out train500.h5

The bits are those of the run up to the rounding of the smoothing. `cosmogan convert` reads the same cubes, without
leaving out slabs.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from simulations import GEOMETRIES, cut, metadata_of, provenance

from cosmogan.errors import UserError
from cosmogan.slices import SliceWriter

_NAME = re.compile(r"(\d+)_nbody_([\d.]+)Mpc_(\d+)\.h5")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cubes", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--geometry", choices=list(GEOMETRIES), default="gpu")
    parser.add_argument("--overwrite", action="store_true")
    arguments = parser.parse_args(words)
    try:
        write(arguments.cubes, arguments.out, arguments.geometry, overwrite=arguments.overwrite)
    except UserError as error:
        print(f"slices_of_cubes: {error}", file=sys.stderr)
        return 2
    return 0


def write(paths: list[Path], out: Path, geometry_name: str, *, overwrite: bool) -> None:
    """Write the slices of all cubes to one file, in the order of their seeds."""
    geometry = GEOMETRIES[geometry_name]
    cubes: dict[int, Path] = {}
    sides = set()
    for path in paths:
        match = _NAME.fullmatch(path.name)
        if match is None or int(match[1]) != geometry.pixels:
            raise UserError(f"{path}: expected a cube of the run, such as {geometry.pixels}_nbody_350Mpc_1.h5")
        cubes[int(match[3])] = path
        sides.add(float(match[2]))
    if len(sides) > 1:
        raise UserError(f"cubes: expected those of one box, found {', '.join(f'{s:g}' for s in sorted(sides))} Mpc/h")
    (box_size,) = sides
    origin = provenance(box_size, geometry) | {"seeds": ",".join(map(str, sorted(cubes)))}
    n_slices = geometry.n_slices * len(cubes)
    with SliceWriter(
        out, metadata_of(box_size, geometry), n_slices=n_slices, provenance=origin, overwrite=overwrite
    ) as writer:
        for seed, path in sorted(cubes.items()):
            for axis, begin, slices in cut(torch.from_numpy(_read(path, geometry.particles)), box_size, geometry):
                writer.append(slices, realisation=seed, axis=axis, position=begin)


def _read(path: Path, particles: int) -> np.ndarray:
    try:
        with h5py.File(path) as file:
            counts = file["data"][:].astype(np.int64)
    except (OSError, KeyError):
        raise UserError(f"{path}: cannot be read as a cube of the run; bring it again") from None
    if counts.sum() != particles**3:
        raise UserError(f"{path}: holds {counts.sum()} particles, expected {particles**3}; bring it again")
    return counts


if __name__ == "__main__":
    sys.exit(main())
