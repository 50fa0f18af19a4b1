"""Two processes that share a file's slices find what one finds."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from cosmogan.slices import SliceReader, write_example
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.bispectrum import EquilateralBispectrum
from cosmogan.statistics.histogram import Histogram
from cosmogan.statistics.measurement import measure
from cosmogan.statistics.minkowski import EulerCharacteristic
from cosmogan.statistics.peaks import Peaks
from cosmogan.statistics.power_spectrum import PowerSpectrum

# Sums of 24 float64 numbers in another order; products of numbers with their scatter lose some figures more.
MEANS, COVARIANCE = 1e-12, 1e-10
FIVE_PERCENT = 1.05


def statistics() -> list[AbstractStatistic]:
    return [PowerSpectrum(), Histogram(), Peaks(), EulerCharacteristic(), EquilateralBispectrum()]


def share(rank: int) -> slice:
    # Uneven, and cut within a realisation.
    return slice(0, 5) if rank == 0 else slice(5, None)


def measure_share(path: Path, rank: int) -> dict[str, Accumulator]:
    found = {}
    with SliceReader(path) as reader:
        mine = range(reader.n_slices)[share(rank)]
        fields = torch.from_numpy(reader.density(mine.start, mine.stop))
        for statistic in statistics():
            values = statistic.per_slice(fields, reader.metadata)
            found[statistic.name] = Accumulator(values.shape[1])
            found[statistic.name].update(values, reader.realisation[mine.start : mine.stop])
    return found


def expect_same(means: np.ndarray, covariance: np.ndarray, whole: Accumulator) -> None:
    scale = np.abs(whole.realisation_means()).max()
    np.testing.assert_allclose(means, whole.realisation_means(), rtol=MEANS, atol=MEANS * scale)
    scale = np.abs(whole.covariance()).max()
    np.testing.assert_allclose(covariance, whole.covariance(), rtol=COVARIANCE, atol=COVARIANCE * scale)


def _process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = measure_share(Path(folder) / "a.h5", rank)
    numbers = {}
    for name, accumulator in found.items():
        accumulator.all_reduce()
        numbers[f"{name} means"] = accumulator.realisation_means()
        numbers[f"{name} covariance"] = accumulator.covariance()
    np.savez(f"{folder}/{rank}.npz", **numbers)
    torch.distributed.destroy_process_group()


@pytest.mark.distributed
def test_two_processes_equal_one(tmp_path: Path) -> None:
    write_example(tmp_path / "a.h5", quantity="counts")
    torch.multiprocessing.spawn(_process, args=(str(tmp_path),), nprocs=2)
    with SliceReader(tmp_path / "a.h5") as reader:
        whole = measure(reader, statistics()).accumulators
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        for name, accumulator in whole.items():
            expect_same(found[f"{name} means"], found[f"{name} covariance"], accumulator)
            for wrong in (FIVE_PERCENT, 1 / FIVE_PERCENT):
                with pytest.raises(AssertionError):
                    expect_same(found[f"{name} means"] * wrong, found[f"{name} covariance"], accumulator)
                with pytest.raises(AssertionError):
                    expect_same(found[f"{name} means"], found[f"{name} covariance"] * wrong, accumulator)


def test_merged_shares_are_the_whole(tmp_path: Path) -> None:
    write_example(tmp_path / "a.h5", quantity="counts")
    first, second = (measure_share(tmp_path / "a.h5", rank) for rank in range(2))
    with SliceReader(tmp_path / "a.h5") as reader:
        whole = measure(reader, statistics()).accumulators
    for name, accumulator in whole.items():
        half = first[name].realisation_means()
        first[name].merge(second[name])
        expect_same(first[name].realisation_means(), first[name].covariance(), accumulator)
        # Twin: one share alone is not the whole.
        assert half.shape != accumulator.realisation_means().shape
