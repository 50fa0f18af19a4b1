"""Positions of snapshots against pynbody and swiftsimio.

python positions.py [SNAPSHOT ...]      prints the table, rewrites positions.json; exit code 1 if any disagrees

Reads one snapshot of each kind that the tests' writers make, and those named. Needs `pip install pynbody swiftsimio`;
torch is not needed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[2])]

import pynbody  # noqa: E402
import swiftsimio  # noqa: E402

from data_tools.snapshots import SnapshotHeader, open_snapshot  # noqa: E402
from tests.data_tools.snapshots.gadget_files import write_binary, write_hdf5  # noqa: E402
from tests.data_tools.snapshots.swift_files import write_swift  # noqa: E402

# Of the box: units are multiplied in another order and in the file's precision.
AGREEMENT = 1e-7


# What pynbody wants besides.
HDF5_EXTRAS = {"Time": 1.0, "OmegaLambda": 0.7, "MassTable": np.array([0, 0.5, 0, 0, 0, 0])}


def with_pynbody(path: Path, header: SnapshotHeader) -> np.ndarray:
    # In the file's unit, which pynbody does not decide.
    return np.asarray(pynbody.load(str(path)).dm["pos"], dtype=np.float64) * header.length_unit


def with_swiftsimio(path: Path, header: SnapshotHeader) -> np.ndarray:
    return swiftsimio.load(path).dark_matter.coordinates.to_comoving().to_value("Mpc") * header.cosmology.h


def write_all(folder: Path) -> dict[str, tuple[Path, Callable]]:
    """Write one snapshot of each kind; return them with the reader to compare with."""
    positions = np.random.default_rng(0).uniform(0, 100, (30_000, 3)).astype(np.float32)
    n = len(positions)
    found: dict[str, tuple[Path, Callable]] = {}
    for format_number in (1, 2):
        for order, name in (("<", "little-endian"), (">", "big-endian")):
            path = folder / f"format{format_number}_{name}"
            write_binary(path, positions * 1000, n_total=n, version=format_number, order=order, box_size=1e5)
            found[f"GADGET format {format_number}, {name}"] = path, with_pynbody
    parts = np.array_split(positions * 1000, 3)
    for i, part in enumerate(parts):
        write_binary(folder / f"several.{i}", part, n_total=n, n_files=3, box_size=1e5)
        write_hdf5(folder / f"several_hdf5.{i}.hdf5", part, n_total=n, n_files=3, BoxSize=1e5, **HDF5_EXTRAS)
    found["GADGET format 1, three files"] = folder / "several", with_pynbody
    found["GADGET HDF5, three files"] = folder / "several_hdf5", with_pynbody
    for n_files in (1, 3):
        path = folder / f"swift{n_files}.hdf5"
        write_swift(path, positions.astype(np.float64), n_files=n_files)
        found[f"SWIFT, {'one file' if n_files == 1 else 'virtual file of three'}"] = path, with_swiftsimio
    return found


def main(paths: list[str]) -> int:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cases = write_all(Path(folder)) | {Path(path).name: (Path(path), with_pynbody) for path in paths}
        for name, (path, read) in cases.items():
            snapshot = open_snapshot(path)
            ours = np.concatenate(list(snapshot.positions())).astype(np.float64)
            theirs = read(path, snapshot.header)
            same = theirs.shape == ours.shape
            difference = float(np.abs(theirs - ours).max() / snapshot.header.box_size) if same else float("inf")
            rows.append({"snapshot": name, "reader": read.__name__.removeprefix("with_"), "particles": len(ours)})
            rows[-1]["largest_difference"] = difference
            print(f"{name:34} {rows[-1]['reader']:12} {len(ours):9} particles   {difference:.1e} of the box")
    versions = {name: version(name) for name in ("pynbody", "swiftsimio", "numpy")}
    (HERE / "positions.json").write_text(json.dumps({"versions": versions, "snapshots": rows}, indent=1) + "\n")
    return int(any(row["largest_difference"] > AGREEMENT for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
