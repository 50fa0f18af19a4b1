"""Relativistic pairing with zero-centred gradient penalties on real and fake slices."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from cosmogan.losses.base import AbstractObjective, squared_gradient_norm
from cosmogan.networks.base import AbstractCritic


class Relativistic(AbstractObjective):
    """Each fake slice is compared with a real one: ``softplus(-(D(real) - D(fake)))``.

    Parameters
    ----------
    gamma
        Weight of R1 + R2, ``gamma / 2 (|grad D(real)|^2 + |grad D(fake)|^2)``.
    every
        The penalties are taken at every n-th critic step, times n (lazy regularisation).

    References
    ----------
    Huang et al. 2025 (R3GAN), arXiv:2501.05441, eqs. 2 and 6; lazy: Karras et al. 2020, arXiv:1912.04958, section 3.1.
    """

    def __init__(self, gamma: float = 2.0, every: int = 8) -> None:
        if gamma < 0 or every < 1:
            raise ValueError(f"expected gamma >= 0 and every >= 1, got {gamma} and {every}")
        self.gamma, self.every = gamma, every

    @property
    def penalises_gradient(self) -> bool:
        """Unless gamma is zero."""
        return self.gamma > 0

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the pairing loss; log 2 for a critic that cannot tell."""
        return functional.softplus(fake - real).mean()

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the pairing loss with the roles exchanged."""
        return functional.softplus(real.detach() - fake).mean()

    def penalty(self, critic: AbstractCritic, real: Tensor, fake: Tensor, *, step: int, seed: int) -> Tensor | None:
        """Return R1 + R2 at every n-th step."""
        if not self.gamma or step % self.every:
            return None
        norms = squared_gradient_norm(critic, real).mean() + squared_gradient_norm(critic, fake).mean()
        return 0.5 * self.gamma * self.every * norms
