import json
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch

from cosmogan.emulator.conditions import Conditions
from cosmogan.emulator.export import load_checkpoint
from cosmogan.errors import UserError
from cosmogan.losses.non_saturating import NonSaturating
from cosmogan.networks.dcgan import DCGANCritic, DCGANGenerator
from cosmogan.seeds import derive_seed
from cosmogan.slices import read_slices, write_example
from cosmogan.training import data
from cosmogan.training.data import SliceDataModule, StepLoader, augment
from cosmogan.training.gan import CosmoGAN
from cosmogan.training.slice_stores import FileStore, MemoryStore
from cosmogan.transforms import LogTransform
from tests.cosmogan.emulator.test_conditions import OMEGA_M, write_conditioned


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "slices.h5"
    write_example(path, n_realisations=5, n_slices=6, quantity="counts")
    return path


def test_the_split_is_by_realisation(example: Path):
    module = SliceDataModule(str(example), n_validation=1, n_test=1)
    assert module.training_realisations == [0, 1, 2]
    assert module.validation_realisations == [3]
    whole = read_slices(example)
    expected = whole.slices[whole.realisation == 3] / np.float32(8.0)
    np.testing.assert_allclose(module.validation.numpy(), expected, rtol=1e-6)
    assert len(module.training) == module.n_training == 18
    assert module.n_pixels == 16


def test_too_few_realisations_say_what_is_needed(example: Path):
    with pytest.raises(
        UserError, match="realisations found: 5, but the split needs at least 1 to train, 5 to validate"
    ):
        SliceDataModule(str(example), n_validation=5)


@pytest.mark.parametrize("values", [{"batch_size": 0}, {"n_validation": 0}, {"n_test": -1}, {"slices_per_epoch": 0}])
def test_impossible_values_are_refused(example: Path, values: dict[str, int]):
    with pytest.raises(UserError, match=f"data.{next(iter(values))}"):
        SliceDataModule(str(example), **values)


def stored(n: int) -> MemoryStore:
    return MemoryStore(torch.arange(float(n)).view(n, 1, 1).expand(n, 4, 4))


def drawn(loader: StepLoader, n_steps: int) -> list[float]:
    return [float(v) for step in range(n_steps) for v in loader.batch(step).density[:, 0, 0]]


def test_every_slice_comes_once_before_any_comes_twice():
    loader = StepLoader(stored(10), batch_size=4, steps_per_epoch=100, seed=3)
    values = drawn(loader, 5)
    assert sorted(values[:10]) == sorted(values[10:]) == list(range(10))
    assert values[:10] != values[10:]


def test_two_processes_share_the_slices():
    ranks = [StepLoader(stored(12), batch_size=3, steps_per_epoch=9, seed=3, rank=r, world_size=2) for r in range(2)]
    assert sorted(drawn(ranks[0], 2) + drawn(ranks[1], 2)) == list(range(12))


def test_a_loader_goes_on_where_its_state_was_saved():
    one = StepLoader(stored(10), batch_size=4, steps_per_epoch=6, seed=3)
    everything = [b.density for b in one] + [b.density for b in one]
    two = StepLoader(stored(10), batch_size=4, steps_per_epoch=6, seed=3)
    iterator = iter(two)
    for _ in range(4):
        next(iterator)
    three = StepLoader(stored(10), batch_size=4, steps_per_epoch=6, seed=3)
    three.load_state_dict(two.state_dict())
    rest = [b.density for b in three] + [b.density for b in three]
    assert len(rest) == 8
    for a, b in zip(rest, everything[4:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_augmentation_only_moves_pixels():
    slices = torch.arange(3 * 64.0).view(3, 8, 8)
    moved = augment(slices, seed=1)
    for before, after in zip(slices, moved, strict=True):
        assert sorted(before.flatten().tolist()) == sorted(after.flatten().tolist())
    torch.testing.assert_close(moved, augment(slices, seed=1), rtol=0, atol=0)
    assert not torch.equal(moved, augment(slices, seed=2))


def test_planes_of_a_slice_move_together():
    slices = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0))
    both = augment(torch.stack([slices, -slices], 1), seed=1)
    torch.testing.assert_close(both[:, 0], augment(slices, seed=1), rtol=0, atol=0)
    torch.testing.assert_close(both[:, 1], -both[:, 0], rtol=0, atol=0)


def test_augmentation_reaches_all_symmetries_and_all_shifts():
    # Three neighbouring marks in an L: 8 orientations at 16 places.
    slices = torch.zeros(1, 4, 4)
    slices[0, 0, 0], slices[0, 0, 1], slices[0, 1, 0] = 1.0, 2.0, 3.0
    seen = {tuple(v.flatten().tolist()) for v in augment(slices.expand(8000, 4, 4), seed=0)}
    assert len(seen) == 8 * 16


def test_two_processes_augment_as_one():
    whole = StepLoader(MemoryStore(torch.randn(24, 8, 8)), batch_size=12, steps_per_epoch=9, seed=3)
    parts = [StepLoader(whole.slices, batch_size=6, steps_per_epoch=9, seed=3, rank=r, world_size=2) for r in range(2)]
    for step in range(5):

        def moved(loader: StepLoader, step: int = step) -> torch.Tensor:
            batch = loader.batch(step)
            return augment(batch.density, seed=batch.seed, first=batch.first, total=batch.total)

        torch.testing.assert_close(torch.cat([moved(part) for part in parts]), moved(whole), rtol=0, atol=0)


def test_rolling_alone_keeps_the_orientation():
    slices = torch.zeros(1, 4, 4)
    slices[0, 0, 0], slices[0, 0, 1], slices[0, 1, 0] = 1.0, 2.0, 3.0
    rolled = augment(slices.expand(800, 4, 4), seed=0, turn=False)
    assert len({tuple(v.flatten().tolist()) for v in rolled}) == 16
    for one in rolled:
        row, column = (one == 1).nonzero()[0].tolist()
        assert one[row, (column + 1) % 4] == 2
        assert one[(row + 1) % 4, column] == 3


def test_neighbours_stay_neighbours():
    # The periodic autocorrelation of a slice does not change under its symmetries, up to these symmetries.
    slices = torch.randn(20, 8, 8, generator=torch.Generator().manual_seed(0))
    power = torch.fft.fft2(slices).abs().square()
    moved = torch.fft.fft2(augment(slices, seed=5)).abs().square()
    torch.testing.assert_close(moved.flatten(1).sort(1).values, power.flatten(1).sort(1).values, rtol=1e-4, atol=1e-3)


def test_seeds_depend_on_every_word():
    assert len({derive_seed(0, 1), derive_seed(1, 0), derive_seed(0, 1, 0), derive_seed(0, 2)}) == 4


def test_augmentation_passes_gradients_to_the_pixels_they_belong_to():
    slices = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weights = torch.arange(320.0).view(5, 8, 8)
    moved = augment(slices, seed=5)
    (moved * weights).sum().backward()
    # The weight of each pixel, found by its value.
    assert slices.grad is not None
    by_value = dict(zip(moved.flatten().tolist(), weights.flatten().tolist(), strict=True))
    assert [by_value[v] for v in slices.flatten().tolist()] == slices.grad.flatten().tolist()


@pytest.mark.parametrize("largest", [2**30, 6 * 4 * 16**2], ids=["all fitted", "sample fitted"])
def test_training_does_not_depend_on_where_slices_lie(example: Path, monkeypatch, largest: int):
    monkeypatch.setattr(data, "_FITTED_BYTES", largest)
    runs = []
    for memory in ("auto", "host", "file"):
        module = SliceDataModule(str(example), batch_size=4, n_validation=2, slices_per_epoch=20, memory=memory)
        loader = module.train_dataloader()
        assert isinstance(loader.slices, FileStore if memory == "file" else MemoryStore)
        runs.append((module, [*loader, *loader]))
    (first, batches), *others = runs
    assert [b.seed for b in batches] == [derive_seed(0, step) for step in range(10)]
    for module, same in others:
        for one, other in zip(batches, same, strict=True):
            assert (one.seed, one.first, one.total) == (other.seed, other.first, other.total)
            torch.testing.assert_close(one.density, other.density, rtol=0, atol=0)
        torch.testing.assert_close(module.training, first.training, rtol=0, atol=0)
        torch.testing.assert_close(module.validation, first.validation, rtol=0, atol=0)


def test_large_sets_are_fitted_by_a_sample_of_every_realisation(example: Path, monkeypatch):
    monkeypatch.setattr(data, "_FITTED_BYTES", 6 * 4 * 16**2)
    module = SliceDataModule(str(example), batch_size=9, n_validation=2)
    assert (module.n_training, len(module.training), len(module.validation)) == (18, 6, 6)
    assert module.training_label.tolist() == [0, 0, 1, 1, 2, 2]
    whole = read_slices(example).slices / np.float32(8)
    places = [int(np.flatnonzero((whole == one).all((1, 2)))[0]) for one in module.training.numpy()]
    assert [p // 6 for p in places] == module.training_label.tolist()
    # Networks train on all of them.
    loader = module.train_dataloader()
    seen = torch.cat([loader.batch(0).density, loader.batch(1).density])
    assert len({tuple(v.flatten().tolist()) for v in seen}) == 18


def test_a_stopped_pass_goes_on_from_the_file(example: Path):
    def loader() -> StepLoader:
        return SliceDataModule(str(example), batch_size=4, slices_per_epoch=24, memory="file").train_dataloader()

    whole = [b.density for b in loader()]
    cut = loader()
    iterator = iter(cut)
    next(iterator), next(iterator)
    # Batches that were read ahead do not count.
    assert cut.state_dict() == {"step": 2}
    iterator.close()
    other = loader()
    other.load_state_dict(cut.state_dict())
    torch.testing.assert_close(torch.stack([b.density for b in other]), torch.stack(whole[2:]), rtol=0, atol=0)


def test_batches_larger_than_the_set_are_refused(example: Path):
    SliceDataModule(str(example), batch_size=24)
    with pytest.raises(UserError, match=r"batch_size: 25 is more than the 24 training slices of .*slices.h5"):
        SliceDataModule(str(example), batch_size=25)
    module = SliceDataModule(str(example), batch_size=24)
    module.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), global_rank=0, world_size=2, num_devices=2
    )
    # Before anything is fitted or written.
    with pytest.raises(UserError, match="24 in each of 2 processes is more than the 24"):
        module.setup("fit")


def test_a_split_without_validation_is_refused(example: Path):
    with pytest.raises(UserError, match=r"n_validation: expected at least 1, found 0; the checkpoint is chosen by"):
        SliceDataModule(str(example), n_validation=0)


def test_a_gpu_that_is_not_there_is_refused(example: Path):
    with pytest.raises(UserError, match=r"data\.memory: 'device'"):
        SliceDataModule(str(example), memory="device").setup("fit")


def test_conditions_come_with_their_slices(tmp_path: Path):
    path = tmp_path / "conditioned.h5"
    write_conditioned(path)
    module = SliceDataModule(str(path), batch_size=8, conditions=["Omega_m"])
    assert module.n_conditions == 1
    assert module.conditions is not None
    column = module.conditions.columns[0]
    assert (column.mean, column.low, column.high) == (pytest.approx(0.25), 0.1, 0.4)
    whole = read_slices(path)
    for step in range(4):
        batch = module.on_after_batch_transfer(module.train_dataloader().batch(step), 0)
        for one, condition in zip(batch.density, batch.conditions, strict=True):
            # Turned slices keep the sum of their pixels, nearly.
            place = int(np.argmin(np.abs(whole.slices.sum((1, 2)) - one.sum().item())))
            expected = (OMEGA_M[whole.realisation[place]] - column.mean) / column.scale
            assert condition.tolist() == pytest.approx([expected])
    assert module.validation_conditions is not None
    assert module.validation_conditions[0].tolist() == pytest.approx([(0.5 - column.mean) / column.scale])
    assert module.training_conditions is not None
    assert (len(module.training_conditions), len(module.validation_conditions)) == (24, 6)
    assert SliceDataModule(str(path)).train_dataloader().batch(0).conditions is None


def test_a_file_that_changed_since_the_checkpoint_is_refused(tmp_path: Path):
    path = tmp_path / "slices.h5"
    write_conditioned(path)
    state = SliceDataModule(str(path), conditions=["Omega_m"]).state_dict()
    SliceDataModule(str(path), batch_size=3, conditions=["Omega_m"]).load_state_dict(state)
    for changed, expected in (
        (
            {"n_validation": 2},
            r"training realisations changed since the checkpoint: \[0, 1, 2, 3\] then, \[0, 1, 2\] now",
        ),
        ({"conditions": ["A_SN1"]}, "conditions changed since the checkpoint; resume with the file"),
        ({"conditions": None}, "conditions changed"),
    ):
        with pytest.raises(UserError, match=expected):
            SliceDataModule(str(path), **{"conditions": ["Omega_m"]} | changed).load_state_dict(state)
    write_example(path, n_realisations=5, n_slices=7)
    with pytest.raises(UserError, match="number of slices changed since the checkpoint: 30 then, 35 now"):
        SliceDataModule(str(path)).load_state_dict(state)


def test_a_run_with_conditions_keeps_their_scales_and_refuses_another_file(tmp_path: Path):
    path = tmp_path / "slices.h5"
    write_conditioned(path)

    def train(n_conditions: int, max_slices: int, checkpoint: Path | None = None) -> L.Trainer:
        generator = DCGANGenerator(16, latent_size=4, width=2, bounded=False, n_conditions=n_conditions)
        critic = DCGANCritic(16, width=2, n_conditions=n_conditions)
        gan = CosmoGAN(generator, critic, NonSaturating(), LogTransform(), max_slices=max_slices)
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        module = SliceDataModule(str(path), batch_size=4, conditions=["Omega_m"], memory="file")
        trainer.fit(gan, datamodule=module, ckpt_path=checkpoint, weights_only=True)
        return trainer

    with pytest.raises(UserError, match=r"data.conditions names 1 conditions, but the networks take 0"):
        train(0, 8)
    checkpoint = tmp_path / "a.ckpt"
    train(1, 8).save_checkpoint(checkpoint)
    record = json.loads(load_checkpoint(checkpoint)["cosmogan"])["training"]
    column = Conditions.from_list(record["conditions"]).columns[0]
    assert (column.name, column.mean) == ("Omega_m", pytest.approx(0.25))
    assert train(1, 16, checkpoint).lightning_module.n_steps == 4
    write_conditioned(path, n_slices=7)
    with pytest.raises(UserError, match="number of slices changed since the checkpoint: 30 then, 35 now"):
        train(1, 16, checkpoint)
