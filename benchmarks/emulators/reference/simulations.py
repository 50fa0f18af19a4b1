"""Simulations to slices, all on one device: no snapshots, no CAMB, nothing but slices leaves the GPU.

The same seeds give the simulations of ``cosmogan simulate`` to rounding: noise is drawn by numpy on the host (one
realisation or two ahead, in threads), everything else is done where the particles are.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from cosmogan import __version__
from cosmogan.errors import UserError
from cosmogan.files import replaced
from cosmogan.networks.smoothing import gaussian_kernel, smooth
from cosmogan.slices import SliceMetadata, SliceReader, SliceWriter
from cosmogan.units import RODRIGUEZ2018, Cosmology
from data_tools.simulation.cola import evolve
from data_tools.simulation.particle_mesh import transform
from data_tools.simulation.realisations import SimulationParameters, default_steps

# Side in Mpc/h by the name of the box.
BOXES = {"box500": 350.0, "box100": 70.0}
TABLE = Path(__file__).with_name("linear_power.json")
# As in `cosmogan simulate`: the stream of the offsets, force cells per particle spacing.
_OFFSET_STREAM, _MESH_FACTOR = 1, 2
# Particles whose cells are found at a time, slices that are smoothed at a time.
_PARTICLES, _SLICES = 2**24, 128


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Simulations and slices of a case.

    Parameters
    ----------
    particles, pixels, slabs
        Along a side of the box; pixels are a multiple of slabs.
    every
        Every n-th slab is kept: neighbours are nearly the same slice (the paper kept every other one).
    training, test
        Realisations asked for.
    """

    particles: int
    pixels: int
    slabs: int
    every: int
    training: int
    test: int
    smoothing: float = 1.0

    @property
    def n_slices(self) -> int:
        """Slices of a realisation."""
        return 3 * len(range(0, self.slabs, self.every))


GEOMETRIES = {
    "gpu": Geometry(particles=512, pixels=256, slabs=256, every=2, training=32, test=16),
    "cpu": Geometry(particles=256, pixels=256, slabs=128, every=1, training=16, test=8),
    "toy": Geometry(particles=32, pixels=32, slabs=32, every=1, training=4, test=2),
}


class LinearPower:
    """P(k) at redshift 0 from the table beside this file, linear in log-log.

    Raises
    ------
    UserError
        If the table is for another cosmology or ends below ``k_max``.
    """

    def __init__(self, cosmology: Cosmology, k_max: float) -> None:
        table = json.loads(TABLE.read_text(encoding="utf-8"))
        if table["cosmology"] != cosmology.known():
            raise UserError(f"{TABLE.name}: is for the cosmology {table['cosmology']}, not for {cosmology.known()}")
        if k_max > table["k_max"]:
            raise UserError(f"{TABLE.name}: ends at k = {table['k_max']:g} h/Mpc; {k_max:.3g} is needed")
        self._power = torch.tensor(table["log_power"], dtype=torch.float64)
        self._start = math.log(table["k_min"])
        self._step = math.log(table["k_max"] / table["k_min"]) / (len(self._power) - 1)

    def __call__(self, wavenumber: Tensor) -> Tensor:
        """Return P in (Mpc/h)^3 of k in h/Mpc, both float64."""
        power = self._power.to(wavenumber.device)
        place = ((torch.log(wavenumber) - self._start) / self._step).clamp(0, len(power) - 1)
        lower = place.floor().long().clamp_max(len(power) - 2)
        return torch.exp(power[lower] + (place - lower) * (power[lower + 1] - power[lower]))


def linear_field(power: LinearPower, noise: np.ndarray, box_size: float, device: torch.device) -> Tensor:
    """Colour white noise ``(n, n, n)`` as `data_tools.simulation.linear.gaussian_field` does, on the device."""
    n = len(noise)
    modes = transform("rfftn", torch.from_numpy(noise).to(device), axes=(0, 1, 2))
    k_1d = 2 * math.pi / box_size * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64, device=device)
    half = n // 2
    plane = k_1d[:, None] ** 2 + k_1d[: half + 1].abs() ** 2
    for i, k_x in enumerate(k_1d.tolist()):
        k = torch.sqrt(k_x**2 + plane)
        if i == 0:
            k[0, 0] = 2 * math.pi / box_size
        modes[i] *= torch.sqrt(power(k) * (n**3 / box_size**3)).float()
    # The mean; Nyquist modes, whose derivative is undefined.
    modes[0, 0, 0] = 0
    modes[half], modes[:, half], modes[:, :, half] = 0, 0, 0
    return transform("irfftn", modes, axes=(0, 1, 2), shape=(n, n, n))


def shift_(position: Tensor, box_size: float, seed: int) -> Tensor:
    """Translate the box as `data_tools.simulation.realisations.run_seed` does, in place."""
    offset = np.random.default_rng([seed, _OFFSET_STREAM]).uniform(0, box_size, 3).astype(np.float32)
    position += torch.from_numpy(offset).to(position.device)
    position -= box_size * (position >= box_size)
    return position.clamp_(0, float(np.nextafter(np.float32(box_size), np.float32(0))))


def count(position: Tensor, box_size: float, n: int) -> Tensor:
    """Return particles per voxel, shape ``(n, n, n)``, int64."""
    counts = torch.zeros(n**3, dtype=torch.int64, device=position.device)
    for part in position.split(_PARTICLES):
        # In float64: a float32 product can round up into the next cell.
        cell = (part.double() * (n / box_size)).floor_().long() % n
        counts += torch.bincount((cell[:, 0] * n + cell[:, 1]) * n + cell[:, 2], minlength=n**3)
    return counts.view(n, n, n)


def cut(counts: Tensor, box_size: float, geometry: Geometry) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Iterate over finished slices 1 + delta: axis, where slabs begin (Mpc/h), and ``(n, pixels, pixels)``."""
    n = geometry.pixels
    mean = geometry.particles**3 / (geometry.slabs * n**2)
    kernel = gaussian_kernel(geometry.smoothing).to(counts.device)
    for axis in range(3):
        cube = counts.movedim(axis, 0)
        slabs = cube.reshape(geometry.slabs, n // geometry.slabs, n, n)[:: geometry.every].sum(1)
        for start in range(0, len(slabs), _SLICES):
            density = smooth(slabs[start : start + _SLICES].float() / mean, kernel)
            begin = np.arange(start, start + len(density)) * geometry.every * box_size / geometry.slabs
            yield axis, begin, density.cpu().numpy()


def parameters_of(box_size: float, geometry: Geometry) -> SimulationParameters:
    """Return what determines the simulations, as `cosmogan simulate` chooses it."""
    return SimulationParameters(
        box_size=box_size,
        particles=geometry.particles,
        mesh=_MESH_FACTOR * geometry.particles,
        steps=default_steps(box_size),
        start_redshift=9.0,
        redshift=0.0,
        cosmology=RODRIGUEZ2018,
    )


def metadata_of(box_size: float, geometry: Geometry) -> SliceMetadata:
    """Return what the pixels are."""
    return SliceMetadata(
        box_size=box_size,
        n_pixels=geometry.pixels,
        thickness=box_size / geometry.slabs,
        redshift=0.0,
        quantity="density",
        smoothing=geometry.smoothing,
        cosmology=RODRIGUEZ2018,
    )


def provenance(box_size: float, geometry: Geometry) -> dict[str, Any]:
    """Return what slice files say of how they were made."""
    record = json.loads(parameters_of(box_size, geometry).to_json())
    return {
        "command": "benchmarks/emulators/reference/run.py",
        "code": "cosmogan COLA",
        "cosmogan": __version__,
        "torch": str(torch.__version__),
        "parameters": json.dumps(record | asdict(geometry), sort_keys=True),
    }


def simulate(
    box_size: float,
    geometry: Geometry,
    seeds: list[int],
    folder: Path,
    device: torch.device,
    *,
    cubes: Path | None = None,
) -> Iterator[int]:
    """Write the slices of each seed to a file of its own in the folder; yield the seeds as they are simulated.

    With ``cubes``, a folder, the particles per voxel as well, as the 3Dcosmo cubes are published: ``cosmogan convert``
    makes the slices of them anywhere.
    """
    if geometry.pixels % geometry.slabs:
        raise UserError(f"geometry: {geometry.pixels} pixels are no multiple of {geometry.slabs} slabs")
    parameters = parameters_of(box_size, geometry)
    n = geometry.particles
    power = LinearPower(parameters.cosmology, math.sqrt(3) * math.pi * n / box_size)
    folder.mkdir(parents=True, exist_ok=True)

    def draw(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal((n, n, n), dtype=np.float32)

    def write(seed: int, blocks: list[tuple[int, np.ndarray, np.ndarray]], counts: np.ndarray | None) -> None:
        if counts is not None and cubes is not None:
            _write_cube(cubes / f"{geometry.pixels}_nbody_{box_size:g}Mpc_{seed}.h5", counts)
        metadata, origin = metadata_of(box_size, geometry), provenance(box_size, geometry)
        path = part(folder, seed)
        with SliceWriter(path, metadata, n_slices=geometry.n_slices, provenance=origin, overwrite=True) as writer:
            for axis, begin, slices in blocks:
                writer.append(slices, realisation=seed, axis=axis, position=begin)

    # The GPU waits neither for noise nor for files: two realisations are drawn ahead, one is written behind.
    with ThreadPoolExecutor(2) as drawing, ThreadPoolExecutor(1) as writing:
        upcoming = deque(drawing.submit(draw, seed) for seed in seeds[:2])
        written: deque[Future[None]] = deque()
        for number, seed in enumerate(seeds):
            noise = upcoming.popleft().result()
            upcoming.extend(drawing.submit(draw, following) for following in seeds[number + 2 : number + 3])
            field = linear_field(power, noise, box_size, device)
            position = shift_(evolve(field, parameters.settings(), device=device), box_size, seed)
            counts = count(position, box_size, geometry.pixels)
            del field, position
            blocks = list(cut(counts, box_size, geometry))
            cube = counts.cpu().numpy() if cubes is not None else None
            written.append(writing.submit(write, seed, blocks, cube))
            if len(written) > 1:
                written.popleft().result()
            yield seed
        written.popleft().result()


def _write_cube(path: Path, counts: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as beside, h5py.File(beside, "w") as file:
        # A voxel of 70 Mpc/h may hold more than 16 bits can say.
        file["data"] = counts.astype(np.min_scalar_type(counts.max()))


def part(folder: Path, seed: int) -> Path:
    """Return the file of one realisation."""
    return folder / f"seed{seed:04d}.h5"


def join(folder: Path, seeds: list[int], path: Path) -> None:
    """Write the slices of several seeds into one file and remove theirs."""
    with SliceReader(part(folder, seeds[0])) as first:
        metadata, n_slices, origin = first.metadata, first.n_slices, first.provenance
    origin = origin | {"seeds": ",".join(map(str, seeds))}
    with SliceWriter(path, metadata, n_slices=n_slices * len(seeds), provenance=origin, overwrite=True) as writer:
        for seed in seeds:
            with SliceReader(part(folder, seed)) as reader:
                for start, block in reader.blocks():
                    rows = slice(start, start + len(block))
                    writer.append(block, realisation=seed, axis=reader.axis[rows], position=reader.position[rows])
    for seed in seeds:
        part(folder, seed).unlink()
