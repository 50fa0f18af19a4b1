"""Bispectrum against a direct sum over all closed triangles.

python bispectrum.py [SLICE_FILE ...]      prints the table, rewrites bispectrum.json; exit code 1 if any disagrees
"""

from __future__ import annotations

import itertools
import sys
import time
from typing import Any

import numpy as np
import torch
from samples import Sample, largest_difference, lognormal, of_files, stored, write

from cosmogan.statistics.bispectrum import EquilateralBispectrum, IsoscelesBispectrum, bispectrum

# Sums of up to a million float64 products in another order.
AGREEMENT = 1e-11


def ring(low: int, high: int) -> list[tuple[int, int]]:
    reach = range(-high, high + 1)
    return [(a, b) for a, b in itertools.product(reach, reach) if low**2 <= a * a + b * b < high**2]


def direct_sum(modes: np.ndarray, box_size: float, leg: np.ndarray, third: np.ndarray) -> float:
    """Mean over closed triangles, with no transform of products; shares nothing with the package."""
    n = len(modes)
    legs, allowed = np.array(ring(*leg)), np.zeros((4 * n + 1, 4 * n + 1), dtype=bool)
    for a, b in ring(*third):
        allowed[a, b] = True
    total, count = 0j, 0
    for k in legs:
        last = -(k + legs)
        closed = allowed[last[:, 0], last[:, 1]]
        second, last = legs[closed], last[closed]
        total += modes[k[0], k[1]] * np.sum(modes[second[:, 0], second[:, 1]] * modes[last[:, 0] % n, last[:, 1] % n])
        count += len(last)
    return box_size**4 / n**6 * total.real / count


def compare(name: str, delta: np.ndarray, box_size: float) -> tuple[float, dict[str, Any]]:
    """Print the rows of one slice; return the largest difference and the direct sums."""
    worst, sums = 0.0, {}
    modes, tensor = np.fft.fft2(delta), torch.from_numpy(delta)[None]
    for statistic in (EquilateralBispectrum(), IsoscelesBispectrum()):
        rings = statistic.rings(len(delta))
        # The first call counts triangles, once for all slices.
        bispectrum(tensor, box_size, *rings)
        start = time.perf_counter()
        found = bispectrum(tensor, box_size, *rings)[0].numpy()
        middle = time.perf_counter()
        expected = np.array([direct_sum(modes, box_size, leg, third) for leg, third in zip(*rings, strict=True)])
        seconds = time.perf_counter() - middle
        # Triangles of either sign may cancel: in units of the largest value.
        difference = largest_difference(found, expected, np.abs(expected).max())
        worst = max(worst, difference)
        shape = statistic.name.removeprefix("bispectrum_")
        times = f"{seconds:.2g} s | {1e3 * (middle - start):.2g} ms"
        print(f"| {name} {len(delta)}² | {shape} | {len(found)} | {difference:.1e} | {times} |", flush=True)
        sums[shape] = {"legs": rings[0].tolist(), "thirds": rings[1].tolist(), "bispectrum": expected.tolist()}
    return worst, sums


def main() -> int:
    print("| slice | triangles | triples of rings | largest difference | direct sum | cosmogan |")
    print("|---|---|---|---|---|---|")
    small = stored()
    differences, results = [], {}
    for name, sample in small.items():
        difference, results[name] = compare(f"stored counts, {name},", sample.density[0] - 1, sample.box_size)
        differences.append(difference)
    made = [Sample("lognormal", lognormal(1, n, 1.0, n), 70.0) for n in (48, 64, 128, 256)]
    for sample in [*made, *of_files(sys.argv[1:])]:
        differences.append(compare(sample.name, sample.density[0] - 1, sample.box_size)[0])
    write("bispectrum", ["numpy"], results)
    # A NaN agrees with nothing.
    return int(not np.max(differences) <= AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
