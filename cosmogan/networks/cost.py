"""Parameters of a pair of networks, and floating-point operations of a slice and of a step of its training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cosmogan.networks.base import AbstractCritic, AbstractGenerator, count_parameters

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass(frozen=True)
class Cost:
    """Counts of `count_cost`; a multiplication and an addition are two operations, all others are left out.

    Parameters
    ----------
    generator_parameters, critic_parameters
        Numbers that are learnt.
    generator, critic
        Operations to make one slice of full size, and to judge one slice or patch.
    critic_step
        Operations per slice of a critic step: mock made, real and mock judged, back to the critic's weights.
    generator_step
        Operations per slice of the generator step that follows on the same mocks: real and mock judged, back to the
        generator's weights.
    penalty
        Operations per slice of a gradient penalty at one kind of slices, back to the critic's weights; R1 and R2
        together take two.
    """

    generator_parameters: int
    critic_parameters: int
    generator: int
    critic: int
    critic_step: int
    generator_step: int
    penalty: int

    @property
    def pair(self) -> int:
        """Operations per slice of a critic step and a generator step, without penalty."""
        return self.critic_step + self.generator_step

    def lines(self) -> list[str]:
        """Return what a user wants to know, one line for each network and one for the training."""
        return [
            f"generator  {self.generator_parameters:,} parameters, {_text(self.generator)} per slice",
            f"critic     {self.critic_parameters:,} parameters, {_text(self.critic)} per slice",
            f"training   {_text(self.pair)} per slice for a step of both, {_text(self.penalty)} more for R1, as for R2",
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def count_cost(generator: AbstractGenerator, critic: AbstractCritic) -> Cost:
    """Count parameters and operations, without computing anything: copies of the networks run on shapes alone.

    Matrix products and convolutions, forward and backward, as `torch.utils.flop_counter` counts them; Fourier
    transforms, point transforms, pins, optimisers and the average are left out.

    Parameters
    ----------
    generator, critic
        Left as they are; on any device.
    """
    # Evaluation: batch normalisation over processes would want to talk to them, and costs no products.
    made_by, judged_by = (_on_shapes(network) for network in (generator, critic))

    def told(network: AbstractGenerator | AbstractCritic) -> Tensor | None:
        return torch.empty(1, network.n_conditions, device="meta") if network.n_conditions else None

    def score(values: Tensor) -> Tensor:
        return judged_by.forward(values, told(critic))

    def mock(shape: tuple[int, ...]) -> Tensor:
        return made_by.forward(torch.empty(1, *shape, device="meta"), told(generator))

    side = critic.patch_pixels
    planes = () if critic.n_planes == 1 else (critic.n_planes,)
    real = torch.empty(1, *planes, side, side, device="meta")
    # Shapes have no values that torch could look for anomalies in.
    with FlopCounterMode(display=False) as counter, torch.autograd.set_detect_anomaly(False):
        # As `CosmoGAN.training_step` does it.
        made = mock(generator.training_latent_shape)[:, :side, :side]
        seen = torch.stack([made] * critic.n_planes, 1) if planes else made
        (score(real) + score(seen.detach())).sum().backward()
        critic_step = counter.get_total_flops()
        judged_by.requires_grad_(False)
        with torch.no_grad():
            score(real)
        score(seen).sum().backward()
        both = counter.get_total_flops()
    judged_by.requires_grad_(True)

    def penalty() -> None:
        values = real.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(score(values).sum(), values, create_graph=True)
        gradient.square().sum().backward()

    with torch.no_grad():
        forward = [_count(lambda: mock(generator.latent_shape)), _count(lambda: score(real))]
    return Cost(
        generator_parameters=count_parameters(generator),
        critic_parameters=count_parameters(critic),
        generator=forward[0],
        critic=forward[1],
        critic_step=critic_step,
        generator_step=both - critic_step,
        penalty=_count(penalty),
    )


def _on_shapes(network: _Network) -> _Network:
    return copy.deepcopy(network).to("meta").eval().requires_grad_(True)


def _count(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter, torch.autograd.set_detect_anomaly(False):
        work()
    return counter.get_total_flops()


def _text(operations: int) -> str:
    """Return operations with a unit.

    >>> _text(1_234_000_000)
    '1.23 GFLOP'
    """
    for unit, size in (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if operations >= size:
            return f"{operations / size:.3g} {unit}"
    return f"{operations:,} FLOP"
