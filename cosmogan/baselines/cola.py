"""A coarse simulation and two tables: what a network that starts from gravity has to beat.

The tables are those of `GravityStartGenerator`: a filter of ln(1 + n), n particles in a pixel, and a map of its values,
fitted to P(k), to P(k) of ln(1 + delta + .05) and to the pixels of the training slices.
"""

from __future__ import annotations

import json

import numpy as np
import torch

from cosmogan.emulator.emulator import Emulator
from cosmogan.emulator.starts import BoxStarts, StartMaker, box_seed, make_boxes
from cosmogan.errors import UserError
from cosmogan.networks.field import BATCH
from cosmogan.networks.gravity_start import GravityStartGenerator
from cosmogan.slices import SliceReader
from cosmogan.transforms import LogTransform

# Slices that the tables are fitted to, at most, of whole boxes.
_MOST = 8192
_REFIT_SEED = 2**31 - 4


def fit_cola(reader: SliceReader, *, steps: int, particles: int | None) -> Emulator:
    """Return an emulator without a trained network.

    Parameters
    ----------
    reader
        Slices of simulations. Where they are of `cosmogan simulate` the tables are fitted with the same phases.
    steps
        COLA steps, on a mesh as fine as the particles.
    particles
        Particles along a side; by default as many as the simulations had.

    Raises
    ------
    UserError
        If the number of particles is not known, slices are no whole numbers of particles, or CAMB is missing.
    """
    metadata = reader.metadata
    same = "particles" in reader.provenance.get("parameters", "")
    own = int(_parameters(reader)["particles"]) if same else None
    particles = own if particles is None else particles
    if particles is None:
        raise UserError(
            f"{reader.path}: does not say how many particles its simulations had; give --particles, along a side"
        )
    same = same and particles == own
    n_slabs = round(metadata.box_size / metadata.thickness)
    generator = GravityStartGenerator(
        metadata.n_pixels,
        start_particles=particles,
        start_steps=steps,
        width=2,
        mean_count=particles**3 / (metadata.n_pixels**2 * n_slabs),
    ).eval()
    maker = StartMaker(generator, metadata)
    maker.tabulate()
    labels = np.unique(reader.realisation)[: max(1, _MOST // maker.n_per_box)]
    rows = np.flatnonzero(np.isin(reader.realisation, labels))
    density = torch.from_numpy(np.concatenate([reader.density(row, row + 1) for row in rows.tolist()]))
    transform = LogTransform()
    transform.fit(density)
    generator.prepare(density, transform=transform, metadata=metadata, seed=0)
    seeds = labels.tolist() if same else [box_seed(_REFIT_SEED, box) for box in range(len(labels))]
    generator.starts = BoxStarts(make_boxes(maker, seeds))
    generator.refit(seed=_REFIT_SEED, n_mocks=max(BATCH, len(generator.starts)))
    return Emulator(generator, transform, metadata=metadata)


def _parameters(reader: SliceReader) -> dict[str, float]:
    found: dict[str, float] = json.loads(reader.provenance["parameters"])
    return found
