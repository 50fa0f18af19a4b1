"""Relativistic pairing: each mock is compared with a slice."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from cosmogan.losses.base import AbstractObjective


class Relativistic(AbstractObjective):
    """Each fake slice is compared with a real one: ``softplus(-(D(real) - D(fake)))``; with `ZeroCentred`, R3GAN.

    References
    ----------
    Huang et al. 2025 (R3GAN), arXiv:2501.05441, eq. 2; Jolicoeur-Martineau 2018, arXiv:1807.00734.
    """

    pairs = True

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the pairing loss; log 2 for a critic that cannot tell."""
        return functional.softplus(fake - real).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the pairing loss with the roles exchanged."""
        return functional.softplus(real.detach() - fake).mean()
