"""The smoothing of the data as a last layer: densities stay positive and small scales fade exactly as in the data."""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from torch import Tensor

from cosmogan.slices.smoothing import gaussian_taps


def gaussian_kernel(sigma: float) -> Tensor:
    """Return the taps of a Gaussian of ``sigma`` pixels, float32, shape ``(n_taps,)`` with the sum 1; one tap for 0."""
    return torch.from_numpy(gaussian_taps(sigma)).float()


def smooth(field: Tensor, kernel: Tensor) -> Tensor:
    """Convolve periodic fields ``(n, side, side)`` with a separable kernel ``(taps,)``.

    A sum of positive terms, not a product in Fourier space: densities stay positive and exact where they are small.
    """
    reach, side = len(kernel) // 2, field.shape[-1]
    if not reach:
        return field
    if reach > side:
        # More than once around.
        kernel, reach = _folded(kernel, side), side // 2
    # Sums of shifted planes: convolutions of one channel are several times slower.
    rows = torch.cat([field[:, side - reach :], field, field[:, :reach]], 1)
    field = reduce(add, (tap * rows[:, i : i + side] for i, tap in enumerate(kernel)))
    columns = torch.cat([field[:, :, side - reach :], field, field[:, :, :reach]], 2)
    return reduce(add, (tap * columns[:, :, i : i + side] for i, tap in enumerate(kernel)))


def _folded(kernel: Tensor, side: int) -> Tensor:
    """Return the taps that a periodic row of ``side`` pixels sees, ``(side // 2 * 2 + 1,)``: each pixel's once."""
    reach = len(kernel) // 2
    offsets = torch.arange(-reach, reach + 1, device=kernel.device)
    half = side // 2
    taps = torch.zeros(2 * half + 1, dtype=torch.float64, device=kernel.device)
    # Offsets from -half on; of an even side the last place stays empty, since it is the first one again.
    taps.scatter_add_(0, (offsets + half) % side, kernel.double())
    return taps.to(kernel.dtype)


def sharpen(field: Tensor, kernel: Tensor) -> Tensor:
    """Undo `smooth`, float64: where the kernel is about a pixel wide, float32 slices hold their whole numbers still."""
    reach, side = len(kernel) // 2, field.shape[-1]
    row = torch.zeros(side, dtype=torch.float64, device=field.device)
    row.scatter_add_(0, torch.arange(-reach, reach + 1, device=field.device) % side, kernel.double())
    response = torch.fft.fft(row).real
    modes = torch.fft.rfft2(field.double())
    return torch.fft.irfft2(modes / (response[:, None] * response[: modes.shape[-1]]), s=field.shape[-2:])
