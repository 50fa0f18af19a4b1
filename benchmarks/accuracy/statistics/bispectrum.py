"""Bispectrum against a direct sum over all closed triangles, on lognormal maps. Prints the table of the README."""

import itertools
import sys
import time

import numpy as np
import torch

from cosmogan.statistics.bispectrum import EquilateralBispectrum, IsoscelesBispectrum, bispectrum

BOX = 70.0
# Sums of up to a million float64 products in another order.
AGREEMENT = 1e-11


def ring(low: int, high: int) -> list[tuple[int, int]]:
    reach = range(-high, high + 1)
    return [(a, b) for a, b in itertools.product(reach, reach) if low**2 <= a * a + b * b < high**2]


def direct_sum(modes: np.ndarray, leg: np.ndarray, third: np.ndarray) -> float:
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
    return BOX**4 / n**6 * total.real / count


def main() -> int:
    worst = 0.0
    print("| pixels | triangles | triples of rings | largest relative difference | direct sum | cosmogan |")
    print("|---|---|---|---|---|---|")
    for n, statistic in itertools.product((48, 64, 128, 256), (EquilateralBispectrum(), IsoscelesBispectrum())):
        delta = np.exp(np.random.default_rng(n).normal(size=(n, n))) / np.exp(0.5) - 1
        rings = statistic.rings(n)
        bispectrum(torch.from_numpy(delta)[None], BOX, *rings)
        start = time.perf_counter()
        found = bispectrum(torch.from_numpy(delta)[None], BOX, *rings)[0].numpy()
        middle = time.perf_counter()
        modes = np.fft.fft2(delta)
        expected = [direct_sum(modes, leg, third) for leg, third in zip(*rings, strict=True)]
        seconds = time.perf_counter() - middle
        difference = float(np.max(np.abs(found / expected - 1)))
        worst = max(worst, difference)
        name = statistic.name.removeprefix("bispectrum_")
        times = f"{seconds:.2g} s | {1e3 * (middle - start):.2g} ms"
        print(f"| {n}² | {name} | {len(found)} | {difference:.1e} | {times} |")
    return int(worst > AGREEMENT)


if __name__ == "__main__":
    sys.exit(main())
