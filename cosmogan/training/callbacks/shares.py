"""Measurements on sets of slices, each process doing its share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import lightning as L
import numpy as np
import torch
from torch import Tensor


def measure_shared(
    trainer: L.Trainer,
    n_slices: int,
    n_values: int,
    measure: Callable[[Sequence[int]], Tensor],
    *,
    block: int,
    device: torch.device,
) -> np.ndarray:
    """Measure slices block by block and return, in every process, what all of them measured.

    A block is measured by one process, as it would be by one alone, and its values are added to zeros: the result has
    the same bits for any number of processes.

    Parameters
    ----------
    trainer
        Trainer of the processes, which all have to call this.
    n_slices, n_values
        Numbers of slices and of values per slice.
    measure
        Numbers of some slices to their values, shape ``(len(numbers), n_values)``.
    block
        Slices measured at a time.
    device
        Device that processes exchange numbers on.

    Returns
    -------
        Shape ``(n_slices, n_values)``, float64.
    """
    values = torch.zeros(n_slices, n_values, dtype=torch.float64, device=device)
    for start in range(trainer.global_rank * block, n_slices, trainer.world_size * block):
        numbers = range(start, min(start + block, n_slices))
        values[numbers.start : numbers.stop] = measure(numbers).to(values)
    total: Tensor = trainer.strategy.reduce(values, reduce_op="sum")
    return total.cpu().numpy()
