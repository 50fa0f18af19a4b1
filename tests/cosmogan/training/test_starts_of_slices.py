"""Training of generators that start from simulations: pairs of the same phases, and starts of others."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from cosmogan import Emulator
from cosmogan.emulator.export import export, load_checkpoint
from cosmogan.emulator.starts import StartMaker
from cosmogan.errors import UserError
from cosmogan.losses.pins import StatisticPins
from cosmogan.networks.gravity_start import GravityStartGenerator
from cosmogan.slices import read_slices, write_slices
from cosmogan.training.data import SliceDataModule
from cosmogan.training.fit import fit
from cosmogan.transforms import LogTransform
from data_tools.simulation.simulate import simulate
from tests.cosmogan.training.recipes import recipe

SIDE, PARTICLES = 16, 16
GRAVITY = """
  generator: {class_path: GravityStartGenerator, init_args: {width: 4, start_particles: 16, start_steps: 2,
    mean_count: 1}}
  critic: {class_path: PatchCritic, init_args: {patch: 16, width: 4, pairs: PAIRS}}
  objective: {class_path: Relativistic}
  penalty: {class_path: ZeroCentred, init_args: {gamma: 1.0, every: 2}}
  transform: {class_path: LogTransform}
  pins: {class_path: StatisticPins}
"""


def text(pairs: bool = True, phases: str = "same", regression: float = 1.0, **model: object) -> str:
    data = f"batch_size: 4, slices_per_epoch: 24, phases: {phases}"
    settings = {"max_slices": 48, "regression": regression} | model
    return recipe(GRAVITY.replace("PAIRS", str(pairs).lower()), data=data, **settings)


@pytest.fixture(autouse=True)
def few_mocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GravityStartGenerator, "CALIBRATION_PIXELS", 32 * SIDE**2)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "slices.h5"
    simulate(
        box_size="70 Mpc/h",
        particles=PARTICLES,
        seeds="1:3",
        steps=4,
        slice_pixels=SIDE,
        smoothing=1.0,
        out=str(path),
        device="cpu",
    )
    return path


def run(tmp_path: Path, data: Path, settings: str, name: str = "run", *more: str) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(settings)
    return fit(["--config", str(file), "--data.path", str(data), "--out", str(tmp_path / name), *more])


def module_of(path: Path, **changes) -> tuple[SliceDataModule, StartMaker]:
    data = SliceDataModule(str(path), **({"batch_size": 8} | changes))
    generator = GravityStartGenerator(SIDE, start_particles=PARTICLES, start_steps=4, start_mesh=32, mean_count=1.0)
    maker = StartMaker(generator, data.metadata)
    maker.tabulate()
    data.make_starts(maker)
    generator.prepare(data.training, transform=LogTransform(), metadata=data.metadata, seed=0)
    return data, maker


def test_slices_come_with_the_starts_of_their_phases(simulated: Path):
    # With the steps and the mesh of the simulation a start, smoothed, is the slice.
    data, maker = module_of(simulated)
    batch = data.train_dataloader().batch(3)
    density = maker._generator.start_density(batch.starts)
    torch.testing.assert_close(density, batch.density, rtol=1e-3, atol=1e-3)
    # Turned and rolled together.
    turned = data.on_after_batch_transfer(batch, 0)
    assert not torch.equal(turned.density, batch.density)
    torch.testing.assert_close(maker._generator.start_density(turned.starts), turned.density, rtol=1e-3, atol=1e-3)
    # Either side of a slab comes first.
    sides = [np.sort(each.starts[:, 1:].sum((2, 3)).numpy(), 1) for each in (batch, turned)]
    assert np.array_equal(*sides)
    assert not torch.equal(batch.starts[:, 1].sum((1, 2)), turned.starts[:, 1].sum((1, 2)))
    for starts, slices in ((data.training_starts, data.training), (data.validation_starts, data.validation)):
        found = maker._generator.start_density(starts.take(np.arange(len(slices))))
        torch.testing.assert_close(found, slices, rtol=1e-3, atol=1e-3)


def test_two_processes_see_the_starts_of_one(simulated: Path):
    data, _ = module_of(simulated, phases="random")
    whole = data.train_dataloader()
    half = data.train_dataloader()
    half.batch_size, half.world_size, half.rank = 4, 2, 1
    assert torch.equal(half.batch(2).starts, whole.batch(2).starts[4:])


@pytest.mark.parametrize(("pairs", "phases"), [(True, "same"), (False, "same"), (False, "random")])
def test_a_run_makes_an_emulator(simulated: Path, tmp_path: Path, pairs: bool, phases: str):
    best = run(tmp_path, simulated, text(pairs, phases, regression=1.0 if pairs else 0.0))
    record = json.loads(load_checkpoint(best)["cosmogan"])["training"]
    assert record["phases"] == phases
    export(str(best), out=str(tmp_path / "e.safetensors"), refit=True, refit_mocks=64)
    emulator = Emulator.load(tmp_path / "e.safetensors")
    assert emulator.training["refitted"]
    slices = emulator.sample(48, seed=1)
    assert slices.shape == (48, SIDE, SIDE)
    assert np.isfinite(slices).all()
    assert slices.mean() == pytest.approx(1, abs=0.1)


def test_the_distance_from_the_slice_draws_mocks_to_it(simulated: Path):
    # Of starts with too few particles in their peaks, the network learns to put more there.
    data, maker = module_of(simulated)
    generator = maker._generator.train()
    batch = data.train_dataloader().batch(0)
    few = torch.cat([(0.5 * batch.starts).round(), torch.zeros(8, 2, SIDE, SIDE)], 1)
    optimiser = torch.optim.Adam(generator.parameters(), lr=0.0005)
    distances = []
    for _ in range(80):
        optimiser.zero_grad()
        distance = (torch.log(generator(few) + 0.05) - torch.log(batch.density + 0.05)).abs().mean()
        distance.backward()
        optimiser.step()
        distances.append(float(distance.detach()))
    assert distances[-1] < 0.6 * distances[0]


def test_a_resumed_run_is_an_uninterrupted_one(simulated: Path, tmp_path: Path):
    run(tmp_path, simulated, text(), "whole")
    run(tmp_path, simulated, text(max_slices=24), "half")
    last = tmp_path / "half" / "last.ckpt"
    run(tmp_path, simulated, text(), "rest", "--ckpt_path", str(last), "--model.max_slices", "48")
    one, other = (
        load_checkpoint(tmp_path / name / "last.ckpt")["state_dict"]["generator.network.enter.weight"]
        for name in ("whole", "rest")
    )
    # The cosine of the rates is that of another length until the middle, but here it does not fall.
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (text(True, "random", 0.0), "model.critic.pairs: compares slices with starts of the same phases"),
        (text(False, "random", 1.0), "model.regression: compares slices with starts of the same phases"),
        (text().replace("start_particles: 16", "start_particles: 32"), r"simulated with 16\^3 particles"),
        (text().replace("mean_count: 1", "mean_count: 3"), "simulated with 1 particles per pixel, found 3"),
        (
            text().replace("GravityStartGenerator, init_args: {width: 4, start_particles: 16, start_steps: 2,\n    "
                           "mean_count: 1}", "SpectralPriorGenerator, init_args: {width: 4}"),
            "SpectralPriorGenerator starts from noise",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(simulated: Path, tmp_path: Path, settings: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        run(tmp_path, simulated, settings)


def test_slices_of_unknown_phases_need_other_starts(simulated: Path, tmp_path: Path):
    stranger = tmp_path / "stranger.h5"
    write_slices(stranger, read_slices(simulated))
    with pytest.raises(UserError, match=r"does not say how its slices were simulated.*set data.phases to random"):
        run(tmp_path, stranger, text())
    run(tmp_path, stranger, text(False, "random", 0.0), "other")
    with h5py.File(simulated) as file:
        assert "parameters" in file["provenance"].attrs


def test_pins_follow_slices_of_the_same_phases():
    pins = StatisticPins(power=1.0, distribution=1.0, mean=1.0, values_power=1.0, memory=1)
    random = torch.Generator().manual_seed(0)
    training = torch.exp(torch.randn(64, SIDE, SIDE, generator=random))
    transform = LogTransform()
    transform.fit(training)
    pins.prepare(training, transform=transform, side=SIDE, partners=True)
    # A batch denser than the average: mocks like it are right, and average ones are not.
    batch = 3 * torch.exp(0.5 * torch.randn(64, SIDE, SIDE, generator=random))
    for _ in range(20):
        right = pins(batch, transform(batch), (batch, transform(batch)))
    for _ in range(20):
        wrong = pins(training, transform(training), (batch, transform(batch)))
    assert float(right) == pytest.approx(0, abs=1e-6)
    assert float(wrong) > 0.5
