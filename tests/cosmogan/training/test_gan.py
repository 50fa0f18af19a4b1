"""The training step by itself: schedules, parts of a batch, clipping, what is drawn for which slice."""

import copy
import math
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from cosmogan.emulator.export import load_checkpoint
from cosmogan.errors import UserError
from cosmogan.losses.energy_based import EnergyBased
from cosmogan.losses.non_saturating import NonSaturating
from cosmogan.losses.penalties import ZeroCentred
from cosmogan.losses.pins import StatisticPins
from cosmogan.losses.relativistic import Relativistic
from cosmogan.networks.autoencoder import AutoencoderCritic
from cosmogan.networks.base import AbstractCritic, AbstractGenerator
from cosmogan.networks.patch_critic import PatchCritic
from cosmogan.networks.spectral_prior.generator import SpectralPriorGenerator
from cosmogan.slices import write_example
from cosmogan.training.data import SliceBatch, SliceDataModule
from cosmogan.training.gan import CosmoGAN
from cosmogan.training.log import MetricsFile
from cosmogan.transforms import LogTransform

N_PIXELS = 16
# Sums of float32 gradients in another order, through eight steps of Adam, which divides by their size.
ROUNDING = 2e-3


class LinearGenerator(AbstractGenerator):
    """Couples nothing."""

    def __init__(self) -> None:
        super().__init__(N_PIXELS)
        self.layer = nn.Linear(3, N_PIXELS**2)

    latent_shape = (3,)

    def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
        return self.layer(latent).unflatten(1, (N_PIXELS, N_PIXELS))

    def settings(self) -> dict[str, int]:
        return {}


class SmoothCritic(AbstractCritic):
    """Couples nothing, and its gradient depends on the slice."""

    def __init__(self) -> None:
        super().__init__(N_PIXELS)
        self.first, self.second = nn.Linear(N_PIXELS**2, 8), nn.Linear(8, 1)

    def features(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        return torch.tanh(self.first(values.flatten(1)))

    def forward(self, values: Tensor, conditions: Tensor | None = None) -> Tensor:
        return self.second(self.features(values)).squeeze(1)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gan") / "slices.h5"
    write_example(path, n_realisations=3, n_slices=8)
    return path


def make(**settings) -> CosmoGAN:
    torch.manual_seed(5)
    parts = {"penalty": ZeroCentred(1.0, every=2), "max_slices": 48} | settings
    return CosmoGAN(LinearGenerator(), SmoothCritic(), NonSaturating(), LogTransform(), **parts)


def train(module: CosmoGAN, example: Path, batch_size: int = 6) -> CosmoGAN:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=SliceDataModule(str(example), batch_size=batch_size, slices_per_epoch=1000))
    return module


def distance(one: CosmoGAN, other: CosmoGAN) -> float:
    """Return the largest difference of weights, in units of how far training has moved them."""
    start = make()
    largest = 0.0
    for name, weight in one.named_parameters():
        moved = (weight - start.get_parameter(name)).abs().max()
        largest = max(largest, float((weight - other.get_parameter(name)).abs().max() / moved))
    return largest


@pytest.mark.parametrize("n_microbatches", [2, 4])
def test_a_batch_in_parts_is_the_batch(example: Path, n_microbatches: int):
    whole = train(make(), example)
    # Four parts of a batch of six: two of two, then one and one are not what chunk gives, but two, two, two.
    assert distance(whole, train(make(n_microbatches=n_microbatches), example)) < ROUNDING
    assert distance(whole, train(make(n_microbatches=n_microbatches, seed=1), example)) > 10 * ROUNDING


def test_parts_of_other_sizes_count_by_their_size(example: Path):
    # Seven slices in three parts of three, three and one.
    whole = train(make(max_slices=42), example, batch_size=7)
    parts = train(make(max_slices=42, n_microbatches=3), example, batch_size=7)
    assert distance(whole, parts) < ROUNDING


def test_schedules_are_cosines_in_slices_seen():
    module = make(
        max_slices=1000, final_lr=0.1, final_penalty=0.5, final_beta2=0.999, schedule_end=0.8, generator_warmup=100
    )
    optimizers = module.configure_optimizers()

    def rates(n_slices_seen: int) -> list[float]:
        module.n_slices_seen = n_slices_seen
        module._set_rates(*optimizers)
        return [optimizer.param_groups[0]["lr"] / 2e-4 for optimizer in optimizers]

    assert rates(0) == pytest.approx([0.0, 1.0])
    half_risen = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 50 / 800))
    assert rates(50) == pytest.approx([0.5 * half_risen, half_risen])
    assert rates(400) == pytest.approx([0.55, 0.55])
    assert optimizers[1].param_groups[0]["betas"] == pytest.approx((0.0, 0.9945))
    assert module._scheduled(module.final_penalty) == pytest.approx(0.75)
    for at_the_end in (800, 1000, 5000):
        assert rates(at_the_end) == pytest.approx([0.1, 0.1])
        assert optimizers[0].param_groups[0]["betas"] == pytest.approx((0.0, 0.999))


def test_a_penalty_that_ends_at_nothing_matters_less(example: Path):
    weights = {share: train(make(final_penalty=share), example) for share in (0.0, 1.0)}
    assert distance(weights[0.0], weights[1.0]) > 10 * ROUNDING


def test_pins_end_at_other_weights(example: Path):
    def pinned(weight: float, final_pins: float) -> CosmoGAN:
        pins = StatisticPins(power=weight, distribution=weight, mean=weight)
        module = make(pins=pins, final_pins=final_pins, schedule_end=1e-3)
        # Behind the end of the schedule from the first step on.
        module.n_slices_seen = 1
        return train(module, example)

    tripled = pinned(0.1, 3.0)
    assert distance(tripled, pinned(0.3, 1.0)) < ROUNDING
    assert distance(tripled, pinned(0.1, 1.0)) > 10 * ROUNDING


def test_long_gradients_are_shortened(example: Path):
    module = make(max_gradient_norm=1e-3)
    norms, logged = [], []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
            logged.extend(float(trainer.callback_metrics[f"{name}_gradient"]) for name in ("critic", "generator"))

        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            norms.append(math.sqrt(sum(float(p.grad.square().sum()) for p in optimizer.param_groups[0]["params"])))

    trainer = L.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_progress_bar=False, callbacks=[Look()],
        enable_checkpointing=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=SliceDataModule(str(example), batch_size=6, slices_per_epoch=1000))
    assert len(norms) == 16
    assert max(norms) <= 1e-3 * (1 + 1e-5)
    assert max(norms) > 0.99e-3
    # What is logged is the length before.
    assert len(logged) == 16
    assert min(logged) > 1e-2


def test_feature_matching_enters_the_generators_loss(example: Path):
    assert distance(train(make(), example), train(make(feature_matching=10.0), example)) > 10 * ROUNDING


@pytest.mark.parametrize(("objective", "n_calls"), [(NonSaturating(), 3), (Relativistic(), 4)])
def test_real_slices_are_judged_again_only_where_they_are_compared(example: Path, monkeypatch, objective, n_calls: int):
    calls = []
    forward = SmoothCritic.forward
    monkeypatch.setattr(SmoothCritic, "forward", lambda *args: calls.append(1) or forward(*args))
    module = CosmoGAN(LinearGenerator(), SmoothCritic(), objective, LogTransform(), max_slices=6)
    train(module, example)
    assert len(calls) == n_calls


def test_latents_belong_to_places_in_the_batch_of_all_processes():
    module = make()
    density = torch.ones(6, N_PIXELS, N_PIXELS)

    def latents(first: int, n_slices: int) -> Tensor:
        return module._latents(SliceBatch(density[:n_slices], 0, first, 6), seed=2**63 - 3)

    whole = latents(0, 6)
    torch.testing.assert_close(torch.cat([latents(0, 2), latents(2, 4)]), whole, rtol=0, atol=0)
    # All different, also where the seeds run over.
    assert len(torch.unique(whole[:, 0])) == 6


def test_mocks_are_turned_only_on_request():
    # More power along rows than along columns.
    stripes = torch.sin(torch.arange(N_PIXELS) * math.pi / 2).expand(8, N_PIXELS, N_PIXELS)

    class Stripes(LinearGenerator):
        def forward(self, latent: Tensor, conditions: Tensor | None = None) -> Tensor:
            return stripes

    for turned in (True, False):
        module = make(turn_mocks=turned)
        module.generator = Stripes()
        batch = SliceBatch(torch.ones(8, N_PIXELS, N_PIXELS), 0, 0, 8)
        seen = module._mocks(torch.zeros(8, 3), batch, slice(0, 8), seed=3).seen
        varies_down = seen.std(1).mean((1,)) > 0.1
        assert bool(varies_down.any()) == turned
        # Rolled in any case.
        assert not torch.equal(seen, stripes)


def test_losses_that_are_not_numbers_stop_the_training(example: Path):
    module = make(max_slices=6000)
    with torch.no_grad():
        module.generator.layer.bias.fill_(math.nan)
    with pytest.raises(UserError, match=r"diverged before 6 slices: losses .* lower model.generator_lr"):
        train(module, example)


def test_early_averages_forget_the_start(example: Path):
    start, module = make(), train(make(average_halflife=10_000, average_rampup=0.1), example)
    slow = train(make(average_halflife=10_000), example)
    moved = module.generator.layer.weight - start.generator.layer.weight
    for run, expected in ((module, True), (slow, False)):
        left = run.average.layer.weight - run.generator.layer.weight
        assert bool(left.norm() < 0.2 * moved.norm()) == expected


def test_places_in_the_logs_are_exact_at_a_hundred_million_slices(example: Path, tmp_path: Path):
    module = make(max_slices=100_000_011)
    module.n_slices_seen = 99_999_999
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=-1, logger=MetricsFile(tmp_path), log_every_n_steps=1, limit_val_batches=0,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=SliceDataModule(str(example), batch_size=6, slices_per_epoch=1000))
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "100000005", "100000011"]


def test_a_checkpoint_between_validations_is_ready_for_use(example: Path, tmp_path: Path):
    torch.manual_seed(5)
    module = CosmoGAN(
        SpectralPriorGenerator(N_PIXELS, width=4), SmoothCritic(), Relativistic(), LogTransform(), max_slices=12
    )
    train(module, example)
    module.trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = load_checkpoint(tmp_path / "a.ckpt")["state_dict"]["average.field_std"]
    assert saved != 1.0
    module.average.calibrate(seed=module.seed)
    assert module.average.field_std == saved


def test_a_critic_of_particles_judges_patches_of_both_planes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "counts.h5"
    write_example(path, n_realisations=3, n_slices=8, quantity="counts")
    torch.manual_seed(0)
    critic = PatchCritic(N_PIXELS, patch=8, width=4, mean_count=8.0)
    seen, penalised = [], []
    judge, penalty = critic.forward, ZeroCentred(1.0, every=2)
    value = penalty.value
    monkeypatch.setattr(critic, "forward", lambda *inputs: seen.append(inputs[0].detach()) or judge(*inputs))
    monkeypatch.setattr(penalty, "value", lambda *a, **k: penalised.append(value(*a, **k)) or penalised[-1])
    generator = SpectralPriorGenerator(N_PIXELS, width=4, mean_count=8.0)
    module = CosmoGAN(generator, critic, Relativistic(), LogTransform(), penalty, max_slices=24)
    before = copy.deepcopy(module.generator.state_dict())
    train(module, path)
    assert {tuple(planes.shape[1:]) for planes in seen} == {(2, 8, 8)}
    # Whole numbers of particles in slices and mocks alike, next to the values of the same pixels.
    for planes in seen:
        counts = planes[:, 1].exp() * 9 - 1
        torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-3)
        torch.testing.assert_close(module.transform(counts.round() / 8), planes[:, 0], rtol=0, atol=2e-3)
    assert penalised
    assert any(not torch.equal(before[name], weight) for name, weight in module.generator.named_parameters())


@pytest.mark.parametrize(
    ("generator", "expected"),
    [
        (LinearGenerator(), "LinearGenerator hold no whole numbers of them"),
        (SpectralPriorGenerator(N_PIXELS, width=4), "SpectralPriorGenerator hold no whole numbers of them"),
        (SpectralPriorGenerator(N_PIXELS, width=4, mean_count=2.0), "hold 2 per pixel of them; take SpectralPrior"),
    ],
)
def test_particles_are_shown_only_of_mocks_that_hold_them(generator: AbstractGenerator, expected: str):
    critic = PatchCritic(N_PIXELS, patch=8, width=4, mean_count=8.0)
    with pytest.raises(UserError, match=rf"model\.critic\.mean_count: .* 8 per pixel, and mocks of .*{expected}"):
        CosmoGAN(generator, critic, Relativistic(), LogTransform())


def test_energies_are_asked_for_where_scores_are_not():
    with pytest.raises(UserError, match=r"EnergyBased needs .* SmoothCritic has others; choose AutoencoderCritic"):
        CosmoGAN(LinearGenerator(), SmoothCritic(), EnergyBased(), LogTransform())
    CosmoGAN(LinearGenerator(), AutoencoderCritic(N_PIXELS, n_halvings=2), EnergyBased(), LogTransform())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"n_microbatches": 0}, "n_microbatches: expected at least 1, found 0"),
        ({"average_halflife": 0}, "average_halflife: expected at least 1"),
        ({"final_lr": -0.1}, "final_lr: expected at least 0, found -0.1"),
        ({"final_pins": -1.0}, "final_pins: expected at least 0"),
        ({"final_pins": math.nan}, "final_pins: expected at least 0"),
        ({"average_rampup": 0.0}, "average_rampup: expected a share above 0"),
        ({"max_gradient_norm": -1.0}, "max_gradient_norm: expected a length above 0 or null, found -1.0"),
        ({"schedule_end": 1.5}, "schedule_end: expected a share between 0 and 1, found 1.5"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], expected: str):
    with pytest.raises(UserError, match=expected):
        make(**settings)
