"""Hinge: the critic learns from slices inside its margin only."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from cosmogan.losses.base import AbstractObjective


class Hinge(AbstractObjective):
    """Scores above 1 for real and below -1 for fake slices are good enough; the best critic is ``sign(p - q)``.

    References
    ----------
    Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, eqs. 16 and 17.
    """

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what is missing to the margins; 2 for a critic that cannot tell."""
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return minus the mean score."""
        return -fake.mean()
