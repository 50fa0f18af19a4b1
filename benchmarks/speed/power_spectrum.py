"""P(k) of 512 slices of 256 x 256: cosmogan against Pylians, powerbox and plain numpy, side by side in one run.

python benchmarks/speed/power_spectrum.py [--rounds 7] [--slices 512] [--pixels 256] [--threads 1 2]

All codes run once per round, one after the other, so that a busy machine slows all alike; ratios are those of the best
rounds. How to install Pylians and powerbox: benchmarks/accuracy/statistics/README.md.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np
import torch

from cosmogan.statistics.power_spectrum import power_spectrum, radial_bins

BOX = 350.0
# Pylians transforms in float32.
AGREEMENT = 1e-5


def cosmogan(delta: np.ndarray, threads: int) -> np.ndarray:
    torch.set_num_threads(threads)
    return power_spectrum(torch.from_numpy(delta), BOX).numpy()


def pylians(delta: np.ndarray, threads: int) -> np.ndarray:
    import Pk_library

    n = delta.shape[-1] // 2 - 1
    return np.stack([Pk_library.Pk_plane(one, BOX, "None", threads, verbose=False).Pk[:n] for one in delta])


def powerbox(delta: np.ndarray, threads: int) -> np.ndarray:
    from powerbox import get_power

    edges = (np.arange(1, delta.shape[-1] // 2 + 1) - 1e-6) * 2 * np.pi / BOX
    return np.stack([get_power(one, boxlength=BOX, bins=edges, nthreads=threads).power for one in delta])


def numpy(delta: np.ndarray, threads: int) -> np.ndarray:
    """As a careful user would write it: rings and weights once, then rfft2 and bincount for each slice."""
    n = delta.shape[-1]
    rows, columns = np.fft.fftfreq(n, 1 / n), np.arange(n // 2 + 1)
    ring = np.floor(np.hypot(rows[:, None], columns) + 1e-6).astype(int).ravel()
    weight = np.broadcast_to(np.where((columns == 0) | (2 * columns == n), 1.0, 2.0), (n, n // 2 + 1)).ravel()
    modes = np.bincount(ring, weight)[1 : n // 2]
    found = []
    for one in delta:
        power = np.abs(np.fft.rfft2(one).ravel()) ** 2 * weight
        found.append(np.bincount(ring, power)[1 : n // 2] / modes)
    return np.stack(found) * BOX**2 / n**4


CODES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "cosmogan": cosmogan,
    "Pylians Pk_plane": pylians,
    "powerbox get_power": powerbox,
    "numpy rfft2, bincount": numpy,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slices", type=int, default=512)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    shape = (arguments.slices, arguments.pixels, arguments.pixels)
    delta = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    # Rings are made once per process.
    radial_bins(arguments.pixels)
    runs = [(name, threads) for threads in arguments.threads for name in CODES if threads == 1 or "numpy" not in name]
    wall: dict[tuple[str, int], list[float]] = {run: [] for run in runs}
    cpu: dict[tuple[str, int], list[float]] = {run: [] for run in runs}
    expected = numpy(delta, 1)
    for _ in range(arguments.rounds):
        for name, threads in runs:
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            found = CODES[name](delta, threads)
            wall[name, threads].append(time.perf_counter() - wall_start)
            cpu[name, threads].append(time.process_time() - cpu_start)
            if not np.max(np.abs(found / expected - 1)) < AGREEMENT:
                raise SystemExit(f"{name}: P(k) differs from numpy by more than {AGREEMENT:g}")

    print(f"{' x '.join(map(str, shape))} float32, {arguments.rounds} rounds, {os.cpu_count()} cores, load at the end:")
    print(f"{os.getloadavg()[0]:.1f}. Ratios: time of Pylians with as many threads over that of the code.\n")
    print("| code | threads | best (s) | median (s) | best CPU time (s) | ratio | ratio of CPU times |")
    print("|---|---|---|---|---|---|---|")
    for run in runs:
        reference = ("Pylians Pk_plane", run[1])
        best, least = min(wall[run]), min(cpu[run])
        print(
            f"| {run[0]} | {run[1]} | {best:.3f} | {np.median(wall[run]):.3f} | {least:.3f} | "
            f"{min(wall[reference]) / best:.2f} | {min(cpu[reference]) / least:.2f} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
