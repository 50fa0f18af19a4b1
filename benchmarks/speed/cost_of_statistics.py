"""Time per slice of every statistic of `cosmogan validate`, one thread, in one pass over a batch as `measure` makes it.

python benchmarks/speed/cost_of_statistics.py [FILE.h5]      default: lognormal slices made here
"""

import importlib
import inspect
import pkgutil
import platform
import sys
import time

import numpy as np
import torch

import cosmogan.statistics
from cosmogan.slices import SliceMetadata, SliceReader
from cosmogan.statistics.base import AbstractStatistic

SIDES = (256, 64)
# Pixels of a batch, as in cosmogan/statistics/measurement.py.
PIXELS = 2**22
REPETITIONS = 5


def lognormal(n_slices: int, n_pixels: int) -> torch.Tensor:
    """Return slices of 1 + delta with the skewness of simulated ones, float32."""
    line = np.fft.fftfreq(n_pixels, 1 / n_pixels)
    k = np.hypot(line[:, None], line[: n_pixels // 2 + 1])
    modes = np.fft.rfft2(np.random.default_rng(0).normal(size=(n_slices, n_pixels, n_pixels))) / (1 + k)
    gaussian = np.fft.irfft2(modes, s=(n_pixels, n_pixels))
    density = np.exp(1.5 * gaussian / gaussian.std())
    return torch.from_numpy((density / density.mean()).astype(np.float32))


def statistics() -> list[AbstractStatistic]:
    """Return one of every final class in `cosmogan.statistics`, module by module."""
    found = []
    for module in pkgutil.iter_modules(cosmogan.statistics.__path__, "cosmogan.statistics."):
        for _, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            final = issubclass(kind, AbstractStatistic) and not inspect.isabstract(kind)
            if final and kind.__module__ == module.name:
                found.append(kind())
    return sorted(found, key=lambda statistic: (type(statistic).__module__, statistic.name))


def best_times(fields: torch.Tensor, metadata: SliceMetadata) -> dict[str, float]:
    """Return the CPU time per slice, ms, of each statistic: the best of some passes, each over a tensor of its own."""
    best: dict[str, float] = {}
    for _ in range(REPETITIONS):
        batch = fields.clone()
        for statistic in statistics():
            started = time.process_time()
            statistic.per_slice(batch, metadata)
            passed = 1e3 * (time.process_time() - started) / len(batch)
            best[statistic.name] = min(passed, best.get(statistic.name, passed))
    return best


def main() -> None:
    torch.set_num_threads(1)
    columns = {}
    if len(sys.argv) > 1:
        with SliceReader(sys.argv[1]) as reader:
            n_pixels = reader.metadata.n_pixels
            fields = torch.from_numpy(reader.density(0, min(reader.n_slices, PIXELS // n_pixels**2)))
            columns[n_pixels] = best_times(fields, reader.metadata)
    else:
        for n_pixels in SIDES:
            metadata = SliceMetadata(box_size=100.0, n_pixels=n_pixels, thickness=1.0)
            columns[n_pixels] = best_times(lognormal(PIXELS // n_pixels**2, n_pixels), metadata)
    print(f"torch {torch.__version__}, {platform.machine()}, one thread; CPU time per slice, best of {REPETITIONS}\n")
    print("| statistic |" + "".join(f" {n}² (ms) |" for n in columns) + "\n|---|" + "---|" * len(columns))
    for name in next(iter(columns.values())):
        print(f"| {name} |" + "".join(f" {times[name]:.3f} |" for times in columns.values()))
    print("| all |" + "".join(f" {sum(times.values()):.3f} |" for times in columns.values()))


if __name__ == "__main__":
    main()
