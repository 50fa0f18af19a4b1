"""Training batches from a slice file beside a raw np.memmap of the same pixels, page cache warm.

python benchmarks/speed/batches.py [SLICES [PIXELS]]     default: 1500 256; writes 8 SLICES PIXELS^2 bytes, removes them

Both deliver float32 tensors of 16 shuffled slices. Rates are the best of five epochs; the first row counts opening,
checking and loading the file as well. Processor time, so that other programs on the machine count little.
"""

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from cosmogan.slices import SliceReader, write_example
from cosmogan.training.data import SliceDataModule, augment

BATCH = 16
EPOCHS = 5
# So many slices in all realisations are one hundredth of those to train with.
N_REALISATIONS = 101


def memmap_batches(path: Path, shape: tuple[int, ...], seed: int) -> Iterator[torch.Tensor]:
    pixels = np.memmap(path, np.float32, "r", shape=shape)
    order = np.random.default_rng(seed).permutation(len(pixels))
    for start in range(0, len(order), BATCH):
        yield torch.from_numpy(pixels[order[start : start + BATCH]])


def used(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    n_slices, n_pixels = ([int(word) for word in sys.argv[1:]] + [1500, 256][len(sys.argv) - 1 :])[:2]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
        path, raw = Path(name) / "slices.h5", Path(name) / "slices.raw"
        per_realisation = -(-n_slices // (N_REALISATIONS - 1))
        write_example(path, n_realisations=N_REALISATIONS, n_slices=per_realisation, n_pixels=n_pixels)
        n_training = per_realisation * (N_REALISATIONS - 1)
        shape = (n_training, n_pixels, n_pixels)
        with SliceReader(path) as reader, open(raw, "wb") as stream:
            for start in range(0, n_training, 64):
                stream.write(reader.read(start, min(start + 64, n_training)).tobytes())

        def exhaust(batches: Iterator) -> None:
            n = sum(len(getattr(batch, "density", batch)) for batch in batches)
            assert n >= n_training

        modules = []
        first = {
            "np.memmap": used(lambda: exhaust(memmap_batches(raw, shape, 0))),
            "SliceDataModule": used(
                lambda: (
                    modules.append(SliceDataModule(str(path), batch_size=BATCH, slices_per_epoch=n_training)),
                    exhaust(iter(modules[0].train_dataloader())),
                )
            ),
        }
        loader = modules[0].train_dataloader()
        later = {
            "np.memmap": min(used(lambda: exhaust(memmap_batches(raw, shape, 1))) for _ in range(EPOCHS)),
            "SliceDataModule": min(used(lambda: exhaust(iter(loader))) for _ in range(EPOCHS)),
        }
        batch = next(iter(loader)).density
        turned = min(used(lambda: augment(batch, seed=0)) for _ in range(EPOCHS))
    print(f"{n_training} slices of {n_pixels}^2 float32, {4 * n_training * n_pixels**2 / 1e9:.2f} GB\n")
    print("| | np.memmap (s) | SliceDataModule (s) | speed relative to np.memmap |\n|---|---|---|---|")
    for what, times in (("first epoch with opening and checks", first), ("later epochs", later)):
        theirs, ours = times["np.memmap"], times["SliceDataModule"]
        print(f"| {what} | {theirs:.3f} | {ours:.3f} | {theirs / ours:.2f} |")
    print(f"\nrolling and turning, which np.memmap does not do: {n_training / BATCH * turned:.2f} s for each epoch")


if __name__ == "__main__":
    main()
