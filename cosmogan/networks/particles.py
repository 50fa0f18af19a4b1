"""Whole numbers of particles per pixel: how a density is rounded to them, and where smoothed slices still hold them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cosmogan.errors import UserError
from cosmogan.networks.smoothing import sharpen
from cosmogan.transforms import interpolate

# Pixels beyond a quantile below which it is not trusted.
RARE = 20
# Deviation from a whole number of particles, and the share of pixels that may have it.
_OFF, _FEW_OFF = 0.25, 0.01
_LEAST_NUMBERS = 2
# Sigmas below the last quantile that is trusted, over which the slope beyond it is taken.
_SLOPE_OVER = 0.5


def rounded(counts: Tensor, noise: Tensor, chance: float) -> Tensor:
    """Round to one of the two next whole numbers, at random by normal noise within ``chance / 2`` of the middle.

    The gradient is 1, that of the mean if all is chance.
    """
    uniform = 0.5 * (1 + chance * torch.erf(noise / math.sqrt(2)))
    return counts + (torch.floor(counts.detach() + uniform) - counts.detach())


def mean_rounded(counts: Tensor, chance: float) -> Tensor:
    """Return the mean of `rounded` over its noise."""
    whole = torch.floor(counts)
    above = counts - whole - 0.5
    return whole + ((above / chance + 0.5).clamp(0, 1) if chance else (above >= 0).to(counts))


def whole_counts(density: Tensor, kernel: Tensor, *, mean_count: float, way_out: str) -> Tensor:
    """Return the particles per pixel that slices were smoothed from.

    Parameters
    ----------
    density
        1 + delta, shape ``(n, side, side)``.
    kernel
        Kernel of the smoothing.
    mean_count
        Particles per pixel at the mean density.
    way_out
        Advice on slices that hold none: the end of the error's sentence.

    Raises
    ------
    UserError
        If the slices hold no whole numbers, or no longer: float32 forgets them where the smoothing is wide.
    """
    blocks, n_off = [], 0
    for block in density.split(128):
        counts = sharpen(block, kernel) * mean_count
        n_off += int(((counts - counts.round()).abs() > _OFF).sum())
        blocks.append(counts.round().clamp_min(0).float())
    if n_off > _FEW_OFF * density.numel():
        raise UserError(
            f"{n_off / density.numel():.1%} of the pixels of the slices are no multiples of 1 / {mean_count:g} "
            f"once the smoothing is undone; {way_out} if they are no counts or smoothed by much more than a pixel"
        )
    return torch.cat(blocks)


def log_density_table(counts: Tensor, normal: Tensor, *, mean_count: float) -> Tensor:
    """Return ln(1 + delta) at normal values, such that a normal field has the given counts once it is rounded.

    Parameters
    ----------
    counts
        Whole numbers of particles per pixel, any shape.
    normal
        Increasing, float64.
    mean_count
        Particles per pixel at the mean density.

    Raises
    ------
    UserError
        If hardly any numbers are common.
    """
    values, n_each = counts.unique(return_counts=True)
    n_upto = n_each.double().cumsum(0)
    known = (n_upto >= RARE) & (counts.numel() - n_upto >= RARE)
    if known.sum() < _LEAST_NUMBERS:
        raise UserError(
            f"model.generator.rounding: the pixels of the slices hold fewer than {_LEAST_NUMBERS + 1} different "
            f"numbers of particles more than {RARE} times; set it to 1, or train with more slices"
        )
    # At the share of pixels with so many particles or fewer the field is half-way to the next number.
    places = torch.special.ndtri(n_upto[known] / counts.numel())
    middles = torch.log(0.5 * (values[:-1] + values[1:])[known[:-1]].double())
    table = interpolate(normal, places, middles)
    # Beyond what is known it continues as over the last half sigma: the last two numbers alone are noise.
    last = int((normal <= places[-1]).sum()) - 1
    before = int((normal < normal[last] - _SLOPE_OVER).sum())
    slope = (table[last] - table[before]) / (normal[last] - normal[before])
    table[last:] = table[last] + slope * (normal[last:] - normal[last])
    return table - math.log(mean_count)
