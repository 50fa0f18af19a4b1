import itertools
import math

import numpy as np
import pytest

from cosmogan.statistics.accumulator import Accumulator
from cosmogan.validation.compare import compare_statistic
from cosmogan.validation.sets.correlation import CorrelationComparison, compare_correlations
from tests.cosmogan.validation.test_compare import METADATA, Fake

N_BINS, N_SLICES = 6, 40_000
ALL = np.ones(N_BINS, dtype=bool)
# Four standard deviations of a variance, and of a correlation (smaller by 1 - r^2 besides), each between two sets.
SAMPLED_VARIANCE = 4 * math.sqrt(2 * 2 / N_SLICES)
SAMPLED_CORRELATION = 4 * math.sqrt(2 / N_SLICES)
FLOAT64 = 1e-9


def slices(correlation: float, *, scatter: float = 0.2, seed: int = 0, n_slices: int = N_SLICES) -> np.ndarray:
    """Means of 1, any two bins with this correlation."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(size=(n_slices, 1)), rng.normal(size=(n_slices, N_BINS))
    return 1 + scatter * (math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own)


def accumulated(values: np.ndarray, n_realisations: int = 4) -> Accumulator:
    accumulator = Accumulator(values.shape[1])
    accumulator.update(values, np.arange(len(values)) % n_realisations)
    return accumulator


def compared(mocks: np.ndarray, reference: np.ndarray, judged: np.ndarray = ALL) -> CorrelationComparison:
    return compare_correlations(accumulated(mocks), accumulated(reference), judged, seed=0)


def expect(found: CorrelationComparison, *, difference: float, variance: float) -> None:
    assert found.rms_difference == pytest.approx(difference, abs=SAMPLED_CORRELATION)
    assert found.variance == pytest.approx(variance, abs=SAMPLED_VARIANCE * (1 + variance))


def test_known_correlations_and_variances() -> None:
    mocks, reference = slices(0.3, scatter=0.1 * math.sqrt(2), seed=1), slices(0.6, seed=2)
    found = compared(mocks, reference)
    expect(found, difference=0.3, variance=-0.5)
    off_diagonal = ~np.eye(N_BINS, dtype=bool)
    np.testing.assert_allclose(found.mocks[off_diagonal], 0.3, atol=SAMPLED_CORRELATION)
    np.testing.assert_allclose(found.reference[off_diagonal], 0.6, atol=SAMPLED_CORRELATION)
    np.testing.assert_allclose(np.diag(found.mocks), 1, rtol=FLOAT64)


def test_alike_but_for_noise() -> None:
    found = compared(slices(0.6, seed=1), slices(0.6, seed=2))
    expect(found, difference=0.0, variance=0.0)
    # The floor is noise alone here; halves are half as many.
    assert 0 < found.rms_floor < SAMPLED_CORRELATION
    assert 0 < found.variance_floor < SAMPLED_VARIANCE


@pytest.mark.parametrize(("correlation", "factor"), [(0.6, 1.05), (0.6, 1 / 1.05), (0.65, 1.0), (0.55, 1.0)])
def test_five_percent_are_seen(correlation: float, factor: float) -> None:
    with pytest.raises(AssertionError):
        expect(
            compared(slices(correlation, scatter=0.2 * math.sqrt(factor), seed=1), slices(0.6, seed=2)),
            difference=0.0,
            variance=0.0,
        )


def test_equals_numpy() -> None:
    mocks, reference = slices(0.2, n_slices=30, seed=3), slices(0.5, n_slices=40, seed=4)
    judged = np.array([True, True, False, True, True, False])
    found = compared(mocks, reference, judged)
    np.testing.assert_allclose(found.mocks, np.corrcoef(mocks.T), rtol=FLOAT64)

    def numbers(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
        a, b = (np.corrcoef(values[:, judged].T) for values in (one, other))
        squares = [(a[i, j] - b[i, j]) ** 2 for i in range(4) for j in range(4) if i != j]
        ratio = one[:, judged].var(0, ddof=1) / other[:, judged].var(0, ddof=1)
        return math.sqrt(np.mean(squares)), float(np.median(ratio)) - 1

    assert (found.rms_difference, found.variance) == pytest.approx(numbers(mocks, reference), rel=FLOAT64)
    label = np.arange(40) % 4
    halves = [np.isin(label, (0, other)) for other in (1, 2, 3)]
    splits = [numbers(reference[half], reference[~half]) for half in halves]
    expected = [math.sqrt(np.mean(np.square(values))) for values in zip(*splits, strict=True)]
    assert [found.rms_floor, found.variance_floor] == pytest.approx(expected, rel=FLOAT64)


def both(found: CorrelationComparison) -> list[float]:
    return [score.value for score in found.scores("x")]


def test_means_and_order_do_not_matter() -> None:
    mocks, reference = slices(0.2, n_slices=60, seed=3), slices(0.5, n_slices=60, seed=4)
    found, moved = compared(mocks, reference), compared(mocks + 0.3, reference)
    assert both(moved) == pytest.approx(both(found), rel=FLOAT64)
    order = np.random.default_rng(0).permutation(60)
    assert both(compared(mocks[order], reference)) == pytest.approx(both(found), rel=FLOAT64)


def test_copies_of_one_slice_do_not_vary() -> None:
    found = compared(np.repeat(slices(0.5, n_slices=1), 100, 0), slices(0.5, n_slices=100))
    assert found.variance == pytest.approx(-1.0, abs=FLOAT64)
    # Correlations of rounding errors are none.
    assert math.isnan(found.rms_difference)


def test_unknown_without_halves_or_bins() -> None:
    mocks, reference = slices(0.2, n_slices=60, seed=3), slices(0.5, n_slices=60, seed=4)
    one = compare_correlations(accumulated(mocks), accumulated(reference, 1), ALL, seed=0)
    assert math.isnan(one.rms_floor)
    assert math.isfinite(one.rms_difference)
    many = compare_correlations(accumulated(mocks), accumulated(np.repeat(reference, 10, 0), 300), ALL, seed=0)
    assert math.isnan(many.rms_floor)
    assert math.isnan(compared(mocks, reference, np.arange(N_BINS) == 1).rms_difference)
    single = compared(mocks[:1], reference)
    assert all(math.isnan(value) for value in both(single))


def test_half_covariances_are_those_of_the_halves() -> None:
    values = slices(0.5, n_slices=15, seed=5)
    accumulator, label = accumulated(values, 5), np.arange(15) % 5
    pairs = list(
        accumulator.disjoint_covariances(
            accumulator.n_realisations // 2, accumulator.n_realisations - accumulator.n_realisations // 2, seed=0
        )
    )
    picks = list(itertools.combinations(range(5), 2))
    assert len(pairs) == len(picks)
    for (first, second), pick in zip(pairs, picks, strict=True):
        half = np.isin(label, pick)
        np.testing.assert_allclose(first, np.cov(values[half].T), rtol=FLOAT64)
        np.testing.assert_allclose(second, np.cov(values[~half].T), rtol=FLOAT64)


def test_numbers_stand_beside_those_of_the_means() -> None:
    class Correlated(Fake):
        correlated = True

    mocks, reference = accumulated(slices(0.2, seed=1)), accumulated(slices(0.5, seed=2))
    entry = compare_statistic(Correlated(N_BINS), mocks, reference, METADATA)
    assert entry.correlation is not None
    assert entry.scores == entry.correlation.scores("fake")
    variance, correlation = entry.scores
    assert (variance.name, correlation.name) == ("fake_variance", "fake_correlation")
    assert (variance.value, variance.floor) == (abs(entry.correlation.variance), entry.correlation.variance_floor)
    assert (correlation.value, correlation.floor) == (entry.correlation.rms_difference, entry.correlation.rms_floor)
    # Halves of the reference scatter by the floor, two sets as large as it by sqrt(2) less.
    assert correlation.sigmas == pytest.approx(correlation.value / (entry.correlation.rms_floor / math.sqrt(2)))
    plain = compare_statistic(Fake(N_BINS), mocks, reference, METADATA)
    assert (plain.correlation, plain.scores) == (None, ())
