"""The original game of Goodfellow et al. 2014."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from cosmogan.losses.base import AbstractObjective


class Minimax(AbstractObjective):
    """Both networks play for ``V = E log D(x) + E log(1 - D(G(z)))``, D the sigmoid of the score.

    The k critic steps of algorithm 1 are ``model.n_critic_steps``. Where the critic is sure of its case the generator's
    gradient vanishes; `NonSaturating` has the same critic and not this flaw.

    References
    ----------
    Goodfellow et al. 2014, arXiv:1406.2661, eq. 1.
    """

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return ``-V``, the binary cross entropy; log 4 for a critic that cannot tell."""
        return functional.softplus(-real).mean() + functional.softplus(fake).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the part of V that the generator can change, ``log(1 - D(fake))``."""
        return -functional.softplus(fake).mean()
