"""Random numbers: streams that belong to one slice, and seeds made of several numbers."""

from __future__ import annotations

import numpy as np

# Purposes of a slice's streams; those of one never meet those of another.
LATENTS, COUNTS = 0, 1


def slice_stream(seed: int, i: int, purpose: int = LATENTS) -> np.random.Generator:
    """Return the random numbers of slice ``i`` of a seed, whatever else is drawn.

    Parameters
    ----------
    seed
        Seed of the run, from 0.
    i
        Number of the slice, from 0.
    purpose
        `LATENTS` or `COUNTS`.

    Examples
    --------
    >>> slice_stream(3, 5).random() == np.random.Generator(np.random.Philox(key=3, counter=[0, 0, 0, 5])).random()
    True
    """
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, purpose, i]))


def derive_seed(*words: int) -> int:
    """Return a seed of 63 bits that depends on all numbers and their order.

    Examples
    --------
    >>> derive_seed(1, 2) == derive_seed(1, 2), derive_seed(1, 2) == derive_seed(2, 1)
    (True, False)
    """
    # The number of words too: a seed sequence does not tell trailing zeros.
    return int(np.random.SeedSequence([len(words), *map(int, words)]).generate_state(1, np.uint64)[0] >> 1)
