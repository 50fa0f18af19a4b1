"""Single realisations: seed -> initial field -> particles, with an estimate of what that costs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from tqdm import tqdm

from cosmogan.checks import require_least
from cosmogan.errors import UserError
from cosmogan.text import duration
from cosmogan.units import Cosmology, format_length
from data_tools.simulation.cola import ColaSettings, evolve, lattice
from data_tools.simulation.linear import PowerSpectrum, gaussian_field, linear_power
from data_tools.simulation.particle_mesh import ParticleMesh

# Boxes at least this wide (Mpc/h) need 15 steps, smaller ones 30: at 100 Mpc/h and k = 3.2 h/Mpc, 10 / 20 / 30 steps
# are off by -36 / -10 / -2 per cent.
_LARGE_BOX = 200.0
_STEPS_LARGE, _STEPS_SMALL = 15, 30
# Marks the random stream of the lattice offset apart from that of the phases.
_OFFSET_STREAM = 1
# The calibration runs at most this many particles along a side: a tenth of a second.
_CALIBRATION = 64
# What the calibration leaves out: drifts, memory farther away than in a small run; the initial conditions cost about
# two steps.
_OVERHEAD = 1.2
_BYTES_TORCH = 0.4e9


@dataclass(frozen=True, kw_only=True)
class SimulationParameters:
    """Everything that determines a simulation but the seed; two runs that agree in it may share a folder.

    Parameters
    ----------
    box_size
        Mpc/h.
    particles, mesh
        Particles and force cells along a side.
    steps
        Time steps, equal in scale factor.
    start_redshift, redshift
        Redshifts of the first and the last step.
    cosmology
        All parameters but w0.
    """

    box_size: float
    particles: int
    mesh: int
    steps: int
    start_redshift: float
    redshift: float
    cosmology: Cosmology

    def __post_init__(self) -> None:
        if self.particles < 4 or self.particles % 2:
            raise UserError(f"particles must be even and at least 4 along a side, found {self.particles}")
        if self.mesh < self.particles or self.mesh % 2:
            raise UserError(f"mesh must be even and not below particles ({self.particles}), found {self.mesh}")
        require_least(1, steps=self.steps)
        if not (math.isfinite(self.start_redshift) and -1 < self.redshift < self.start_redshift):
            raise UserError(
                f"redshift must lie above -1 and below start_redshift; found redshift {self.redshift:g}, "
                f"start_redshift {self.start_redshift:g}"
            )

    def to_json(self) -> str:
        """Return the parameters as text, for comparison and for the record."""
        return json.dumps(asdict(self) | {"cosmology": self.cosmology.known()}, sort_keys=True)

    def settings(self) -> ColaSettings:
        """Return what the integrator needs."""
        return ColaSettings(
            box_size=self.box_size,
            cosmology=self.cosmology,
            steps=self.steps,
            mesh=self.mesh,
            start_redshift=self.start_redshift,
            redshift=self.redshift,
        )


def default_steps(box_size: float) -> int:
    """Return how many time steps a box of that side (Mpc/h) needs."""
    return _STEPS_LARGE if box_size >= _LARGE_BOX else _STEPS_SMALL


def run_seed(
    parameters: SimulationParameters,
    power: PowerSpectrum,
    seed: int,
    *,
    device: torch.device,
    on_step: Callable[[], None] | None = None,
) -> np.ndarray:
    """Simulate one realisation.

    Parameters
    ----------
    parameters
        Parameters of the simulation.
    power
        Linear P(k) at redshift 0, (Mpc/h)^3 of h/Mpc.
    seed
        Seed of the phases and of the offset of the box.
    device
        Device to compute on.
    on_step
        Function that is called after each step.

    Returns
    -------
        Positions, shape ``(particles^3, 3)``, float32, in ``[0, box_size)`` Mpc/h.
    """
    box = parameters.box_size
    field = gaussian_field(power, n_grid=parameters.particles, box_size=box, seed=seed)
    positions = evolve(field, parameters.settings(), device=device, on_step=on_step).cpu().numpy()
    # A periodic box has no origin, so a uniform translation is as likely a realisation as the box itself; it moves the
    # particle lattice, which survives in voids, against the pixel grid.
    offset = np.random.default_rng([seed, _OFFSET_STREAM]).uniform(0, box, 3).astype(np.float32)
    positions += offset
    positions -= np.float32(box) * (positions >= box)
    np.clip(positions, 0, np.nextafter(np.float32(box), np.float32(0)), out=positions)
    return positions


def run_seeds(
    parameters: SimulationParameters, seeds: list[int], *, device: torch.device
) -> Iterator[tuple[int, np.ndarray]]:
    """Simulate seeds one after the other, with one progress bar over all steps.

    Parameters
    ----------
    parameters, device
        Arguments of `run_seed`.
    seeds
        May be empty.

    Yields
    ------
        A seed and its positions, as `run_seed` returns them.

    Raises
    ------
    UserError
        If CAMB is not installed.
    """
    if not seeds:
        return
    # The largest wave number of the initial grid is the corner of its cube.
    power = linear_power(parameters.cosmology, math.sqrt(3) * math.pi * parameters.particles / parameters.box_size)
    _announce(parameters, seeds, device)
    with tqdm(total=len(seeds) * parameters.steps, desc="simulate", unit="step") as bar:

        def on_step() -> None:
            bar.update()

        for seed in seeds:
            bar.set_postfix_str(f"seed {seed}")
            yield seed, run_seed(parameters, power, seed, device=device, on_step=on_step)


def _announce(parameters: SimulationParameters, seeds: list[int], device: torch.device) -> None:
    box = format_length(parameters.box_size, parameters.cosmology.h)
    seconds = len(seeds) * _estimate_seconds(parameters, device)
    where = "memory" if device.type == "cpu" else f"memory on {device}"
    print(
        f"simulating {len(seeds)} x {parameters.particles}^3 particles in {box}, {parameters.steps} steps, "
        f"mesh {parameters.mesh}^3: about {_estimate_bytes(parameters) / 1e9:.1f} GB of {where} and about "
        f"{duration(seconds)}",
        file=sys.stderr,
    )


def _estimate_bytes(parameters: SimulationParameters) -> float:
    # Positions, velocities and two displacement fields; on the mesh three force components and two sets of modes.
    return _BYTES_TORCH + 48 * parameters.particles**3 + 20 * parameters.mesh**3


def _estimate_seconds(parameters: SimulationParameters, device: torch.device) -> float:
    """Time one step of a small run on this machine and scale it by particles and steps."""
    n = min(_CALIBRATION, parameters.particles)
    mesh = 2 * round(n * parameters.mesh / parameters.particles / 2)
    position = lattice(n, parameters.box_size, device=device)
    force = torch.empty_like(position)
    elapsed = []

    with ParticleMesh(mesh, parameters.box_size, device=device) as particle_mesh:

        def interpolate(rows: slice) -> None:
            force[rows] = particle_mesh.force_at(position[rows])

        # The first round pays for fresh memory.
        for _ in range(3):
            start = time.perf_counter()
            particle_mesh.compute_force(position)
            particle_mesh.for_each_particle(interpolate, len(position))
            force[0].cpu()
            elapsed.append(time.perf_counter() - start)
    return _OVERHEAD * min(elapsed) * (parameters.particles / n) ** 3 * (parameters.steps + 2)
