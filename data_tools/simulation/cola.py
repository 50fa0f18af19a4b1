"""COLA: an N-body integrator that follows particles in the frame of second-order perturbation theory, on torch tensors.

Tassev, Zaldarriaga & Eisenstein 2013 (arXiv:1301.0322); steps as in Howlett, Manera & Percival 2015
(arXiv:1506.03737). With ``Q = a^3 H / H0`` and ``T = Q d/da``, a particle at ``x = q + D1 psi1 + D2 psi2 + residual``
obeys ``T T x = 3/2 omega_m a F``, where ``F = -grad inverse-laplacian delta``; what is integrated is the residual
alone. Lengths are comoving Mpc/h. The same code runs on CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor

from cosmogan.units import Cosmology
from data_tools.simulation.linear import compute_growth, expansion
from data_tools.simulation.particle_mesh import ParticleMesh, derivative_wavenumbers, squared_wavenumbers, transform

# The residual velocity is taken to vary as a constant plus a^n within a step (arXiv:1301.0322, section 3.2).
_RESIDUAL_EXPONENT = -2.5


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
        Cells of the force mesh along a side; even.
    start_redshift, redshift
        Redshifts of the initial conditions and of the result.
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
        Device to compute on.
    on_step
        Function that is called after each step.

    Returns
    -------
        Positions, shape ``(n^3, 3)``, float32, in ``[0, box_size)`` Mpc/h.

    Raises
    ------
    UserError
        If the cosmology lacks ``omega_m`` or has dark energy other than a cosmological constant.
    """
    box_size, cosmology = settings.box_size, settings.cosmology
    growth = compute_growth(cosmology, 1 / (1 + settings.redshift))
    psi1, psi2 = lpt_displacements(linear_density, box_size, device=device)
    scale_factors = np.linspace(1 / (1 + settings.start_redshift), 1 / (1 + settings.redshift), settings.steps + 1)
    a_start = float(scale_factors[0])

    # Initial conditions: second-order perturbation theory, no residual velocity.
    position = lattice(len(linear_density), box_size, device=device)
    position.add_(psi1, alpha=growth.first(a_start)).add_(psi2, alpha=growth.second(a_start))
    wrap_(position, box_size)
    velocity = torch.zeros_like(position)

    a_velocity = a_start
    with ParticleMesh(settings.mesh, box_size, device=device) as particle_mesh:
        for a, a_next in zip(scale_factors[:-1].tolist(), scale_factors[1:].tolist(), strict=True):
            middle = (a + a_next) / 2
            kick = _kick_factor(a_velocity, middle, a, cosmology) * acceleration_factor(a, cosmology)
            drift = _drift_factor(a, a_next, middle, cosmology)
            d1, d2 = growth.first(a), growth.second(a)
            d1_change, d2_change = growth.first(a_next) - d1, growth.second(a_next) - d2
            particle_mesh.compute_force(position)

            def kick_and_drift(
                rows: slice,
                kick: float = kick,
                drift: float = drift,
                frame_force: tuple[float, float] = (d1, d2 - d1**2),
                frame_drift: tuple[float, float] = (d1_change, d2_change),
            ) -> None:
                x, v, first, second = position[rows], velocity[rows], psi1[rows], psi2[rows]
                # The force of the mesh less the acceleration of the frame.
                v.add_(particle_mesh.force_at(x), alpha=kick)
                v.add_(first, alpha=-kick * frame_force[0]).add_(second, alpha=-kick * frame_force[1])
                # The residual and the frame.
                x.add_(v, alpha=drift).add_(first, alpha=frame_drift[0]).add_(second, alpha=frame_drift[1])
                wrap_(x, box_size)

            particle_mesh.for_each_particle(kick_and_drift, len(position))
            a_velocity = middle
            if on_step is not None:
                on_step()
    return position


def lattice(n: int, box_size: float, *, device: torch.device | str = "cpu") -> Tensor:
    """Return the undisturbed particle positions ``i box_size / n``, shape ``(n^3, 3)``, float32, Mpc/h."""
    edge = torch.arange(n, dtype=torch.float64).mul_(box_size / n).float().to(device)
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
        Device to compute on.

    Returns
    -------
        ``psi1`` and ``psi2``, each of shape ``(n^3, 3)``, float32, Mpc/h.
    """
    delta = torch.as_tensor(linear_density, dtype=torch.float32, device=device)
    n = delta.shape[0]
    k_1d = derivative_wavenumbers(n, box_size).to(device)
    k = k_1d.view(n, 1, 1), k_1d.view(1, n, 1), k_1d[: n // 2 + 1].view(1, 1, -1)
    k2_1d = squared_wavenumbers(n, box_size).to(device)
    k2 = k2_1d.view(n, 1, 1) + k2_1d.view(1, n, 1) + k2_1d[: n // 2 + 1]
    # The mean has no potential.
    k2[0, 0, 0] = torch.inf

    def inverse(modes: Tensor) -> Tensor:
        return transform("irfftn", modes, axes=(0, 1, 2), shape=(n, n, n))

    # Source of the second order: the three diagonal pairs, then the three mixed derivatives.
    potential = transform("rfftn", delta, axes=(0, 1, 2)).div_(-k2)
    diagonal = [inverse(potential * -(k[i] ** 2)) for i in range(3)]
    source = diagonal[0] * diagonal[1] + (diagonal[0] + diagonal[1]) * diagonal[2]
    del diagonal
    for i, j in ((0, 1), (0, 2), (1, 2)):
        mixed = inverse(potential * -(k[i] * k[j]))
        source.addcmul_(mixed, mixed, value=-1)
    potential2 = transform("rfftn", source, axes=(0, 1, 2)).div_(-k2)

    psi1, psi2 = (torch.empty((n**3, 3), device=delta.device) for _ in range(2))
    for axis in range(3):
        psi1[:, axis] = inverse(potential * (-1j * k[axis])).view(-1)
        psi2[:, axis] = inverse(potential2 * (1j * k[axis])).view(-1)
    return psi1, psi2


def acceleration_factor(a: float, cosmology: Cosmology) -> float:
    """Return ``3/2 omega_m a``, by which ``F`` is multiplied in the equation of motion."""
    assert cosmology.omega_m is not None
    return 1.5 * cosmology.omega_m * a


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
