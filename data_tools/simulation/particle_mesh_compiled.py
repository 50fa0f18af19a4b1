"""Cloud-in-cell on a GPU: scatter and gather in one kernel each, where torch alone writes eight indices and weights.

Needs Triton, which comes with the CUDA builds of torch. The same arithmetic as `data_tools.simulation.particle_mesh`;
sums come in another order.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# Particles of a program of the GPU.
_BLOCK = 256


def scatter(position: Tensor, mesh: Tensor, cells_per_length: float) -> None:
    """Add particles ``(n_particles, 3)``, float32, contiguous, to a mesh ``(n, n, n)`` of numbers of particles."""
    with torch.cuda.device_of(position):
        _scatter[(triton.cdiv(len(position), _BLOCK),)](
            position, mesh, len(position), cells_per_length, mesh.shape[0], block=_BLOCK
        )


def gather(position: Tensor, field: Tensor, cells_per_length: float) -> Tensor:
    """Return the vectors of a field ``(n, n, n, 3)`` at particles ``(n_particles, 3)``; both float32, contiguous."""
    found = torch.empty_like(position)
    with torch.cuda.device_of(position):
        _gather[(triton.cdiv(len(position), _BLOCK),)](
            position, field, found, len(position), cells_per_length, field.shape[0], block=_BLOCK
        )
    return found


@triton.jit
def _axis(position, particle, inside, axis: tl.constexpr, cells_per_length, n):
    """Return the two cells that a particle lies between along an axis, and the weight of the upper one."""
    scaled = tl.load(position + 3 * particle + axis, mask=inside, other=0.0) * cells_per_length
    lower = tl.floor(scaled)
    cell = lower.to(tl.int32)
    # Rounding in the product may give `n` itself.
    cell = tl.where(cell == n, 0, cell)
    above = tl.where(cell + 1 == n, 0, cell + 1)
    return cell, above, scaled - lower


@triton.jit
def _scatter(position, mesh, n_particles, cells_per_length, n, block: tl.constexpr):
    particle = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = particle < n_particles
    x0, x1, weight_x = _axis(position, particle, inside, 0, cells_per_length, n)
    y0, y1, weight_y = _axis(position, particle, inside, 1, cells_per_length, n)
    z0, z1, weight_z = _axis(position, particle, inside, 2, cells_per_length, n)
    for corner in tl.static_range(8):
        x, w = (x1, weight_x) if corner & 4 else (x0, 1 - weight_x)
        y, v = (y1, weight_y) if corner & 2 else (y0, 1 - weight_y)
        z, u = (z1, weight_z) if corner & 1 else (z0, 1 - weight_z)
        cell = (x.to(tl.int64) * n + y) * n + z
        tl.atomic_add(mesh + cell, w * v * u, mask=inside, sem="relaxed")


@triton.jit
def _gather(position, field, found, n_particles, cells_per_length, n, block: tl.constexpr):
    particle = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = particle < n_particles
    x0, x1, weight_x = _axis(position, particle, inside, 0, cells_per_length, n)
    y0, y1, weight_y = _axis(position, particle, inside, 1, cells_per_length, n)
    z0, z1, weight_z = _axis(position, particle, inside, 2, cells_per_length, n)
    sum_x = tl.zeros((block,), tl.float32)
    sum_y = tl.zeros((block,), tl.float32)
    sum_z = tl.zeros((block,), tl.float32)
    for corner in tl.static_range(8):
        x, w = (x1, weight_x) if corner & 4 else (x0, 1 - weight_x)
        y, v = (y1, weight_y) if corner & 2 else (y0, 1 - weight_y)
        z, u = (z1, weight_z) if corner & 1 else (z0, 1 - weight_z)
        cell = 3 * ((x.to(tl.int64) * n + y) * n + z)
        weight = w * v * u
        sum_x += weight * tl.load(field + cell, mask=inside, other=0.0)
        sum_y += weight * tl.load(field + cell + 1, mask=inside, other=0.0)
        sum_z += weight * tl.load(field + cell + 2, mask=inside, other=0.0)
    tl.store(found + 3 * particle, sum_x, mask=inside)
    tl.store(found + 3 * particle + 1, sum_y, mask=inside)
    tl.store(found + 3 * particle + 2, sum_z, mask=inside)
