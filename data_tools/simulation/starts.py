"""Starts: a coarse COLA run of a box, counted in slabs, that a network turns into slices.

What a thin slab inherits from the flow in three dimensions is in displaced particles, not in the linear density of the
slab (Tassev et al. 2013, arXiv:1301.0322: few steps keep large scales exact). A start has the phases, and the offset
of the particle lattice, of `cosmogan simulate` with the same seed.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data_tools.simulation.linear import PowerSpectrum
from data_tools.simulation.realisations import SimulationParameters, run_seed
from data_tools.slicing.slabs import SlabCounter

# Particles counted at a time.
_CHUNK = 2**20
_LARGEST_COUNT = 2**16 - 1


def start_counts(
    parameters: SimulationParameters,
    power: PowerSpectrum,
    seed: int,
    *,
    pixels: int,
    slabs: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Simulate a box coarsely and count its particles in slabs normal to the three axes.

    On a CPU the bits depend on the number of torch's threads (`torch.set_num_threads`), which share a sum.

    Parameters
    ----------
    parameters
        Parameters of the run: few steps, and a mesh as fine as the particles, make a cheap one.
    power
        Linear P(k) at redshift 0, (Mpc/h)^3 of h/Mpc, up to the corner of the initial grid.
    seed
        Seed of the phases and of the offset of the box.
    pixels, slabs
        Pixels along the side of a slice, and slabs along an axis.
    device
        Device to simulate on.

    Returns
    -------
        Particles per pixel (nearest grid point), shape ``(3, slabs, pixels, pixels)``, uint16; larger counts, which
        slices of boxes above 10 Mpc/h do not have, end at 65,535.
    """
    positions = run_seed(parameters, power, seed, device=torch.device(device))
    counter = SlabCounter(box_size=parameters.box_size, pixels=pixels, slabs=slabs)
    for first in range(0, len(positions), _CHUNK):
        counter.add(positions[first : first + _CHUNK])
    counts = np.stack([counter.counts(axis) for axis in range(3)])
    return torch.from_numpy(np.minimum(counts, _LARGEST_COUNT).astype(np.uint16))
