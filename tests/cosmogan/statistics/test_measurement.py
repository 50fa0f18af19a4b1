from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from closeness import expect_close

from cosmogan.errors import UserError
from cosmogan.slices import SliceReader, read_slices, write_example
from cosmogan.statistics import measurement
from cosmogan.statistics.histogram import Histogram
from cosmogan.statistics.measurement import measure
from cosmogan.statistics.power_spectrum import PowerSpectrum, power_spectrum

# Sums of some hundred float64 numbers in another order.
FLOAT64 = 1e-11
# Products of numbers with a scatter as large as themselves.
COVARIANCE = 1e-8
# The reader's densities are float32.
DENSITY = 1e-6


def test_streams_to_the_same_as_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_example(tmp_path / "a.h5", quantity="counts")
    with SliceReader(tmp_path / "a.h5") as reader:
        whole = measure(reader, [PowerSpectrum(), Histogram()])
        # Five slices at a time: 24 do not divide evenly.
        monkeypatch.setattr(measurement, "_PIXELS_AT_A_TIME", 5 * 16**2)
        streamed = measure(reader, [PowerSpectrum(), Histogram()])
    for name in ("power_spectrum", "histogram"):
        one, other = whole.accumulators[name], streamed.accumulators[name]
        expect_close(one.mean(), other.mean(), FLOAT64)
        expect_close(one.covariance(), other.covariance(), COVARIANCE)
        assert (other.n_slices, other.n_realisations) == (24, 4)


def test_counts_are_measured_as_density(tmp_path: Path) -> None:
    metadata = write_example(tmp_path / "a.h5", quantity="counts")
    slices = read_slices(tmp_path / "a.h5").slices
    delta = torch.from_numpy(slices.astype(np.float64)) / metadata.mean_count - 1
    with SliceReader(tmp_path / "a.h5") as reader:
        found = measure(reader, [PowerSpectrum()])
    expected = power_spectrum(delta, metadata.box_size).mean(0).numpy()
    expect_close(found.accumulators["power_spectrum"].mean(), expected, DENSITY)
    expect_close(np.array(found.mean_density), np.array(float(delta.mean()) + 1), DENSITY)


@pytest.mark.parametrize(("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-0.5, "negative")])
def test_values_that_no_density_has(tmp_path: Path, bad: float, word: str) -> None:
    path = tmp_path / "a.h5"
    write_example(path)
    with h5py.File(path, "r+") as handle:
        handle["slices"][17, 3, 4] = bad
    with SliceReader(path) as reader, pytest.raises(UserError, match=rf"a\.h5: /slices holds .*{word}.*slice 17\b"):
        measure(reader, [PowerSpectrum()])


def test_constant_slices_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_example(path)
    with h5py.File(path, "r+") as handle:
        handle["slices"][5] = 1.0
        handle["slices"][9] = 0.0
    with SliceReader(path) as reader:
        found = measure(reader, [PowerSpectrum()])
    assert (found.n_constant, found.first_constant) == (2, 5)


def test_names_must_differ(tmp_path: Path) -> None:
    write_example(tmp_path / "a.h5")
    with SliceReader(tmp_path / "a.h5") as reader, pytest.raises(ValueError, match="different names"):
        measure(reader, [PowerSpectrum(), PowerSpectrum("log")])
