import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn

import cosmogan.losses
import cosmogan.training.fit
from cosmogan.errors import UserError
from cosmogan.losses.base import AbstractObjective
from cosmogan.losses.energy_based import EnergyBased
from cosmogan.losses.feature_matching import feature_matching
from cosmogan.losses.hinge import Hinge
from cosmogan.losses.least_squares import LeastSquares
from cosmogan.losses.minimax import Minimax
from cosmogan.losses.non_saturating import NonSaturating
from cosmogan.losses.penalties import AbstractPenalty, GradientNorm, ZeroCentred, squared_gradient_norm
from cosmogan.losses.relativistic import Relativistic
from cosmogan.losses.wasserstein import Wasserstein
from cosmogan.networks.base import AbstractCritic


class LinearCritic(AbstractCritic):
    """``D(x) = slope * sum(x)``: its gradient is ``slope`` at every pixel."""

    def __init__(self, slope: float) -> None:
        super().__init__(4)
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.slope * values.flatten(1).sum(1)


REAL, FAKE = (1.0, 2.0), (0.0, -1.0)
# Sums of a few float32 numbers.
ROUNDING = 1e-6


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class ByHand(NamedTuple):
    """Losses of one pair of scores r, f and their derivatives; at the end the critic's loss if all scores are zero."""

    objective: AbstractObjective
    critic: Callable[[float, float], float]
    critic_by_real: Callable[[float, float], float]
    critic_by_fake: Callable[[float, float], float]
    generator: Callable[[float, float], float]
    generator_by_fake: Callable[[float, float], float]
    undecided: float


OBJECTIVES = [
    ByHand(
        Minimax(),
        lambda r, f: -math.log(sigmoid(r)) - math.log(1 - sigmoid(f)),
        lambda r, f: sigmoid(r) - 1,
        lambda r, f: sigmoid(f),
        lambda r, f: math.log(1 - sigmoid(f)),
        lambda r, f: -sigmoid(f),
        # Minus the value -log 4 of Goodfellow's theorem 1.
        math.log(4),
    ),
    ByHand(
        NonSaturating(),
        lambda r, f: -math.log(sigmoid(r)) - math.log(1 - sigmoid(f)),
        lambda r, f: sigmoid(r) - 1,
        lambda r, f: sigmoid(f),
        lambda r, f: -math.log(sigmoid(f)),
        lambda r, f: sigmoid(f) - 1,
        math.log(4),
    ),
    ByHand(
        LeastSquares(a=-1.0, b=2.0, c=0.5),
        lambda r, f: ((r - 2) ** 2 + (f + 1) ** 2) / 2,
        lambda r, f: r - 2,
        lambda r, f: f + 1,
        lambda r, f: (f - 0.5) ** 2 / 2,
        lambda r, f: f - 0.5,
        2.5,
    ),
    ByHand(
        Hinge(),
        lambda r, f: max(0, 1 - r) + max(0, 1 + f),
        lambda r, f: -float(r < 1),
        lambda r, f: float(f > -1),
        lambda r, f: -f,
        lambda r, f: -1.0,
        2.0,
    ),
    ByHand(
        EnergyBased(margin=3.0),
        lambda r, f: -r + max(0, 3 - -f),
        lambda r, f: -1.0,
        lambda r, f: float(-f < 3),
        lambda r, f: -f,
        lambda r, f: -1.0,
        3.0,
    ),
    ByHand(
        Wasserstein(),
        lambda r, f: f - r,
        lambda r, f: -1.0,
        lambda r, f: 1.0,
        lambda r, f: -f,
        lambda r, f: -1.0,
        0.0,
    ),
    ByHand(
        Relativistic(),
        lambda r, f: softplus(f - r),
        lambda r, f: -sigmoid(f - r),
        lambda r, f: sigmoid(f - r),
        lambda r, f: softplus(r - f),
        lambda r, f: -sigmoid(r - f),
        math.log(2),
    ),
]


@pytest.mark.parametrize("by_hand", OBJECTIVES, ids=lambda by_hand: type(by_hand.objective).__name__)
def test_objective_and_its_gradients_by_hand(by_hand: ByHand):
    def mean(function: Callable[[float, float], float]) -> float:
        return sum(function(r, f) for r, f in zip(REAL, FAKE, strict=True)) / 2

    def each(function: Callable[[float, float], float]) -> torch.Tensor:
        return torch.tensor([function(r, f) / 2 for r, f in zip(REAL, FAKE, strict=True)])

    real, fake = (torch.tensor(scores, requires_grad=True) for scores in (REAL, FAKE))
    loss = by_hand.objective.critic_loss(real, fake)
    assert loss.item() == pytest.approx(mean(by_hand.critic), rel=ROUNDING)
    by_real, by_fake = torch.autograd.grad(loss, (real, fake))
    torch.testing.assert_close(by_real, each(by_hand.critic_by_real), rtol=ROUNDING, atol=0)
    torch.testing.assert_close(by_fake, each(by_hand.critic_by_fake), rtol=ROUNDING, atol=0)
    loss = by_hand.objective.generator_loss(real, fake)
    assert loss.item() == pytest.approx(mean(by_hand.generator), rel=ROUNDING)
    by_real, by_fake = torch.autograd.grad(loss, (real, fake), allow_unused=True)
    assert by_real is None
    torch.testing.assert_close(by_fake, each(by_hand.generator_by_fake), rtol=ROUNDING, atol=0)
    undecided = by_hand.objective.critic_loss(torch.zeros(3), torch.zeros(3))
    assert undecided.item() == pytest.approx(by_hand.undecided, rel=ROUNDING)


@pytest.mark.parametrize("by_hand", OBJECTIVES, ids=lambda by_hand: type(by_hand.objective).__name__)
def test_objectives_say_whether_the_generators_loss_looks_at_real_scores(by_hand: ByHand):
    objective, fake = by_hand.objective, torch.tensor(FAKE)
    losses = [objective.generator_loss(torch.tensor(scores), fake).item() for scores in (REAL, (3.0, 5.0))]
    assert (losses[0] != losses[1]) is objective.pairs


def test_recipes_find_every_objective_and_penalty_by_its_class():
    for module in pkgutil.iter_modules(cosmogan.losses.__path__, "cosmogan.losses."):
        for name, kind in vars(importlib.import_module(module.name)).items():
            if isinstance(kind, type) and issubclass(kind, AbstractObjective | AbstractPenalty):
                assert inspect.isabstract(kind) or getattr(cosmogan.training.fit, name, None) is kind, name


# Critic's loss if it is wrong, if it is right, and the generator's loss on the slices of the latter.
SURE = {
    "Minimax": (200.0, 0.0, 0.0),
    "NonSaturating": (200.0, 0.0, 100.0),
    "LeastSquares": ((102**2 + 101**2) / 2, (98**2 + 99**2) / 2, 100.5**2 / 2),
    "Hinge": (202.0, 0.0, 100.0),
    "EnergyBased": (203.0, -100.0, 100.0),
    "Wasserstein": (200.0, -200.0, 100.0),
    "Relativistic": (200.0, 0.0, 200.0),
}


@pytest.mark.parametrize("by_hand", OBJECTIVES, ids=lambda by_hand: type(by_hand.objective).__name__)
def test_objectives_bear_scores_of_a_hundred(by_hand: ByHand):
    objective = by_hand.objective
    wrong, right, generator = SURE[type(objective).__name__]
    for sign, expected in ((-1.0, wrong), (1.0, right)):
        real, fake = torch.tensor([sign * 100.0], requires_grad=True), torch.tensor([-sign * 100.0], requires_grad=True)
        loss = objective.critic_loss(real, fake)
        assert loss.item() == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)
        by_real, by_fake = torch.autograd.grad(loss, (real, fake))
        assert torch.isfinite(by_real)
        assert torch.isfinite(by_fake)
        # A critic that is wrong must still learn.
        assert sign > 0 or (by_real < -0.5 and by_fake > 0.5)
        loss = objective.generator_loss(real, fake)
        (by_fake,) = torch.autograd.grad(loss, fake)
        assert torch.isfinite(by_fake)
    assert loss.item() == pytest.approx(generator, rel=ROUNDING, abs=ROUNDING)


def test_only_minimax_leaves_a_losing_generator_without_gradient():
    real = torch.tensor([20.0])
    for by_hand in OBJECTIVES:
        fake = torch.tensor([-20.0], requires_grad=True)
        (gradient,) = torch.autograd.grad(by_hand.objective.generator_loss(real, fake), fake)
        assert (gradient.item() < -0.5) is not isinstance(by_hand.objective, Minimax)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: LeastSquares(a=1.0), "label a of fake slices must be below b and c.* a = 1.0, b = 1.0"),
        (lambda: LeastSquares(a=0.0, b=1.0, c=-1.0), "c = -1.0"),
        (lambda: EnergyBased(margin=0.0), "margin: expected an energy above 0, found 0.0"),
    ],
)
def test_senseless_objectives_are_refused(make, expected: str):
    with pytest.raises(UserError, match=expected):
        make()


def test_gradient_norm_of_a_linear_critic():
    # Sixteen pixels with gradient 0.5 each: 16 * 0.25 = 4.
    norm = squared_gradient_norm(LinearCritic(0.5), torch.randn(3, 4, 4))
    torch.testing.assert_close(norm, torch.full((3,), 4.0))


class QuadraticCritic(AbstractCritic):
    """``D(x) = curvature / 2 * sum(x^2)``: its gradient is ``curvature * x``."""

    def __init__(self, curvature: float) -> None:
        super().__init__(2)
        self.curvature = nn.Parameter(torch.tensor(curvature))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.curvature * values.square().flatten(1).sum(1)


# Sums of squares 4 and 16, mean 10; and 1 and 0, mean 0.5.
REAL_SLICES = torch.tensor([[[1.0, -1.0], [1.0, 1.0]], [[2.0, 2.0], [-2.0, 2.0]]])
FAKE_SLICES = torch.tensor([[[0.0, 0.0], [0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]])
NOT_LAZY = {"step": 0, "seed": 0}


@pytest.mark.parametrize(("on", "mean_square"), [("real", 10.0), ("fake", 0.5), ("both", 10.5)])
def test_zero_centred_penalty_by_hand_and_its_gradient(on, mean_square: float):
    critic = QuadraticCritic(3.0)
    penalty = ZeroCentred(0.2, on=on)(critic, REAL_SLICES, FAKE_SLICES, **NOT_LAZY)
    # |grad D|^2 = curvature^2 sum(x^2); gamma / 2 = 0.1; the derivative of curvature^2 is 2 * 3.
    assert penalty.item() == pytest.approx(0.1 * 9 * mean_square, rel=1e-6)
    penalty.backward()
    assert critic.curvature.grad.item() == pytest.approx(0.1 * 6 * mean_square, rel=1e-6)


def test_gradient_norm_penalty_by_hand_and_its_gradient():
    critic = LinearCritic(0.5)
    penalty = GradientNorm(10.0)(critic, torch.randn(3, 4, 4), torch.randn(3, 4, 4), **NOT_LAZY)
    # |grad| = 2, so 10 (2 - 1)^2; d/dslope of 10 (4 slope - 1)^2 = 80 (4 slope - 1) = 80.
    assert penalty.item() == pytest.approx(10.0, rel=1e-5)
    penalty.backward()
    assert critic.slope.grad.item() == pytest.approx(80.0, rel=1e-5)


def test_gradient_norm_is_finite_where_the_critic_is_flat():
    critic = LinearCritic(0.0)
    penalty = GradientNorm(10.0)(critic, REAL_SLICES, FAKE_SLICES, **NOT_LAZY)
    assert penalty.item() == pytest.approx(10.0, rel=1e-5)
    penalty.backward()
    assert torch.isfinite(critic.slope.grad)


def test_points_between_real_and_fake_are_uniform_and_each_slice_has_its_own():
    class Recorder(QuadraticCritic):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            self.seen = values.detach()[:, 0, 0]
            return super().forward(values)

    critic, n = Recorder(1.0), 2000
    real, fake = torch.zeros(n, 2, 2), torch.ones(n, 2, 2)
    GradientNorm()(critic, real, fake, step=0, seed=7)
    fraction = critic.seen
    # Five standard errors of the mean (0.289 / sqrt(n)), of the variance and of the correlation of neighbours.
    assert fraction.mean().item() == pytest.approx(0.5, abs=5 * 0.289 / n**0.5)
    assert fraction.var().item() == pytest.approx(1 / 12, abs=5 * 0.075 / n**0.5)
    neighbours = torch.corrcoef(torch.stack([fraction[1:], fraction[:-1]]))[0, 1]
    assert abs(neighbours.item()) < 5 / n**0.5
    # The second half of a batch, taken alone.
    GradientNorm()(critic, real[n // 2 :], fake[n // 2 :], step=0, seed=7 + n // 2)
    torch.testing.assert_close(critic.seen, fraction[n // 2 :], rtol=0, atol=0)


@pytest.mark.parametrize("make", [lambda n: ZeroCentred(2.0, every=n), lambda n: GradientNorm(10.0, every=n)])
def test_lazy_penalties_have_the_weight_of_every_step(make):
    critic = LinearCritic(0.5)
    arguments = (critic, torch.randn(3, 4, 4), torch.randn(3, 4, 4))
    lazy = [make(4)(*arguments, step=step, seed=0) for step in range(8)]
    assert [p is not None for p in lazy] == [True, False, False, False] * 2
    eager = [make(1)(*arguments, step=step, seed=0).item() for step in range(8)]
    assert sum(p.item() for p in lazy if p is not None) == pytest.approx(sum(eager), rel=1e-6)


@pytest.mark.parametrize("penalty", [ZeroCentred(2.0), GradientNorm(10.0)])
def test_penalties_are_float32_under_autocast_and_do_not_reach_the_slices(penalty: AbstractPenalty):
    class ConvolvingCritic(AbstractCritic):
        def __init__(self) -> None:
            super().__init__(8)
            self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 36, 1))

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.layers(values.unsqueeze(1)).squeeze(1)

    torch.manual_seed(0)
    critic, real, fake = ConvolvingCritic(), torch.randn(2, 8, 8), torch.randn(2, 8, 8, requires_grad=True)
    expected, scores = penalty(critic, real, fake, **NOT_LAZY), critic(real)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        value = penalty(critic, real, fake, **NOT_LAZY)
        # Twin: what the guard is for.
        assert not torch.equal(critic(real).float(), scores)
    assert value.dtype == torch.float32
    assert value.requires_grad
    assert value.item() == expected.item()
    expected.backward()
    assert fake.grad is None


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ZeroCentred(0.0), "gamma: expected a positive number, found 0.0"),
        (lambda: ZeroCentred(float("nan")), "gamma"),
        (lambda: ZeroCentred(1.0, every=0), "every: expected at least 1"),
        (lambda: ZeroCentred(1.0, on="noise"), "on: expected 'both', 'real' or 'fake', found 'noise'"),
        (lambda: GradientNorm(-1.0), "weight: expected a positive number, found -1.0"),
        (lambda: GradientNorm(1.0, every=-1), "every: expected at least 1"),
    ],
)
def test_senseless_penalties_are_refused(make, expected: str):
    with pytest.raises(UserError, match=expected):
        make()


def test_feature_matching_by_hand_and_its_gradient():
    class Pixels(QuadraticCritic):
        def features(self, values: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
            return self.curvature * values.flatten(1)

    critic, fake = Pixels(3.0), FAKE_SLICES.clone().requires_grad_(True)
    matched = feature_matching(critic, REAL_SLICES, fake)
    # Mean features: 3 times (1.5, 0.5, -0.5, 1.5) and (0, 0, 0, -0.5).
    assert matched.item() == pytest.approx(9 * (1.5**2 + 0.5**2 + 0.5**2 + 2.0**2) / 4, rel=ROUNDING)
    (gradient,) = torch.autograd.grad(matched, fake)
    # Twice the difference of means, times 9, over 4 features and 2 slices.
    by_hand = 9 * 2 * torch.tensor([[-1.5, -0.5], [0.5, -2.0]]) / 8
    torch.testing.assert_close(gradient, by_hand.expand(2, -1, -1), rtol=ROUNDING, atol=0)
    # The mean alone counts: the order of slices, and what differs between them, do not.
    assert feature_matching(critic, REAL_SLICES, REAL_SLICES.mean(0, keepdim=True)).item() == 0
    with pytest.raises(UserError, match="has no features to match"):
        feature_matching(QuadraticCritic(3.0), REAL_SLICES, fake)
