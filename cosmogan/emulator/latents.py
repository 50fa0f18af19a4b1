"""The random numbers that slices are made of, each slice with its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cosmogan.seeds import slice_stream

LATENTS_RECIPE = (
    "slice i of a seed: numpy.random.Generator(numpy.random.Philox(key=seed, counter=[0, 0, 0, i]))"
    ".standard_normal(latent_shape, dtype=numpy.float32)"
)


def latents(index: Sequence[int], shape: tuple[int, ...], *, seed: int) -> np.ndarray:
    """Return the standard normal numbers of slices, float32, shape ``(len(index), *shape)``.

    Those of slice i are the first of ``numpy.random.Generator(numpy.random.Philox(key=seed, counter=[0, 0, 0, i]))``,
    so that any program with NumPy can make them for any slice alone.
    """
    out = np.empty((len(index), *shape), np.float32)
    for row, i in zip(out, index, strict=True):
        slice_stream(seed, i).standard_normal(dtype=np.float32, out=row)
    return out


def by_block(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Iterate over the places of those numbers that share a block."""
    if isinstance(numbers, range):
        for start in range(numbers[0] - numbers[0] % size, numbers[-1] + 1, size):
            low, high = max(start, numbers[0]), min(start + size, numbers[-1] + 1)
            yield range(low - numbers[0], high - numbers[0])
        return
    by_block: dict[int, list[int]] = {}
    for place, number in enumerate(numbers):
        by_block.setdefault(number // size, []).append(place)
    yield from by_block.values()
