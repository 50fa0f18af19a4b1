"""Wasserstein-1 distance with gradient penalty, the paper's 500 Mpc case."""

from __future__ import annotations

import torch
from torch import Tensor

from cosmogan.losses.base import AbstractObjective, squared_gradient_norm
from cosmogan.networks.base import AbstractCritic


class Wasserstein(AbstractObjective):
    """Difference of mean scores; the critic's gradient is drawn to norm 1 between real and fake slices.

    Parameters
    ----------
    weight
        Of the penalty ``(|grad D| - 1)^2``.

    References
    ----------
    Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.
    """

    def __init__(self, weight: float = 10.0) -> None:
        self.weight = weight

    @property
    def penalises_gradient(self) -> bool:
        """Always."""
        return True

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return minus the estimate of the distance."""
        return fake.mean() - real.mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return minus the mean score."""
        return -fake.mean()

    def penalty(self, critic: AbstractCritic, real: Tensor, fake: Tensor, *, step: int, seed: int) -> Tensor | None:
        """Return the penalty at random points on the lines between real and fake slices."""
        generator = torch.Generator(real.device).manual_seed(seed)
        fraction = torch.rand(len(real), 1, 1, generator=generator, device=real.device)
        norm = torch.sqrt(squared_gradient_norm(critic, torch.lerp(real, fake, fraction)) + 1e-12)
        return self.weight * (norm - 1).square().mean()
