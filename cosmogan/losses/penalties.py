"""Penalties on the critic's gradient: zero-centred (R1 and R2) and centred on norm one (Wasserstein)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cosmogan.checks import require_least
from cosmogan.errors import UserError
from cosmogan.networks.base import AbstractCritic

# Under the root of a squared norm, whose derivative at zero would be infinite.
_TINY = 1e-12


class AbstractPenalty(ABC):
    """A scalar added to the critic's loss; lazy penalties are taken at every n-th critic step, times n.

    Penalties differentiate the critic twice, so batch normalisation, which couples the slices of a batch, spoils them.
    They are computed in float32 whatever the precision of the training, and call ``critic.forward``, because a compiled
    module cannot be differentiated twice.

    Parameters
    ----------
    every
        Critic steps from one penalty to the next.

    Raises
    ------
    UserError
        If ``every`` is below 1.

    References
    ----------
    Karras et al. 2020, arXiv:1912.04958, section 3.1 (lazy regularisation).
    """

    def __init__(self, every: int = 1) -> None:
        require_least(1, "critic step", where="model.penalty", every=every)
        self.every = every

    def __call__(self, critic: AbstractCritic, real: Tensor, fake: Tensor, *, step: int, seed: int) -> Tensor | None:
        """Return the penalty of this step, a float32 scalar already times ``every``, or None between penalties.

        Parameters
        ----------
        critic
            The critic; the result can be differentiated in its weights.
        real, fake
            Network values ``(n, side, side)``; no gradient flows back to them.
        step
            Number of critic steps taken before.
        seed
            Seed of random numbers: slice i of the batch uses ``seed + i``, so parts of a batch can be taken apart.
        """
        if step % self.every:
            return None
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            return self.every * self.value(critic, real.detach().float(), fake.detach().float(), seed=seed)

    @abstractmethod
    def value(self, critic: AbstractCritic, real: Tensor, fake: Tensor, *, seed: int) -> Tensor:
        """Return the scalar for float32 slices, without the factor ``every``."""


class ZeroCentred(AbstractPenalty):
    """``gamma / 2`` times the mean of ``|grad D|^2`` over real slices (R1), fake ones (R2), or the sum of both.

    Parameters
    ----------
    gamma
        Weight; the gradient is taken with respect to all network values of a slice.
    every
        Critic steps from one penalty to the next.
    on
        Slices at which the gradient is taken.

    Raises
    ------
    UserError
        If ``gamma`` is not positive, ``every`` is below 1 or ``on`` is unknown.

    References
    ----------
    Mescheder et al. 2018, arXiv:1801.04406, eq. 9; both: Huang et al. 2025 (R3GAN), arXiv:2501.05441.
    """

    def __init__(self, gamma: float, every: int = 1, on: Literal["both", "real", "fake"] = "both") -> None:
        super().__init__(every)
        _require_positive("gamma", gamma)
        if on not in ("both", "real", "fake"):
            raise UserError(f"model.penalty.on: expected 'both', 'real' or 'fake', found {on!r}")
        self.gamma, self.on = gamma, on

    def value(self, critic: AbstractCritic, real: Tensor, fake: Tensor, *, seed: int) -> Tensor:
        """Return R1, R2 or R1 + R2."""
        # One after the other: a critic that compares the slices of a batch must not see both kinds in one.
        chosen = {"both": (real, fake), "real": (real,), "fake": (fake,)}[self.on]
        norms = [squared_gradient_norm(critic, slices).mean() for slices in chosen]
        return 0.5 * self.gamma * torch.stack(norms).sum()


class GradientNorm(AbstractPenalty):
    """``weight (|grad D| - 1)^2`` at random points on the lines between real and fake slices.

    Parameters
    ----------
    weight
        Weight of the penalty; 10 in the reference.
    every
        Critic steps from one penalty to the next.

    Raises
    ------
    UserError
        If ``weight`` is not positive or ``every`` is below 1.

    References
    ----------
    Gulrajani et al. 2017, arXiv:1704.00028, eq. 3.
    """

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        super().__init__(every)
        _require_positive("weight", weight)
        self.weight = weight

    def value(self, critic: AbstractCritic, real: Tensor, fake: Tensor, *, seed: int) -> Tensor:
        """Return the penalty; real and fake batches must be of equal size."""
        fraction = _uniform(seed, len(real)).to(real.device).view(-1, *[1] * (real.ndim - 1))
        norm = torch.sqrt(squared_gradient_norm(critic, torch.lerp(real, fake, fraction)) + _TINY)
        return self.weight * (norm - 1).square().mean()


def squared_gradient_norm(critic: AbstractCritic, values: Tensor) -> Tensor:
    """Return ``|grad D|^2`` at each slice, shape ``(n,)``, float32, differentiable in the critic's weights."""
    with torch.autocast(values.device.type, enabled=False):
        inputs = values.detach().float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic.forward(inputs).sum(), inputs, create_graph=True)
        return gradient.square().flatten(1).sum(1)


def _uniform(seed: int, n: int) -> Tensor:
    """Return n float32 numbers in [0, 1), number i a function of ``seed + i`` alone.

    The mixing function of SplitMix64 (Steele, Lea and Flood 2014); generators seeded for each of 64
    slices take 18 times as long.
    """
    state = (np.arange(n, dtype=np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    # The 24 bits that float32 holds.
    return torch.from_numpy(((state ^ (state >> np.uint64(31))) >> np.uint64(40)).astype(np.float32) * 2.0**-24)


def _require_positive(name: str, value: float) -> None:
    if not value > 0:
        raise UserError(
            f"model.penalty.{name}: expected a positive number, found {value}; for no penalty set model.penalty to null"
        )
