import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosmogan.slices import SliceMetadata, read_slices, write_example, write_slices
from cosmogan.statistics.accumulator import Accumulator
from cosmogan.statistics.base import AbstractStatistic
from cosmogan.statistics.bispectrum import EquilateralBispectrum, IsoscelesBispectrum
from cosmogan.statistics.histogram import Histogram
from cosmogan.statistics.peaks import Peaks
from cosmogan.statistics.power_spectrum import PowerSpectrum
from cosmogan.validation.closeness import Closeness, closeness
from cosmogan.validation.compare import compare
from cosmogan.validation.comparison import Comparison, StatisticComparison
from cosmogan.validation.means import compare_statistic
from cosmogan.validation.report.page_tables import closeness_table
from cosmogan.validation.report.record import to_record
from cosmogan.validation.report.table import format_table
from cosmogan.validation.thresholds import load_thresholds

# Densities are stored in float32.
FLOAT32 = 1e-3
# Four standard deviations of a mean of squares of 100 x 27 normal numbers about 1, and of the share beyond two sigmas.
CHI2_NOISE, SHARE_NOISE = 0.11, 0.016
METADATA = SliceMetadata(box_size=100.0, n_pixels=64, thickness=1.0)


def scaled(path: Path, source: Path, factor: float) -> Path:
    """Write slices whose P(k) is ``factor`` times that of ``source``."""
    held = read_slices(source)
    slices = 1 + math.sqrt(factor) * (held.slices.astype(np.float64) - 1)
    write_slices(path, replace(held, slices=np.maximum(slices, 0).astype(np.float32)), overwrite=True)
    return path


def of_means(
    statistic: AbstractStatistic, mocks: np.ndarray, reference: np.ndarray, *, error: float = 0.0, seed: int = 0
) -> StatisticComparison:
    """Compare two sets of eight realisations with given means and normal scatter between realisations."""
    rng = np.random.default_rng(seed)
    sums = []
    for mean in (mocks, reference):
        held = Accumulator(len(mean))
        for label in range(8):
            # Two slices each, equal, so that slices scatter no more than realisations do.
            held.update(np.repeat((mean + error * rng.normal(size=len(mean)))[None], 2, 0), label)
        sums.append(held)
    return compare_statistic(statistic, *sums, METADATA, n_bootstrap=20, seed=seed)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("slices")
    for seed, name in enumerate(("mocks", "reference", "training")):
        write_example(folder / f"{name}.h5", seed=seed)
    mocks, training = scaled(folder / "m.h5", folder / "training.h5", 1.0), folder / "training.h5"
    return compare(mocks, folder / "reference.h5", training=training, statistics=[PowerSpectrum()], n_bootstrap=20)


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_power_is_compared_with_the_training_slices(tmp_path: Path, factor: float) -> None:
    # Contrast small enough that no density turns negative.
    for seed, name in enumerate(("training", "reference")):
        write_example(tmp_path / "example.h5", seed=seed)
        scaled(tmp_path / f"{name}.h5", tmp_path / "example.h5", 0.01)
    training = tmp_path / "training.h5"
    mocks = scaled(tmp_path / "mocks.h5", training, factor)
    found = compare(mocks, tmp_path / "reference.h5", training=training, statistics=[PowerSpectrum()], n_bootstrap=20)
    assert found.training is not None
    own = closeness(found.training_statistics, n_slices=found.training.n_slices)["power_spectrum"]
    other = closeness(found.statistics, n_slices=found.reference.n_slices)["power_spectrum"]
    assert own.maximum == pytest.approx(factor - 1, abs=FLOAT32)
    assert own.median == pytest.approx(factor - 1, abs=FLOAT32)
    # Six slices of white noise in four realisations scatter by more.
    assert other.maximum > 0.06


def test_perfect_mocks_and_mocks_three_sigmas_off() -> None:
    power = np.ones(len(PowerSpectrum().edges(METADATA)) - 1)
    error, both = 0.01, 0.01 * math.sqrt(2 / 8)

    def mean(offset: float) -> tuple[float, float]:
        found = []
        for seed in range(100):
            entry = of_means(PowerSpectrum(), power + offset, power, error=error, seed=seed)
            # Errors as they are, not as eight realisations estimate them.
            entry = replace(entry, sigmas=(entry.mocks - entry.reference) / both)
            found.append(closeness([entry], n_slices=16)["power_spectrum"])
        assert found[0].n_bins == 27
        return float(np.mean([one.within for one in found])), float(np.mean([one.chi2 for one in found]))

    within, chi2 = mean(0.0)
    assert within == pytest.approx(0.9545, abs=SHARE_NOISE)
    assert chi2 == pytest.approx(1.0, abs=CHI2_NOISE)
    within, chi2 = mean(3 * both)
    assert within == pytest.approx(0.1587, abs=4 * SHARE_NOISE)
    assert chi2 == pytest.approx(10.0, abs=6 * CHI2_NOISE)


def test_histogram_counts_from_percentile_to_percentile() -> None:
    statistic = Histogram()
    shares = np.zeros(len(statistic.edges(METADATA)) - 1)
    # Cumulated: 0.5e-4, 1.5e-4, ..., 0.99985, 0.99995, 1: the 0.01th and 99.99th percentile lie in bins 11 and 13.
    shares[10:15] = 0.5e-4, 1e-4, 0.9997, 1e-4, 0.5e-4
    entry = of_means(statistic, shares, shares)
    counted, text = statistic.counted(entry.reference, entry.judged, n_slices=16)
    assert np.flatnonzero(counted).tolist() == [11, 12, 13]
    assert "0.01 to 99.99" in text


def test_peaks_count_from_500_in_the_simulation() -> None:
    statistic = Peaks()
    number = np.full(len(statistic.edges(METADATA)) - 1, 10.0)
    number[3], number[4] = 4.99, 5.0
    entry = of_means(statistic, 2 * number, number)
    counted, text = statistic.counted(entry.reference, entry.judged, n_slices=100)
    assert np.flatnonzero(~counted).tolist() == [3]
    assert "500 peaks" in text


def test_all_triangles_are_one_statistic() -> None:
    entries = []
    for statistic, factor in ((EquilateralBispectrum(), 1.1), (IsoscelesBispectrum(), 0.7)):
        ones = np.ones(len(statistic.edges(METADATA)) - 1)
        entries.append(of_means(statistic, factor * ones, ones))
    (found,) = closeness(entries, n_slices=16).values()
    assert found.name == "bispectrum"
    assert found.n_bins == sum(len(entry.ratio) for entry in entries)
    assert found.maximum == pytest.approx(0.3)
    assert found.median == pytest.approx(np.median(np.abs(np.concatenate([e.ratio for e in entries]))))


def test_what_is_not_finite_is_infinitely_wrong() -> None:
    power = np.ones(len(PowerSpectrum().edges(METADATA)) - 1)
    broken = power.copy()
    broken[4] = math.nan
    found = closeness([of_means(PowerSpectrum(), broken, power, error=0.01)], n_slices=16)["power_spectrum"]
    assert found.maximum == math.inf
    assert found.within < 1


def test_a_single_realisation_knows_no_sigmas(tmp_path: Path) -> None:
    write_example(tmp_path / "one.h5", n_realisations=1)
    write_example(tmp_path / "mocks.h5", seed=1)
    entries = compare(tmp_path / "mocks.h5", tmp_path / "one.h5", statistics=[PowerSpectrum()], n_bootstrap=20)
    found = closeness(entries.statistics, n_slices=6)["power_spectrum"]
    assert math.isnan(found.within)
    assert math.isnan(found.chi2)
    assert math.isnan(found.floor_maximum)


def test_floor_is_that_of_the_entry(comparison: Comparison) -> None:
    entry = comparison.statistics[0]
    found = closeness([entry], n_slices=24)["power_spectrum"]
    assert isinstance(found, Closeness)
    assert entry.floor is not None
    assert found.floor_maximum == entry.floor[entry.judged].max()
    assert found.floor_median == np.median(entry.floor[entry.judged])


def test_report_says_how_far_the_training_slices_are(comparison: Comparison) -> None:
    asked = load_thresholds()
    without = replace(comparison, training=None, training_statistics=())
    one, other = to_record([comparison, without], asked)["comparisons"]
    assert one["training"]["n_slices"] == 24
    assert one["closeness"]["training"]["power_spectrum"]["maximum"] < FLOAT32
    assert one["closeness"]["reference"]["power_spectrum"]["maximum"] > 0.06
    assert other["training"] is None
    assert other["closeness"] == {"reference": one["closeness"]["reference"]}
    for text, found in (
        (
            "mean of the training slices",
            lambda held: [cell.text for row in closeness_table(held).head for cell in row.cells],
        ),
        ("mean of its training slices", lambda held: format_table([held], asked)),
    ):
        assert text in found(comparison)
        assert text not in found(without)
