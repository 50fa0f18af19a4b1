"""Wasserstein-1 distance, the paper's 500 Mpc case."""

from __future__ import annotations

from torch import Tensor

from cosmogan.losses.base import AbstractObjective


class Wasserstein(AbstractObjective):
    """Difference of mean scores, for a critic whose gradient the penalty `GradientNorm` draws to norm 1.

    References
    ----------
    Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.
    """

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return minus the estimate of the distance."""
        return fake.mean() - real.mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return minus the mean score."""
        return -fake.mean()
