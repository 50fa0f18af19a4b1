import math

import pytest
import torch
from torch import nn

from cosmogan.losses.base import squared_gradient_norm
from cosmogan.losses.non_saturating import NonSaturating
from cosmogan.losses.pins import StatisticPins
from cosmogan.losses.relativistic import Relativistic
from cosmogan.losses.wasserstein import Wasserstein
from cosmogan.networks.base import AbstractCritic
from cosmogan.transforms import LogTransform


class LinearCritic(AbstractCritic):
    """``D(x) = slope * sum(x)``: its gradient is ``slope`` at every pixel."""

    def __init__(self, slope: float) -> None:
        super().__init__(4)
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.slope * values.flatten(1).sum(1)


REAL, FAKE = torch.tensor([1.0, 2.0]), torch.tensor([0.0, -1.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_non_saturating_by_hand():
    loss = NonSaturating()
    expected = (softplus(-1) + softplus(-2)) / 2 + (softplus(0) + softplus(-1)) / 2
    assert loss.critic_loss(REAL, FAKE).item() == pytest.approx(expected, rel=1e-6)
    assert loss.generator_loss(REAL, FAKE).item() == pytest.approx((softplus(0) + softplus(1)) / 2, rel=1e-6)
    # A critic that cannot tell: Goodfellow's -log 4 with the sign of a loss.
    assert loss.critic_loss(torch.zeros(2), torch.zeros(2)).item() == pytest.approx(math.log(4), rel=1e-6)


def test_wasserstein_by_hand():
    loss = Wasserstein()
    assert loss.critic_loss(REAL, FAKE).item() == pytest.approx(-0.5 - 1.5)
    assert loss.generator_loss(REAL, FAKE).item() == pytest.approx(0.5)


def test_relativistic_by_hand():
    loss = Relativistic()
    assert loss.critic_loss(REAL, FAKE).item() == pytest.approx((softplus(-1) + softplus(-3)) / 2, rel=1e-6)
    assert loss.generator_loss(REAL, FAKE).item() == pytest.approx((softplus(1) + softplus(3)) / 2, rel=1e-6)


def test_gradient_norm_of_a_linear_critic():
    # Sixteen pixels with gradient 0.5 each: 16 * 0.25 = 4.
    norm = squared_gradient_norm(LinearCritic(0.5), torch.randn(3, 4, 4))
    torch.testing.assert_close(norm, torch.full((3,), 4.0))


def test_gradient_penalty_by_hand_and_its_gradient():
    critic = LinearCritic(0.5)
    penalty = Wasserstein(weight=10.0).penalty(critic, torch.randn(3, 4, 4), torch.randn(3, 4, 4), step=0, seed=0)
    # |grad| = 2, so 10 (2 - 1)^2; d/dslope of 10 (4 slope - 1)^2 = 80 (4 slope - 1) = 80.
    assert penalty.item() == pytest.approx(10.0, rel=1e-5)
    penalty.backward()
    assert critic.slope.grad.item() == pytest.approx(80.0, rel=1e-5)


def test_lazy_r1_and_r2_have_the_weight_of_every_step():
    critic, slices = LinearCritic(0.5), torch.randn(3, 4, 4)
    lazy = [Relativistic(gamma=2.0, every=4).penalty(critic, slices, slices, step=s, seed=0) for s in range(8)]
    assert [p is not None for p in lazy] == [True, False, False, False] * 2
    eager = Relativistic(gamma=2.0, every=1).penalty(critic, slices, slices, step=3, seed=0)
    # gamma / 2 (4 + 4) = 8 at every step, or four times as much at every fourth.
    assert eager.item() == pytest.approx(8.0)
    assert sum(p.item() for p in lazy if p is not None) == pytest.approx(8 * eager.item())


def lognormal(n: int, seed: int) -> torch.Tensor:
    field = torch.exp(0.8 * torch.randn(n, 16, 16, generator=torch.Generator().manual_seed(seed)))
    return field / field.mean()


@pytest.fixture
def pins():
    transform = LogTransform()
    density = lognormal(256, 0)
    transform.fit(density)
    made = StatisticPins(memory=64)
    made.prepare(density, transform=transform, side=16)
    return made, transform


def test_pins_leave_right_mocks_alone_and_pull_wrong_ones(pins):
    module, transform = pins
    right = lognormal(256, 0)
    assert module(right, transform(right)) < 1e-6
    for _ in range(5):
        wrong = (1.2 * (lognormal(64, 2) - 1) + 1).clamp_min(0.01).requires_grad_(True)
        penalty = module(wrong, transform(wrong))
    assert penalty > 0.01
    (gradient,) = torch.autograd.grad(penalty, wrong)
    # A step against the gradient brings the statistics back.
    better = (wrong - 0.05 * gradient / gradient.abs().max()).detach()
    for name in ("power", "distribution"):
        getattr(module, f"running_{name}").copy_(getattr(module, f"target_{name}"))
    module.memory = 1e-3
    after = module(better, transform(better))
    before = module(wrong.detach(), transform(wrong.detach()))
    assert after < before


def test_pins_see_a_density_that_is_five_per_cent_off(pins):
    module, transform = pins
    density = 1.05 * lognormal(256, 0)
    for _ in range(20):
        module(density, transform(density))
    assert torch.log(module.running_mean / module.target_mean).item() == pytest.approx(math.log(1.05), rel=1e-3)
    # P grows by the square.
    ratio = module.running_power / module.target_power
    torch.testing.assert_close(ratio, torch.full_like(ratio, 1.05**2), rtol=1e-3, atol=0)
