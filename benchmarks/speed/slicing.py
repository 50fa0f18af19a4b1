"""Particles per second of mass assignment beside other ways, and memory of `cosmogan slice` on a large snapshot.

python benchmarks/speed/slicing.py rates [MILLIONS]                 default: 4; Pylians in the table if it is installed
python benchmarks/speed/slicing.py memory [SIDE]        default: 512; writes 12 SIDE^3 bytes, and removes them

Positions are uniform in the box and in no order: the worst case for caches. Rates are the best of five, in seconds of
processor time, so that other programs on the machine count little: with two processes, each has half of the particles
and a grid of its own, both start together, and the slower one counts.
"""

import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from data_tools.slicing.assignment import assign, weight_bits

BOX = 350.0
PIXELS = SLABS = 256
REPEATS = 5
N_FILES = 16
# Assignment, memory and processes.
RUNS = (("NGP", "2 GB", 1), ("NGP", "2 GB", 2), ("CIC", "2 GB", 1), ("CIC", "4 GB", 2), ("CIC", "0.8 GB", 1))
SHAPE = (SLABS, PIXELS, PIXELS)
Method = Callable[[np.ndarray], Callable[[], object]]


def histogramdd(positions: np.ndarray) -> Callable[[], object]:
    return lambda: np.histogramdd(positions, SHAPE, range=[(0, BOX)] * 3)


def bincount(positions: np.ndarray) -> Callable[[], object]:
    def run() -> object:
        cell = (positions * np.float32(PIXELS / BOX)).astype(np.int64) % PIXELS
        flat = np.ravel_multi_index((cell[:, 0], cell[:, 1], cell[:, 2]), SHAPE)
        return np.bincount(flat, minlength=SLABS * PIXELS**2)

    return run


def histogram2d_per_slab(positions: np.ndarray) -> Callable[[], object]:
    def run() -> object:
        for slab in range(SLABS):
            low, high = slab * BOX / SLABS, (slab + 1) * BOX / SLABS
            inside = positions[(positions[:, 0] >= low) & (positions[:, 0] < high)]
            np.histogram2d(inside[:, 1], inside[:, 2], PIXELS, [(0, BOX)] * 2)
        return None

    return run


def pylians(scheme: str) -> Method:
    def prepare(positions: np.ndarray) -> Callable[[], object]:
        import MAS_library

        grid = np.ones(SHAPE, np.float32)
        return lambda: MAS_library.MA(positions, grid, np.float32(BOX), scheme)

    return prepare


def ours(scheme: str, n_axes: int, compiled: bool) -> Method:
    def prepare(positions: np.ndarray) -> Callable[[], object]:
        bits = weight_bits(scheme, len(positions))
        dtype = np.uint32 if scheme == "NGP" else np.int64
        grids = {axis: np.ones(SHAPE, dtype) for axis in range(n_axes)}
        rows = {axis: np.arange(SLABS) for axis in range(n_axes)}
        return lambda: assign(grids, rows, positions, assignment=scheme, bits=bits, box_size=BOX, compiled=compiled)

    return prepare


def methods() -> dict[str, Method]:
    found = {
        "NGP, one axis: np.histogramdd": histogramdd,
        "NGP, one axis: np.bincount": bincount,
        "NGP, one axis: np.histogram2d for each slab": histogram2d_per_slab,
    }
    others = {"Pylians, 3D": pylians} if importlib.util.find_spec("MAS_library") else {}
    for scheme in ("NGP", "CIC", "TSC"):
        for name, other in others.items():
            found[f"{scheme}: {name}"] = other(scheme)
        for n_axes, axes in ((1, "one axis"), (3, "three axes")):
            found[f"{scheme}, {axes}: cosmogan, NumPy"] = ours(scheme, n_axes, False)
            found[f"{scheme}, {axes}: cosmogan, compiled"] = ours(scheme, n_axes, True)
    return found


def seconds(method: Method, positions: np.ndarray, processes: int) -> float:
    """Processor time of the slowest process."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(processes)
    queue = context.Queue()

    def body(part: np.ndarray) -> None:
        run = method(part)
        # Compiles.
        run()
        times = []
        for _ in range(REPEATS):
            barrier.wait()
            started = time.process_time()
            run()
            times.append(time.process_time() - started)
        queue.put(times)

    members = [context.Process(target=body, args=(part,)) for part in np.array_split(positions, processes)]
    for member in members:
        member.start()
    results = [queue.get() for _ in members]
    for member in members:
        member.join()
    return min(max(turn) for turn in zip(*results, strict=True))


def rates(millions: float) -> None:
    n = int(millions * 1e6)
    positions = np.random.default_rng(0).uniform(0, BOX, (n, 3)).astype(np.float32)
    positions[positions >= BOX] = 0
    print(f"{n} particles, {SLABS} slabs of {PIXELS}^2 pixels, {os.cpu_count()} cores; million particles per second\n")
    print("| what | one process | two processes |\n|---|---|---|")
    for name, method in methods().items():
        row = [n / seconds(method, positions, processes) / 1e6 for processes in (1, 2)]
        print(f"| {name} | {row[0]:.1f} | {row[1]:.1f} |", flush=True)


def write_snapshot(folder: Path, side: int) -> Path:
    """Write side^3 uniform particles in pieces; return the first file."""
    n = side**3
    edges = [n * i // N_FILES for i in range(N_FILES + 1)]
    for i in range(N_FILES):
        n_here = edges[i + 1] - edges[i]
        rng = np.random.default_rng([side, i])
        with h5py.File(folder / f"snap.{i}.hdf5", "w") as handle:
            handle.create_group("Header").attrs.update(
                BoxSize=BOX,
                Redshift=0.0,
                Omega0=0.276,
                HubbleParam=0.7,
                NumFilesPerSnapshot=N_FILES,
                NumPart_ThisFile=np.array([0, n_here, 0, 0, 0, 0], np.uint32),
                NumPart_Total=np.array([0, n, 0, 0, 0, 0], np.uint32),
            )
            data = handle.create_dataset("PartType1/Coordinates", (n_here, 3), np.float32)
            for start in range(0, n_here, 2**20):
                size = min(2**20, n_here - start)
                data[start : start + size] = rng.random((size, 3), np.float32) * np.float32(BOX)
    return folder / "snap.0.hdf5"


def family_bytes(pid: int) -> int:
    """Memory of a process and its children, shared pages counted once."""
    pids, total = [pid], 0
    while pids:
        current = pids.pop()
        try:
            text = Path(f"/proc/{current}/smaps_rollup").read_text()
            total += 1024 * int(text.split("\nPss:")[1].split()[0])
            for task in Path(f"/proc/{current}/task").iterdir():
                pids += [int(child) for child in (task / "children").read_text().split()]
        except (OSError, IndexError):
            continue
    return total


def memory(side: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        snapshot = write_snapshot(folder, side)
        size = sum(file.stat().st_size for file in folder.iterdir())
        wall = time.perf_counter() - started
        print(f"{side}^3 particles in {N_FILES} files, {size / 1e9:.2f} GB, written in {wall:.0f} s")
        print("500 of 1000 slabs of 256^2 pixels along three axes\n")
        print("| assignment | memory asked for | processes | read | peak memory (GB) | wall (s) | particles/s |")
        print("|---|---|---|---|---|---|---|")
        for assignment, budget, processes in RUNS:
            peak, wall, n_passes = slice_once(snapshot, folder / "out.h5", assignment, budget, processes)
            cells = [assignment, budget, processes, f"{n_passes} x", f"{peak / 1e9:.2f}", f"{wall:.0f}"]
            print("|", " | ".join(map(str, cells)), f"| {side**3 / wall / 1e6:.1f} M |", flush=True)


def slice_once(snapshot: Path, out: Path, assignment: str, budget: str, processes: int) -> tuple[int, float, int]:
    words = ["slice", str(snapshot), "--out", str(out), "--pixels", "256", "--slabs", "1000", "--every", "2"]
    words += ["--assignment", assignment, "--memory", budget, "--processes", str(processes), "--overwrite"]
    log = out.with_name("log")
    started = time.perf_counter()
    with open(log, "w") as stream:
        process = subprocess.Popen([sys.executable, "-m", "cosmogan.cli", *words], stdout=stream, stderr=stream)
        peak = 0
        while process.poll() is None:
            peak = max(peak, family_bytes(process.pid))
            time.sleep(0.1)
    wall = time.perf_counter() - started
    text = log.read_text()
    if process.returncode:
        sys.exit(text)
    return peak, wall, int(text.split("are read ")[1].split()[0]) if "are read" in text else 1


def main() -> None:
    words = sys.argv[1:] or ["rates"]
    if words[0] == "rates":
        rates(float(words[1]) if len(words) > 1 else 4)
    elif words[0] == "memory":
        memory(int(words[1]) if len(words) > 1 else 512)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
