"""The gravitational force of particles by a particle mesh, on torch tensors.

Cloud-in-cell both ways, spectral ``-k^2`` and gradient, no deconvolution of the assignment: deconvolving lets the
particle lattice grow. All passes go through memory in pieces that fit a core's cache, each piece by one thread: whole
arrays from fresh memory cost several times the transforms themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, TracebackType

import torch
from scipy import fft
from torch import Tensor

# Numbers of a piece: a CPU core's cache holds the arrays of that many; a GPU wants many at once.
_PIECE = {"cpu": 2**17, "cuda": 2**25}
# Particles of a piece; each has eight cells.
_PARTICLES = {"cpu": 2**15, "cuda": 2**24}
_COMPONENTS = 3


def compiled_loops(device: torch.device) -> ModuleType | None:
    """Return the kernels for this device, or None where there are none: on a CPU, and without Triton."""
    if device.type != "cuda":
        return None
    try:
        import data_tools.simulation.particle_mesh_compiled as loops
    except ImportError:
        return None
    return loops


class ParticleMesh:
    """The force mesh of a periodic box, its memory and its threads; use as a context manager.

    Parameters
    ----------
    mesh
        Cells along a side; even.
    box_size
        Side of the box, Mpc/h.
    device
        Device to compute on.
    compiled
        Whether compiled loops are used where there are any; results are the same up to the order of sums.
    """

    def __init__(
        self, mesh: int, box_size: float, *, device: torch.device | str = "cpu", compiled: bool = True
    ) -> None:
        self.mesh = mesh
        self.box_size = box_size
        self.device = torch.device(device)
        self._loops = compiled_loops(self.device) if compiled else None
        self._cells = mesh / box_size
        self._piece = _PIECE[self.device.type]
        self._particles = _PARTICLES[self.device.type]
        self._n_threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self._wavenumber = derivative_wavenumbers(mesh, box_size).to(self.device)
        self._square = squared_wavenumbers(mesh, box_size).to(self.device)
        half = (mesh, mesh, mesh // 2 + 1)
        self._force = torch.empty((mesh,) * 3 + (_COMPONENTS,), device=self.device)
        self._modes, self._modes_x = (torch.empty(half, dtype=torch.complex64, device=self.device) for _ in range(2))

    def __enter__(self) -> ParticleMesh:
        self._pool = ThreadPoolExecutor(self._n_threads)
        if self.device.type == "cpu":
            # The pieces are spread over threads here, so that each operation on a piece uses one.
            torch.set_num_threads(1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self.device.type == "cpu":
            torch.set_num_threads(self._n_threads)

    def for_each(self, work: Callable[[slice], None], n: int, *, size: int) -> None:
        """Call ``work`` for pieces of ``range(n)`` of at most ``size``, spread over the threads."""
        pieces = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        list(self._pool.map(work, pieces))

    def for_each_particle(self, work: Callable[[slice], None], n_particles: int) -> None:
        """Call ``work`` for pieces of ``n_particles`` particles, spread over the threads."""
        self.for_each(work, n_particles, size=self._particles)

    def compute_force(self, position: Tensor) -> None:
        """Compute ``F = -grad inverse-laplacian delta`` on the mesh, to be read by `force_at`.

        Parameters
        ----------
        position
            Shape ``(n_particles, 3)``, float32, in ``[0, box_size)`` Mpc/h.
        """
        n = self.mesh
        planes = max(1, self._piece // n**2)

        # Planes: density -> modes along y and z.
        density = self._scatter(position)
        # The mean is known exactly; summing a float32 mesh for it would drift.
        cells_per_particle = n**3 / len(position)

        def transform_planes(rows: slice) -> None:
            total = density[:, rows].sum(0) if len(density) > 1 else density[0, rows]
            delta = total.mul(cells_per_particle).sub_(1.0)
            self._modes[rows] = transform("rfftn", delta, axes=(1, 2))

        self.for_each(transform_planes, n, size=planes)

        # Columns: modes along x, the Green's function, and back along x, for the gradient along x and for the others.
        modes, modes_x = self._modes.view(n, -1), self._modes_x.view(n, -1)
        square_yz = (self._square[:, None] + self._square[: n // 2 + 1]).view(-1)
        gradient_x = 1j * self._wavenumber[:, None]

        def solve_columns(columns: slice) -> None:
            column = transform("fftn", modes[:, columns], axes=(0,))
            square = self._square[:, None] + square_yz[columns]
            if columns.start == 0:
                # The mean does not gravitate.
                column[0, 0], square[0, 0] = 0, 1
            column /= square
            modes[:, columns] = transform("ifftn", column, axes=(0,))
            modes_x[:, columns] = transform("ifftn", column.mul_(gradient_x), axes=(0,))

        self.for_each(solve_columns, modes.shape[1], size=max(1, self._piece // n))

        # Planes: modes along y and z -> force.
        gradient_y, gradient_z = 1j * self._wavenumber[:, None], 1j * self._wavenumber[: n // 2 + 1]

        def transform_back(rows: slice) -> None:
            plane = self._modes[rows]
            spectra = (self._modes_x[rows], plane * gradient_y, plane * gradient_z)
            for axis, spectrum in enumerate(spectra):
                self._force[rows, :, :, axis] = transform("irfftn", spectrum, axes=(1, 2), shape=(n, n))

        self.for_each(transform_back, n, size=planes)

    def force_at(self, position: Tensor) -> Tensor:
        """Interpolate the force to particles.

        Parameters
        ----------
        position
            Shape ``(n, 3)``, float32, in ``[0, box_size)`` Mpc/h.

        Returns
        -------
            Shape ``(n, 3)``, Mpc/h.
        """
        if self._loops is not None:
            found: Tensor = self._loops.gather(position, self._force, self._cells)
            return found
        index, weight = self._cloud_in_cell(position)
        # The sum over each particle's eight cells in one fused kernel.
        return torch.nn.functional.embedding_bag(
            index, self._force.view(-1, _COMPONENTS), mode="sum", per_sample_weights=weight
        )

    def _scatter(self, position: Tensor) -> Tensor:
        """Return particles per cell in one mesh per thread that scattered, shape ``(n_meshes, n, n, n)``."""
        # The memory of the force, which is not needed now, holds as many meshes as it has components.
        n_meshes = min(self._n_threads, _COMPONENTS)
        meshes = self._force.view(_COMPONENTS, -1)[:n_meshes]
        share = -(-len(position) // n_meshes)

        def scatter(which: slice) -> None:
            mesh = meshes[which.start].zero_()
            if self._loops is not None:
                self._loops.scatter(position, mesh.view((self.mesh,) * 3), self._cells)
                return
            stop = min((which.start + 1) * share, len(position))
            for start in range(which.start * share, stop, self._particles):
                index, weight = self._cloud_in_cell(position[start : min(start + self._particles, stop)])
                mesh.index_add_(0, index.view(-1), weight.view(-1))

        self.for_each(scatter, n_meshes, size=1)
        return meshes.view(n_meshes, self.mesh, self.mesh, self.mesh)

    def _cloud_in_cell(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return the flat indices of the eight cells around each particle and their weights, shape ``(n, 8)``."""
        n = self.mesh
        integer = torch.int32 if n**3 < 2**31 else torch.int64
        scaled = position.T * self._cells
        lower = scaled.floor()
        upper_weight = scaled.sub_(lower)
        weights = (1 - upper_weight, upper_weight)
        lower_cell = lower.to(integer)
        # Rounding in the product may give `mesh` itself.
        lower_cell[lower_cell == n] = 0
        upper_cell = lower_cell + 1
        upper_cell[upper_cell == n] = 0
        cells = (lower_cell, upper_cell)
        index = torch.empty((len(position), 2, 2, 2), dtype=integer, device=self.device)
        weight = torch.empty((len(position), 2, 2, 2), device=self.device)
        for i in (0, 1):
            row = cells[i][0] * n
            for j in (0, 1):
                line, line_weight = (row + cells[j][1]) * n, weights[i][0] * weights[j][1]
                for k in (0, 1):
                    torch.add(line, cells[k][2], out=index[:, i, j, k])
                    torch.mul(line_weight, weights[k][2], out=weight[:, i, j, k])
        return index.view(-1, 8), weight.view(-1, 8)


def transform(name: str, field: Tensor, *, axes: tuple[int, ...], shape: tuple[int, ...] | None = None) -> Tensor:
    """Fourier transform of a tensor on its device.

    On the CPU it is scipy's: equally fast on small pieces, while the last digits of MKL's (behind torch) change from
    run to run.

    Parameters
    ----------
    name
        ``"fftn"``, ``"ifftn"``, ``"rfftn"`` or ``"irfftn"``.
    field
        Array to transform.
    axes
        Along which axes.
    shape
        Shape of the result along ``axes``, for ``"irfftn"``.
    """
    if field.device.type == "cpu":
        return torch.from_numpy(getattr(fft, name)(field.numpy(), shape, axes))
    result: Tensor = getattr(torch.fft, name)(field, shape, axes)
    return result


def derivative_wavenumbers(n: int, box_size: float) -> Tensor:
    """Return the wave numbers of derivatives along an axis of ``n`` cells, h/Mpc, shape ``(n,)``, float32."""
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).mul_(2 * torch.pi / box_size)
    # A Nyquist mode has no derivative on the grid.
    k[n // 2] = 0
    return k.float()


def squared_wavenumbers(n: int, box_size: float) -> Tensor:
    """Return the squared wave numbers along an axis of ``n`` cells, (h/Mpc)^2, shape ``(n,)``, float32."""
    return torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).mul_(2 * torch.pi / box_size).square_().float()
