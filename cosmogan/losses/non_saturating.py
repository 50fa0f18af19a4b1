"""Non-saturating binary cross entropy, the standard GAN of the paper's 100 Mpc case."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from cosmogan.losses.base import AbstractObjective


class NonSaturating(AbstractObjective):
    """Logistic regression for the critic, ``-log D(G(z))`` for the generator.

    References
    ----------
    Goodfellow et al. 2014, arXiv:1406.2661, section 3.
    """

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the binary cross entropy; 2 log 2 for a critic that cannot tell."""
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return ``-log D(fake)``."""
        return functional.softplus(-fake).mean()
