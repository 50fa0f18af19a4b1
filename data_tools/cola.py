"""COLA: an N-body integrator that follows particles in the frame of second-order perturbation theory, on torch tensors.

Tassev, Zaldarriaga & Eisenstein 2013 (arXiv:1301.0322); steps as in Howlett, Manera & Percival 2015 (arXiv:1506.03737).
With ``Q = a^3 H / H0`` and ``T = Q d/da``, a particle at ``x = q + D1 psi1 + D2 psi2 + residual`` obeys
``T T x = 3/2 omega_m a F``, where ``F = -grad inverse-laplacian delta``; what is integrated is the residual alone.
Lengths are comoving Mpc/h. The same code runs on CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor

from cosmogan.units import Cosmology
from data_tools.linear import compute_growth, expansion

# The residual velocity is taken to vary as a constant plus a^n within a step (arXiv:1301.0322, section 3.2).
_RESIDUAL_EXPONENT = -2.5
# Particles whose eight mesh cells are held at a time: 64 MB of indices and weights.
_CHUNK = 2**20
# Copies of the mesh that threads scatter into on the CPU.
_MAX_SCATTER_THREADS = 4


@dataclass(frozen=True, kw_only=True)
class ColaSettings:
    """How a run is integrated.

    Parameters
    ----------
    box_size
        Side of the periodic box, Mpc/h.
    cosmology
        Needs ``omega_m``.
    steps
        Number of steps, equal in scale factor.
    mesh
        Cells of the force mesh along a side.
    start_redshift, redshift
        Of the initial conditions and of the result.
    """

    box_size: float
    cosmology: Cosmology
    steps: int
    mesh: int
    start_redshift: float = 9.0
    redshift: float = 0.0


def evolve(
    linear_density: np.ndarray | Tensor,
    settings: ColaSettings,
    *,
    device: torch.device | str = "cpu",
    on_step: Callable[[], None] | None = None,
) -> Tensor:
    """Follow particles from a linear overdensity to the final redshift.

    Parameters
    ----------
    linear_density
        Linear overdensity extrapolated to redshift 0, shape ``(n, n, n)``; one particle starts from each grid point,
        which lies at ``q = i box_size / n``.
    settings
        Box, cosmology and steps.
    device
        Where to compute.
    on_step
        Called after each step.

    Returns
    -------
        Positions, shape ``(n^3, 3)``, float32, in ``[0, box_size)`` Mpc/h.
    """
    omega_m = settings.cosmology.omega_m
    assert omega_m is not None
    growth = compute_growth(settings.cosmology, 1 / (1 + settings.redshift))
    psi1, psi2 = lpt_displacements(linear_density, settings.box_size, device=device)
    scale_factors = np.linspace(1 / (1 + settings.start_redshift), 1 / (1 + settings.redshift), settings.steps + 1)
    a_start = float(scale_factors[0])

    # Initial conditions: second-order perturbation theory, no residual velocity.
    position = lattice(round(psi1.shape[0] ** (1 / 3)), settings.box_size, device=device)
    position.add_(psi1, alpha=growth.first(a_start)).add_(psi2, alpha=growth.second(a_start))
    wrap_(position, settings.box_size)
    velocity = torch.zeros_like(position)

    a_velocity = a_start
    for a, a_next in zip(scale_factors[:-1].tolist(), scale_factors[1:].tolist(), strict=True):
        middle = (a + a_next) / 2

        # Kick: the force of the mesh less the acceleration of the frame.
        kick = _kick_factor(a_velocity, middle, a, settings.cosmology)
        source = 1.5 * omega_m * a
        d1, d2 = growth.first(a), growth.second(a)
        velocity.add_(psi1, alpha=-kick * source * d1).add_(psi2, alpha=-kick * source * (d2 - d1**2))
        add_force_(velocity, position, box_size=settings.box_size, mesh=settings.mesh, factor=kick * source)
        a_velocity = middle

        # Drift: the residual and the frame.
        position.add_(velocity, alpha=_drift_factor(a, a_next, middle, settings.cosmology))
        position.add_(psi1, alpha=growth.first(a_next) - d1).add_(psi2, alpha=growth.second(a_next) - d2)
        wrap_(position, settings.box_size)
        if on_step is not None:
            on_step()
    return position


def lattice(n: int, box_size: float, *, device: torch.device | str = "cpu") -> Tensor:
    """Return the undisturbed particle positions ``i box_size / n``, shape ``(n^3, 3)``, float32, Mpc/h."""
    edge = torch.arange(n, device=device, dtype=torch.float64).mul_(box_size / n).float()
    return torch.cartesian_prod(edge, edge, edge)


def wrap_(position: Tensor, box_size: float) -> Tensor:
    """Bring positions into ``[0, box_size)`` in place; a float32 remainder alone may return ``box_size`` itself."""
    position.remainder_(box_size)
    return position.masked_fill_(position >= box_size, 0.0)


def lpt_displacements(
    linear_density: np.ndarray | Tensor, box_size: float, *, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Displacement fields of first and second order.

    Particles at ``q + D1 psi1 + D2 psi2``, with ``psi1 = -grad phi1``, ``psi2 = grad phi2``,
    ``laplacian phi1 = delta`` and ``laplacian phi2 = sum_{i<j} (phi1_ii phi1_jj - phi1_ij^2)``
    (Bouchet et al. 1995, arXiv:astro-ph/9406013).

    Parameters
    ----------
    linear_density
        Linear overdensity, shape ``(n, n, n)``.
    box_size
        Side of the box, Mpc/h.
    device
        Where to compute.

    Returns
    -------
        ``psi1`` and ``psi2``, each of shape ``(n^3, 3)``, float32, Mpc/h.
    """
    delta = torch.as_tensor(linear_density, dtype=torch.float32, device=device)
    n = delta.shape[0]
    k = _wavenumbers(n, box_size, delta.device)
    potential = _divide_by_k2_(_forward(delta), box_size).neg_()

    # Source of the second order: the three diagonal pairs, then the three mixed derivatives.
    diagonal = [_inverse(potential * -(k[i] ** 2), n) for i in range(3)]
    source = diagonal[0] * diagonal[1] + (diagonal[0] + diagonal[1]) * diagonal[2]
    del diagonal
    for i, j in ((0, 1), (0, 2), (1, 2)):
        source.addcmul_(mixed := _inverse(potential * -(k[i] * k[j]), n), mixed, value=-1)
    potential2 = _divide_by_k2_(_forward(source), box_size).neg_()
    del source

    psi1, psi2 = (torch.empty((n**3, 3), device=delta.device) for _ in range(2))
    for axis in range(3):
        psi1[:, axis] = _inverse(potential * (-1j * k[axis]), n).view(-1)
        psi2[:, axis] = _inverse(potential2 * (1j * k[axis]), n).view(-1)
    return psi1, psi2


def add_force_(velocity: Tensor, position: Tensor, *, box_size: float, mesh: int, factor: float) -> None:
    """Add ``factor * F`` at the particles to ``velocity``, ``F = -grad inverse-laplacian delta``.

    Cloud-in-cell both ways, spectral ``-k^2`` and gradient, no deconvolution of the assignment.

    Parameters
    ----------
    velocity, position
        Shape ``(n_particles, 3)``, float32; positions in ``[0, box_size)`` Mpc/h. ``velocity`` is changed in place.
    box_size
        Side of the box, Mpc/h.
    mesh
        Cells along a side.
    factor
        What the force, in Mpc/h, is multiplied by.
    """
    k = _wavenumbers(mesh, box_size, position.device)
    cells = mesh / box_size
    modes = _divide_by_k2_(_forward(assign(position, cells=cells, mesh=mesh)), box_size)
    force = torch.empty((mesh,) * 3 + (3,), device=position.device)
    for axis in range(3):
        _inverse(modes * (1j * factor * k[axis]), mesh, out=force[..., axis])
    del modes
    force = force.view(-1, 3)
    for start, index, weight in _cloud_in_cell(position, cells, mesh):
        # The sum over each particle's eight cells in one fused, multi-threaded kernel.
        velocity[start : start + len(index)] += torch.nn.functional.embedding_bag(
            index, force, mode="sum", per_sample_weights=weight
        )


def assign(position: Tensor, *, cells: float, mesh: int) -> Tensor:
    """Cloud-in-cell overdensity of particles.

    Parameters
    ----------
    position
        Shape ``(n_particles, 3)``, float32.
    cells
        Mesh cells per unit of length.
    mesh
        Cells along a side.

    Returns
    -------
        Overdensity, shape ``(mesh, mesh, mesh)``, float32.
    """
    n_threads = min(torch.get_num_threads(), _MAX_SCATTER_THREADS) if position.device.type == "cpu" else 1
    buffers = [torch.zeros(mesh**3, device=position.device) for _ in range(n_threads)]

    def scatter(buffer: Tensor, index: Tensor, weight: Tensor) -> None:
        buffer.index_add_(0, index.view(-1), weight.view(-1))

    # `index_add_` uses one thread on the CPU, so each thread gets a part of the particles and a mesh of its own.
    with ThreadPoolExecutor(n_threads) as pool:
        for _, index, weight in _cloud_in_cell(position, cells, mesh):
            list(pool.map(scatter, buffers, index.chunk(n_threads), weight.chunk(n_threads)))
    for other in buffers[1:]:
        buffers[0] += other
    # The mean is known exactly; summing a float32 mesh for it would drift.
    return buffers[0].mul_(mesh**3 / len(position)).sub_(1.0).view(mesh, mesh, mesh)


def _cloud_in_cell(position: Tensor, cells: float, mesh: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield ``(start, index, weight)`` of chunks of particles, index and weight of shape ``(n, 8)``."""
    n_index = torch.int32 if mesh**3 < 2**31 else torch.int64
    for start in range(0, len(position), _CHUNK):
        scaled = position[start : start + _CHUNK] * cells
        lower = scaled.floor()
        upper_weight = (scaled - lower).T.contiguous()
        weights = (1 - upper_weight, upper_weight)
        # Rounding in `scaled` may give `mesh` itself.
        lower_cell = lower.T.to(n_index).remainder_(mesh)
        upper_cell = lower_cell + 1
        upper_cell.masked_fill_(upper_cell == mesh, 0)
        cells_xyz = (lower_cell, upper_cell)
        index = torch.empty((len(scaled), 8), dtype=n_index, device=position.device)
        weight = torch.empty((len(scaled), 8), device=position.device)
        for corner in range(8):
            i, j, k = corner >> 2, corner >> 1 & 1, corner & 1
            index[:, corner] = (cells_xyz[i][0] * mesh + cells_xyz[j][1]) * mesh + cells_xyz[k][2]
            weight[:, corner] = weights[i][0] * weights[j][1] * weights[k][2]
        yield start, index, weight


def _wavenumbers(n: int, box_size: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return the wave numbers of derivatives along each axis in h/Mpc, shaped to multiply a half spectrum."""
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).mul_(2 * np.pi / box_size).to(torch.float32)
    # A Nyquist mode has no derivative on the grid.
    k[n // 2] = 0
    k = k.to(device)
    return k.view(n, 1, 1), k.view(1, n, 1), k[: n // 2 + 1].view(1, 1, -1)


def _divide_by_k2_(modes: Tensor, box_size: float) -> Tensor:
    """Divide a half spectrum by ``k^2`` in place; the mean vanishes."""
    n = modes.shape[0]
    k2 = torch.fft.fftfreq(n, 1 / n, device=modes.device).mul_(2 * np.pi / box_size) ** 2
    plane = k2[:, None] + k2[None, : n // 2 + 1]
    modes[0, 0, 0] = 0
    for i in range(n):
        modes[i].div_((plane + k2[i]).clamp_min_(k2[1]))
    return modes


def _forward(field: Tensor) -> Tensor:
    return torch.fft.fftn(torch.fft.rfft(field, dim=2), dim=(0, 1))


def _inverse(modes: Tensor, n: int, *, out: Tensor | None = None) -> Tensor:
    """Transform a half spectrum to a real field of ``n^3``, row by row at the end to save memory."""
    modes = torch.fft.ifftn(modes, dim=(0, 1))
    if out is None:
        out = torch.empty((n, n, n), device=modes.device)
    # About 16 MB at a time.
    rows = max(1, 2**22 // n**2)
    for start in range(0, n, rows):
        out[start : start + rows] = torch.fft.irfft(modes[start : start + rows], n=n, dim=2)
    return out


def _kick_factor(a_from: float, a_to: float, a_force: float, cosmology: Cosmology) -> float:
    """Integral of ``da / Q`` over a kick under the ansatz for the residual velocity (arXiv:1301.0322, eq. A15)."""
    n = _RESIDUAL_EXPONENT
    return (a_to**n - a_from**n) / (n * a_force ** (n - 1) * _q(a_force, cosmology))


def _drift_factor(a_from: float, a_to: float, a_velocity: float, cosmology: Cosmology) -> float:
    """Integral of ``da / Q`` over a drift under the ansatz for the residual velocity (arXiv:1301.0322, eq. A15)."""
    n = _RESIDUAL_EXPONENT
    return float(quad(lambda a: (a / a_velocity) ** n / _q(a, cosmology), a_from, a_to, epsrel=1e-8)[0])


def _q(a: float, cosmology: Cosmology) -> float:
    return a**3 * expansion(a, cosmology)
