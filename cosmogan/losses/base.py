"""What every adversarial objective offers to the training step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from cosmogan.networks.base import AbstractCritic


class AbstractObjective(ABC):
    """A pair of losses on critic scores, with an optional penalty on the critic's gradient.

    Scores have shape ``(n,)``; real and fake batches are of equal size.
    """

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the scalar that the critic minimises."""

    @abstractmethod
    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the scalar that the generator minimises; no gradient flows through ``real``."""

    @property
    def penalises_gradient(self) -> bool:
        """Whether `penalty` differentiates the critic, which batch normalisation would spoil."""
        return False

    def penalty(self, critic: AbstractCritic, real: Tensor, fake: Tensor, *, step: int, seed: int) -> Tensor | None:
        """Return the scalar added to the critic's loss at this step, or None.

        Parameters
        ----------
        critic
            The critic.
        real, fake
            Network values ``(n, side, side)``.
        step
            Number of critic steps taken before.
        seed
            Of the random numbers that the penalty may need.
        """
        return None


def squared_gradient_norm(critic: AbstractCritic, values: Tensor) -> Tensor:
    """Return ``|grad D|^2`` at each slice, shape ``(n,)``, differentiable in the critic's weights; always float32."""
    with torch.autocast(values.device.type, enabled=False):
        inputs = values.detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(inputs).sum(), inputs, create_graph=True)
        return gradient.square().flatten(1).sum(1)
