"""Starts of slices: coarse simulations of whole boxes, and the slab of each slice with its two neighbours.

Here the network (`GravityStartGenerator`) meets the physics (`data_tools.simulation`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cosmogan.errors import UserError
from cosmogan.machine.threads import map_in_order
from cosmogan.networks.gravity_start import N_LINEAR, GravityStartGenerator
from cosmogan.seeds import derive_seed
from cosmogan.slices import SliceMetadata
from data_tools.simulation.linear import linear_power
from data_tools.simulation.realisations import SimulationParameters
from data_tools.simulation.starts import start_counts

N_AXES = 3
# As `cosmogan simulate`: a start has the phases of a simulation at any redshift.
_START_REDSHIFT = 9.0
# Beyond the longest and the shortest wave of a box, so that rounding leaves none outside the table.
_MARGIN = 1e-3
# Marks the random stream of mock boxes apart from others of the same seed.
_BOXES = 26


class StartMaker:
    """Makes the coarse simulations that an emulator starts from.

    Parameters
    ----------
    generator
        Network that says how coarse they are, and holds the linear power spectrum.
    metadata
        Metadata of the slices.

    Raises
    ------
    UserError
        If there are no such simulations, as where slabs do not fill the box.
    """

    def __init__(self, generator: GravityStartGenerator, metadata: SliceMetadata) -> None:
        self.n_pixels = metadata.n_pixels
        self.n_slabs = round(metadata.box_size / metadata.thickness)
        if abs(self.n_slabs * metadata.thickness / metadata.box_size - 1) > _MARGIN:
            raise UserError(
                f"a start is cut into slabs that fill its box of {metadata.box_size:g} Mpc/h, and slices "
                f"{metadata.thickness:g} Mpc/h thick do not; take SpectralPriorGenerator for these"
            )
        particles = generator.start_particles
        self.parameters = SimulationParameters(
            box_size=metadata.box_size,
            particles=particles,
            mesh=particles if generator.start_mesh is None else generator.start_mesh,
            steps=generator.start_steps,
            start_redshift=_START_REDSHIFT,
            redshift=metadata.redshift,
            cosmology=metadata.cosmology,
        )
        self._generator = generator

    @property
    def n_per_box(self) -> int:
        """Slices of a box: all slabs along three axes."""
        return N_AXES * self.n_slabs

    def tabulate(self) -> None:
        """Give the generator the linear power spectrum of its cosmology, by CAMB.

        Raises
        ------
        UserError
            If CAMB is missing, or a parameter of the cosmology.
        """
        box = self.parameters.box_size
        corner = math.sqrt(3) * math.pi * self.parameters.particles / box
        ends = math.log(2 * math.pi / box * (1 - _MARGIN)), math.log(corner * (1 + _MARGIN))
        wavenumber = np.exp(np.linspace(*ends, N_LINEAR))
        power = linear_power(self.parameters.cosmology, float(wavenumber[-1]) * (1 + _MARGIN))(wavenumber)
        self._generator.linear_wavenumber.copy_(torch.from_numpy(wavenumber))
        self._generator.linear_power.copy_(torch.from_numpy(power))

    def require_phases(self, path: Path, provenance: Mapping[str, Any], way_out: str) -> None:
        """Refuse a slice file whose boxes have no start of the same phases.

        Parameters
        ----------
        path, provenance
            File and what it says of its making.
        way_out
            End of the sentence.

        Raises
        ------
        UserError
            If the file does not say how it was simulated, or its phases lie on another grid.
        """
        try:
            found = json.loads(provenance["parameters"])
            particles, box_size = int(found["particles"]), float(found["box_size"])
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"{path}: does not say how its slices were simulated, as files of `cosmogan simulate` do, so that "
                f"starts of the same phases cannot be made; {way_out}"
            ) from None
        wanted = self.parameters
        if particles != wanted.particles or not math.isclose(box_size, wanted.box_size, rel_tol=_MARGIN):
            raise UserError(
                f"{path}: was simulated with {particles}^3 particles in {box_size:g} Mpc/h; starts of the same phases "
                f"have {wanted.particles}^3 in {wanted.box_size:g} Mpc/h (start_particles of the generator); {way_out}"
            )

    def counts(self, seed: int) -> Tensor:
        """Return the particles of a box in slabs, shape ``(3, n_slabs, n_pixels, n_pixels)``, int16.

        Parameters
        ----------
        seed
            Seed of phases and offset, as for `cosmogan simulate`.

        Raises
        ------
        UserError
            If the generator holds no linear power spectrum.
        """
        table = [each.cpu().numpy() for each in (self._generator.linear_wavenumber, self._generator.linear_power)]
        if not table[1].all():
            raise UserError("this emulator holds no linear power spectrum to start from; train it anew")
        log_k, log_power = map(np.log, table)

        def power(wavenumber: np.ndarray) -> np.ndarray:
            return np.exp(np.interp(np.log(wavenumber), log_k, log_power))

        counts = start_counts(self.parameters, power, seed, pixels=self.n_pixels, slabs=self.n_slabs)
        # torch cannot index uint16.
        return torch.from_numpy(np.minimum(counts.numpy(), np.iinfo(np.int16).max).astype(np.int16))


class BoxStarts:
    """Slices of some boxes, each with its two neighbours.

    Parameters
    ----------
    counts
        Particles per pixel, shape ``(n_boxes, 3, n_slabs, side, side)``.
    place
        Box, axis and slab of each slice, whole numbers of shape ``(n, 3)``; every slab of every box if None.
    """

    def __init__(self, counts: Tensor, place: np.ndarray | None = None) -> None:
        self.counts = counts
        if place is None:
            place = np.stack(np.unravel_index(np.arange(math.prod(counts.shape[:3])), counts.shape[:3]), 1)
        self.place = place

    def __len__(self) -> int:
        return len(self.place)

    def take(self, index: np.ndarray) -> Tensor:
        """Return particles per pixel of slab, slab below and slab above, shape ``(n, 3, side, side)``, float32."""
        return neighbours(self.counts, torch.from_numpy(self.place[index]))


def neighbours(counts: Tensor, place: Tensor) -> Tensor:
    """Return slab, slab below and slab above, ``(n, 3, side, side)``, of box, axis and slab, ``(n, 3)``; periodic."""
    box, axis, slab = place.T
    n_slabs = counts.shape[2]
    return torch.stack([counts[box, axis, (slab + step) % n_slabs] for step in (0, -1, 1)], 1).float()


def make_boxes(maker: StartMaker, seeds: Sequence[int]) -> Tensor:
    """Simulate boxes, one per processor at a time, with the same bits for any number of them.

    Returns
    -------
        Shape ``(len(seeds), 3, n_slabs, side, side)``, int16.
    """
    boxes = tqdm(map_in_order(maker.counts, seeds), total=len(seeds), desc="starts", unit="box", disable=None)
    return torch.stack(list(boxes))


def box_seed(seed: int, box: int) -> int:
    """Return the seed of a box of mocks: none that people give to simulations, so that mocks are new."""
    return derive_seed(seed, _BOXES, box)


class MockBoxes:
    """The boxes of a run of mocks, made when they are needed; the last ones are kept.

    Parameters
    ----------
    maker
        Maker of the boxes.
    per_box
        Slices taken of each; all by default. Fewer are spread over the box, so that they resemble each other less.
    seeds
        Seeds of the boxes, for mocks of the phases of simulations; by default they follow from the seed of the run.

    Raises
    ------
    UserError
        If a box has not so many slices.
    """

    def __init__(self, maker: StartMaker, per_box: int | None = None, seeds: tuple[int, ...] | None = None) -> None:
        self.maker, self.seeds = maker, seeds
        self.per_box = maker.n_per_box if per_box is None else per_box
        if not 1 <= self.per_box <= maker.n_per_box:
            raise UserError(
                f"slices_per_box: expected 1 to {maker.n_per_box}, the slabs of a box along three axes, found "
                f"{self.per_box}"
            )
        self._counts = lru_cache(maxsize=max(2, 2 * torch.get_num_threads()))(
            lambda seed, box: maker.counts(box_seed(seed, box) if seeds is None else seeds[box])
        )

    @property
    def n_slices(self) -> int | None:
        """Slices of all boxes; None where there is no end of them."""
        return None if self.seeds is None else self.per_box * len(self.seeds)

    def places(self, numbers: Sequence[int]) -> np.ndarray:
        """Return box, axis and slab of slices with these numbers, shape ``(n, 3)``."""
        number = np.asarray(numbers, np.int64)
        box, within = np.divmod(number, self.per_box)
        # As if every slice of the box were there and some had been left out, evenly.
        whole = within * self.maker.n_per_box // self.per_box
        return np.stack([box, *np.divmod(whole, self.maker.n_slabs)], 1)

    def take(self, numbers: Sequence[int], seed: int) -> Tensor:
        """Return slab, slab below and slab above of slices of one box, ``(n, 3, side, side)``, float32."""
        place = torch.from_numpy(self.places(numbers))
        counts = self._counts(seed, int(place[0, 0]))
        place[:, 0] = 0
        return neighbours(counts[None], place)
