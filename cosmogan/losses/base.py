"""What every adversarial objective offers to the training step."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class AbstractObjective(ABC):
    """A pair of losses on critic scores.

    Scores have shape ``(n,)``; real and fake batches are of equal size.
    """

    # Whether `generator_loss` looks at real scores; if not, they are not computed and any may be passed.
    pairs = False
    # Whether scores must be minus an energy, lest the losses have no lower bound.
    needs_energies = False

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the scalar that the critic minimises."""

    @abstractmethod
    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the scalar that the generator minimises; no gradient flows through ``real``."""
