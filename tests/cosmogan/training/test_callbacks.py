"""What watches a training: shared measurements, alarms that ring when they should and only then, checkpoints, lines."""

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from scipy import stats

from cosmogan.emulator.export import load_checkpoint
from cosmogan.errors import UserError
from cosmogan.losses.non_saturating import NonSaturating
from cosmogan.networks.dcgan import DCGANCritic, DCGANGenerator
from cosmogan.slices import SliceMetadata, write_example
from cosmogan.statistics.cross_spectrum import cross_power_spectrum
from cosmogan.statistics.histogram import Histogram
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.statistics.two_sample import area_under_curve
from cosmogan.training.callbacks.alarms import Alarms, Variety, measure_gap, measure_variety
from cosmogan.training.callbacks.checkpoints import BestCheckpoints
from cosmogan.training.callbacks.figures import draw_validation
from cosmogan.training.callbacks.physics import CROSS_POWER, PhysicsValidation
from cosmogan.training.callbacks.progress import SliceProgress
from cosmogan.training.callbacks.shares import measure_shared
from cosmogan.training.data import SliceDataModule
from cosmogan.training.gan import CosmoGAN
from cosmogan.transforms import LogTransform
from cosmogan.units import RODRIGUEZ2018

METADATA = SliceMetadata(box_size=350.0, n_pixels=32, thickness=5.0, smoothing=1.0, cosmology=RODRIGUEZ2018)
SPECTRUM = PowerSpectrum("log")
N = 256
# Four standard deviations of a share of 2^16 pairs of 256 + 256 scores, and of a difference of means of 256.
SEPARATION_ERROR, GAP_ERROR = 4 * 0.026, 4 * (2 / N) ** 0.5


def fields(seed: int, n_slices: int = N) -> torch.Tensor:
    """Independent 1 + delta with structure: lognormal noise with a red spectrum."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(n_slices, 32, 32, generator=random)
    k = torch.fft.fftfreq(32)
    colour = 1 / (0.05 + (k[:, None] ** 2 + k[None] ** 2).sqrt())
    red = torch.fft.ifft2(torch.fft.fft2(noise) * colour).real
    density = torch.exp(0.7 * red / red.std())
    return density / density.mean()


def noise(n_slices: int, random: torch.Generator) -> torch.Tensor:
    """What `write_example` writes."""
    return torch.exp(torch.randn(n_slices, 16, 16, generator=random) - 0.5)


def measured(density: torch.Tensor) -> dict[str, np.ndarray]:
    delta, bins = density.double() - 1, SPECTRUM.bins(METADATA)
    cross = cross_power_spectrum(delta, delta.roll(-1, 0), METADATA.box_size, bins=bins)
    return {SPECTRUM.name: SPECTRUM.per_slice(density, METADATA).numpy(), CROSS_POWER: cross.numpy()}


HELD_OUT = measured(fields(0))
JUDGED = SPECTRUM.judged(METADATA, HELD_OUT[SPECTRUM.name].mean(0))


def variety(mocks: torch.Tensor) -> Variety:
    return measure_variety(measured(mocks), HELD_OUT, JUDGED)


# Shares of several processes.


class FakeTrainer:
    """One of several processes; what they reduce is kept to be added up."""

    def __init__(self, rank: int, size: int) -> None:
        self.global_rank, self.world_size, self.parts = rank, size, []
        self.strategy = SimpleNamespace(reduce=self._reduce)

    def _reduce(self, values: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "sum"
        self.parts.append(values)
        return values


@pytest.mark.parametrize("size", [2, 3, 7])
def test_processes_measure_together_what_one_measures_alone(size: int):
    density = fields(1, 21)
    calls: list[Any] = []

    def measure(numbers: Any) -> torch.Tensor:
        calls.append(numbers)
        return SPECTRUM.per_slice(density[numbers[0] : numbers[-1] + 1], METADATA)

    def of_rank(rank: int, size: int) -> torch.Tensor:
        trainer = FakeTrainer(rank, size)
        n_bins = len(SPECTRUM.edges(METADATA)) - 1
        measure_shared(trainer, 21, n_bins, measure, block=4, device=torch.device("cpu"))
        return trainer.parts[0]

    whole = of_rank(0, 1)
    assert len(calls) == 6
    parts = [of_rank(rank, size) for rank in range(size)]
    # No slice twice, and the same blocks.
    assert sorted(n for numbers in calls[6:] for n in numbers) == list(range(21))
    np.testing.assert_array_equal(sum(parts), whole)
    # Twin: a process that does not take part is missed.
    assert not torch.equal(sum(parts[1:]), whole)


# Alarms.


def test_independent_mocks_are_varied():
    found = variety(fields(5))
    assert abs(found.coherence) < 4 * found.error
    # The scatter of 256 slices is known to 1 / sqrt(2 x 256) in each of two sets and ten rings.
    assert found.scatter == pytest.approx(1, abs=4 / N**0.5)
    assert found.power == pytest.approx(1, abs=0.1)
    assert not found.alike
    assert not found.monotonous


@pytest.mark.parametrize("n_templates", [1, 2, 10])
def test_templates_are_coherent(n_templates: int):
    chosen = torch.randint(n_templates, (N,), generator=torch.Generator().manual_seed(0))
    found = variety(fields(6, n_templates)[chosen])
    # The share of pairs of the same template, which scatters as a binomial; the rest is independent.
    share = float((chosen == chosen.roll(-1)).double().mean())
    assert found.coherence == pytest.approx(share, abs=0.05)
    assert found.alike


def test_one_template_is_found_in_spite_of_noise_and_shifts():
    template = fields(6, 1)
    noisy = variety(template + 0.02 * fields(7))
    assert noisy.alike
    assert noisy.monotonous
    shift = torch.randint(32, (N, 2), generator=torch.Generator().manual_seed(0)).tolist()
    rolled = variety(torch.cat([template.roll(s, (1, 2)) for s in shift]))
    # Shifted copies have no coherence; that they are of one P(k) gives them away.
    assert not rolled.alike
    assert rolled.scatter == pytest.approx(0, abs=1e-9)
    assert rolled.monotonous
    flat = variety(torch.ones(N, 32, 32))
    assert flat.monotonous
    assert flat.power == pytest.approx(0, abs=1e-9)


def test_one_slice_says_nothing_about_variety():
    density = fields(6, 1)
    power = SPECTRUM.per_slice(density, METADATA).numpy()
    alone = {SPECTRUM.name: power, CROSS_POWER: np.full_like(power, np.nan)}
    found = measure_variety(measured(fields(7)), alone, JUDGED)
    assert not found.alike
    assert not found.monotonous


def test_separation_of_known_gaussians():
    random = np.random.default_rng(0)
    noise, other = random.standard_normal((2, N))
    for distance in (0.0, 0.5, 2.0):
        expected = stats.norm.cdf(distance / 2**0.5)
        assert area_under_curve(distance + noise, other) == pytest.approx(expected, abs=SEPARATION_ERROR)
    assert area_under_curve(np.ones(3), np.ones(4)) == 0.5
    assert area_under_curve(np.array([1.0, 3.0]), np.array([2.0, 0.0])) == 0.75


def test_gap_is_in_units_of_the_scatter():
    random = np.random.default_rng(1)
    noise, other = 3 * random.standard_normal((2, N))
    assert measure_gap(noise + 6, other) == pytest.approx(2, abs=GAP_ERROR)
    assert measure_gap(noise, other) == pytest.approx(0, abs=GAP_ERROR)
    assert measure_gap(np.ones(3), np.zeros(3)) == np.inf
    assert measure_gap(np.ones(3), np.ones(3)) == 0


# Toy trainings.


@pytest.fixture
def example(tmp_path: Path) -> Path:
    write_example(tmp_path / "slices.h5", n_realisations=3, n_slices=16)
    return tmp_path / "slices.h5"


def train(
    example: Path, out: Path, callbacks: list[L.Callback], *, max_slices: int = 96, prepare: Any = None, **settings: Any
) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.manual_seed(0)
    augment = settings.pop("augment", True)
    module = CosmoGAN(
        settings.pop("generator", None) or DCGANGenerator(16, latent_size=8, width=4, bounded=False),
        DCGANCritic(16, width=settings.pop("critic_width", 4), normalisation="none"),
        NonSaturating(),
        LogTransform(),
        max_slices=max_slices,
        average_halflife=100,
        **settings,
    )
    if prepare is not None:
        prepare(module)
    trainer = L.Trainer(
        default_root_dir=out,
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = SliceDataModule(str(example), batch_size=8, slices_per_epoch=max_slices // 4, augment=augment)
    trainer.fit(module, datamodule=data)
    return trainer


class Scores(L.Callback):
    """Pretends to judge."""

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)

    def on_validation_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        module.log("score", self.scores.pop(0))
        module.log("power_spectrum_error", 0.25)


def test_the_best_checkpoints_are_kept_and_no_score_that_is_none(tmp_path: Path, example: Path):
    nan = float("nan")
    kept = [BestCheckpoints(tmp_path, name="best"), BestCheckpoints(tmp_path / "checkpoints", keep=2)]
    train(example, tmp_path, [Scores(nan, 3.0, 1.25, 2.0), *kept])
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["slices_000000072_score_1.2500.ckpt", "slices_000000096_score_2.0000.ckpt"]
    best = load_checkpoint(tmp_path / "best.ckpt")["cosmogan"]
    assert '"n_slices_seen": 72' in best
    for name in names:
        assert (
            f'"n_slices_seen": {int(name.split("_")[1])}'
            in load_checkpoint(tmp_path / "checkpoints" / name)["cosmogan"]
        )


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, example: Path):
    trainer = train(example, tmp_path, [])
    module, last = trainer.lightning_module, tmp_path / "last.ckpt"
    trainer.save_checkpoint(last)
    before = last.read_bytes()
    # One step further, as where a signal ends a run between two looks at the losses.
    module.n_steps += 1
    with torch.no_grad():
        next(module.critic.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"weights are no longer finite. The last good checkpoint is .*last.ckpt"):
        trainer.save_checkpoint(last)
    assert last.read_bytes() == before


def test_without_scores_there_is_no_best(tmp_path: Path, example: Path):
    train(example, tmp_path, [Scores(*[float("nan")] * 4), BestCheckpoints(tmp_path / "checkpoints", keep=2)])
    assert not list((tmp_path / "checkpoints").glob("*"))


def test_progress_without_a_terminal_is_a_line_per_validation(tmp_path: Path, example: Path, capsys):
    train(example, tmp_path, [Scores(4, 3, 2, 1), SliceProgress()])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all("\r" not in line for line in lines)
    form = r"72 of 96 slices, [\d.e+]+ slices/s, time left \d:\d\d:\d\d; P\(k\) off by 25.0%, score 2.00"
    assert re.fullmatch(form, lines[2])


def test_an_honest_run_raises_no_alarm(tmp_path: Path, example: Path):
    validation = PhysicsValidation(n_mocks=64, draw=False)
    # As if mocks were slices: what a perfect generator would make.
    density = noise(64, torch.Generator().manual_seed(9))
    validation.make_mocks = lambda module, data, numbers: density[numbers[0] : numbers[-1] + 1]  # type: ignore[method-assign]
    train(example, tmp_path, [validation, Alarms()])
    assert not (tmp_path / "alarms.txt").exists()


def test_a_collapsed_generator_raises_an_alarm(tmp_path: Path, example: Path, capsys):
    validation = PhysicsValidation(n_mocks=64, draw=False)
    density = noise(1, torch.Generator().manual_seed(9))
    validation.make_mocks = lambda module, data, numbers: density.expand(len(numbers), -1, -1)  # type: ignore[method-assign]
    train(example, tmp_path, [validation, Alarms()])
    lines = (tmp_path / "alarms.txt").read_text().splitlines()
    collapse = [line for line in lines if "mode collapse" in line]
    # At the first, second and fourth validation.
    assert [int(line.split()[0]) for line in collapse] == [24, 48, 96]
    assert "mode collapse for 4 validations: different mocks are 100% coherent" in collapse[-1]
    assert "lower model.generator_lr" in collapse[-1]
    assert "alarm at 96 slices: mode collapse" in capsys.readouterr().err


class Noise(DCGANGenerator):
    """Makes what `write_example` makes, so that slices can be told from mocks by heart only."""

    emits_density = True

    def forward(self, latent: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
        # Of the latent numbers, for the same mocks at every validation.
        random = torch.Generator().manual_seed(int(1e6 * latent.abs().sum()))
        return noise(len(latent), random) + 0 * next(self.parameters()).sum()


def test_mocks_that_are_no_numbers_raise_an_alarm_and_are_drawn(tmp_path: Path, example: Path):
    validation = PhysicsValidation(n_mocks=8)
    validation.make_mocks = lambda module, data, numbers: torch.full((len(numbers), 16, 16), torch.nan)  # type: ignore[method-assign]
    train(example, tmp_path, [validation, Alarms(), BestCheckpoints(tmp_path, name="best")])
    assert "24 slices: the score is not a number" in (tmp_path / "alarms.txt").read_text()
    assert len(list((tmp_path / "samples").iterdir())) == 4
    assert not (tmp_path / "best.ckpt").exists()


@pytest.mark.parametrize(("n_realisations", "n_slices", "expected"), [(2, 8, True), (9, 45, False)])
def test_a_critic_of_few_slices_raises_an_alarm(tmp_path: Path, n_realisations: int, n_slices: int, expected: bool):
    write_example(tmp_path / "slices.h5", n_realisations=n_realisations, n_slices=n_slices)
    validation, alarms = PhysicsValidation(n_mocks=64, draw=False), Alarms(n_scored=64)
    generator = Noise(16, latent_size=8, width=4)
    settings = {"generator": generator, "critic_width": 16, "critic_lr": 1e-3, "augment": False}
    train(tmp_path / "slices.h5", tmp_path, [validation, alarms], max_slices=160, **settings)
    text = (tmp_path / "alarms.txt").read_text() if (tmp_path / "alarms.txt").exists() else ""
    assert ("the critic is overfitted" in text) == expected
    assert ("train on more realisations" in text) == expected


def test_alarms_beyond_the_checkpoint_are_forgotten(tmp_path: Path):
    path = tmp_path / "alarms.txt"
    path.write_text("24 slices: a\n48 slices: b\n\nmy note\n72 slices: c\n4")
    module = SimpleNamespace(n_slices_seen=48)
    trainer = SimpleNamespace(default_root_dir=tmp_path, is_global_zero=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cosmogan.training.callbacks.alarms.CosmoGAN", SimpleNamespace)
        Alarms().on_train_start(trainer, module)
    assert path.read_text() == "24 slices: a\n48 slices: b\n\nmy note\n"


def test_a_critic_that_cannot_tell_raises_an_alarm_after_three_validations(tmp_path: Path, example: Path):
    validation = PhysicsValidation(n_mocks=64, draw=False)
    density = noise(64, torch.Generator().manual_seed(9))
    validation.make_mocks = lambda module, data, numbers: density[numbers[0] : numbers[-1] + 1]  # type: ignore[method-assign]
    alarms = Alarms()
    alarms.load_state_dict({"has_told": True, "streaks": {}})

    def blind(module: CosmoGAN) -> None:
        module.critic.forward = lambda values, conditions=None: (
            values.flatten(1).sum(1) * 0
            + next(  # type: ignore[method-assign]
                module.critic.parameters()
            ).sum()
        )

    train(example, tmp_path, [validation, alarms], prepare=blind)
    (line,) = (tmp_path / "alarms.txt").read_text().splitlines()
    assert line.startswith("72 slices: the critic cannot tell mocks from slices for 3 validations: it ranks 50%")
    assert alarms.state_dict() == {"closest": 0.5, "streaks": {"undecided": 4}}


def test_a_training_that_falls_apart_raises_an_alarm(tmp_path: Path, example: Path):
    validation = PhysicsValidation(n_mocks=64, draw=False)
    density = noise(64, torch.Generator().manual_seed(9))

    def mocks(module: CosmoGAN, data: SliceDataModule, numbers: range) -> torch.Tensor:
        # From the third validation on most pixels are alike and some are far off.
        good = density[numbers[0] : numbers[-1] + 1]
        return good if module.n_slices_seen <= 48 else 1 + 1e-4 * (good - 1) ** 9

    validation.make_mocks = mocks  # type: ignore[method-assign]
    train(example, tmp_path, [validation, Alarms(), BestCheckpoints(tmp_path, name="best")])
    lines = (tmp_path / "alarms.txt").read_text().splitlines()
    apart = [line for line in lines if "fell apart" in line]
    assert [int(line.split()[0]) for line in apart] == [72, 96]
    assert re.search(r"fell apart for 2 validations: the score is \S+ and was \S+ before, as best.ckpt", apart[1])


@pytest.mark.parametrize(("closest", "worse", "expected"), [(0.56, True, [72, 96]), (0.9, True, []), (0.56, False, [])])
def test_a_critic_that_suddenly_tells_all_mocks_raises_an_alarm(
    tmp_path: Path, example: Path, closest: float, worse: bool, expected: list[int], monkeypatch: pytest.MonkeyPatch
):
    # Scores of mocks that do not fall apart by themselves; the last two validations are three times as bad, or not.
    monkeypatch.setattr(
        "cosmogan.training.callbacks.alarms._best_score", lambda trainer: trainer.callback_metrics["score"] / factor
    )
    monkeypatch.setattr("cosmogan.training.callbacks.alarms.area_under_curve", lambda real, mocks: separation)
    validation, alarms = PhysicsValidation(n_mocks=64, draw=False), Alarms()
    factor, separation = 1.0, closest

    class Falling(L.Callback):
        def on_validation_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            nonlocal factor, separation
            late = module.n_slices_seen > 48
            factor, separation = (2.8 if late and worse else 1.0), (1.0 if late else closest)

    density = noise(64, torch.Generator().manual_seed(9))
    validation.make_mocks = lambda module, data, numbers: density[numbers[0] : numbers[-1] + 1]  # type: ignore[method-assign]
    alarms.load_state_dict({"has_told": True, "streaks": {}})
    train(example, tmp_path, [Falling(), validation, alarms])
    path = tmp_path / "alarms.txt"
    apart = [line for line in path.read_text().splitlines() if "fell apart" in line] if path.exists() else []
    assert [int(line.split()[0]) for line in apart] == expected
    assert all("the critic ranks 100% of the pairs rightly, and ranked 56%" in line for line in apart)


# What is validated, and how it looks.


def test_mocks_of_a_run_in_bfloat16_are_made_in_float32(example: Path):
    torch.manual_seed(0)
    module = CosmoGAN(
        DCGANGenerator(16, latent_size=8, width=4), DCGANCritic(16, width=4), NonSaturating(), LogTransform()
    )
    data = SliceDataModule(str(example))
    validation = PhysicsValidation()
    with torch.no_grad():
        module.transform.fit(data.training)
        expected = validation.make_mocks(module, data, range(4))
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(validation.make_mocks(module, data, range(4)), expected, rtol=0, atol=0)
            # Twin: nobody else sees to it.
            latent = torch.randn(4, *module.average.latent_shape)
            inside = module.average(latent)
        assert not torch.equal(inside.float(), module.average(latent))


def test_the_figure_shows_mocks_without_power_or_structure():
    statistics, real, empty = [SPECTRUM, Histogram()], fields(0, 4), torch.zeros(3, 32, 32)
    means, reference = (
        {s.name: s.per_slice(density, METADATA).numpy().mean(0) for s in statistics} for density in (empty, real)
    )
    pixels = draw_validation(
        list(real.numpy()),
        list(empty.numpy()),
        statistics,
        METADATA,
        reference=reference,
        sigma={name: 0.1 * values for name, values in reference.items()},
        mocks=means,
        title="",
    )
    assert pixels.dtype == np.uint8
    height, width = pixels.shape[:2]
    # Slices above, with their colours; mocks below in the lowest one; margins are white.
    upper, lower = pixels[height // 4, : width // 4], pixels[2 * height // 3, : width // 4]
    assert len(np.unique(upper, axis=0)) > 20 > len(np.unique(lower, axis=0))
    assert (pixels[0] == 255).all()


@pytest.mark.parametrize(("settings", "name"), [({"n_mocks": 1}, "n_mocks"), ({"keep": -1}, "keep")])
def test_bad_settings(settings: dict[str, int], name: str):
    with pytest.raises(UserError, match=f"validation.{name}: expected at least"):
        PhysicsValidation(**settings)
    with pytest.raises(UserError, match=r"alarms.n_scored: expected at least 2, found 1"):
        Alarms(n_scored=1)
