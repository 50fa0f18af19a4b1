from pathlib import Path

import numpy as np
import pytest
import torch

from cosmogan.data import SliceDataModule, StepLoader, augment, derive_seed
from cosmogan.errors import UserError
from cosmogan.slices import read_slices, write_example
from cosmogan.stores import MemoryStore


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "slices.h5"
    write_example(path, n_realisations=5, n_slices=6, quantity="counts")
    return path


def test_the_split_is_by_realisation(example: Path):
    data = SliceDataModule(str(example), n_validation=1, n_test=1)
    assert data.training_realisations == [0, 1, 2]
    assert data.validation_realisations == [3]
    whole = read_slices(example)
    expected = whole.slices[whole.realisation == 3] / np.float32(8.0)
    np.testing.assert_allclose(data.validation.numpy(), expected, rtol=1e-6)
    assert len(data.training) == 18
    assert data.n_pixels == 16


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
