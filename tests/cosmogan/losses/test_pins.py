"""Pins against the statistics package, direct sums and deviations put in by hand."""

import copy
import math

import pytest
import torch

from cosmogan.errors import UserError
from cosmogan.losses.pins import StatisticPins
from cosmogan.statistics.power_spectrum import power_spectrum
from cosmogan.transforms import LogTransform

SIDE = 16
# Modes and their squares are float32, their sums float64.
ROUNDING = 1e-5
# Central differences of a float32 penalty of order one over steps of 1e-2.
DIFFERENCES = 1e-2
# Slices over which running means reach back if only the last batch is to count.
NO_MEMORY = 1e-3
OFF = {"power": 0.0, "distribution": 0.0, "mean": 0.0}


def lognormal(n: int, seed: int, side: int = SIDE) -> torch.Tensor:
    field = torch.exp(0.8 * torch.randn(n, side, side, generator=torch.Generator().manual_seed(seed)))
    return field / field.mean()


def prepared(density: torch.Tensor, side: int | None = None, **settings: float) -> tuple[StatisticPins, LogTransform]:
    transform = LogTransform()
    transform.fit(density)
    module = StatisticPins(**settings)
    module.prepare(density, transform=transform, side=side or density.shape[-1])
    return module, transform


@pytest.fixture
def pins() -> tuple[StatisticPins, LogTransform]:
    return prepared(lognormal(256, 0), memory=64)


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


def symmetric(seed: int) -> torch.Tensor:
    """A slice and its images under the 8 symmetries of the square: no direction is preferred."""
    (slice_,) = lognormal(1, seed)
    turned = [torch.rot90(slice_, turns) for turns in range(4)]
    return torch.stack(turned + [image.T for image in turned])


def lean(density: torch.Tensor, *, quadrant: float = 1.0, lobe: float = 1.0) -> torch.Tensor:
    """Multiply the modes with k_x k_y > 0, and those with |k_x| > |k_y|, by factors."""
    wave = torch.fft.fftfreq(SIDE, 1 / SIDE).round()
    row, column = wave[:, None], wave[None, :]
    # The sign of the Nyquist wave number has no meaning.
    below = (row.abs() < SIDE / 2) & (column.abs() < SIDE / 2)
    factor = torch.where(below & (row * column > 0), quadrant, 1.0)
    factor = factor * torch.where(below & (row.abs() > column.abs()), lobe, 1.0)
    return torch.fft.ifft2(torch.fft.fft2(density) * factor).real


def test_running_power_is_that_of_the_statistics_package():
    module, transform = prepared(lognormal(64, 0), variance=1.0, memory=NO_MEMORY)
    density = lognormal(8, 1)
    module(density, transform(density))
    power = power_spectrum(density - 1, SIDE)
    torch.testing.assert_close(module.running_power, power.mean(0), rtol=ROUNDING, atol=0)
    torch.testing.assert_close(module.running_square, power.square().mean(0), rtol=ROUNDING, atol=0)


def test_the_texture_of_voids_is_seen_by_the_power_of_values():
    training = lognormal(64, 0)
    transform = LogTransform()
    transform.fit(training)
    # Waves of two pixels in the logarithm of what is empty: the density hardly knows them.
    empty = training < training.median()
    checks = 1 + 0.5 * (-1.0) ** torch.arange(SIDE)
    wrong = torch.where(empty, training * checks, training)
    seen = {}
    for name in ("power", "values_power"):
        module = StatisticPins(**(OFF | {name: 1.0}), memory=NO_MEMORY)
        module.prepare(training, transform=transform, side=SIDE)
        assert module(training, transform(training)).item() < ROUNDING
        seen[name] = module(wrong, transform(wrong)).item()
    assert seen["values_power"] > 20 * seen["power"]


def test_power_by_direction_is_that_of_direct_sums():
    module, transform = prepared(lognormal(64, 0), isotropy=1.0, memory=NO_MEMORY)
    density = lognormal(8, 1)
    module(density, transform(density))
    squares = torch.fft.fft2(density.double() - 1).abs().square().mean(0) / SIDE**2
    sums, counts = torch.zeros(4, SIDE // 2 - 1), torch.zeros(4, SIDE // 2 - 1)
    for x in range(-SIDE // 2, SIDE // 2):
        for y in range(-SIDE // 2, SIDE // 2):
            ring = math.isqrt(x**2 + y**2) - 1
            if 0 <= ring < SIDE // 2 - 1:
                for kind, belongs in enumerate((x * y > 0, x * y < 0, abs(x) > abs(y), abs(x) < abs(y))):
                    sums[kind, ring] += belongs * squares[x, y].item()
                    counts[kind, ring] += belongs
    torch.testing.assert_close(module.running_directions.float(), sums / counts, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("how", [{"quadrant": 0.71**0.5}, {"lobe": 0.71**0.5}])
def test_leaning_mocks_are_seen_by_the_isotropy_and_by_nothing_else(how: dict[str, float]):
    density = symmetric(0)
    module, transform = prepared(density, **OFF, isotropy=1.0, memory=NO_MEMORY)
    assert module(density, transform(density)).item() < ROUNDING
    leaning = lean(density, **how)
    # The power of one of the two pairs of sets is 0.71 of the other's, in every ring; of the other pair it is equal.
    expected = math.log(0.71) ** 2 / 2
    assert module(leaning, transform(leaning)).item() == pytest.approx(expected, rel=1e-3)
    # Twin: five per cent more is told apart.
    worse = lean(leaning, **{name: factor**0.05 for name, factor in how.items()})
    assert module(worse, transform(worse)).item() == pytest.approx(1.05**2 * expected, rel=1e-3)
    # Whoever sees turned slices only sees no direction in them.
    images = [leaning, leaning.transpose(1, 2)]
    turned = torch.cat(images + [image.flip(1) for image in images])
    assert module(turned, transform(turned)).item() < ROUNDING


def test_variance_by_hand():
    (contrast,) = lognormal(1, 0) - 1
    # P of a slice goes with the square of its contrast: 1 and 3, mean 2, variance 1.
    training = 1 + torch.tensor([1.0, 3.0]).sqrt()[:, None, None] * contrast
    module, transform = prepared(training, **OFF, variance=1.0, memory=NO_MEMORY)
    assert module(training, transform(training)).item() < ROUNDING
    mocks = 1 + torch.tensor([1.5, 2.5]).sqrt()[:, None, None] * contrast
    # Same mean, a quarter of the variance.
    assert module(mocks, transform(mocks)).item() == pytest.approx(math.log(0.25) ** 2, rel=1e-3)
    # Twin: a variance that is five per cent off.
    mocks = 1 + torch.tensor([2 - 1.05**0.5, 2 + 1.05**0.5]).sqrt()[:, None, None] * contrast
    assert module(mocks, transform(mocks)).item() == pytest.approx(math.log(1.05) ** 2, rel=1e-2)
    # Mocks without any scatter: the largest finite penalty, not a NaN.
    same = (1 + 2**0.5 * contrast).expand(2, -1, -1)
    assert module(same, transform(same)).isfinite()


@pytest.mark.parametrize("name", ["power", "distribution", "mean", "variance", "values_power", "isotropy"])
def test_gradient_of_each_pin_against_differences(name: str):
    module, transform = prepared(lognormal(64, 0), **(OFF | {name: 1.0}), memory=NO_MEMORY)
    density = (1.5 * (lean(lognormal(8, 1), quadrant=0.8) - 1) + 1).clamp_min(0.05).requires_grad_(True)
    (gradient,) = torch.autograd.grad(module(density, transform(density)), density)
    step = 1e-2 * density.detach() * gradient.sign()
    with torch.no_grad():
        ahead, behind = density + step, density - step
        change = module(ahead, transform(ahead)) - module(behind, transform(behind))
    assert change.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=DIFFERENCES)


def test_weights_rise_over_the_warm_up():
    settings = {"variance": 0.1, "isotropy": 0.1, "memory": 64}
    rising, transform = prepared(lognormal(64, 0), warmup=32, **settings)
    constant, _ = prepared(lognormal(64, 0), **settings)
    shares = []
    for seed in range(6):
        density = 1.1 * lognormal(8, seed)
        penalties = [module(density, transform(density)).item() for module in (rising, constant)]
        shares.append(penalties[0] / penalties[1])
    assert shares == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1], rel=ROUNDING)


def test_resumed_pins_are_the_uninterrupted_ones():
    settings = {"variance": 0.1, "isotropy": 0.1, "memory": 64, "warmup": 100}
    whole, transform = prepared(lognormal(64, 0), **settings)
    for seed in range(3):
        whole(lognormal(8, seed), transform(lognormal(8, seed)))
    resumed, _ = prepared(lognormal(64, 0), **settings)
    fresh = copy.deepcopy(resumed)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    density = lognormal(8, 4)
    expected = whole(density, transform(density)).item()
    assert resumed(density, transform(density)).item() == expected
    assert fresh(density, transform(density)).item() != expected


def test_a_checkpoint_without_the_new_pins_still_fits(pins):
    kinds = ("power", "distribution", "mean")
    expected = {"levels"} | {f"{what}_{kind}" for what in ("target", "running") for kind in kinds}
    assert pins[0].state_dict().keys() == expected


def test_pins_keep_their_precision_under_autocast(pins):
    module, transform = pins
    other = copy.deepcopy(module)
    density = 1.1 * lognormal(8, 1)
    expected = module(density, transform(density))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert other(density, transform(density)).item() == expected.item()
    with pytest.raises(UserError, match=r"need float64 and are torch.bfloat16; use bf16-mixed"):
        other.bfloat16()(density, transform(density))


def test_power_is_taken_over_to_fields_of_another_size():
    # White noise of the same variance has the same P at all wave numbers and in fields of all sizes.
    n_slices = 1024

    def white(side: int) -> torch.Tensor:
        return 1 + 0.2 * torch.randn(n_slices, side, side, generator=torch.Generator().manual_seed(side))

    side = 12
    module, transform = prepared(white(SIDE), side=side, **(OFF | {"power": 1.0}), memory=NO_MEMORY)
    fields = white(side)
    ratio = power_spectrum(fields - 1, side).mean(0) / module.target_power
    # Four standard errors of the first ring, which has four independent modes, in slices and in fields.
    assert (ratio - 1).abs().max() < 4 * (2 / (4 * n_slices)) ** 0.5
    assert ratio.mean().item() == pytest.approx(1, abs=0.02)
    right = module(fields, transform(fields)).item()
    wrong = 1 + 1.05 * (fields - 1)
    assert module(wrong, transform(wrong)).item() > 3 * right
    with pytest.raises(UserError, match=r"variance: the scatter .* 16 pixels along a side, but the generator makes 12"):
        prepared(lognormal(64, 0), side=side, variance=0.1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"power": -1.0}, "power: expected at least 0, found -1.0"),
        ({"isotropy": float("nan")}, "isotropy: expected at least 0"),
        (OFF, "all weights are zero; set model.pins to null"),
        ({"memory": 0}, "memory: expected a number of slices above 0, found 0"),
        ({"warmup": -1}, "warmup: expected at least 0, found -1"),
    ],
)
def test_senseless_pins_are_refused(settings, expected: str):
    with pytest.raises(UserError, match=expected):
        StatisticPins(**settings)


def _pin_own_half(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    module, transform = prepared(lognormal(64, 0), variance=0.1, isotropy=0.1, memory=64, warmup=20)
    for seed in range(3):
        density = lognormal(8, seed)[4 * rank : 4 * rank + 4].requires_grad_(True)
        penalty = module(density, transform(density))
        (gradient,) = torch.autograd.grad(penalty, density)
    torch.save((penalty.detach(), gradient, module.state_dict()), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_pin_what_one_does(tmp_path):
    torch.multiprocessing.spawn(_pin_own_half, args=(str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    module, transform = prepared(lognormal(64, 0), variance=0.1, isotropy=0.1, memory=64, warmup=20)
    for seed in range(3):
        density = lognormal(8, seed).requires_grad_(True)
        penalty = module(density, transform(density))
        (gradient,) = torch.autograd.grad(penalty, density)
    for own_penalty, _, state in parts:
        torch.testing.assert_close(own_penalty, penalty.detach(), rtol=ROUNDING, atol=0)
        for name, value in module.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=ROUNDING, atol=0)
    # DDP averages gradients of weights over processes.
    gathered = torch.cat([part[1] for part in parts]) / 2
    torch.testing.assert_close(gathered, gradient, rtol=1e-3, atol=ROUNDING * gradient.abs().max().item())
