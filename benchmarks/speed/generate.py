"""Mock slices to a file beside the bare network: what random numbers, checksums and HDF5 cost.

python benchmarks/speed/generate.py EMULATOR [SLICES [ROUNDS]]     default: 1024 5; writes and removes some files

The bare network computes the same latents again and again, in blocks as `cosmogan generate` does, one thread each, on
as many threads as OMP_NUM_THREADS says; "shared" gives all threads to each block, as torch does by itself. The rounds
alternate, and of each row the best round counts. Wall time answers what is waited for; processor time what other
programs on the machine disturb little.
"""

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cosmogan import Emulator
from cosmogan.emulator.emulator import latents
from cosmogan.emulator.generate import generate
from cosmogan.machine.threads import map_in_order

FILES = {
    "cosmogan generate, float32": {},
    "cosmogan generate, float16": {"dtype": "float16"},
    "cosmogan generate, float32, gzip": {"compression": "gzip"},
    "cosmogan generate, counts of mean 8": {"quantity": "counts", "mean_count": 8.0},
}


def measured(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    path = sys.argv[1]
    n, rounds = ([int(word) for word in sys.argv[2:]] + [1024, 5][len(sys.argv) - 2 :])[:2]
    model = Emulator.load(path)
    size = model.block_size
    n -= n % size
    latent = torch.from_numpy(latents(range(size), model.generator.latent_shape, seed=0))

    def bare() -> None:
        for _ in map_in_order(lambda _: model.density(latent), range(n // size)):
            pass

    def shared() -> None:
        for _ in range(n // size):
            model.density(latent)

    def blocks() -> None:
        for _ in model.blocks(n, seed=0):
            pass

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "mocks.h5"

        def write(options: dict) -> Callable[[], object]:
            def work() -> None:
                with contextlib.redirect_stderr(io.StringIO()):
                    generate(path, n=n, out=str(out), overwrite=True, **options)

            return work

        rows = {"bare network": bare, "bare network, shared": shared, "Emulator.blocks": blocks}
        rows |= {name: write(options) for name, options in FILES.items()}
        best: dict[str, tuple[float, float]] = {}
        for _ in range(rounds):
            for name, work in rows.items():
                out.unlink(missing_ok=True)
                now = measured(work)
                before = best.get(name, now)
                best[name] = (min(now[0], before[0]), min(now[1], before[1]))
    side = model.metadata.n_pixels
    print(f"{n} slices of {side} x {side}, {torch.get_num_threads()} threads, best of {rounds} rounds\n")
    print("| | slices/s | of the bare network | processor time per slice (ms) | of the bare network |")
    print("|---|---|---|---|---|")
    wall, cpu = best["bare network"]
    for name, (seconds, used) in best.items():
        print(f"| {name} | {n / seconds:.0f} | {wall / seconds:.2f} | {1e3 * used / n:.2f} | {cpu / used:.2f} |")


if __name__ == "__main__":
    main()
