"""Fit of the spectral prior before training: mocks of the untrained network have the P(k) and pixels of the slices.

Both are corrected through rounding and smoothing by damped iteration, since the spectrum of a Gaussian field is not
that of its exponential.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cosmogan.networks.field import log_quantiles, mean_power
from cosmogan.networks.particles import RARE, log_density_table, whole_counts
from cosmogan.transforms import AbstractTransform, thin

if TYPE_CHECKING:
    from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator

_ITERATIONS = 32


def fit_prior(
    generator: SpectralPriorGenerator, density: Tensor, *, transform: AbstractTransform, n_maps: int, seed: int
) -> None:
    """Fit the prior's spectrum and the point transform of a generator that knows the smoothing of the slices.

    Parameters
    ----------
    generator
        Changed in place; it keeps what it was fitted to.
    density
        1 + delta of the training slices, shape ``(n, side, side)``.
    transform
        Near-normal values, whose spectrum is what the prior starts from.
    n_maps
        Mocks per iteration.
    seed
        Seed of their latents.

    Raises
    ------
    UserError
        If the generator rounds to particles and the slices hold no whole numbers of them.
    """
    bins, thinned = generator.bins(density.device), thin(density)
    generator.take_targets(density)
    # Where most of a rounding is not chance, particles per pixel are known and need no iteration.
    counted = generator.mean_count if generator.rounding < 1 else None
    if counted is not None:
        way_out = "set mean_count to the particles per pixel, or model.generator.rounding to 1"
        counts = whole_counts(thinned, generator.kernel, mean_count=counted, way_out=way_out)
        table = log_density_table(counts, generator.normal.double(), mean_count=counted)
        generator.log_field.copy_(table)
    else:
        generator.log_field.copy_(generator.target_log_quantiles)
    generator.set_prior(torch.log(mean_power(transform(thinned), bins).clamp_min(1e-30)))
    random = torch.Generator(density.device).manual_seed(seed)
    for iteration in range(_ITERATIONS):
        noise = torch.randn(n_maps, *generator.latent_shape, generator=random, device=density.device)
        damping = 0.5 if iteration < _ITERATIONS // 2 else 0.2
        mocks = generator.to_density(generator.color(noise[:, 0]), noise[:, 2:])
        if counted is None:
            _correct_pixels(generator, mocks, damping=damping)
        missing = torch.log(generator.target_power / mean_power(mocks, bins))
        generator.set_prior(generator.log_power + damping * missing.clamp(-3, 3))


def _correct_pixels(generator: SpectralPriorGenerator, mocks: Tensor, *, damping: float) -> None:
    """Move the point transform against the deviation of the pixels of mocks from the target."""
    probability = torch.special.ndtr(generator.normal.double())
    missing = generator.target_log_quantiles - log_quantiles(mocks, probability)
    # Quantiles that hardly a pixel lies beyond are biased; the table moves there as at the last one known.
    n_pixels = min(int(generator.target_pixels), mocks.numel())
    beyond = torch.minimum(probability, 1 - probability)
    known = (beyond >= RARE / n_pixels).nonzero().flatten()
    places = torch.arange(len(missing), device=missing.device).clamp(known[0], known[-1])
    generator.log_field.copy_(_monotone(generator.log_field + damping * missing[places].float()))
    # The mean of the whole box is 1 by definition.
    generator.log_field -= torch.log(mocks.double().mean()).float()


def _monotone(table: Tensor) -> Tensor:
    """Return an increasing table next to ``(n,)``: the mean of the bounds from either side.

    One bound alone would ratchet the noise of the sparse tail upwards at every iteration of the fit.
    """
    from_left = torch.cummax(table, 0).values
    from_right = torch.cummin(table.flip(0), 0).values.flip(0)
    return 0.5 * (from_left + from_right)
