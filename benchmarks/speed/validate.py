"""Wall time and peak memory of `cosmogan validate`, mocks against as many reference slices of 256 x 256.

python benchmarks/speed/validate.py [--slices 2000 4000] [--pixels 256] [-- OPTIONS OF VALIDATE]

The slices are lognormal fields of eight realisations in a temporary folder (1 GB for twice 2000 slices). Each run is a
process of its own; memory that grows with the number of slices would show.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

N_REALISATIONS = 8
# Slices made at a time.
PIECE = 50


def write(path: Path, n_slices: int, n_pixels: int, contrast: float, seed: int) -> None:
    """Write lognormal slices with a red spectrum; the contrast of a realisation scatters by 2%."""
    import numpy as np

    from cosmogan.slices import SliceMetadata, SliceWriter

    rng = np.random.default_rng(seed)
    k = np.hypot(np.fft.fftfreq(n_pixels)[:, None], np.fft.rfftfreq(n_pixels)) * n_pixels
    amplitude = 1 / (1 + k)
    # Of the Gaussian field, by Parseval: columns other than the first and the last stand for two.
    weight = np.where((np.arange(k.shape[1]) == 0) | (2 * np.arange(k.shape[1]) == n_pixels), 1.0, 2.0)
    sigma = np.sqrt((weight * amplitude**2).sum()) / n_pixels
    contrasts = contrast * (1 + 0.02 * rng.normal(size=N_REALISATIONS))
    metadata = SliceMetadata(box_size=350.0, n_pixels=n_pixels, thickness=350 / 128, smoothing=1.0)
    with SliceWriter(path, metadata, n_slices=n_slices) as writer:
        for start in range(0, n_slices, PIECE):
            label = np.arange(start, min(start + PIECE, n_slices)) * N_REALISATIONS // n_slices
            modes = np.fft.rfft2(rng.normal(size=(len(label), n_pixels, n_pixels)).astype(np.float32))
            fields = np.fft.irfft2(modes * amplitude, s=(n_pixels, n_pixels)) / sigma
            strength = contrasts[label][:, None, None]
            writer.append(np.exp(strength * fields - strength**2 / 2).astype(np.float32), realisation=label)


def run(mocks: Path, reference: Path, out: Path, options: list[str]) -> tuple[float, float, float]:
    """Return wall time and CPU time in seconds, peak memory in GB."""
    words = [sys.executable, "-m", "cosmogan.cli", "validate", str(mocks), str(reference), "--out", str(out), *options]
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("cosmogan validate failed")
    # ru_maxrss is in kB on Linux.
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[2000, 4000])
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("options", nargs="*", help="options of cosmogan validate, after --")
    arguments = parser.parse_args()
    if arguments.write:
        path, n_slices, contrast, seed = json.loads(arguments.write)
        write(Path(path), n_slices, arguments.pixels, contrast, seed)
        return
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start\n", flush=True)
    print("| slices in each file | pixels | wall (s) | CPU (s) | peak memory (GB) | files (GB) |")
    print("|---|---|---|---|---|---|")
    for n_slices in arguments.slices:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = folder / "mocks.h5", folder / "reference.h5"
            for seed, (path, contrast) in enumerate(zip(files, (0.98, 1.0), strict=True)):
                # In processes of their own: a child's peak memory would count what its parent held when it started.
                job = json.dumps([str(path), n_slices, contrast, seed])
                subprocess.run(
                    [sys.executable, __file__, "--pixels", str(arguments.pixels), "--write", job], check=True
                )
            wall, cpu, memory = run(*files, folder / "report", arguments.options)
            size = sum(path.stat().st_size for path in files) / 1e9
            print(
                f"| {n_slices} | {arguments.pixels}² | {wall:.0f} | {cpu:.0f} | {memory:.2f} | {size:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
